//! The memory pool: what is in it, who is related to whom, and operators' priorities.

use std::sync::PoisonError;

use bitcoin::Txid;
use dunlin_mempool::{Entry, Pool, Priority};
use serde_json::{Value, json};

use super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError};
use super::json::{btc, btc_u};
use super::method::{Answer, Call};
use super::with_pool;

pub(crate) fn getmempoolinfo(call: &Call) -> Answer {
    let (info, config, loaded) = with_pool(&*call.bitcoin()?, |pool| {
        (pool.info(), pool.config().clone(), pool.is_loaded())
    });
    Ok(json!({
        "loaded": loaded,
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

pub(crate) fn getmempoolfeeratediagram(call: &Call) -> Answer {
    let points = with_pool(&*call.bitcoin()?, Pool::feerate_diagram);
    let points = points
        .into_iter()
        .map(|(weight, fee)| json!({ "weight": weight, "fee": btc(fee) }));
    Ok(points.collect())
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

/// Count, virtual size and modified fees of some transactions of the pool.
fn sums(pool: &Pool, txids: &[Txid]) -> (usize, u64, i64) {
    txids
        .iter()
        .filter_map(|txid| pool.entry(txid))
        .fold((0, 0, 0), |(count, size, fees), entry| {
            (
                count + 1,
                size.saturating_add(entry.vsize),
                fees.saturating_add(entry.modified_fee()),
            )
        })
}

fn entry_json(pool: &Pool, entry: &Entry) -> Value {
    let txid = &entry.txid;
    let (descendants, descendant_size, descendant_fees) = sums(pool, &pool.descendants(txid));
    let (ancestors, ancestor_size, ancestor_fees) = sums(pool, &pool.ancestors(txid));
    let (chunk_fee, chunk_weight) = pool.chunk(txid).unwrap_or((entry.modified_fee(), entry.weight));
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
            "modified": btc(entry.modified_fee()),
            "ancestor": btc(ancestor_fees),
            "descendant": btc(descendant_fees),
            "chunk": btc(chunk_fee),
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
    entry.ok_or_else(not_here)
}

fn not_here() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
}

/// The relatives of a transaction, itself left out, by id or in full.
fn relatives(call: &Call, of: impl Fn(&Pool, &Txid) -> Vec<Txid>) -> Answer {
    let txid: Txid = call.hash(0, "txid")?;
    let verbose = call.bool_or(1, false)?;
    with_pool(&*call.bitcoin()?, |pool| {
        pool.entry(&txid).ok_or_else(not_here)?;
        let others = of(pool, &txid).into_iter().filter(|other| *other != txid);
        if !verbose {
            return Ok(others.map(|other| Value::from(other.to_string())).collect());
        }
        let entries = others.filter_map(|other| Some((other.to_string(), entry_json(pool, pool.entry(&other)?))));
        Ok(Value::Object(entries.collect()))
    })
}

pub(crate) fn getmempoolancestors(call: &Call) -> Answer {
    relatives(call, Pool::ancestors)
}

pub(crate) fn getmempooldescendants(call: &Call) -> Answer {
    relatives(call, Pool::descendants)
}

pub(crate) fn getmempoolcluster(call: &Call) -> Answer {
    let txid: Txid = call.hash(0, "txid")?;
    let chunks = with_pool(&*call.bitcoin()?, |pool| pool.cluster(&txid)).ok_or_else(not_here)?;
    let weight: u64 = chunks.iter().map(|(_, weight, _)| weight).sum();
    let count: usize = chunks.iter().map(|(_, _, members)| members.len()).sum();
    let shown = |(fee, weight, members): &(i64, u64, Vec<Txid>)| {
        let txs: Vec<String> = members.iter().map(Txid::to_string).collect();
        json!({ "chunkfee": btc(*fee), "chunkweight": weight, "txs": txs })
    };
    let chunks: Vec<Value> = chunks.iter().map(shown).collect();
    Ok(json!({ "clusterweight": weight, "txcount": count, "chunks": chunks }))
}

pub(crate) fn prioritisetransaction(call: &Call) -> Answer {
    let txid: Txid = call.hash(0, "txid")?;
    let delta: i64 = call.int(2)?;
    if call.given(1) && call.arg(1).as_f64() != Some(0.0) {
        let text = "Priority is no longer supported, dummy argument to prioritisetransaction must be 0.";
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    let pool = call.bitcoin()?.pool();
    let mut pool = pool.write().unwrap_or_else(PoisonError::into_inner);
    if pool.config().require_standard && pool.has_dust(&txid) {
        let text = "Priority is not supported for transactions with dust outputs.";
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    pool.prioritise(txid, delta);
    Ok(true.into())
}

pub(crate) fn getprioritisedtransactions(call: &Call) -> Answer {
    let shown = |priority: Priority| {
        let mut value = json!({ "fee_delta": priority.delta, "in_mempool": priority.modified_fee.is_some() });
        if let (Value::Object(map), Some(fee)) = (&mut value, priority.modified_fee) {
            map.insert("modified_fee".into(), fee.into());
        }
        (priority.txid.to_string(), value)
    };
    let all = with_pool(&*call.bitcoin()?, |pool| pool.priorities().map(shown).collect());
    Ok(Value::Object(all))
}
