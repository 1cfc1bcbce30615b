//! The server itself: `help`, `stop`, `uptime`, `getrpcinfo`.

use serde_json::{Value, json};

use super::error::MISC_ERROR;
use super::method::{Answer, Call};
use super::{RpcError, help, table};

pub(crate) fn help(call: &Call) -> Answer {
    match call.opt_str(0)? {
        None | Some("") => Ok(help::list(&table::all()).into()),
        Some(name) => match table::find(name) {
            Some(method) => Ok(help::of(method).trim_end().into()),
            None => Ok(format!("help: unknown command: {name}").into()),
        },
    }
}

pub(crate) async fn stop(call: Call) -> Answer {
    call.shared.node.stop.trigger();
    if call.given(0) {
        let wait: u32 = call.int(0)?;
        tokio::time::sleep(std::time::Duration::from_millis(wait.min(10_000).into())).await;
    }
    Ok("Dunlin stopping".into())
}

pub(crate) fn uptime(call: &Call) -> Answer {
    Ok(call.shared.node.started.elapsed().as_secs().into())
}

pub(crate) fn getrpcinfo(call: &Call) -> Answer {
    let active: Vec<Value> = call
        .shared
        .active()
        .into_iter()
        .map(
            |(method, age)| json!({ "method": method, "duration": u64::try_from(age.as_micros()).unwrap_or(u64::MAX) }),
        )
        .collect();
    let log = call.shared.node.data_dir.join("debug.log");
    let log = log
        .to_str()
        .ok_or_else(|| RpcError::new(MISC_ERROR, "The data directory's name is not UTF-8"))?;
    Ok(json!({ "active_commands": active, "logpath": log }))
}
