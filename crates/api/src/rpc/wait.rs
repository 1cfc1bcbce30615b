//! Waiting for the tip: `waitfornewblock`, `waitforblock`, `waitforblockheight`.

use std::time::Duration;

use bitcoin::BlockHash;
use dunlin_chain::Entry;
use serde_json::json;

use super::error::{MISC_ERROR, RpcError};
use super::method::{Answer, Call};

/// Waits until something holds of the tip, or as many milliseconds as the argument at `position` says, zero for ever,
/// or until the node stops; tells the tip as it is then.
async fn wait(call: &Call, position: usize, holds: impl Fn(&Entry) -> bool) -> Answer {
    let millis: i32 = call.int_or(position, 0)?;
    let millis = u64::try_from(millis).map_err(|_| RpcError::new(MISC_ERROR, "Negative timeout"))?;
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let mut changes = bitcoin.tip_changed();
    let reached = async { while !holds(&view.tip()) && changes.changed().await.is_ok() {} };
    let limit = async {
        match millis {
            0 => std::future::pending().await,
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    };
    tokio::select! {
        () = reached => {}
        () = limit => {}
        () = call.shared.node.stop.wait() => {}
    }
    let tip = view.tip();
    Ok(json!({ "hash": tip.hash.to_string(), "height": tip.height }))
}

pub(crate) async fn waitfornewblock(call: Call) -> Answer {
    let known: BlockHash = match call.given(1) {
        true => call.hash(1, "current_tip")?,
        false => call.view()?.tip().hash,
    };
    wait(&call, 0, |tip| tip.hash != known).await
}

pub(crate) async fn waitforblock(call: Call) -> Answer {
    let wanted: BlockHash = call.hash(0, "blockhash")?;
    wait(&call, 1, |tip| tip.hash == wanted).await
}

pub(crate) async fn waitforblockheight(call: Call) -> Answer {
    let wanted: i32 = call.int(0)?;
    wait(&call, 1, |tip| i64::from(tip.height) >= i64::from(wanted)).await
}
