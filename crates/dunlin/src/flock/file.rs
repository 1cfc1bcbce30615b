//! A file that the flock shares.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_torrent::create::{Options, create};
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// A file of random bytes, its .torrent and its SHA-256.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) info_hash: String,
    /// The .torrent in base64, as RPC takes it.
    pub(super) torrent: String,
    sha256: [u8; 32],
}

impl Shared {
    /// Makes a file of `size` random bytes in `downloads`, and its .torrent.
    pub(super) fn create(downloads: &Path, name: &str, size: usize) -> anyhow::Result<Self> {
        let mut bytes = vec![0; size];
        rand::rngs::StdRng::from_os_rng().fill_bytes(&mut bytes);
        fs::create_dir_all(downloads)?;
        let name = format!("{name}.bin");
        let path = downloads.join(&name);
        fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        let sha256 = Sha256::digest(&bytes).into();
        let metainfo = create(&path, &Options::default(), &|_, _| {})?.metainfo;
        let torrent = BASE64_STANDARD.encode(metainfo.to_bytes());
        Ok(Self {
            name,
            info_hash: metainfo.info_hash.to_string(),
            torrent,
            sha256,
        })
    }

    /// Checks the SHA-256 of the copy in `downloads`.
    pub(super) fn verify(&self, downloads: &Path) -> anyhow::Result<()> {
        let path = downloads.join(&self.name);
        let mut file = fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        ensure!(
            hasher.finalize()[..] == self.sha256,
            "{} has wrong bytes",
            path.display()
        );
        Ok(())
    }
}
