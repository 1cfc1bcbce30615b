//! Bringing the indexes to the tip of the chain and keeping them there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_store::{StoreError, Table};

use super::frame::{Back, DEPTH, Frame, Joined, Point};
use super::{FilterIndex, IndexKind, ScriptIndex, SpenderIndex, StatsIndex, TxIndex};
use crate::{BlockUndo, Entry, ParsedBlock, View};

/// Changes that one batch gathers while an index is far behind.
const BATCH_BYTES: usize = 16 << 20;
/// Blocks that one batch gathers.
const BATCH_BLOCKS: usize = 2000;
/// After how long the indexer looks again for blocks that were missing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often the log tells how far the indexes have come.
const TELL: Duration = Duration::from_secs(10);

/// How far an index has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexProgress {
    /// Which index.
    pub kind: IndexKind,
    /// The height of the last block in it; `None` before the genesis block.
    pub height: Option<u32>,
    /// It has reached the tip since it was opened; since then it follows it.
    pub synced: bool,
    /// Why it does not go on, and what to do about it.
    pub trouble: Option<String>,
}

struct Row {
    kind: IndexKind,
    at: Option<Point>,
    synced: bool,
    trouble: Option<String>,
}

/// What the indexer tells its readers.
#[derive(Default)]
struct Board {
    rows: Mutex<Vec<Row>>,
    changed: Condvar,
    stopping: AtomicBool,
}

impl Board {
    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        // Rows are changed field by field; each state of theirs can be shown.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A cheap handle to read the indexes with; the default has none.
#[derive(Clone, Default)]
pub struct Indexes {
    tx: Option<TxIndex>,
    script: Option<ScriptIndex>,
    spender: Option<SpenderIndex>,
    filter: Option<FilterIndex>,
    stats: Option<StatsIndex>,
    board: Arc<Board>,
}

impl std::fmt::Debug for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.progress()).finish()
    }
}

impl Indexes {
    /// The index of transactions, if it is on.
    pub fn tx(&self) -> Option<&TxIndex> {
        self.tx.as_ref()
    }

    /// The index of script hashes, if it is on.
    pub fn script(&self) -> Option<&ScriptIndex> {
        self.script.as_ref()
    }

    /// The index of spenders, if it is on.
    pub fn spender(&self) -> Option<&SpenderIndex> {
        self.spender.as_ref()
    }

    /// The index of filters, if it is on.
    pub fn filter(&self) -> Option<&FilterIndex> {
        self.filter.as_ref()
    }

    /// The index of coin statistics, if it is on.
    pub fn stats(&self) -> Option<&StatsIndex> {
        self.stats.as_ref()
    }

    /// How far each index has come, in the order of [`IndexKind::ALL`].
    pub fn progress(&self) -> Vec<IndexProgress> {
        let row = |row: &Row| IndexProgress {
            kind: row.kind,
            height: row.at.map(|at| at.height),
            synced: row.synced,
            trouble: row.trouble.clone(),
        };
        self.board.rows().iter().map(row).collect()
    }

    /// How far one index has come; `None` when it is off.
    pub fn progress_of(&self, kind: IndexKind) -> Option<IndexProgress> {
        self.progress().into_iter().find(|row| row.kind == kind)
    }

    /// The lowest height whose block and undo record some index still has to read: blocks from there on must not be
    /// pruned, and the indexer holds them. An index that has met a block which is gone already holds nothing back.
    pub fn lowest_needed(&self) -> Option<u32> {
        let rows = self.board.rows();
        let waiting = rows.iter().filter(|row| row.trouble.is_none());
        waiting
            .map(|row| row.at.map_or(0, |at| at.height.saturating_add(1)))
            .min()
    }

