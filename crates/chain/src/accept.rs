//! Taking blocks: checked as far as they go without coins, stored, and then connected by `activate`.

use std::sync::Arc;

use bitcoin::BlockHash;

use crate::engine::Chain;
use crate::files::Location;
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::{BlockError, BlockOutcome, ParsedBlock, Reject, StoreError, rules};

impl Chain {
    /// Takes a block: checks it, stores it, and connects whatever has the most work now. `now_unix` is the clock in
    /// seconds. The parent's header must be known; the parent's block may still be missing.
    ///
    /// # Errors
    /// [`BlockError`] says whose fault it is. What had been connected before a disk error is delivered by the next
    /// call that succeeds.
    pub fn accept_block(&mut self, now_unix: u64, block: Arc<ParsedBlock>) -> Result<BlockOutcome, BlockError> {
        let mut results = self.accept_blocks(now_unix, &[(block, None)]);
        results.pop().expect("each block has its result")
    }

    /// [`Chain::accept_block`] for several blocks at once, which are connected while the scripts of those before them
    /// are still being checked. There is one result for each block; what happened to the chain is told by the last
    /// that is no error, or by the next call. A block may come with the coins that it spends, as somebody says; they
    /// are looked at only where [`View::spent_coins_wanted`](crate::View::spent_coins_wanted) asks for them.
    pub fn accept_blocks(
        &mut self,
        now_unix: u64,
        blocks: &[(Arc<ParsedBlock>, Option<Arc<BlockUndo>>)],
    ) -> Vec<Result<BlockOutcome, BlockError>> {
        let stored = blocks.iter().map(|(block, spent)| {
            if let Some(read) = self.take_for_search(block) {
                read.map_err(BlockError::Invalid)?;
                return Ok(BlockOutcome::default());
            }
            let (id, new) = self.store_block(now_unix, block, None)?;
            if new {
                self.recent.insert(id, Arc::clone(block));
            }
            if let Some(spent) = spent {
                self.take_claim(id, spent)?;
            }
            Ok(BlockOutcome {
                new,
                ..BlockOutcome::default()
            })
        });
        let mut results: Vec<Result<BlockOutcome, BlockError>> = stored.collect();
        if results.iter().all(Result::is_err) {
            if let (Err(error), Some(last)) = (self.write_index(), results.last_mut()) {
                *last = Err(error.into());
            }
            return results;
        }
        let connected = self.connect_stored().and_then(|mut outcome| {
            outcome.background = self.background_ready();
            match self.flush_when_due(now_unix) {
                Ok(()) => Ok(outcome),
                Err(error) => {
                    self.undelivered = outcome.changes;
                    Err(error)
                }
            }
        });
        let mut outcome = match connected {
            Ok(outcome) => outcome,
            Err(error) => {
                if let Some(last) = results.iter_mut().rfind(|result| result.is_ok()) {
                    *last = Err(error.into());
                }
                return results;
            }
        };
        for ((block, _), result) in blocks.iter().zip(&mut results) {
            if let Some(index) = outcome.rejected.iter().position(|(hash, _)| *hash == block.hash)
                && result.is_ok()
            {
                *result = Err(BlockError::Invalid(outcome.rejected.swap_remove(index).1));
            }
        }
        match results.iter_mut().flatten().last() {
            Some(last) => {
                *last = BlockOutcome {
                    new: last.new,
                    ..outcome
                }
            }
            None => self.undelivered = outcome.changes,
        }
        results
    }

    /// Takes a block that lies in one of our files already; nothing is connected.
    pub(crate) fn adopt_block(
        &mut self,
        now_unix: u64,
        block: &Arc<ParsedBlock>,
        at: Location,
    ) -> Result<(), BlockError> {
        if block.hash == self.params().genesis_hash {
            self.shared.tree_mut().store_block(0, at, 1);
            self.dirty.insert(0);
            return Ok(());
        }
        self.store_block(now_unix, block, Some(at)).map(drop)
    }

    /// Checks a block as far as it goes without coins and writes it to its file, unless it lies in one.
    fn store_block(
        &mut self,
        now_unix: u64,
        block: &Arc<ParsedBlock>,
        place: Option<Location>,
    ) -> Result<(NodeId, bool), BlockError> {
        let known = {
            let tree = self.shared.tree();
            let known = tree.find(&block.hash);
            if let Some(id) = known
                && tree.node(id).block.is_some()
                && !tree.node(id).invalid
            {
                return Ok((id, false));
            }
            known
        };
        if let Err(reject) = block.check(self.params()) {
            // Most of what is checked there is committed to by the header, but a body that somebody swapped fails too,
            // and its header must stay open for the real one.
            if let Some(id) = known
                && reject.kind.is_permanent_for_block()
                && !rules::is_mutated(block, self.has_segwit(id))
            {
                self.mark_invalid(id);
            }
            return Err(BlockError::Invalid(reject));
        }
        if known.is_none() {
            // The proof of work was checked above, so the claimed target counts.
            let tree = self.shared.tree();
            let parent = tree
                .find(&block.prev())
                .ok_or(BlockError::MissingParent(block.prev()))?;
            let work = tree.node(parent).work + rules::work_of(block.header().bits);
            if self.work_floor(&tree).is_some_and(|floor| work < floor) {
                return Err(BlockError::Invalid(Reject::low_work(format!("block {}", block.hash))));
            }
        }
        let (id, _) = self
            .accept_header(now_unix, block.header(), block.hash)
            .map_err(BlockError::Invalid)?;
        let (height, parent_median) = {
            let tree = self.shared.tree();
            let parent = tree.parent(id).map_or(0, |parent| tree.node(parent).median_time_past);
            (tree.node(id).height, parent)
        };
        if let Err(reject) = rules::contextual_check_block(self.params(), block, height, parent_median) {
            if reject.kind.is_permanent_for_block() {
                self.mark_invalid(id);
            }
            return Err(BlockError::Invalid(reject));
        }
        let at = match place {
            Some(at) => at,
            None => self.writer.append_block(&block.raw)?,
        };
        let count = u32::try_from(block.txids.len()).unwrap_or(u32::MAX);
        self.shared.tree_mut().store_block(id, at, count);
        self.dirty.insert(id);
        self.link(id);
        Ok((id, true))
    }

    fn has_segwit(&self, id: NodeId) -> bool {
        self.shared.tree().node(id).height >= self.params().segwit_height
    }

    /// Forgets a stored block whose bytes were found damaged, so that it is among the missing ones.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be noted on disk.
    pub fn mark_lost(&mut self, hash: &BlockHash) -> Result<(), StoreError> {
        let id = self.shared.tree().find(hash);
        if let Some(id) = id {
            self.lose(id);
            self.write_index()?;
        }
        Ok(())
    }
}
