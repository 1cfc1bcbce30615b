//! The memory pool on disk: `savemempool`, `importmempool`.

use std::path::Path;

use dunlin_mempool::{ImportOptions, import, save};
use serde_json::{Value, json};

use super::error::{CLIENT_IN_INITIAL_DOWNLOAD, MISC_ERROR, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};
use super::params::mismatch;
use super::{unix_now, with_pool};

pub(crate) fn savemempool(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    if !with_pool(&*bitcoin, |pool| pool.is_loaded()) {
        return Err(RpcError::new(MISC_ERROR, "The mempool was not loaded yet"));
    }
    let path = call.shared.node.data_dir.join("mempool.dat");
    save(&bitcoin.pool(), &path, rand::random()).map_err(|error| {
        tracing::warn!("cannot write {}: {error}", path.display());
        RpcError::new(MISC_ERROR, "Unable to dump mempool to disk")
    })?;
    Ok(json!({ "filename": path.display().to_string() }))
}

pub(crate) fn importmempool(call: &Call) -> Answer {
    let flag = |name: &str, default: bool| match call.arg(1).get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(RpcError::new(TYPE_ERROR, mismatch(other, "bool"))),
    };
    let options = ImportOptions {
        use_current_time: flag("use_current_time", true)?,
        apply_fee_delta_priority: flag("apply_fee_delta_priority", false)?,
    };
    // Which transactions still wait for a peer's request is not kept here: there is nothing to apply.
    flag("apply_unbroadcast_set", false)?;
    let bitcoin = call.bitcoin()?;
    if bitcoin.view().is_initial_download(unix_now()) {
        let text = "Can only import the mempool after the block download and sync is done.";
        return Err(RpcError::new(CLIENT_IN_INITIAL_DOWNLOAD, text));
    }
    let path = Path::new(call.str(0)?);
    let stop = &call.shared.node.stop;
    let imported = import(&bitcoin.pool(), path, unix_now(), options, |_, _| !stop.is_triggered());
    match imported {
        Ok(sum) => {
            tracing::info!(
                "{}: {} transactions taken, {} refused, {} too old, {} here already",
                path.display(),
                sum.accepted,
                sum.failed,
                sum.expired,
                sum.known
            );
            Ok(json!({}))
        }
        Err(error) => {
            tracing::warn!("cannot import {}: {error}", path.display());
            let text = "Unable to import mempool file, see debug log for details.";
            Err(RpcError::new(MISC_ERROR, text))
        }
    }
}
