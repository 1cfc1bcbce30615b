//! Transactions: hearing of them, fetching, judging, passing on.

pub(crate) mod announce;
pub(crate) mod feefilter;
mod orphans;
mod packages;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Wtxid};
use dunlin_chain::ParsedBlock;
use dunlin_mempool::{Accepted, PoolReject, RejectKind as PoolRejectKind};
use dunlin_peer::{LinkId, Now};

pub use requests::TxId;
pub(crate) use requests::{DELAY, MAX_IN_FLIGHT, Requests};

use self::orphans::Orphans;
use crate::interface::{Event, Job, TxSource};
use crate::known::{Known, Salt};
use crate::node::Node;
use crate::wire::Message;

/// Transactions that a peer is known to have, remembered at least.
const KNOWN_TXS: usize = 25_000;
/// Refused transactions remembered at least, until the tip changes.
const REJECTED: usize = 60_000;
/// Transactions of recent blocks remembered at least.
const CONFIRMED: usize = 24_000;
/// `getdata` is split into parts of this many items.
const MAX_GETDATA: usize = 1_000;
/// Transactions of one peer waiting for their verdict; more are dropped.
const MAX_JUDGING: usize = 1_000;
/// How often orphans are looked at.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(60);

/// The transactions of one peer.
#[derive(Clone, Debug)]
pub(crate) struct TxState {
    /// The peer wants transactions (BIP 37's flag in its version).
    pub(crate) wanted: bool,
    /// What it has, by the identifiers that are used with it.
    known: Known,
    /// What is to be announced to it.
    to_send: BTreeSet<Wtxid>,
    /// When the next announcements go out.
    next_inv: Option<Now>,
    /// It wants nothing below this, satoshi per 1000 virtual bytes.
    pub(crate) fee_filter: i64,
    /// What we told it, and when we look at that again.
    fee_sent: i64,
    next_fee: Now,
    /// When it last gave a transaction that was accepted.
    pub(crate) last: Option<Now>,
}

impl Default for TxState {
    fn default() -> Self {
        Self {
            wanted: true,
            known: Known::new(KNOWN_TXS),
            to_send: BTreeSet::new(),
            next_inv: None,
            fee_filter: 0,
            fee_sent: 0,
            next_fee: Now::default(),
            last: None,
        }
    }
}

impl TxState {
    /// Whether the announcement of this transaction to the peer is still to come.
    pub(crate) fn unannounced(&self, wtxid: &Wtxid) -> bool {
        self.to_send.contains(wtxid)
    }
}

/// The state shared by all peers.
#[derive(Debug)]
pub(crate) struct TxRelay {
    requests: Requests,
    orphans: Orphans,
    rejected: Known,
    /// Refused for what they pay by themselves, and pairs of parent and child that were judged together.
    reconsiderable: Known,
    confirmed: Known,
    /// Given to the mempool, not judged yet.
    judging: BTreeSet<Wtxid>,
    judging_of: BTreeMap<LinkId, usize>,
    /// When announcements to all inbound peers go out together.
    next_inbound: Option<Now>,
    next_orphans: Now,
}

impl TxRelay {
    pub(crate) fn new(salt: Salt) -> Self {
        Self {
            requests: Requests::new(salt),
            orphans: Orphans::default(),
            rejected: Known::new(REJECTED),
            reconsiderable: Known::new(REJECTED),
            confirmed: Known::new(CONFIRMED),
            judging: BTreeSet::new(),
            judging_of: BTreeMap::new(),
            next_inbound: None,
            next_orphans: Now::default(),
        }
    }

    /// When [`TxRelay::pump`] has something to do.
    pub(crate) fn next(&self) -> Option<Now> {
        let orphans = (self.orphans.len() > 0).then_some(self.next_orphans);
        self.requests.next().into_iter().chain(orphans).min()
    }

    fn have(&self, node: &Node, id: &TxId) -> bool {
        let short = node.salt.shorten(&id.bytes());
        if self.rejected.contains(short) || self.confirmed.contains(short) {
            return true;
        }
        match id {
            TxId::Txid(txid) => node.pool().contains(txid),
            TxId::Wtxid(wtxid) => {
                self.judging.contains(wtxid) || self.orphans.contains(wtxid) || node.pool().contains_wtxid(wtxid)
            }
        }
    }

    /// A peer announced a transaction. Identifiers that do not fit what was agreed (BIP 339) are ignored.
    pub(crate) fn on_inv(&mut self, node: &mut Node, link: LinkId, id: TxId, downloading: bool) {
        let salt = node.salt;
        let Some(peer) = node.ready(link) else { return };
        if peer.wtxid_relay != matches!(id, TxId::Wtxid(_)) {
            return;
        }
        peer.tx.known.insert(salt.shorten(&id.bytes()));
        if downloading {
            return;
        }
        if let TxId::Wtxid(wtxid) = id
            && let Some(tx) = self.orphans.tx(&wtxid).cloned()
        {
            // Whoever announces an orphan may have its parents.
            self.orphans.add_announcer(&wtxid, link);
            return self.ask_for_parents(node, link, &tx);
        }
        if !self.have(node, &id) && !self.pays_too_little(node, &id) {
            self.request(node, link, id);
        }
    }

