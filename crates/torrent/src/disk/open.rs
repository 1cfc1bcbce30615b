//! Opening files below the download folder without following a symbolic link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::DiskError;

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Also reads; creates the file and its folders where they are missing.
    Write,
}

#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `path`, which lies below `dir`.
///
/// `dir` itself is the user's choice and may be reached through links; below it each component is opened from its
/// parent and has to be a real folder, the last a real file.
pub(super) fn open_beneath(dir: &Path, path: &Path, access: Access) -> Result<File, DiskError> {
    let fail = |error: Errno| {
        let what = if access == Access::Write {
            "cannot open for writing"
        } else {
            "cannot open"
        };
        DiskError::io(&dir.join(path), what, &error.into())
    };
    if access == Access::Write {
        std::fs::create_dir_all(dir).map_err(|error| DiskError::io(dir, "cannot create the folder", &error))?;
    }
    let (folder, name) = parent(dir, path, access).map_err(fail)?;
    // Without O_NONBLOCK a pipe in the file's place would block this thread for ever.
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags
        | match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR | OFlags::CREATE,
        };
    let file = openat(&folder, name, flags, Mode::from_raw_mode(0o666)).map_err(fail)?;
    let stat = fstat(&file).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(DiskError::obstructed(
            &dir.join(path),
            "cannot open: this is not a regular file",
        ));
    }
    Ok(File::from(file))
}

/// The folder that holds `path`, and the last component's name.
fn parent<'a>(dir: &Path, path: &'a Path, access: Access) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let mut folder = openat(CWD, dir, FOLDER, Mode::empty())?;
    let mut components = path.components();
    let name = match components.next_back() {
        Some(Component::Normal(name)) => name,
        _ => return Err(Errno::INVAL),
    };
    for component in components {
        let Component::Normal(part) = component else {
            return Err(Errno::INVAL);
        };
        let flags = FOLDER | OFlags::NOFOLLOW;
        folder = match openat(&folder, part, flags, Mode::empty()) {
            Err(Errno::NOENT) if access == Access::Write => {
                match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                openat(&folder, part, flags, Mode::empty())?
            }
            other => other?,
        };
    }
    Ok((folder, name))
}

/// Deletes a file below `dir`, then its folders as far as they are empty. A file that is not there is no error.
pub(super) fn delete_beneath(dir: &Path, path: &Path) -> Result<(), DiskError> {
    let gone = |result: Result<(), Errno>| match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    let unlink = |path: &Path, flags: AtFlags| {
        let (folder, name) = parent(dir, path, Access::Read)?;
        unlinkat(&folder, name, flags)
    };
    gone(unlink(path, AtFlags::empty()))
        .map_err(|error| DiskError::io(&dir.join(path), "cannot delete", &io::Error::from(error)))?;
    for folder in path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty())
    {
        if unlink(folder, AtFlags::REMOVEDIR).is_err() {
            break;
        }
    }
    Ok(())
}
