//! Either side's node, with the settings that make the two comparable.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::{Rpc, wait_until};
use serde_json::json;

use crate::Side;
use crate::cost::{Cost, Meter};

/// How a node is started.
pub(super) struct Setup<'a> {
    /// Dunlin's program.
    pub(super) program: &'a str,
    /// The only peer.
    pub(super) peer: SocketAddr,
    /// Dunlin's only peer, where that is another one.
    pub(super) peer_of_dunlin: Option<SocketAddr>,
    /// The block below which scripts are not checked.
    pub(super) assume_valid: Option<String>,
    /// Size of the coins cache, MiB.
    pub(super) cache: u64,
    /// The hints with which Dunlin begins.
    pub(super) hints: Option<PathBuf>,
}

/// A node under measurement.
pub(super) enum Node {
    Dunlin(Dunlin),
    Core(Bitcoind),
}

impl Node {
    /// Starts one on an empty folder; the meter counts from before its birth.
    pub(super) fn start(side: Side, setup: &Setup<'_>) -> Result<(Self, Meter)> {
        let start = Instant::now();
        let node = match side {
            Side::Dunlin => {
                let peer = setup.peer_of_dunlin.unwrap_or(setup.peer).to_string();
                let cache = setup.cache.to_string();
                let assume_valid = setup.assume_valid.as_deref().unwrap_or("none");
                let mut args = vec!["--connect", &peer, "--db-cache", &cache, "--assume-valid", assume_valid];
                args.extend(["--disable", "torrent"]);
                let hints = setup.hints.as_ref().map(|path| path.display().to_string());
                args.extend(hints.iter().flat_map(|path| ["--swiftsync", path]));
                Self::Dunlin(Dunlin::start(setup.program, &args)?)
            }
            Side::Other => Self::Core(Bitcoind::start(Options {
                connect: vec![setup.peer],
                extra: vec![
                    format!("-dbcache={}", setup.cache),
                    format!("-assumevalid={}", setup.assume_valid.as_deref().unwrap_or("0")),
                    "-par=2".to_owned(),
                    "-debug=0".to_owned(),
                    // Core lets coins use the mempool's memory while that is empty; the cache shall mean the same.
                    "-maxmempool=5".to_owned(),
                ],
                ..Options::default()
            })?),
        };
        let meter = Meter::from_birth(node.pid(), start);
        Ok((node, meter))
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Dunlin(dunlin) => dunlin.pid(),
            Self::Core(core) => core.pid(),
        }
    }

    pub(super) fn rpc(&self) -> &Rpc {
        match self {
            Self::Dunlin(dunlin) => dunlin.rpc(),
            Self::Core(core) => core.rpc(),
        }
    }

    fn height(&self) -> Option<u64> {
        self.rpc().call("getblockcount", json!([])).ok()?.as_u64()
    }

    pub(super) fn wait_synced(&mut self, height: u64, limit: Duration) -> Result<()> {
        let waited = wait_until("the chain is synced", limit, || self.height() == Some(height));
        waited.map_err(|error| match self.height() {
            Some(at) => error.context(format!("at height {at} of {height}")),
            None => error.context("it does not answer"),
        })
    }

    /// Has Dunlin write hints for a height.
    pub(super) fn make_hints(&self, height: u64, path: &Path) -> Result<()> {
        match self {
            Self::Dunlin(dunlin) => {
                dunlin.call("dunlin.hints", json!([path.display().to_string(), height]))?;
                Ok(())
            }
            Self::Core(_) => bail!("bitcoind makes no hints"),
        }
    }

    /// Where it listens for peers.
    pub(super) fn p2p(&self) -> SocketAddr {
        match self {
            Self::Dunlin(dunlin) => dunlin.doors().p2p,
            Self::Core(core) => core.p2p(),
        }
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Self::Dunlin(dunlin) => dunlin.stop(),
            Self::Core(core) => core.stop(),
        }
    }

    /// Starts a stopped node again; the cost until it tells `height`.
    pub(super) fn restart(&mut self, height: u64, limit: Duration) -> Result<Cost> {
        let start = Instant::now();
        match self {
            Self::Dunlin(dunlin) => dunlin.restart_unready()?,
            Self::Core(core) => core.restart_unready()?,
        }
        let meter = Meter::from_birth(self.pid(), start);
        while self.height() != Some(height) {
            if start.elapsed() > limit {
                bail!("no answer after {} s", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        meter.read()
    }
}
