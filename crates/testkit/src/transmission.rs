//! A real transmission-daemon with a configuration of its own, driven through its RPC.
//!
//! Transmission never dials an address of 127.0.0.0/8: on loopback the other peer has to dial it.

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
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A running daemon; dropped, it is killed and its configuration removed.
#[derive(Debug)]
pub struct Transmission {
    child: Child,
    url: String,
    agent: ureq::Agent,
    session: Mutex<String>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Transmission {
    /// Starts one: no DHT, no local discovery, no peer exchange, no uTP, no port mapping, encryption only when the other
    /// side asks for it.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-transmission-").tempdir()?;
        let (port, rpc_port) = (free_port(), free_port());
        let settings = json!({
            "bind-address-ipv4": "127.0.0.1",
            "bind-address-ipv6": "::1",
            "blocklist-enabled": false,
            "cache-size-mb": 16,
            "dht-enabled": false,
            "download-dir": folder.path().join("downloads"),
            "download-queue-enabled": false,
            "encryption": 0,
            "incomplete-dir-enabled": false,
            "lpd-enabled": false,
            "message-level": 2,
            "peer-limit-global": 200,
            "peer-limit-per-torrent": 60,
            "peer-port": port,
            "peer-port-random-on-start": false,
            "pex-enabled": false,
            "port-forwarding-enabled": false,
            "preallocation": 1,
            "ratio-limit-enabled": false,
            "rpc-authentication-required": false,
            "rpc-bind-address": "127.0.0.1",
            "rpc-enabled": true,
            "rpc-host-whitelist-enabled": false,
            "rpc-port": rpc_port,
            "rpc-whitelist-enabled": false,
            "scrape-paused-torrents-enabled": false,
            "seed-queue-enabled": false,
            "speed-limit-down-enabled": false,
            "speed-limit-up-enabled": false,
            "start-added-torrents": true,
            "utp-enabled": false,
        });
        std::fs::write(folder.path().join("settings.json"), settings.to_string())?;
        let mut command = bound_command(setup::transmission()?);
        command.arg("--foreground").arg("--config-dir").arg(folder.path());
        let child = Child::start("transmission-daemon", command, &folder.path().join("output.log"))?;
        let mut daemon = Transmission {
            child,
            url: format!("http://127.0.0.1:{rpc_port}/transmission/rpc"),
            agent: agent(Duration::from_secs(30)),
            session: Mutex::default(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _folder: folder,
        };
        wait_for("transmission-daemon answers", Duration::from_secs(30), || {
            if let Err(error) = daemon.child.check_alive() {
                return Some(Err(error));
            }
            daemon.call("session-get", json!({})).ok().map(|_| Ok(()))
        })??;
        Ok(daemon)
    }

    /// Where other peers reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Calls an RPC method: its arguments in the answer.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn call(&self, method: &str, arguments: Value) -> Result<Value> {
        let request = json!({"method": method, "arguments": arguments}).to_string();
        // The first call of a session is refused with the id that the next ones have to show.
        for _ in 0..2 {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let post = self.agent.post(&self.url).header("X-Transmission-Session-Id", session);
            let mut answer = post
                .send(request.as_bytes())
                .with_context(|| format!("Transmission: {method}"))?;
            if answer.status().as_u16() == 409 {
                let id = answer
                    .headers()
                    .get("X-Transmission-Session-Id")
                    .context("a refusal names the session")?;
                *self.session.lock().unwrap_or_else(PoisonError::into_inner) = id.to_str()?.to_owned();
                continue;
            }
            let body = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
            let answer: Value = serde_json::from_str(&body).with_context(|| format!("Transmission: {body}"))?;
            if answer["result"] != "success" {
                bail!("Transmission: {method}: {}", answer["result"]);
            }
            return Ok(answer["arguments"].clone());
        }
        bail!("Transmission takes no session id")
    }

