//! Questions to the indexes: how far they have come, filters, and who spends an output.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use dunlin_chain::indexes::{IndexKind, Indexes};
use dunlin_chain::{Status, View};
use serde_json::{Map, Value, json};

use super::chain::{block_not_found, store_error, stored_block};
use super::error::{INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};
use super::params::{int, mismatch, parse_hash};
use super::{tx, with_pool};

/// How long a question waits for an index that follows the tip to take the last block.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The name of an index where Core has the same, and ours in its manner.
fn name(kind: IndexKind) -> &'static str {
    match kind {
        IndexKind::Tx => "txindex",
        IndexKind::Stats => "coinstatsindex",
        IndexKind::Spender => "txospenderindex",
        IndexKind::Filter => "basic block filter index",
        IndexKind::Script => "scriptindex",
    }
}

/// The order in which they are told.
const ORDER: [IndexKind; 5] = [
    IndexKind::Tx,
    IndexKind::Stats,
    IndexKind::Spender,
    IndexKind::Filter,
    IndexKind::Script,
];

pub(crate) fn getindexinfo(call: &Call) -> Answer {
    let wanted = call.opt_str(0)?.unwrap_or_default();
    let indexes = call.bitcoin()?.indexes();
    let mut map = Map::new();
    for kind in ORDER
        .into_iter()
        .filter(|kind| wanted.is_empty() || wanted == name(*kind))
    {
        let Some(progress) = indexes.progress_of(kind) else {
            continue;
        };
        let mut row = Map::new();
        row.insert("synced".into(), progress.synced.into());
        row.insert("best_block_height".into(), progress.height.unwrap_or(0).into());
        // Core's indexes have no such state: they end the program.
        if let Some(trouble) = progress.trouble {
            row.insert("trouble".into(), trouble.into());
        }
        map.insert(name(kind).into(), row.into());
    }
    Ok(Value::Object(map))
}

pub(crate) fn getblockfilter(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let hash: BlockHash = call.hash(0, "blockhash")?;
    if call.opt_str(1)?.is_some_and(|kind| kind != "basic") {
        return Err(RpcError::new(INVALID_ADDRESS_OR_KEY, "Unknown filtertype"));
    }
    let indexes = bitcoin.indexes();
    let off = || RpcError::new(MISC_ERROR, "Index is not enabled for filtertype basic");
    let index = indexes.filter().ok_or_else(off)?;
    let view = bitcoin.view();
    let entry = view.entry(&hash).ok_or_else(block_not_found)?;
    let ready = indexes.wait_synced(&view, IndexKind::Filter, PATIENCE);
    let filter = index.filter(entry.height, &hash).map_err(store_error)?;
    let headers = index.headers(entry.height, &hash).map_err(store_error)?;
    let Some((filter, headers)) = filter.zip(headers) else {
        return Err(if entry.status != Status::Valid {
            let text = "Filter not found. Block was not connected to active chain.";
            RpcError::new(INVALID_ADDRESS_OR_KEY, text)
        } else if !ready {
            let text = "Filter not found. Block filters are still in the process of being indexed.";
            RpcError::new(MISC_ERROR, text)
        } else {
            let text = "Filter not found. This error is unexpected and indicates index corruption.";
            RpcError::new(INTERNAL_ERROR, text)
        });
    };
    Ok(json!({ "filter": hex::encode(filter), "header": headers.header.to_string() }))
}

/// An output as `gettxspendingprevout` is asked for it.
struct Asked<'a> {
    outpoint: OutPoint,
    raw: &'a Map<String, Value>,
}

impl Asked<'_> {
    fn answer(&self, spender: Option<&Transaction>, show_tx: bool, block: Option<BlockHash>) -> Value {
        let mut map = self.raw.clone();
        if let Some(spender) = spender {
            map.insert("spendingtxid".into(), spender.compute_txid().to_string().into());
            if show_tx {
                map.insert("spendingtx".into(), tx::to_hex(spender).into());
            }
        }
        if let Some(block) = block {
            map.insert("blockhash".into(), block.to_string().into());
        }
        Value::Object(map)
    }
}

