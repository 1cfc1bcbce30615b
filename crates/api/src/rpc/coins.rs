//! `gettxoutsetinfo`: statistics of the unspent outputs at a block, from the index of coin statistics.

use dunlin_chain::Entry;
use dunlin_chain::indexes::{CoinStats, IndexKind, StatsIndex};
use serde_json::{Map, Value, json};

use super::chain::{hash_or_height, store_error};
use super::error::{INTERNAL_ERROR, INVALID_PARAMETER, MISC_ERROR, RpcError};
use super::index::PATIENCE;
use super::json::{btc, btc_u};
use super::method::{Answer, Call};

pub(crate) fn gettxoutsetinfo(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let kind = call.opt_str(0)?.unwrap_or("hash_serialized_3");
    if !["hash_serialized_3", "muhash", "none"].contains(&kind) {
        let text = format!("'{kind}' is not a valid hash_type");
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    let use_index = call.bool_or(2, true)?;
    let indexes = bitcoin.indexes();
    let refuse = |text: &str| Err(RpcError::new(INVALID_PARAMETER, text));
    let entry = if call.given(1) {
        if indexes.stats().is_none() {
            return refuse("Querying specific block heights requires coinstatsindex");
        }
        if kind == "hash_serialized_3" {
            return refuse("hash_serialized_3 hash type cannot be queried for a specific block");
        }
        if !use_index {
            return refuse("Cannot set use_index to false when querying for a specific block");
        }
        hash_or_height(call, 1, &view)?
    } else {
        view.tip()
    };
    let index = indexes.stats().filter(|_| use_index && kind != "hash_serialized_3");
    let Some(index) = index else {
        let text = "Reading every coin is not offered: start with --index stats, and ask for hash_type muhash or none";
        return Err(RpcError::new(MISC_ERROR, text));
    };
    if !indexes.wait_synced(&view, IndexKind::Stats, PATIENCE) {
        let progress = indexes.progress_of(IndexKind::Stats);
        let height = progress.and_then(|progress| progress.height).unwrap_or(0);
        if entry.height > height {
            let text = format!("Unable to get data because coinstatsindex is still syncing. Current height: {height}");
            return Err(RpcError::new(INTERNAL_ERROR, text));
        }
    }
    let stats = at(index, &entry)?;
    let before = match view.entry(&entry.header.prev_blockhash) {
        Some(parent) => at(index, &parent)?,
        None => CoinStats::default(),
    };
    let mut map = Map::new();
    map.insert("height".into(), entry.height.into());
    map.insert("bestblock".into(), entry.hash.to_string().into());
    map.insert("txouts".into(), stats.outputs.into());
    map.insert("bogosize".into(), stats.bogo_size.into());
    if kind == "muhash" {
        let mut hash = stats.muhash;
        hash.reverse();
        map.insert("muhash".into(), hex::encode(hash).into());
    }
    map.insert("total_amount".into(), btc_u(stats.total_amount));
    map.insert("total_unspendable_amount".into(), btc_u(stats.unspendable()));
    map.insert("block_info".into(), block_info(&stats, &before));
    Ok(Value::Object(map))
}

fn at(index: &StatsIndex, entry: &Entry) -> Result<CoinStats, RpcError> {
    let stats = index.at(entry.height, &entry.hash).map_err(store_error)?;
    stats.ok_or_else(|| RpcError::new(INTERNAL_ERROR, "Unable to read UTXO set"))
}

/// What one block added to the sums.
fn block_info(stats: &CoinStats, before: &CoinStats) -> Value {
    let wide = |now: u128, then: u128| btc_u(u64::try_from(now.saturating_sub(then)).unwrap_or(u64::MAX));
    let narrow = |now: u64, then: u64| btc(i64::try_from(now.saturating_sub(then)).unwrap_or(i64::MAX));
    json!({
        "prevout_spent": wide(stats.total_spent, before.total_spent),
        "coinbase": wide(stats.total_coinbase, before.total_coinbase),
        "new_outputs_ex_coinbase": wide(stats.total_new_outputs, before.total_new_outputs),
        "unspendable": narrow(stats.unspendable(), before.unspendable()),
        "unspendables": {
            "genesis_block": narrow(stats.unspendable_genesis, before.unspendable_genesis),
            "bip30": narrow(stats.unspendable_bip30, before.unspendable_bip30),
            "scripts": narrow(stats.unspendable_scripts, before.unspendable_scripts),
            "unclaimed_rewards": narrow(stats.unspendable_unclaimed, before.unspendable_unclaimed),
        },
    })
}
