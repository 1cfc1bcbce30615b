//! What an operator may decide about blocks: `invalidateblock`, `reconsiderblock`, `preciousblock`.
//!
//! A decision is on disk before the tip moves. So when the process dies in between, opening finds a tip that counts as
//! invalid and takes it off as the call would have done.

use std::sync::Arc;

use bitcoin::BlockHash;
use dunlin_store::StoreError;

use crate::activate::candidate;
use crate::engine::Chain;
use crate::overlay::Overlay;
use crate::snapshot::SnapshotError;
use crate::tree::NodeId;
use crate::{BlockOutcome, ChainChange, HeaderReject};

/// Why an operation asked for by the operator was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// No such block.
    #[error("Block not found")]
    NotFound(BlockHash),
    /// Taking blocks off the tip needs data that was pruned.
    #[error(
        "block {0} cannot be taken off the chain: it or a block above it was pruned; --reindex fetches everything again"
    )]
    Pruned(BlockHash),
    /// The chain is run without pruning.
    #[error("Cannot prune blocks because node is not in prune mode.")]
    NotPruning,
    /// A header was not taken.
    #[error(transparent)]
    Header(#[from] HeaderReject),
    /// A snapshot cannot be made the chain's.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Chain {
    /// Treats a block as if it broke a rule, from now on and after restarts, and follows the best chain without it.
    /// The genesis block stays. Call [`Chain::advance`] while the outcome has more.
    ///
    /// # Errors
    /// [`OperateError`]; nothing has changed when the block is unknown or lies too deep.
    pub fn invalidate(&mut self, hash: &BlockHash) -> Result<BlockOutcome, OperateError> {
        let id = self.known(hash)?;
        if id != 0 {
            self.check_reversible(id)?;
            self.mark_invalid(id);
            self.write_index_durably()?;
        }
        Ok(self.advance()?)
    }

    /// Forgets that a block, its ancestors and what is built on it were found or called invalid, and judges them anew.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn reconsider(&mut self, hash: &BlockHash) -> Result<BlockOutcome, OperateError> {
        let id = self.known(hash)?;
        let cleared = self.shared.tree_mut().clear_invalid(id);
        self.dirty.extend(cleared);
        self.gather_candidates();
        self.write_index_durably()?;
        Ok(self.advance()?)
    }

    /// Prefers a block to others with the same work, as if it had come first. A later call may prefer another.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn prefer(&mut self, hash: &BlockHash) -> Result<BlockOutcome, OperateError> {
        let id = self.known(hash)?;
        self.swap_with_first(id);
        self.write_index_durably()?;
        Ok(self.advance()?)
    }

    /// Gives a complete block with the tip's work the place in the order of arrival that the first of its equals has,
    /// and that one its own.
    fn swap_with_first(&mut self, id: NodeId) {
        let shared = Arc::clone(&self.shared);
        let mut tree = shared.tree_mut();
        let node = tree.node(id);
        if node.sequence == 0 || node.invalid || node.work < tree.node(tree.tip()).work {
            return;
        }
        let equals = tree
            .ids()
            .filter(|at| tree.node(*at).sequence != 0 && tree.node(*at).work == node.work);
        let Some(first) = equals.min_by_key(|at| tree.node(*at).sequence) else {
            return;
        };
        if first == id {
            return;
        }
        let (early, late) = (tree.node(first).sequence, node.sequence);
        for (at, sequence) in [(first, late), (id, early)] {
            let listed = self.candidates.remove(&candidate(&tree, at));
            tree.node_mut(at).sequence = sequence;
            if listed {
                self.candidates.insert(candidate(&tree, at));
            }
            self.dirty.insert(at);
        }
    }

    fn known(&self, hash: &BlockHash) -> Result<NodeId, OperateError> {
        self.shared.tree().find(hash).ok_or(OperateError::NotFound(*hash))
    }

    /// Whether everything is there that takes the tip back below a block.
    fn check_reversible(&self, id: NodeId) -> Result<(), OperateError> {
        let fork = {
            let tree = self.shared.tree();
            match tree.parent(id) {
                Some(parent) if tree.is_active(id) => parent,
                _ => return Ok(()),
            }
        };
        match self.pruned_above(fork) {
            Some(pruned) => Err(OperateError::Pruned(pruned)),
            None => Ok(()),
        }
    }

    /// The highest block of the validated chain above `fork` that was pruned.
    pub(crate) fn pruned_above(&self, fork: NodeId) -> Option<BlockHash> {
        let tree = self.shared.tree();
        let mut above = std::iter::successors(Some(tree.tip()), |at| tree.parent(*at)).take_while(|at| *at != fork);
        above.find(|at| tree.node(*at).pruned).map(|at| tree.node(at).hash)
    }

    /// Takes one block off a tip that counts as invalid; `false` when a block has to be fetched again first.
    pub(crate) fn retreat(&mut self, changes: &mut Vec<ChainChange>, bytes: &mut usize) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (tip, parent) = {
            let tree = shared.tree();
            (tree.tip(), tree.parent(tree.tip()))
        };
        let Some(parent) = parent else { return Ok(false) };
        let coins = shared.coins();
        let mut overlay = Overlay::new(&coins);
        let Some((block, height)) = self.disconnect(&mut overlay, tip)? else {
            return Ok(false);
        };
        shared.publish(overlay, parent, &[])?;
        *bytes += block.raw.len();
        changes.push(ChainChange::Disconnected(block, height));
        if !shared.tree().node(parent).invalid {
            self.gather_candidates();
        }
        self.flush_when_full()?;
        Ok(true)
    }
}
