//! Compact block relay (BIP 152, version 2): who announces blocks to us this way and to whom we do, and blocks that
//! are rebuilt from short ids, the mempool and what is asked for.
//!
//! Blocks rebuilt here may be passed on by honest peers before they are validated, so an invalid one is nobody's fault
//! but that of its header's or its encoding.

mod partial;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction, Wtxid};
use dunlin_chain::rules::is_mutated;
use dunlin_chain::{Entry, HeaderReject, HeadersAccepted, ParsedBlock, RejectKind, Status};
use dunlin_peer::LinkId;

use self::partial::{Partial, Unfit};
use crate::announce;
use crate::blocks::{BlockSync, MAX_IN_FLIGHT};
use crate::headers;
use crate::interface::{Event, Job};
use crate::node::Node;
use crate::serve::Server;
use crate::wire::{BlockTxn, BlockTxnRequest, COMPACT_VERSION, CompactBlock, Message};

/// From this version on peers understand compact blocks.
const SHORT_IDS_VERSION: u32 = 70_014;
/// Peers that announce blocks to us by compact blocks.
const MAX_ANNOUNCERS: usize = 3;
/// A block is rebuilt from at most this many peers' compact blocks at a time.
const MAX_PER_BLOCK: usize = 3;
/// Compact blocks further above our tip are headers to us: the mempool would hold little of them.
const MAX_AHEAD: u32 = 2;
/// Compact blocks further below our tip are not looked at.
const MAX_BEHIND: u32 = 144;
/// Transactions kept for rebuilding although the mempool has not got them.
const MAX_EXTRA: usize = 100;
/// Our tip must be younger than this many blocks' time for compact blocks to be of use.
const RECENT_BLOCKS: u32 = 20;

/// The compact blocks of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CompactState {
    /// It understands them.
    pub(crate) provides: bool,
    /// It wants new blocks announced this way (high bandwidth).
    pub(crate) wants: bool,
    /// We asked it to announce new blocks this way.
    pub(crate) announces: bool,
}

/// What all peers share.
#[derive(Debug, Default)]
pub(crate) struct CompactBlocks {
    /// Blocks that lack transactions; `None` when rebuilding failed and the whole block was asked for.
    partials: BTreeMap<(BlockHash, LinkId), Option<Partial>>,
    /// Who announces to us; whoever gave us a block first most recently comes last.
    announcers: VecDeque<LinkId>,
    /// Transactions that were refused or wait for their parents.
    extra: VecDeque<(Wtxid, Arc<Transaction>)>,
    /// Rebuilt blocks that the chain has not judged.
    unproven: BTreeSet<BlockHash>,
    /// The highest block that was announced before it was judged.
    announced: u32,
}

/// Whether our tip is so recent that single new blocks are fetched as they come.
pub(crate) fn near_tip(node: &Node) -> bool {
    let age = u64::from(node.view.params().target_spacing) * u64::from(RECENT_BLOCKS);
    u64::from(node.view.tip().header.time) + age > node.now.unix_secs()
}

/// The handshake is complete: the peer may send us compact blocks, in answer to requests at first.
pub(crate) fn ready(node: &mut Node, link: LinkId) {
    if node.ready(link).is_some_and(|peer| peer.version >= SHORT_IDS_VERSION) {
        tell(node, link, false);
    }
}

fn tell(node: &mut Node, link: LinkId, announce: bool) {
    if let Some(peer) = node.ready(link) {
        peer.compact.announces = announce;
        let version = COMPACT_VERSION;
        node.send(
            link,
            Message::SendCmpct {
                announce: announce.into(),
                version,
            },
        );
    }
}

/// `sendcmpct` came.
pub(crate) fn on_sendcmpct(node: &mut Node, link: LinkId, announce: u8, version: u64) {
    if announce > 1 {
        return node.misbehaving(link, "invalid sendcmpct announce field");
    }
    if version == COMPACT_VERSION
        && let Some(peer) = node.ready(link)
    {
        peer.compact.provides = true;
        peer.compact.wants = announce == 1;
    }
}

fn ask_whole(node: &mut Node, link: LinkId, hash: BlockHash) {
    node.send(link, Message::GetData(vec![Inventory::WitnessBlock(hash)]));
}

impl CompactBlocks {
    /// `cmpctblock` came: its header is judged first.
    pub(crate) fn on_compact(&mut self, node: &mut Node, link: LinkId, compact: Arc<CompactBlock>) {
        if !node.ready(link).is_some_and(|peer| peer.compact.provides) {
            return;
        }
        let Some(parent) = node.view.entry(&compact.header.prev_blockhash) else {
            if !node.is_initial_download() {
                headers::ask(node, link, None);
            }
            return;
        };
        let low = parent.chain_work + compact.header.work() < node.view.params().minimum_chain_work;
        if low || parent.height.saturating_add(MAX_BEHIND) < node.view.tip().height {
            return;
        }
        node.peer_job(link, Job::AcceptCompact { link, compact });
    }

