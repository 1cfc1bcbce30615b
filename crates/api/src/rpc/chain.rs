//! `getblockchaininfo` and its kin: questions about headers, blocks and coins.

use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, OutPoint, Target};
use dunlin_chain::{Entry, Network, ParsedBlock, Prune, StoreError, View};
use serde_json::{Map, Value, json};

use super::error::{
    DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError,
};
use super::json::{btc_u, difficulty, float};
use super::method::{Answer, Call};
use super::tx::{self, Spent};
use super::{script, unix_now, with_pool};

/// The window of `getchaintxstats` when none is asked for, in seconds.
const MONTH: u32 = 30 * 24 * 60 * 60;

pub(crate) fn store_error(error: StoreError) -> RpcError {
    RpcError::new(INTERNAL_ERROR, error.to_string())
}

pub(crate) fn block_not_found() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found")
}

pub(crate) fn getblockcount(call: &Call) -> Answer {
    Ok(call.view()?.tip().height.into())
}

pub(crate) fn getbestblockhash(call: &Call) -> Answer {
    Ok(call.view()?.tip().hash.to_string().into())
}

pub(crate) fn getdifficulty(call: &Call) -> Answer {
    Ok(float(difficulty(bits(&call.view()?.tip().header))))
}

pub(crate) fn getblockhash(call: &Call) -> Answer {
    let height: i32 = call.int(0)?;
    let hash = u32::try_from(height)
        .ok()
        .and_then(|height| call.view().map(|view| view.hash_at(height)).transpose());
    match hash.transpose()? {
        Some(hash) => Ok(hash.to_string().into()),
        None => Err(RpcError::new(INVALID_PARAMETER, "Block height out of range")),
    }
}

pub(crate) fn getblockchaininfo(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let tip = view.tip();
    let now = unix_now();
    let mut map = Map::new();
    map.insert("chain".into(), view.params().network.chain_name().into());
    map.insert("blocks".into(), tip.height.into());
    map.insert("headers".into(), view.best_header().height.into());
    map.insert("bestblockhash".into(), tip.hash.to_string().into());
    map.insert("bits".into(), format!("{:08x}", bits(&tip.header)).into());
    map.insert("target".into(), target(&tip.header).into());
    map.insert("difficulty".into(), float(difficulty(bits(&tip.header))));
    map.insert("time".into(), tip.header.time.into());
    map.insert("mediantime".into(), tip.median_time_past.into());
    map.insert("verificationprogress".into(), float(progress(&view, now)));
    map.insert("initialblockdownload".into(), view.is_initial_download(now).into());
    map.insert("chainwork".into(), chain_work(&tip).into());
    map.insert("size_on_disk".into(), bitcoin.size_on_disk().into());
    let prune = view.prune();
    map.insert("pruned".into(), (prune != Prune::Off).into());
    if prune != Prune::Off {
        let first = view.prune_height().map_or(0, |height| height.saturating_add(1));
        map.insert("pruneheight".into(), first.into());
        map.insert("automatic_pruning".into(), matches!(prune, Prune::Target(_)).into());
    }
    if let Prune::Target(bytes) = prune {
        map.insert("prune_target_size".into(), bytes.into());
    }
    if view.params().network == Network::Signet
        && let Some(challenge) = &view.params().signet_challenge
    {
        map.insert("signet_challenge".into(), hex::encode(challenge).into());
    }
    map.insert("warnings".into(), view.warning().into_iter().collect());
    Ok(Value::Object(map))
}

/// How far validation has come, from 0 to 1: the share of the time between the genesis block and now that lies behind
/// the tip. Exactly 1 with the best header reached and that recent, or on a network without regular blocks.
pub(crate) fn progress(view: &View, now: u64) -> f64 {
    const RECENT: u64 = 2 * 60 * 60;
    let (tip, best) = (view.tip(), view.best_header());
    let age = now.saturating_sub(u64::from(tip.header.time));
    if tip.height >= best.height && (age <= RECENT || view.params().network == Network::Regtest) {
        return 1.0;
    }
    let start = u64::from(view.params().genesis.header.time);
    let done = u64::from(tip.header.time).saturating_sub(start);
    let all = now.saturating_sub(start);
    let by_time = if all == 0 { 1.0 } else { done as f64 / all as f64 };
    let by_height = f64::from(tip.height) / f64::from(best.height.max(1));
    by_time.min(by_height).clamp(0.0, 1.0)
}

pub(crate) fn bits(header: &Header) -> u32 {
    header.bits.to_consensus()
}

pub(crate) fn target(header: &Header) -> String {
    hex::encode(Target::from_compact(header.bits).to_be_bytes())
}

fn chain_work(entry: &Entry) -> String {
    hex::encode(entry.chain_work.to_be_bytes())
}

/// One for the tip, more for what lies below it, -1 for what is not on the active chain.
pub(crate) fn confirmations(view: &View, entry: &Entry) -> i64 {
    if view.contains_in_active(&entry.hash) {
        i64::from(view.tip().height) - i64::from(entry.height) + 1
    } else {
        -1
    }
}

