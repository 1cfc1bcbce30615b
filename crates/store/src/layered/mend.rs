//! Putting a damaged block of a run right, when somebody can tell what should be in it.
//!
//! The run is written anew without the block; what is true of the keys that the block can have had takes its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::run::{Cursor, Run, Writer, prefix};
use super::{Core, Layered, layer, lock};
use crate::StoreError;

/// Keys and their values.
pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

impl Layered {
    /// Mends the damaged block on the way to `key`; `truth` gives all pairs on disk whose keys begin with eight bytes
    /// between its two arguments (big-endian numbers, both included), as of the newest mark. `false` when no block on
    /// the way is damaged, or `truth` does not know. Everything must have been frozen, and be on disk.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails, or another block is damaged.
    pub fn mend(
        &self,
        key: &[u8],
        truth: impl FnOnce(u64, u64) -> Result<Option<Pairs>, StoreError>,
    ) -> Result<bool, StoreError> {
        self.core.mend(key, truth)
    }
}

impl Core {
    fn mend(
        &self,
        key: &[u8],
        truth: impl FnOnce(u64, u64) -> Result<Option<Pairs>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut job = lock(&self.work.job);
        let runs = Arc::clone(&self.read().runs);
        let hash = layer::hash(self.seed, key);
        let mut found = None;
        for (index, run) in runs.iter().enumerate().rev() {
            match run.get(hash, key, &mut |_| ()) {
                Ok(None) => {}
                Ok(Some(_)) => break,
                Err(StoreError::Corrupt { .. }) => {
                    found = run.damage(key)?.map(|block| (index, run, block));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let Some((index, run, block)) = found else {
            return Ok(false);
        };
        let (least, greatest) = run.span(block);
        let Some(truth) = truth(least, greatest)? else {
            return Ok(false);
        };
        // A merge under way reads the damaged run; it begins again from the mended one.
        job.merge = None;
        let inside = |key: &[u8]| (least..=greatest).contains(&prefix(key));
        let mut records: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        // What older runs still have and is not true must be said to be gone. What they have in damaged blocks is found
        // damaged by whoever comes to it, and mended then.
        for older in runs.iter().take(index) {
            for number in older.blocks_between(least, greatest) {
                match Cursor::within(Arc::clone(older), number..number + 1) {
                    Err(StoreError::Corrupt { .. }) => continue,
                    Err(error) => return Err(error),
                    Ok(mut cursor) => {
                        while let Some((key, _)) = cursor.record() {
                            if inside(key) {
                                records.insert(key.to_vec(), None);
                            }
                            cursor.advance()?;
                        }
                    }
                }
            }
        }
        records.extend(truth.into_iter().map(|(key, value)| (key, Some(value))));

        let number = job.manifest.next_run;
        job.manifest.next_run += 1;
        let count = run.meta.records + records.len() as u64;
        let mut writer = Writer::new(&self.files, &self.prefix, self.seed, number, count);
        let copy = |writer: &mut Writer, blocks| -> Result<(), StoreError> {
            let mut cursor = Cursor::within(Arc::clone(run), blocks)?;
            while let Some((key, value)) = cursor.record() {
                if !inside(key) {
                    writer.add(key, value)?;
                }
                cursor.advance()?;
            }
            Ok(())
        };
        copy(&mut writer, 0..block)?;
        for (key, value) in &records {
            writer.add(key, value.as_deref())?;
        }
        copy(&mut writer, block + 1..run.blocks())?;
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
        job.no_merges = false;
        self.write().runs = Arc::new(now);
        run.retire();
        Ok(true)
    }
}
