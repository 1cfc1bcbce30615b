//! The watch folder: .torrent files, and .magnet files that hold a link, that are put there are added, and renamed when
//! they were.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use dunlin_api::TorrentBackend;
use dunlin_api::backend::{AddRequest, AddSource, BackendError, Source};
use dunlin_torrent::metainfo::MAX_METAINFO_LEN;
use dunlin_torrent::{Magnet, Metainfo};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Looks for ever.
pub(super) async fn watch(dir: Option<&Path>, torrent: Option<Arc<dyn TorrentBackend>>) {
    let (Some(dir), Some(torrent)) = (dir, torrent) else {
        return std::future::pending().await;
    };
    let mut seen = HashMap::new();
    loop {
        match ready(dir, &mut seen) {
            Ok(files) => {
                for file in files {
                    take(&file, &*torrent).await;
                }
            }
            Err(error) => tracing::warn!("cannot look into the watch folder {}: {error}", dir.display()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The files that were the same at the last look: what is still being written is not touched.
fn ready(dir: &Path, seen: &mut HashMap<PathBuf, (u64, SystemTime)>) -> std::io::Result<Vec<PathBuf>> {
    let mut now = HashMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let wanted = path
            .extension()
            .is_some_and(|ending| ending == "torrent" || ending == "magnet");
        if wanted && let Ok(metadata) = path.metadata().and_then(|data| Ok((data.len(), data.modified()?))) {
            now.insert(path, metadata);
        }
    }
    let mut files: Vec<PathBuf> = now
        .iter()
        .filter(|(path, state)| seen.get(*path) == Some(*state))
        .map(|(path, _)| path.clone())
        .collect();
    files.sort();
    *seen = now;
    Ok(files)
}

async fn take(file: &Path, torrent: &dyn TorrentBackend) {
    let added = match source(file) {
        Ok(source) => {
            let request = AddRequest {
                source: AddSource::Torrent(source),
                dir: None,
                peers: Vec::new(),
                paused: false,
                seed_only: false,
            };
            torrent.add(request).await.map(drop).map_err(anyhow::Error::from)
        }
        Err(error) => Err(error),
    };
    let ending = match &added {
        Ok(()) => "added",
        Err(error) if matches!(error.downcast_ref(), Some(BackendError::AlreadyExists(_))) => "added",
        // The node is stopping: the next run takes it.
        Err(error) if matches!(error.downcast_ref(), Some(BackendError::Unavailable(_))) => return,
        Err(error) => {
            tracing::warn!("{} is of no use: {error:#}", file.display());
            "bad"
        }
    };
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    if let Err(error) = std::fs::rename(file, &name) {
        tracing::warn!("cannot rename {}: {error}", file.display());
    }
}

fn source(file: &Path) -> anyhow::Result<Source> {
    let size = file.metadata()?.len();
    anyhow::ensure!(size <= MAX_METAINFO_LEN as u64, "it is too large");
    let bytes = std::fs::read(file).context("cannot read it")?;
    if file.extension().is_some_and(|ending| ending == "magnet") {
        let text = String::from_utf8(bytes).context("it holds no text")?;
        return Ok(Source::Magnet(text.trim().parse::<Magnet>()?));
    }
    Ok(Source::Metainfo(Arc::new(Metainfo::parse(&bytes)?)))
}
