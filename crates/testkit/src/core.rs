//! A real bitcoind on regtest.

use crate::child::{Child, bound_command};
use crate::coins::{BlockPlan, Holder};
use crate::core_build;
use crate::ports::free_port;
use crate::rpc::{Rpc, RpcError};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result};
use bitcoin::Block;
use bitcoin::consensus::deserialize;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(60);
/// A large coins cache takes its time to be written.
const STOP_LIMIT: Duration = Duration::from_secs(180);

/// How a bitcoind is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Speak the encrypted transport (BIP 324) when the other side does.
    pub v2transport: bool,
    /// Connect to these peers, and only these.
    pub connect: Vec<SocketAddr>,
    /// Run the signet with this challenge, in hex, instead of regtest.
    pub signet_challenge: Option<String>,
    /// More command-line options, as bitcoind takes them.
    pub extra: Vec<String>,
}

/// A running bitcoind; dropped, it is killed and its folder removed.
#[derive(Debug)]
pub struct Bitcoind {
    // Dropped first: the process must be gone before its folder is removed.
    child: Child,
    rpc: Rpc,
    p2p: SocketAddr,
    rpc_port: u16,
    options: Options,
    folder: tempfile::TempDir,
}

impl Bitcoind {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When bitcoind is not there and cannot be built, or does not start.
    pub fn start(options: Options) -> Result<Self> {
        Self::start_in(tempfile::Builder::new().prefix("dunlin-core-").tempdir()?, options)
    }

    /// Starts one on a data folder that may already hold a chain.
    ///
    /// # Errors
    /// As [`Bitcoind::start`].
    pub fn start_in(folder: tempfile::TempDir, options: Options) -> Result<Self> {
        let p2p = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let rpc_port = free_port();
        let network = if options.signet_challenge.is_some() {
            "signet"
        } else {
            "regtest"
        };
        let rpc = Rpc::new(rpc_port, &folder.path().join(network).join(".cookie"));
        let child = launch(folder.path(), p2p, rpc_port, &options)?;
        let mut node = Bitcoind {
            child,
            rpc,
            p2p,
            rpc_port,
            options,
            folder,
        };
        node.wait_ready()?;
        Ok(node)
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait_for("bitcoind answers", START_LIMIT, || {
            if let Err(error) = self.child.check_alive() {
                return Some(Err(error));
            }
            self.rpc.call("getblockcount", json!([])).ok().map(|_| Ok(()))
        })?
    }

    /// Stops it in good order and starts it again on the same folder and ports.
    ///
    /// # Errors
    /// When it does not end or start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.restart_unready()?;
        self.wait_ready()
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.call("stop", json!([]))?;
        self.child.wait(STOP_LIMIT)?;
        Ok(())
    }

    /// Starts it again on the same folder and ports, after it was stopped, without waiting for an answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_unready(&mut self) -> Result<()> {
        self.child = launch(self.folder.path(), self.p2p, self.rpc_port, &self.options)?;
        Ok(())
    }

    /// Gives its folder away; one that still runs is killed.
    pub fn into_folder(self) -> tempfile::TempDir {
        self.folder
    }

    /// Where other Bitcoin peers reach it.
    pub fn p2p(&self) -> SocketAddr {
        self.p2p
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The block files of regtest, which lie XORed with the key beside them.
    pub fn blocks_folder(&self) -> PathBuf {
        self.folder.path().join("regtest").join("blocks")
    }

    /// Where its JSON-RPC and REST are served.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.rpc_port))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its JSON-RPC.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Calls an RPC method.
    ///
    /// # Errors
    /// When bitcoind refuses or does not answer.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.rpc.call(method, params)
    }

    /// Height of its tip.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn height(&self) -> Result<u64> {
        self.call("getblockcount", json!([]))?
            .as_u64()
            .context("a height is a number")
    }

    /// Hash of its tip.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn best_hash(&self) -> Result<String> {
        text(&self.call("getbestblockhash", json!([]))?)
    }

    /// Hash of its block at `height`.
    ///
    /// # Errors
    /// When there is none.
    pub fn hash_at(&self, height: u64) -> Result<String> {
        text(&self.call("getblockhash", json!([height]))?)
    }

    /// Its block with the given hash.
    ///
    /// # Errors
    /// When there is none.
    pub fn block(&self, hash: &str) -> Result<Block> {
        let raw = text(&self.call("getblock", json!([hash, 0]))?)?;
        Ok(deserialize(&hex::decode(raw)?)?)
    }

    /// A plan for a block on its tip, one second younger: what bitcoind mines in one go runs ahead of the clock.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn plan(&self, miner: &Holder) -> Result<BlockPlan> {
        let tip = self.block(&self.best_hash()?)?;
        let height = u32::try_from(self.height()? + 1)?;
        Ok(BlockPlan::new(tip.block_hash(), height, tip.header.time + 1, miner))
    }

    /// Mines blocks to an address: their hashes.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn generate(&self, count: u64, address: &str) -> Result<Vec<String>> {
        let hashes = self.call("generatetoaddress", json!([count, address]))?;
        hashes
            .as_array()
            .context("a list of hashes")?
            .iter()
            .map(text)
            .collect()
    }

    /// Waits until every index that is on has reached the tip.
    ///
    /// # Errors
    /// When that takes longer than a minute or the node does not answer.
    pub fn wait_indexed(&self) -> Result<()> {
        let height = self.height()?;
        wait_until("the indexes of bitcoind reach its tip", START_LIMIT, || {
            let Ok(Value::Object(rows)) = self.call("getindexinfo", json!([])) else {
                return false;
            };
            rows.values()
                .all(|row| row["synced"] == true && row["best_block_height"] == height)
        })
    }

    /// Ids of the transactions in its mempool.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn mempool(&self) -> Result<Vec<String>> {
        let ids = self.call("getrawmempool", json!([]))?;
        ids.as_array().context("a list of ids")?.iter().map(text).collect()
    }

    /// Keeps trying to be connected to `peer`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn add_peer(&self, peer: SocketAddr) -> Result<()> {
        self.call("addnode", json!([peer.to_string(), "add", false]))?;
        Ok(())
    }

    /// What it says of its peers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn peers(&self) -> Result<Vec<Value>> {
        let peers = self.call("getpeerinfo", json!([]))?;
        Ok(peers.as_array().context("a list of peers")?.clone())
    }

    /// Waits until it has finished a handshake with a peer.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub fn wait_connected(&self, limit: Duration) -> Result<()> {
        wait_until("bitcoind has a peer", limit, || {
            self.peers()
                .is_ok_and(|peers| peers.iter().any(|peer| peer["version"].as_u64().unwrap_or(0) > 0))
        })
    }

    /// Its debug log over all starts.
    pub fn debug_log(&self) -> String {
        self.child.log()
    }
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("a string")?.to_owned())
}

