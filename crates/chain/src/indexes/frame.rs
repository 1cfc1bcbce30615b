//! What all indexes share: a table of their own with a watermark, written in one batch with what it speaks of.
//!
//! While an index is far behind, many blocks make one batch. Near the best header every block makes a batch of its
//! own, with a record of what its keys held before: so an index steps back by itself, without the block, even when a
//! power loss took that block from the chain but not from the index. No batch is synced; batches become durable in
//! their order, so after a power loss an index stands at an earlier watermark that was true.
//!
//! Key spaces: 0 holds the facts below, 1 the records to step back with (height, four bytes big-endian), and the
//! index's own follow.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dunlin_store::{Batch, Space, Step, StoreError, Table};

use super::changes::{self, Changes};
use crate::{BlockUndo, ParsedBlock};

/// Facts about the index.
pub(crate) const META: Space = Space(0);
/// Records to step back with.
const BACK: Space = Space(1);

/// Key of the layout's number in [`META`].
const LAYOUT_KEY: &[u8] = b"layout";
/// The layout that this version writes.
const LAYOUT: u32 = 1;
/// Key of the watermark in [`META`].
const AT_KEY: &[u8] = b"at";
/// Key in [`META`] that is there while an index is being emptied.
const EMPTYING_KEY: &[u8] = b"emptying";

/// Blocks that an index can step back; a pruned node keeps as many.
pub(crate) const DEPTH: u32 = 288;

/// Keys removed in one batch while an index is emptied.
const EMPTY_STEP: usize = 50_000;

/// A block of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) height: u32,
    pub(crate) hash: BlockHash,
}

impl Point {
    pub(crate) fn encode(&self) -> [u8; 36] {
        place_key(self.height, &self.hash)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (height, hash) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            height: u32::from_be_bytes(*height),
            hash: BlockHash::from_slice(hash).ok()?,
        })
    }
}

/// Height, four bytes big-endian, then hash: the key of what is kept for a block whether or not it is in the chain.
pub(crate) fn place_key(height: u32, hash: &BlockHash) -> [u8; 36] {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&height.to_be_bytes());
    key[4..].copy_from_slice(hash.as_ref());
    key
}

/// A block that joins the chain, with the coins that it spends.
pub(crate) struct Joined<'a> {
    pub(crate) block: &'a ParsedBlock,
    pub(crate) height: u32,
    pub(crate) undo: &'a BlockUndo,
}

impl Joined<'_> {
    pub(crate) fn point(&self) -> Point {
        Point {
            height: self.height,
            hash: self.block.hash,
        }
    }
}

/// What an index makes of a block.
pub(crate) trait Content: Send {
    /// Reads what it keeps in memory; called before the first block and whenever the table was changed otherwise.
    fn load(&mut self, table: &dyn Table, at: Option<Point>) -> Result<(), StoreError>;

    /// A block joins the chain on top of the one before it.
    fn join(&mut self, joined: &Joined<'_>, changes: &mut Changes) -> Result<(), StoreError>;

    /// The changes are about to be written: adds what describes the state after the last block.
    fn seal(&mut self, _changes: &mut Changes) {}
}

/// An index and its table.
pub(crate) struct Frame {
    table: Arc<dyn Table>,
    spaces: u8,
    content: Box<dyn Content>,
    /// Up to where the table is.
    at: Option<Point>,
    /// The last block in `changes`, or `at`.
    head: Option<Point>,
    changes: Changes,
    /// The lowest height that may have a record to step back with.
    oldest_back: u32,
}

/// How an index got back into the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// One block back.
    Stepped,
    /// There is no record of how.
    NoRecord,
}

impl Frame {
    /// Opens an index in its table, which has `spaces` key spaces.
    pub(crate) fn open(table: Arc<dyn Table>, spaces: u8, content: Box<dyn Content>) -> Result<Self, StoreError> {
        let mut frame = Self {
            table,
            spaces,
            content,
            at: None,
            head: None,
            changes: Changes::default(),
            oldest_back: u32::MAX,
        };
        let layout = frame.table.get(META, LAYOUT_KEY)?;
        let known = layout.as_deref() == Some(&LAYOUT.to_be_bytes());
        let emptying = frame.table.get(META, EMPTYING_KEY)?.is_some();
        if emptying || (layout.is_some() && !known) {
            frame.empty()?;
        }
        if let Some(bytes) = frame.table.get(META, AT_KEY)? {
            let at = Point::decode(&bytes).ok_or_else(|| StoreError::corrupt("an index's watermark"))?;
            frame.at = Some(at);
        }
        frame.table.scan(BACK, b"", &mut |key, _| {
            frame.oldest_back = key.try_into().map_or(u32::MAX, u32::from_be_bytes);
            Step::Stop
        })?;
        frame.head = frame.at;
        frame.content.load(&*frame.table, frame.at)?;
        Ok(frame)
    }

