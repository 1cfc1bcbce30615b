//! A disk that loses its power on purpose.
//!
//! Every write, sync, removal and batch is one operation and has a number. At the chosen number the power goes: that
//! operation fails half done and every later one fails. [`CrashDisk::power_loss`] then gives the disk as it might be
//! found: of the file writes that were not synced a seeded choice is lost, kept, or torn (only some of their
//! 512-byte sectors), in no order; of the table batches that were not durable a seeded number of the newest is lost.
//! [`CrashDisk::process_killed`] gives the milder case in which the operating system lives on and loses nothing that
//! it was given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mem::{self, Pairs};
use crate::{Batch, Files, Space, Step, StoreError, Table};

/// The unit in which a torn write survives.
const SECTOR: usize = 512;

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct CrashDisk {
    inner: Arc<Mutex<Inner>>,
}

/// The file side of a [`CrashDisk`].
#[derive(Clone, Debug)]
pub struct CrashFiles(CrashDisk);

/// The table side of a [`CrashDisk`].
#[derive(Clone, Debug)]
pub struct CrashTable(CrashDisk);

#[derive(Debug)]
struct Inner {
    seed: u64,
    operations: u64,
    stop_at: Option<u64>,
    off: bool,
    files: BTreeMap<String, FileState>,
    /// What removed files last held for certain: a removal that was not synced may be undone.
    removed: BTreeMap<String, Vec<u8>>,
    pairs: Pairs,
    durable_pairs: Pairs,
    pending_batches: Vec<Batch>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    /// What a read sees.
    live: Vec<u8>,
    /// What is on the platter; `None` while even the file's existence is not durable.
    durable: Option<Vec<u8>>,
    pending: Vec<(u64, Vec<u8>)>,
}

/// SplitMix64: enough to choose what survives, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }
}

impl CrashDisk {
    /// An empty disk that loses its power at operation number `stop_at` (the first is 0), or never.
    pub fn new(seed: u64, stop_at: Option<u64>) -> Self {
        Self::from_parts(seed, stop_at, BTreeMap::new(), Pairs::new())
    }

    fn from_parts(seed: u64, stop_at: Option<u64>, files: BTreeMap<String, Vec<u8>>, pairs: Pairs) -> Self {
        let files = files
            .into_iter()
            .map(|(name, data)| {
                let state = FileState {
                    live: data.clone(),
                    durable: Some(data),
                    pending: Vec::new(),
                };
                (name, state)
            })
            .collect();
        let inner = Inner {
            seed,
            operations: 0,
            stop_at,
            off: false,
            files,
            removed: BTreeMap::new(),
            durable_pairs: pairs.clone(),
            pairs,
            pending_batches: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The file side.
    pub fn files(&self) -> CrashFiles {
        CrashFiles(self.clone())
    }

    /// The table side.
    pub fn table(&self) -> CrashTable {
        CrashTable(self.clone())
    }

    /// Changes the luck of the next [`CrashDisk::power_loss`].
    pub fn reseed(&self, seed: u64) {
        self.lock().seed = seed;
    }

    /// How many operations were begun.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// The disk as it might be found after its power has gone, with power again until `stop_at`.
    pub fn power_loss(&self, stop_at: Option<u64>) -> Self {
        let inner = self.lock();
        let mut dice = Dice(inner.seed ^ inner.operations.wrapping_mul(0xd134_2543_de82_ef95));
        let mut files = BTreeMap::new();
        for (name, state) in &inner.files {
            if let Some(found) = state.after_power_loss(name, &mut dice) {
                files.insert(name.clone(), found);
            }
        }
        for (name, data) in &inner.removed {
            if !files.contains_key(name) && dice.roll(2) == 0 {
                files.insert(name.clone(), data.clone());
            }
        }
        let mut pairs = inner.durable_pairs.clone();
        let kept = dice.roll(inner.pending_batches.len() as u64 + 1);
        for batch in inner
            .pending_batches
            .iter()
            .take(usize::try_from(kept).unwrap_or(usize::MAX))
        {
            mem::apply(&mut pairs, batch.clone());
        }
        Self::from_parts(dice.roll(u64::MAX), stop_at, files, pairs)
    }

    /// The disk as it is found after the process was killed: all that was handed to the operating system is there.
    pub fn process_killed(&self, stop_at: Option<u64>) -> Self {
        let inner = self.lock();
        let files = inner
            .files
            .iter()
            .map(|(name, state)| (name.clone(), state.live.clone()))
            .collect();
        Self::from_parts(inner.seed.wrapping_add(1), stop_at, files, inner.pairs.clone())
    }

    /// Flips one bit, as a dying disk does, in what is stored and in what a read sees.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file has no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let state = inner.files.get_mut(name).ok_or_else(|| StoreError::corrupt(name))?;
        for data in [Some(&mut state.live), state.durable.as_mut()].into_iter().flatten() {
            if let Some(byte) = data.get_mut(offset) {
                *byte ^= 1;
            }
        }
        if offset < state.live.len() {
            Ok(())
        } else {
            Err(StoreError::corrupt(name))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every operation leaves the disk whole at every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; `Ok(true)` means that the power goes during this one.
    fn begin(inner: &mut Inner) -> Result<bool, StoreError> {
        if inner.off {
            return Err(StoreError::PowerLoss);
        }
        let number = inner.operations;
        inner.operations += 1;
        inner.off = inner.stop_at == Some(number);
        Ok(inner.off)
    }

    fn reading(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.lock();
        if inner.off {
            Err(StoreError::PowerLoss)
        } else {
            Ok(inner)
        }
    }
}

impl FileState {
    fn after_power_loss(&self, name: &str, dice: &mut Dice) -> Option<Vec<u8>> {
        if self.durable.is_none() && dice.roll(3) == 0 {
            return None;
        }
        let mut found = self.durable.clone().unwrap_or_default();
        for (offset, data) in &self.pending {
            match dice.roll(3) {
                0 => {}
                1 => {
                    // The same write succeeded on the live copy, so the offset fits.
                    let _ = mem::write_into(&mut found, name, *offset, data);
                }
                _ => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.roll(2) == 0 {
                            let at = offset.saturating_add((index * SECTOR) as u64);
                            let _ = mem::write_into(&mut found, name, at, sector);
                        }
                    }
                }
            }
        }
        Some(found)
    }
}

impl Files for CrashFiles {
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        let stop = CrashDisk::begin(&mut inner)?;
        let state = inner.files.entry(name.to_owned()).or_default();
        mem::write_into(&mut state.live, name, offset, data)?;
        state.pending.push((offset, data.to_vec()));
        if stop { Err(StoreError::PowerLoss) } else { Ok(()) }
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let inner = self.0.reading()?;
        mem::read_from(inner.files.get(name).map(|state| &state.live), name, offset, len)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.0.reading()?.files.get(name).map(|state| state.live.len() as u64))
    }

    fn sync(&self, name: &str) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        if CrashDisk::begin(&mut inner)? {
            return Err(StoreError::PowerLoss);
        }
        if let Some(state) = inner.files.get_mut(name) {
            state.pending.clear();
            state.durable = Some(state.live.clone());
        }
        inner.removed.remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.reading()?.files.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        let stop = CrashDisk::begin(&mut inner)?;
        if let Some(data) = inner.files.remove(name).and_then(|state| state.durable) {
            inner.removed.insert(name.to_owned(), data);
        }
        if stop { Err(StoreError::PowerLoss) } else { Ok(()) }
    }
}

