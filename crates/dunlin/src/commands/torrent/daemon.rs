//! The torrent commands that talk to the running peer.

use std::path::Path;

use anyhow::bail;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_torrent::command::Source;
use serde_json::{Value, json};

use crate::cli::{ClientArgs, TorrentCommand};
use crate::client::Client;
use crate::output;

pub(super) fn run(command: TorrentCommand) -> anyhow::Result<()> {
    match command {
        TorrentCommand::Add {
            client,
            source,
            output,
            peer,
        } => {
            let dir = output.map(std::path::absolute).transpose()?;
            let peers: Vec<String> = peer.iter().map(ToString::to_string).collect();
            let params = json!({"torrent": wire_source(&source)?, "dir": dir, "peers": peers});
            let answer = Client::find(&client.connect)?.call("torrent.add", params)?;
            print(&client, &answer, || println!("{}", output::field(&answer, "info_hash")));
        }
        TorrentCommand::List { client } => {
            let torrents = Client::find(&client.connect)?.call("torrent.list", json!([]))?;
            print(&client, &torrents, || list(&torrents));
        }
        TorrentCommand::Info { client, info_hash } => {
            let torrent = Client::find(&client.connect)?.call("torrent.info", json!([info_hash]))?;
            print(&client, &torrent, || info(&torrent));
        }
        TorrentCommand::Stream {
            client,
            source,
            file,
            peer,
        } => super::stream::run(&client, &source, file.as_deref(), &peer)?,
        TorrentCommand::Limit {
            client,
            info_hash,
            download,
            upload,
        } => {
            let params = json!([download.unwrap_or(0), upload.unwrap_or(0), info_hash]);
            Client::find(&client.connect)?.call("torrent.limit", params)?;
        }
        TorrentCommand::Files {
            client,
            info_hash,
            skip,
            normal,
            high,
        } => {
            let peer = Client::find(&client.connect)?;
            let mut wishes = serde_json::Map::new();
            for (indices, word) in [(skip, "skip"), (normal, "normal"), (high, "high")] {
                wishes.extend(indices.into_iter().map(|index| (index.to_string(), json!(word))));
            }
            if !wishes.is_empty() {
                peer.call("torrent.prioritise", json!([info_hash, wishes]))?;
            }
            let torrent = peer.call("torrent.info", json!([info_hash]))?;
            print(&client, &torrent["files"], || files(&torrent["files"]));
        }
        TorrentCommand::Recheck { client, info_hash } => simple(&client, "torrent.recheck", &info_hash)?,
        TorrentCommand::Pause { client, info_hash } => simple(&client, "torrent.pause", &info_hash)?,
        TorrentCommand::Resume { client, info_hash } => simple(&client, "torrent.resume", &info_hash)?,
        TorrentCommand::Remove { client, info_hash } => simple(&client, "torrent.remove", &info_hash)?,
        TorrentCommand::Get(_) | TorrentCommand::Seed(_) | TorrentCommand::Create(_) => {
            bail!("this command needs no running peer")
        }
    }
    Ok(())
}

fn simple(client: &ClientArgs, method: &str, info_hash: &str) -> anyhow::Result<()> {
    Client::find(&client.connect)?.call(method, json!([info_hash]))?;
    Ok(())
}

pub(super) fn print(client: &ClientArgs, answer: &Value, for_people: impl FnOnce()) {
    if client.json {
        output::json(answer)
    } else {
        for_people()
    }
}

/// The form in which a torrent goes over RPC: links as they are, a file as its bytes in base64. A bad file is found
/// here, before anything is sent.
pub(crate) fn wire_source(text: &str) -> anyhow::Result<String> {
    if super::is_url(text) {
        return Ok(text.to_owned());
    }
    Ok(match super::source(text)? {
        Source::Magnet(_) => text.to_owned(),
        Source::Metainfo(_) => BASE64_STANDARD.encode(std::fs::read(Path::new(text))?),
    })
}

fn percent(torrent: &Value) -> String {
    let (done, total) = (
        output::number(torrent, "done_bytes"),
        output::number(torrent, "total_bytes"),
    );
    if total == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", done as f64 * 100.0 / total as f64)
    }
}

fn state(torrent: &Value) -> String {
    if torrent.get("error").is_some_and(|error| !error.is_null()) {
        return "error".to_owned();
    }
    output::field(torrent, "state")
}

fn list(torrents: &Value) {
    let rows: Vec<Vec<String>> = torrents
        .as_array()
        .into_iter()
        .flatten()
        .map(|torrent| {
            vec![
                output::field(torrent, "info_hash"),
                state(torrent),
                percent(torrent),
                output::bytes(output::number(torrent, "total_bytes")),
                format!("{}/s", output::bytes(output::number(torrent, "download_rate"))),
                format!("{}/s", output::bytes(output::number(torrent, "upload_rate"))),
                torrent
                    .get("peers")
                    .and_then(Value::as_array)
                    .map_or(0, Vec::len)
                    .to_string(),
                output::field(torrent, "name"),
            ]
        })
        .collect();
    output::table(
        &["info hash", "state", "done", "size", "down", "up", "peers", "name"],
        &rows,
    );
}

fn files(files: &Value) {
    let rows: Vec<Vec<String>> = files
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| {
            let (done, length) = (output::number(file, "done_bytes"), output::number(file, "length"));
            let percent = if length == 0 {
                100.0
            } else {
                done as f64 * 100.0 / length as f64
            };
            vec![
                output::field(file, "index"),
                output::field(file, "priority"),
                format!("{percent:.1} %"),
                output::bytes(length),
                output::field(file, "path"),
            ]
        })
        .collect();
    output::table(&["index", "wanted", "done", "size", "path"], &rows);
}

fn info(torrent: &Value) {
    let error = torrent
        .get("error")
        .filter(|error| !error.is_null())
        .map(|_| output::field(torrent, "error"));
    let mut rows = vec![
        ("name", output::field(torrent, "name")),
        ("info hash", output::field(torrent, "info_hash")),
        ("state", error.unwrap_or_else(|| state(torrent))),
        ("done", percent(torrent)),
        ("size", output::bytes(output::number(torrent, "total_bytes"))),
        (
            "pieces",
            format!(
                "{} of {}",
                output::number(torrent, "pieces_done"),
                output::number(torrent, "piece_count")
            ),
        ),
        ("fetched", output::bytes(output::number(torrent, "downloaded"))),
        ("given", output::bytes(output::number(torrent, "uploaded"))),
        ("folder", output::field(torrent, "dir")),
    ];
    if let Some(files) = torrent.get("files").and_then(Value::as_array) {
        rows.push(("files", files.len().to_string()));
    }
    output::pairs(&rows);
    let peers: Vec<Vec<String>> = torrent
        .get("peers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|peer| {
            vec![
                output::field(peer, "addr"),
                output::field(peer, "direction"),
                output::field(peer, "client"),
                format!("{:.1} %", output::number(peer, "progress_milli") as f64 / 10.0),
                format!("{}/s", output::bytes(output::number(peer, "download_rate"))),
                format!("{}/s", output::bytes(output::number(peer, "upload_rate"))),
            ]
        })
        .collect();
    if !peers.is_empty() {
        println!();
        output::table(&["peer", "direction", "client", "has", "down", "up"], &peers);
    }
}
