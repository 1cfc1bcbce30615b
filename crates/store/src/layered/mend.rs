//! Putting damaged blocks of runs right, when somebody can tell what should be in them.
//!
//! A run is written anew without such blocks; what is true of the keys that they can have had takes their place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::run::{Cursor, Run, Writer, prefix};
use super::work::Job;
use super::{Core, Layered, block, lock};
use crate::StoreError;

/// Keys and their values.
pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A block of a run that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    run: u64,
    block: usize,
    /// Its keys begin with eight bytes between this big-endian number ...
    pub least: u64,
    /// ... and this one, both included.
    pub greatest: u64,
}

impl Damage {
    /// Whether a key can be among what is damaged.
    pub fn may_have(&self, key: &[u8]) -> bool {
        (self.least..=self.greatest).contains(&prefix(key))
    }
}

impl Layered {
    /// Whether damage was met since this was asked last.
    pub fn take_damage_met(&self) -> bool {
        self.core.damage_met.swap(false, Ordering::Relaxed)
    }

    /// Reads all that is on disk and lists the blocks that are damaged, from the oldest run to the newest.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        let runs = Arc::clone(&self.core.read().runs);
        let mut found = Vec::new();
        for run in runs.iter() {
            for block in 0..run.blocks() {
                let whole = match run.read(block, block + 1) {
                    Ok(bytes) => block::check(&bytes).is_some(),
                    Err(StoreError::Corrupt { .. }) => false,
                    Err(error) => return Err(error),
                };
                if !whole {
                    let (least, greatest) = run.span(block);
                    let run = run.meta.number;
                    found.push(Damage {
                        run,
                        block,
                        least,
                        greatest,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Mends what [`Layered::damage`] found. `truth` has all pairs, as of the newest mark, whose keys any of the damaged
    /// blocks may have; everything must have been frozen, and be on disk.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails, or another block is damaged by now; what was mended before stays so.
    pub fn mend(&self, damage: &[Damage], truth: &Pairs) -> Result<(), StoreError> {
        let mut job = lock(&self.core.work.job);
        // A merge under way may read a damaged run; it begins again.
        job.merge = None;
        // The older runs first: a newer one is told what they have that is not true.
        for damage in damage.chunk_by(|one, other| one.run == other.run) {
            self.core.mend_run(&mut job, damage, truth)?;
        }
        job.no_merges = false;
        Ok(())
    }
}

impl Core {
    /// Mends what is damaged in one run.
    fn mend_run(&self, job: &mut Job, damage: &[Damage], truth: &Pairs) -> Result<(), StoreError> {
        let runs = Arc::clone(&self.read().runs);
        let is_damaged = |run: &Arc<Run>| damage.iter().any(|found| found.run == run.meta.number);
        let Some(index) = runs.iter().position(is_damaged) else {
            return Ok(());
        };
        let run = &runs[index];
        let inside = |key: &[u8]| damage.iter().any(|found| found.may_have(key));
        // What older runs have and is not true must be said to be gone.
        let mut records: BTreeMap<Vec<u8>, Option<&[u8]>> = BTreeMap::new();
        for found in damage {
            for older in runs.iter().take(index) {
                let blocks = older.blocks_between(found.least, found.greatest);
                let mut cursor = Cursor::within(Arc::clone(older), blocks)?;
                while let Some((key, _)) = cursor.record() {
                    if inside(key) {
                        records.insert(key.to_vec(), None);
                    }
                    cursor.advance()?;
                }
            }
        }
        let true_ones = truth.iter().filter(|(key, _)| inside(key));
        records.extend(true_ones.map(|(key, value)| (key.clone(), Some(&value[..]))));

        let number = job.manifest.next_run;
        job.manifest.next_run += 1;
        let count = run.meta.records + records.len() as u64;
        let mut writer = Writer::new(&self.files, &self.prefix, self.seed, number, count);
        let mut records = records.into_iter().peekable();
        let mut from = 0;
        for end in damage.iter().map(|found| found.block).chain([run.blocks()]) {
            let mut cursor = Cursor::within(Arc::clone(run), from..end)?;
            while let Some((key, value)) = cursor.record() {
                if !inside(key) {
                    while let Some((key, value)) = records.next_if(|(before, _)| before.as_slice() < key) {
                        writer.add(&key, value)?;
                    }
                    writer.add(key, value)?;
                }
                cursor.advance()?;
            }
            from = end + 1;
        }
        for (key, value) in records {
            writer.add(&key, value)?;
        }
        let mended = writer.finish()?;
        let mended = mended
            .map(|meta| Run::open(&self.files, &self.prefix, meta).map(Arc::new))
            .transpose()?;
        let mut now: Vec<Arc<Run>> = runs.to_vec();
        now.splice(index..=index, mended);
        let mut next = job.manifest.clone();
        next.number += 1;
        next.runs = now.iter().map(|run| run.meta).collect();
        next.save(&*self.files, &self.prefix)?;
        job.manifest = next;
        self.write().runs = Arc::new(now);
        run.retire();
        Ok(())
    }
}
