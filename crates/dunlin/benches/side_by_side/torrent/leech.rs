//! A torrent from one libtorrent seed.

use anyhow::Result;
use dunlin_testkit::tracker::HttpTracker;

use super::contest::Contest;
use super::peers::{Client, Peer, libtorrent};
use super::{Work, wait, wait_known};
use crate::Args;
use crate::cost::{Meter, Sample};

pub(super) fn run(args: &Args, work: &Work, what: &str) -> Result<()> {
    Contest::run(args, &Client::ALL, 3, |client| leech(args, work, client))?
        .report(&format!("leech of {what} in 1 MiB pieces from one libtorrent seed"));
    Ok(())
}

fn leech(args: &Args, work: &Work, client: Client) -> Result<Sample> {
    let tracker = HttpTracker::start()?;
    let share = work.with_tracker(&tracker)?;
    let seed = libtorrent()?;
    Peer::seed(&seed, &share)?;
    wait_known(&tracker, 1)?;
    let folder = work.download_folder()?;
    let peer = client.start(args)?;
    let meter = Meter::start(peer.pid())?;
    let (cost, own) = meter.read_while_watched(|| {
        peer.leech(&share, folder.path())?;
        wait("it has all of it", || peer.is_complete(&share))
    })?;
    Ok(vec![
        ("CPU, s per GiB", cost.cpu.as_secs_f64() / work.gib()),
        ("wall, s", cost.wall.as_secs_f64()),
        ("peak memory, MiB", own as f64 / f64::from(1 << 20)),
    ])
}
