//! A fresh node fetches the bench chain from a bitcoind over loopback: Dunlin against bitcoind, both with two cores'
//! worth of script threads and the same size of coins cache. The serving bitcoind is the same for both; its processor
//! time is not counted, but it has its share of the machine in either's wall time.

mod floors;
mod latency;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use dunlin_testkit::bench_chain::BenchChain;
use dunlin_testkit::core::{Bitcoind, Options};

use crate::cost::{Meter, Sample};
use crate::node::Node;
use crate::{Args, Rounds, Side};
use floors::Floors;

/// A cache that holds all coins, MiB.
const AMPLE_CACHE: u64 = 1000;
/// A ninth of what bitcoind's cache needs for the bench chain's coins, MiB.
const TIGHT_CACHE: u64 = 34;
/// The longest that one sync may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Restarts of each side: they take a moment only.
const RESTARTS: usize = 5;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Row {
    /// Sync with the scripts below the tip assumed valid
    AssumeValid,
    /// SwiftSync with hints, its assume-valid form, against bitcoind's assume-valid sync
    Swiftsync,
    /// Sync with every script checked
    Full,
    /// SwiftSync with hints, its full form, from a Dunlin that tells spent coins, against bitcoind's full sync
    SwiftsyncFull,
    /// Assume-valid sync with a cache for a ninth of the coins
    AssumeValidTight,
    /// Full sync with a cache for a ninth of the coins
    FullTight,
    /// Restart with the whole chain, until RPC answers
    Restart,
    /// RPC latency while blocks are connected
    Rpc,
}

/// How a node is started.
struct Setup<'a> {
    /// Dunlin's program.
    program: &'a str,
    /// The only peer.
    peer: SocketAddr,
    /// Dunlin's only peer, where that is another one.
    peer_of_dunlin: Option<SocketAddr>,
    /// The block below which scripts are not checked.
    assume_valid: Option<String>,
    /// Size of the coins cache, MiB.
    cache: u64,
    /// The hints with which Dunlin begins.
    hints: Option<PathBuf>,
}

impl Setup<'_> {
    fn start(&self, side: Side) -> Result<(Node, Meter)> {
        let peer = self.peer_of_dunlin.unwrap_or(self.peer).to_string();
        let cache = self.cache.to_string();
        let assume_valid = self.assume_valid.as_deref();
        let mut ours = vec!["--connect", &peer, "--db-cache", &cache];
        ours.extend(["--assume-valid", assume_valid.unwrap_or("none")]);
        let hints = self.hints.as_ref().map(|path| path.display().to_string());
        ours.extend(hints.iter().flat_map(|path| ["--swiftsync", path]));
        let theirs = Options {
            connect: vec![self.peer],
            extra: vec![
                format!("-dbcache={cache}"),
                format!("-assumevalid={}", assume_valid.unwrap_or("0")),
                // Core lets coins use the mempool's memory while that is empty; the cache shall mean the same.
                "-maxmempool=5".to_owned(),
            ],
            ..Options::default()
        };
        Node::start(side, self.program, &ours, theirs)
    }
}

