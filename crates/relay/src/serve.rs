//! Serving blocks and transactions: `getdata`, `getblocks`, `getblocktxn` (BIP 152).
//!
//! What a peer asks for waits in its queue and is taken in batches: few reads at a time, and after each full batch we
//! wait until the link has drained. A peer whose queue grows beyond the bound is not taking what it asks for, and is
//! closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;
use dunlin_chain::{Entry, ParsedBlock, Prune, Status};
use dunlin_peer::{CloseReason, LinkId, Now};
use rand::Rng;

use crate::interface::{BlockForm, Job};
use crate::node::Node;
use crate::wire::{BlockTxn, BlockTxnRequest, CompactBlock, Locator, MAX_INV, Message};

/// Block reads under way for one peer.
const MAX_READS: usize = 4;
/// A full batch, in bytes: above the mark beyond which a driver reports when the link has drained (1 MiB).
const BATCH: usize = 5 * 256 * 1024;
/// How long we wait for that report; a driver without send queues never gives it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What a compact block takes for each transaction, in bytes.
const COMPACT_TX: usize = 6;
/// Blocks kept at hand for those who ask right after the announcement.
const RECENT_BLOCKS: usize = 4;
/// Deeper blocks are served whole where their compact form was asked for, `MAX_CMPCTBLOCK_DEPTH` of Core.
const MAX_COMPACT_DEPTH: u32 = 5;
/// Deeper blocks are served whole where single transactions were asked for, `MAX_BLOCKTXN_DEPTH` of Core.
const MAX_BLOCKTXN_DEPTH: u32 = 10;
/// Blocks off the active chain are served this long, seconds.
const STALE_SECS: u64 = 30 * 24 * 60 * 60;
/// Most inventories answering one `getblocks`.
const MAX_GETBLOCKS: usize = 500;
/// Who asks a peer that keeps recent blocks only for one deeper than this asks what everybody knows it has not; and
/// would learn how much it keeps. Core's value: what BIP 159 promises, and two for those who are a little ahead.
const LIMITED_DEPTH: u32 = 288 + 2;
/// Blocks within this depth will still be there in an hour or so, when those who heard of them ask.
const LIKELY_KEPT: u32 = 288 - 6;

/// What one peer asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeState {
    queue: VecDeque<Inventory>,
    reads: usize,
    batch: Vec<Message>,
    batch_bytes: usize,
    /// The last batch was full: nothing is sent until the link has drained, or this instant.
    draining: Option<Now>,
    /// When this block is asked for, the peer's `getblocks` goes on.
    continuation: Option<BlockHash>,
}

impl ServeState {
    /// When [`Server::tick`] has something to do for this peer.
    pub(crate) fn next(&self) -> Option<Now> {
        self.draining
    }

    fn put(&mut self, msg: Message, bytes: usize) {
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        self.batch.push(msg);
    }
}

#[derive(Debug)]
struct Recent {
    block: Arc<ParsedBlock>,
    compact: Option<Arc<CompactBlock>>,
}

/// What is at hand for everyone.
#[derive(Debug, Default)]
pub(crate) struct Server {
    recent: VecDeque<Recent>,
    /// A block that was announced before the chain has judged it: nobody gets it whole until then.
    held: Option<BlockHash>,
    /// Transactions of the newest block by both identifiers: whoever heard of them may still ask.
    recent_txs: BTreeMap<[u8; 32], Arc<Transaction>>,
}

impl Server {
    /// A block became the tip.
    pub(crate) fn connected(&mut self, node: &mut Node, block: &Arc<ParsedBlock>) {
        self.keep(node, block);
        self.recent_txs.clear();
        for ((tx, txid), wtxid) in block.block().txdata.iter().zip(&block.txids).zip(&block.wtxids) {
            let tx = Arc::new(tx.clone());
            self.recent_txs.insert(txid.to_byte_array(), tx.clone());
            self.recent_txs.insert(wtxid.to_byte_array(), tx);
        }
    }