    fn request(&mut self, node: &Node, link: LinkId, id: TxId) {
        let Some(peer) = node.peers.get(&link) else { return };
        let preferred = !peer.is_inbound();
        let mut delay = Duration::ZERO;
        if !node.config.immediate {
            if !preferred {
                delay += DELAY;
            }
            if matches!(id, TxId::Txid(_)) && node.peers.values().any(|peer| peer.is_ready() && peer.wtxid_relay) {
                delay += DELAY;
            }
        }
        if self.requests.in_flight(link) >= MAX_IN_FLIGHT {
            delay += DELAY;
        }
        self.requests.announce(link, id, preferred, node.now + delay);
    }

    fn ask_for_parents(&mut self, node: &Node, link: LinkId, tx: &Transaction) {
        let parents: BTreeSet<Txid> = tx.input.iter().map(|input| input.previous_output.txid).collect();
        if self.requests.count(link) + parents.len() > requests::MAX_ANNOUNCEMENTS {
            return;
        }
        for parent in parents {
            let id = TxId::Txid(parent);
            if !self.have(node, &id) {
                self.request(node, link, id);
            }
        }
    }

    /// Sends the requests that are due.
    pub(crate) fn pump(&mut self, node: &mut Node) {
        if self.next().is_none_or(|at| at > node.now) {
            return;
        }
        for (link, ids) in self.requests.due(node.now) {
            let mut items = Vec::new();
            for id in ids {
                if self.have(node, &id) {
                    self.requests.forget(id.bytes());
                    continue;
                }
                items.push(match id {
                    TxId::Txid(txid) => Inventory::WitnessTransaction(txid),
                    TxId::Wtxid(wtxid) => Inventory::WTx(wtxid),
                });
            }
            for part in items.chunks(MAX_GETDATA) {
                node.send(link, Message::GetData(part.to_vec()));
            }
        }
        if self.next_orphans <= node.now {
            self.next_orphans = node.now + ORPHAN_INTERVAL;
            self.orphans.expire(node.now);
        }
    }

    /// A peer has not got what it was asked for.
    pub(crate) fn on_notfound(&mut self, link: LinkId, id: TxId) {
        self.requests.answered(link, id.bytes());
    }

    /// A transaction came, asked for or not.
    pub(crate) fn on_tx(&mut self, node: &mut Node, link: LinkId, tx: Arc<Transaction>) {
        if node.is_initial_download() {
            // There are not enough coins to judge it by.
            return;
        }
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let salt = node.salt;
        let Some(peer) = node.ready(link) else { return };
        let used = if peer.wtxid_relay {
            wtxid.to_byte_array()
        } else {
            txid.to_byte_array()
        };
        peer.tx.known.insert(salt.shorten(&used));
        self.requests.answered(link, txid.to_byte_array());
        self.requests.answered(link, wtxid.to_byte_array());
        let known = self.have(node, &TxId::Wtxid(wtxid)) || self.confirmed.contains(salt.shorten(txid.as_ref()));
        if known || self.judging_of.get(&link).is_some_and(|count| *count >= MAX_JUDGING) {
            return;
        }
        if self.pays_too_little(node, &TxId::Wtxid(wtxid)) {
            // By itself it would be refused again; the child that asked for it may pay for it.
            return self.try_with_child(node, link, &tx);
        }
        self.judge(node, link, tx, wtxid);
    }

    fn judge(&mut self, node: &mut Node, link: LinkId, tx: Arc<Transaction>, wtxid: Wtxid) {
        if self.judging.insert(wtxid) {
            *self.judging_of.entry(link).or_default() += 1;
            node.peer_job(
                link,
                Job::AcceptTx {
                    source: TxSource::Peer(link),
                    tx,
                },
            );
        }
    }