    /// The chain judged the header of a compact block. Returns the block when nothing of it is missing.
    pub(crate) fn on_header(
        &mut self,
        node: &mut Node,
        blocks: &mut BlockSync,
        link: LinkId,
        compact: &CompactBlock,
        result: Result<HeadersAccepted, HeaderReject>,
    ) -> Option<Arc<ParsedBlock>> {
        node.ready(link)?;
        match result {
            Ok(_) => {}
            Err(HeaderReject::Invalid { reject, .. }) => {
                if matches!(reject.kind, RejectKind::InvalidHeader | RejectKind::InvalidParent) {
                    node.misbehaving(link, reject.to_string());
                }
                return None;
            }
            Err(HeaderReject::Store(error)) => {
                node.out.event(Event::StoreFailed {
                    error: error.to_string(),
                });
                return None;
            }
            Err(_) => return None,
        }
        let hash = compact.header.block_hash();
        headers::has_block(node, link, hash);
        let entry = node.view.entry(&hash)?;
        if entry.have_data || entry.status == Status::Invalid || blocks.is_judging(&hash) {
            return None;
        }
        self.consider(node, blocks, link, compact, &entry)
    }

    fn consider(
        &mut self,
        node: &mut Node,
        blocks: &mut BlockSync,
        link: LinkId,
        compact: &CompactBlock,
        entry: &Entry,
    ) -> Option<Arc<ParsedBlock>> {
        let (hash, tip) = (entry.hash, node.view.tip());
        let peer = node.peers.get(&link)?;
        let requested = peer.blocks.in_flight.contains_key(&hash);
        let (announces, inbound, busy) = (
            peer.compact.announces,
            peer.is_inbound(),
            peer.blocks.in_flight.len() >= MAX_IN_FLIGHT,
        );
        if !requested && !announces {
            return None;
        }
        if entry.chain_work <= tip.chain_work || entry.height > tip.height.saturating_add(MAX_AHEAD) {
            // Our mempool would be of little use; what was only announced is fetched as any other block.
            if requested {
                ask_whole(node, link, hash);
            }
            return None;
        }
        let others = blocks.asked_of(&hash);
        if others == 0 && !near_tip(node) {
            return None;
        }
        if self.partials.contains_key(&(hash, link)) {
            return None;
        }
        let partial = {
            let pool = node.pool();
            let in_pool = pool.iter().map(|entry| (entry.wtxid, &entry.tx));
            let extra = self.extra.iter().map(|(wtxid, tx)| (*wtxid, tx));
            Partial::new(compact, in_pool.chain(extra))
        };
        if !requested && (busy || others >= MAX_PER_BLOCK) {
            // Others are asked for it already; it costs nothing when all is at hand.
            let partial = partial.ok().filter(|partial| partial.missing().is_empty())?;
            return self.complete(node, blocks, link, hash, partial, Vec::new());
        }
        if !requested {
            blocks.note_asked(node, link, entry.height, hash);
        }
        let first = blocks.is_first(node, link, &hash);
        match partial {
            Err(Unfit::Invalid) => {
                blocks.drop_request(node, link, hash);
                node.misbehaving(link, "invalid compact block");
                None
            }
            Err(Unfit::Collision) => {
                self.fall_back(node, blocks, link, hash);
                None
            }
            Ok(partial) => {
                let places = partial.missing();
                if places.is_empty() {
                    return self.complete(node, blocks, link, hash, partial, Vec::new());
                }
                // The last place is kept for a peer of our own choice.
                let outbound = !inbound || blocks.is_asked_of_outbound(node, &hash);
                if first || (announces && (outbound || others + 1 < MAX_PER_BLOCK)) {
                    self.partials.insert((hash, link), Some(partial));
                    node.send(link, Message::GetBlockTxn(BlockTxnRequest { hash, places }));
                } else {
                    blocks.drop_request(node, link, hash);
                }
                None
            }
        }
    }

    /// `blocktxn` came. Returns the block when it is complete.
    pub(crate) fn on_blocktxn(
        &mut self,
        node: &mut Node,
        blocks: &mut BlockSync,
        link: LinkId,
        answer: BlockTxn,
    ) -> Option<Arc<ParsedBlock>> {
        let partial = self.partials.get_mut(&(answer.hash, link))?;
        match partial.take() {
            Some(partial) => self.complete(node, blocks, link, answer.hash, partial, answer.txs),
            None => {
                blocks.drop_request(node, link, answer.hash);
                node.misbehaving(link, "previous compact block reconstruction attempt failed");
                None
            }
        }
    }

