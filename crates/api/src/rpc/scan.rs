//! `scantxoutset`: which unspent outputs pay to descriptors, from all coins as they are when it begins.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::{OutPoint, ScriptBuf};
use dunlin_chain::snapshot::FrozenCoins;
use dunlin_chain::{Coin, Network, StoreError, View};
use serde_json::{Value, json};

use super::chain::store_error;
use super::descriptors;
use super::error::{INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError};
use super::json::btc_u;
use super::method::{Answer, Call};
use super::server::Shared;
use super::snapshot::frozen_coins;

/// Indexes that a descriptor stands for when none are given.
const DEFAULT_RANGE: RangeInclusive<u32> = 0..=1000;
/// No range is longer.
const MAX_RANGE: i64 = 1_000_000;

/// The one scan that may be under way.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// In hundredths.
    progress: AtomicU32,
    abort: AtomicBool,
}

/// Ends the scan when it is dropped.
struct Turn {
    shared: Arc<Shared>,
    scan: Arc<Scan>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.end_scan();
    }
}

pub(crate) async fn scantxoutset(call: Call) -> Answer {
    match call.str(0)? {
        "status" => Ok(call.shared.scan().map_or(
            Value::Null,
            |scan| json!({"progress": scan.progress.load(Ordering::Relaxed)}),
        )),
        "abort" => Ok(call
            .shared
            .scan()
            .inspect(|scan| scan.abort.store(true, Ordering::Relaxed))
            .is_some()
            .into()),
        "start" => start(call).await,
        other => Err(invalid(format!("Invalid action '{other}'"))),
    }
}

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMETER, text)
}

async fn start(call: Call) -> Answer {
    let scan = Arc::new(Scan::default());
    if !call.shared.begin_scan(&scan) {
        let text = "Scan already in progress, use action \"abort\" or \"status\"";
        return Err(invalid(text));
    }
    let turn = Turn {
        shared: Arc::clone(&call.shared),
        scan,
    };
    let Some(objects) = call.args.get(1).and_then(Value::as_array).cloned() else {
        return Err(RpcError::new(
            MISC_ERROR,
            "scanobjects argument is required for the start action",
        ));
    };
    let view = call.view()?;
    let network = view.params().network;
    let internal = |error: tokio::task::JoinError| RpcError::new(INTERNAL_ERROR, error.to_string());
    let needles = tokio::task::spawn_blocking(move || needles(&objects, network));
    let needles = needles.await.map_err(internal)??;
    let frozen = frozen_coins(&call).await?;
    let found = tokio::task::spawn_blocking(move || find(&frozen, &needles, &turn.scan, &view));
    found.await.map_err(internal)?
}

/// The scripts that are looked for, each with its descriptor.
fn needles(objects: &[Value], network: Network) -> Result<HashMap<ScriptBuf, String>, RpcError> {
    let mut needles = HashMap::new();
    for object in objects {
        let (text, parsed, range) = named_descriptor(object, network)?;
        for index in range {
            let scripts = parsed.at(index).ok_or_else(|| needs_private(text))?;
            for (script, descriptor) in scripts {
                needles.entry(script).or_insert(descriptor);
            }
        }
    }
    Ok(needles)
}

/// That a descriptor stands for nothing without a private key.
pub(crate) fn needs_private(text: &str) -> RpcError {
    let text = format!("Cannot derive script without private keys: '{text}'");
    RpcError::new(INVALID_ADDRESS_OR_KEY, text)
}