    /// Waits until an index that had reached the tip once has taken the chain as it is now. Says at once no for one
    /// that has not, and no when it takes longer than `patience`.
    pub fn wait_synced(&self, view: &View, kind: IndexKind, patience: Duration) -> bool {
        let tip = view.tip();
        let behind = |row: &Row| match row.at {
            Some(at) => at.height < tip.height || view.ancestor(&at.hash, tip.height) != Some(tip.hash),
            None => true,
        };
        let find = |rows: &[Row]| rows.iter().position(|row| row.kind == kind && row.synced);
        let rows = self.board.rows();
        let Some(index) = find(&rows) else { return false };
        let waiting = |rows: &mut Vec<Row>| {
            // When the chain has moved on to another branch, the tip asked for never comes.
            !self.board.stopping() && view.contains_in_active(&tip.hash) && behind(&rows[index])
        };
        let (mut rows, _) = self
            .board
            .changed
            .wait_timeout_while(rows, patience, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !waiting(&mut rows) && !self.board.stopping()
    }

    /// Makes [`Indexer::run`] return soon.
    pub fn stop(&self, view: &View) {
        self.board.stopping.store(true, Ordering::Relaxed);
        view.shared.ring();
        self.board.changed.notify_all();
    }
}

/// An index with what keeps it from going on.
struct Slot {
    kind: IndexKind,
    frame: Frame,
    /// The disk failed: nothing more is done.
    failed: bool,
    /// It stands beside the chain and waits for it.
    aside: bool,
    trouble: Option<String>,
}

/// The one writer of the indexes.
pub struct Indexer {
    view: View,
    slots: Vec<Slot>,
    indexes: Indexes,
}

impl Indexer {
    /// Opens indexes in their tables.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or what a table holds is damaged.
    pub fn open(view: View, tables: Vec<(IndexKind, Arc<dyn Table>)>) -> Result<Self, StoreError> {
        let mut indexes = Indexes::default();
        let mut slots = Vec::new();
        for kind in IndexKind::ALL {
            let Some((_, table)) = tables.iter().find(|(named, _)| *named == kind) else {
                continue;
            };
            let content = kind.content(view.params());
            let frame = Frame::open(Arc::clone(table), kind.space_count(), content)?;
            let table = Arc::clone(table);
            match kind {
                IndexKind::Tx => indexes.tx = Some(TxIndex { table }),
                IndexKind::Script => indexes.script = Some(ScriptIndex { table }),
                IndexKind::Spender => indexes.spender = Some(SpenderIndex { table }),
                IndexKind::Filter => indexes.filter = Some(FilterIndex { table }),
                IndexKind::Stats => indexes.stats = Some(StatsIndex { table }),
            }
            indexes.board.rows().push(Row {
                kind,
                at: frame.head(),
                synced: false,
                trouble: None,
            });
            slots.push(Slot {
                kind,
                frame,
                failed: false,
                aside: false,
                trouble: None,
            });
        }
        let indexer = Self { view, slots, indexes };
        indexer.publish();
        Ok(indexer)
    }

    /// The handle to read with.
    pub fn indexes(&self) -> Indexes {
        self.indexes.clone()
    }

    /// Follows the chain until [`Indexes::stop`].
    pub fn run(mut self) {
        let mut told = Instant::now();
        while !self.indexes.board.stopping() {
            let seen = self.view.generation();
            if self.round() {
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    self.tell();
                }
                continue;
            }
            let board = &self.indexes.board;
            let idle = || self.view.generation() == seen && !board.stopping();
            self.view.shared.wait_while(LOOK_AGAIN, idle);
        }
    }

    /// Brings the indexes as far as stored blocks go. Nothing else happens on the way, so this is for the simulator
    /// and for tests.
    pub fn catch_up(&mut self) {
        while self.round() {}
    }

    fn tell(&self) {
        let tip = self.view.tip().height;
        for slot in self.slots.iter().filter(|slot| slot.trouble.is_none()) {
            let height = slot.frame.head().map_or(0, |at| at.height);
            if height < tip {
                tracing::info!("index {}: height {height} of {tip}", slot.kind);
            }
        }
    }

