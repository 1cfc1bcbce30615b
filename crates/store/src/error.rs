//! What can go wrong with a disk, told apart by what the caller should do.

use std::io;
use std::path::{Path, PathBuf};

/// The disk's fault or the operator's, never a peer's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error("{} is already in use by {}", path.display(), holder(*pid))]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other process, when its lock file names it.
        pid: Option<u32>,
    },
    /// No space, or a quota is used up. Nothing that was there before is damaged.
    #[error("the disk is full at {}", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The operating system refuses access.
    #[error("no permission for {}", path.display())]
    Permission {
        /// What was being opened.
        path: PathBuf,
    },
    /// A record is shorter than it was written, or its checksum is wrong.
    #[error("{what} is damaged on disk")]
    Corrupt {
        /// Which record, in words a person can look up.
        what: String,
    },
    /// Another input or output error.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The key-value engine failed in a way that has no name of its own.
    #[error("the table at {}: {text}", path.display())]
    Engine {
        /// Where the table lives.
        path: PathBuf,
        /// What the engine says.
        text: String,
    },
    /// A [`CrashDisk`](crate::CrashDisk) has lost its power.
    #[error("the power is off")]
    PowerLoss,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoreError {
    /// Sorts an operating system error into the kinds that a caller tells apart.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission { path },
            _ => Self::Io { path, source },
        }
    }

    /// Whether what is there is not what was written, so that trying again is of no use.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Engine { .. } => true,
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::InvalidInput
                )
            }
            Self::InUse { .. } | Self::DiskFull { .. } | Self::Permission { .. } | Self::PowerLoss => false,
        }
    }

    /// A damaged record named `what`.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}
