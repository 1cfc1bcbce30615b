//! Following the chain with the most work: which stored blocks are complete chains, and moving the tip to the best.
//!
//! A block is *linked* when it and all its ancestors were stored. Linked chains with at least the tip's work are the
//! candidates. The tip moves to the best in steps, and each step is published only when it leads to more work than
//! before: so a branch that turns out invalid half way leaves no trace, and the chain never gets shorter in work.

use std::cmp::Reverse;
use std::sync::Arc;

use bitcoin::{BlockHash, Work};
use dunlin_store::StoreError;

use crate::checks::Checking;
use crate::connect::{self, ConnectError, Place};
use crate::engine::{Candidate, Chain, MAX_CHANGE_BYTES};
use crate::files::Kind;
use crate::overlay::Overlay;
use crate::rules::bip30;
use crate::tree::{NodeId, Tree};
use crate::undo::SpentRecord;
use crate::{BlockOutcome, ChainChange, ParsedBlock, Reject, script};

/// Scripts are only taken as checked in blocks buried this deep, in seconds of work at the best header's difficulty.
const ASSUME_VALID_DEPTH: u128 = 14 * 24 * 60 * 60;

/// A step goes on with further blocks until they and what they spend have this many bytes.
const RUN_BYTES: usize = 4 << 20;

/// A block that keeps every rule, its scripts perhaps excepted.
pub(crate) struct Unchecked {
    id: NodeId,
    block: Arc<ParsedBlock>,
    /// What it spends.
    pub(crate) spent: Arc<SpentRecord>,
    /// Its scripts, unless they are known to be good.
    checking: Option<Checking>,
}

/// What one step towards a candidate came to.
enum Step {
    /// The tip has moved.
    Moved,
    /// Nothing has happened; a block on the way must be looked at more closely.
    Again,
    /// A block on the way is invalid; the candidates have been thinned.
    Invalid(BlockHash, Reject),
    /// A block on the way is damaged on disk; it counts as missing now.
    Lost,
    /// A block that has to be taken off is damaged on disk and must be fetched first.
    Stuck,
    /// What would have to be taken off was pruned.
    TooDeep,
}

pub(crate) fn candidate(tree: &Tree, id: NodeId) -> Candidate {
    let node = tree.node(id);
    (node.work, Reverse(node.sequence), id)
}

impl Chain {
    /// Sorts the blocks of a tree that was just loaded into linked and waiting ones.
    pub(crate) fn link_loaded(&mut self) {
        let shared = Arc::clone(&self.shared);
        // Blocks that the background validation has not reached are not lost: they were never there.
        let history = shared.unproven().map_or(0..0, |unproven| {
            let tree = shared.tree();
            let reached = tree.node(tree.common(unproven.reached, unproven.base)).height;
            reached.saturating_add(1)..tree.node(unproven.base).height.saturating_add(1)
        });
        let mut tree = shared.tree_mut();
        self.next_sequence = tree
            .ids()
            .map(|id| tree.node(id).sequence)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        for id in tree.ids() {
            let parent = tree.parent(id);
            let linked = (tree.node(id).block.is_some() || tree.is_active(id))
                && parent.is_none_or(|parent| tree.node(parent).sequence != 0);
            let sequence = tree.node(id).sequence;
            if linked && sequence == 0 {
                tree.node_mut(id).sequence = self.next_sequence;
                self.next_sequence += 1;
                self.dirty.insert(id);
            } else if !linked {
                if sequence != 0 {
                    tree.node_mut(id).sequence = 0;
                    self.dirty.insert(id);
                }
                if let (true, Some(parent)) = (tree.node(id).block.is_some(), parent) {
                    self.waiting.entry(parent).or_default().push(id);
                }
            }
            let (height, stored) = (tree.node(id).height, tree.node(id).block.is_some());
            if tree.is_active(id) && !stored && !tree.node(id).pruned && !history.contains(&height) {
                tree.lose_block(id);
            }
        }
        drop(tree);
        self.gather_candidates();
    }

