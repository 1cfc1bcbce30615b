//! Announcing transactions: gathered for each peer, sent after random delays so that nobody learns from the times who
//! was first.
//!
//! Outbound peers have a timer each, with a mean of two seconds; all inbound peers share one of five seconds, so that
//! opening many links tells no more than opening one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Wtxid};
use dunlin_peer::{LinkId, Now};

use super::TxRelay;
use crate::node::Node;
use crate::peer::Peer;
use crate::wire::Message;

const INBOUND_MEAN: Duration = Duration::from_secs(5);
const OUTBOUND_MEAN: Duration = Duration::from_secs(2);
/// Announcements that go out at once: fourteen a second over the inbound interval, more when many are waiting.
const TARGET: usize = 14 * 5;
const MAX: usize = 1_000;
/// Announcements kept for a peer; more are dropped, the peer hears of them from others.
const MAX_WAITING: usize = 50_000;

/// When this peer's announcements are due.
pub(crate) fn next(peer: &Peer) -> Option<Now> {
    peer.tx.next_inv.filter(|_| !peer.tx.to_send.is_empty())
}

/// A transaction to announce, with what decides about its turn.
struct Candidate {
    /// Satoshi per 1000 virtual bytes.
    rate: u64,
    txid: Txid,
    wtxid: Wtxid,
    tx: Arc<Transaction>,
}

impl TxRelay {
    /// Every peer that lacks this transaction is to hear of it.
    pub(super) fn announce(&mut self, node: &mut Node, txid: Txid, wtxid: Wtxid) {
        for link in node.ready_links() {
            let salt = node.salt;
            let Some(peer) = node.ready(link) else { continue };
            let used = if peer.wtxid_relay {
                wtxid.to_byte_array()
            } else {
                txid.to_byte_array()
            };
            if !peer.tx.wanted || peer.tx.known.contains(salt.shorten(&used)) || peer.tx.to_send.len() >= MAX_WAITING {
                continue;
            }
            peer.tx.to_send.insert(wtxid);
            self.schedule(node, link);
        }
    }

    fn schedule(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link) else { return };
        if peer.tx.next_inv.is_some() {
            return;
        }
        let inbound = peer.is_inbound();
        let at = if node.config.immediate {
            now
        } else if inbound {
            match self.next_inbound.filter(|at| *at > now) {
                Some(at) => at,
                None => {
                    let at = now + node.exponential(INBOUND_MEAN);
                    self.next_inbound = Some(at);
                    at
                }
            }
        } else {
            now + node.exponential(OUTBOUND_MEAN)
        };
        if let Some(peer) = node.ready(link) {
            peer.tx.next_inv = Some(at);
        }
    }

    /// Announces what is due to this peer.
    pub(crate) fn flush(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link) else { return };
        if next(peer).is_none_or(|at| at > now) {
            return;
        }
        peer.tx.next_inv = None;
        let waiting = std::mem::take(&mut peer.tx.to_send);
        let (filter, wtxid_relay) = (peer.tx.fee_filter, peer.wtxid_relay);
        let max = match node.config.immediate {
            true => waiting.len(),
            false => (TARGET + waiting.len() / 1000 * 5).min(MAX),
        };
        let mut candidates = Vec::new();
        {
            let pool = node.pool();
            for wtxid in &waiting {
                let Some(entry) = pool.entry_by_wtxid(wtxid) else {
                    continue;
                };
                let rate = entry.fee.to_sat().saturating_mul(1000) / entry.vsize.max(1);
                if i64::try_from(rate).unwrap_or(i64::MAX) >= filter {
                    candidates.push(Candidate {
                        rate,
                        txid: entry.txid,
                        wtxid: *wtxid,
                        tx: entry.tx.clone(),
                    });
                }
            }
        }
        let ordered = in_order(candidates);
        let (now_sent, later) = ordered.split_at(max.min(ordered.len()));
        let later: BTreeSet<Wtxid> = later.iter().map(|(_, wtxid)| *wtxid).collect();
        let salt = node.salt;
        let Some(peer) = node.ready(link) else { return };
        peer.tx.to_send = later;
        let mut items = Vec::with_capacity(now_sent.len());
        for (txid, wtxid) in now_sent {
            let used = if wtxid_relay {
                wtxid.to_byte_array()
            } else {
                txid.to_byte_array()
            };
            let short = salt.shorten(&used);
            // The peer may have announced it to us in the meantime.
            if !peer.tx.known.contains(short) {
                peer.tx.known.insert(short);
                items.push(if wtxid_relay {
                    Inventory::WTx(*wtxid)
                } else {
                    Inventory::Transaction(*txid)
                });
            }
        }
        let rest = !peer.tx.to_send.is_empty();
        for part in items.chunks(crate::wire::MAX_INV) {
            node.send(link, Message::Inv(part.to_vec()));
        }
        if rest {
            self.schedule(node, link);
        }
    }
}

/// Best fee rates first, but parents before their children.
fn in_order(mut candidates: Vec<Candidate>) -> Vec<(Txid, Wtxid)> {
    candidates.sort_by(|a, b| b.rate.cmp(&a.rate).then(a.wtxid.cmp(&b.wtxid)));
    let places: BTreeMap<Txid, usize> = candidates
        .iter()
        .enumerate()
        .map(|(place, c)| (c.txid, place))
        .collect();
    let mut done = vec![false; candidates.len()];
    let mut ordered = Vec::with_capacity(candidates.len());
    for start in 0..candidates.len() {
        let mut stack = vec![start];
        while let Some(&place) = stack.last() {
            let parents = candidates[place]
                .tx
                .input
                .iter()
                .map(|input| input.previous_output.txid);
            let waiting = parents
                .filter_map(|parent| places.get(&parent))
                .find(|parent| !done[**parent]);
            match waiting {
                // Transactions cannot form a circle, so the stack is never longer than the list.
                Some(parent) if !done[place] && stack.len() <= candidates.len() => stack.push(*parent),
                _ => {
                    stack.pop();
                    if !std::mem::replace(&mut done[place], true) {
                        ordered.push((candidates[place].txid, candidates[place].wtxid));
                    }
                }
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use bitcoin::{OutPoint, ScriptBuf, Sequence, TxIn, Witness, absolute, transaction};

    use super::*;

    fn candidate(rate: u64, parents: &[Txid]) -> Candidate {
        let input = |parent: &Txid| TxIn {
            previous_output: OutPoint::new(*parent, 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let tx = Arc::new(Transaction {
            version: transaction::Version(rate as i32),
            lock_time: absolute::LockTime::ZERO,
            input: parents.iter().map(input).collect(),
            output: Vec::new(),
        });
        Candidate {
            rate,
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            tx,
        }
    }

    #[test]
    fn rich_first_but_parents_before_children() {
        let outside = Txid::all_zeros();
        let grandparent = candidate(1, &[outside]);
        let parent = candidate(2, &[grandparent.txid]);
        let child = candidate(100, &[parent.txid, outside]);
        let other = candidate(50, &[outside]);
        let want = [grandparent.txid, parent.txid, child.txid, other.txid];
        let got: Vec<Txid> = in_order(vec![other, child, parent, grandparent])
            .into_iter()
            .map(|(txid, _)| txid)
            .collect();
        assert_eq!(got, want);
    }
}