pub(crate) fn header_json(view: &View, entry: &Entry) -> Map<String, Value> {
    let header = &entry.header;
    let mut map = Map::new();
    let confirmations = confirmations(view, entry);
    map.insert("hash".into(), entry.hash.to_string().into());
    map.insert("confirmations".into(), confirmations.into());
    map.insert("height".into(), entry.height.into());
    map.insert("version".into(), header.version.to_consensus().into());
    map.insert(
        "versionHex".into(),
        format!("{:08x}", header.version.to_consensus()).into(),
    );
    map.insert("merkleroot".into(), header.merkle_root.to_string().into());
    map.insert("time".into(), header.time.into());
    map.insert("mediantime".into(), entry.median_time_past.into());
    map.insert("nonce".into(), header.nonce.into());
    map.insert("bits".into(), format!("{:08x}", bits(header)).into());
    map.insert("target".into(), target(header).into());
    map.insert("difficulty".into(), float(difficulty(bits(header))));
    map.insert("chainwork".into(), chain_work(entry).into());
    map.insert("nTx".into(), entry.tx_count.unwrap_or(0).into());
    if entry.height > 0 {
        map.insert("previousblockhash".into(), header.prev_blockhash.to_string().into());
    }
    if confirmations > 0
        && let Some(next) = entry.height.checked_add(1).and_then(|height| view.hash_at(height))
    {
        map.insert("nextblockhash".into(), next.to_string().into());
    }
    map
}

pub(crate) fn getblockheader(call: &Call) -> Answer {
    let view = call.view()?;
    let hash: BlockHash = call.hash(0, "hash")?;
    let verbose = call.bool_or(1, true)?;
    let entry = view.entry(&hash).ok_or_else(block_not_found)?;
    if !verbose {
        return Ok(serialize_hex(&entry.header).into());
    }
    Ok(Value::Object(header_json(&view, &entry)))
}

pub(crate) fn getchaintxstats(call: &Call) -> Answer {
    let view = call.view()?;
    let last = if call.given(1) {
        let hash: BlockHash = call.hash(1, "blockhash")?;
        let entry = view.entry(&hash).ok_or_else(block_not_found)?;
        if !view.contains_in_active(&hash) {
            return Err(RpcError::new(INVALID_PARAMETER, "Block is not in main chain"));
        }
        entry
    } else {
        view.tip()
    };
    let count = if call.given(0) {
        let count: i32 = call.int(0)?;
        let fits = |count: &u32| *count == 0 || *count < last.height;
        u32::try_from(count).ok().filter(fits).ok_or_else(|| {
            let text = "Invalid block count: should be between 0 and the block's height - 1";
            RpcError::new(INVALID_PARAMETER, text)
        })?
    } else {
        (MONTH / view.params().target_spacing).min(last.height.saturating_sub(1))
    };
    let first = view.ancestor(&last.hash, last.height.saturating_sub(count));
    let first = first.and_then(|hash| view.entry(&hash)).ok_or_else(block_not_found)?;
    let mut map = Map::new();
    map.insert("time".into(), last.header.time.into());
    let total = view.chain_tx_count(&last.hash);
    if let Some(total) = total {
        map.insert("txcount".into(), total.into());
    }
    map.insert("window_final_block_hash".into(), last.hash.to_string().into());
    map.insert("window_final_block_height".into(), last.height.into());
    map.insert("window_block_count".into(), count.into());
    if count > 0 {
        let interval = i64::from(last.median_time_past) - i64::from(first.median_time_past);
        map.insert("window_interval".into(), interval.into());
        if let Some((total, before)) = total.zip(view.chain_tx_count(&first.hash)) {
            let within = total.saturating_sub(before);
            map.insert("window_tx_count".into(), within.into());
            if interval > 0 {
                map.insert("txrate".into(), float(within as f64 / interval as f64));
            }
        }
    }
    Ok(Value::Object(map))
}

/// The raw bytes of a block that is known to exist.
fn raw_block(view: &View, entry: &Entry) -> Result<bytes::Bytes, RpcError> {
    let pruned = || RpcError::new(MISC_ERROR, "Block not available (pruned data)");
    if !entry.have_data && entry.pruned {
        return Err(pruned());
    }
    if !entry.have_data {
        return Err(RpcError::new(MISC_ERROR, "Block not available (not fully downloaded)"));
    }
    let raw = view.block_bytes(&entry.hash).map_err(store_error)?;
    raw.ok_or_else(pruned)
}

fn parsed(raw: bytes::Bytes) -> Result<std::sync::Arc<ParsedBlock>, RpcError> {
    ParsedBlock::parse(raw).map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))
}

/// A block that is known to exist.
pub(crate) fn stored_block(view: &View, entry: &Entry) -> Result<std::sync::Arc<ParsedBlock>, RpcError> {
    parsed(raw_block(view, entry)?)
}

