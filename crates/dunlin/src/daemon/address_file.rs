//! `peers.dat`: the addresses of Bitcoin peers that we know, kept across restarts.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use dunlin_peer::{AddressBook, Reach};

const FILE: &str = "peers.dat";

/// The saved book; an empty one under `key` when there is none, or it cannot be read.
pub(super) fn load(dir: &Path, key: [u8; 32], reach: Reach) -> AddressBook {
    let path = dir.join(FILE);
    let Ok(bytes) = fs::read(&path) else {
        return AddressBook::new(key, reach);
    };
    AddressBook::from_bytes(&bytes, reach).unwrap_or_else(|error| {
        tracing::warn!(
            "{} is damaged ({error}); starting with no known addresses",
            path.display()
        );
        AddressBook::new(key, reach)
    })
}

/// Replaces the saved book; a crash leaves the old one or the new one.
pub(super) fn save(dir: &Path, book: &AddressBook) -> anyhow::Result<()> {
    let (path, temporary) = (dir.join(FILE), dir.join("peers.dat.new"));
    let mut file = fs::File::create(&temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
    file.write_all(&book.to_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path).with_context(|| format!("cannot write {}", path.display()))
}
