//! [`Table`] on a file system, over the `fjall` engine.
//!
//! The engine's journal makes a batch over several key spaces atomic and keeps the order of batches; each journal
//! record carries its checksum, so a torn tail is dropped when the table is opened again. Where the engine takes what
//! it reads for granted, a byte that has changed on the disk makes it panic; here that is an error like others.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{Batch, Space, Step, StoreError, Table};

/// A table in a directory of its own.
pub struct DiskTable {
    path: PathBuf,
    database: Database,
    spaces: Vec<Keyspace>,
}

impl DiskTable {
    /// Opens the table with one key space for each name, creating what is not there; `cache_bytes` bounds the
    /// engine's cache of blocks read.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be used or what is in it is no table.
    pub fn open(path: &Path, spaces: &[&str], cache_bytes: u64) -> Result<Self, StoreError> {
        if is_missing(path)? {
            create(path, spaces, cache_bytes)?;
        }
        let (database, spaces) = guarded(path, || engine(path, spaces, cache_bytes))?;
        Ok(Self {
            path: path.to_owned(),
            database,
            spaces,
        })
    }

    fn space(&self, space: Space) -> Result<&Keyspace, StoreError> {
        self.spaces.get(usize::from(space.0)).ok_or_else(|| StoreError::Engine {
            path: self.path.clone(),
            text: format!("was opened without key space {}", space.0),
        })
    }
}

/// Turns a panic of the engine into an error. Whatever state it leaves is only read through the engine again, and its
/// panics come from reading.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Engine {
            path: path.to_owned(),
            text: "is damaged".to_owned(),
        })
    })
}

/// Whether there is no table yet.
fn is_missing(path: &Path) -> Result<bool, StoreError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StoreError::from_io(path, error)),
    }
}

/// Makes a table beside its place and moves it there when it is whole: the engine cannot open what a process left behind
/// that was stopped while it made one.
fn create(path: &Path, spaces: &[&str], cache_bytes: u64) -> Result<(), StoreError> {
    let draft = path.with_extension("new");
    let failed = |error| StoreError::from_io(&draft, error);
    match std::fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => std::fs::create_dir_all(&draft).map_err(failed)?,
    }
    let (database, spaces) = engine(&draft, spaces, cache_bytes)?;
    database
        .persist(PersistMode::SyncAll)
        .map_err(|error| engine_error(&draft, error))?;
    drop((spaces, database));
    std::fs::rename(&draft, path).map_err(failed)?;
    // The new name must survive a power loss, too.
    path.parent()
        .map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
        .map_err(failed)
}

fn engine(path: &Path, spaces: &[&str], cache_bytes: u64) -> Result<(Database, Vec<Keyspace>), StoreError> {
    let wrap = |error| engine_error(path, error);
    let database = Database::builder(path)
        .cache_size(cache_bytes)
        .worker_threads(2)
        .open()
        .map_err(wrap)?;
    let spaces = spaces
        .iter()
        .map(|name| database.keyspace(name, KeyspaceCreateOptions::default))
        .collect::<Result<_, _>>()
        .map_err(wrap)?;
    Ok((database, spaces))
}

/// Finds the operating system error inside the engine's, so that a full disk is told from a broken table.
fn engine_error(path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) => StoreError::from_io(path, error),
        fjall::Error::Storage(fjall_storage) => {
            let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&fjall_storage);
            while let Some(error) = source {
                if let Some(io) = error.downcast_ref::<std::io::Error>() {
                    return StoreError::from_io(path, std::io::Error::new(io.kind(), io.to_string()));
                }
                source = error.source();
            }
            StoreError::Engine {
                path: path.to_owned(),
                text: fjall_storage.to_string(),
            }
        }
        fjall::Error::Locked => StoreError::InUse {
            path: path.to_owned(),
            pid: None,
        },
        other => StoreError::Engine {
            path: path.to_owned(),
            text: other.to_string(),
        },
    }
}

impl Table for DiskTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let space = self.space(space)?;
        guarded(&self.path, || {
            let value = space.get(key).map_err(|error| engine_error(&self.path, error))?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        let mut out = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        for (space, key, value) in batch.into_changes() {
            let space = self.space(space)?;
            match value {
                Some(value) => out.insert(space, &key[..], &value[..]),
                None => out.remove(space, &key[..]),
            }
        }
        let mode = if durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        guarded(&self.path, || {
            out.durability(Some(mode))
                .commit()
                .map_err(|error| engine_error(&self.path, error))
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        guarded(&self.path, || {
            self.database
                .persist(PersistMode::SyncData)
                .map_err(|error| engine_error(&self.path, error))
        })
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        let mut pairs = self.space(space)?.prefix(prefix);
        loop {
            // The visitor's own panics are none of the engine's.
            let next = guarded(&self.path, || {
                let pair = pairs.next().map(fjall::Guard::into_inner).transpose();
                pair.map_err(|error| engine_error(&self.path, error))
            })?;
            match next {
                Some((key, value)) if visit(&key, &value) == Step::Continue => {}
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_table_that_was_never_finished_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chainstate");
        let draft = dir.path().join("chainstate.new");
        std::fs::create_dir_all(draft.join("keyspaces")).unwrap();
        std::fs::write(draft.join("0.jnl"), []).unwrap();
        // An empty directory is no table either.
        std::fs::create_dir(&path).unwrap();
        let table = DiskTable::open(&path, &["coins"], 1 << 20).unwrap();
        let mut batch = Batch::default();
        batch.put(Space(0), *b"key", *b"value");
        table.write(batch, true).unwrap();
        drop(table);
        assert!(!draft.exists());
        let table = DiskTable::open(&path, &["coins"], 1 << 20).unwrap();
        assert_eq!(table.get(Space(0), b"key").unwrap().unwrap(), b"value");
    }
}
