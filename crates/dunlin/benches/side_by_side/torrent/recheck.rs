//! A check of content that is in the page cache, beside what two cores can hash at all.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_testkit::content::write_file;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::tracker::HttpTracker;
use serde_json::json;
use sha1::{Digest, Sha1};

use super::contest::Contest;
use super::peers::{Client, Peer, dunlin, libtorrent, status};
use super::{PIECE_LENGTH, Work, wait};
use crate::Args;
use crate::cost::{Meter, Sample};

/// Files of the torrent; all are names of one, so that a quarter of it in memory is all of it.
const FILES: u64 = 4;
const FILE: u64 = 2 << 30;
/// How long the processors hash to tell how fast they are.
const HASHING: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args, folder: &Path) -> Result<()> {
    let complete = folder.join("recheck");
    let content = complete.join("files");
    write_file(&content.join("0.bin"), FILE, 7)?;
    for name in 1..FILES {
        std::fs::hard_link(content.join("0.bin"), content.join(format!("{name}.bin")))?;
    }
    let work = Work {
        torrent: Torrent::create(&content, PIECE_LENGTH, None)?,
        complete,
        folder: folder.to_owned(),
    };
    Contest::run(args, &[Client::Dunlin, Client::Libtorrent], 3, |client| {
        check(args, &work, client)
    })?
    .report("check of 8 GiB in the page cache");
    std::fs::remove_dir_all(&work.complete)?;
    Ok(())
}

fn check(args: &Args, work: &Work, client: Client) -> Result<Sample> {
    let tracker = HttpTracker::start()?;
    let share = work.with_tracker(&tracker)?;
    let floor = work.gib() / hash_speed();
    let cost = if client == Client::Dunlin {
        let peer = dunlin(args)?;
        Peer::seed(&peer, &share)?;
        let meter = Meter::start(peer.pid())?;
        peer.call("torrent.recheck", json!([share.info_hash]))?;
        wait("it is checked", || Ok(status(&peer, &share)?["state"] == "seeding"))?;
        meter.read()?
    } else {
        let peer = libtorrent()?;
        Peer::seed(&peer, &share)?;
        let meter = Meter::start(peer.pid())?;
        peer.ask(&json!({"do": "recheck", "info_hash": share.info_hash}))?;
        wait("it is checked", || {
            let state = peer.status(&share.info_hash)?["state"].clone();
            Ok(!state.as_str().context("a state")?.contains("checking"))
        })?;
        meter.read()?
    };
    let wall = cost.wall.as_secs_f64();
    Ok(vec![
        ("wall, s", wall),
        ("wall to two cores' hashing", wall / floor),
        ("CPU, s", cost.cpu.as_secs_f64()),
    ])
}

/// GiB a second that two threads hash.
fn hash_speed() -> f64 {
    let hash = || {
        let piece = vec![7; PIECE_LENGTH as usize];
        let (start, mut pieces) = (Instant::now(), 0u32);
        while start.elapsed() < HASHING {
            std::hint::black_box(Sha1::digest(&piece));
            pieces += 1;
        }
        f64::from(pieces) / start.elapsed().as_secs_f64() / 1024.0
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(hash);
        hash() + other.join().unwrap_or(0.0)
    })
}
