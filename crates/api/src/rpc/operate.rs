//! What an operator may do to the chain: `invalidateblock`, `reconsiderblock`, `preciousblock`, `pruneblockchain`; and
//! `getchaintips`, where the effect shows.

use dunlin_chain::{OperateError, PRUNE_KEEP, Prune};
use serde_json::{Value, json};

use super::RpcError;
use super::error::{DATABASE_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR};
use super::method::{Answer, Call};
use crate::backend::{ChainOp, ChainOpError, Operated};

impl From<ChainOpError> for RpcError {
    fn from(error: ChainOpError) -> Self {
        match error {
            ChainOpError::Chain(error @ OperateError::NotFound(_)) => {
                Self::new(INVALID_ADDRESS_OR_KEY, error.to_string())
            }
            ChainOpError::Chain(error) => Self::new(DATABASE_ERROR, error.to_string()),
            ChainOpError::Backend(error) => error.into(),
        }
    }
}

async fn done(call: &Call, op: ChainOp) -> Answer {
    match call.bitcoin()?.operate(op).await? {
        Operated::Done => Ok(Value::Null),
    }
}

pub(crate) async fn invalidateblock(call: Call) -> Answer {
    done(&call, ChainOp::Invalidate(call.hash(0, "blockhash")?)).await
}

pub(crate) async fn reconsiderblock(call: Call) -> Answer {
    done(&call, ChainOp::Reconsider(call.hash(0, "blockhash")?)).await
}

pub(crate) async fn preciousblock(call: Call) -> Answer {
    done(&call, ChainOp::Prefer(call.hash(0, "blockhash")?)).await
}

/// A number above this is no height but a time: that of September 2001.
const FIRST_TIME: i32 = 1_000_000_000;
/// Blocks may be this much older than those before them, in seconds.
const TIMESTAMP_WINDOW: i32 = 2 * 60 * 60;

pub(crate) async fn pruneblockchain(call: Call) -> Answer {
    let view = call.view()?;
    if view.prune() == Prune::Off {
        let text = "Cannot prune blocks because node is not in prune mode.";
        return Err(RpcError::new(MISC_ERROR, text));
    }
    let invalid = |text: &str| RpcError::new(INVALID_PARAMETER, text);
    let given: i32 = call.int(0)?;
    let mut height = u32::try_from(given).map_err(|_| invalid("Negative block height."))?;
    if given > FIRST_TIME {
        let entry = view.first_at_time(height.saturating_sub(TIMESTAMP_WINDOW.unsigned_abs()));
        let entry = entry.ok_or_else(|| invalid("Could not find block with at least the specified timestamp."))?;
        height = entry.height;
    }
    let tip = view.tip().height;
    if tip < view.params().prune_after_height {
        return Err(RpcError::new(MISC_ERROR, "Blockchain is too short for pruning."));
    }
    if height > tip {
        return Err(invalid("Blockchain is shorter than the attempted prune height."));
    }
    let height = height.min(tip.saturating_sub(PRUNE_KEEP));
    done(&call, ChainOp::Prune(height)).await?;
    Ok(view.prune_height().map_or(-1, i64::from).into())
}

pub(crate) fn getchaintips(call: &Call) -> Answer {
    let tip = |tip: dunlin_chain::ChainTip| {
        json!({
            "height": tip.entry.height,
            "hash": tip.entry.hash.to_string(),
            "branchlen": tip.branch_len,
            "status": tip.status.name(),
        })
    };
    Ok(call.view()?.chain_tips().into_iter().map(tip).collect())
}
