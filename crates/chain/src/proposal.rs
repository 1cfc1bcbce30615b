//! Judging a block that nobody has solved yet (BIP 23): as the next block of the validated chain it must keep every rule
//! but its proof of work and, on a signet, its solution. Nothing of it stays.

use std::sync::Arc;

use bitcoin::block::Header;
use dunlin_store::StoreError;

use crate::connect::{self, ConnectError, Place};
use crate::engine::Chain;
use crate::overlay::Overlay;
use crate::rules::{self, bip30};
use crate::{ParsedBlock, Reject, RejectKind, script};

impl Chain {
    /// What speaks against the block as the next one. `now_unix` is the clock in seconds.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; nothing is known about the block then.
    pub fn judge_proposal(&self, now_unix: u64, block: &Arc<ParsedBlock>) -> Result<Result<(), Reject>, StoreError> {
        match self.check_proposal(now_unix, block) {
            Ok(()) => Ok(Ok(())),
            Err(ConnectError::Reject(reject)) => Ok(Err(reject)),
            Err(ConnectError::Store(error)) => Err(error),
        }
    }

    fn check_proposal(&self, now_unix: u64, block: &Arc<ParsedBlock>) -> Result<(), ConnectError> {
        let params = self.params();
        let shared = Arc::clone(&self.shared);
        let (tip, height, parent_median, bip34_ancestor) = {
            let tree = shared.tree();
            let (tip, bip34) = (tree.tip(), params.bip34_height);
            let node = tree.node(tip);
            if node.hash != block.prev() {
                let reject = Reject::new(RejectKind::MissingParent, "inconclusive-not-best-prevblk", "");
                return Err(reject.into());
            }
            let ancestor = (node.height >= bip34).then(|| tree.node(tree.ancestor(tip, bip34)).hash);
            (tip, node.height.saturating_add(1), node.median_time_past, ancestor)
        };
        rules::check_body(block)?;
        let header: &Header = block.header();
        rules::contextual_check_header(params, header, &shared.tree().branch(tip), now_unix)?;
        rules::contextual_check_block(params, block, height, parent_median)?;
        let median_at = |height: u32| {
            let tree = shared.tree();
            tree.node(tree.ancestor(tip, height)).median_time_past
        };
        let place = Place {
            height,
            parent_median,
            look_for_repeats: bip30::check_needed(params, height, &block.hash, bip34_ancestor),
            median_at: &median_at,
            flags: script::block_flags(params, height, &block.hash),
        };
        let coins = shared.coins();
        let undo = connect::connect(params, &mut Overlay::new(&coins), block, &place)?;
        let checking = self.scripts.begin(Arc::clone(block), Arc::new(undo), place.flags);
        Ok(self.scripts.finish(&checking)?)
    }
}
