//! What can go wrong with a disk, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What kind of trouble a disk has, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space, or the quota is used up: stop writing, go on serving.
    Full,
    /// Not allowed, or a read-only file system.
    Permission,
    /// The file system or a limit does not take a file of this size.
    TooLarge,
    /// A file that held verified pieces is gone or shorter now: check again.
    Changed,
    /// A symbolic link, a folder or a device stands where the file belongs; nothing was followed.
    Obstructed,
    /// Too many open files in this process.
    NoHandles,
    /// The torrent is not open, or the job does not fit it: the engine's mistake.
    Misuse,
    /// Any other failure of the operating system.
    Other,
}

/// The disk did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", path.display())]
pub struct DiskError {
    /// What to do about it.
    pub kind: DiskErrorKind,
    /// The file or folder.
    pub path: PathBuf,
    /// One line for people.
    pub text: String,
}

impl DiskError {
    pub(super) fn misuse(path: &Path, text: &str) -> Self {
        Self {
            kind: DiskErrorKind::Misuse,
            path: path.into(),
            text: text.into(),
        }
    }

    pub(super) fn changed(path: &Path, text: &str) -> Self {
        Self {
            kind: DiskErrorKind::Changed,
            path: path.into(),
            text: text.into(),
        }
    }

    pub(super) fn obstructed(path: &Path, text: &str) -> Self {
        Self {
            kind: DiskErrorKind::Obstructed,
            path: path.into(),
            text: text.into(),
        }
    }

    /// What the operating system said while we tried to do `what`.
    pub(super) fn io(path: &Path, what: &str, error: &io::Error) -> Self {
        use DiskErrorKind as Kind;
        let (kind, why) = match Errno::from_io_error(error) {
            Some(Errno::NOSPC) => (Kind::Full, "no space left on the disk"),
            Some(Errno::DQUOT) => (Kind::Full, "the disk quota is used up"),
            Some(Errno::ACCESS | Errno::PERM) => (Kind::Permission, "permission denied"),
            Some(Errno::ROFS) => (Kind::Permission, "the file system is read-only"),
            Some(Errno::FBIG) => (
                Kind::TooLarge,
                "the file would be larger than the file system or a limit allows",
            ),
            Some(Errno::NOENT) => (Kind::Changed, "the file is not there"),
            Some(Errno::LOOP) => (Kind::Obstructed, "a symbolic link is in the way"),
            Some(Errno::NOTDIR) => (
                Kind::Obstructed,
                "a file or symbolic link stands where a folder belongs",
            ),
            Some(Errno::ISDIR) => (Kind::Obstructed, "a folder stands where the file belongs"),
            Some(Errno::NXIO) => (Kind::Obstructed, "a pipe or device stands where the file belongs"),
            Some(Errno::MFILE | Errno::NFILE) => (Kind::NoHandles, "too many open files"),
            Some(Errno::NAMETOOLONG) => (Kind::Other, "the name is too long for the file system"),
            _ => {
                return Self {
                    kind: Kind::Other,
                    path: path.into(),
                    text: format!("{what}: {error}"),
                };
            }
        };
        Self {
            kind,
            path: path.into(),
            text: format!("{what}: {why}"),
        }
    }
}
