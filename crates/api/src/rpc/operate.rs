//! What an operator may do to the chain: `invalidateblock`, `reconsiderblock`, `preciousblock`; and `getchaintips`,
//! where the effect shows.

use dunlin_chain::OperateError;
use serde_json::{Value, json};

use super::RpcError;
use super::error::{DATABASE_ERROR, INVALID_ADDRESS_OR_KEY};
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
