//! Snapshots of the unspent outputs: `dumptxoutset`, `loadtxoutset`, `getchainstates`; hints: `dunlin.hints`.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::BlockHash;
use dunlin_chain::snapshot::{Dumped, FrozenCoins, SnapshotError, write_whole};
use dunlin_chain::swiftsync::HintsMade;
use dunlin_chain::{Entry, View};
use serde_json::{Map, Value, json};

use super::RpcError;
use super::chain::{bits, target};
use super::error::{DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER};
use super::json::{difficulty, float};
use super::method::{Answer, Call};
use super::{progress, unix_now};
use crate::backend::ChainOp;

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMETER, text)
}

fn internal(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(INTERNAL_ERROR, error.to_string())
}

/// A path as the operator gives it: a relative one lies in the data directory.
fn path(call: &Call) -> Result<PathBuf, RpcError> {
    Ok(call.shared.node.data_dir.join(call.str(0)?))
}

/// A path where there is nothing yet.
fn new_path(call: &Call) -> Result<PathBuf, RpcError> {
    let path = path(call)?;
    match path.exists() {
        false => Ok(path),
        true => Err(invalid(format!(
            "{} already exists. If you are sure this is what you want, move it out of the way first",
            path.display()
        ))),
    }
}

/// The coins of the tip, frozen while the chain goes on.
pub(super) async fn frozen_coins(call: &Call) -> Result<FrozenCoins, RpcError> {
    let bitcoin = call.bitcoin()?;
    let frozen = |view: View| async move {
        let frozen = tokio::task::spawn_blocking(move || view.frozen_coins());
        frozen.await.map_err(internal)?.map_err(internal)
    };
    // Coins that are being written are waited for here, so that the chain has not to wait for them.
    frozen(bitcoin.view()).await?;
    bitcoin.operate(ChainOp::FreezeCoins).await?;
    frozen(bitcoin.view()).await
}

pub(crate) async fn dumptxoutset(call: Call) -> Answer {
    let view = call.view()?;
    let target = dump_target(&call, &view)?;
    let path = new_path(&call)?;
    let frozen = frozen_coins(&call).await?;
    let target = target.unwrap_or(frozen.tip().hash);
    let written = tokio::task::spawn_blocking(move || write(&frozen, &target, &path).map(|dumped| (dumped, path)));
    let (dumped, path) = written.await.map_err(internal)??;
    Ok(json!({
        "coins_written": dumped.coins,
        "base_hash": dumped.base.hash.to_string(),
        "base_height": dumped.base.height,
        "path": path.display().to_string(),
        "txoutset_hash": dumped.coins_hash.to_string(),
        "nchaintx": dumped.chain_tx_count,
    }))
}

fn write(frozen: &FrozenCoins, target: &BlockHash, path: &Path) -> Result<Dumped, RpcError> {
    tracing::info!("writing a snapshot of the coins to {}", path.display());
    let mut tell = |part: u32| {
        if part % 64 == 63 {
            tracing::info!("writing a snapshot: {} %", (part + 1) * 100 / 256);
        }
    };
    write_whole(path, |file| frozen.write_snapshot(target, file, &mut tell)).map_err(not_written)
}

fn not_written(error: SnapshotError) -> RpcError {
    match error {
        SnapshotError::Unwritable(_) => invalid(error.to_string()),
        other => internal(other),
    }
}

/// `dunlin.hints`: the hints for a SwiftSync.
pub(crate) async fn hints(call: Call) -> Answer {
    let path = new_path(&call)?;
    let height: u32 = call.int(1)?;
    let frozen = frozen_coins(&call).await?;
    let written = tokio::task::spawn_blocking(move || {
        tracing::info!("writing hints for height {height} to {}", path.display());
        let mut told = 0;
        let mut tell = |done: u32, all: u32| {
            let tenth = u64::from(done) * 10 / u64::from(all.max(1));
            if tenth > told {
                told = tenth;
                tracing::info!("writing hints: {tenth}0 %");
            }
        };
        write_whole(&path, |file| {
            frozen.write_hints(height, BufWriter::new(file), &mut tell)
        })
        .map(|made| hints_json(&made, &path))
    });
    written.await.map_err(internal)?.map_err(|error| match error {
        SnapshotError::Refused(text) => invalid(text),
        other => not_written(other),
    })
}

/// What `dunlin.hints` answers.
pub fn hints_json(made: &HintsMade, path: &Path) -> Value {
    json!({
        "base_hash": made.base.hash.to_string(),
        "base_height": made.base.height,
        "coins": made.coins,
        "path": path.display().to_string(),
    })
}

