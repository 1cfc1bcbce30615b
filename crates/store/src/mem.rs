//! [`Files`] and [`Table`] in memory, for the simulator and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Batch, Files, Space, Step, StoreError, Table};

/// Writes `data` at `offset` of a file held in memory.
pub(crate) fn write_into(file: &mut Vec<u8>, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
    let start = usize::try_from(offset).map_err(|_| StoreError::corrupt(name))?;
    let end = start.checked_add(data.len()).ok_or_else(|| StoreError::corrupt(name))?;
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(data);
    Ok(())
}

/// Reads exactly `len` bytes at `offset` of a file held in memory.
pub(crate) fn read_from(file: Option<&Vec<u8>>, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(len)?))
        .and_then(|range| file?.get(range))
        .map(<[u8]>::to_vec)
        .ok_or_else(|| StoreError::corrupt(format!("{name} at byte {offset}")))
}

/// The pairs of a table in memory.
pub(crate) type Pairs = BTreeMap<(Space, Box<[u8]>), Box<[u8]>>;

/// Carries out a batch.
pub(crate) fn apply(pairs: &mut Pairs, batch: Batch) {
    for (space, key, value) in batch.into_changes() {
        match value {
            Some(value) => pairs.insert((space, key), value),
            None => pairs.remove(&(space, key)),
        };
    }
}

/// Shows the pairs of `space` that begin with `prefix`, in key order.
pub(crate) fn scan(pairs: &Pairs, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) {
    let from = Bound::Included((space, prefix.into()));
    for ((at, key), value) in pairs.range((from, Bound::Unbounded)) {
        if *at != space || !key.starts_with(prefix) || visit(key, value) == Step::Stop {
            return;
        }
    }
}

/// Files that live as long as the value.
#[derive(Debug, Default)]
pub struct MemFiles {
    files: RwLock<BTreeMap<String, Vec<u8>>>,
}

impl MemFiles {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Each operation leaves the map whole at every step.
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for MemFiles {
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        write_into(self.write().entry(name.to_owned()).or_default(), name, offset, data)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        read_from(self.read().get(name), name, offset, len)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.read().get(name).map(|file| file.len() as u64))
    }

    fn sync(&self, _name: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.read().keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.write().remove(name);
        Ok(())
    }
}

/// A table that lives as long as the value.
#[derive(Debug, Default)]
pub struct MemTable {
    pairs: RwLock<Pairs>,
}

impl Table for MemTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs.get(&(space, key.into())).map(|value| value.to_vec()))
    }

    fn write(&self, batch: Batch, _durable: bool) -> Result<(), StoreError> {
        apply(&mut self.pairs.write().unwrap_or_else(PoisonError::into_inner), batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        scan(
            &self.pairs.read().unwrap_or_else(PoisonError::into_inner),
            space,
            prefix,
            visit,
        );
        Ok(())
    }
}
