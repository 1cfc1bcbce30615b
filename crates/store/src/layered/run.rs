//! A run: records in key order in a file that never changes once it is complete.
//!
//! Blocks of records lie one behind the other; then, for each block, the first eight bytes of its first key
//! (big-endian number) and the place at which it ends, both as 8 little-endian bytes; then the filter. What follows the
//! blocks is read when the store is opened and stays in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::block::{self, Builder};
use super::filter::Filter;
use crate::{Files, StoreError};

/// How many bytes are handed to the file, or read for a merge, in one go.
const CHUNK: usize = 256 << 10;

/// Runs with more records than this have no filter: nearly all look-ups that come down to a run of that size find
/// their key in it, and the filter would take more memory than all else.
const MAX_FILTERED: u64 = 16 << 20;

/// The first eight bytes of a key as a number that sorts as the key does.
pub(super) fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

/// What the manifest says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The number in the file's name.
    pub(super) number: u64,
    /// How many records it has, removals included.
    pub(super) records: u64,
    /// Bytes of all blocks.
    pub(super) blocks_len: u64,
    /// How many blocks there are.
    pub(super) blocks: u64,
    /// Bytes of the filter.
    pub(super) filter_len: u64,
    /// XXH3 of what follows the blocks.
    pub(super) sum: u64,
}

/// What the name of a run's file ends with.
pub(super) const SUFFIX: &str = ".run";

/// The name of a run's file.
pub(super) fn file_name(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:06}{SUFFIX}")
}

/// The value of a key in one run: `None` when the run does not know, `Some(None)` when it was removed there.
type Known<T> = Option<Option<T>>;

/// A complete run.
pub(super) struct Run {
    files: Arc<dyn Files>,
    name: String,
    pub(super) meta: Meta,
    firsts: Vec<u64>,
    ends: Vec<u64>,
    filter: Filter,
    /// Nobody will look for it again: the file goes when the last reader has let go.
    obsolete: AtomicBool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            // A file that stays is removed when the store is opened again.
            let _ = self.files.remove(&self.name);
        }
    }
}

impl Run {
    /// Opens a run that the manifest names.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when what follows the blocks is damaged.
    pub(super) fn open(files: &Arc<dyn Files>, prefix: &str, meta: Meta) -> Result<Self, StoreError> {
        let name = file_name(prefix, meta.number);
        let damaged = || StoreError::corrupt(format!("the index of {name}"));
        let index_len = meta.blocks.checked_mul(16).ok_or_else(damaged)?;
        let len = index_len.checked_add(meta.filter_len).ok_or_else(damaged)?;
        let tail = files.read_at(&name, meta.blocks_len, usize::try_from(len).map_err(|_| damaged())?)?;
        if xxh3_64(&tail) != meta.sum {
            return Err(damaged());
        }
        // The same length was read above.
        let (index, filter) = tail.split_at(index_len as usize);
        let (numbers, _) = index.as_chunks::<8>();
        let numbers = |from: usize| {
            numbers
                .iter()
                .skip(from)
                .step_by(2)
                .map(|n| u64::from_le_bytes(*n))
                .collect()
        };
        Ok(Self {
            files: Arc::clone(files),
            meta,
            firsts: numbers(0),
            ends: numbers(1),
            filter: Filter::decode(filter),
            obsolete: AtomicBool::new(false),
            name,
        })
    }

    /// Memory used.
    pub(super) fn memory(&self) -> usize {
        self.firsts.len() * 16 + self.filter.bytes()
    }

    /// Bytes of the file.
    pub(super) fn disk(&self) -> u64 {
        self.meta.blocks_len + self.meta.blocks * 16 + self.meta.filter_len
    }

    /// Has the file removed when nobody reads it any more.
    pub(super) fn retire(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }

