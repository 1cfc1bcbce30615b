//! One seed and four leeches of the same client.

use std::time::Instant;

use anyhow::Result;
use dunlin_testkit::tracker::HttpTracker;

use super::contest::Contest;
use super::peers::Client;
use super::{Work, wait, wait_known};
use crate::Args;
use crate::cost::{Meter, Sample};

const LEECHES: usize = 4;

pub(super) fn run(args: &Args, work: &Work) -> Result<()> {
    Contest::run(args, &Client::ALL, 3, |client| swarm(args, work, client))?
        .report("swarm of one seed and four leeches of one client, 512 MiB");
    Ok(())
}

fn swarm(args: &Args, work: &Work, client: Client) -> Result<Sample> {
    let tracker = HttpTracker::start()?;
    let share = work.with_tracker(&tracker)?;
    let seed = client.start(args)?;
    seed.seed(&share)?;
    wait_known(&tracker, 1)?;
    let mut leeches = Vec::new();
    for _ in 0..LEECHES {
        leeches.push((client.start(args)?, work.download_folder()?));
    }
    let meters = std::iter::once(&seed)
        .chain(leeches.iter().map(|(leech, _)| leech))
        .map(|peer| Meter::start(peer.pid()))
        .collect::<Result<Vec<Meter>>>()?;
    let start = Instant::now();
    for (leech, folder) in &leeches {
        leech.leech(&share, folder.path())?;
    }
    for (leech, _) in &leeches {
        wait("all have all of it", || leech.is_complete(&share))?;
    }
    let wall = start.elapsed().as_secs_f64();
    let mut cpu = 0.0;
    for meter in &meters {
        cpu += meter.read()?.cpu.as_secs_f64();
    }
    Ok(vec![("wall, s", wall), ("CPU of all five, s", cpu)])
}
