//! Handing in transactions and blocks: `sendrawtransaction`, `submitblock`.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, Transaction};
use dunlin_chain::{BlockError, HeaderReject, OperateError};
use dunlin_mempool::{PoolReject, RejectKind};
use serde_json::Value;

use super::chain::{block_from_hex, store_error};
use super::error::{
    ALREADY_IN_UTXO_SET, DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_PARAMETER, RpcError, VERIFY_ERROR,
    VERIFY_REJECTED,
};
use super::method::{Answer, Call};
use super::{script, tx, with_pool};
use crate::backend::{BitcoinBackend, ChainOp, ChainOpError, SubmitBlockError, SubmitTxError};

/// Satoshi per 1000 virtual bytes above which a transaction is taken for a mistake: 0.1 BTC.
const DEFAULT_MAX_FEE_RATE: u64 = 10_000_000;
/// No caller may allow more than this: 1 BTC.
const FEE_RATE_LIMIT: u64 = 100_000_000;

pub(crate) async fn sendrawtransaction(call: Call) -> Answer {
    let max_burn = if call.given(2) { call.amount(2)? } else { 0 };
    let tx = tx::from_hex(call.str(0)?).ok_or_else(|| {
        RpcError::new(
            DESERIALIZATION_ERROR,
            "TX decode failed. Make sure the tx has at least one input.",
        )
    })?;
    check_burn(&tx, max_burn)?;
    let max_fee_rate = max_fee_rate(&call, 1)?;
    let bitcoin = call.bitcoin()?;
    let tx = Arc::new(tx);
    let checks = {
        let (bitcoin, tx) = (Arc::clone(&bitcoin), Arc::clone(&tx));
        move || before_submit(&*bitcoin, &tx, max_fee_rate)
    };
    let known = tokio::task::spawn_blocking(checks)
        .await
        .map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))??;
    let txid = tx.compute_txid();
    match bitcoin.submit_tx(tx).await {
        Ok(_) => {}
        Err(SubmitTxError::Rejected(reject)) if known && reject.kind.is_already_known() => {}
        Err(SubmitTxError::Rejected(reject)) => return Err(pool_reject(&reject)),
        Err(SubmitTxError::Backend(error)) => return Err(error.into()),
    }
    Ok(txid.to_string().into())
}

/// The fee rate above which the caller wants nothing to be taken, in satoshi per 1000 virtual bytes; 0 for no bound.
pub(super) fn max_fee_rate(call: &Call, position: usize) -> Result<u64, RpcError> {
    let rate = if call.given(position) {
        call.amount(position)?
    } else {
        DEFAULT_MAX_FEE_RATE
    };
    if rate >= FEE_RATE_LIMIT {
        let text = "Fee rates larger than or equal to 1BTC/kvB are not accepted";
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    Ok(rate)
}

/// Refuses an output that nobody can spend and that holds more than `most` satoshi.
pub(super) fn check_burn(tx: &Transaction, most: u64) -> Result<(), RpcError> {
    let burns = |output: &bitcoin::TxOut| {
        (script::is_unspendable(&output.script_pubkey) || !script::has_valid_ops(&output.script_pubkey))
            && output.value.to_sat() > most
    };
    if tx.output.iter().any(burns) {
        let text = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(RpcError::new(VERIFY_ERROR, text));
    }
    Ok(())
}

/// Whether the pool has the transaction already. Fails when it is confirmed or pays far too much.
fn before_submit(bitcoin: &dyn BitcoinBackend, tx: &Transaction, max_fee_rate: u64) -> Result<bool, RpcError> {
    let view = bitcoin.view();
    let txid = tx.compute_txid();
    for vout in 0..u32::try_from(tx.output.len()).unwrap_or(u32::MAX) {
        if view.coin(&OutPoint { txid, vout }).map_err(store_error)?.is_some() {
            return Err(RpcError::new(
                ALREADY_IN_UTXO_SET,
                "Transaction outputs already in utxo set",
            ));
        }
    }
    if with_pool(bitcoin, |pool| pool.get(&txid).is_some()) {
        return Ok(true);
    }
    if max_fee_rate == 0 {
        return Ok(false);
    }
    let mut value_in = 0u64;
    for input in &tx.input {
        let outpoint = input.previous_output;
        let parent = with_pool(bitcoin, |pool| pool.get(&outpoint.txid));
        let output = match parent {
            Some(parent) => usize::try_from(outpoint.vout)
                .ok()
                .and_then(|vout| parent.output.get(vout).cloned()),
            None => view.coin(&outpoint).map_err(store_error)?.map(|coin| coin.output),
        };
        // A missing input is for the pool to name.
        let Some(output) = output else { return Ok(false) };
        value_in = value_in.saturating_add(output.value.to_sat());
    }
    let value_out = tx
        .output
        .iter()
        .fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()));
    let vsize = tx.weight().to_wu().div_ceil(4);
    // Rounded up, as a fee for a size is.
    let max_fee = max_fee_rate.saturating_mul(vsize).div_ceil(1000);
    if value_in.saturating_sub(value_out) > max_fee {
        let text = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
        return Err(RpcError::new(VERIFY_ERROR, text));
    }
    Ok(false)
}

fn pool_reject(reject: &PoolReject) -> RpcError {
    let code = match &reject.kind {
        RejectKind::MissingInputs(_) => VERIFY_ERROR,
        RejectKind::Store => INTERNAL_ERROR,
        _ => VERIFY_REJECTED,
    };
    let text = if reject.detail.is_empty() {
        reject.reason.to_string()
    } else {
        format!("{}, {}", reject.reason, reject.detail)
    };
    RpcError::new(code, text)
}

pub(crate) async fn submitblock(call: Call) -> Answer {
    let block = block_from_hex(call.str(0)?)?;
    let hash = block.hash;
    let bitcoin = call.bitcoin()?;
    match bitcoin.submit_block(block).await {
        Ok(false) => Ok("duplicate".into()),
        Ok(true) if bitcoin.view().contains_in_active(&hash) => Ok(Value::Null),
        Ok(true) => Ok("inconclusive".into()),
        Err(SubmitBlockError::Block(BlockError::Invalid(reject))) => Ok(reject.reason.into()),
        Err(SubmitBlockError::Block(BlockError::MissingParent(_))) => Ok("prev-blk-not-found".into()),
        Err(SubmitBlockError::Block(BlockError::Store(error))) => Err(RpcError::new(VERIFY_ERROR, error.to_string())),
        Err(SubmitBlockError::Backend(error)) => Err(error.into()),
    }
}

pub(crate) async fn submitheader(call: Call) -> Answer {
    let decoded = hex::decode(call.str(0)?)
        .ok()
        .and_then(|bytes| deserialize(&bytes).ok());
    let header: Header = decoded.ok_or_else(|| RpcError::new(DESERIALIZATION_ERROR, "Block header decode failed"))?;
    let refused = |text: String| Err(RpcError::new(VERIFY_ERROR, text));
    match call.bitcoin()?.operate(ChainOp::Header(header)).await {
        Ok(_) => Ok(Value::Null),
        Err(ChainOpError::Chain(OperateError::Header(HeaderReject::Orphan(parent)))) => {
            refused(format!("Must submit previous header ({parent}) first"))
        }
        Err(ChainOpError::Chain(OperateError::Header(HeaderReject::Invalid { reject, .. }))) => {
            refused(reject.reason.to_string())
        }
        Err(error) => Err(error.into()),
    }
}