    fn start(&self, block: usize) -> u64 {
        block
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0)
    }

    fn damaged(&self, block: usize) -> StoreError {
        StoreError::corrupt(format!("the records at byte {} of {}", self.start(block), self.name))
    }

    /// Reads blocks `from..to` as they are on disk.
    pub(super) fn read(&self, from: usize, to: usize) -> Result<Vec<u8>, StoreError> {
        let len = self.start(to).checked_sub(self.start(from));
        let len = len
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| self.damaged(from))?;
        self.files.read_at(&self.name, self.start(from), len)
    }

    /// The block in which `key` is, if it is anywhere in this run.
    fn block_of(&self, key: &[u8]) -> Result<usize, StoreError> {
        let at = prefix(key);
        let mut low = self.firsts.partition_point(|first| *first < at).saturating_sub(1);
        let mut high = self.firsts.partition_point(|first| *first <= at).max(1);
        // Blocks that begin with the same eight bytes are told apart by their first keys.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let bytes = self.read(middle, middle + 1)?;
            let mut first = Vec::new();
            block::check(&bytes)
                .and_then(|body| block::record(body, 0, &mut first))
                .ok_or_else(|| self.damaged(middle))?;
            if first.as_slice() <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The blocks that can have keys that begin with eight bytes between two numbers, both included.
    pub(super) fn blocks_between(&self, least: u64, greatest: u64) -> std::ops::Range<usize> {
        let from = self.firsts.partition_point(|first| *first < least).saturating_sub(1);
        from..self.firsts.partition_point(|first| *first <= greatest)
    }

    /// The first eight bytes of all keys that a block can have, as numbers: the least and the greatest.
    pub(super) fn span(&self, block: usize) -> (u64, u64) {
        let least = self.firsts.get(block).copied().unwrap_or(0);
        (least, self.firsts.get(block + 1).copied().unwrap_or(u64::MAX))
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.ends.len()
    }

    /// Whether the key with this hash may be here; it is not when this says so.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        !self.firsts.is_empty() && self.filter.may_have(hash)
    }

    /// Asks the system to read what a look-up of the key will read, but for rare keys with the first bytes of others.
    pub(super) fn will_need(&self, key: &[u8]) {
        let block = self
            .firsts
            .partition_point(|first| *first <= prefix(key))
            .saturating_sub(1);
        let start = self.start(block);
        self.files
            .will_need(&self.name, start, self.start(block + 1).saturating_sub(start));
    }

    /// Looks a key up and shows its value to `see`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the place of a damaged block.
    pub(super) fn get<T>(
        &self,
        hash: u64,
        key: &[u8],
        see: &mut impl FnMut(&[u8]) -> T,
    ) -> Result<Known<T>, StoreError> {
        if !self.may_have(hash) {
            return Ok(None);
        }
        let number = self.block_of(key)?;
        let bytes = self.read(number, number + 1)?;
        let body = block::check(&bytes).ok_or_else(|| self.damaged(number))?;
        let (mut at, mut found) = (0, Vec::with_capacity(64));
        while at < body.len() {
            let (value, next) = block::record(body, at, &mut found).ok_or_else(|| self.damaged(number))?;
            match found.as_slice().cmp(key) {
                std::cmp::Ordering::Less => at = next,
                std::cmp::Ordering::Equal => return Ok(Some(value.map(|range| see(&body[range])))),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Writes a run from records in key order.
pub(super) struct Writer {
    files: Arc<dyn Files>,
    name: String,
    seed: u64,
    meta: Meta,
    builder: Builder,
    /// Finished blocks that were not handed to the file yet.
    pending: Vec<u8>,
    written: u64,
    index: Vec<u8>,
    first: u64,
    filter: Option<Filter>,
}

impl Writer {
    /// Begins run `number`, which will have at most `max_records`. A file of that name is written over.
    pub(super) fn new(files: &Arc<dyn Files>, prefix: &str, seed: u64, number: u64, max_records: u64) -> Self {
        Self {
            files: Arc::clone(files),
            name: file_name(prefix, number),
            seed,
            meta: Meta {
                number,
                records: 0,
                blocks_len: 0,
                blocks: 0,
                filter_len: 0,
                sum: 0,
            },
            builder: Builder::default(),
            pending: Vec::new(),
            written: 0,
            index: Vec::new(),
            first: 0,
            filter: (max_records <= MAX_FILTERED).then(|| Filter::new(max_records)),
        }
    }

    /// Adds a record; its key is greater than that of the one before.
    ///
    /// # Errors
    /// [`StoreError`] of the file.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        if self.builder.is_empty() {
            self.first = prefix(key);
        }
        self.builder.add(key, value);
        self.meta.records += 1;
        if let Some(filter) = &mut self.filter {
            filter.add(super::layer::hash(self.seed, key));
        }
        if self.builder.is_full() {
            self.end_block();
            if self.pending.len() >= CHUNK {
                self.write()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        self.builder.finish(&mut self.pending);
        self.meta.blocks += 1;
        self.index.extend_from_slice(&self.first.to_le_bytes());
        let end = self.written + self.pending.len() as u64;
        self.index.extend_from_slice(&end.to_le_bytes());
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.files.write_at(&self.name, self.written, &self.pending)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Ends the run and makes it durable; `None` when nothing was added.
    ///
    /// # Errors
    /// [`StoreError`] of the file.
    pub(super) fn finish(mut self) -> Result<Option<Meta>, StoreError> {
        if !self.builder.is_empty() {
            self.end_block();
        }
        if self.meta.records == 0 {
            return Ok(None);
        }
        self.meta.blocks_len = self.written + self.pending.len() as u64;
        let mut tail = std::mem::take(&mut self.index);
        if let Some(filter) = self.filter.take() {
            self.meta.filter_len = filter.bytes() as u64;
            filter.encode(&mut tail);
        }
        self.meta.sum = xxh3_64(&tail);
        self.pending.append(&mut tail);
        self.write()?;
        self.files.sync(&self.name)?;
        Ok(Some(self.meta))
    }
}

/// Reads a run from its first record to its last.
pub(super) struct Cursor {
    run: Arc<Run>,
    /// The next block to be read, and the one behind the last.
    next_block: usize,
    end_block: usize,
    bytes: Vec<u8>,
    /// Where the records of the current block lie in `bytes`, and the number of that block.
    body: std::ops::Range<usize>,
    block: usize,
    at: usize,
    key: Vec<u8>,
    value: Option<std::ops::Range<usize>>,
    done: bool,
}

impl Cursor {
    /// Stands on the first record whose key is not below `from`.
    ///
    /// # Errors
    /// As [`Cursor::advance`].
    pub(super) fn new(run: Arc<Run>, from: &[u8]) -> Result<Self, StoreError> {
        let at = prefix(from);
        let first = run.firsts.partition_point(|first| *first < at).saturating_sub(1);
        let end = run.ends.len();
        let mut cursor = Self::within(run, first..end)?;
        while cursor.record().is_some_and(|(key, _)| key < from) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// Stands on the first record of some blocks, and ends with the last of them.
    ///
    /// # Errors
    /// As [`Cursor::advance`].
    pub(super) fn within(run: Arc<Run>, blocks: std::ops::Range<usize>) -> Result<Self, StoreError> {
        let mut cursor = Self {
            next_block: blocks.start,
            end_block: blocks.end,
            run,
            bytes: Vec::new(),
            body: 0..0,
            block: 0,
            at: 0,
            key: Vec::new(),
            value: None,
            done: false,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    /// The current record; `None` behind the last.
    pub(super) fn record(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let body = self.bytes.get(self.body.clone())?;
        let value = self.value.as_ref().and_then(|range| body.get(range.clone()));
        (!self.done).then_some((&self.key, value))
    }

    /// Goes on to the next record.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the place of a damaged block.
    pub(super) fn advance(&mut self) -> Result<(), StoreError> {
        if self.at >= self.body.len() && !self.next()? {
            self.done = true;
            return Ok(());
        }
        let found = block::record(&self.bytes[self.body.clone()], self.at, &mut self.key);
        let (value, next) = found.ok_or_else(|| self.run.damaged(self.block))?;
        self.value = value;
        self.at = next;
        Ok(())
    }

    /// Goes on to the next block; `false` when there is none.
    fn next(&mut self) -> Result<bool, StoreError> {
        let run = &self.run;
        let block = self.next_block;
        if block >= self.end_block {
            return Ok(false);
        }
        let mut start = self.body.end;
        if start >= self.bytes.len() {
            // As many blocks as fit into one read, but one at least.
            let limit = run.start(block) + CHUNK as u64;
            let to = run.ends.partition_point(|end| *end <= limit).max(block + 1);
            self.bytes = run.read(block, to)?;
            start = 0;
        }
        let len = run.start(block + 1).saturating_sub(run.start(block)) as usize;
        let bytes = self
            .bytes
            .get(start..start.saturating_add(len))
            .ok_or_else(|| run.damaged(block))?;
        let body = block::check(bytes).ok_or_else(|| run.damaged(block))?;
        self.body = start + len - body.len()..start + len;
        self.block = block;
        self.next_block = block + 1;
        self.at = 0;
        self.key.clear();
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::MemFiles;
    use crate::layered::layer::hash;

    fn key(n: u32) -> Vec<u8> {
        // Many keys share their first eight bytes, as the outputs of one large transaction do.
        format!("{:08}-{:06}", n / 5000, n).into_bytes()
    }

    #[test]
    fn keys_are_found_one_by_one_and_in_order() {
        let files: Arc<dyn Files> = Arc::new(MemFiles::default());
        let count = 30_000;
        let mut writer = Writer::new(&files, "t", 5, 1, count.into());
        let value = |n: u32| (!n.is_multiple_of(7)).then(|| vec![n as u8; (n % 300) as usize]);
        for n in (0..count).map(|n| n * 2) {
            writer.add(&key(n), value(n).as_deref()).unwrap();
        }
        let meta = writer.finish().unwrap().unwrap();
        assert_eq!(meta.records, u64::from(count));
        let run = Arc::new(Run::open(&files, "t", meta).unwrap());
        assert_eq!(files.len(&run.name).unwrap(), Some(run.disk()));
        for n in 0..count * 2 {
            let key = key(n);
            let found = run.get(hash(5, &key), &key, &mut <[u8]>::to_vec).unwrap();
            assert_eq!(found, n.is_multiple_of(2).then(|| value(n)), "{n}");
        }
        let mut cursor = Cursor::new(Arc::clone(&run), b"").unwrap();
        for n in (0..count).map(|n| n * 2) {
            assert_eq!(cursor.record(), Some((&key(n)[..], value(n).as_deref())));
            cursor.advance().unwrap();
        }
        assert_eq!(cursor.record(), None);
        for n in (0..count * 2).step_by(777) {
            let cursor = Cursor::new(Arc::clone(&run), &key(n)).unwrap();
            assert_eq!(
                cursor.record().map(|(key, _)| key.to_vec()),
                Some(key(n.next_multiple_of(2)))
            );
        }
        run.retire();
        drop(cursor);
        let name = run.name.clone();
        drop(run);
        assert_eq!(files.len(&name).unwrap(), None);
    }
}