impl Table for CrashTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .0
            .reading()?
            .pairs
            .get(&(space, key.into()))
            .map(|value| value.to_vec()))
    }

    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        let stop = CrashDisk::begin(&mut inner)?;
        mem::apply(&mut inner.pairs, batch.clone());
        inner.pending_batches.push(batch);
        if stop {
            return Err(StoreError::PowerLoss);
        }
        if durable {
            inner.pending_batches.clear();
            inner.durable_pairs = inner.pairs.clone();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut inner = self.0.lock();
        if CrashDisk::begin(&mut inner)? {
            return Err(StoreError::PowerLoss);
        }
        inner.pending_batches.clear();
        inner.durable_pairs = inner.pairs.clone();
        Ok(())
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        mem::scan(&self.0.reading()?.pairs, space, prefix, visit);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPACE: Space = Space(0);

    fn batch(number: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(SPACE, [number], [number]);
        batch
    }

    #[test]
    fn synced_writes_always_survive_and_others_only_sometimes() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = CrashDisk::new(seed, Some(3));
            let files = disk.files();
            files.write_at("a", 0, &[1; 2048]).unwrap();
            files.sync("a").unwrap();
            files.write_at("a", 2048, &[2; 2048]).unwrap();
            assert!(matches!(files.write_at("a", 4096, b"end"), Err(StoreError::PowerLoss)));
            assert!(matches!(files.sync("a"), Err(StoreError::PowerLoss)));
            assert!(disk.is_off());

            let found = disk.power_loss(None);
            let files = found.files();
            assert_eq!(files.read_at("a", 0, 2048).unwrap(), [1; 2048]);
            let tail = files.len("a").unwrap().unwrap().saturating_sub(2048).min(2048);
            let tail = files.read_at("a", 2048, usize::try_from(tail).unwrap()).unwrap();
            match tail.iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                2048 => kept += 1,
                _ => torn += 1,
            }
            let all = disk.process_killed(None);
            assert_eq!(all.files().read_at("a", 4096, 3).unwrap(), b"end");
        }
        assert!(
            kept > 20 && lost > 20 && torn > 20,
            "kept {kept}, lost {lost}, torn {torn}"
        );
    }

    #[test]
    fn batches_survive_in_order_and_durable_ones_always() {
        let mut most = 0;
        for seed in 0..100 {
            let disk = CrashDisk::new(seed, None);
            let table = disk.table();
            table.write(batch(0), false).unwrap();
            table.write(batch(1), true).unwrap();
            table.write(batch(2), false).unwrap();
            table.write(batch(3), false).unwrap();
            let found = disk.power_loss(None).table();
            let mut numbers = Vec::new();
            found
                .scan(SPACE, b"", &mut |key, _| {
                    numbers.push(key[0]);
                    Step::Continue
                })
                .unwrap();
            assert!(
                numbers.len() >= 2 && numbers.iter().copied().eq(0..numbers.len() as u8),
                "{numbers:?}"
            );
            most = most.max(numbers.len());
        }
        assert_eq!(most, 4);
    }

    #[test]
    fn the_same_seed_finds_the_same_disk() {
        let found = |seed| {
            let disk = CrashDisk::new(seed, None);
            for index in 0..20u64 {
                disk.files().write_at("f", index * 700, &[index as u8; 700]).unwrap();
            }
            let files = disk.power_loss(None).files();
            files
                .len("f")
                .unwrap()
                .map(|len| files.read_at("f", 0, len as usize).unwrap())
        };
        assert_eq!(found(5), found(5));
        assert_ne!(found(5), found(6));
    }
}
