//! The clients, driven alike.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_testkit::aria2::Aria2;
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::libtorrent::Libtorrent;
use serde_json::{Value, json};

use super::Share;
use crate::Args;

/// A program that can be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Client {
    Dunlin,
    Libtorrent,
    Aria2,
}

impl Client {
    pub(super) const ALL: [Self; 3] = [Self::Dunlin, Self::Libtorrent, Self::Aria2];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dunlin => "dunlin",
            Self::Libtorrent => "libtorrent",
            Self::Aria2 => "aria2",
        }
    }

    /// Starts it, with nothing to do.
    pub(super) fn start(self, args: &Args) -> Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Dunlin => Box::new(dunlin(args)?),
            Self::Libtorrent => Box::new(libtorrent()?),
            Self::Aria2 => Box::new(OfAria2 {
                aria2: Aria2::start()?,
                gid: Default::default(),
            }),
        })
    }
}

/// Our daemon without Bitcoin, with plain links as all others have.
pub(super) fn dunlin(args: &Args) -> Result<Dunlin> {
    Dunlin::start(&args.program, &["--disable", "bitcoin", "--torrent-encryption", "off"])
}

/// A session for speed on two cores.
pub(super) fn libtorrent() -> Result<Libtorrent> {
    Libtorrent::start_with(&json!({
        "aio_threads": 2,
        "hashing_threads": 2,
        "max_queued_disk_bytes": 64 << 20,
        "send_buffer_watermark": 4 << 20,
        "send_buffer_low_watermark": 1 << 20,
        "send_buffer_watermark_factor": 200,
        "max_out_request_queue": 1500,
        "max_allowed_in_request_queue": 4000,
        "request_queue_time": 3,
        "allowed_fast_set_size": 0,
        "mixed_mode_algorithm": 0,
        "enable_outgoing_utp": false,
        "alert_mask": 0x41,
    }))
}

/// A running client.
pub(super) trait Peer {
    fn pid(&self) -> u32;
    /// Begins to download into `folder`.
    fn leech(&self, share: &Share, folder: &Path) -> Result<()>;
    /// Serves what is complete; returns once it is ready to.
    fn seed(&self, share: &Share) -> Result<()>;
    /// Whether it has all of it, in the files.
    fn is_complete(&self, share: &Share) -> Result<bool>;
}

impl Peer for Dunlin {
    fn pid(&self) -> u32 {
        Dunlin::pid(self)
    }

    fn leech(&self, share: &Share, folder: &Path) -> Result<()> {
        self.call("torrent.add", json!([metainfo(share)?, folder]))?;
        Ok(())
    }

    fn seed(&self, share: &Share) -> Result<()> {
        let no_peers: [SocketAddr; 0] = [];
        self.call(
            "torrent.add",
            json!([metainfo(share)?, share.complete, no_peers, false, true]),
        )?;
        super::wait("dunlin seeds", || Ok(status(self, share)?["state"] == "seeding"))
    }

    fn is_complete(&self, share: &Share) -> Result<bool> {
        let status = status(self, share)?;
        if let Some(error) = status["error"].as_str() {
            bail!("dunlin: {error}");
        }
        Ok(status["done_bytes"].as_u64() == Some(share.total))
    }
}

fn metainfo(share: &Share) -> Result<String> {
    Ok(BASE64_STANDARD.encode(std::fs::read(&share.path)?))
}

/// What our daemon says of the torrent.
pub(super) fn status(dunlin: &Dunlin, share: &Share) -> Result<Value> {
    Ok(dunlin.call("torrent.info", json!([share.info_hash]))?)
}

impl Peer for Libtorrent {
    fn pid(&self) -> u32 {
        Libtorrent::pid(self)
    }

    fn leech(&self, share: &Share, folder: &Path) -> Result<()> {
        self.add(&share.path, folder, &[])?;
        Ok(())
    }

    /// It checks what is there first: told to believe it, it would hash each piece when that is first asked for.
    fn seed(&self, share: &Share) -> Result<()> {
        self.add(&share.path, &share.complete, &[])?;
        super::wait("libtorrent seeds", || {
            Ok(self.status(&share.info_hash)?["seeding"] == true)
        })
    }

    /// A piece counts as had when its hash was right, which may be before it was written.
    fn is_complete(&self, share: &Share) -> Result<bool> {
        let status = self.status(&share.info_hash)?;
        if status["error"] != "" {
            bail!("libtorrent: {}", status["error"]);
        }
        let complete = status["seeding"] == true;
        if complete {
            self.ask(&json!({"do": "flush", "info_hash": share.info_hash}))?;
        }
        Ok(complete)
    }
}

struct OfAria2 {
    aria2: Aria2,
    gid: std::cell::RefCell<String>,
}

impl Peer for OfAria2 {
    fn pid(&self) -> u32 {
        self.aria2.pid()
    }

    fn leech(&self, share: &Share, folder: &Path) -> Result<()> {
        *self.gid.borrow_mut() = self.aria2.add(&share.path, folder)?;
        Ok(())
    }

    fn seed(&self, share: &Share) -> Result<()> {
        *self.gid.borrow_mut() = self.aria2.seed(&share.path, &share.complete)?;
        Ok(())
    }

    fn is_complete(&self, _: &Share) -> Result<bool> {
        self.aria2.is_complete(&self.gid.borrow())
    }
}
