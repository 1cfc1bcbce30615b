//! A real libtorrent (the engine of qBittorrent and Deluge) in a Python process, driven by JSON lines.

use crate::child::{Child, bound_command, spawn};
use crate::ports::free_port;
use crate::setup;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SCRIPT: &str = include_str!("libtorrent_peer.py");

#[derive(Debug)]
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A running libtorrent session; dropped, it is killed.
#[derive(Debug)]
pub struct Libtorrent {
    child: Child,
    pipes: Mutex<Pipes>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Libtorrent {
    /// Starts a session with the settings of `libtorrent_peer.py`: plain TCP on loopback, nothing else.
    ///
    /// # Errors
    /// When libtorrent is not there and cannot be had, or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&json!({}))
    }

    /// Starts a session with settings of its own, by libtorrent's names.
    ///
    /// # Errors
    /// When libtorrent is not there and cannot be had, or does not start.
    pub fn start_with(settings: &Value) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-libtorrent-").tempdir()?;
        let script = folder.path().join("peer.py");
        std::fs::write(&script, SCRIPT)?;
        let port = free_port();
        let log = folder.path().join("errors.log");
        let mut command = bound_command(setup::python()?);
        command
            .arg(&script)
            .arg(port.to_string())
            .arg(settings.to_string())
            .current_dir(folder.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?);
        let mut process = spawn(command)?;
        let input = process.stdin.take().context("stdin is a pipe")?;
        let output = BufReader::new(process.stdout.take().context("stdout is a pipe")?);
        let peer = Libtorrent {
            child: Child::adopt("libtorrent", process, &log),
            pipes: Mutex::new(Pipes { input, output }),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _folder: folder,
        };
        let version = peer.ask(&json!({"do": "version"}))?;
        if version["port"].as_u64() != Some(u64::from(port)) {
            bail!("libtorrent does not listen on port {port}: {version}");
        }
        Ok(peer)
    }

    /// Where other peers reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When libtorrent refuses, or the process is gone.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || format!("libtorrent is gone: {}", self.child.log_tail());
        writeln!(pipes.input, "{request}").with_context(gone)?;
        let mut line = String::new();
        pipes.output.read_line(&mut line).with_context(gone)?;
        let answer: Value = serde_json::from_str(&line).with_context(gone)?;
        match answer.get("error") {
            Some(error) => bail!("libtorrent: {error} (asked: {request})"),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// Adds a .torrent file whose content is, or will be, in `folder`: its info hash.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn add(&self, torrent: &Path, folder: &Path, peers: &[SocketAddr]) -> Result<String> {
        self.add_with(json!({"torrent": torrent, "save_path": folder, "peers": texts(peers)}))
    }

    /// Adds a magnet link and saves into `folder`: its info hash.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn add_magnet(&self, link: &str, folder: &Path, peers: &[SocketAddr]) -> Result<String> {
        self.add_with(json!({"magnet": link, "save_path": folder, "peers": texts(peers)}))
    }

    /// Seeds a torrent whose content in `folder` is known to be right, without checking it first.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn seed(&self, torrent: &Path, folder: &Path) -> Result<String> {
        self.add_with(json!({"torrent": torrent, "save_path": folder, "seed_mode": true}))
    }

    fn add_with(&self, mut request: Value) -> Result<String> {
        request["do"] = json!("add");
        Ok(self.ask(&request)?["info_hash"]
            .as_str()
            .context("an info hash")?
            .to_owned())
    }

    /// Dials a peer for a torrent.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn connect(&self, info_hash: &str, peer: SocketAddr) -> Result<()> {
        self.ask(&json!({"do": "connect", "info_hash": info_hash, "peer": peer.to_string()}))?;
        Ok(())
    }

    /// Limits a torrent's rates, in bytes a second; 0 is no limit.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn limit(&self, info_hash: &str, upload: u64, download: u64) -> Result<()> {
        self.ask(&json!({"do": "limit", "info_hash": info_hash, "upload": upload, "download": download}))?;
        Ok(())
    }

    /// What it says of a torrent.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn status(&self, info_hash: &str) -> Result<Value> {
        self.ask(&json!({"do": "status", "info_hash": info_hash}))
    }

    /// What it says of a torrent's peers.
    ///
    /// # Errors
    /// When libtorrent refuses.
    pub fn peers(&self, info_hash: &str) -> Result<Vec<Value>> {
        let answer = self.ask(&json!({"do": "peers", "info_hash": info_hash}))?;
        Ok(answer["peers"].as_array().context("a list of peers")?.clone())
    }

    /// What happened in the session, one line each.
    pub fn log(&self) -> String {
        let answer = self.ask(&json!({"do": "log"}));
        answer.map(|answer| answer["alerts"].to_string()).unwrap_or_default()
    }

    /// Waits until a torrent is complete and all of it is in its files.
    ///
    /// # Errors
    /// When `limit` passes first, or libtorrent reports an error.
    pub fn wait_complete(&self, info_hash: &str, limit: Duration) -> Result<()> {
        let mut last = Value::Null;
        let outcome = wait_for("libtorrent has the whole torrent", limit, || {
            match self.status(info_hash) {
                Err(error) => Some(Err(error)),
                Ok(status) => {
                    let done = status["seeding"] == true;
                    let error = status["error"].as_str().unwrap_or_default().to_owned();
                    last = status;
                    if error.is_empty() {
                        done.then_some(Ok(()))
                    } else {
                        Some(Err(anyhow::anyhow!(error)))
                    }
                }
            }
        });
        outcome.with_context(|| format!("libtorrent's last word: {last}; {}", self.log()))??;
        // A piece counts as had when its hash was right, which may be before it was written.
        self.ask(&json!({"do": "flush", "info_hash": info_hash}))?;
        Ok(())
    }
}