/// What every row works with.
struct Bench<'a> {
    args: &'a Args,
    chain: BenchChain,
    seed: Bitcoind,
    floors: Floors,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chain = BenchChain::ready()?;
    let seed = chain.serve()?;
    let floors = Floors::measure(&chain)?;
    println!(
        "\nbench chain: {} blocks, {} transactions, {} inputs, {} coins unspent",
        chain.height, chain.totals.transactions, chain.totals.inputs, chain.coins
    );
    println!("floors: {floors}");
    let bench = Bench {
        args,
        chain,
        seed,
        floors,
    };
    for row in args.rows_of(Row::value_variants()) {
        let outcome = match row {
            Row::AssumeValid => bench.sync("assume-valid sync", 3, true, AMPLE_CACHE),
            Row::Swiftsync => bench.swiftsync(true),
            Row::SwiftsyncFull => bench.swiftsync(false),
            Row::Full => bench.sync("full sync, every script", 1, false, AMPLE_CACHE),
            Row::AssumeValidTight => bench.sync("assume-valid sync", 1, true, TIGHT_CACHE),
            Row::FullTight => bench.sync("full sync, every script", 1, false, TIGHT_CACHE),
            Row::Restart => bench.restart(),
            Row::Rpc => bench.rpc(),
        };
        if let Err(error) = outcome {
            println!("\n{row:?} failed: {error:#}");
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn setup(&self, assume_valid: bool, cache: u64) -> Setup<'_> {
        Setup {
            program: &self.args.program,
            peer: self.seed.p2p(),
            peer_of_dunlin: None,
            assume_valid: assume_valid.then(|| self.chain.tip.clone()),
            cache,
            hints: None,
        }
    }

    /// From the start of the program until it is at the tip. Bytes are counted until it has stopped in good order.
    fn sync(&self, what: &str, rounds: usize, assume_valid: bool, cache: u64) -> Result<()> {
        self.measure(what, rounds, &self.setup(assume_valid, cache))
    }

    /// With hints for the last block that holds more than its reward; they are kept beside the chain.
    fn swiftsync(&self, assume_valid: bool) -> Result<()> {
        let height = self.chain.height - u64::from(self.chain.burial());
        let hints = self.chain.folder().join(format!("hints-{height}"));
        let mut setup = self.setup(true, AMPLE_CACHE);
        let mut teller = None;
        if !hints.exists() || !assume_valid {
            let (mut node, _) = setup.start(Side::Dunlin)?;
            node.wait_synced(self.chain.height, LIMIT)?;
            if !hints.exists() {
                node.make_hints(height, &hints)?;
            }
            teller = Some(node);
        }
        setup.hints = Some(hints);
        if assume_valid {
            drop(teller);
            return self.measure("SwiftSync against assume-valid sync", 3, &setup);
        }
        setup.assume_valid = None;
        setup.peer_of_dunlin = teller.as_ref().map(Node::p2p);
        self.measure("SwiftSync with every script against full sync", 1, &setup)
    }

    fn measure(&self, what: &str, rounds: usize, setup: &Setup<'_>) -> Result<()> {
        let rounds = Rounds::run(self.args, rounds, |side| {
            let (mut node, meter) = setup.start(side)?;
            node.wait_synced(self.chain.height, LIMIT)?;
            let synced = meter.read()?;
            let stopped = meter.read_while(|| node.stop())?;
            let mut sample = synced.sample();
            sample.pop();
            sample.extend(stopped.sample().into_iter().skip(3));
            sample.push(("then stop, s", (stopped.wall - synced.wall).as_secs_f64()));
            if setup.assume_valid.is_none() {
                sample.push((
                    "CPU / floor",
                    synced.cpu.as_secs_f64() / self.floors.full_sync().as_secs_f64(),
                ));
            }
            Ok(sample)
        })?;
        rounds.report(&format!("{what}, cache {} MiB", setup.cache), "bitcoind");
        Ok(())
    }

    /// From the start of the program on the whole chain until its RPC tells the height.
    fn restart(&self) -> Result<()> {
        let setup = self.setup(true, AMPLE_CACHE);
        let start = |side| -> Result<Node> {
            let (mut node, _) = setup.start(side)?;
            node.wait_synced(self.chain.height, LIMIT)?;
            node.stop()?;
            Ok(node)
        };
        let wanted = |side: &Side| self.args.only.is_none_or(|only| only == *side);
        let sides = Side::BOTH.into_iter().filter(wanted);
        let mut nodes = sides.map(|side| Ok((side, start(side)?))).collect::<Result<Vec<_>>>()?;
        let rounds = Rounds::run(self.args, RESTARTS, |side| {
            let node = nodes.iter_mut().find(|(of, _)| *of == side);
            let (_, node) = node.ok_or_else(|| anyhow::anyhow!("that side was not started"))?;
            let cost = node.restart(self.chain.height, LIMIT)?;
            node.stop()?;
            let mut sample = cost.sample();
            sample.pop();
            Ok(sample)
        })?;
        rounds.report("restart until RPC answers", "bitcoind");
        Ok(())
    }

    /// How long queries take while blocks are connected at full speed.
    fn rpc(&self) -> Result<()> {
        let setup = self.setup(true, AMPLE_CACHE);
        let queries = latency::Queries::about(&self.seed)?;
        let rounds = Rounds::run(self.args, 1, |side| -> Result<Sample> {
            let (mut node, _) = setup.start(side)?;
            queries.measure(&mut node, self.chain.height, LIMIT)
        })?;
        rounds.report(
            &format!("{} queries a second during assume-valid sync", latency::RATE),
            "bitcoind",
        );
        Ok(())
    }
}
