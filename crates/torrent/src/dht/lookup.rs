//! A search through the key space: asks the nearest nodes known for nearer ones until the nearest have all answered.

use std::net::SocketAddr;

use dunlin_peer::is_public;

use super::items::Item;
use super::krpc::{Contact, Put, Query, Want};
use super::node_id::NodeId;
use super::table::K;
use crate::InfoHash;

/// Questions on their way at once.
const PARALLEL: usize = 5;
/// Nodes remembered; the farthest are dropped.
const MAX_CANDIDATES: usize = 128;
/// Nodes taken from one answer: one liar cannot fill the list.
const NODES_PER_ANSWER: usize = 16;
/// Nodes asked in all, whatever they promise.
const MAX_ASKED: usize = 100;

/// What a search is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// To meet nodes.
    Nodes,
    /// Peers of a torrent; afterwards the nearest nodes are told of us.
    Peers { announce: Announce },
    /// An item; of a mutable one the newest.
    Item {
        ticket: u64,
        salt: Vec<u8>,
        newest: Option<Item>,
    },
    /// The nodes that are to keep an item.
    Store { ticket: u64, put: Put },
}

/// What the nearest nodes are told of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Nothing.
    No,
    /// That we are a peer, at this port.
    Port(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    /// `None` for an address that was named without a name; it is asked first and never counts as near.
    id: Option<NodeId>,
    addr: SocketAddr,
    state: State,
    token: Option<Vec<u8>>,
}

/// One search.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) target: NodeId,
    pub(crate) v4: bool,
    pub(crate) purpose: Purpose,
    /// Nearest first.
    candidates: Vec<Candidate>,
    asked: usize,
    /// Peers found so far, each once.
    pub(crate) found: usize,
}

impl Lookup {
    pub(crate) fn new(target: NodeId, v4: bool, purpose: Purpose) -> Self {
        Self {
            target,
            v4,
            purpose,
            candidates: Vec::new(),
            asked: 0,
            found: 0,
        }
    }

    /// The question to ask each node.
    pub(crate) fn query(&self) -> Query {
        let (target, want) = (self.target, Want::default());
        match self.purpose {
            Purpose::Nodes => Query::FindNode { target, want },
            Purpose::Peers { .. } => Query::GetPeers {
                info_hash: InfoHash(target.0),
                want,
            },
            Purpose::Item { .. } | Purpose::Store { .. } => Query::Get {
                target,
                sequence: None,
                want,
            },
        }
    }

    /// Learns of a node; `id` is `None` when only its address is known.
    pub(crate) fn learn(&mut self, id: Option<NodeId>, addr: SocketAddr) {
        let public = is_public(addr.ip());
        let known = |candidate: &Candidate| {
            candidate.addr == addr
                || (id.is_some() && candidate.id == id)
                || (public && candidate.addr.ip() == addr.ip())
        };
        if addr.is_ipv4() != self.v4 || addr.port() == 0 || self.candidates.iter().any(known) {
            return;
        }
        let rank = |id: &Option<NodeId>| id.map(|id| id.distance(&self.target));
        let at = self
            .candidates
            .partition_point(|candidate| rank(&candidate.id) <= rank(&id));
        let candidate = Candidate {
            id,
            addr,
            state: State::New,
            token: None,
        };
        self.candidates.insert(at, candidate);
        if self.candidates.len() > MAX_CANDIDATES
            && let Some(last) = self
                .candidates
                .iter()
                .rposition(|candidate| candidate.state == State::New)
        {
            self.candidates.remove(last);
        }
    }

    /// Whom to ask now; `None` while enough questions are on their way, or nobody is left to ask.
    pub(crate) fn next(&mut self) -> Option<SocketAddr> {
        let in_flight = self
            .candidates
            .iter()
            .filter(|candidate| candidate.state == State::Asked)
            .count();
        if in_flight >= PARALLEL || self.asked >= MAX_ASKED {
            return None;
        }
        let mut near = 0;
        let next = self.candidates.iter_mut().find(|candidate| {
            // Only the K nearest that may still answer are worth a question.
            let within = near < K;
            if candidate.id.is_some() && candidate.state != State::Failed {
                near += 1;
            }
            within && candidate.state == State::New
        })?;
        next.state = State::Asked;
        self.asked += 1;
        Some(next.addr)
    }