    /// Looks through all nodes for chains to follow.
    pub(crate) fn gather_candidates(&mut self) {
        let tree = self.shared.tree();
        let floor = tree.node(tree.tip()).work;
        for id in tree.ids() {
            let node = tree.node(id);
            if node.sequence != 0 && !node.invalid && node.work >= floor {
                self.candidates.insert(candidate(&tree, id));
            }
        }
    }

    /// Sorts all blocks anew, after the tip has changed place.
    pub(crate) fn link_again(&mut self) {
        self.candidates.clear();
        self.waiting.clear();
        self.link_loaded();
    }

    /// A block was stored: links it and all that waited for it, or lets it wait.
    pub(crate) fn link(&mut self, id: NodeId) {
        let shared = Arc::clone(&self.shared);
        let mut tree = shared.tree_mut();
        if tree.node(id).sequence != 0 {
            return;
        }
        let Some(parent) = tree.parent(id) else { return };
        if tree.node(parent).sequence == 0 {
            let children = self.waiting.entry(parent).or_default();
            if !children.contains(&id) {
                children.push(id);
            }
            return;
        }
        let floor = tree.node(tree.tip()).work;
        let mut queue = std::collections::VecDeque::from([id]);
        while let Some(id) = queue.pop_front() {
            tree.node_mut(id).sequence = self.next_sequence;
            self.next_sequence += 1;
            self.dirty.insert(id);
            if !tree.node(id).invalid && tree.node(id).work >= floor {
                self.candidates.insert(candidate(&tree, id));
            }
            queue.extend(self.waiting.remove(&id).unwrap_or_default());
        }
    }

    /// A block's bytes are damaged: it counts as missing, and what is built on it waits again. Blocks of the validated
    /// chain stay in it; they are only served again once they have come again.
    pub(crate) fn lose(&mut self, id: NodeId) {
        {
            let tree = self.shared.tree();
            let node = tree.node(id);
            if node.block.is_none() {
                return;
            }
            tracing::warn!(block = %node.hash, height = node.height, "a stored block is damaged and will be fetched again");
        }
        self.forget(id);
    }

    /// A block is not stored any more: what is built on it waits again.
    pub(crate) fn forget(&mut self, id: NodeId) {
        let shared = Arc::clone(&self.shared);
        let mut tree = shared.tree_mut();
        self.recent.remove(id);
        tree.lose_block(id);
        self.dirty.insert(id);
        if tree.is_active(id) {
            return;
        }
        for at in id..tree.len() as NodeId {
            if tree.node(at).sequence == 0 || tree.is_active(at) || !tree.is_ancestor(id, at) {
                continue;
            }
            self.candidates.remove(&candidate(&tree, at));
            tree.node_mut(at).sequence = 0;
            self.dirty.insert(at);
            if let (true, Some(parent)) = (tree.node(at).block.is_some(), tree.parent(at)) {
                self.waiting.entry(parent).or_default().push(at);
            }
        }
    }

    /// A block breaks a rule: nothing is built on it from here on.
    pub(crate) fn mark_invalid(&mut self, id: NodeId) {
        let shared = Arc::clone(&self.shared);
        let mut tree = shared.tree_mut();
        for marked in tree.mark_invalid(id) {
            self.candidates.remove(&candidate(&tree, marked));
            self.recent.remove(marked);
            self.dirty.insert(marked);
        }
    }

    /// Connects stored blocks until the tip has the most work or the outcome is large enough, and then goes on with the
    /// validation of a snapshot; see [`BlockOutcome::more`] and [`BlockOutcome::background`].
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails. What was connected before is delivered by the next call that succeeds.
    pub fn advance(&mut self) -> Result<BlockOutcome, StoreError> {
        let mut outcome = self.connect_stored()?;
        if !outcome.more {
            let result = self.advance_background(&mut outcome).and_then(|()| self.write_index());
            if let Err(error) = result {
                self.undelivered = outcome.changes;
                return Err(error);
            }
        }
        Ok(outcome)
    }

