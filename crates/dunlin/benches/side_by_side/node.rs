//! Either side's node, with the settings that make the two comparable.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::{Rpc, wait_until};
use serde_json::json;

use crate::Side;
use crate::cost::{Cost, Meter};

/// A node under measurement.
pub(crate) enum Node {
    Dunlin(Dunlin),
    Core(Bitcoind),
}

impl Node {
    /// Starts one on an empty folder: Dunlin with the options `ours`, or bitcoind with `theirs`, both without what is not
    /// measured. The meter counts from before its birth.
    pub(crate) fn start(side: Side, program: &str, ours: &[&str], mut theirs: Options) -> Result<(Self, Meter)> {
        let start = Instant::now();
        let node = match side {
            Side::Dunlin => Self::Dunlin(Dunlin::start(program, &[ours, &["--disable", "torrent"]].concat())?),
            Side::Other => {
                theirs.extra.extend(["-par=2".to_owned(), "-debug=0".to_owned()]);
                Self::Core(Bitcoind::start(theirs)?)
            }
        };
        let meter = Meter::from_birth(node.pid(), start);
        Ok((node, meter))
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Dunlin(dunlin) => dunlin.pid(),
            Self::Core(core) => core.pid(),
        }
    }

    pub(crate) fn rpc(&self) -> &Rpc {
        match self {
            Self::Dunlin(dunlin) => dunlin.rpc(),
            Self::Core(core) => core.rpc(),
        }
    }

    /// Where Bitcoin peers reach it.
    pub(crate) fn p2p(&self) -> SocketAddr {
        match self {
            Self::Dunlin(dunlin) => dunlin.doors().p2p,
            Self::Core(core) => core.p2p(),
        }
    }

    /// How many peers are connected and have shaken hands.
    pub(crate) fn peers(&self) -> Result<usize> {
        let peers = self.rpc().call("getpeerinfo", json!([]))?;
        let ready = |peer: &&serde_json::Value| peer["version"] != 0;
        Ok(peers.as_array().into_iter().flatten().filter(ready).count())
    }

    fn height(&self) -> Option<u64> {
        self.rpc().call("getblockcount", json!([])).ok()?.as_u64()
    }

    pub(crate) fn wait_synced(&mut self, height: u64, limit: Duration) -> Result<()> {
        let waited = wait_until("the chain is synced", limit, || self.height() == Some(height));
        waited.map_err(|error| match self.height() {
            Some(at) => error.context(format!("at height {at} of {height}")),
            None => error.context("it does not answer"),
        })
    }

    /// Has Dunlin write hints for a height.
    pub(crate) fn make_hints(&self, height: u64, path: &Path) -> Result<()> {
        match self {
            Self::Dunlin(dunlin) => {
                dunlin.call("dunlin.hints", json!([path.display().to_string(), height]))?;
                Ok(())
            }
            Self::Core(_) => bail!("bitcoind makes no hints"),
        }
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        match self {
            Self::Dunlin(dunlin) => dunlin.stop(),
            Self::Core(core) => core.stop(),
        }
    }

    /// Starts a stopped node again; the cost until it tells `height`.
    pub(crate) fn restart(&mut self, height: u64, limit: Duration) -> Result<Cost> {
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
