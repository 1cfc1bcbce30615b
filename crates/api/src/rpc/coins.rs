//! `gettxoutsetinfo`: statistics of the unspent outputs at a block from the index of coin statistics, or at the tip from
//! all of them.

use dunlin_chain::indexes::{CoinStats, IndexKind, StatsIndex};
use dunlin_chain::{CoinsHash, Entry};
use serde_json::{Map, Value, json};

use super::chain::{hash_or_height, store_error};
use super::error::{INTERNAL_ERROR, INVALID_PARAMETER, RpcError};
use super::index::PATIENCE;
use super::json::{btc, btc_u};
use super::method::{Answer, Call};
use super::snapshot::frozen_coins;

/// A `hash_type`.
fn hash_kind(call: &Call) -> Result<CoinsHash, RpcError> {
    match call.opt_str(0)?.unwrap_or("hash_serialized_3") {
        "hash_serialized_3" => Ok(CoinsHash::Serialized),
        "muhash" => Ok(CoinsHash::MuHash),
        "none" => Ok(CoinsHash::None),
        other => {
            let text = format!("'{other}' is not a valid hash_type");
            Err(RpcError::new(INVALID_PARAMETER, text))
        }
    }
}

pub(crate) async fn gettxoutsetinfo(call: Call) -> Answer {
    let kind = hash_kind(&call)?;
    let at_block = call.given(1);
    let indexed = call.bitcoin()?.indexes().stats().is_some() && call.bool_or(2, true)?;
    if at_block || (indexed && kind != CoinsHash::Serialized) {
        let answer = tokio::task::spawn_blocking(move || from_index(&call, kind));
        return answer
            .await
            .map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))?;
    }
    let frozen = frozen_coins(&call).await?;
    let disk_size = frozen.bytes_on_disk();
    let read = tokio::task::spawn_blocking(move || frozen.summarize(kind));
    let found = read
        .await
        .map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))?;
    let found = found.map_err(store_error)?;
    let mut map = Map::new();
    map.insert("height".into(), found.height.into());
    map.insert("bestblock".into(), found.tip.to_string().into());
    map.insert("txouts".into(), found.count.into());
    map.insert("bogosize".into(), found.bogo_size.into());
    put_hash(&mut map, kind, found.hash);
    map.insert("total_amount".into(), btc_u(found.total.to_sat()));
    map.insert("transactions".into(), found.transactions.into());
    map.insert("disk_size".into(), disk_size.into());
    Ok(Value::Object(map))
}

/// Core shows hashes with their last byte first.
fn put_hash(map: &mut Map<String, Value>, kind: CoinsHash, mut hash: [u8; 32]) {
    let name = match kind {
        CoinsHash::Serialized => "hash_serialized_3",
        CoinsHash::MuHash => "muhash",
        CoinsHash::None => return,
    };
    hash.reverse();
    map.insert(name.into(), hex::encode(hash).into());
}

/// The answer at a block that is asked for, or at the tip, from the index.
fn from_index(call: &Call, kind: CoinsHash) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let indexes = bitcoin.indexes();
    let refuse = |text: &str| Err(RpcError::new(INVALID_PARAMETER, text));
    let Some(index) = indexes.stats() else {
        return refuse("Querying specific block heights requires coinstatsindex");
    };
    let entry = if call.given(1) {
        if kind == CoinsHash::Serialized {
            return refuse("hash_serialized_3 hash type cannot be queried for a specific block");
        }
        if !call.bool_or(2, true)? {
            return refuse("Cannot set use_index to false when querying for a specific block");
        }
        hash_or_height(call, 1, &view)?
    } else {
        view.tip()
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
    put_hash(&mut map, kind, stats.muhash);
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