    /// The part of [`Chain::advance`] that moves the tip.
    pub(crate) fn connect_stored(&mut self) -> Result<BlockOutcome, StoreError> {
        let mut outcome = BlockOutcome {
            changes: std::mem::take(&mut self.undelivered),
            ..BlockOutcome::default()
        };
        let result = self.follow(&mut outcome).and_then(|()| self.write_index());
        match result {
            Ok(()) => Ok(outcome),
            Err(error) => {
                self.undelivered = outcome.changes;
                Err(error)
            }
        }
    }

    pub(crate) fn follow(&mut self, outcome: &mut BlockOutcome) -> Result<(), StoreError> {
        if self.is_reindexing() || self.sync_swiftly(outcome)? {
            return Ok(());
        }
        if self.shared.coins().take_damage_met() {
            self.search_coins()?;
        }
        let mut bytes = 0;
        loop {
            let (tip, invalid) = {
                let tree = self.shared.tree();
                (tree.tip(), tree.node(tree.tip()).invalid)
            };
            if bytes > MAX_CHANGE_BYTES {
                outcome.more = true;
                return Ok(());
            }
            if self.search_on(&mut bytes, outcome)? {
                return Ok(());
            }
            if invalid {
                let result = self.retreat(&mut outcome.changes, &mut bytes);
                match self.mended(result)? {
                    Some(false) => return Ok(()),
                    Some(true) | None => continue,
                }
            }
            let Some(&(_, _, target)) = self.candidates.last() else {
                return Ok(());
            };
            if target == tip {
                return Ok(());
            }
            let result = self.step(target, &mut outcome.changes, &mut bytes);
            let Some(step) = self.mended(result)? else { continue };
            match step {
                Step::Moved => {
                    self.flush_when_full()?;
                    self.prune_when_due()?;
                }
                Step::Again => {}
                Step::Invalid(hash, reject) => {
                    tracing::warn!(block = %hash, %reject, "a stored block is invalid");
                    outcome.rejected.push((hash, reject));
                }
                // The way to this candidate is broken; it comes back when the block has come again, or another.
                Step::Lost | Step::TooDeep => self.candidates.retain(|(_, _, id)| *id != target),
                Step::Stuck => return Ok(()),
            }
        }
    }

    /// Takes the tip one step towards `target`: at least as many blocks as give the new branch more work than the old
    /// one, and more while they are not large. Their scripts are checked meanwhile; none is published before all are.
    fn step(&mut self, target: NodeId, changes: &mut Vec<ChainChange>, bytes: &mut usize) -> Result<Step, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (old_tip, fork) = {
            let tree = shared.tree();
            (tree.tip(), tree.fork_point(target))
        };
        if let Some(unproven) = shared.unproven()
            && shared.tree().node(fork).height < shared.tree().node(unproven.base).height
        {
            tracing::warn!(
                "a branch with more work leaves the chain below the snapshot: its validation must end first"
            );
            return Ok(Step::Stuck);
        }
        if let Some(pruned) = self.pruned_above(fork) {
            let text = format!(
                "a chain with more work leaves ours below block {pruned}, which was pruned; \
                 --reindex fetches the whole chain again"
            );
            tracing::error!("{text}");
            shared.warn(text);
            return Ok(Step::TooDeep);
        }
        let coins = shared.coins();
        let mut overlay = Overlay::new(&coins);
        let mut made = Vec::new();
        let mut run: Vec<Unchecked> = Vec::new();

        let mut at = old_tip;
        while at != fork {
            let Some((block, height)) = self.disconnect(&mut overlay, at)? else {
                return Ok(Step::Stuck);
            };
            made.push(ChainChange::Disconnected(block, height));
            at = shared.tree().parent(at).unwrap_or(fork);
        }

