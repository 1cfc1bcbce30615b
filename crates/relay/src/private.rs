//! Own transactions told over links that nobody can tie to us, and to nobody else: private broadcast, as Bitcoin Core
//! 31 does it.
//!
//! Each goes to a few peers over a link of its own through Tor or another proxy. The link says nothing about us, carries
//! one transaction, asks by a ping whether it came, and ends. Our pool does not hold the transaction, and no ordinary
//! peer hears of it, until it comes back from one. What does not come back is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Wtxid};
use dunlin_peer::{CloseReason, LinkId, Now};
use rand::Rng;

use crate::interface::Job;
use crate::node::Node;
use crate::peer::Stage;
use crate::wire::{MIN_PEER_VERSION, Message, PROTOCOL_VERSION, Version};

/// To how many peers each transaction goes at first.
const PEERS: usize = 3;
/// Links of this kind at a time.
pub(crate) const MAX_LINKS: usize = 64;
/// Transactions that wait to come back.
const MAX_TXS: usize = 10_000;
/// A transaction that nobody took for so long is sent again...
const UNTAKEN: Duration = Duration::from_secs(5 * 60);
/// ...and so is one that did not come back so long after somebody did.
const UNSEEN: Duration = Duration::from_secs(60);
/// How often that is looked at: this long, and up to a minute more.
const LOOK: Duration = Duration::from_secs(2 * 60);
/// What every peer of this kind is called, whatever its program.
const USER_AGENT: &str = "/pynode:0.0.1/";

/// One transaction given to one peer.
#[derive(Clone, Copy, Debug)]
struct Sent {
    link: LinkId,
    at: Now,
    /// The ping that was sent after it.
    nonce: Option<u64>,
    confirmed: Option<Now>,
}

#[derive(Debug)]
struct Waiting {
    tx: Arc<Transaction>,
    since: Now,
    sent: Vec<Sent>,
}

impl Waiting {
    fn confirmed(&self) -> usize {
        self.sent.iter().filter(|sent| sent.confirmed.is_some()).count()
    }

    /// Those with the least come first.
    fn turn(&self) -> (usize, usize, Option<Now>) {
        let last = self.sent.iter().map(|sent| sent.at).max();
        (self.sent.len(), self.confirmed(), last)
    }

    fn is_stale(&self, now: Now) -> bool {
        match self.sent.iter().filter_map(|sent| sent.confirmed).max() {
            Some(confirmed) => now.since(confirmed) > UNSEEN,
            None => now.since(self.since) > UNTAKEN,
        }
    }
}

/// The transactions that have not come back.
#[derive(Debug, Default)]
pub(crate) struct PrivateBroadcast {
    txs: BTreeMap<Wtxid, Waiting>,
    to_open: usize,
    next_look: Option<Now>,
}

impl PrivateBroadcast {
    /// Our pool would take the transaction: it goes on its way.
    pub(crate) fn add(&mut self, node: &mut Node, tx: Arc<Transaction>) {
        if self.txs.len() >= MAX_TXS || self.txs.contains_key(&tx.compute_wtxid()) {
            return;
        }
        let waiting = Waiting {
            since: node.now,
            sent: Vec::new(),
            tx,
        };
        self.txs.insert(waiting.tx.compute_wtxid(), waiting);
        self.to_open += PEERS;
        if self.next_look.is_none() {
            self.next_look = Some(look(node));
        }
    }

    /// Whether another link is wanted.
    pub(crate) fn wants_link(&self) -> bool {
        self.to_open > 0 && !self.txs.is_empty()
    }

    /// A link is being dialled.
    pub(crate) fn dialled(&mut self) {
        self.to_open = self.to_open.saturating_sub(1);
    }

    /// Nothing came of a dial.
    pub(crate) fn failed(&mut self) {
        self.to_open += usize::from(!self.txs.is_empty());
    }

    /// A link ended.
    pub(crate) fn gone(&mut self, link: LinkId) {
        let confirmed = self.sent(link).is_some_and(|(_, sent)| sent.confirmed.is_some());
        if !confirmed {
            self.failed();
        }
    }

    /// The network knows the transaction.
    pub(crate) fn returned(&mut self, wtxid: &Wtxid) {
        if let Some(waiting) = self.txs.remove(wtxid) {
            self.to_open = self.to_open.saturating_sub(PEERS.saturating_sub(waiting.confirmed()));
        }
        if self.txs.is_empty() {
            (self.to_open, self.next_look) = (0, None);
        }
    }

