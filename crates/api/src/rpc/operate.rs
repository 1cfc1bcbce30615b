//! What an operator may do to the chain: `invalidateblock`, `reconsiderblock`, `preciousblock`, `pruneblockchain`,
//! `getblockfrompeer`; and to look at it: `getchaintips`, `verifychain`.

use dunlin_chain::{OperateError, PRUNE_KEEP, Prune, Verification, VerifyReport};
use serde_json::{Value, json};

use super::RpcError;
use super::error::{DATABASE_ERROR, INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR};
use super::method::{Answer, Call};
use crate::backend::{BackendError, ChainOp, ChainOpError, LinkId, Operated};

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
    call.bitcoin()?.operate(op).await?;
    Ok(Value::Null)
}

async fn verified(call: &Call, asked: Verification) -> Result<VerifyReport, RpcError> {
    match call.bitcoin()?.operate(ChainOp::Verify(asked)).await? {
        Operated::Verified(report) => Ok(report),
        _ => Err(RpcError::new(INTERNAL_ERROR, "the check gave no report")),
    }
}

/// Core's defaults.
const CHECK_LEVEL: i32 = 3;
const CHECK_BLOCKS: i32 = 6;

fn asked(level: i32, blocks: i32, repair: bool) -> Verification {
    Verification {
        // Nothing and less means all.
        blocks: u32::try_from(blocks).unwrap_or(0),
        level: u8::try_from(level.clamp(0, 4)).unwrap_or(0),
        repair,
    }
}

pub(crate) async fn verifychain(call: Call) -> Answer {
    let asked = asked(call.int_or(0, CHECK_LEVEL)?, call.int_or(1, CHECK_BLOCKS)?, false);
    Ok(verified(&call, asked).await?.is_complete_and_well().into())
}

/// `dunlin.verify`: what `verifychain` finds, record by record.
pub(crate) async fn verify(call: Call) -> Answer {
    let blocks = call.int_or(0, CHECK_BLOCKS)?;
    let asked = asked(call.int_or(1, CHECK_LEVEL)?, blocks, call.bool_or(2, false)?);
    Ok(report_json(&verified(&call, asked).await?))
}

/// What `dunlin.verify` answers.
pub fn report_json(report: &VerifyReport) -> Value {
    let fault = |fault: &dunlin_chain::Fault| {
        json!({
            "height": fault.height,
            "hash": fault.hash.to_string(),
            "what": fault.what,
            "repaired": fault.repaired,
        })
    };
    json!({
        "checked": report.checked,
        "blocks_missing": report.blocks_missing,
        "coins_skipped": report.coins_skipped,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

pub(crate) async fn getblockfrompeer(call: Call) -> Answer {
    let (view, hash) = (call.view()?, call.hash(0, "blockhash")?);
    let peer: i64 = call.int(1)?;
    let refused = |text: &str| RpcError::new(MISC_ERROR, text);
    let entry = view.entry(&hash).ok_or_else(|| refused("Block header missing"))?;
    if view.prune() != Prune::Off && entry.height > view.tip().height {
        return Err(refused(
            "In prune mode, only blocks that the node has already synced previously can be fetched from a peer",
        ));
    }
    if entry.have_data {
        return Err(refused("Block already downloaded"));
    }
    let peer = u64::try_from(peer).map_err(|_| refused("Peer does not exist"))?;
    match call.bitcoin()?.fetch_block(LinkId(peer), hash).await {
        Ok(()) => Ok(json!({})),
        Err(BackendError::Invalid(why)) => Err(refused(&why)),
        Err(other) => Err(other.into()),
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