    /// Adds a .torrent file whose content is, or will be, in `folder`: its info hash. Content that is there is checked.
    ///
    /// # Errors
    /// When Transmission refuses.
    pub fn add(&self, torrent: &Path, folder: &Path) -> Result<String> {
        let bytes = std::fs::read(torrent).with_context(|| format!("cannot read {}", torrent.display()))?;
        let metainfo = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.add_with(json!({"metainfo": metainfo, "download-dir": folder, "paused": false}))
    }

    /// Adds a magnet link and saves into `folder`: its info hash.
    ///
    /// # Errors
    /// When Transmission refuses.
    pub fn add_magnet(&self, link: &str, folder: &Path) -> Result<String> {
        self.add_with(json!({"filename": link, "download-dir": folder, "paused": false}))
    }

    fn add_with(&self, arguments: Value) -> Result<String> {
        let answer = self.call("torrent-add", arguments)?;
        let added = [&answer["torrent-added"], &answer["torrent-duplicate"]];
        let hash = added.iter().find_map(|torrent| torrent["hashString"].as_str());
        Ok(hash
            .with_context(|| format!("Transmission added nothing: {answer}"))?
            .to_owned())
    }

    /// What it says of a torrent.
    ///
    /// # Errors
    /// When it does not know the torrent.
    pub fn status(&self, info_hash: &str) -> Result<Value> {
        let fields = json!([
            "name",
            "status",
            "percentDone",
            "leftUntilDone",
            "metadataPercentComplete",
            "recheckProgress",
            "error",
            "errorString",
            "peers",
            "peersConnected",
            "downloadedEver",
            "uploadedEver",
            "corruptEver"
        ]);
        let answer = self.call("torrent-get", json!({"ids": [info_hash], "fields": fields}))?;
        let torrents = answer["torrents"].as_array().context("a list of torrents")?;
        Ok(torrents
            .first()
            .with_context(|| format!("Transmission has no torrent {info_hash}"))?
            .clone())
    }

    /// Waits until a torrent is complete and seeding.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub fn wait_complete(&self, info_hash: &str, limit: Duration) -> Result<()> {
        /// Transmission's number for a torrent that is seeding.
        const SEEDING: u64 = 6;
        let mut last = Value::Null;
        let outcome = wait_for("Transmission has the whole torrent", limit, || {
            match self.status(info_hash) {
                Err(error) => Some(Err(error)),
                Ok(status) => {
                    let done = status["metadataPercentComplete"] == 1
                        && status["leftUntilDone"] == 0
                        && status["status"].as_u64() == Some(SEEDING);
                    last = status;
                    done.then_some(Ok(()))
                }
            }
        });
        outcome.with_context(|| format!("Transmission's last word: {last}; {}", self.child.log_tail()))?
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::content;
    use crate::libtorrent::Libtorrent;
    use crate::metainfo::Torrent;

    #[test]
    fn a_file_goes_to_libtorrent_and_back() {
        const LIMIT: Duration = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join("seed");
        let file = seed.join("one.bin");
        content::write_file(&file, 3_000_001, 4).unwrap();
        let torrent = Torrent::create(&file, 65_536, None).unwrap();
        let path = folder.path().join("one.torrent");
        torrent.save(&path).unwrap();

        let seeder = Transmission::start().unwrap();
        let hash = seeder.add(&path, &seed).unwrap();
        assert_eq!(hash, torrent.hash_hex());
        seeder.wait_complete(&hash, LIMIT).unwrap();
        let there = folder.path().join("there");
        let libtorrent = Libtorrent::start().unwrap();
        libtorrent.add(&path, &there, &[seeder.address()]).unwrap();
        libtorrent.wait_complete(&hash, LIMIT).unwrap();
        drop(seeder);

        let back = folder.path().join("back");
        let leecher = Transmission::start().unwrap();
        leecher.add_magnet(&torrent.magnet(&[], None), &back).unwrap();
        libtorrent.connect(&hash, leecher.address()).unwrap();
        leecher.wait_complete(&hash, LIMIT).unwrap();
        let sum = |folder: &Path| content::sha256_file(&folder.join("one.bin")).unwrap();
        assert_eq!(sum(&back), sum(&seed));
        assert_eq!(sum(&there), sum(&seed));
    }
}
