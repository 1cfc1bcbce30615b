//! Which peer to ask for which transaction, and when.
//!
//! Each transaction is asked of one peer at a time: outbound peers first, among equals by a salted draw that nobody
//! can predict, and when the answer does not come within [`REQUEST_TIMEOUT`] the next announcer is asked. What one
//! peer can make us remember is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Txid, Wtxid};
use dunlin_peer::{LinkId, Now};

use crate::known::Salt;

/// Most announcements remembered of one peer.
pub(crate) const MAX_ANNOUNCEMENTS: usize = 5_000;
/// From this many requests under way on, a peer's further announcements wait longer.
pub(crate) const MAX_IN_FLIGHT: usize = 100;
/// When the next announcer is asked.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long outbound peers have the first chance, how long wtxid announcements have, and how much later an
/// overloaded peer is asked.
pub(crate) const DELAY: Duration = Duration::from_secs(2);

/// How a transaction was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxId {
    /// By its txid.
    Txid(Txid),
    /// By its wtxid (BIP 339).
    Wtxid(Wtxid),
}

impl TxId {
    /// The 32 bytes, whichever identifier it is.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        match self {
            Self::Txid(id) => id.to_byte_array(),
            Self::Wtxid(id) => id.to_byte_array(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be asked from this instant on.
    Waiting(Now),
    /// Asked; the answer is due at this instant.
    Asked(Now),
    /// Answered, refused or timed out.
    Over,
}

#[derive(Clone, Debug)]
struct Announcement {
    state: State,
    preferred: bool,
    sequence: u64,
    priority: u64,
    id: TxId,
}

#[derive(Clone, Debug, Default)]
struct PeerLoad {
    announced: BTreeSet<[u8; 32]>,
    in_flight: usize,
}

/// The announcements of all peers.
#[derive(Debug)]
pub(crate) struct Requests {
    salt: Salt,
    txs: BTreeMap<[u8; 32], BTreeMap<LinkId, Announcement>>,
    peers: BTreeMap<LinkId, PeerLoad>,
    timers: BTreeSet<(Now, [u8; 32], LinkId)>,
    touched: BTreeSet<[u8; 32]>,
    sequence: u64,
}

impl Requests {
    pub(crate) fn new(salt: Salt) -> Self {
        Self {
            salt,
            txs: BTreeMap::new(),
            peers: BTreeMap::new(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            sequence: 0,
        }
    }

    /// How many requests to this peer are under way.
    pub(crate) fn in_flight(&self, link: LinkId) -> usize {
        self.peers.get(&link).map_or(0, |load| load.in_flight)
    }

    /// How many announcements of this peer are remembered.
    pub(crate) fn count(&self, link: LinkId) -> usize {
        self.peers.get(&link).map_or(0, |load| load.announced.len())
    }

    /// A peer has a transaction; it may be asked at `ready`. Announcing twice changes nothing.
    pub(crate) fn announce(&mut self, link: LinkId, id: TxId, preferred: bool, ready: Now) {
        let hash = id.bytes();
        let load = self.peers.entry(link).or_default();
        if load.announced.len() >= MAX_ANNOUNCEMENTS || !load.announced.insert(hash) {
            return;
        }
        let mut seed = [0; 40];
        seed[..32].copy_from_slice(&hash);
        seed[32..].copy_from_slice(&link.0.to_le_bytes());
        self.sequence += 1;
        let announcement = Announcement {
            state: State::Waiting(ready),
            preferred,
            sequence: self.sequence,
            priority: self.salt.shorten(&seed),
            id,
        };
        self.txs.entry(hash).or_default().insert(link, announcement);
        self.timers.insert((ready, hash, link));
        self.touched.insert(hash);
    }

    /// A peer answered for this transaction: with it, or that it has it not.
    pub(crate) fn answered(&mut self, link: LinkId, hash: [u8; 32]) {
        self.finish(link, hash);
    }

    /// Nobody needs to be asked for this transaction any more.
    pub(crate) fn forget(&mut self, hash: [u8; 32]) {
        for (link, announcement) in self.txs.remove(&hash).unwrap_or_default() {
            self.untrack(link, hash, &announcement);
        }
    }

    /// A peer is gone.
    pub(crate) fn disconnected(&mut self, link: LinkId) {
        let announced = self
            .peers
            .get(&link)
            .map(|load| load.announced.clone())
            .unwrap_or_default();
        for hash in announced {
            if let Some(all) = self.txs.get_mut(&hash)
                && let Some(announcement) = all.remove(&link)
            {
                self.untrack(link, hash, &announcement);
                self.settle(hash);
            }
        }
        self.peers.remove(&link);
    }

    /// Peers that announced this transaction and were not asked in vain.
    pub(crate) fn candidates(&self, hash: &[u8; 32]) -> Vec<LinkId> {
        let all = self.txs.get(hash).into_iter().flatten();
        all.filter(|(_, announcement)| announcement.state != State::Over)
            .map(|(link, _)| *link)
            .collect()
    }

    /// When [`Requests::due`] has something to do.
    pub(crate) fn next(&self) -> Option<Now> {
        if !self.touched.is_empty() {
            return Some(Now::default());
        }
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// What to ask of whom now, in the order of the announcements. The requests count as made.
    pub(crate) fn due(&mut self, now: Now) -> BTreeMap<LinkId, Vec<TxId>> {
        while let Some(&(at, hash, link)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let state = self
                .txs
                .get(&hash)
                .and_then(|all| all.get(&link))
                .map(|announcement| announcement.state);
            match state {
                Some(State::Asked(_)) => self.finish(link, hash),
                Some(_) => {
                    self.touched.insert(hash);
                }
                None => {}
            }
        }
        let mut asks: BTreeMap<LinkId, Vec<(u64, TxId)>> = BTreeMap::new();
        while let Some(hash) = self.touched.pop_first() {
            if let Some((link, sequence, id)) = self.choose(hash, now) {
                asks.entry(link).or_default().push((sequence, id));
            }
        }
        let in_order = |mut list: Vec<(u64, TxId)>| {
            list.sort_unstable();
            list.into_iter().map(|(_, id)| id).collect()
        };
        asks.into_iter().map(|(link, list)| (link, in_order(list))).collect()
    }

    fn choose(&mut self, hash: [u8; 32], now: Now) -> Option<(LinkId, u64, TxId)> {
        let all = self.txs.get_mut(&hash)?;
        if all
            .values()
            .any(|announcement| matches!(announcement.state, State::Asked(_)))
        {
            return None;
        }
        let ready = |state| matches!(state, State::Waiting(at) if at <= now);
        let (link, best) = all
            .iter_mut()
            .filter(|(_, announcement)| ready(announcement.state))
            .max_by_key(|(_, announcement)| (announcement.preferred, announcement.priority))?;
        let due = now + REQUEST_TIMEOUT;
        best.state = State::Asked(due);
        self.timers.insert((due, hash, *link));
        if let Some(load) = self.peers.get_mut(link) {
            load.in_flight += 1;
        }
        Some((*link, best.sequence, best.id))
    }

    fn finish(&mut self, link: LinkId, hash: [u8; 32]) {
        let Some(announcement) = self.txs.get_mut(&hash).and_then(|all| all.get_mut(&link)) else {
            return;
        };
        match std::mem::replace(&mut announcement.state, State::Over) {
            State::Asked(due) => {
                self.timers.remove(&(due, hash, link));
                if let Some(load) = self.peers.get_mut(&link) {
                    load.in_flight = load.in_flight.saturating_sub(1);
                }
            }
            State::Waiting(ready) => {
                self.timers.remove(&(ready, hash, link));
            }
            State::Over => {}
        }
        self.settle(hash);
    }

    /// Looks for the next announcer, or forgets a transaction that everyone was asked for in vain.
    fn settle(&mut self, hash: [u8; 32]) {
        match self.txs.get(&hash) {
            Some(all) if all.values().all(|announcement| announcement.state == State::Over) => self.forget(hash),
            Some(_) => {
                self.touched.insert(hash);
            }
            None => {}
        }
    }

    fn untrack(&mut self, link: LinkId, hash: [u8; 32], announcement: &Announcement) {
        if let State::Asked(at) | State::Waiting(at) = announcement.state {
            self.timers.remove(&(at, hash, link));
        }
        if let Some(load) = self.peers.get_mut(&link) {
            load.announced.remove(&hash);
            if matches!(announcement.state, State::Asked(_)) {
                load.in_flight = load.in_flight.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> TxId {
        TxId::Wtxid(Wtxid::from_byte_array([n; 32]))
    }

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(1000 + secs)
    }

    fn requests() -> Requests {
        Requests::new(Salt::new(7, 9))
    }

    #[test]
    fn one_peer_at_a_time_outbound_first_then_the_next_after_a_minute() {
        let mut requests = requests();
        let (inbound, outbound) = (LinkId(1), LinkId(2));
        requests.announce(inbound, id(1), false, at(2));
        assert!(requests.due(at(0)).is_empty());
        requests.announce(outbound, id(1), true, at(1));
        assert_eq!(requests.due(at(1)), BTreeMap::from([(outbound, vec![id(1)])]));
        assert!(requests.due(at(30)).is_empty());
        assert_eq!(requests.next(), Some(at(61)));
        assert_eq!(requests.due(at(61)), BTreeMap::from([(inbound, vec![id(1)])]));
        assert_eq!(requests.in_flight(outbound), 0);
        assert_eq!(requests.in_flight(inbound), 1);
        assert!(requests.due(at(121)).is_empty());
        assert!(requests.txs.is_empty(), "everyone was asked in vain");
        assert_eq!(requests.count(inbound), 0);
    }

    #[test]
    fn notfound_and_disconnects_move_on_at_once() {
        let mut requests = requests();
        for link in 1..=3 {
            requests.announce(LinkId(link), id(1), true, at(0));
        }
        let first = *requests.due(at(0)).keys().next().expect("asked");
        requests.answered(first, id(1).bytes());
        let second = *requests.due(at(0)).keys().next().expect("asked the next");
        assert_ne!(first, second);
        requests.disconnected(second);
        let third = *requests.due(at(0)).keys().next().expect("asked the last");
        assert!(third != first && third != second);
        requests.forget(id(1).bytes());
        assert!(requests.due(at(500)).is_empty());
        assert_eq!(requests.next(), None);
        assert_eq!(requests.in_flight(third), 0);
    }

    #[test]
    fn a_peer_cannot_make_us_remember_more_than_its_share() {
        let mut requests = requests();
        for n in 0..MAX_ANNOUNCEMENTS as u32 + 500 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            requests.announce(LinkId(1), TxId::Txid(Txid::from_byte_array(bytes)), true, at(0));
        }
        assert_eq!(requests.count(LinkId(1)), MAX_ANNOUNCEMENTS);
        let asked = requests.due(at(0)).remove(&LinkId(1)).expect("asked");
        assert_eq!(asked.len(), MAX_ANNOUNCEMENTS);
        requests.disconnected(LinkId(1));
        assert!(requests.txs.is_empty() && requests.timers.is_empty() && requests.peers.is_empty());
    }

    #[test]
    fn requests_keep_the_order_of_announcements() {
        let mut requests = requests();
        for n in [9, 3, 200, 1] {
            requests.announce(LinkId(1), id(n), true, at(0));
        }
        assert_eq!(requests.due(at(0))[&LinkId(1)], [id(9), id(3), id(200), id(1)]);
    }
}
