//! `torrent.*`: the BitTorrent peer for the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_torrent::{Magnet, Metainfo};
use serde_json::{Value, json};

use super::error::{DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError};
use super::method::{Answer, Call};
use crate::backend::{AddRequest, AddSource, BackendError, InfoHash, Priority, Source, TorrentStatus};
use crate::stream;

fn status_json(status: &TorrentStatus) -> Answer {
    serde_json::to_value(status).map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))
}

pub(crate) async fn list(call: Call) -> Answer {
    call.torrent()?.list().await?.iter().map(status_json).collect()
}

/// What a person calls a torrent: a magnet link, an address, or the file's bytes in base64.
pub(crate) fn source(text: &str) -> Result<AddSource, String> {
    let text = text.trim();
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts("magnet:") {
        let magnet: Magnet = text
            .parse()
            .map_err(|err: dunlin_torrent::magnet::MagnetError| err.to_string())?;
        return Ok(AddSource::Torrent(Source::Magnet(magnet)));
    }
    if starts("http://") || starts("https://") {
        return Ok(AddSource::Url(text.to_owned()));
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| "neither a magnet link, nor an http address, nor base64")?;
    file(&bytes)
}

/// The bytes of a `.torrent` file.
pub(crate) fn file(bytes: &[u8]) -> Result<AddSource, String> {
    let metainfo = Metainfo::parse(bytes).map_err(|err| err.to_string())?;
    Ok(AddSource::Torrent(Source::Metainfo(Arc::new(metainfo))))
}

pub(crate) async fn add(call: Call) -> Answer {
    let source = source(call.str(0)?).map_err(|text| RpcError::new(DESERIALIZATION_ERROR, text))?;
    let mut peers = Vec::new();
    if let Some(list) = call.arg(2).as_array() {
        for peer in list {
            let addr = peer.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
            let wrong = || RpcError::new(INVALID_PARAMETER, format!("{peer} is no address with a port"));
            peers.push(addr.ok_or_else(wrong)?);
        }
    }
    let add = AddRequest {
        source,
        dir: call.opt_str(1)?.map(PathBuf::from),
        peers,
        paused: call.bool_or(3, false)?,
        seed_only: call.bool_or(4, false)?,
    };
    let info_hash = call.torrent()?.add(add).await?;
    Ok(json!({ "info_hash": info_hash.to_string() }))
}

fn info_hash(call: &Call) -> Result<InfoHash, RpcError> {
    let text = call.str(0)?;
    text.parse()
        .map_err(|_| RpcError::new(INVALID_ADDRESS_OR_KEY, format!("'{text}' is no info hash")))
}

pub(crate) async fn remove(call: Call) -> Answer {
    call.torrent()?
        .remove(info_hash(&call)?, call.bool_or(1, false)?)
        .await?;
    Ok(Value::Null)
}

pub(crate) async fn pause(call: Call) -> Answer {
    call.torrent()?.pause(info_hash(&call)?).await?;
    Ok(Value::Null)
}

pub(crate) async fn resume(call: Call) -> Answer {
    call.torrent()?.resume(info_hash(&call)?).await?;
    Ok(Value::Null)
}

/// How much files are wanted.
pub(crate) async fn prioritise(call: Call) -> Answer {
    let wrong = |text: String| RpcError::new(INVALID_PARAMETER, text);
    let mut files = Vec::new();
    for (index, priority) in call.arg(1).as_object().into_iter().flatten() {
        let index = index
            .parse()
            .map_err(|_| wrong(format!("'{index}' is no index of a file")))?;
        let priority = match priority.as_str() {
            Some("skip") => Priority::Skip,
            Some("normal") => Priority::Normal,
            Some("high") => Priority::High,
            _ => return Err(wrong(format!("{priority} is none of skip, normal and high"))),
        };
        files.push((index, priority));
    }
    call.torrent()?.prioritise(info_hash(&call)?, files).await?;
    Ok(Value::Null)
}

/// Limits of rates.
pub(crate) async fn limit(call: Call) -> Answer {
    let limit = |position: usize| match call.given(position) {
        true => call
            .int::<u64>(position)
            .map(|kib| (kib > 0).then_some(kib.saturating_mul(1024))),
        false => Ok(None),
    };
    let (download, upload) = (limit(0)?, limit(1)?);
    let info_hash = call.opt_str(2)?.map(|text| {
        let wrong = || RpcError::new(INVALID_ADDRESS_OR_KEY, format!("'{text}' is no info hash"));
        text.parse::<InfoHash>().map_err(|_| wrong())
    });
    call.torrent()?.limit(info_hash.transpose()?, download, upload).await?;
    Ok(Value::Null)
}

pub(crate) async fn recheck(call: Call) -> Answer {
    call.torrent()?.recheck(info_hash(&call)?).await?;
    Ok(Value::Null)
}

/// Bytes of a file that lie in verified pieces.
fn done_bytes(metainfo: &Metainfo, pieces: &[u8], file: &dunlin_torrent::metainfo::File) -> u64 {
    let have = |piece: u32| {
        pieces
            .get(piece as usize / 8)
            .is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
    };
    let part = |piece: u32| {
        let start = metainfo.piece_offset(piece).max(file.offset);
        let end = (metainfo.piece_offset(piece) + u64::from(metainfo.piece_length)).min(file.range().end);
        end.saturating_sub(start)
    };
    metainfo.pieces_of(file).filter(|&piece| have(piece)).map(part).sum()
}

/// Where a player finds a torrent's files.
pub(crate) async fn stream(call: Call) -> Answer {
    let info_hash = info_hash(&call)?;
    let metainfo = call.torrent()?.metainfo(info_hash).await?;
    let base = call.shared.node.streams.of(info_hash);
    let base = base.ok_or_else(|| BackendError::Unavailable("streams need the dashboard, which is off".to_owned()))?;
    let files = metainfo.map(|metainfo| {
        let file = |(index, file): (usize, &dunlin_torrent::metainfo::File)| {
            json!({
                "index": index,
                "path": file.path.to_string_lossy(),
                "length": file.length,
                "type": stream::media_type(file),
                "url": format!("{base}/{}", stream::address(index, file)),
            })
        };
        stream::files(&metainfo).map(file).collect::<Vec<_>>()
    });
    Ok(json!({ "playlist": format!("{base}/playlist.m3u"), "files": files }))
}

pub(crate) async fn info(call: Call) -> Answer {
    let info_hash = info_hash(&call)?;
    let torrent = call.torrent()?;
    let status = torrent
        .list()
        .await?
        .into_iter()
        .find(|status| status.info_hash == info_hash);
    let status = status.ok_or_else(|| BackendError::NotFound(format!("there is no torrent {info_hash}")))?;
    let mut map = status_json(&status)?;
    let files = torrent.metainfo(info_hash).await?.map(|metainfo| {
        let file = |(index, file): (usize, &dunlin_torrent::metainfo::File)| {
            json!({
                "index": index,
                "path": file.path.to_string_lossy(),
                "length": file.length,
                "offset": file.offset,
                "priority": status.priorities.get(index).map_or("normal", |priority| ["skip", "normal", "high"][usize::from(*priority).min(2)]),
                "done_bytes": done_bytes(&metainfo, &status.pieces, file),
            })
        };
        stream::files(&metainfo).map(file).collect::<Vec<_>>()
    });
    if let Value::Object(map) = &mut map {
        map.insert("files".into(), files.into());
    }
    Ok(map)
}
