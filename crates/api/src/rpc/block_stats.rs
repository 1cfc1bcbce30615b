//! `getblockstats`: what a block's transactions pay, weigh and change in the set of unspent outputs.

use std::collections::BTreeSet;

use bitcoin::consensus::encode::VarInt;
use bitcoin::{Script, Transaction};
use dunlin_chain::{BlockUndo, Entry, ParsedBlock, View, rules};
use serde_json::{Map, Value, json};

use super::chain::{hash_or_height, store_error, stored_block};
use super::error::{INVALID_PARAMETER, MISC_ERROR, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};
use super::params::mismatch;
use super::script;

/// What Core counts for a coin besides its output: the outpoint, and the height with the mark of a coinbase.
const COIN_OVERHEAD: i64 = 40;

/// The percentiles of `feerate_percentiles`, in hundredths.
const PERCENTILES: [f64; 5] = [10.0, 25.0, 50.0, 75.0, 90.0];

pub(crate) fn getblockstats(call: &Call) -> Answer {
    let view = call.view()?;
    let entry = hash_or_height(call, 0, &view)?;
    let mut wanted = BTreeSet::new();
    if call.given(1) {
        for name in call.list(1)? {
            let wrong = || RpcError::new(TYPE_ERROR, mismatch(name, "string"));
            wanted.insert(name.as_str().ok_or_else(wrong)?);
        }
    }
    let block = stored_block(&view, &entry)?;
    let undo = undo(&view, &entry)?;
    let all = statistics(&view, &entry, &block, &undo);
    if wanted.is_empty() {
        return Ok(Value::Object(all));
    }
    let mut map = Map::new();
    for name in wanted {
        let unknown = || RpcError::new(INVALID_PARAMETER, format!("Invalid selected statistic '{name}'"));
        map.insert(name.to_owned(), all.get(name).cloned().ok_or_else(unknown)?);
    }
    Ok(Value::Object(map))
}

fn undo(view: &View, entry: &Entry) -> Result<BlockUndo, RpcError> {
    if entry.height == 0 {
        return Ok(BlockUndo::default());
    }
    let undo = view.undo(&entry.hash).map_err(store_error)?;
    undo.ok_or_else(|| RpcError::new(MISC_ERROR, "Undo data not available (pruned data)"))
}

fn coin_size(script: &Script) -> i64 {
    let length = script.len();
    COIN_OVERHEAD + number(8 + VarInt::from(length).size() + length)
}

fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn satoshi(amount: bitcoin::Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}

fn statistics(view: &View, entry: &Entry, block: &ParsedBlock, undo: &BlockUndo) -> Map<String, Value> {
    let txs = &block.block().txdata;
    // The outputs of these two kinds of blocks were never in the set, or are there once for two blocks.
    let no_coinbase_coins = entry.height == 0 || rules::bip30::is_repeat(entry.height, &entry.hash);
    let (mut ins, mut outs, mut coins) = (0i64, 0i64, 0i64);
    let (mut size_change, mut size_change_actual) = (0i64, 0i64);
    let mut total_out = 0i64;
    let (mut witness_txs, mut witness_size, mut witness_weight) = (0i64, 0i64, 0i64);
    let (mut fees, mut rates, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (position, tx) in txs.iter().enumerate() {
        outs += number(tx.output.len());
        for output in &tx.output {
            let size = coin_size(&output.script_pubkey);
            size_change += size;
            let counts = !(position == 0 && no_coinbase_coins || script::is_unspendable(&output.script_pubkey));
            if counts {
                coins += 1;
                size_change_actual += size;
            }
        }
        let Some(spent) = position.checked_sub(1).map(|row| undo.spent.get(row)) else {
            continue;
        };
        let spent = spent.map_or(&[][..], Vec::as_slice);
        ins += number(tx.input.len());
        let paid: i64 = tx.output.iter().map(|output| satoshi(output.value)).sum();
        total_out += paid;
        let (size, weight) = (number(tx.total_size()), weight(tx));
        sizes.push(size);
        if tx.input.iter().any(|input| !input.witness.is_empty()) {
            witness_txs += 1;
            witness_size += size;
            witness_weight += weight;
        }
        let mut brought = 0;
        for coin in spent {
            brought += satoshi(coin.output.value);
            size_change -= coin_size(&coin.output.script_pubkey);
            size_change_actual -= coin_size(&coin.output.script_pubkey);
        }
        let fee = brought - paid;
        fees.push(fee);
        rates.push((fee * 4 / weight.max(1), weight));
    }
    let total_fee: i64 = fees.iter().sum();
    let total_size: i64 = sizes.iter().sum();
    let total_weight: i64 = rates.iter().map(|(_, weight)| weight).sum();
    let paying = number(fees.len()).max(1);
    let only_rates = || rates.iter().map(|(rate, _)| *rate);
    let fields = json!({
        "avgfee": total_fee / paying,
        "avgfeerate": total_fee * 4 / total_weight.max(1),
        "avgtxsize": total_size / paying,
        "blockhash": entry.hash.to_string(),
        "feerate_percentiles": percentiles(&rates, total_weight),
        "height": entry.height,
        "ins": ins,
        "maxfee": fees.iter().max().copied().unwrap_or(0),
        "maxfeerate": only_rates().max().unwrap_or(0),
        "maxtxsize": sizes.iter().max().copied().unwrap_or(0),
        "medianfee": median(&fees),
        "mediantime": entry.median_time_past,
        "mediantxsize": median(&sizes),
        "minfee": fees.iter().min().copied().unwrap_or(0),
        "minfeerate": only_rates().min().unwrap_or(0),
        "mintxsize": sizes.iter().min().copied().unwrap_or(0),
        "outs": outs,
        "subsidy": rules::subsidy(entry.height, view.params().subsidy_halving_interval).to_sat(),
        "swtotal_size": witness_size,
        "swtotal_weight": witness_weight,
        "swtxs": witness_txs,
        "time": entry.header.time,
        "total_out": total_out,
        "total_size": total_size,
        "total_weight": total_weight,
        "totalfee": total_fee,
        "txs": txs.len(),
        "utxo_increase": outs - ins,
        "utxo_size_inc": size_change,
        "utxo_increase_actual": coins - ins,
        "utxo_size_inc_actual": size_change_actual,
    });
    match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn weight(tx: &Transaction) -> i64 {
    i64::try_from(tx.weight().to_wu()).unwrap_or(i64::MAX)
}

fn median(values: &[i64]) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => (below + above) / 2,
        (_, Some(middle)) => *middle,
        _ => 0,
    }
}

/// The rates below which these shares of the weight lie.
fn percentiles(rates: &[(i64, i64)], total_weight: i64) -> [i64; PERCENTILES.len()] {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable();
    let mut found = [sorted.last().map_or(0, |(rate, _)| *rate); PERCENTILES.len()];
    let mut open = found.iter_mut().zip(PERCENTILES).peekable();
    let mut sum = 0i64;
    for (rate, weight) in sorted {
        sum += weight;
        while let Some((slot, _)) = open.next_if(|(_, share)| sum as f64 >= total_weight as f64 * share / 100.0) {
            *slot = rate;
        }
    }
    found
}