    /// Takes every index some blocks further; says whether any moved. Those nearest to the tip come first, so an index
    /// that is being built does not keep the others from following.
    fn round(&mut self) -> bool {
        let before: Vec<_> = self.slots.iter().map(|slot| slot.frame.head()).collect();
        let mut groups: BTreeMap<Option<Point>, Vec<usize>> = BTreeMap::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.find_the_chain(&self.view);
            if !slot.failed && !slot.aside {
                groups.entry(slot.frame.head()).or_default().push(index);
            }
        }
        for members in groups.values().rev() {
            self.advance(members);
        }
        self.publish();
        self.slots.iter().map(|slot| slot.frame.head()).ne(before)
    }

    /// Takes indexes that stand at the same block some blocks further.
    fn advance(&mut self, members: &[usize]) {
        let Some(mut head) = members.first().map(|index| self.slots[*index].frame.head()) else {
            return;
        };
        let mut undoable = true;
        for _ in 0..BATCH_BLOCKS {
            if self.indexes.board.stopping() {
                break;
            }
            let height = head.map_or(0, |head| head.height.saturating_add(1));
            let Some(entry) = self.view.entry_at(height) else { break };
            if head.is_some_and(|head| head.hash != entry.header.prev_blockhash) {
                break;
            }
            let (block, undo) = match read(&self.view, &entry) {
                Ok(found) => found,
                Err(missing) => {
                    for index in members {
                        self.slots[*index].hold(&missing);
                    }
                    break;
                }
            };
            let best = self.view.best_header().height;
            let near = height.saturating_add(DEPTH) >= best;
            let joined = Joined {
                block: &block,
                height,
                undo: &undo,
            };
            let mut full = false;
            for index in members {
                let slot = &mut self.slots[*index];
                slot.trouble = None;
                // A block that can be stepped back from makes a batch of its own.
                let kept = if near && !undoable {
                    slot.frame.write(false)
                } else {
                    Ok(())
                };
                let taken = kept.and_then(|()| slot.frame.join(&joined));
                let written = taken.and_then(|()| if near { slot.frame.write(true) } else { Ok(()) });
                if let Err(error) = written {
                    slot.fail(&error);
                }
                full |= slot.frame.pending_bytes() >= BATCH_BYTES;
            }
            undoable = near;
            head = Some(joined.point());
            if near {
                self.publish();
            }
            if full || members.iter().any(|index| self.slots[*index].failed) {
                break;
            }
        }
        for index in members {
            let slot = &mut self.slots[*index];
            if !slot.failed
                && let Err(error) = slot.frame.write(false)
            {
                slot.fail(&error);
            }
        }
    }

    fn publish(&self) {
        let tip = self.view.tip().hash;
        let mut rows = self.indexes.board.rows();
        for (row, slot) in rows.iter_mut().zip(&self.slots) {
            row.at = slot.frame.head();
            if !row.synced && row.at.is_some_and(|at| at.hash == tip) {
                row.synced = true;
                tracing::info!("index {} has reached the tip", slot.kind);
            }
            row.trouble.clone_from(&slot.trouble);
        }
        drop(rows);
        self.view.hold_blocks("indexes", self.indexes.lowest_needed());
        self.indexes.board.changed.notify_all();
    }
}

impl Slot {
    fn hold(&mut self, why: &str) {
        if self.trouble.as_deref() != Some(why) {
            tracing::warn!("index {} waits: {why}", self.kind);
            self.trouble = Some(why.to_owned());
        }
    }

    fn fail(&mut self, error: &StoreError) {
        self.failed = true;
        let what = format!("{error}; delete the folder indexes/{} to build it again", self.kind);
        tracing::error!("index {} has stopped: {what}", self.kind);
        self.trouble = Some(what);
    }

    /// Steps back until the last block is one of the chain.
    fn find_the_chain(&mut self, view: &View) {
        if std::mem::take(&mut self.aside) {
            self.trouble = None;
        }
        while !self.failed
            && let Some(head) = self.frame.head()
            && !view.contains_in_active(&head.hash)
        {
            let result = match self.frame.step_back() {
                Ok(Back::Stepped) => continue,
                // After a power loss the chain may have lost more than the index; it comes to that block again.
                Ok(Back::NoRecord) if view.tip().height < head.height => {
                    self.aside = true;
                    self.hold(&format!(
                        "the chain has yet to come to block {} at height {} again",
                        head.hash, head.height
                    ));
                    return;
                }
                Ok(Back::NoRecord) => {
                    tracing::warn!(
                        "index {}: the chain has changed too deep below height {}; it begins anew",
                        self.kind,
                        head.height
                    );
                    self.frame.empty()
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.fail(&error);
            }
        }
    }
}

/// A block of the chain and what it spent, or why they are not there.
fn read(view: &View, entry: &Entry) -> Result<(Arc<ParsedBlock>, BlockUndo), String> {
    let missing = |what: &str| {
        format!(
            "{what} of block {} at height {} is not stored; on a pruned node, and after a SwiftSync, an index must have \
             been on from the first block, so sync anew to build it",
            entry.hash, entry.height
        )
    };
    let raw = view.block_bytes(&entry.hash).map_err(|error| error.to_string())?;
    let raw = raw.ok_or_else(|| missing("the data"))?;
    let block = ParsedBlock::parse(raw).map_err(|error| error.to_string())?;
    if entry.height == 0 {
        return Ok((block, BlockUndo::default()));
    }
    let undo = view.undo(&entry.hash).map_err(|error| error.to_string())?;
    let undo = undo.ok_or_else(|| missing("the undo record"))?;
    if undo.spent.len() + 1 != block.txids.len() {
        return Err(missing("the right undo record"));
    }
    Ok((block, undo))
}
