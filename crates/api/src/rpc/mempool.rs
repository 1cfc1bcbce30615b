//! The memory pool: `getmempoolinfo`, `getrawmempool`, `getmempoolentry`.

use bitcoin::Txid;
use dunlin_mempool::{Entry, Pool};
use serde_json::{Value, json};

use super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError};
use super::json::btc_u;
use super::method::{Answer, Call};
use super::with_pool;

pub(crate) fn getmempoolinfo(call: &Call) -> Answer {
    let (info, config) = with_pool(&*call.bitcoin()?, |pool| (pool.info(), pool.config().clone()));
    Ok(json!({
        "loaded": true,
        "size": info.size,
        "bytes": info.bytes,
        "usage": info.usage,
        "total_fee": btc_u(info.total_fee.to_sat()),
        "maxmempool": info.max_bytes,
        "mempoolminfee": btc_u(info.min_feerate),
        "minrelaytxfee": btc_u(info.min_relay_feerate),
        "incrementalrelayfee": btc_u(info.incremental_feerate),
        "unbroadcastcount": 0,
        "permitbaremultisig": config.permit_bare_multisig,
        "maxdatacarriersize": config.max_datacarrier_bytes,
        "limitclustercount": config.cluster_count,
        "limitclustersize": config.cluster_weight / 4,
        "optimal": true,
    }))
}

pub(crate) fn getrawmempool(call: &Call) -> Answer {
    let verbose = call.bool_or(0, false)?;
    let with_sequence = call.bool_or(1, false)?;
    let bitcoin = call.bitcoin()?;
    if verbose {
        if with_sequence {
            let text = "Verbose results cannot contain mempool sequence values.";
            return Err(RpcError::new(INVALID_PARAMETER, text));
        }
        return Ok(with_pool(&*bitcoin, |pool| {
            let entries = pool
                .iter()
                .map(|entry| (entry.txid.to_string(), entry_json(pool, entry)));
            Value::Object(entries.collect())
        }));
    }
    let (txids, sequence) = with_pool(&*bitcoin, |pool| (pool.txids(), pool.sequence()));
    let txids: Vec<Value> = txids.iter().map(|txid| txid.to_string().into()).collect();
    if with_sequence {
        return Ok(json!({ "txids": txids, "mempool_sequence": sequence }));
    }
    Ok(txids.into())
}

/// Count, virtual size and fees of some transactions of the pool.
fn sums(pool: &Pool, txids: &[Txid]) -> (usize, u64, u64) {
    txids
        .iter()
        .filter_map(|txid| pool.entry(txid))
        .fold((0, 0, 0), |(count, size, fees), entry| {
            (
                count + 1,
                size.saturating_add(entry.vsize),
                fees.saturating_add(entry.fee.to_sat()),
            )
        })
}

fn entry_json(pool: &Pool, entry: &Entry) -> Value {
    let txid = &entry.txid;
    let (descendants, descendant_size, descendant_fees) = sums(pool, &pool.descendants(txid));
    let (ancestors, ancestor_size, ancestor_fees) = sums(pool, &pool.ancestors(txid));
    let (chunk_fee, chunk_weight) = pool.chunk(txid).unwrap_or((entry.fee, entry.weight));
    let sorted = |txids: Vec<Txid>| {
        let mut names: Vec<String> = txids.iter().map(Txid::to_string).collect();
        names.sort();
        names
    };
    json!({
        "vsize": entry.vsize,
        "weight": entry.weight,
        "time": entry.time,
        "height": entry.height,
        "descendantcount": descendants,
        "descendantsize": descendant_size,
        "ancestorcount": ancestors,
        "ancestorsize": ancestor_size,
        "wtxid": entry.wtxid.to_string(),
        "chunkweight": chunk_weight,
        "fees": {
            "base": btc_u(entry.fee.to_sat()),
            "modified": btc_u(entry.fee.to_sat()),
            "ancestor": btc_u(ancestor_fees),
            "descendant": btc_u(descendant_fees),
            "chunk": btc_u(chunk_fee.to_sat()),
        },
        "depends": sorted(pool.parents(txid)),
        "spentby": sorted(pool.children(txid)),
        "unbroadcast": false,
    })
}

pub(crate) fn getmempoolentry(call: &Call) -> Answer {
    let txid = call.hash(0, "txid")?;
    let entry = with_pool(&*call.bitcoin()?, |pool| {
        pool.entry(&txid).map(|entry| entry_json(pool, entry))
    });
    entry.ok_or_else(|| RpcError::new(INVALID_ADDRESS_OR_KEY, "Transaction not in mempool"))
}
