//! `dunlin torrent stream`: where a player finds the files of a torrent of the running peer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use dunlin_torrent::InfoHash;
use serde_json::{Value, json};

use super::daemon::{print, wire_source};
use crate::cli::ClientArgs;
use crate::client::Client;
use crate::output;

/// How often the peer is asked whether it knows a magnet link's files by now.
const ASK: Duration = Duration::from_millis(500);

pub(super) fn run(client: &ClientArgs, source: &str, file: Option<&str>, peers: &[SocketAddr]) -> anyhow::Result<()> {
    let peer = Client::find(&client.connect)?;
    let info_hash = match source.parse::<InfoHash>() {
        Ok(info_hash) => info_hash.to_string(),
        Err(_) => add(&peer, source, peers)?,
    };
    let mut told = false;
    let streams = loop {
        let streams = peer.call("torrent.stream", json!([info_hash]))?;
        if !streams["files"].is_null() {
            break streams;
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("asking peers what the torrent consists of");
        }
        std::thread::sleep(ASK);
    };
    let url = match (file, streams["files"].as_array().map(Vec::as_slice)) {
        (Some(file), Some(files)) => output::field(find(files, file)?, "url"),
        (None, Some([only])) => output::field(only, "url"),
        _ => output::field(&streams, "playlist"),
    };
    print(client, &streams, || println!("{url}"));
    Ok(())
}

/// Adds a torrent, or takes the one that is there already.
fn add(peer: &Client, source: &str, peers: &[SocketAddr]) -> anyhow::Result<String> {
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    let params = json!({"torrent": wire_source(source)?, "peers": peers});
    match peer.call("torrent.add", params) {
        Ok(answer) => Ok(output::field(&answer, "info_hash")),
        Err(error) if super::is_url(source) => Err(error),
        Err(error) => {
            let info_hash = super::source(source)?.info_hash().to_string();
            peer.call("torrent.info", json!([info_hash])).map_err(|_| error)?;
            Ok(info_hash)
        }
    }
}

fn find<'a>(files: &'a [Value], wanted: &str) -> anyhow::Result<&'a Value> {
    let by_index = files.iter().find(|file| output::field(file, "index") == wanted);
    let mut by_path = files
        .iter()
        .filter(|file| output::field(file, "path").ends_with(wanted));
    match (by_index, by_path.next(), by_path.next()) {
        (Some(file), ..) | (None, Some(file), None) => Ok(file),
        (None, Some(_), Some(_)) => bail!("several files end in '{wanted}'; name one by its index"),
        (None, None, _) => None.with_context(|| format!("no file ends in '{wanted}'; see dunlin torrent files")),
    }
}