fn texts(peers: &[SocketAddr]) -> Vec<String> {
    peers.iter().map(SocketAddr::to_string).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::content;
    use crate::liar::{Liar, Lie};
    use crate::metainfo::Torrent;
    use crate::tracker::HttpTracker;
    use crate::udp_tracker::UdpTracker;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_tree_goes_from_one_to_another_through_both_trackers() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("seed").join("tree");
        content::write_tree(&tree, 60, 40_000, 5).unwrap();
        let (http, udp) = (HttpTracker::start().unwrap(), UdpTracker::start().unwrap());
        for (index, url) in [http.url(), udp.url()].iter().enumerate() {
            let torrent = Torrent::create(&tree, 32_768, Some(url)).unwrap();
            let file = folder.path().join("tree.torrent");
            torrent.save(&file).unwrap();
            let (seeder, leecher) = (Libtorrent::start().unwrap(), Libtorrent::start().unwrap());
            let hash = seeder.add(&file, &folder.path().join("seed"), &[]).unwrap();
            assert_eq!(hash, torrent.hash_hex());
            seeder.wait_complete(&hash, LIMIT).unwrap();
            let target = folder.path().join(format!("got{index}"));
            // A magnet link: the metadata comes from the peer as well.
            leecher
                .add_magnet(&torrent.magnet(&[], Some(url)), &target, &[])
                .unwrap();
            leecher.wait_complete(&hash, LIMIT).unwrap();
            assert_eq!(
                content::sha256_tree(&target.join("tree")).unwrap(),
                content::sha256_tree(&tree).unwrap()
            );
        }
        for announces in [http.announces(), udp.announces()] {
            assert!(
                announces
                    .iter()
                    .any(|announce| announce.event == "started" && announce.left == 0)
            );
        }
    }

    #[test]
    fn a_liar_is_caught_by_libtorrent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed").join("one.bin");
        content::write_file(&file, 3 << 20, 9).unwrap();
        let torrent = Torrent::create(&file, 65_536, None).unwrap();
        let path = folder.path().join("one.torrent");
        torrent.save(&path).unwrap();
        let liar = Liar::start(torrent.clone(), Ipv4Addr::new(127, 0, 0, 7), Lie::Pieces(vec![3])).unwrap();
        let honest = Libtorrent::start().unwrap();
        let hash = honest.seed(&path, &folder.path().join("seed")).unwrap();
        let leecher = Libtorrent::start().unwrap();
        leecher
            .add(&path, &folder.path().join("got"), &[liar.address()])
            .unwrap();
        crate::wait_until("the liar has lied", LIMIT, || liar.corrupt_blocks() >= 4).unwrap();
        leecher.connect(&hash, honest.address()).unwrap();
        leecher.wait_complete(&hash, LIMIT).unwrap();
        let got = content::sha256_file(&folder.path().join("got").join("one.bin")).unwrap();
        assert_eq!(got, content::sha256_file(&file).unwrap());
        assert!(liar.honest_blocks() > 0);
        assert!(leecher.status(&hash).unwrap()["failed_bytes"].as_u64().unwrap() >= 65_536);
    }
}
