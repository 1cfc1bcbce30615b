//! What tests ask of a node: another time, an echo, a word with a peer.

use dunlin_chain::Network;
use dunlin_peer::time_offset;
use serde_json::{Value, json};

use super::error::{INVALID_PARAMETER, METHOD_NOT_FOUND, MISC_ERROR, RpcError};
use super::method::{Answer, Call};
use super::unix_now;

/// The latest time that a block can tell.
const MAX_TIME: i64 = u32::MAX as i64;
/// The longest step of `mockscheduler`.
const MAX_STEP: i64 = 3_600;
const MICROS: i64 = 1_000_000;

fn only_on_regtest(call: &Call, text: &str) -> Result<(), RpcError> {
    match call.shared.node.network {
        Network::Regtest => Ok(()),
        _ => Err(RpcError::new(MISC_ERROR, text)),
    }
}

/// Lets every clock of this process show `time` now, and go on from there; 0 is the time that it is.
pub fn set_mock_time(time: u32) {
    let real = i64::try_from(unix_now())
        .unwrap_or(i64::MAX)
        .saturating_sub(time_offset::micros() / MICROS);
    let ahead = if time == 0 {
        0
    } else {
        i64::from(time).saturating_sub(real)
    };
    time_offset::set(ahead.saturating_mul(MICROS));
}

pub(crate) fn setmocktime(call: &Call) -> Answer {
    only_on_regtest(call, "setmocktime is for regression testing (-regtest mode) only")?;
    let time: i64 = call.int(0)?;
    let out = || {
        let text = format!("Mocktime must be in the range [0, {MAX_TIME}], not {time}.");
        RpcError::new(INVALID_PARAMETER, text)
    };
    set_mock_time(u32::try_from(time).map_err(|_| out())?);
    Ok(Value::Null)
}

/// What is to be done later is done by the clock alone here, so the clock goes on.
pub(crate) fn mockscheduler(call: &Call) -> Answer {
    only_on_regtest(call, "mockscheduler is for regression testing (-regtest mode) only")?;
    let step: i64 = call.int(0)?;
    if !(1..=MAX_STEP).contains(&step) {
        let text = "delta_time must be between 1 and 3600 seconds (1 hr)";
        return Err(RpcError::new(MISC_ERROR, text));
    }
    time_offset::set(time_offset::micros().saturating_add(step * MICROS));
    Ok(Value::Null)
}

pub(crate) fn echo(call: &Call) -> Answer {
    Ok(call.args.clone().into())
}

pub(crate) fn echoipc(call: &Call) -> Answer {
    Ok(call.str(0)?.into())
}

pub(crate) fn generate(_: &Call) -> Answer {
    let text = "generate\n\nhas been replaced by the -generate cli option. Refer to -help for more information.\n";
    Err(RpcError::new(METHOD_NOT_FOUND, text))
}

/// Nothing here waits to be told: who is told of a block is told before it counts.
pub(crate) fn syncwithvalidationinterfacequeue(_: &Call) -> Answer {
    Ok(Value::Null)
}

pub(crate) fn getmemoryinfo(call: &Call) -> Answer {
    match call.opt_str(0)?.unwrap_or("stats") {
        // No memory is locked: there are no keys to keep from the disk.
        "stats" => Ok(json!({
            "locked": { "used": 0, "free": 0, "total": 0, "locked": 0, "chunks_used": 0, "chunks_free": 0 },
        })),
        "mallocinfo" => Err(RpcError::new(INVALID_PARAMETER, "mallocinfo mode not available")),
        other => Err(RpcError::new(INVALID_PARAMETER, format!("unknown mode {other}"))),
    }
}