/// A descriptor with the indexes that are meant, from its text or from an object with `desc` and `range`.
pub(crate) fn named_descriptor(
    object: &Value,
    network: Network,
) -> Result<(&str, descriptors::Parsed, RangeInclusive<u32>), RpcError> {
    let (text, range) = match object {
        Value::String(text) => (text.as_str(), DEFAULT_RANGE),
        Value::Object(map) => {
            let text = map.get("desc").and_then(Value::as_str);
            let text = text.ok_or_else(|| invalid("Descriptor needs to be provided in scan object"))?;
            let given = map.get("range").filter(|range| !range.is_null());
            (text, given.map_or(Ok(DEFAULT_RANGE), range)?)
        }
        _ => return Err(invalid("Scan object needs to be either a string or an object")),
    };
    let parsed = descriptors::parse(text, network).map_err(|text| RpcError::new(INVALID_ADDRESS_OR_KEY, text))?;
    let range = if parsed.is_ranged() { range } else { 0..=0 };
    Ok((text, parsed, range))
}

/// A range of indexes: its end, or both ends.
pub(crate) fn range(value: &Value) -> Result<RangeInclusive<u32>, RpcError> {
    let (low, high) = match value.as_array().map(Vec::as_slice) {
        Some([low, high]) => (low.as_i64(), high.as_i64()),
        _ => (Some(0), value.as_i64()),
    };
    let (Some(low), Some(high)) = (low, high) else {
        return Err(invalid("Range must be specified as end or as [begin,end]"));
    };
    if value.is_array() && low > high {
        return Err(invalid("Range specified as [begin,end] must not have begin after end"));
    }
    if low < 0 {
        return Err(invalid("Range should be greater or equal than 0"));
    }
    let (first, last) = (u32::try_from(low), u32::try_from(high));
    let (Ok(first), Ok(last @ ..=0x7fff_ffff)) = (first, last) else {
        return Err(invalid("End of range is too high"));
    };
    if high >= low + MAX_RANGE {
        return Err(invalid("Range is too large"));
    }
    Ok(first..=last)
}

/// Why reading stopped before the end.
enum Stop {
    Aborted,
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

fn find(frozen: &FrozenCoins, needles: &HashMap<ScriptBuf, String>, scan: &Scan, view: &View) -> Answer {
    let mut count = 0u64;
    let mut found: Vec<(OutPoint, Coin, &str)> = Vec::new();
    let read = frozen.each::<Stop>(&[], &mut |outpoint, coin| {
        count += 1;
        if count.is_multiple_of(256) {
            if scan.abort.load(Ordering::Relaxed) {
                return Err(Stop::Aborted);
            }
            // Ids are spread evenly.
            let id: &[u8; 32] = outpoint.txid.as_ref();
            let part = u32::from(id[0]) * 256 + u32::from(id[1]);
            scan.progress.store((part * 100 + 32_768) / 65_536, Ordering::Relaxed);
        }
        if let Some(descriptor) = needles.get(&coin.output.script_pubkey) {
            found.push((outpoint, coin, descriptor));
        }
        Ok(())
    });
    let success = match read {
        Ok(()) => true,
        Err(Stop::Aborted) => false,
        Err(Stop::Failed(error)) => return Err(store_error(error)),
    };
    let tip = frozen.tip();
    let mut total = 0u64;
    let unspents: Vec<Value> = found
        .into_iter()
        .map(|(outpoint, coin, descriptor)| {
            total = total.saturating_add(coin.output.value.to_sat());
            let block = view.ancestor(&tip.hash, coin.height);
            json!({
                "txid": outpoint.txid.to_string(),
                "vout": outpoint.vout,
                "scriptPubKey": hex::encode(coin.output.script_pubkey.as_bytes()),
                "desc": descriptor,
                "amount": btc_u(coin.output.value.to_sat()),
                "coinbase": coin.coinbase,
                "height": coin.height,
                "blockhash": block.map(|hash| hash.to_string()),
                "confirmations": tip.height.saturating_sub(coin.height).saturating_add(1),
            })
        })
        .collect();
    Ok(json!({
        "success": success,
        "txouts": count,
        "height": tip.height,
        "bestblock": tip.hash.to_string(),
        "unspents": unspents,
        "total_amount": btc_u(total),
    }))
}
