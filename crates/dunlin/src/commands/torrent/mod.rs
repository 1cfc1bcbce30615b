//! `dunlin torrent`: get, seed and create without a daemon; the rest on the running one.

mod create;
mod daemon;
mod get;
mod seed;
mod stream;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use dunlin_torrent::command::Source;
use dunlin_torrent::{Magnet, Metainfo};

use crate::cli::{TorrentArgs, TorrentCommand};

pub(crate) use create::hash_with_progress;

pub(crate) fn run(args: TorrentArgs) -> anyhow::Result<()> {
    match args.command {
        TorrentCommand::Get(args) => get::run(&args),
        TorrentCommand::Seed(args) => seed::run(&args),
        TorrentCommand::Create(args) => create::run(&args),
        other => daemon::run(other),
    }
}

/// Whether a person's word for a torrent is a link to be fetched.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A torrent from a .torrent file, a magnet link or a web address.
fn source(text: &str) -> anyhow::Result<Source> {
    if text
        .get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
    {
        return Ok(Source::Magnet(text.parse::<Magnet>()?));
    }
    if is_url(text) {
        return crate::daemon::torrent_backend::fetch(text);
    }
    Ok(Source::Metainfo(Arc::new(metainfo(Path::new(text))?)))
}

fn metainfo(path: &Path) -> anyhow::Result<Metainfo> {
    let limit = dunlin_torrent::metainfo::MAX_METAINFO_LEN as u64;
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    anyhow::ensure!(size <= limit, "{} is too large for a .torrent file", path.display());
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Metainfo::parse(&bytes).with_context(|| format!("{} is no usable .torrent file", path.display()))
}
