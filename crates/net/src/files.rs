//! How many files and sockets this process may hold open.

use std::io;

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
