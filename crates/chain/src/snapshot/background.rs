//! Validating in the background what a snapshot claims.
//!
//! The coins that the chain had before the snapshot follow the snapshot's own chain block by block, with every check,
//! up to its base; then their hash must be the snapshot's. All of it runs on the thread of the chain's one writer, in
//! slices, so that a new block at the tip waits for one slice at most.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256d};
use dunlin_store::{Batch, Step, StoreError};

use super::Unproven;
use crate::coin_hash::CoinsHasher;
use crate::coins::Coins;
use crate::connect::ConnectError;
use crate::overlay::Overlay;
use crate::tree::NodeId;
use crate::{BlockOutcome, Chain, Reject, index};

/// Bytes of blocks that one slice connects.
const SLICE_BYTES: usize = 2 << 20;

/// Coins that one slice hashes, about.
const SLICE_COINS: u64 = 200_000;

/// The coins are hashed in this many parts: by the first two bytes of their transaction's id.
pub(crate) const AUDIT_PARTS: u32 = 1 << 16;

/// How often the log tells how far the validation has come, in blocks.
const TELL_BLOCKS: u32 = 10_000;

/// The second set of coins.
pub(crate) struct Background {
    pub(crate) coins: Arc<Coins>,
    audit: CoinsHasher,
}

impl Background {
    pub(crate) fn new(coins: Arc<Coins>) -> Self {
        Self {
            coins,
            audit: CoinsHasher::new(),
        }
    }
}

/// What connecting a block in the background came to.
enum Next {
    Connected,
    /// It is not stored, or was found damaged.
    Missing,
    Invalid(Reject),
}

/// What one step of the background came to.
enum Advance {
    /// It goes on at once.
    On,
    /// A block has to come first.
    Waits,
    /// It is done, one way or the other.
    Ended,
}

impl Chain {
    /// Whether the background validation can go on without another block coming.
    pub(crate) fn background_ready(&self) -> bool {
        let Some(unproven) = self.shared.unproven() else {
            return false;
        };
        let tree = self.shared.tree();
        if !tree.is_ancestor(unproven.reached, unproven.base) || unproven.reached == unproven.base {
            return true;
        }
        let next = tree.node(unproven.reached).height.saturating_add(1);
        tree.node(tree.ancestor(unproven.base, next)).block.is_some()
    }

    /// Takes the background validation a slice further; the outcome says whether more can be done at once, and why the
    /// node must stop when the snapshot was wrong.
    pub(crate) fn advance_background(&mut self, outcome: &mut BlockOutcome) -> Result<(), StoreError> {
        let mut bytes = 0;
        while bytes < SLICE_BYTES {
            match self.background_step(&mut bytes, outcome)? {
                Advance::On => self.flush_when_full()?,
                Advance::Waits | Advance::Ended => return Ok(()),
            }
        }
        outcome.background = self.background_ready();
        Ok(())
    }

    fn background_step(&mut self, bytes: &mut usize, outcome: &mut BlockOutcome) -> Result<Advance, StoreError> {
        let (Some(background), Some(unproven)) = (&self.background, self.shared.unproven()) else {
            return Ok(Advance::Ended);
        };
        let coins = Arc::clone(&background.coins);
        if unproven.reached == unproven.base {
            // One slice of hashing is worth a slice of blocks.
            *bytes = SLICE_BYTES;
            return self.audit(&coins, unproven, outcome);
        }
        let on_the_way = self.shared.tree().is_ancestor(unproven.reached, unproven.base);
        let mut overlay = Overlay::new(&coins);
        let reached = if on_the_way {
            let next = {
                let tree = self.shared.tree();
                tree.ancestor(unproven.base, tree.node(unproven.reached).height.saturating_add(1))
            };
            match self.connect_next(&mut overlay, next, bytes)? {
                Next::Connected => next,
                Next::Missing => return Ok(Advance::Waits),
                Next::Invalid(reject) => {
                    let hash = self.shared.tree().node(next).hash;
                    self.refute(unproven.reached, &coins)?;
                    self.mark_invalid(next);
                    self.write_index()?;
                    outcome.refuted = Some(format!(
                        "block {hash} below the snapshot is invalid ({reject}): the snapshot is not of a valid chain; \
                         the node goes back to the blocks that it has validated itself, start it again"
                    ));
                    return Ok(Advance::Ended);
                }
            }
        } else {
            // The chain had left the snapshot's own chain before the snapshot came.
            match self.disconnect_one(&mut overlay, unproven.reached, bytes)? {
                Some(parent) => parent,
                None => return Ok(Advance::Waits),
            }
        };
        overlay.publish(|| ())?;
        self.shared.set_unproven(Some(Unproven { reached, ..unproven }));
        if on_the_way {
            self.shared.tree_mut().node_mut(reached).valid = true;
            self.dirty.insert(reached);
            self.recent.remove(reached);
            self.tell_background(reached, unproven.base);
        }
        Ok(Advance::On)
    }