        let old_work = shared.tree().node(old_tip).work;
        let mut run_bytes = 0;
        let mut broken = None;
        loop {
            let next = {
                let tree = shared.tree();
                tree.ancestor(target, tree.node(at).height.saturating_add(1))
            };
            let Some(block) = self.load(next)? else {
                return Ok(Step::Lost);
            };
            match self.connect(&mut overlay, next, &block) {
                Ok(unchecked) => {
                    run_bytes += block.raw.len() + unchecked.spent.bytes().len();
                    run.push(unchecked);
                }
                Err(ConnectError::Store(error)) => return Err(error),
                Err(ConnectError::Reject(reject)) => {
                    broken = Some((next, reject));
                    break;
                }
            };
            at = next;
            if at == target || (run_bytes >= RUN_BYTES && shared.tree().node(at).work > old_work) {
                break;
            }
        }
        let mut refused = broken.is_some();
        // The first block that breaks a rule decides. What came before it is connected again, without it.
        for (index, unchecked) in run.iter().enumerate() {
            if let Err(reject) = self.check_scripts(unchecked) {
                broken = Some((unchecked.id, reject));
                refused = false;
                run.truncate(index);
                break;
            }
        }
        if let Some((id, reject)) = broken {
            let hash = shared.tree().node(id).hash;
            self.checked = run.iter().map(|unchecked| unchecked.id).collect();
            if refused && bip30::is_ruled_out(self.params()) && self.doubted.replace(id) != Some(id) {
                // It may repeat a transaction, which is the fault to be named then.
                return Ok(Step::Again);
            }
            self.doubted = None;
            self.mark_invalid(id);
            return Ok(Step::Invalid(hash, reject));
        }

