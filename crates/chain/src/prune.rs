//! Pruning: whole block and undo files are deleted once nothing in them is needed any more.
//!
//! A file goes when all its blocks lie deeper than [`KEEP`] below the tip and below every height that somebody still
//! needs ([`View::hold_blocks`](crate::View::hold_blocks)). The order on disk: everything is flushed, so that the coins
//! are those of the tip; then one durable batch says which blocks are gone and which files are to be deleted; then the
//! files are deleted. Opening deletes what a stop in between has left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_store::{Batch, StoreError, Table};

use crate::engine::Chain;
use crate::files::Writer;
use crate::index;
use crate::invalidate::OperateError;
use crate::tree::NodeId;

/// Blocks below the tip that are never pruned, so that a reorganisation finds them; Core's `MIN_BLOCKS_TO_KEEP`.
pub const KEEP: u32 = 288;

/// Blocks that are kept below a height that somebody needs, for reorganisations; Core's `PRUNE_LOCK_BUFFER`.
const HOLD_BUFFER: u32 = 10;

/// Room for undo records that are written until the next look, in bytes.
const UNDO_ROOM: u64 = 1 << 20;

/// What a block still to come is taken for while far behind, in bytes: then pruning makes room for many at once.
const AVERAGE_BLOCK: u64 = 1_000_000;

/// Whether old blocks are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prune {
    /// All blocks are kept.
    #[default]
    Off,
    /// Only when the operator asks ([`Chain::prune_to`]).
    Manual,
    /// So that block and undo files take about this many bytes.
    Target(u64),
}

/// One pair of files.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// The greatest height of a block in it.
    highest: u32,
    /// Its size on disk.
    bytes: u64,
}

impl Chain {
    /// Deletes the files whose blocks all lie at or below `height`, as far as that is allowed.
    ///
    /// # Errors
    /// [`OperateError::NotPruning`] unless the chain is run with pruning.
    pub fn prune_to(&mut self, height: u32) -> Result<(), OperateError> {
        if self.config.prune == Prune::Off {
            return Err(OperateError::NotPruning);
        }
        let last = self.last_prunable().min(height);
        let pairs = self.pairs();
        let files = pairs.iter().filter(|(_, pair)| pair.highest <= last);
        Ok(self.delete_files(files.map(|(file, _)| *file).collect())?)
    }

    /// Deletes the oldest files when block files have grown beyond the target.
    pub(crate) fn prune_when_due(&mut self) -> Result<(), StoreError> {
        let Prune::Target(target) = self.config.prune else {
            return Ok(());
        };
        let (tip, best) = {
            let tree = self.shared.tree();
            (tree.node(tree.tip()).height, tree.node(tree.best_header()).height)
        };
        if tip <= self.params().prune_after_height || !self.writer.take_growth() {
            return Ok(());
        }
        let mut room = self.writer.chunk() + UNDO_ROOM;
        let mut usage = self.writer.bytes();
        if usage.saturating_add(room) < target {
            return Ok(());
        }
        if best.saturating_sub(tip) > KEEP {
            // Each time the coins are flushed, which costs a first sync dearly: so make room for long.
            room = room.saturating_add(AVERAGE_BLOCK.saturating_mul(u64::from(best - tip)));
        }
        let last = self.last_prunable();
        let mut files = BTreeSet::new();
        for (file, pair) in self.pairs() {
            if usage.saturating_add(room) < target {
                break;
            }
            if pair.highest <= last {
                files.insert(file);
                usage = usage.saturating_sub(pair.bytes);
            }
        }
        self.delete_files(files)
    }

    /// The greatest height that may be pruned now; 0 when none.
    fn last_prunable(&self) -> u32 {
        let tree = self.shared.tree();
        let tip = tree.node(tree.tip()).height;
        drop(tree);
        if self.shared.unproven().is_some() {
            // The blocks on which the snapshot's validation works come in behind the tip.
            return 0;
        }
        let held = self.shared.lowest_held();
        let held = held.map_or(u32::MAX, |height| height.saturating_sub(HOLD_BUFFER + 1));
        tip.saturating_sub(KEEP).min(held)
    }

    /// All pairs of files but the one that is being written, with what lies in them.
    fn pairs(&self) -> BTreeMap<u32, Pair> {
        let tree = self.shared.tree();
        let mut pairs: BTreeMap<u32, Pair> = BTreeMap::new();
        for id in tree.ids() {
            let node = tree.node(id);
            for at in [&node.block, &node.undo].into_iter().flatten() {
                let pair = pairs.entry(at.file).or_default();
                pair.highest = pair.highest.max(node.height);
            }
        }
        drop(tree);
        let current = self.writer.current();
        pairs.retain(|file, pair| {
            pair.bytes = self.writer.bytes_of(*file);
            *file < current
        });
        pairs
    }

    fn delete_files(&mut self, files: BTreeSet<u32>) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        self.flush()?;
        let gone = |at: &Option<crate::files::Location>| at.is_some_and(|at| files.contains(&at.file));
        let blocks: Vec<NodeId> = {
            let tree = self.shared.tree();
            tree.ids().filter(|id| gone(&tree.node(*id).block)).collect()
        };
        for id in blocks {
            self.forget(id);
            self.shared.tree_mut().prune_block(id);
        }
        {
            let shared = Arc::clone(&self.shared);
            let mut tree = shared.tree_mut();
            for id in tree.ids() {
                if gone(&tree.node(id).undo) {
                    tree.node_mut(id).undo = None;
                    self.dirty.insert(id);
                }
            }
        }
        let all = doomed(&*self.shared.table)?.union(&files).copied().collect();
        let mut batch = Batch::default();
        batch.put(index::META, DOOMED_KEY, encode(&all));
        self.put_dirty(&mut batch);
        self.shared.table.write(batch, true)?;
        self.dirty.clear();
        tracing::info!(files = files.len(), "pruning block files");
        files.into_iter().try_for_each(|file| self.writer.delete(file))
    }
}

/// Key of the list of deleted files, in the table's facts. It only grows: whether a deletion has reached the disk is not
/// known, so each start deletes again what a power loss may have brought back. Numbers are never used twice.
pub(crate) const DOOMED_KEY: &[u8] = b"doomed";

fn encode(files: &BTreeSet<u32>) -> Vec<u8> {
    files.iter().flat_map(|file| file.to_be_bytes()).collect()
}

fn doomed(table: &dyn Table) -> Result<BTreeSet<u32>, StoreError> {
    let bytes = table.get(index::META, DOOMED_KEY)?.unwrap_or_default();
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|number| u32::from_be_bytes(*number)).collect())
}

/// Deletes what earlier runs have pruned and is still there.
pub(crate) fn finish(writer: &mut Writer, table: &dyn Table) -> Result<(), StoreError> {
    doomed(table)?.into_iter().try_for_each(|file| writer.delete(file))
}
