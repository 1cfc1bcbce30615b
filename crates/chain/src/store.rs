//! Where a chain keeps its data: block files and the table of coins and headers.

use std::path::Path;
use std::sync::Arc;

use dunlin_store::{CrashDisk, DirFiles, DiskTable, Files, Lock, MemFiles, MemTable, StoreError, Table};

use crate::index::SPACES;

/// The files and the table of one chain.
#[derive(Clone)]
pub struct ChainStore {
    /// Block files and undo files.
    pub files: Arc<dyn Files>,
    /// Coins, headers, and facts about the directory.
    pub table: Arc<dyn Table>,
    /// Keeps other processes out for as long as the store is open.
    lock: Option<Arc<Lock>>,
}

impl ChainStore {
    /// A store that is gone when it is dropped.
    pub fn in_memory() -> Self {
        Self {
            files: Arc::new(MemFiles::default()),
            table: Arc::new(MemTable::default()),
            lock: None,
        }
    }

    /// A store on a disk that may lose its power.
    pub fn on_crash_disk(disk: &CrashDisk) -> Self {
        Self {
            files: Arc::new(disk.files()),
            table: Arc::new(disk.table()),
            lock: None,
        }
    }

    /// A store in `dir`: `blocks/` for block and undo files, `chainstate/` for the table. `table_cache_bytes` bounds
    /// what the table's engine keeps of what it read.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, and other errors of the disk.
    pub fn open_dir(dir: &Path, table_cache_bytes: u64) -> Result<Self, StoreError> {
        let blocks = dir.join("blocks");
        let lock = Lock::acquire(&blocks)?;
        Ok(Self {
            files: Arc::new(DirFiles::open(&blocks)?),
            table: Arc::new(DiskTable::open(&dir.join("chainstate"), &SPACES, table_cache_bytes)?),
            lock: Some(Arc::new(lock)),
        })
    }

    /// Whether the store is guarded against other processes.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}
