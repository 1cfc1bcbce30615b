//! How many files and sockets this process may hold open, and the few files that are ours: keys.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is asked for at most; beyond it some systems' tables for closing descriptors get slow.
const ENOUGH: u64 = 1 << 16;

/// Raises the soft limit on open files to the hard limit (at most 65,536) and returns what now holds.
///
/// # Errors
/// The system does not allow it; the old limit stays.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if soft >= wanted {
        return Ok(soft);
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        },
    )?;
    Ok(wanted)
}

/// Writes a file that only its owner may read; a crash leaves none or the whole one.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
