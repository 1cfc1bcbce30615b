//! Resume files: what an earlier run verified, one file for each torrent.

use std::path::PathBuf;

use bytes::Bytes;

use crate::{Bitfield, InfoHash};

/// What is known of one torrent between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// The folder under which its files are.
    pub dir: PathBuf,
    /// The raw info dictionary; `None` while a magnet link has not brought it yet.
    pub raw_info: Option<Bytes>,
    /// Its name for display while the info dictionary is missing.
    pub name: String,
    /// Tracker URLs in tiers.
    pub trackers: Vec<Vec<String>>,
    /// Verified pieces; of length zero while the info dictionary is missing.
    pub have: Bitfield,
    /// The state of each file at that time, in the torrent's order; filled in by the disk.
    pub files: Vec<FileState>,
    /// The user paused it.
    pub paused: bool,
    /// Payload bytes sent in all runs.
    pub uploaded: u64,
    /// Payload bytes received in all runs.
    pub downloaded: u64,
    /// When it was added, in seconds since the Unix epoch.
    pub added: u64,
}

/// What tells whether a file changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// Whether it is there.
    pub present: bool,
    /// Bytes.
    pub size: u64,
    /// Modification time, seconds since the Unix epoch.
    pub mtime_secs: i64,
    /// And nanoseconds.
    pub mtime_nanos: u32,
}
