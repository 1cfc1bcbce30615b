//! Ten thousand torrents that are complete and that nobody asks for.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_testkit::content::write_file;
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::metainfo::Torrent;
use serde_json::{Value, json};

use super::contest::Contest;
use super::peers::{self, Client};
use super::wait;
use crate::Args;
use crate::cost::{Meter, Sample, own_memory};

const TORRENTS: usize = 10_000;
const SIZE: u64 = 40_000;
/// How long they are watched doing nothing.
const WATCH: Duration = Duration::from_secs(20);

pub(super) fn run(args: &Args, folder: &Path) -> Result<()> {
    let folder = folder.join("idle");
    let mut files = Vec::new();
    for index in 0..TORRENTS {
        let content = folder.join(format!("{index:05}.bin"));
        write_file(&content, SIZE, index as u64)?;
        let file = folder.join(format!("{index:05}.torrent"));
        Torrent::create(&content, 16 << 10, None)?.save(&file)?;
        files.push(file);
    }
    let contest = Contest::run(args, &[Client::Dunlin, Client::Libtorrent], 1, |client| {
        let files = files.iter().map(|file| file.as_path());
        if client == Client::Dunlin {
            dunlin(args, &folder, files)
        } else {
            libtorrent(&folder, files)
        }
    })?;
    contest.report("10,000 complete torrents with nothing to do (start: with what is remembered of them; libtorrent: told to believe that they are complete)");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// From the second start of the program, which knows the torrents from its first, until all seed.
fn dunlin<'a>(args: &Args, folder: &Path, files: impl Iterator<Item = &'a Path>) -> Result<Sample> {
    let mut peer = peers::dunlin(args)?;
    for file in files {
        peer.call(
            "torrent.add",
            json!([BASE64_STANDARD.encode(std::fs::read(file)?), folder]),
        )?;
    }
    let all_seed = |peer: &Dunlin| -> Result<bool> {
        let list = peer.call("torrent.list", json!([]))?;
        let list = list.as_array().context("a list")?;
        Ok(list.len() == TORRENTS && list.iter().all(|torrent: &Value| torrent["state"] == "seeding"))
    };
    wait("dunlin has checked all", || all_seed(&peer))?;
    peer.stop()?;
    let start = Instant::now();
    peer.restart()?;
    wait("dunlin seeds all", || all_seed(&peer))?;
    watch(start.elapsed(), peer.pid())
}

/// In one go, told that all is there.
fn libtorrent<'a>(folder: &Path, files: impl Iterator<Item = &'a Path>) -> Result<Sample> {
    let start = Instant::now();
    let peer: Libtorrent = peers::libtorrent()?;
    for file in files {
        peer.seed(file, folder)?;
    }
    watch(start.elapsed(), peer.pid())
}

fn watch(start: Duration, pid: u32) -> Result<Sample> {
    // What the start left to do is not idling.
    std::thread::sleep(Duration::from_secs(5));
    let meter = Meter::start(pid)?;
    std::thread::sleep(WATCH);
    let cost = meter.read()?;
    Ok(vec![
        ("start, s", start.as_secs_f64()),
        ("memory, MiB", own_memory(pid)? as f64 / f64::from(1 << 20)),
        (
            "CPU, % of a core",
            100.0 * cost.cpu.as_secs_f64() / cost.wall.as_secs_f64(),
        ),
    ])
}
