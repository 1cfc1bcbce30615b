//! What the page can do: add, pause, resume and remove torrents.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Site;
use crate::backend::{AddRequest, AddSource, BackendError, InfoHash};
use crate::rpc::torrents;

/// The longest request: a `.torrent` file.
pub(super) const MAX_BODY: usize = 16 << 20;

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

fn failed(error: &BackendError) -> Response {
    let status = match error {
        BackendError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        BackendError::NotFound(_) => StatusCode::NOT_FOUND,
        BackendError::AlreadyExists(_) => StatusCode::CONFLICT,
        BackendError::Invalid(_) => StatusCode::BAD_REQUEST,
        BackendError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(status, &error.to_string())
}

/// Adds what the body holds: a magnet link or an address as text, or a `.torrent` file as it is.
pub(super) async fn add(State(site): State<Arc<Site>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(torrent) = &site.node.torrent else {
        return refuse(StatusCode::NOT_FOUND, "BitTorrent is switched off on this node");
    };
    let is_file = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/x-bittorrent");
    let source: Result<AddSource, String> = if is_file {
        torrents::file(&body)
    } else {
        match std::str::from_utf8(&body) {
            Ok(text) => torrents::source(text),
            Err(_) => Err("not text".to_owned()),
        }
    };
    let source = match source {
        Ok(source) => source,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, &text),
    };
    match torrent
        .add(AddRequest {
            source,
            dir: None,
            peers: Vec::new(),
            paused: false,
            seed_only: false,
        })
        .await
    {
        Ok(info_hash) => Json(json!({ "info_hash": info_hash.to_string() })).into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    delete_files: bool,
}

/// Pauses, resumes, rechecks or removes a torrent.
pub(super) async fn act(
    State(site): State<Arc<Site>>,
    Path((info_hash, action)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Response {
    let Some(torrent) = &site.node.torrent else {
        return refuse(StatusCode::NOT_FOUND, "BitTorrent is switched off on this node");
    };
    let Ok(info_hash) = info_hash.parse::<InfoHash>() else {
        return refuse(StatusCode::BAD_REQUEST, "not an info hash");
    };
    let done = match action.as_str() {
        "pause" => torrent.pause(info_hash).await,
        "resume" => torrent.resume(info_hash).await,
        "recheck" => torrent.recheck(info_hash).await,
        "remove" => torrent.remove(info_hash, options.delete_files).await,
        _ => return refuse(StatusCode::NOT_FOUND, "no such action"),
    };
    match done {
        Ok(()) => Json(json!({})).into_response(),
        Err(error) => failed(&error),
    }
}
