//! A real aria2 with a configuration of its own, driven through its JSON-RPC.
//!
//! aria2 has no way to be told of a peer: it finds them through the torrent's trackers, or they dial it.

use crate::child::{Child, bound_command};
use crate::ports::free_port;
use crate::rpc::agent;
use crate::setup;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// A running aria2; dropped, it is killed.
#[derive(Debug)]
pub struct Aria2 {
    child: Child,
    url: String,
    agent: ureq::Agent,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Aria2 {
    /// Starts one on loopback: no DHT, no local discovery, no peer exchange, plain links, no limits, no preallocation.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-aria2-").tempdir()?;
        let (port, rpc_port) = (free_port(), free_port());
        let mut command = bound_command(setup::aria2()?);
        command.current_dir(folder.path()).args([
            "--no-conf",
            "--enable-rpc",
            "--rpc-listen-all=false",
            "--rpc-max-request-size=64M",
            "--interface=127.0.0.1",
            "--enable-dht=false",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=false",
            "--bt-min-crypto-level=plain",
            "--bt-max-peers=0",
            "--bt-request-peer-speed-limit=1024M",
            "--seed-ratio=0",
            "--file-allocation=none",
            "--disk-cache=64M",
            "--bt-save-metadata=false",
            "--rpc-save-upload-metadata=false",
            "--console-log-level=warn",
            "--summary-interval=0",
        ]);
        command.arg(format!("--listen-port={port}"));
        command.arg(format!("--rpc-listen-port={rpc_port}"));
        let child = Child::start("aria2c", command, &folder.path().join("output.log"))?;
        let mut aria2 = Aria2 {
            child,
            url: format!("http://127.0.0.1:{rpc_port}/jsonrpc"),
            agent: agent(Duration::from_secs(30)),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _folder: folder,
        };
        wait_for("aria2 answers", Duration::from_secs(30), || {
            if let Err(error) = aria2.child.check_alive() {
                return Some(Err(error));
            }
            aria2.call("aria2.getVersion", json!([])).ok().map(|_| Ok(()))
        })??;
        Ok(aria2)
    }

    /// Where other peers reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Calls an RPC method: its result.
    ///
    /// # Errors
    /// When aria2 refuses or does not answer.
    pub fn call(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": "testkit", "method": method, "params": params}).to_string();
        let post = self.agent.post(&self.url).header("Content-Type", "application/json");
        let mut answer = post
            .send(request.as_bytes())
            .with_context(|| format!("aria2: {method}"))?;
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("aria2: {body}"))?;
        match answer.get("error") {
            Some(error) => bail!("aria2: {method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    /// Adds a .torrent file whose content will be in `folder`: aria2's own number for it.
    ///
    /// # Errors
    /// When aria2 refuses.
    pub fn add(&self, torrent: &Path, folder: &Path) -> Result<String> {
        self.add_with(torrent, folder, false)
    }

    /// Seeds a torrent whose content in `folder` is known to be right, without checking it first.
    ///
    /// # Errors
    /// When aria2 refuses.
    pub fn seed(&self, torrent: &Path, folder: &Path) -> Result<String> {
        self.add_with(torrent, folder, true)
    }

    fn add_with(&self, torrent: &Path, folder: &Path, seed: bool) -> Result<String> {
        let bytes = std::fs::read(torrent).with_context(|| format!("cannot read {}", torrent.display()))?;
        let torrent = base64::engine::general_purpose::STANDARD.encode(bytes);
        let seed = if seed { "true" } else { "false" };
        let options = json!({"dir": folder, "bt-seed-unverified": seed, "allow-overwrite": seed});
        let gid = self.call("aria2.addTorrent", json!([torrent, [], options]))?;
        Ok(gid.as_str().context("a number of a download")?.to_owned())
    }

    /// What it says of a torrent.
    ///
    /// # Errors
    /// When aria2 refuses or does not answer.
    pub fn status(&self, gid: &str) -> Result<Value> {
        self.call("aria2.tellStatus", json!([gid]))
    }

    /// Whether a torrent is complete.
    ///
    /// # Errors
    /// When aria2 reports an error.
    pub fn is_complete(&self, gid: &str) -> Result<bool> {
        let status = self.status(gid)?;
        if status["status"] == "error" {
            bail!("aria2: {}", status["errorMessage"]);
        }
        let total = status["totalLength"].as_str();
        Ok(total.is_some_and(|total| total != "0") && total == status["completedLength"].as_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::content;
    use crate::metainfo::Torrent;
    use crate::tracker::HttpTracker;
    use crate::wait::wait_until;

    #[test]
    fn a_file_goes_from_one_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed").join("one.bin");
        content::write_file(&file, 5 << 20, 3).unwrap();
        let tracker = HttpTracker::start().unwrap();
        let torrent = Torrent::create(&file, 65_536, Some(&tracker.url())).unwrap();
        let path = folder.path().join("one.torrent");
        torrent.save(&path).unwrap();
        let (seeder, leecher) = (Aria2::start().unwrap(), Aria2::start().unwrap());
        seeder.seed(&path, &folder.path().join("seed")).unwrap();
        wait_until("the seed is known", Duration::from_secs(30), || {
            !tracker.announces().is_empty()
        })
        .unwrap();
        let target = folder.path().join("got");
        let gid = leecher.add(&path, &target).unwrap();
        wait_until("aria2 has it all", Duration::from_secs(60), || {
            leecher.is_complete(&gid).unwrap()
        })
        .unwrap();
        assert_eq!(
            content::sha256_file(&target.join("one.bin")).unwrap(),
            content::sha256_file(&file).unwrap()
        );
    }
}
