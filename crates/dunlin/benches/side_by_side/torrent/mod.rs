//! The BitTorrent engine beside libtorrent and aria2, over loopback. Whom the row is about is measured; the
//! other end is always libtorrent with settings for speed.
//!
//! Everybody finds its peers through a tracker, links are plain TCP, and all folders are on one disk. A client is done
//! when all pieces are right and in their files, though not yet synced: no peer but ours syncs at all.

mod contest;
mod idle;
mod leech;
mod peers;
mod recheck;
mod seed;
mod swarm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use dunlin_testkit::content::{Bytes64, write_file};
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::tracker::HttpTracker;

use crate::Args;

const PIECE_LENGTH: u64 = 1 << 20;
/// The longest that one piece of work may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at a client.
const PAUSE: Duration = Duration::from_millis(50);

/// A measurement of the BitTorrent engine.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Row {
    /// Leech 2 GiB in 1 MiB pieces
    Leech,
    /// Leech 2,000 files of together 512 MiB
    Files,
    /// Seed 2 GiB to one leech
    Seed,
    /// One seed and four leeches of one client share 512 MiB
    Swarm,
    /// Check 8 GiB that are in the page cache
    Recheck,
    /// Ten thousand torrents with nothing to do
    Idle,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for &row in Row::value_variants() {
        if !args.torrent_rows.is_empty() && !args.torrent_rows.contains(&row) {
            continue;
        }
        let outcome = match row {
            Row::Leech => Work::one_file(folder.path(), 2 << 30).and_then(|work| leech::run(args, &work, "2 GiB")),
            Row::Files => Work::many_files(folder.path(), 2_000, 512 << 20)
                .and_then(|work| leech::run(args, &work, "2,000 files of together 512 MiB")),
            Row::Seed => Work::one_file(folder.path(), 2 << 30).and_then(|work| seed::run(args, &work)),
            Row::Swarm => Work::one_file(folder.path(), 512 << 20).and_then(|work| swarm::run(args, &work)),
            Row::Recheck => recheck::run(args, folder.path()),
            Row::Idle => idle::run(args, folder.path()),
        };
        if let Err(error) = outcome {
            println!("\n{row:?} failed: {error:#}");
        }
    }
    Ok(())
}

/// Something to share, complete in a folder, with its torrent.
struct Work {
    torrent: Torrent,
    /// The folder that holds the content.
    complete: PathBuf,
    /// Where downloads and .torrent files go.
    folder: PathBuf,
}

impl Work {
    fn one_file(folder: &Path, size: u64) -> Result<Self> {
        let complete = folder.join("complete");
        let content = complete.join(format!("{}m.bin", size >> 20));
        if !content.exists() {
            write_file(&content, size, 7)?;
        }
        Self::of(folder, &complete, &content)
    }

    /// Files of about the same size.
    fn many_files(folder: &Path, count: u64, size: u64) -> Result<Self> {
        let complete = folder.join("complete");
        let content = complete.join("files");
        let mut random = Bytes64::new(11);
        let mean = size / count;
        for index in 0..count {
            let length = mean / 2 + random.below(mean);
            write_file(&content.join(format!("{index:04}.bin")), length, random.next_u64())?;
        }
        Self::of(folder, &complete, &content)
    }

    fn of(folder: &Path, complete: &Path, content: &Path) -> Result<Self> {
        Ok(Self {
            torrent: Torrent::create(content, PIECE_LENGTH, None)?,
            complete: complete.to_owned(),
            folder: folder.to_owned(),
        })
    }

    /// The .torrent file with this tracker.
    fn with_tracker(&self, tracker: &HttpTracker) -> Result<Share> {
        let url = tracker.url();
        let head = format!("d8:announce{}:{url}4:info", url.len());
        let path = self.folder.join("work.torrent");
        std::fs::write(&path, [head.as_bytes(), &self.torrent.info, b"e"].concat())?;
        Ok(Share {
            path,
            info_hash: self.torrent.hash_hex(),
            total: self.torrent.total,
            complete: self.complete.clone(),
        })
    }

    /// A fresh folder for a download, gone when it is dropped.
    fn download_folder(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(&self.folder)?)
    }

    fn gib(&self) -> f64 {
        self.torrent.total as f64 / f64::from(1 << 30)
    }
}

/// A torrent as clients are given it.
struct Share {
    path: PathBuf,
    info_hash: String,
    total: u64,
    complete: PathBuf,
}

/// Waits until `check` is true, looking often.
fn wait(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !check().with_context(|| what.to_owned())? {
        if start.elapsed() > LIMIT {
            bail!("waited in vain: {what}");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Waits until the tracker knows `count` peers.
fn wait_known(tracker: &HttpTracker, count: usize) -> Result<()> {
    wait("the tracker knows the peers", || Ok(tracker.announces().len() >= count))
}
