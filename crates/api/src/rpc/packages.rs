//! Transactions judged together: `testmempoolaccept`, `submitpackage`.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use bitcoin::{Transaction, Txid};
use dunlin_mempool::{
    Accepted, FeeRate, MAX_PACKAGE_COUNT, PackageErrorKind, PackageOutcome, PackageTx, RejectKind,
    is_child_with_parents_tree,
};
use serde_json::{Map, Value, json};

use super::error::{
    DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_PARAMETER, RpcError, TYPE_ERROR, VERIFY_ERROR, VERIFY_REJECTED,
};
use super::json::{btc, btc_u};
use super::method::{Answer, Call};
use super::params::mismatch;
use super::submit::{check_burn, max_fee_rate};
use super::{tx, unix_now, with_pool};
use crate::backend::SubmitTxError;

/// The transactions of a list of hex strings.
fn transactions(call: &Call) -> Result<Vec<Arc<Transaction>>, RpcError> {
    let list = call.list(0)?;
    if list.is_empty() || list.len() > MAX_PACKAGE_COUNT {
        let text = format!("Array must contain between 1 and {MAX_PACKAGE_COUNT} transactions.");
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    let decode = |value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(value, "string")))?;
        tx::from_hex(text).map(Arc::new).ok_or_else(|| {
            let text = format!("TX decode failed: {text} Make sure the tx has at least one input.");
            RpcError::new(DESERIALIZATION_ERROR, text)
        })
    };
    list.iter().map(decode).collect()
}

/// What a transaction pays, and by what rate it was judged.
fn fees(accepted: &Accepted) -> Value {
    let includes: Vec<String> = accepted.effective_includes.iter().map(ToString::to_string).collect();
    json!({
        "base": btc_u(accepted.fee.to_sat()),
        "effective-feerate": btc(accepted.effective_feerate),
        "effective-includes": includes,
    })
}

pub(crate) fn testmempoolaccept(call: &Call) -> Answer {
    let max_rate = FeeRate::from_sat_per_kvb(max_fee_rate(call, 1)?);
    let txs = transactions(call)?;
    let outcome = with_pool(&*call.bitcoin()?, |pool| match txs.as_slice() {
        [tx] => {
            let result = pool.test_accept(unix_now(), Arc::clone(tx));
            let result = result.map_or_else(PackageTx::Refused, PackageTx::Accepted);
            PackageOutcome {
                error: None,
                results: [(tx.compute_wtxid(), result)].into(),
            }
        }
        txs => pool.test_package(unix_now(), txs),
    });
    let policy = outcome
        .error
        .as_ref()
        .filter(|error| error.kind == PackageErrorKind::Policy);
    let mut over = false;
    let mut answer = Vec::new();
    for tx in &txs {
        let wtxid = tx.compute_wtxid();
        let mut map = Map::new();
        map.insert("txid".into(), tx.compute_txid().to_string().into());
        map.insert("wtxid".into(), wtxid.to_string().into());
        if let Some(error) = policy {
            map.insert("package-error".into(), error.to_string().into());
        }
        match outcome.results.get(&wtxid).filter(|_| !over) {
            Some(PackageTx::Accepted(accepted)) => {
                let most = max_rate.fee(accepted.vsize);
                if most.to_sat() != 0 && accepted.fee > most {
                    map.insert("allowed".into(), false.into());
                    map.insert("reject-reason".into(), "max-fee-exceeded".into());
                    over = true;
                } else {
                    map.insert("allowed".into(), true.into());
                    map.insert("vsize".into(), accepted.vsize.into());
                    map.insert("fees".into(), fees(accepted));
                }
            }
            Some(PackageTx::Refused(reject)) => {
                map.insert("allowed".into(), false.into());
                if matches!(reject.kind, RejectKind::MissingInputs(_)) {
                    map.insert("reject-reason".into(), "missing-inputs".into());
                } else {
                    map.insert("reject-reason".into(), reject.reason.as_ref().into());
                    map.insert("reject-details".into(), reject.to_string().into());
                }
            }
            // Not looked at: one before it failed. Tests find nothing known.
            Some(PackageTx::Known { .. } | PackageTx::OtherWitness(_)) | None => {}
        }
        answer.push(Value::Object(map));
    }
    Ok(answer.into())
}

pub(crate) async fn submitpackage(call: Call) -> Answer {
    let rate = max_fee_rate(&call, 1)?;
    let max_rate = (rate != 0).then(|| FeeRate::from_sat_per_kvb(rate));
    let max_burn = if call.given(2) { call.amount(2)? } else { 0 };
    let txs = transactions(&call)?;
    for tx in &txs {
        check_burn(tx, max_burn)?;
    }
    if txs.len() > 1 && !is_child_with_parents_tree(&txs) {
        let text = "package topology disallowed. not child-with-parents or parents depend on each other.";
        return Err(RpcError::new(VERIFY_REJECTED, text));
    }
    let bitcoin = call.bitcoin()?;
    let work = {
        let (pool, txs) = (bitcoin.pool(), txs.clone());
        move || {
            let mut pool = pool.write().unwrap_or_else(PoisonError::into_inner);
            pool.accept_package(unix_now(), &txs, max_rate)
        }
    };
    let outcome = tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))?;
    for tx in &txs {
        if with_pool(&*bitcoin, |pool| pool.contains(&tx.compute_txid())) {
            // It is in the pool; handing it in again floods it.
            match bitcoin.submit_tx(Arc::clone(tx)).await {
                Ok(_) => {}
                Err(SubmitTxError::Rejected(reject)) if reject.kind.is_already_known() => {}
                Err(SubmitTxError::Rejected(reject)) => return Err(RpcError::new(VERIFY_ERROR, reject.to_string())),
                Err(SubmitTxError::Backend(error)) => return Err(error.into()),
            }
        }
    }
    let mut results = Map::new();
    let mut replaced: BTreeSet<Txid> = BTreeSet::new();
    for tx in &txs {
        let wtxid = tx.compute_wtxid();
        let mut map = Map::new();
        map.insert("txid".into(), tx.compute_txid().to_string().into());
        match outcome.results.get(&wtxid) {
            None => {
                map.insert("error".into(), "package-not-validated".into());
            }
            Some(PackageTx::OtherWitness(other)) => {
                map.insert("other-wtxid".into(), other.to_string().into());
            }
            Some(PackageTx::Refused(reject)) => {
                map.insert("error".into(), reject.to_string().into());
            }
            Some(PackageTx::Known { vsize, fee }) => {
                map.insert("vsize".into(), (*vsize).into());
                map.insert("fees".into(), json!({ "base": btc_u(fee.to_sat()) }));
            }
            Some(PackageTx::Accepted(accepted)) => {
                map.insert("vsize".into(), accepted.vsize.into());
                map.insert("fees".into(), fees(accepted));
                replaced.extend(&accepted.replaced);
            }
        }
        results.insert(wtxid.to_string(), Value::Object(map));
    }
    let message = outcome
        .error
        .map_or_else(|| "success".to_owned(), |error| error.to_string());
    let replaced: Vec<String> = replaced.iter().map(ToString::to_string).collect();
    Ok(json!({
        "package_msg": message,
        "tx-results": results,
        "replaced-transactions": replaced,
    }))
}