    /// A node answered.
    pub(crate) fn answered(&mut self, from: Contact, token: Option<Vec<u8>>, nodes: &[Contact]) {
        if let Some(at) = self.candidates.iter().position(|candidate| candidate.addr == from.addr) {
            let mut candidate = self.candidates.remove(at);
            if candidate.id != Some(from.id) {
                // Its place follows from the name that it answers with.
                self.candidates.retain(|other| other.id != Some(from.id));
                candidate.id = Some(from.id);
            }
            candidate.state = State::Answered;
            candidate.token = token;
            let distance = from.id.distance(&self.target);
            let at = self
                .candidates
                .partition_point(|other| other.id.is_none_or(|id| id.distance(&self.target) <= distance));
            self.candidates.insert(at, candidate);
        }
        for node in nodes.iter().take(NODES_PER_ANSWER) {
            self.learn(Some(node.id), node.addr);
        }
    }

    /// A node did not answer, or not with an answer.
    pub(crate) fn failed(&mut self, addr: SocketAddr) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.addr == addr) {
            candidate.state = State::Failed;
        }
    }

    /// Whether the search is over. Ask [`Lookup::next`] first.
    pub(crate) fn is_over(&self) -> bool {
        self.candidates.iter().all(|candidate| candidate.state != State::Asked)
    }

    /// The nearest nodes that answered, with the tokens they gave.
    pub(crate) fn holders(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let answered = self
            .candidates
            .iter()
            .filter(|candidate| candidate.state == State::Answered);
        answered
            .take(K)
            .filter_map(|candidate| Some((candidate.addr, candidate.token.clone()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A thousand nodes that each know the fifty nearest to themselves and fifty others.
    #[test]
    fn the_nearest_nodes_are_found_though_a_third_is_dead_and_a_tenth_lies() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let ids: Vec<NodeId> = (0..1000).map(|_| NodeId::random(&mut rng)).collect();
        let addr = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1000));
        let number: BTreeMap<SocketAddr, usize> = (0..1000).map(|n| (addr(n), n)).collect();
        let contact = |n: usize| Contact {
            id: ids[n],
            addr: addr(n),
        };
        let target = NodeId::random(&mut rng);
        let mut lookup = Lookup::new(target, true, Purpose::Peers { announce: Announce::No });
        lookup.learn(None, addr(0));
        let dead = |n: usize| n % 3 == 1;
        let mut asked = 0;
        while let Some(to) = lookup.next() {
            asked += 1;
            let n = number.get(&to).copied();
            match n {
                Some(n) if !dead(n) => {
                    let mut known: Vec<usize> = (0..1000).collect();
                    known.sort_by_key(|other| ids[*other].distance(&target));
                    // A far node knows somewhat nearer ones; a near one knows its neighbourhood.
                    let shared = ids[n].shared_bits(&target);
                    let step = if shared < 5 { shared + 3 } else { 160 };
                    let near = known.iter().filter(|other| ids[**other].shared_bits(&target) <= step);
                    let mut nodes: Vec<Contact> = near.take(8).map(|other| contact(*other)).collect();
                    if n % 10 == 0 && n > 0 {
                        let fake = |k: usize| Contact {
                            id: NodeId([(n + k) as u8; 20]),
                            addr: SocketAddr::from(([99, 0, 0, k as u8], 9)),
                        };
                        nodes = (0..200).map(fake).collect();
                    }
                    lookup.answered(contact(n), Some(vec![n as u8]), &nodes);
                }
                _ => lookup.failed(to),
            }
        }
        assert!(lookup.is_over());
        let mut alive: Vec<usize> = (0..1000).filter(|n| !dead(*n)).collect();
        alive.sort_by_key(|n| ids[*n].distance(&target));
        let found: Vec<SocketAddr> = lookup.holders().into_iter().map(|(addr, _)| addr).collect();
        assert_eq!(found.len(), K);
        assert_eq!(found[0], addr(alive[0]));
        let near = found.iter().filter(|addr| alive[..12].contains(&number[addr])).count();
        assert!(near >= 6, "{near} of the nearest twelve");
        assert!(asked <= MAX_ASKED, "{asked}");
    }

    #[test]
    fn a_search_that_nobody_answers_ends() {
        let mut lookup = Lookup::new(NodeId([0; 20]), true, Purpose::Nodes);
        assert!(lookup.next().is_none() && lookup.is_over());
        for n in 1..=20 {
            lookup.learn(Some(NodeId([n; 20])), SocketAddr::from(([10, 0, 0, n], 1)));
        }
        lookup.learn(
            Some(NodeId([30; 20])),
            "[2001::1]:5".parse().unwrap_or(SocketAddr::from(([0; 4], 0))),
        );
        let mut asked = 0;
        loop {
            let batch: Vec<SocketAddr> = std::iter::from_fn(|| lookup.next()).collect();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= PARALLEL && !lookup.is_over());
            asked += batch.len();
            batch.into_iter().for_each(|addr| lookup.failed(addr));
        }
        assert_eq!((asked, lookup.is_over()), (20, true));
    }
}
