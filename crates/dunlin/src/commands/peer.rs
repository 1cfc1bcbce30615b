//! `dunlin peer`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{PeerArgs, PeerCommand};
use crate::client::Client;
use crate::output;

/// How long `dunlin peer ban` refuses an address, in seconds.
const BAN_SECS: u64 = 24 * 60 * 60;

pub(crate) fn run(args: PeerArgs) -> anyhow::Result<()> {
    let client = Client::find(&args.client.connect)?;
    match args.command {
        PeerCommand::List => {
            let peers = client.call("getpeerinfo", json!([]))?;
            if args.client.json {
                output::json(&peers)
            } else {
                list(&peers)
            }
        }
        PeerCommand::Add { addr } => drop(client.call("addnode", json!([addr.to_string(), "add"]))?),
        PeerCommand::Ban { addr } => drop(client.call("setban", json!([addr.to_string(), "add", BAN_SECS]))?),
        PeerCommand::Unban { addr } => drop(client.call("setban", json!([addr.to_string(), "remove"]))?),
    }
    Ok(())
}

fn list(peers: &Value) {
    let rows: Vec<Vec<String>> = peers
        .as_array()
        .into_iter()
        .flatten()
        .map(|peer| {
            let direction = if peer.get("inbound").and_then(Value::as_bool) == Some(true) {
                "in"
            } else {
                "out"
            };
            let ping = peer.get("pingtime").and_then(Value::as_f64);
            vec![
                output::field(peer, "id"),
                output::field(peer, "addr"),
                direction.to_owned(),
                output::field(peer, "subver"),
                output::field(peer, "synced_blocks"),
                ping.map_or_else(|| "-".to_owned(), |secs| format!("{:.0} ms", secs * 1e3)),
                output::bytes(output::number(peer, "bytesrecv")),
                output::bytes(output::number(peer, "bytessent")),
                connected(peer),
            ]
        })
        .collect();
    output::table(
        &[
            "id", "address", "dir", "client", "blocks", "ping", "received", "sent", "since",
        ],
        &rows,
    );
}

fn connected(peer: &Value) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    output::span(now.saturating_sub(Duration::from_secs(output::number(peer, "conntime"))))
}
