//! Open files of all torrents: a bounded set, the longest unused goes first.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::open::Access;
use super::storage::Storage;
use super::{DiskError, DiskErrorKind};

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    writing: Mutex<()>,
}

impl OpenFile {
    /// Holds off other writers. The system takes one at a time into a file and lets the others spin for it; they sleep
    /// here instead.
    pub(super) fn write_alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for OpenFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// A torrent's number and a file's index in it.
type Key = (u64, usize);

#[derive(Debug)]
pub(super) struct Handles {
    max: usize,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    slots: HashMap<Key, Slot>,
    /// By the last use, oldest first.
    order: BTreeMap<u64, Key>,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    file: Arc<OpenFile>,
    writable: bool,
    used: u64,
}

impl Handles {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// A torrent's file, open for what is wanted. The file is opened without the lock held.
    pub(super) fn get(&self, storage: &Storage, index: usize, access: Access) -> Result<Arc<OpenFile>, DiskError> {
        let key = (storage.id, index);
        if let Some(file) = self.lock().used(key, access) {
            return Ok(file);
        }
        let opened = match storage.open_file(index, access) {
            Err(error) if error.kind == DiskErrorKind::NoHandles => {
                // Other parts of the process hold the descriptors: make do with fewer.
                let half = self.max / 2;
                let dropped = self.lock().shrink(half);
                drop(dropped);
                storage.open_file(index, access)?
            }
            other => other?,
        };
        let file = Arc::new(OpenFile {
            file: opened,
            writing: Mutex::new(()),
        });
        let mut open = self.lock();
        open.insert(key, Arc::clone(&file), access == Access::Write);
        let mut dropped = open.shrink(self.max);
        if storage.is_closed() {
            dropped.extend(open.remove(key));
        }
        drop(open);
        drop(dropped);
        Ok(file)
    }

    /// Closes a torrent's files (those in use at this moment when their use ends).
    pub(super) fn forget(&self, storage: &Storage) {
        let mut open = self.lock();
        let keys: Vec<Key> = open.slots.keys().filter(|key| key.0 == storage.id).copied().collect();
        let dropped: Vec<_> = keys.into_iter().filter_map(|key| open.remove(key)).collect();
        drop(open);
        drop(dropped);
    }
}

impl OpenFiles {
    fn used(&mut self, key: Key, access: Access) -> Option<Arc<OpenFile>> {
        let slot = self
            .slots
            .get_mut(&key)
            .filter(|slot| slot.writable || access == Access::Read)?;
        self.clock += 1;
        self.order.remove(&slot.used);
        slot.used = self.clock;
        self.order.insert(self.clock, key);
        Some(Arc::clone(&slot.file))
    }

    fn insert(&mut self, key: Key, file: Arc<OpenFile>, writable: bool) {
        // Two threads may have opened the same file at once; the one that can write stays.
        if self.slots.get(&key).is_some_and(|slot| slot.writable && !writable) {
            return;
        }
        self.remove(key);
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.slots.insert(
            key,
            Slot {
                file,
                writable,
                used: self.clock,
            },
        );
    }

    fn remove(&mut self, key: Key) -> Option<Arc<OpenFile>> {
        let slot = self.slots.remove(&key)?;
        self.order.remove(&slot.used);
        Some(slot.file)
    }

    /// Takes out the longest unused files beyond `max`; the caller drops them after the lock.
    fn shrink(&mut self, max: usize) -> Vec<Arc<OpenFile>> {
        let mut dropped = Vec::new();
        while self.slots.len() > max {
            let Some((_, key)) = self.order.pop_first() else { break };
            dropped.extend(self.slots.remove(&key).map(|slot| slot.file));
        }
        dropped
    }
}
