//! `dunlin.*`: what only our own command line asks.

use super::RpcError;
use super::error::INTERNAL_ERROR;
use super::method::{Answer, Call};
use crate::dashboard::status;

pub(crate) async fn status(call: Call) -> Answer {
    let snapshot = status::snapshot(&call.shared.node).await;
    serde_json::to_value(snapshot).map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))
}