fn launch(folder: &Path, p2p: SocketAddr, rpc_port: u16, options: &Options) -> Result<Child> {
    let mut command = bound_command(core_build::bitcoind()?);
    match &options.signet_challenge {
        Some(challenge) => command.args(["-signet".to_owned(), format!("-signetchallenge={challenge}")]),
        None => command.arg("-regtest"),
    };
    command.arg(format!("-datadir={}", folder.display())).args([
        "-server".to_owned(),
        format!("-bind={p2p}"),
        format!("-port={}", p2p.port()),
        format!("-rpcport={rpc_port}"),
        "-rpcbind=127.0.0.1".to_owned(),
        "-rpcallowip=127.0.0.1".to_owned(),
        format!("-v2transport={}", u8::from(options.v2transport)),
    ]);
    // Nothing leaves this machine, and small caches let several nodes run side by side.
    command.args([
        "-listenonion=0",
        "-dnsseed=0",
        "-fixedseeds=0",
        "-natpmp=0",
        "-discover=0",
        "-dbcache=32",
    ]);
    command.args([
        "-printtoconsole=1",
        "-nodebuglogfile",
        "-debug=net",
        "-debug=mempoolrej",
        "-debug=validation",
        "-par=1",
        // On regtest Core audits its whole block index at every header, which takes seconds for long chains.
        "-checkblockindex=0",
        "-checkmempool=0",
        "-listen=1",
    ]);
    for peer in &options.connect {
        command.arg(format!("-connect={peer}"));
    }
    command.args(&options.extra);
    Child::start("bitcoind", command, &folder.join("output.log"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    #[test]
    fn two_nodes_agree_and_one_survives_a_restart() {
        let mut first = Bitcoind::start(Options::default()).unwrap();
        let second = Bitcoind::start(Options {
            connect: vec![first.p2p()],
            ..Options::default()
        })
        .unwrap();
        let hashes = first.generate(3, ADDRESS).unwrap();
        second.wait_connected(Duration::from_secs(20)).unwrap();
        wait_until("the second node has the blocks", Duration::from_secs(20), || {
            second.height().unwrap() == 3
        })
        .unwrap();
        assert_eq!(second.best_hash().unwrap(), hashes[2]);
        first.restart().unwrap();
        assert_eq!(first.hash_at(2).unwrap(), hashes[1]);
        let error = first.call("getblockhash", json!([99])).unwrap_err();
        assert_eq!(error.code(), Some(-8));
    }
}