    fn keep(&mut self, node: &mut Node, block: &Arc<ParsedBlock>) {
        if self.recent(&block.hash).is_some() {
            return;
        }
        let compact = CompactBlock::of(block, node.rng.random()).map(Arc::new);
        let block = Arc::clone(block);
        self.recent.push_back(Recent { block, compact });
        if self.recent.len() > RECENT_BLOCKS {
            self.recent.pop_front();
        }
    }

    fn recent(&self, hash: &BlockHash) -> Option<&Recent> {
        self.recent.iter().find(|recent| recent.block.hash == *hash)
    }

    /// The compact form of a recent block.
    pub(crate) fn compact(&self, hash: &BlockHash) -> Option<Arc<CompactBlock>> {
        self.recent(hash)?.compact.clone()
    }

    /// A block is announced before it is judged.
    pub(crate) fn hold(&mut self, node: &mut Node, block: &Arc<ParsedBlock>) {
        self.keep(node, block);
        self.held = Some(block.hash);
    }

    /// The chain judged a block; whoever asked for it is answered now.
    pub(crate) fn judged(&mut self, node: &mut Node, hash: &BlockHash, valid: bool) {
        if self.held == Some(*hash) {
            self.held = None;
            if !valid {
                self.recent.retain(|recent| recent.block.hash != *hash);
            }
            for link in node.ready_links() {
                self.pump(node, link);
            }
        }
    }

    /// `getblocktxn` came.
    pub(crate) fn on_getblocktxn(&mut self, node: &mut Node, link: LinkId, request: BlockTxnRequest) {
        let BlockTxnRequest { hash, places } = request;
        if let Some(recent) = self.recent(&hash) {
            let block = Arc::clone(&recent.block);
            return send_txs(node, link, &block, &places);
        }
        let Some(entry) = node.view.entry(&hash).filter(|entry| entry.have_data) else {
            return;
        };
        let deep = entry.height.saturating_add(MAX_BLOCKTXN_DEPTH) < node.view.tip().height;
        let Some(peer) = node.ready(link) else { return };
        if deep || peer.serve.reads >= MAX_READS {
            // Whoever asks often for what costs a read has to take all that was read.
            return self.on_getdata(node, link, vec![Inventory::WitnessBlock(hash)]);
        }
        peer.serve.reads += 1;
        let form = BlockForm::Transactions(places);
        node.out.job(Job::ReadBlock { link, hash, form });
    }

    /// `getdata` came.
    pub(crate) fn on_getdata(&mut self, node: &mut Node, link: LinkId, items: Vec<Inventory>) {
        let Some(peer) = node.ready(link) else { return };
        if peer.serve.queue.len() + items.len() > 2 * MAX_INV {
            return node.close(link, CloseReason::fault("asks faster than it takes"));
        }
        peer.serve.queue.extend(items);
        self.pump(node, link);
    }

    /// Answers what the peer's queue and link allow.
    pub(crate) fn pump(&mut self, node: &mut Node, link: LinkId) {
        let mut missing = Vec::new();
        while let Some(peer) = node.ready(link) {
            let serve = &mut peer.serve;
            if serve.draining.is_some() || serve.reads >= MAX_READS || serve.batch_bytes >= BATCH {
                break;
            }
            let Some(item) = serve.queue.pop_front() else { break };
            let hash = match item {
                Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => Some(hash),
                _ => None,
            };
            if hash.is_some() && hash == self.held {
                serve.queue.push_front(item);
                break;
            }
            let served = match item {
                Inventory::Transaction(txid) => self.serve_tx(node, link, txid.to_byte_array(), false),
                Inventory::WitnessTransaction(txid) => self.serve_tx(node, link, txid.to_byte_array(), true),
                Inventory::WTx(wtxid) => self.serve_tx(node, link, wtxid.to_byte_array(), true),
                Inventory::Block(hash) => self.serve_block(node, link, hash, BlockForm::Stripped),
                Inventory::WitnessBlock(hash) => self.serve_block(node, link, hash, BlockForm::Whole),
                Inventory::CompactBlock(hash) => self.serve_block(node, link, hash, BlockForm::Compact),
                Inventory::Unknown { .. } | Inventory::Error => true,
            };
            if !served {
                missing.push(item);
            }
        }
        if !missing.is_empty() {
            node.send(link, Message::NotFound(missing));
        }
        self.flush(node, link);
    }