    /// The mempool judged a transaction.
    pub(crate) fn on_done(
        &mut self,
        node: &mut Node,
        source: TxSource,
        tx: &Arc<Transaction>,
        result: &Result<Accepted, PoolReject>,
    ) {
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let from = match source {
            TxSource::Own(_) => None,
            TxSource::Peer(link) => {
                self.judging.remove(&wtxid);
                if let Some(count) = self.judging_of.get_mut(&link) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.judging_of.remove(&link);
                    }
                }
                Some(link)
            }
        };
        let known = matches!(result, Err(reject) if reject.kind == PoolRejectKind::AlreadyKnown);
        match result {
            Ok(_) => self.accepted(node, from, txid, wtxid),
            // Submitting again what is in the pool announces it again.
            Err(_) if known && from.is_none() => self.announce(node, txid, wtxid),
            Err(reject) => {
                if let Some(link) = from {
                    self.refused(node, link, tx, reject, true);
                }
            }
        }
    }

    /// How many orphans there are, and the most announcements of one of these peers.
    pub(crate) fn held<'a>(&self, links: impl Iterator<Item = &'a LinkId>) -> (usize, usize) {
        let announced = links.map(|link| self.requests.count(*link)).max();
        (self.orphans.len(), announced.unwrap_or(0))
    }

    /// A transaction is in the mempool.
    fn accepted(&mut self, node: &mut Node, from: Option<LinkId>, txid: Txid, wtxid: Wtxid) {
        node.out.event(Event::TxAccepted { txid, wtxid, from });
        if let Some(peer) = from.and_then(|link| node.peers.get_mut(&link)) {
            peer.tx.last = Some(node.now);
        }
        self.settled(txid, wtxid);
        self.announce(node, txid, wtxid);
        for (link, child) in self.orphans.children(txid) {
            let wtxid = child.compute_wtxid();
            self.judge(node, link, child, wtxid);
        }
    }

    fn settled(&mut self, txid: Txid, wtxid: Wtxid) {
        self.orphans.remove(&wtxid);
        self.requests.forget(txid.to_byte_array());
        self.requests.forget(wtxid.to_byte_array());
    }

    /// `first`: it was judged by itself, so a child may still help.
    fn refused(&mut self, node: &mut Node, link: LinkId, tx: &Arc<Transaction>, reject: &PoolReject, first: bool) {
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        node.out.event(Event::TxRejected {
            txid,
            reason: reject.reason.clone(),
            from: link,
        });
        match &reject.kind {
            PoolRejectKind::MissingInputs(_) => self.adopt(node, link, tx),
            PoolRejectKind::Reconsiderable => {
                self.settled(txid, wtxid);
                self.reconsiderable.insert(node.salt.shorten(wtxid.as_ref()));
                if first {
                    self.try_with_child(node, link, tx);
                }
            }
            PoolRejectKind::Store => {}
            PoolRejectKind::AlreadyKnown => self.settled(txid, wtxid),
            PoolRejectKind::Policy | PoolRejectKind::Consensus => {
                self.orphans.remove(&wtxid);
                self.requests.forget(wtxid.to_byte_array());
                let bare = tx.input.iter().all(|input| input.witness.is_empty());
                // Without its witness the same transaction has its txid as wtxid; somebody may have stripped it, so
                // a failed script says nothing about the whole one.
                if !(bare && reject.reason.contains("script-verify-flag")) {
                    self.rejected.insert(node.salt.shorten(wtxid.as_ref()));
                }
            }
        }
    }

    /// Keeps a transaction whose parents are missing, and asks its announcers for them.
    fn adopt(&mut self, node: &mut Node, link: LinkId, tx: &Arc<Transaction>) {
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let refused = |parent: &Txid| self.refused_parent(node.salt, parent);
        if tx.input.iter().any(|input| refused(&input.previous_output.txid)) {
            // It will not do better than its parent.
            self.rejected.insert(node.salt.shorten(wtxid.as_ref()));
            return self.settled(txid, wtxid);
        }
        let mut announcers = self.requests.candidates(wtxid.as_ref());
        announcers.extend(self.requests.candidates(txid.as_ref()));
        self.requests.forget(txid.to_byte_array());
        self.requests.forget(wtxid.to_byte_array());
        if self.orphans.contains(&wtxid) {
            return;
        }
        for link in std::iter::once(link).chain(announcers) {
            if node.peers.get(&link).is_some_and(|peer| peer.is_ready()) && self.orphans.add(node.now, tx.clone(), link)
            {
                self.ask_for_parents(node, link, tx);
            }
        }
    }

    /// A block joined the active chain: nobody needs to be asked for its transactions any more.
    pub(crate) fn block_connected(&mut self, node: &Node, block: &ParsedBlock) {
        for (txid, wtxid) in block.txids.iter().zip(&block.wtxids) {
            self.confirmed.insert(node.salt.shorten(txid.as_ref()));
            self.confirmed.insert(node.salt.shorten(wtxid.as_ref()));
            self.settled(*txid, *wtxid);
        }
        let spent = block.transactions().skip(1).flat_map(|tx| tx.previous_outputs());
        self.orphans.spent(spent);
    }

    /// The tip changed: what was refused may be fine now, what a lost block confirmed may come again.
    pub(crate) fn tip_changed(&mut self, disconnected: bool) {
        self.rejected.clear();
        self.reconsiderable.clear();
        if disconnected {
            self.confirmed.clear();
        }
    }

    pub(crate) fn disconnected(&mut self, link: LinkId) {
        self.requests.disconnected(link);
        self.orphans.disconnected(link);
    }
}
