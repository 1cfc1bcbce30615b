//! `dunlin status` and `dunlin stop`.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::ClientArgs;
use crate::client::Client;
use crate::output;

/// How long a peer may take to close its files before `stop` gives up waiting.
const STOP_WAIT: Duration = Duration::from_secs(120);

pub(crate) fn status(args: &ClientArgs) -> anyhow::Result<()> {
    let status = Client::find(&args.connect)?.call("dunlin.status", json!([]))?;
    if args.json {
        output::json(&status);
        return Ok(());
    }
    let mut rows = vec![
        ("version", output::field(&status, "version")),
        ("network", output::field(&status, "network")),
        (
            "running for",
            output::span(Duration::from_secs(output::number(&status, "uptime"))),
        ),
    ];
    if let Some(bitcoin) = status.get("bitcoin").filter(|part| !part.is_null()) {
        rows.extend([
            (
                "height",
                format!(
                    "{} of {}",
                    output::number(bitcoin, "height"),
                    output::number(bitcoin, "headers")
                ),
            ),
            ("tip", output::field(bitcoin, "tip")),
        ]);
        if let Some(percent) = bitcoin.get("snapshot_loading").and_then(Value::as_u64) {
            rows.push(("snapshot", format!("loading, {percent} %")));
        }
        if let Some(snapshot) = bitcoin.get("snapshot").filter(|part| !part.is_null()) {
            rows.push((
                "snapshot",
                format!(
                    "at height {}, validated up to {}, coins compared {} %",
                    output::number(snapshot, "base"),
                    output::number(snapshot, "reached"),
                    output::number(snapshot, "compared")
                ),
            ));
        }
        if let Some(swift) = bitcoin.get("swiftsync").filter(|part| !part.is_null()) {
            rows.push((
                "swiftsync",
                format!(
                    "height {} of {}; nothing counts before the end",
                    output::number(swift, "height"),
                    output::number(swift, "target")
                ),
            ));
        }
        rows.extend([
            (
                "mempool",
                format!(
                    "{} transactions",
                    bitcoin.get("mempool").map_or(0, |pool| output::number(pool, "count"))
                ),
            ),
            ("bitcoin peers", connections(&status, "bitcoin")),
        ]);
    }
    if let Some(torrent) = status.get("torrent").filter(|part| !part.is_null()) {
        rows.extend([
            ("torrents", output::number(torrent, "count").to_string()),
            ("torrent peers", connections(&status, "bittorrent")),
            (
                "down",
                format!("{}/s", output::bytes(output::number(torrent, "download_rate"))),
            ),
            (
                "up",
                format!("{}/s", output::bytes(output::number(torrent, "upload_rate"))),
            ),
        ]);
    }
    output::pairs(&rows);
    Ok(())
}

fn connections(status: &Value, network: &str) -> String {
    let count = |direction| {
        let counts = status
            .get("peer_counts")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let ours = counts.filter(|count| count["network"] == network && count["direction"] == direction);
        ours.map(|count| output::number(count, "count")).sum::<u64>()
    };
    format!("{} in, {} out", count("in"), count("out"))
}

pub(crate) fn stop(args: &ClientArgs) -> anyhow::Result<()> {
    let client = Client::find(&args.connect)?;
    let answer = client.call("stop", json!([]))?;
    let start = Instant::now();
    // The cookie is the last thing to go, after everything is saved.
    while Client::find(&args.connect).is_ok_and(|found| found.is_same_run(&client)) {
        if start.elapsed() > STOP_WAIT {
            bail!("the peer still has not stopped after {}", output::span(STOP_WAIT));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if args.json {
        output::json(&answer);
    } else {
        println!("stopped");
    }
    Ok(())
}