/// The block that an argument names by its hash, or by its height in the validated chain.
pub(crate) fn hash_or_height(call: &Call, position: usize, view: &View) -> Result<Entry, RpcError> {
    if !call.arg(position).is_number() {
        let hash: BlockHash = call.hash(position, "hash_or_height")?;
        return view.entry(&hash).ok_or_else(block_not_found);
    }
    let height: i32 = call.int(position)?;
    let negative = |_| {
        let text = format!("Target block height {height} is negative");
        RpcError::new(INVALID_PARAMETER, text)
    };
    let found = view.entry_at(u32::try_from(height).map_err(negative)?);
    found.ok_or_else(|| {
        let text = format!("Target block height {height} after current tip {}", view.tip().height);
        RpcError::new(INVALID_PARAMETER, text)
    })
}

/// For each transaction of a connected block but the first, the outputs that it spends; `None` where the block never
/// was connected.
pub(crate) fn spent_outputs(view: &View, entry: &Entry) -> Result<Option<Vec<Vec<Spent>>>, RpcError> {
    let undo = view.undo(&entry.hash).map_err(store_error)?;
    Ok(undo.map(|undo| {
        let spent = |coin: dunlin_chain::Coin| Spent {
            output: coin.output,
            height: coin.height,
            coinbase: coin.coinbase,
        };
        undo.spent
            .into_iter()
            .map(|coins| coins.into_iter().map(spent).collect())
            .collect()
    }))
}

pub(crate) fn getblock(call: &Call) -> Answer {
    let view = call.view()?;
    let hash: BlockHash = call.hash(0, "blockhash")?;
    let verbosity = call.verbosity(1, 1)?;
    let entry = view.entry(&hash).ok_or_else(block_not_found)?;
    let raw = raw_block(&view, &entry)?;
    if verbosity <= 0 {
        return Ok(hex::encode(&raw).into());
    }
    block_json(&view, &entry, raw, verbosity).map(Value::Object)
}

/// A block whose bytes are `raw`; `verbosity` from 1 on as in `getblock`.
pub(crate) fn block_json(
    view: &View,
    entry: &Entry,
    raw: bytes::Bytes,
    verbosity: i32,
) -> Result<Map<String, Value>, RpcError> {
    let size = raw.len();
    let block = parsed(raw)?;
    let body = block.block();
    let weight = body.weight().to_wu();
    let mut map = header_json(view, entry);
    map.insert("nTx".into(), block.len().into());
    map.insert("strippedsize".into(), (weight.saturating_sub(size as u64) / 3).into());
    map.insert("size".into(), size.into());
    map.insert("weight".into(), weight.into());
    if let Some(coinbase) = body.txdata.first() {
        map.insert("coinbase_tx".into(), tx::coinbase_summary(coinbase));
    }
    let transactions: Vec<Value> = if verbosity == 1 {
        block.txids.iter().map(|txid| txid.to_string().into()).collect()
    } else {
        let network = view.params().network;
        let spent = spent_outputs(view, entry)?;
        let one = |(index, tx): (usize, &bitcoin::Transaction)| {
            let spent = index.checked_sub(1).and_then(|index| spent.as_ref()?.get(index));
            let mut map = tx::to_json(tx, network, spent.map(Vec::as_slice), verbosity >= 3);
            map.insert("hex".into(), tx::to_hex(tx).into());
            Value::Object(map)
        };
        body.txdata.iter().enumerate().map(one).collect()
    };
    map.insert("tx".into(), transactions.into());
    Ok(map)
}

pub(crate) fn gettxout(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let outpoint = OutPoint {
        txid: call.hash(0, "txid")?,
        vout: call.int(1)?,
    };
    let include_mempool = call.bool_or(2, true)?;
    let tip = view.tip();
    let network = view.params().network;
    let answer = |confirmations: u32, output: &bitcoin::TxOut, coinbase: bool| {
        json!({
            "bestblock": tip.hash.to_string(),
            "confirmations": confirmations,
            "value": btc_u(output.value.to_sat()),
            "scriptPubKey": script::script_pub_key(&output.script_pubkey, network),
            "coinbase": coinbase,
        })
    };
    if include_mempool {
        let (spender, tx) = with_pool(&*bitcoin, |pool| (pool.spender(&outpoint), pool.get(&outpoint.txid)));
        if spender.is_some() {
            return Ok(Value::Null);
        }
        if let Some(tx) = tx {
            let output = usize::try_from(outpoint.vout).ok().and_then(|vout| tx.output.get(vout));
            return Ok(output.map_or(Value::Null, |output| answer(0, output, false)));
        }
    }
    let coin = view.coin(&outpoint).map_err(store_error)?;
    Ok(coin.map_or(Value::Null, |coin| {
        answer(
            tip.height.saturating_sub(coin.height).saturating_add(1),
            &coin.output,
            coin.coinbase,
        )
    }))
}

/// A block from hex.
pub(crate) fn block_from_hex(text: &str) -> Result<std::sync::Arc<ParsedBlock>, RpcError> {
    let failed = || RpcError::new(DESERIALIZATION_ERROR, "Block decode failed");
    let bytes = hex::decode(text).map_err(|_| failed())?;
    ParsedBlock::parse(bytes.into()).map_err(|_| failed())
}
