//! Blocks that came, on their way to the chain, and who answers for them.

use std::sync::Arc;

use bitcoin::BlockHash;
use dunlin_chain::{BlockUndo, ParsedBlock};
use dunlin_peer::LinkId;

use super::{BlockSync, MAX_UNASKED_AHEAD, WINDOW};
use crate::interface::Job;
use crate::node::Node;

impl BlockSync {
    /// A block came. Returns whether it went to the chain; otherwise it cost no more than its bytes.
    pub(crate) fn on_block(&mut self, node: &mut Node, link: LinkId, block: Arc<ParsedBlock>) -> bool {
        let now = node.now;
        let hash = block.hash;
        if Self::needs_coins(node, &hash)
            && !self.judging.contains_key(&hash)
            && block.check(node.view.params()).is_ok()
        {
            self.hold(node, link, block);
            return false;
        }
        let Some(peer) = node.ready(link) else { return false };
        peer.blocks.last = Some(now);
        let wanted = peer.blocks.in_flight.remove(&hash).is_some();
        if wanted {
            let owes = !peer.blocks.in_flight.is_empty();
            peer.blocks.rate.came(now, block.raw.len(), owes);
            peer.blocks.since = owes.then_some(now);
            peer.blocks.stalling = None;
        }
        let known = node.view.entry(&hash);
        if known.as_ref().is_some_and(|entry| entry.have_data) || self.judging.contains_key(&hash) {
            self.forget(node, hash);
            return false;
        }
        if !wanted && !self.fits_unasked(node, &block) {
            return false;
        }
        self.give(node, link, block, None);
        true
    }

    /// Gives a block to the chain that `link` gave us, and perhaps what it is said to spend.
    pub(super) fn give(
        &mut self,
        node: &mut Node,
        link: LinkId,
        block: Arc<ParsedBlock>,
        spent: Option<Arc<BlockUndo>>,
    ) {
        let hash = block.hash;
        self.forget(node, hash);
        let height = node.view.entry(&hash).map(|entry| entry.height);
        if let Some(height) = height
            && self.plan.get(&height) == Some(&hash)
        {
            self.plan.remove(&height);
        }
        crate::headers::has_block(node, link, hash);
        let bytes = block.raw.len() + spent.as_ref().map_or(0, |spent| spent.bytes());
        self.usual_bytes = (self.usual_bytes * 7 + bytes) / 8;
        self.judging_bytes += bytes;
        self.judging.insert(hash, (Some(link), bytes));
        node.peer_job(
            link,
            Job::AcceptBlock {
                from: Some(link),
                ticket: None,
                block,
                spent,
            },
        );
    }

    /// A block that nobody asked for is looked at only when it may become the tip.
    fn fits_unasked(&self, node: &Node, block: &ParsedBlock) -> bool {
        let Some(parent) = node.view.entry(&block.prev()) else {
            return false;
        };
        let tip = node.view.tip();
        let work = parent.chain_work + block.header().work();
        work > tip.chain_work
            && work >= node.view.params().minimum_chain_work
            && parent.height < tip.height.saturating_add(MAX_UNASKED_AHEAD)
            && parent.status != dunlin_chain::Status::Invalid
    }

    /// A block of our own goes to the chain.
    pub(crate) fn submitted(&mut self, hash: BlockHash) {
        self.judging.entry(hash).or_insert((None, 0));
    }

    /// The chain judged a block; returns who gave it.
    pub(crate) fn judged(&mut self, hash: &BlockHash) -> Option<LinkId> {
        let (from, bytes) = self.judging.remove(hash)?;
        self.judging_bytes = self.judging_bytes.saturating_sub(bytes);
        from
    }

    /// The block is stored and waits for its parents: remember who gave it.
    pub(crate) fn stored(&mut self, node: &Node, hash: BlockHash, from: Option<LinkId>) {
        if let (Some(from), Some(entry)) = (from, node.view.entry(&hash))
            && !node.view.contains_in_active(&hash)
        {
            self.sources.insert(hash, (entry.height, from));
            // Branches that never connect leave entries behind; the lowest are the oldest.
            while self.sources.len() > 2 * WINDOW as usize
                && let Some(oldest) = self
                    .sources
                    .iter()
                    .min_by_key(|(_, (height, _))| *height)
                    .map(|(hash, _)| *hash)
            {
                self.sources.remove(&oldest);
            }
        }
    }

    /// Who gave a block that was stored earlier; forgets it.
    pub(crate) fn source(&mut self, hash: &BlockHash) -> Option<LinkId> {
        self.sources.remove(hash).map(|(_, link)| link)
    }
}