/// Which block's coins are asked for; `None` for the tip's.
fn dump_target(call: &Call, view: &View) -> Result<Option<BlockHash>, RpcError> {
    let kind = call.opt_str(1)?.unwrap_or_default();
    match (call.arg(2).get("rollback"), kind) {
        (Some(rollback), "" | "rollback") => block(view, rollback).map(Some),
        (Some(_), _) => Err(invalid(format!(
            "Invalid snapshot type \"{kind}\" specified with rollback option"
        ))),
        (None, "rollback") => {
            let highest = view.params().assume_utxo.iter().map(|known| known.height).max();
            block(view, &highest.unwrap_or(0).into()).map(Some)
        }
        (None, "latest") => Ok(None),
        (None, _) => Err(invalid(format!(
            "Invalid snapshot type \"{kind}\" specified. Please specify \"rollback\" or \"latest\""
        ))),
    }
}

/// A block of the validated chain by height or hash.
fn block(view: &View, which: &Value) -> Result<BlockHash, RpcError> {
    if let Some(text) = which.as_str() {
        let hash: BlockHash = text
            .parse()
            .map_err(|_| invalid(format!("hash_or_height must be hexadecimal string (not '{text}')")))?;
        return match view.entry(&hash) {
            Some(_) => Ok(hash),
            None => Err(RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found")),
        };
    }
    let height = which
        .as_i64()
        .ok_or_else(|| invalid("rollback takes a height or a hash"))?;
    let tip = view.tip().height;
    if height < 0 {
        return Err(invalid(format!("Target block height {height} is negative")));
    }
    u32::try_from(height)
        .ok()
        .and_then(|height| view.hash_at(height))
        .ok_or_else(|| invalid(format!("Target block height {height} after current tip {tip}")))
}

pub(crate) async fn loadtxoutset(call: Call) -> Answer {
    let path = path(&call)?;
    let view = call.view()?;
    let file = File::open(&path).map_err(|_| invalid(format!("Couldn't open file {} for reading.", path.display())))?;
    let refused = {
        let path = path.clone();
        move |error: &dyn std::fmt::Display| {
            internal(format!("Unable to load UTXO snapshot: {error}. ({})", path.display()))
        }
    };
    let loading = tokio::task::spawn_blocking(move || {
        view.load_snapshot(BufReader::with_capacity(1 << 20, file), &mut |done, all| {
            tracing::info!(
                "loading a snapshot: {done} of {all} coins ({} %)",
                done * 100 / all.max(1)
            );
        })
    });
    let loaded = loading.await.map_err(internal)?.map_err(|error| match error {
        SnapshotError::Header(_) => RpcError::new(DESERIALIZATION_ERROR, error.to_string()),
        other => refused(&other),
    })?;
    let loaded = Arc::new(loaded);
    let op = ChainOp::ActivateSnapshot(Arc::clone(&loaded));
    call.bitcoin()?.operate(op).await.map_err(|error| refused(&error))?;
    Ok(json!({
        "coins_loaded": loaded.coins(),
        "tip_hash": loaded.base().to_string(),
        "base_height": loaded.height(),
        "path": path.display().to_string(),
    }))
}

pub(crate) fn getchainstates(call: &Call) -> Answer {
    let view = call.view()?;
    let snapshot = view.snapshot();
    let sets = if snapshot.is_some() { 2 } else { 1 };
    let state = |tip: &Entry, progress: f64, base: Option<BlockHash>, validated: bool| {
        let mut map = Map::new();
        map.insert("blocks".into(), tip.height.into());
        map.insert("bestblockhash".into(), tip.hash.to_string().into());
        map.insert("bits".into(), format!("{:08x}", bits(&tip.header)).into());
        map.insert("target".into(), target(&tip.header).into());
        map.insert("difficulty".into(), float(difficulty(bits(&tip.header))));
        map.insert("verificationprogress".into(), float(progress));
        // The table's engine gets an eighth of what the coins get.
        map.insert("coins_db_cache_bytes".into(), (view.cache_bytes() / 8 / sets).into());
        map.insert("coins_tip_cache_bytes".into(), (view.cache_bytes() / sets).into());
        if let Some(base) = base {
            map.insert("snapshot_blockhash".into(), base.to_string().into());
        }
        map.insert("validated".into(), validated.into());
        Value::Object(map)
    };
    let mut states = Vec::new();
    if let Some(snapshot) = &snapshot {
        let share = f64::from(snapshot.reached.height) / f64::from(snapshot.base.height.max(1));
        states.push(state(&snapshot.reached, share, None, true));
    }
    let base = snapshot.as_ref().map(|snapshot| snapshot.base.hash);
    states.push(state(
        &view.tip(),
        progress(&view, unix_now()),
        base,
        snapshot.is_none(),
    ));
    Ok(json!({ "headers": view.best_header().height, "chainstates": states }))
}