    /// Sends the batch when it is full or when nothing more will join it.
    fn flush(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link) else { return };
        let serve = &mut peer.serve;
        let full = serve.batch_bytes >= BATCH;
        let waits = serve.reads > 0 || !serve.queue.is_empty();
        if serve.draining.is_some() || serve.batch.is_empty() || (waits && !full) {
            return;
        }
        if full {
            serve.draining = Some(now + DRAIN_TIMEOUT);
        }
        serve.batch_bytes = 0;
        for msg in std::mem::take(&mut serve.batch) {
            node.send(link, msg);
        }
    }

    fn serve_tx(&self, node: &mut Node, link: LinkId, id: [u8; 32], witness: bool) -> bool {
        let Some(peer) = node.peers.get(&link) else { return true };
        let tx = {
            let pool = node.pool();
            pool.get(&bitcoin::Txid::from_byte_array(id))
                .or_else(|| pool.get_by_wtxid(&bitcoin::Wtxid::from_byte_array(id)))
                // What was not announced to the peer yet is not there for it: asking must not tell when it came.
                .filter(|tx| !peer.tx.unannounced(&tx.compute_wtxid()))
        };
        let Some(tx) = tx.or_else(|| self.recent_txs.get(&id).cloned()) else {
            return false;
        };
        if let Some(peer) = node.ready(link) {
            let bytes = tx.total_size();
            peer.serve.put(Message::Tx { tx, witness }, bytes);
        }
        true
    }

    fn serve_block(&mut self, node: &mut Node, link: LinkId, hash: BlockHash, form: BlockForm) -> bool {
        let Some(entry) = node.view.entry(&hash) else {
            return false;
        };
        let depth = node.view.tip().height.saturating_sub(entry.height);
        if node.view.prune() != Prune::Off && depth > LIMITED_DEPTH {
            node.close(link, CloseReason::benign("asks for a block that we do not offer"));
            return true;
        }
        if !entry.have_data || !may_have(node, &entry) {
            return false;
        }
        let deep = entry.height.saturating_add(MAX_COMPACT_DEPTH) < node.view.tip().height;
        let form = match form {
            BlockForm::Compact if deep => BlockForm::Whole,
            form => form,
        };
        let recent = self.recent(&hash).filter(|_| form != BlockForm::Stripped);
        if let Some(recent) = recent {
            match (&recent.compact, form) {
                (Some(compact), BlockForm::Compact) => {
                    let compact = Arc::clone(compact);
                    if let Some(peer) = node.ready(link) {
                        peer.serve
                            .put(Message::CompactBlock(compact), COMPACT_TX * recent.block.len());
                    }
                }
                _ => {
                    let raw = recent.block.raw.clone();
                    self.put_block(node, link, hash, raw);
                }
            }
        } else if let Some(peer) = node.ready(link) {
            peer.serve.reads += 1;
            node.out.job(Job::ReadBlock { link, hash, form });
        }
        true
    }

    fn put_block(&mut self, node: &mut Node, link: LinkId, hash: BlockHash, raw: Bytes) {
        let tip = node.view.tip().hash;
        let Some(peer) = node.ready(link) else { return };
        let bytes = raw.len();
        peer.serve.put(Message::RawBlock(raw), bytes);
        if peer.serve.continuation == Some(hash) {
            peer.serve.continuation = None;
            peer.serve.put(Message::Inv(vec![Inventory::Block(tip)]), 0);
        }
    }

    /// A read is done; `None` when the block cannot be had.
    pub(crate) fn on_read(
        &mut self,
        node: &mut Node,
        link: LinkId,
        hash: BlockHash,
        form: BlockForm,
        raw: Option<Bytes>,
    ) {
        let Some(peer) = node.ready(link) else { return };
        peer.serve.reads = peer.serve.reads.saturating_sub(1);
        // What is stored was a block when it was stored.
        let parsed = |raw| ParsedBlock::parse(raw).ok();
        match (raw, form) {
            (Some(raw), BlockForm::Whole | BlockForm::Stripped) => self.put_block(node, link, hash, raw),
            (Some(raw), BlockForm::Compact) => {
                let nonce = node.rng.random();
                let compact = parsed(raw.clone()).and_then(|block| CompactBlock::of(&block, nonce));
                match compact {
                    Some(compact) => node.send(link, Message::CompactBlock(Arc::new(compact))),
                    None => self.put_block(node, link, hash, raw),
                }
            }
            (Some(raw), BlockForm::Transactions(places)) => {
                if let Some(block) = parsed(raw) {
                    send_txs(node, link, &block, &places);
                }
            }
            (None, BlockForm::Whole) => node.send(link, Message::NotFound(vec![Inventory::WitnessBlock(hash)])),
            (None, BlockForm::Stripped) => node.send(link, Message::NotFound(vec![Inventory::Block(hash)])),
            (None, BlockForm::Compact) => node.send(link, Message::NotFound(vec![Inventory::CompactBlock(hash)])),
            (None, BlockForm::Transactions(_)) => {}
        }
        self.pump(node, link);
    }

    /// The link has drained.
    pub(crate) fn writable(&mut self, node: &mut Node, link: LinkId) {
        if let Some(peer) = node.ready(link) {
            peer.serve.draining = None;
            self.pump(node, link);
        }
    }

    /// Goes on when the driver does not tell that the link has drained.
    pub(crate) fn tick(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        if node
            .ready(link)
            .is_some_and(|peer| peer.serve.draining.is_some_and(|at| at <= now))
        {
            self.writable(node, link);
        }
    }

    /// `getblocks`: the inventories of the blocks that follow.
    pub(crate) fn on_getblocks(&mut self, node: &mut Node, link: LinkId, locator: &Locator) {
        let mut headers = node.view.headers_after(&locator.hashes, locator.stop, MAX_GETBLOCKS);
        if node.view.prune() != Prune::Off {
            let kept = node.view.tip().height.saturating_sub(LIKELY_KEPT);
            let likely = |header: &bitcoin::block::Header| {
                let entry = node.view.entry(&header.block_hash());
                entry.is_some_and(|entry| entry.have_data && entry.height > kept)
            };
            let end = headers.iter().position(|header| !likely(header));
            headers.truncate(end.unwrap_or(headers.len()));
        }
        let hashes: Vec<BlockHash> = headers.iter().map(|header| header.block_hash()).collect();
        let Some(peer) = node.ready(link) else { return };
        if hashes.len() == MAX_GETBLOCKS {
            peer.serve.continuation = hashes.last().copied();
        }
        let items: Vec<Inventory> = hashes
            .into_iter()
            .filter(|hash| *hash != locator.stop)
            .map(Inventory::Block)
            .collect();
        if !items.is_empty() {
            node.send(link, Message::Inv(items));
        }
    }
}

/// Whether a block is one that anybody may ask for: of the active chain, or a valid one that left it lately.
pub(crate) fn may_have(node: &Node, entry: &Entry) -> bool {
    let best = node.view.best_header().header.time;
    let fresh = u64::from(best.saturating_sub(entry.header.time)) < STALE_SECS;
    node.view.contains_in_active(&entry.hash) || (entry.status == Status::Valid && fresh)
}

/// Sends the transactions in these places of a block.
fn send_txs(node: &mut Node, link: LinkId, block: &ParsedBlock, places: &[u16]) {
    let tx = |place: &u16| {
        let raw = block.raw_tx(usize::from(*place))?;
        bitcoin::consensus::deserialize(&raw).ok().map(Arc::new)
    };
    match places.iter().map(tx).collect() {
        Some(txs) => node.send(link, Message::BlockTxn(BlockTxn { hash: block.hash, txs })),
        None => node.misbehaving(link, "getblocktxn with out-of-bounds tx indices"),
    }
}