    /// The last block that was taken, written or not.
    pub(crate) fn head(&self) -> Option<Point> {
        self.head
    }

    /// Memory held by blocks that were taken and not written.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.changes.bytes()
    }

    /// Takes a block that follows the last one taken.
    pub(crate) fn join(&mut self, joined: &Joined<'_>) -> Result<(), StoreError> {
        if let Err(error) = self.content.join(joined, &mut self.changes) {
            self.forget_pending()?;
            return Err(error);
        }
        self.head = Some(joined.point());
        Ok(())
    }

    /// Drops what was taken and not written.
    fn forget_pending(&mut self) -> Result<(), StoreError> {
        self.changes = Changes::default();
        self.head = self.at;
        self.content.load(&*self.table, self.at)
    }

    /// Writes what was taken. `undoable` is for a single block: it can be stepped back from afterwards.
    pub(crate) fn write(&mut self, undoable: bool) -> Result<(), StoreError> {
        let Some(head) = self.head.filter(|head| self.at != Some(*head)) else {
            return Ok(());
        };
        self.content.seal(&mut self.changes);
        let mut batch = Batch::default();
        let changes = std::mem::take(&mut self.changes);
        let record = changes.write_to(&mut batch, undoable.then_some(&*self.table))?;
        if let Some(mut record) = record {
            let parent = self.at.map_or(BlockHash::all_zeros(), |at| at.hash);
            record.splice(0..0, parent.to_byte_array());
            batch.put(BACK, head.height.to_be_bytes(), record);
            self.oldest_back = self.oldest_back.min(head.height);
        }
        while self.oldest_back < head.height.saturating_sub(DEPTH) {
            batch.delete(BACK, self.oldest_back.to_be_bytes());
            self.oldest_back += 1;
        }
        batch.put(META, LAYOUT_KEY, LAYOUT.to_be_bytes());
        batch.put(META, AT_KEY, head.encode());
        self.table.write(batch, false)?;
        self.at = Some(head);
        Ok(())
    }

    /// Takes the last block off again. Nothing that was taken may be unwritten.
    pub(crate) fn step_back(&mut self) -> Result<Back, StoreError> {
        let Some(at) = self.at else {
            return Ok(Back::NoRecord);
        };
        let Some(record) = self.table.get(BACK, &at.height.to_be_bytes())? else {
            return Ok(Back::NoRecord);
        };
        let damaged = || StoreError::corrupt(format!("an index's record of block {}", at.hash));
        let (parent, record) = record.split_first_chunk::<32>().ok_or_else(damaged)?;
        let parent = at.height.checked_sub(1).map(|height| Point {
            height,
            hash: BlockHash::from_byte_array(*parent),
        });
        let mut batch = Batch::default();
        changes::undo(record, &mut batch).ok_or_else(damaged)?;
        batch.delete(BACK, at.height.to_be_bytes());
        match parent {
            Some(parent) => batch.put(META, AT_KEY, parent.encode()),
            None => batch.delete(META, AT_KEY),
        }
        self.table.write(batch, false)?;
        self.at = parent;
        self.forget_pending()?;
        Ok(Back::Stepped)
    }

    /// Removes everything, so that the index begins anew. A stop half way is noticed when it is opened.
    pub(crate) fn empty(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(META, EMPTYING_KEY, []);
        batch.delete(META, AT_KEY);
        self.table.write(batch, true)?;
        for space in (1..self.spaces).chain([META.0]).map(Space) {
            loop {
                let mut batch = Batch::default();
                self.table.scan(space, b"", &mut |key, _| {
                    if space != META || key != EMPTYING_KEY {
                        batch.delete(space, key);
                    }
                    if batch.len() < EMPTY_STEP {
                        Step::Continue
                    } else {
                        Step::Stop
                    }
                })?;
                if batch.is_empty() {
                    break;
                }
                self.table.write(batch, true)?;
            }
        }
        let mut batch = Batch::default();
        batch.delete(META, EMPTYING_KEY);
        self.table.write(batch, true)?;
        self.at = None;
        self.oldest_back = u32::MAX;
        self.forget_pending()
    }
}
