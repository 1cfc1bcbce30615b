//! One process for each data directory.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::StoreError;

/// The name of the lock file inside the directory.
const NAME: &str = ".lock";

/// Holds a data directory for this process until it is dropped; the operating system lets go of it when the process
/// dies in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, creating it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process (or another lock of this one) holds it.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|error| StoreError::from_io(dir, error))?;
        let path = dir.join(NAME);
        let io = |error| StoreError::from_io(&path, error);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder may be between its lock and its line: then it has no number to show.
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(StoreError::InUse {
                    path: dir.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::acquire(dir.path()).unwrap();
        match Lock::acquire(dir.path()) {
            Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected InUse, got {other:?}"),
        }
        let text = Lock::acquire(dir.path()).unwrap_err().to_string();
        assert!(text.contains("already in use by process"), "{text}");
        drop(held);
        Lock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, b"not a directory").unwrap();
        let text = Lock::acquire(&path).unwrap_err().to_string();
        assert!(text.contains("data"), "{text}");
    }
}
