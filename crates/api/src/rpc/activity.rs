//! What happened to the outputs of descriptors: `scanblocks` finds the blocks by their filters, `getdescriptoractivity`
//! tells what stands in them and in the memory pool.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::bip158::BlockFilter;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, TxOut};
use dunlin_chain::{Entry, Network, View};
use serde_json::{Map, Value, json};

use super::chain::{spent_outputs, store_error, stored_block};
use super::coins_at_tip::unspent;
use super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError};
use super::json::btc_u;
use super::method::{Answer, Call};
use super::params::{parse_hash, text};
use super::scan::{named_descriptor, needs_private};
use super::{script, with_pool};

/// The one search through filters that may be under way.
#[derive(Debug, Default)]
pub(crate) struct FilterScan {
    /// In hundredths.
    progress: AtomicU32,
    height: AtomicU32,
    abort: AtomicBool,
}

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMETER, text)
}

/// The scripts that descriptors stand for.
fn scripts(objects: &[Value], network: Network) -> Result<HashSet<ScriptBuf>, RpcError> {
    let mut scripts = HashSet::new();
    for object in objects {
        let (text, parsed, range) = named_descriptor(object, network)?;
        for index in range {
            let found = parsed.at(index).ok_or_else(|| needs_private(text))?;
            scripts.extend(found.into_iter().map(|(script, _)| script));
        }
    }
    Ok(scripts)
}

pub(crate) fn scanblocks(call: &Call) -> Answer {
    let slot = &call.shared.filter_scan;
    match call.str(0)? {
        "status" => Ok(slot.current().map_or(Value::Null, |scan| {
            let (progress, height) = (&scan.progress, &scan.height);
            json!({
                "progress": progress.load(Ordering::Relaxed),
                "current_height": height.load(Ordering::Relaxed),
            })
        })),
        "abort" => {
            let scan = slot.current();
            Ok(scan
                .inspect(|scan| scan.abort.store(true, Ordering::Relaxed))
                .is_some()
                .into())
        }
        "start" => {
            let busy = || invalid("Scan already in progress, use action \"abort\" or \"status\"");
            let turn = slot.begin(FilterScan::default()).ok_or_else(busy)?;
            scan(call, &turn)
        }
        other => Err(invalid(format!("Invalid action '{other}'"))),
    }
}

fn scan(call: &Call, scan: &Arc<FilterScan>) -> Answer {
    let misc = |text: &str| RpcError::new(MISC_ERROR, text);
    if call.opt_str(4)?.is_some_and(|kind| kind != "basic") {
        return Err(RpcError::new(INVALID_ADDRESS_OR_KEY, "Unknown filtertype"));
    }
    let exact = match call.arg(5).get("filter_false_positives") {
        None => false,
        Some(Value::Bool(exact)) => *exact,
        Some(other) => return Err(super::params::wrong_type(other, "bool")),
    };
    let bitcoin = call.bitcoin()?;
    let (view, indexes) = (bitcoin.view(), bitcoin.indexes());
    let index = indexes
        .filter()
        .ok_or_else(|| misc("Index is not enabled for filtertype basic"))?;
    let tip = view.tip().height;
    let height = |position: usize| -> Result<Option<u32>, RpcError> {
        let height: i32 = call.int(position)?;
        Ok(u32::try_from(height).ok().filter(|height| *height <= tip))
    };
    let start = match call.given(2) {
        true => height(2)?.ok_or_else(|| misc("Invalid start_height"))?,
        false => 0,
    };
    let stop = match call.given(3) {
        true => height(3)?
            .filter(|stop| *stop >= start)
            .ok_or_else(|| misc("Invalid stop_height"))?,
        false => tip,
    };
    let wanted = scripts(call.list(1)?, view.params().network)?;
    let mut relevant: Vec<Value> = Vec::new();
    let (mut completed, mut last) = (true, start);
    for height in start..=stop {
        if scan.abort.load(Ordering::Relaxed) || call.shared.node.stop.is_triggered() {
            completed = false;
            break;
        }
        last = height;
        scan.height.store(height, Ordering::Relaxed);
        let part = u64::from(height - start) * 100 / u64::from(stop - start).max(1);
        // At most a hundred.
        scan.progress.store(part as u32, Ordering::Relaxed);
        let Some(entry) = view.entry_at(height) else { continue };
        let Some(filter) = index.filter(height, &entry.hash).map_err(store_error)? else {
            continue;
        };
        let mut queries = wanted.iter().map(|script| script.as_bytes());
        let matches = BlockFilter::new(&filter).match_any(&entry.hash, &mut queries);
        if !wanted.is_empty() && matches.unwrap_or(false) && (!exact || touches(&view, &entry, &wanted)?) {
            relevant.push(entry.hash.to_string().into());
        }
    }
    Ok(json!({
        "from_height": start,
        "to_height": last,
        "relevant_blocks": relevant,
        "completed": completed,
    }))
}

