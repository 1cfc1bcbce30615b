//! What the API asks of the BitTorrent part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_api::TorrentBackend;
use dunlin_api::backend::{AddRequest, AddSource, BackendError};
use dunlin_torrent::command::{AddTorrent, Command, Event, Priority, ReadRequest, Source};
use dunlin_torrent::status::TorrentStatus;
use dunlin_torrent::{InfoHash, Metainfo};

use super::torrent::{Torrent, lock};

/// A player that has waited this long for bytes is told that they do not come: no peer has them.
const READ_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

impl Torrent {
    /// A snapshot of every torrent.
    pub(crate) async fn status(&self) -> Result<Vec<TorrentStatus>, BackendError> {
        self.status_of(None).await
    }

    async fn status_of(&self, info_hash: Option<InfoHash>) -> Result<Vec<TorrentStatus>, BackendError> {
        match self
            .answers
            .ask(|ticket| self.command(Command::Query { info_hash, ticket }))
            .await?
        {
            Event::Status { torrents, .. } => Ok(torrents),
            other => Err(BackendError::Internal(format!("unexpected answer {other:?}"))),
        }
    }

    async fn known(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        let there = self.status_of(Some(info_hash)).await?;
        if there.iter().any(|torrent| torrent.info_hash == info_hash) {
            return Ok(());
        }
        Err(BackendError::NotFound(format!("there is no torrent {info_hash}")))
    }

    async fn tell(&self, info_hash: InfoHash, command: Command) -> Result<(), BackendError> {
        self.known(info_hash).await?;
        self.command(command);
        Ok(())
    }
}

/// Fetches and parses the .torrent at a web address.
pub(crate) fn fetch(url: &str) -> anyhow::Result<Source> {
    let limits = dunlin_net::http::Limits {
        max_bytes: dunlin_torrent::metainfo::MAX_METAINFO_LEN,
        ..dunlin_net::http::Limits::default()
    };
    let bytes = dunlin_net::http::get(url, &limits).map_err(|error| anyhow::anyhow!("cannot fetch {url}: {error}"))?;
    let metainfo = Metainfo::parse(&bytes).map_err(|error| anyhow::anyhow!("what {url} gives: {error}"))?;
    Ok(Source::Metainfo(Arc::new(metainfo)))
}

#[async_trait]
impl TorrentBackend for Torrent {
    async fn list(&self) -> Result<Vec<TorrentStatus>, BackendError> {
        self.status().await
    }

    async fn add(&self, request: AddRequest) -> Result<InfoHash, BackendError> {
        let source = match request.source {
            AddSource::Torrent(source) => source,
            AddSource::Url(url) => tokio::task::spawn_blocking(move || fetch(&url))
                .await
                .map_err(|error| BackendError::Internal(error.to_string()))?
                .map_err(|error| BackendError::Invalid(format!("{error:#}")))?,
        };
        let info_hash = source.info_hash();
        if self.known(info_hash).await.is_ok() {
            self.command(Command::AddPeers {
                info_hash,
                peers: request.peers,
            });
            return Err(BackendError::AlreadyExists(format!(
                "the torrent {info_hash} is there already"
            )));
        }
        let dir = request.dir.unwrap_or_else(|| self.download_dir.clone());
        let mut add = AddTorrent::new(source, dir);
        add.peers = request.peers;
        add.paused = request.paused;
        add.seed_only = request.seed_only;
        Torrent::add(self, add);
        Ok(info_hash)
    }

    async fn remove(&self, info_hash: InfoHash, delete_files: bool) -> Result<(), BackendError> {
        self.tell(
            info_hash,
            Command::Remove {
                info_hash,
                delete_files,
            },
        )
        .await
    }

    async fn pause(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.tell(info_hash, Command::Pause { info_hash }).await
    }

    async fn resume(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.tell(info_hash, Command::Resume { info_hash }).await
    }

    async fn metainfo(&self, info_hash: InfoHash) -> Result<Option<Arc<Metainfo>>, BackendError> {
        self.known(info_hash).await?;
        Ok(lock(&self.metainfos).get(&info_hash).cloned())
    }

    async fn recheck(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.tell(info_hash, Command::Recheck { info_hash }).await
    }

    async fn prioritise(&self, info_hash: InfoHash, files: Vec<(usize, Priority)>) -> Result<(), BackendError> {
        self.tell(info_hash, Command::Prioritise { info_hash, files }).await
    }

    async fn limit(
        &self,
        info_hash: Option<InfoHash>,
        download: Option<u64>,
        upload: Option<u64>,
    ) -> Result<(), BackendError> {
        if let Some(info_hash) = info_hash {
            self.known(info_hash).await?;
        }
        self.command(Command::Limit {
            info_hash,
            download,
            upload,
        });
        Ok(())
    }

    async fn read(&self, info_hash: InfoHash, stream: u64, offset: u64, len: u32) -> Result<Bytes, BackendError> {
        let ask = |ticket| {
            self.command(Command::Read(ReadRequest {
                info_hash,
                stream,
                offset,
                len,
                ticket,
            }))
        };
        match self.answers.ask_within(READ_WITHIN, ask).await? {
            Event::Read { result, .. } => result.map_err(BackendError::Unavailable),
            other => Err(BackendError::Internal(format!("unexpected answer {other:?}"))),
        }
    }

    fn end_stream(&self, info_hash: InfoHash, stream: u64) {
        self.command(Command::EndStream { info_hash, stream });
    }

    fn listening(&self) -> Vec<SocketAddr> {
        Self::listening(self)
    }
}