    fn connect_next(&mut self, overlay: &mut Overlay<'_>, next: NodeId, bytes: &mut usize) -> Result<Next, StoreError> {
        let Some(block) = self.load(next)? else {
            return Ok(Next::Missing);
        };
        *bytes += block.raw.len();
        match self.connect(overlay, next, &block) {
            Ok(unchecked) => match self.check_scripts(&unchecked) {
                Ok(()) => self.write_undo(next, &unchecked.spent).map(|()| Next::Connected),
                Err(reject) => Ok(Next::Invalid(reject)),
            },
            Err(ConnectError::Store(error)) => Err(error),
            Err(ConnectError::Reject(reject)) => Ok(Next::Invalid(reject)),
        }
    }

    /// Takes one block off the background's coins; its parent, or `None` when the block has to be fetched first.
    fn disconnect_one(
        &mut self,
        overlay: &mut Overlay<'_>,
        id: NodeId,
        bytes: &mut usize,
    ) -> Result<Option<NodeId>, StoreError> {
        let Some((block, _)) = self.disconnect(overlay, id)? else {
            return Ok(None);
        };
        *bytes += block.raw.len();
        Ok(self.shared.tree().parent(id))
    }

    fn tell_background(&self, reached: NodeId, base: NodeId) {
        let tree = self.shared.tree();
        let (at, of) = (tree.node(reached).height, tree.node(base).height);
        if at == of || at.is_multiple_of(TELL_BLOCKS) {
            let percent = u64::from(at) * 100 / u64::from(of.max(1));
            tracing::info!("validating below the snapshot: height {at} of {of} ({percent} %)");
        }
    }

    /// Hashes a slice of the background's coins; at the end compares.
    fn audit(
        &mut self,
        coins: &Arc<Coins>,
        unproven: Unproven,
        outcome: &mut BlockOutcome,
    ) -> Result<Advance, StoreError> {
        if unproven.audited == 0 {
            self.flush()?;
        }
        let Some(background) = &mut self.background else {
            return Ok(Advance::Ended);
        };
        // A slice ends with a part, so that the next one can begin where it ended.
        let mut part = AUDIT_PARTS;
        let end = background.audit.count + SLICE_COINS;
        let audit = &mut background.audit;
        let from = (unproven.audited as u16).to_be_bytes();
        let mut last = unproven.audited;
        coins.snapshot().scan(&from, &mut |outpoint, found| {
            let id = outpoint.txid.to_byte_array();
            let here = u32::from(u16::from_be_bytes([id[0], id[1]]));
            if audit.count >= end && here != last {
                part = here;
                return Step::Stop;
            }
            last = here;
            audit.add(&outpoint, &found);
            Step::Continue
        })?;
        self.shared.set_unproven(Some(Unproven {
            audited: part,
            ..unproven
        }));
        if part < AUDIT_PARTS {
            return Ok(Advance::On);
        }
        let found = std::mem::replace(&mut background.audit, CoinsHasher::new()).finish();
        if found == unproven.coins_hash {
            self.prove(coins)?;
        } else {
            self.refute(unproven.base, coins)?;
            outcome.refuted = Some(refutation(&found, &unproven.coins_hash));
        }
        Ok(Advance::Ended)
    }

    /// The snapshot was right: the second set goes.
    fn prove(&mut self, coins: &Arc<Coins>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.delete(index::META, index::SNAPSHOT_KEY);
        self.shared.table.write(batch, true)?;
        self.background = None;
        self.shared.set_unproven(None);
        self.share_memory();
        self.shared.sets.remove(coins)?;
        tracing::info!("the snapshot is validated: every block up to it is, and its coins are those of its block");
        Ok(())
    }

    /// The snapshot was wrong: back to the coins that the background validated, up to `reached`.
    fn refute(&mut self, reached: NodeId, coins: &Arc<Coins>) -> Result<(), StoreError> {
        self.flush()?;
        let mut batch = Batch::default();
        batch.delete(index::META, index::SNAPSHOT_KEY);
        batch.put(index::META, index::COINS_KEY, [coins.number()]);
        self.shared.table.write(batch, true)?;
        self.background = None;
        let wrong = self.shared.replace_coins(Arc::clone(coins), reached, None);
        self.share_memory();
        {
            // What was found out with wrong coins counts for nothing.
            let mut tree = self.shared.tree_mut();
            let height = tree.node(reached).height;
            self.dirty.extend(tree.doubt_above(height));
        }
        self.link_again();
        self.write_index()?;
        self.shared.sets.remove(&wrong)
    }
}

fn refutation(found: &sha256d::Hash, claimed: &sha256d::Hash) -> String {
    format!(
        "the snapshot is wrong: the coins at its block have the hash {found}, the snapshot's have {claimed}; the node \
         goes back to the chain that it has validated itself, start it again"
    )
}