/// Whether a block makes or spends an output with one of the scripts.
fn touches(view: &View, entry: &Entry, wanted: &HashSet<ScriptBuf>) -> Result<bool, RpcError> {
    let block = stored_block(view, entry)?;
    let mut made = block.block().txdata.iter().flat_map(|tx| &tx.output);
    if made.any(|output| wanted.contains(&output.script_pubkey)) {
        return Ok(true);
    }
    let spent = spent_outputs(view, entry)?.unwrap_or_default();
    let mut spent = spent.iter().flatten();
    Ok(spent.any(|coin| wanted.contains(&coin.output.script_pubkey)))
}

/// Where something happened: a block, or nowhere yet.
type Place<'a> = Option<&'a Entry>;

fn event(kind: &str, output: &TxOut, place: Place<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("type".into(), kind.into());
    map.insert("amount".into(), btc_u(output.value.to_sat()));
    if let Some(entry) = place {
        map.insert("blockhash".into(), entry.hash.to_string().into());
        map.insert("height".into(), entry.height.into());
    }
    map
}

fn spend(output: &TxOut, tx: &Transaction, index: usize, outpoint: &OutPoint, place: Place<'_>, on: Network) -> Value {
    let mut map = event("spend", output, place);
    map.insert("spend_txid".into(), tx.compute_txid().to_string().into());
    map.insert("spend_vin".into(), index.into());
    map.insert("prevout_txid".into(), outpoint.txid.to_string().into());
    map.insert("prevout_vout".into(), outpoint.vout.into());
    map.insert("prevout_spk".into(), script::script_pub_key(&output.script_pubkey, on));
    Value::Object(map)
}

fn receive(output: &TxOut, tx: &Transaction, index: usize, place: Place<'_>, on: Network) -> Value {
    let mut map = event("receive", output, place);
    map.insert("txid".into(), tx.compute_txid().to_string().into());
    map.insert("vout".into(), index.into());
    map.insert("output_spk".into(), script::script_pub_key(&output.script_pubkey, on));
    Value::Object(map)
}

pub(crate) fn getdescriptoractivity(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let network = view.params().network;
    let mut blocks: BTreeMap<u32, Entry> = BTreeMap::new();
    for hash in call.list(0)? {
        let hash: BlockHash = parse_hash(text(hash)?, "blockhash")?;
        let unknown = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found");
        let entry = view.entry(&hash).ok_or_else(unknown)?;
        if !view.contains_in_active(&hash) {
            return Err(invalid("Block is not in main chain"));
        }
        blocks.insert(entry.height, entry);
    }
    let wanted = scripts(call.list(1)?, network)?;
    let mut activity: Vec<Value> = Vec::new();
    let mut gather = |tx: &Transaction, spent: &[Option<TxOut>], place: Place<'_>| {
        for (index, (input, output)) in tx.input.iter().zip(spent).enumerate() {
            let output = output.as_ref().filter(|output| wanted.contains(&output.script_pubkey));
            activity.extend(output.map(|output| spend(output, tx, index, &input.previous_output, place, network)));
        }
        for (index, output) in tx.output.iter().enumerate() {
            if wanted.contains(&output.script_pubkey) {
                activity.push(receive(output, tx, index, place, network));
            }
        }
    };
    for entry in blocks.values() {
        let block = stored_block(&view, entry)?;
        let undo = spent_outputs(&view, entry)?;
        let lacks = || {
            RpcError::new(
                MISC_ERROR,
                "Undo data expected but can't be read. This could be due to disk corruption or a conflict with a pruning event.",
            )
        };
        let undo = if entry.height == 0 {
            Vec::new()
        } else {
            undo.ok_or_else(lacks)?
        };
        for (index, tx) in block.block().txdata.iter().enumerate() {
            let spent = index.checked_sub(1).and_then(|index| undo.get(index));
            let spent = spent.into_iter().flatten().map(|coin| Some(coin.output.clone()));
            gather(tx, &spent.collect::<Vec<_>>(), Some(entry));
        }
    }
    if call.bool_or(2, true)? {
        let pooled: Vec<Arc<Transaction>> = with_pool(&*bitcoin, |pool| {
            pool.by_mining_order().map(|entry| Arc::clone(&entry.tx)).collect()
        });
        for tx in pooled {
            let spent = tx.input.iter().map(|input| unspent(&*bitcoin, &input.previous_output));
            let spent: Result<Vec<_>, _> = spent.collect();
            gather(&tx, &spent.map_err(store_error)?, None);
        }
    }
    Ok(json!({ "activity": activity }))
}

/// What may be under way once.
#[derive(Debug)]
pub(crate) struct Slot<T>(std::sync::Mutex<Option<Arc<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(std::sync::Mutex::new(None))
    }
}

/// The turn of what is under way; it ends when this is dropped.
pub(crate) struct Turn<'a, T> {
    slot: &'a Slot<T>,
    work: Arc<T>,
}

impl<T> std::ops::Deref for Turn<'_, T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.work
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        *self.slot.lock() = None;
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<T>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is under way.
    pub(crate) fn current(&self) -> Option<Arc<T>> {
        self.lock().clone()
    }

    /// Begins, unless something is under way.
    pub(crate) fn begin(&self, work: T) -> Option<Turn<'_, T>> {
        let mut at = self.lock();
        if at.is_some() {
            return None;
        }
        let work = Arc::new(work);
        *at = Some(Arc::clone(&work));
        Some(Turn { slot: self, work })
    }
}