    /// When [`PrivateBroadcast::tick`] has something to do.
    pub(crate) fn next(&self) -> Option<Now> {
        self.next_look
    }

    /// Looks for transactions that did not come back; those that our pool would still take are sent again.
    pub(crate) fn tick(&mut self, node: &mut Node) {
        if self.next_look.is_none_or(|at| at > node.now) {
            return;
        }
        self.next_look = Some(look(node));
        for waiting in self.txs.values().filter(|waiting| waiting.is_stale(node.now)) {
            let tx = Arc::clone(&waiting.tx);
            node.out.job(Job::TestTx { ticket: None, tx });
        }
    }

    /// What the pool says of a transaction that did not come back.
    pub(crate) fn judged(&mut self, tx: &Transaction, takes: bool) {
        let wtxid = tx.compute_wtxid();
        match takes && self.txs.contains_key(&wtxid) {
            true => self.to_open += 1,
            false => self.returned(&wtxid),
        }
    }

    fn sent(&mut self, link: LinkId) -> Option<(&Arc<Transaction>, &mut Sent)> {
        self.txs.values_mut().find_map(|waiting| {
            let sent = waiting.sent.iter_mut().find(|sent| sent.link == link)?;
            Some((&waiting.tx, sent))
        })
    }

    /// A message came on a link of this kind.
    pub(crate) fn received(&mut self, node: &mut Node, link: LinkId, msg: Message) {
        let Some(peer) = node.peers.get_mut(&link) else { return };
        let done = |node: &mut Node, text: &'static str| node.close(link, CloseReason::benign(text));
        match (peer.stage, msg) {
            (Stage::AwaitVersion, Message::Version(version)) => {
                if !version.relay || version.version < MIN_PEER_VERSION {
                    return done(node, "takes no transactions");
                }
                peer.stage = Stage::AwaitVerack;
                node.send(link, Message::Verack);
            }
            (Stage::AwaitVerack, Message::Verack) if self.sent(link).is_none() => self.offer(node, link),
            (Stage::AwaitVerack, Message::GetData(items)) => {
                let nonce = node.rng.random_range(1..=u64::MAX);
                let Some((tx, sent)) = self.sent(link) else {
                    return done(node, "asks for what was not offered");
                };
                let txid = tx.compute_txid();
                let asked = [Inventory::Transaction(txid), Inventory::WitnessTransaction(txid)];
                if !matches!(items[..], [item] if asked.contains(&item)) {
                    return done(node, "asks for what was not offered");
                }
                sent.nonce = Some(nonce);
                let tx = Arc::clone(tx);
                node.send(link, Message::Tx { tx, witness: true });
                node.send(link, Message::Ping(nonce));
            }
            (Stage::AwaitVerack, Message::Pong(nonce)) => {
                let now = node.now;
                if let Some((_, sent)) = self.sent(link)
                    && sent.nonce == Some(nonce)
                {
                    sent.confirmed = Some(now);
                    done(node, "has our transaction");
                }
            }
            _ => {}
        }
    }

    /// Offers the transaction whose turn it is.
    fn offer(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(waiting) = self.txs.values_mut().min_by_key(|waiting| waiting.turn()) else {
            return node.close(link, CloseReason::benign("nothing is left to tell"));
        };
        waiting.sent.push(Sent {
            link,
            at: now,
            nonce: None,
            confirmed: None,
        });
        let offer = Inventory::Transaction(waiting.tx.compute_txid());
        node.send(link, Message::Inv(vec![offer]));
    }
}

fn look(node: &mut Node) -> Now {
    node.now + LOOK + node.rng.random_range(Duration::ZERO..Duration::from_secs(60))
}

/// What we say of ourselves on such a link: nothing.
pub(crate) fn version(nonce: u64) -> Version {
    let nowhere = crate::wire::codec::no_addr();
    Version {
        version: PROTOCOL_VERSION,
        services: 0,
        timestamp: 0,
        receiver: nowhere,
        receiver_services: 0,
        nonce,
        user_agent: USER_AGENT.to_owned(),
        start_height: 0,
        relay: false,
    }
}
