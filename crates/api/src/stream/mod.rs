//! Files of torrents over HTTP while they download, for players: ranges, types and names, a playlist for a folder.
//!
//! Players send no cookies and no tokens, so the address itself holds a key, which opens nothing else (see
//! [`Key`]).

mod body;
mod media;
mod range;

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dunlin_torrent::Metainfo;
use dunlin_torrent::metainfo::File;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::backend::{BackendError, InfoHash, Node};
use range::Wanted;

/// The secret in the addresses of streams; it is made from the dashboard's token and does not give that away.
#[derive(Clone, Debug)]
pub struct Key(String);

impl Key {
    /// The key that goes with a token.
    pub fn of(token: &str) -> Self {
        // A key of any length will do, so this cannot fail; nothing would match an empty key.
        let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes());
        let digest = mac.map(|mac| mac.chain_update(b"stream").finalize().into_bytes());
        Self(digest.map(|digest| hex::encode(&digest[..16])).unwrap_or_default())
    }

    fn opens(&self, given: &str) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(given.as_bytes()))
    }
}

/// Where streams are found, once the dashboard listens: `http://ADDRESS/stream/KEY`.
#[derive(Debug, Default)]
pub struct Base(OnceLock<String>);

impl Base {
    /// Says where.
    pub fn set(&self, address: std::net::SocketAddr, key: &Key) {
        let _ = self.0.set(format!("http://{address}/stream/{}", key.0));
    }

    /// A torrent's folder there; `None` when the dashboard is off.
    pub(crate) fn of(&self, info_hash: InfoHash) -> Option<String> {
        self.0.get().map(|base| format!("{base}/{info_hash}"))
    }
}

/// The routes, for the dashboard's listener.
pub(crate) fn router(node: Arc<Node>, key: Key) -> Router {
    Router::new()
        .route("/stream/{key}/{info_hash}/playlist.m3u", get(playlist))
        .route("/stream/{key}/{info_hash}/{index}/{*name}", get(file))
        .with_state(Arc::new(Streams { node, key }))
}

struct Streams {
    node: Arc<Node>,
    key: Key,
}

/// Why there is nothing to play.
enum Refusal {
    /// Also for a wrong key: who has none learns nothing.
    NotFound,
    Backend(BackendError),
    /// A magnet link's files are not known yet.
    TooEarly,
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound | Self::Backend(BackendError::NotFound(_)) => {
                (StatusCode::NOT_FOUND, "There is nothing at this address\n").into_response()
            }
            Self::Backend(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
            Self::TooEarly => {
                let text = "The torrent's files are not known yet; try again\n";
                (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], text).into_response()
            }
        }
    }
}

impl Streams {
    async fn metainfo(&self, key: &str, info_hash: &str) -> Result<(InfoHash, Arc<Metainfo>), Refusal> {
        let info_hash = info_hash.parse().map_err(|_| Refusal::NotFound)?;
        let torrent = self.node.torrent.as_ref().filter(|_| self.key.opens(key));
        let metainfo = torrent.ok_or(Refusal::NotFound)?.metainfo(info_hash).await?;
        Ok((info_hash, metainfo.ok_or(Refusal::TooEarly)?))
    }
}

/// The files that people see, each with its index in the torrent.
pub(crate) fn files(metainfo: &Metainfo) -> impl Iterator<Item = (usize, &File)> {
    metainfo.files.iter().enumerate().filter(|(_, file)| !file.pad)
}

/// A file's address below its torrent's.
pub(crate) fn address(index: usize, file: &File) -> String {
    format!("{index}/{}", media::percent_encode(&name_of(file)))
}

/// What a file is, by its name, as in `video/mp4`.
pub(crate) fn media_type(file: &File) -> &'static str {
    media::type_of(&name_of(file))
}

fn name_of(file: &File) -> String {
    file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All that can be played, in the order of names; all files when nothing can.
async fn playlist(
    State(streams): State<Arc<Streams>>,
    Path((key, info_hash)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (info_hash, metainfo) = streams.metainfo(&key, &info_hash).await?;
    // The guard has made sure that it names us.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.ok_or(Refusal::NotFound)?;
    let mut entries: Vec<_> = files(&metainfo)
        .filter(|(_, file)| media::plays(media_type(file)))
        .collect();
    if entries.is_empty() {
        entries = files(&metainfo).collect();
    }
    entries.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
    let mut text = "#EXTM3U\n".to_owned();
    for (index, file) in entries {
        // Writing to a string cannot fail; names hold no control characters.
        let _ = writeln!(text, "#EXTINF:-1,{}", name_of(file));
        let _ = writeln!(text, "http://{host}/stream/{key}/{info_hash}/{}", address(index, file));
    }
    let name = format!("{}.m3u", metainfo.name);
    Ok((
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("audio/x-mpegurl; charset=utf-8"),
            ),
            (header::CONTENT_DISPOSITION, media::disposition(&name)),
        ],
        text,
    )
        .into_response())
}

async fn file(
    State(streams): State<Arc<Streams>>,
    Path((key, info_hash, index, _name)): Path<(String, String, usize, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (info_hash, metainfo) = streams.metainfo(&key, &info_hash).await?;
    let file = metainfo
        .files
        .get(index)
        .filter(|file| !file.pad)
        .ok_or(Refusal::NotFound)?;
    // A torrent's bytes never change.
    let etag = format!("\"{info_hash}-{index}\"");
    let mut response = Response::new(Body::empty());
    let wanted = match range::wanted(&headers, &etag, file.length) {
        Wanted::All => 0..file.length,
        Wanted::Part(part) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{}", part.start, part.end - 1, file.length);
            set(&mut response, header::CONTENT_RANGE, &text);
            part
        }
        Wanted::Nothing => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{}", file.length),
            );
            return Ok(response);
        }
    };
    set(
        &mut response,
        header::CONTENT_LENGTH,
        &(wanted.end - wanted.start).to_string(),
    );
    set(&mut response, header::CONTENT_TYPE, media_type(file));
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &etag);
    let disposition = media::disposition(&name_of(file));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    if method != Method::HEAD
        && let Some(torrent) = &streams.node.torrent
    {
        let range = file.offset + wanted.start..file.offset + wanted.end;
        *response.body_mut() = body::stream(Arc::clone(torrent), info_hash, range);
    }
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