pub(crate) fn gettxspendingprevout(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let indexes = bitcoin.indexes();
    let outputs = call.list(0)?;
    if outputs.is_empty() {
        return Err(RpcError::new(
            INVALID_PARAMETER,
            "Invalid parameter, outputs are missing",
        ));
    }
    let none = Map::new();
    let options = if call.given(1) { object(call.arg(1))? } else { &none };
    let option = |name: &str, otherwise: bool| match options.get(name) {
        None | Some(Value::Null) => Ok(otherwise),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(field_mismatch(other, name, "bool")),
    };
    let mempool_only = option("mempool_only", indexes.spender().is_none())?;
    let show_tx = option("return_spending_tx", false)?;
    only_known(options, &["mempool_only", "return_spending_tx"])?;
    let mut open = Vec::new();
    for output in outputs {
        let raw = object(output)?;
        for (name, kind) in [("txid", "string"), ("vout", "number")] {
            match (raw.get(name), kind) {
                (None | Some(Value::Null), _) => return Err(RpcError::new(TYPE_ERROR, format!("Missing {name}"))),
                (Some(Value::String(_)), "string") | (Some(Value::Number(_)), "number") => {}
                (Some(other), _) => return Err(field_mismatch(other, name, kind)),
            }
        }
        only_known(raw, &["txid", "vout"])?;
        let txid: Txid = parse_hash(raw.get("txid").and_then(Value::as_str).unwrap_or_default(), "txid")?;
        let vout: i32 = int(raw.get("vout").unwrap_or(&Value::Null))?;
        let negative = |_| RpcError::new(INVALID_PARAMETER, "Invalid parameter, vout cannot be negative");
        let vout = u32::try_from(vout).map_err(negative)?;
        open.push(Asked {
            outpoint: OutPoint { txid, vout },
            raw,
        });
    }

    let mut answers = Vec::new();
    let spenders: Vec<Option<Arc<Transaction>>> = with_pool(&*bitcoin, |pool| {
        let spender = |asked: &Asked<'_>| pool.spender(&asked.outpoint).and_then(|txid| pool.get(&txid));
        open.iter().map(spender).collect()
    });
    let mut rest = Vec::new();
    for (asked, spender) in open.into_iter().zip(spenders) {
        if spender.is_some() || mempool_only {
            answers.push(asked.answer(spender.as_deref(), show_tx, None));
        } else {
            rest.push(asked);
        }
    }
    if rest.is_empty() {
        return Ok(answers.into());
    }
    let view = bitcoin.view();
    if !indexes.wait_synced(&view, IndexKind::Spender, PATIENCE) {
        let text = "Mempool lacks a relevant spend, and txospenderindex is unavailable.";
        return Err(RpcError::new(MISC_ERROR, text));
    }
    for asked in rest {
        let found = confirmed_spender(&indexes, &view, &asked.outpoint)?;
        let (spender, block) = found.unzip();
        answers.push(asked.answer(spender.as_ref(), show_tx, block));
    }
    Ok(answers.into())
}

/// The transaction of the chain that spends an output, and its block.
fn confirmed_spender(
    indexes: &Indexes,
    view: &View,
    outpoint: &OutPoint,
) -> Result<Option<(Transaction, BlockHash)>, RpcError> {
    let places = indexes.spender().map(|index| index.places(outpoint)).transpose();
    for place in places.map_err(store_error)?.unwrap_or_default() {
        let Some(entry) = view.entry_at(place.height) else {
            continue;
        };
        let (position, hash) = (place.position as usize, entry.hash);
        if !entry.have_data {
            let text = format!("The output is spent by transaction {position} of block {hash}, which was pruned");
            return Err(RpcError::new(MISC_ERROR, text));
        }
        let block = stored_block(view, &entry)?;
        if let Some(tx) = block.block().txdata.get(position)
            && tx.input.iter().any(|input| input.previous_output == *outpoint)
        {
            return Ok(Some((tx.clone(), hash)));
        }
    }
    Ok(None)
}

fn object(value: &Value) -> Result<&Map<String, Value>, RpcError> {
    value
        .as_object()
        .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(value, "object")))
}

fn field_mismatch(value: &Value, name: &str, expected: &str) -> RpcError {
    let text = mismatch(value, expected).replacen(" is not", &format!(" for field {name} is not"), 1);
    RpcError::new(TYPE_ERROR, text)
}

fn only_known(map: &Map<String, Value>, known: &[&str]) -> Result<(), RpcError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(RpcError::new(TYPE_ERROR, format!("Unexpected key {key}"))),
        None => Ok(()),
    }
}
