//! The bytes of an answer, read from the torrent as the player takes them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;

use crate::backend::{BackendError, InfoHash, TorrentBackend};

/// Bytes asked for at once.
const READ: u32 = 128 * 1024;

/// A reader of the torrent; dropped, which is what happens when the player hangs up, it wants nothing more.
struct Reader {
    torrent: Arc<dyn TorrentBackend>,
    info_hash: InfoHash,
    number: u64,
    left: Range<u64>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.torrent.end_stream(self.info_hash, self.number);
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Bytes, BackendError> {
        let len = u32::try_from(self.left.end - self.left.start).unwrap_or(READ).min(READ);
        let mut bytes = self
            .torrent
            .read(self.info_hash, self.number, self.left.start, len)
            .await?;
        bytes.truncate(len as usize);
        if bytes.is_empty() {
            return Err(BackendError::Internal("the torrent gave no bytes".to_owned()));
        }
        self.left.start += bytes.len() as u64;
        Ok(bytes)
    }
}

/// The torrent's bytes in `range`; an error ends the answer early, so that the player notices.
pub(super) fn stream(torrent: Arc<dyn TorrentBackend>, info_hash: InfoHash, range: Range<u64>) -> Body {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let reader = Reader {
        torrent,
        info_hash,
        number: NEXT.fetch_add(1, Ordering::Relaxed),
        left: range,
    };
    Body::from_stream(futures::stream::try_unfold(reader, |mut reader| async move {
        if reader.left.is_empty() {
            return Ok(None);
        }
        let bytes = reader
            .next()
            .await
            .inspect_err(|error| tracing::debug!("a stream ends early: {error}"))?;
        Ok::<_, BackendError>(Some((bytes, reader)))
    }))
}