        for unchecked in &run {
            self.write_undo(unchecked.id, &unchecked.spent)?;
        }
        let connected: Vec<NodeId> = run.iter().map(|unchecked| unchecked.id).collect();
        shared.publish(overlay, at, &connected)?;
        self.checked.clear();
        for Unchecked { id, block, .. } in run {
            self.recent.remove(id);
            self.dirty.insert(id);
            let height = shared.tree().node(id).height;
            made.push(ChainChange::Connected(block, height));
        }
        let floor = shared.tree().node(at).work;
        while let Some((work, _, _)) = self.candidates.first()
            && *work < floor
        {
            self.candidates.pop_first();
        }
        for change in &made {
            let (ChainChange::Connected(block, _) | ChainChange::Disconnected(block, _)) = change;
            *bytes += block.raw.len();
        }
        changes.append(&mut made);
        Ok(Step::Moved)
    }

    /// Takes a block off in the overlay: the block and its height, or `None` when it has to be fetched again first, or
    /// what it spent.
    pub(crate) fn disconnect(
        &mut self,
        overlay: &mut Overlay<'_>,
        id: NodeId,
    ) -> Result<Option<(Arc<ParsedBlock>, u32)>, StoreError> {
        if self.shared.searches_undo_of(id) {
            return Ok(None);
        }
        let Some(block) = self.load(id)? else { return Ok(None) };
        let height = self.shared.tree().node(id).height;
        let undo = match self.view().undo(&block.hash) {
            Ok(Some(undo)) => undo,
            Ok(None) | Err(StoreError::Corrupt { .. }) => match self.rebuild_undo(id)? {
                Some(undo) => undo,
                None if self.shared.searches_undo_of(id) => return Ok(None),
                None => return Err(StoreError::corrupt(format!("the undo record of block {}", block.hash))),
            },
            Err(error) => return Err(error),
        };
        overlay.disconnect(&block, undo, height)?;
        Ok(Some((block, height)))
    }

    /// The parsed block; `None` when its record is damaged, which is noted.
    pub(crate) fn load(&mut self, id: NodeId) -> Result<Option<Arc<ParsedBlock>>, StoreError> {
        if let Some(block) = self.recent.get(id) {
            return Ok(Some(block));
        }
        let (hash, at) = {
            let tree = self.shared.tree();
            let node = tree.node(id);
            (node.hash, node.block)
        };
        let Some(at) = at else { return Ok(None) };
        match self.shared.reader.read(Kind::Block, &at) {
            Ok(raw) => match ParsedBlock::parse(raw.into()) {
                Ok(block) if block.hash == hash => return Ok(Some(block)),
                _ => tracing::warn!(block = %hash, "the record of a stored block holds something else"),
            },
            Err(StoreError::Corrupt { what }) => tracing::warn!(block = %hash, %what, "a stored block cannot be read"),
            Err(error) => return Err(error),
        }
        self.lose(id);
        Ok(None)
    }

    pub(crate) fn connect(
        &self,
        overlay: &mut Overlay<'_>,
        id: NodeId,
        block: &Arc<ParsedBlock>,
    ) -> Result<Unchecked, ConnectError> {
        let params = self.params();
        let (place_height, parent_median, bip34_ancestor, skip_scripts) = {
            let tree = self.shared.tree();
            let parent = tree.parent(id).unwrap_or(id);
            let bip34 = params.bip34_height;
            let ancestor = (tree.node(parent).height >= bip34).then(|| tree.node(tree.ancestor(parent, bip34)).hash);
            (
                tree.node(id).height,
                tree.node(parent).median_time_past,
                ancestor,
                self.checked.contains(&id) || self.scripts_assumed(&tree, id),
            )
        };
        let median_at = |height: u32| {
            let tree = self.shared.tree();
            tree.node(tree.ancestor(id, height)).median_time_past
        };
        let place = Place {
            height: place_height,
            parent_median,
            look_for_repeats: bip30::check_needed(params, place_height, &block.hash, bip34_ancestor)
                && (!bip30::is_ruled_out(params) || self.doubted == Some(id)),
            median_at: &median_at,
            flags: script::block_flags(params, place_height, &block.hash),
        };
        let spent = Arc::new(connect::connect(params, overlay, block, &place)?);
        let checking = (!skip_scripts).then(|| self.scripts.begin(Arc::clone(block), Arc::clone(&spent), place.flags));
        Ok(Unchecked {
            id,
            block: Arc::clone(block),
            spent,
            checking,
        })
    }

    /// Waits until the scripts of a block are checked, and helps.
    pub(crate) fn check_scripts(&self, unchecked: &Unchecked) -> Result<(), Reject> {
        let Some(checking) = &unchecked.checking else {
            return Ok(());
        };
        self.scripts.finish(checking)
    }

    /// Whether the scripts of a block need no check: it is an ancestor of the assumed valid block and of the best
    /// header, that header has the network's minimum work, and the block is buried two weeks deep below it.
    pub(crate) fn scripts_assumed(&self, tree: &Tree, id: NodeId) -> bool {
        let Some(assumed) = self.assume_valid.and_then(|hash| tree.find(&hash)) else {
            return false;
        };
        let best = tree.best_header();
        let top = tree.node(best);
        if !tree.is_ancestor(id, assumed) || !tree.is_ancestor(id, best) || top.work < self.params().minimum_chain_work
        {
            return false;
        }
        let parent_work = tree
            .parent(best)
            .map_or(Work::from_be_bytes([0; 32]), |parent| tree.node(parent).work);
        let (Some(burying), Some(last)) = (
            low_bits(top.work - tree.node(id).work),
            low_bits(top.work - parent_work),
        ) else {
            return false;
        };
        let spacing = u128::from(self.params().target_spacing);
        match burying.checked_mul(spacing) {
            Some(product) => product
                .checked_div(last)
                .is_some_and(|seconds| seconds > ASSUME_VALID_DEPTH),
            None => false,
        }
    }

    /// Appends the undo record, unless an earlier run wrote the same one.
    pub(crate) fn write_undo(&mut self, id: NodeId, spent: &SpentRecord) -> Result<(), StoreError> {
        let (old, file) = {
            let tree = self.shared.tree();
            let node = tree.node(id);
            (node.undo, node.block.map_or(0, |at| at.file))
        };
        if let Some(at) = old {
            let found = self.shared.reader.read(Kind::Undo, &at);
            if found.is_ok_and(|found| found == spent.bytes()) {
                return Ok(());
            }
        }
        let at = self.writer.append_undo(file, spent.bytes())?;
        self.shared.tree_mut().node_mut(id).undo = Some(at);
        self.dirty.insert(id);
        Ok(())
    }
}

/// The work as a 128-bit number, when it is one.
fn low_bits(work: Work) -> Option<u128> {
    let bytes = work.to_be_bytes();
    let (high, low) = bytes.split_first_chunk::<16>()?;
    (*high == [0; 16])
        .then(|| low.try_into().map(u128::from_be_bytes).ok())
        .flatten()
}
