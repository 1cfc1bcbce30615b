//! A torrent to one libtorrent leech.

use anyhow::Result;
use dunlin_testkit::tracker::HttpTracker;

use super::contest::Contest;
use super::peers::{Client, Peer, libtorrent};
use super::{Work, wait, wait_known};
use crate::Args;
use crate::cost::{Meter, Sample};

pub(super) fn run(args: &Args, work: &Work) -> Result<()> {
    Contest::run(args, &Client::ALL, 3, |client| seed(args, work, client))?
        .report("seed of 2 GiB in 1 MiB pieces to one libtorrent leech");
    Ok(())
}

fn seed(args: &Args, work: &Work, client: Client) -> Result<Sample> {
    let tracker = HttpTracker::start()?;
    let share = work.with_tracker(&tracker)?;
    let seed = client.start(args)?;
    seed.seed(&share)?;
    wait_known(&tracker, 1)?;
    let folder = work.download_folder()?;
    let leech = libtorrent()?;
    let meter = Meter::start(seed.pid())?;
    let (cost, own) = meter.read_while_watched(|| {
        leech.leech(&share, folder.path())?;
        wait("libtorrent has all of it", || Peer::is_complete(&leech, &share))
    })?;
    Ok(vec![
        ("CPU, s per GiB", cost.cpu.as_secs_f64() / work.gib()),
        ("wall, s", cost.wall.as_secs_f64()),
        ("peak memory, MiB", own as f64 / f64::from(1 << 20)),
    ])
}
