//! Where a chain keeps its data: block files, coin files, and the table of headers.

use std::path::Path;
use std::sync::Arc;

use dunlin_store::{CrashDisk, DirFiles, Files, Lock, LogTable, MemFiles, MemTable, StoreError, Table, Writing};

use crate::index::INDEX;

/// How the names of the table's files begin.
const TABLE: &str = "headers";

/// The files and the table of one chain.
#[derive(Clone)]
pub struct ChainStore {
    /// Block files and undo files.
    pub files: Arc<dyn Files>,
    /// Unspent outputs.
    pub coins: Arc<dyn Files>,
    /// Headers, and facts about the directory.
    pub table: Arc<dyn Table>,
    /// Who writes coins that were set aside.
    pub(crate) writing: Writing,
    /// Keeps other processes out for as long as the store is open.
    lock: Option<Arc<Lock>>,
}

impl ChainStore {
    /// A store that is gone when it is dropped.
    pub fn in_memory() -> Self {
        Self {
            files: Arc::new(MemFiles::default()),
            coins: Arc::new(MemFiles::default()),
            writing: Writing::Steps,
            table: Arc::new(MemTable::default()),
            lock: None,
        }
    }

    /// A store on a disk that may lose its power.
    pub fn on_crash_disk(disk: &CrashDisk) -> Self {
        Self {
            files: Arc::new(disk.files()),
            coins: Arc::new(disk.files()),
            writing: Writing::Steps,
            table: Arc::new(LogTable::new(Arc::new(disk.files()), TABLE, INDEX)),
            lock: None,
        }
    }

    /// A store in `dir`: `blocks/` for block and undo files, `coins/` for the unspent outputs, `headers/` for the
    /// table.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, and other errors of the disk.
    pub fn open_dir(dir: &Path) -> Result<Self, StoreError> {
        let blocks = dir.join("blocks");
        let lock = Lock::acquire(&blocks)?;
        Ok(Self {
            files: Arc::new(DirFiles::open(&blocks)?),
            coins: Arc::new(DirFiles::open(&dir.join("coins"))?),
            writing: Writing::Background,
            table: Arc::new(LogTable::new(
                Arc::new(DirFiles::open(&dir.join("headers"))?),
                TABLE,
                INDEX,
            )),
            lock: Some(Arc::new(lock)),
        })
    }

    /// Whether the store is guarded against other processes.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}
