//! One peer of the flock: a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dunlin_chain::Network;
use serde_json::{Value, json};

use super::file::Shared;
use super::story::Story;
use crate::client::Client;
use crate::daemon::data_dir::{self, API_ADDRESS_FILE, API_TOKEN_FILE, COOKIE_FILE, RPC_ADDRESS_FILE};

/// How long a peer may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Peer {
    pub(super) name: String,
    pub(super) client: Client,
    data_dir: PathBuf,
    child: Option<Child>,
    /// Where it listened in its first life, so that its neighbours find it in the next: Bitcoin, BitTorrent.
    listen: Option<(SocketAddr, SocketAddr)>,
}

impl Peer {
    /// Starts a peer with free ports and a data directory under `root`.
    pub(super) fn start(index: usize, root: &Path) -> anyhow::Result<Self> {
        let name = format!("peer {}", index + 1);
        let data_dir = root.join(format!("peer-{}", index + 1));
        std::fs::create_dir_all(&data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
        // Replaced when the peer is ready: until then nobody knows its address.
        let client = Client::new(SocketAddr::from(([127, 0, 0, 1], 0)), "");
        let mut peer = Self {
            name,
            client,
            data_dir,
            child: None,
            listen: None,
        };
        peer.restart()?;
        Ok(peer)
    }

    /// Starts the process again on the same data directory and the same ports.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bitcoin, torrent) = self.listen.unwrap_or((free, free));
        let _ = std::fs::remove_file(self.network_dir().join(RPC_ADDRESS_FILE));
        let log = std::fs::File::create(self.data_dir.join("log.txt"))?;
        let child = Command::new(std::env::current_exe().context("the program knows its own path")?)
            .args([
                "run",
                "--network",
                "regtest",
                "--stop-with-parent",
                "--rpc-listen",
                "127.0.0.1:0",
            ])
            .args(["--api-listen", "127.0.0.1:0", "--db-cache", "32"])
            .args([
                "--listen",
                &bitcoin.to_string(),
                "--torrent-listen",
                &torrent.to_string(),
            ])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the peer answers, and learns its addresses.
    pub(super) fn wait_ready(&mut self, story: &Story) -> anyhow::Result<()> {
        let start = Instant::now();
        let dir = self.network_dir();
        let status = loop {
            let addr = std::fs::read_to_string(dir.join(RPC_ADDRESS_FILE))
                .ok()
                .and_then(|text| text.trim().parse().ok());
            let cookie = std::fs::read_to_string(dir.join(COOKIE_FILE)).ok();
            if let (Some(addr), Some(cookie)) = (addr, cookie) {
                self.client = Client::new(addr, cookie.trim());
                if let Ok(status) = self.client.call("dunlin.status", json!([])) {
                    break status;
                }
            }
            if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                let log = std::fs::read_to_string(self.data_dir.join("log.txt")).unwrap_or_default();
                bail!(
                    "{} ended at its start ({}): {}",
                    self.name,
                    ended?,
                    log.lines().last().unwrap_or("no word")
                );
            }
            if story.interrupted() || start.elapsed() > START_LIMIT {
                bail!("{} did not answer", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.listen = Some((listen_addr(&status, "bitcoin")?, listen_addr(&status, "torrent")?));
        Ok(())
    }

    fn network_dir(&self) -> PathBuf {
        data_dir::network_dir(&self.data_dir, Network::Regtest)
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.network_dir().join(data_dir::DOWNLOADS)
    }

    pub(super) fn bitcoin_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listen.context("the peer is ready")?.0)
    }

    pub(super) fn torrent_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listen.context("the peer is ready")?.1)
    }

    /// The address of its dashboard, with the key to it.
    pub(super) fn dashboard(&self) -> anyhow::Result<String> {
        let read = |file| std::fs::read_to_string(self.network_dir().join(file)).context("the peer serves a dashboard");
        Ok(format!(
            "http://{}/?token={}",
            read(API_ADDRESS_FILE)?.trim(),
            read(API_TOKEN_FILE)?.trim()
        ))
    }

    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn connect_to(&self, other: &Self) -> anyhow::Result<()> {
        self.client
            .call("addnode", json!([other.bitcoin_addr()?.to_string(), "add"]))?;
        Ok(())
    }

    pub(super) fn connections(&self) -> anyhow::Result<u64> {
        self.number("getconnectioncount")
    }

    pub(super) fn height(&self) -> anyhow::Result<u64> {
        self.number("getblockcount")
    }

    fn number(&self, method: &str) -> anyhow::Result<u64> {
        self.client
            .call(method, json!([]))?
            .as_u64()
            .with_context(|| format!("{method} answers with a number"))
    }

    pub(super) fn tip(&self) -> anyhow::Result<String> {
        text(self.client.call("getbestblockhash", json!([]))?)
    }

    pub(super) fn mine(&self, blocks: u32, address: &str) -> anyhow::Result<()> {
        self.client.call("generatetoaddress", json!([blocks, address]))?;
        Ok(())
    }

    pub(super) fn send_transaction(&self, hex: &str) -> anyhow::Result<String> {
        text(self.client.call("sendrawtransaction", json!([hex]))?)
    }

    pub(super) fn has_in_mempool(&self, txid: &str) -> anyhow::Result<bool> {
        let txids = self.client.call("getrawmempool", json!([]))?;
        Ok(txids
            .as_array()
            .is_some_and(|txids| txids.iter().any(|known| known == txid)))
    }

    pub(super) fn add_torrent(&self, file: &Shared, peers: &[SocketAddr]) -> anyhow::Result<()> {
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        self.client
            .call("torrent.add", json!({"torrent": file.torrent, "peers": peers}))?;
        Ok(())
    }

    fn torrent(&self, info_hash: &str) -> anyhow::Result<Value> {
        self.client.call("torrent.info", json!([info_hash]))
    }

    /// The share of a torrent that this peer has verified, 0 to 1.
    pub(super) fn torrent_progress(&self, info_hash: &str) -> anyhow::Result<f64> {
        let torrent = self.torrent(info_hash)?;
        if let Some(error) = torrent.get("error").and_then(Value::as_str) {
            bail!("{}: {error}", self.name);
        }
        let (done, total) = (number(&torrent, "done_bytes"), number(&torrent, "total_bytes"));
        Ok(if total == 0 { 0.0 } else { done as f64 / total as f64 })
    }

    /// Bytes of a torrent that this peer fetched and gave.
    pub(super) fn torrent_bytes(&self, info_hash: &str) -> anyhow::Result<(u64, u64)> {
        let torrent = self.torrent(info_hash)?;
        Ok((number(&torrent, "downloaded"), number(&torrent, "uploaded")))
    }

    /// Ends the process as a power loss would: SIGKILL, no goodbye.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("cannot kill {}", self.name))?;
            child.wait()?;
        }
        Ok(())
    }

    pub(super) fn ask_to_stop(&mut self) {
        if self.child.is_some() {
            // A peer that does not answer is killed below.
            let _ = self.client.call("stop", json!([]));
        }
    }

    pub(super) fn wait_stopped(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Reached when the flock itself fails between start and stop.
        let _ = self.kill();
    }
}

fn number(value: &Value, key: &str) -> u64 {
    crate::output::number(value, key)
}

fn text(value: Value) -> anyhow::Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .context("the peer answers with a text")
}

fn listen_addr(status: &Value, part: &str) -> anyhow::Result<SocketAddr> {
    let addr = status
        .get(part)
        .and_then(|part| part.get("listening")?.as_array()?.first()?.as_str());
    addr.with_context(|| format!("the peer does not listen for {part}"))?
        .parse()
        .context("listen address")
}