    fn complete(
        &mut self,
        node: &mut Node,
        blocks: &mut BlockSync,
        link: LinkId,
        hash: BlockHash,
        partial: Partial,
        rest: Vec<Arc<Transaction>>,
    ) -> Option<Arc<ParsedBlock>> {
        let height = node.view.entry(&hash)?.height;
        match partial.fill(rest, height >= node.view.params().segwit_height) {
            Ok(block) => {
                self.partials.remove(&(hash, link));
                self.unproven.insert(hash);
                Some(block)
            }
            Err(Unfit::Invalid) => {
                blocks.drop_request(node, link, hash);
                node.misbehaving(link, "invalid compact block/non-matching block transactions");
                None
            }
            Err(Unfit::Collision) => {
                self.fall_back(node, blocks, link, hash);
                None
            }
        }
    }

    /// The compact form led nowhere: whoever was asked first is asked for the whole block.
    fn fall_back(&mut self, node: &mut Node, blocks: &mut BlockSync, link: LinkId, hash: BlockHash) {
        if blocks.is_first(node, link, &hash) {
            self.partials.insert((hash, link), None);
            ask_whole(node, link, hash);
        } else {
            self.partials.remove(&(hash, link));
            blocks.drop_request(node, link, hash);
        }
    }

    /// A block went to the chain: nothing more is rebuilt. One that builds on our tip is announced to those who asked for
    /// that before the chain has judged it; its header is valid and its body belongs to it.
    pub(crate) fn given(&mut self, node: &mut Node, server: &mut Server, block: &Arc<ParsedBlock>) {
        let hash = block.hash;
        self.partials.retain(|(of, _), _| *of != hash);
        let Some(entry) = node.view.entry(&hash) else { return };
        let on_tip = block.prev() == node.view.tip().hash && entry.status != Status::Invalid;
        if !on_tip || entry.height <= self.announced || node.is_initial_download() {
            return;
        }
        let links = announce::wanting(node, &hash, entry.height);
        let segwit = entry.height >= node.view.params().segwit_height;
        if links.is_empty() || (!self.unproven.contains(&hash) && is_mutated(block, segwit)) {
            return;
        }
        self.announced = entry.height;
        server.hold(node, block);
        for link in links {
            announce::send_compact(node, server, link, &entry);
        }
    }

    /// The chain judged a block; returns whether it was rebuilt here, so that nobody is at fault for what is in it.
    pub(crate) fn judged(&mut self, hash: &BlockHash) -> bool {
        self.unproven.remove(hash)
    }

    /// This peer gave us a new valid block before anybody else: it shall announce the next ones at once. At most three
    /// do, the one among them whose last first block is longest ago gives way; one of our own choice stays among them.
    pub(crate) fn reward(&mut self, node: &mut Node, link: LinkId) {
        let Some(peer) = node.ready(link).filter(|peer| peer.compact.provides) else {
            return;
        };
        let inbound = peer.is_inbound();
        if let Some(place) = self.announcers.iter().position(|other| *other == link) {
            self.announcers.remove(place);
            return self.announcers.push_back(link);
        }
        if self.announcers.len() >= MAX_ANNOUNCERS {
            let outbound = |link: &LinkId| node.peers.get(link).is_some_and(|peer| !peer.is_inbound());
            let last_of_ours = self.announcers.iter().filter(|link| outbound(link)).count() == 1;
            if inbound && last_of_ours && self.announcers.front().is_some_and(outbound) {
                self.announcers.swap(0, 1);
            }
            if let Some(loser) = self.announcers.pop_front() {
                tell(node, loser, false);
            }
        }
        self.announcers.push_back(link);
        tell(node, link, true);
    }

    /// A transaction that the mempool has not got may still be in the next block.
    pub(crate) fn remember(&mut self, wtxid: Wtxid, tx: &Arc<Transaction>) {
        if self.extra.iter().any(|(known, _)| *known == wtxid) {
            return;
        }
        if self.extra.len() >= MAX_EXTRA {
            self.extra.pop_front();
        }
        self.extra.push_back((wtxid, Arc::clone(tx)));
    }

    pub(crate) fn disconnected(&mut self, link: LinkId) {
        self.partials.retain(|(_, of), _| *of != link);
        self.announcers.retain(|other| *other != link);
    }
}
