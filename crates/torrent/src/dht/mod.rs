//! The mainline DHT (BEP 5), for IPv4 and IPv6 (BEP 32): finds peers without a tracker.
//!
//! Also: names bound to addresses (BEP 42), read-only nodes (BEP 43), small items (BEP 44), samples of info hashes
//! (BEP 51). Each family is a DHT of its own with its own name and table. Nothing here does I/O: datagrams come in by
//! [`Dht::receive`], go out by [`Dht::poll_datagram`], and whoever drives it calls [`Dht::timeout`].

mod answer;
mod items;
mod krpc;
mod limiter;
mod lookup;
mod node_id;
mod peers;
mod saved;
mod table;
mod tokens;
mod votes;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::Now;
use ed25519_dalek::SigningKey;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use items::{MAX_SALT, MAX_VALUE};
pub use lookup::Announce;
pub use node_id::NodeId;
pub use saved::Saved;

use crate::InfoHash;
use items::{Item, Items};
use krpc::{Answer, Body, Contact, Message, Put, Query};
use limiter::Limiter;
use lookup::{Lookup, Purpose};
use peers::Peers;
use table::Table;
use tokens::Tokens;
use votes::Votes;

/// The file beside the resume files in which a node remembers its neighbours.
pub const FILE_NAME: &str = "dht.dat";
/// Well-known nodes to begin with, as other clients use them.
pub const ROUTERS: [&str; 4] = [
    "dht.libtorrent.org:25401",
    "dht.transmissionbt.com:6881",
    "router.bittorrent.com:6881",
    "router.utorrent.com:6881",
];

/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Searches under way at once; further ones wait.
const MAX_LOOKUPS: usize = 16;
/// Searches that wait; beyond it new ones end at once.
const MAX_WAITING: usize = 1_000;
/// Questions on their way at once.
const MAX_PENDING: usize = 2_000;
/// Questions to nodes that asked us first, on their way at once.
const MAX_RETURN_PINGS: usize = 32;
/// With fewer nodes than this we go on asking around.
const ENOUGH_NODES: usize = 30;
/// First and longest pause between two attempts to meet anybody.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10 * 60));
/// Time between two looks at the tables.
const UPKEEP: Duration = Duration::from_secs(1);
/// Time between two rounds of forgetting.
const EXPIRE: Duration = Duration::from_secs(60);
/// Addresses to begin with that are remembered.
const MAX_STARTS: usize = 200;

/// How a node of the DHT is run.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Ask, but answer nobody (BEP 43): for machines that cannot be reached.
    pub read_only: bool,
    /// Names of an earlier run, for IPv4 and IPv6; random ones otherwise.
    pub ids: [Option<NodeId>; 2],
}

/// News of the DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Peers of a torrent, as some node knows them.
    Peers {
        /// Which torrent.
        info_hash: InfoHash,
        /// Their addresses; nobody has checked them.
        peers: Vec<SocketAddr>,
    },
    /// A search for peers is over, and the announce that went with it is sent.
    Searched {
        /// Which torrent.
        info_hash: InfoHash,
        /// How many addresses were named in all.
        found: usize,
    },
    /// Answers [`Dht::get`].
    Item {
        /// The request's ticket.
        ticket: u64,
        /// The bencoded value, with its sequence number when it is mutable. `None`: nobody has it.
        found: Option<(Vec<u8>, Option<i64>)>,
    },
    /// Answers [`Dht::put`]: so many nodes were asked to keep the item.
    Stored {
        /// The request's ticket.
        ticket: u64,
        /// How many nodes.
        nodes: usize,
    },
}

/// Why a question was asked.
#[derive(Clone, Debug)]
enum Why {
    /// To see whether a node is there.
    Ping,
    /// For a search.
    Lookup(u64),
    /// To tell it something; its answer only shows that it is there.
    Tell,
}

#[derive(Debug)]
struct Pending {
    to: SocketAddr,
    id: Option<NodeId>,
    why: Why,
}

/// A node of the DHT.
#[derive(Debug)]
pub struct Dht {
    read_only: bool,
    rng: ChaCha8Rng,
    /// Names and tables: IPv4, then IPv6.
    ids: [NodeId; 2],
    tables: [Table; 2],
    votes: [Votes; 2],
    starts: Vec<SocketAddr>,
    pending: BTreeMap<u16, Pending>,
    /// When questions run out of patience, in order.
    deadlines: VecDeque<(Now, u16)>,
    return_pings: usize,
    lookups: BTreeMap<u64, Lookup>,
    waiting: VecDeque<Lookup>,
    next_lookup: u64,
    peers: Peers,
    items: Items,
    tokens: Tokens,
    limiter: Limiter,
    next_upkeep: Now,
    next_expire: Now,
    /// For each family: when to try again to meet somebody, and the pause after that.
    retry: [(Now, Duration); 2],
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
}

/// The place of a family in the pairs.
fn family(addr: &SocketAddr) -> usize {
    usize::from(addr.is_ipv6())
}

impl Dht {
    /// A node that knows nobody yet; see [`Dht::meet`].
    pub fn new(config: &Config, seed: [u8; 32], now: Now) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let ids = config.ids.map(|id| id.unwrap_or_else(|| NodeId::random(&mut rng)));
        Self {
            read_only: config.read_only,
            ids,
            tables: ids.map(Table::new),
            votes: <[Votes; 2]>::default(),
            starts: Vec::new(),
            pending: BTreeMap::new(),
            deadlines: VecDeque::new(),
            return_pings: 0,
            lookups: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_lookup: 0,
            peers: Peers::default(),
            items: Items::default(),
            tokens: Tokens::new(now, &mut rng),
            limiter: Limiter::new(now),
            next_upkeep: now,
            next_expire: now + EXPIRE,
            retry: [(now, RETRY.0); 2],
            out: VecDeque::new(),
            events: VecDeque::new(),
            rng,
        }
    }

    /// Our names: for IPv4 and IPv6.
    pub fn ids(&self) -> [NodeId; 2] {
        self.ids
    }

    /// How many nodes of each family the tables hold.
    pub fn node_counts(&self) -> [usize; 2] {
        [self.tables[0].len(), self.tables[1].len()]
    }

    /// Addresses of nodes that answered lately, to begin with at the next start.
    pub fn known_nodes(&self) -> Vec<SocketAddr> {
        self.tables
            .iter()
            .flat_map(|table| table.freshest(MAX_STARTS / 2))
            .collect()
    }

    /// Whether there is anybody to ask.
    pub fn knows_anybody(&self) -> bool {
        !self.starts.is_empty() || self.tables.iter().any(|table| table.len() > 0)
    }

    /// Learns addresses at which there may be nodes: of an earlier run, of a torrent, of a peer's `port` message.
    pub fn meet(&mut self, now: Now, addrs: &[SocketAddr]) {
        let mut fresh = [false; 2];
        for addr in addrs {
            if addr.port() == 0 || self.starts.contains(addr) {
                continue;
            }
            if self.starts.len() >= MAX_STARTS {
                self.starts.remove(0);
            }
            self.starts.push(*addr);
            fresh[family(addr)] = true;
        }
        for (at, fresh) in fresh.into_iter().enumerate() {
            if fresh && self.tables[at].len() < ENOUGH_NODES {
                self.retry[at] = (now, RETRY.0);
                self.next_upkeep = now;
            }
        }
    }

    /// Looks for peers of a torrent in both families, and afterwards tells the nearest nodes of us.
    pub fn find_peers(&mut self, now: Now, info_hash: InfoHash, announce: Announce) {
        let announce = if self.read_only { Announce::No } else { announce };
        let mut ended = true;
        for v4 in [true, false] {
            if self.tables[usize::from(!v4)].len() > 0 || self.starts.iter().any(|addr| addr.is_ipv4() == v4) {
                ended = false;
                self.search(now, NodeId(info_hash.0), v4, Purpose::Peers { announce });
            }
        }
        if ended {
            self.events.push_back(Event::Searched { info_hash, found: 0 });
        }
    }

    /// Looks for an immutable item by its hash (BEP 44); answered by [`Event::Item`].
    pub fn get(&mut self, now: Now, ticket: u64, target: NodeId) {
        self.find_item(now, ticket, target, &[]);
    }

    /// Looks for the newest item of a key and a salt (BEP 44, 46); answered by [`Event::Item`].
    pub fn get_mutable(&mut self, now: Now, ticket: u64, key: &[u8; 32], salt: &[u8]) {
        self.find_item(now, ticket, items::mutable_target(key, salt), salt);
    }

    fn find_item(&mut self, now: Now, ticket: u64, target: NodeId, salt: &[u8]) {
        let purpose = Purpose::Item {
            ticket,
            salt: salt.to_vec(),
            newest: None,
        };
        self.search(now, target, true, purpose);
    }

    /// Asks the nearest nodes to keep an immutable item; answered by [`Event::Stored`]. Returns where it will be.
    pub fn put(&mut self, now: Now, ticket: u64, value: Vec<u8>) -> NodeId {
        self.store(now, ticket, Item { value, signed: None })
    }

    /// Signs an item and asks the nearest nodes to keep it; answered by [`Event::Stored`]. The value must be bencoded
    /// and at most [`MAX_VALUE`] bytes, the salt at most [`MAX_SALT`]. Returns where it will be.
    pub fn put_mutable(
        &mut self,
        now: Now,
        ticket: u64,
        secret: &[u8; 32],
        salt: &[u8],
        sequence: i64,
        value: Vec<u8>,
    ) -> NodeId {
        let key = SigningKey::from_bytes(secret);
        self.store(now, ticket, Item::sign(&key, salt, sequence, value))
    }

    fn store(&mut self, now: Now, ticket: u64, item: Item) -> NodeId {
        let target = item.target();
        let put = Put {
            value: item.value,
            signed: item.signed,
            cas: None,
        };
        self.search(now, target, true, Purpose::Store { ticket, put });
        target
    }

    fn search(&mut self, now: Now, target: NodeId, v4: bool, purpose: Purpose) {
        let lookup = Lookup::new(target, v4, purpose);
        if self.lookups.len() < MAX_LOOKUPS {
            self.begin(now, lookup);
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(lookup);
        } else {
            self.conclude(now, &lookup);
        }
    }

    fn begin(&mut self, now: Now, mut lookup: Lookup) {
        let table = &self.tables[usize::from(!lookup.v4)];
        for contact in table.closest(&lookup.target, 2 * table::K) {
            lookup.learn(Some(contact.id), contact.addr);
        }
        if table.len() < ENOUGH_NODES {
            for addr in &self.starts {
                lookup.learn(None, *addr);
            }
        }
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, lookup);
        self.advance(now, number);
    }

    /// Asks whom the search wants asked, and ends it when nobody is left.
    fn advance(&mut self, now: Now, number: u64) {
        while let Some(lookup) = self.lookups.get_mut(&number) {
            let Some(to) = lookup.next() else {
                break;
            };
            let query = lookup.query();
            if !self.ask(now, to, None, query, Why::Lookup(number))
                && let Some(lookup) = self.lookups.get_mut(&number)
            {
                lookup.failed(to);
            }
        }
        if self.lookups.get(&number).is_some_and(Lookup::is_over)
            && let Some(lookup) = self.lookups.remove(&number)
        {
            self.conclude(now, &lookup);
            if let Some(next) = self.waiting.pop_front() {
                self.begin(now, next);
            }
        }
    }

    /// A search is over: tells the nearest nodes what they are to know, and the program how it went.
    fn conclude(&mut self, now: Now, lookup: &Lookup) {
        match &lookup.purpose {
            Purpose::Nodes => {}
            Purpose::Peers { announce } => {
                let info_hash = InfoHash(lookup.target.0);
                if let Announce::Port(port) = *announce {
                    for (to, token) in lookup.holders() {
                        let port = Some(port);
                        self.ask(now, to, None, Query::AnnouncePeer { info_hash, port, token }, Why::Tell);
                    }
                }
                let found = lookup.found;
                self.events.push_back(Event::Searched { info_hash, found });
            }
            Purpose::Item { ticket, newest, .. } => {
                let found = newest.as_ref().map(|item| (item.value.clone(), item.sequence()));
                self.events.push_back(Event::Item { ticket: *ticket, found });
            }
            Purpose::Store { ticket, put } => {
                let holders = lookup.holders();
                let nodes = holders.len();
                for (to, token) in holders {
                    let put = put.clone();
                    self.ask(now, to, None, Query::Put { token, put }, Why::Tell);
                }
                self.events.push_back(Event::Stored { ticket: *ticket, nodes });
            }
        }
    }

    /// Sends a question; `false` when too many are on their way.
    fn ask(&mut self, now: Now, to: SocketAddr, id: Option<NodeId>, query: Query, why: Why) -> bool {
        if self.pending.len() >= MAX_PENDING {
            return false;
        }
        let transaction = loop {
            let number: u16 = self.rng.random();
            if !self.pending.contains_key(&number) {
                break number;
            }
        };
        self.pending.insert(transaction, Pending { to, id, why });
        self.deadlines.push_back((now + PATIENCE, transaction));
        let own = self.ids[family(&to)];
        self.send(to, &transaction.to_be_bytes(), Body::Query { id: own, query }, None);
        true
    }

    fn send(&mut self, to: SocketAddr, transaction: &[u8], body: Body, ip: Option<SocketAddr>) {
        let message = Message {
            transaction: transaction.to_vec(),
            body,
            read_only: self.read_only,
            ip,
        };
        self.out.push_back((to, message.encode()));
    }

    /// Takes a datagram. What is no message is ignored.
    pub fn receive(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(message) => match message.body {
                Body::Query { id, query } => {
                    self.answer(now, from, &message.transaction, id, query, message.read_only);
                }
                Body::Answer { id, answer } => self.answered(now, from, &message.transaction, message.ip, id, answer),
                Body::Error { .. } => self.refused(now, from, &message.transaction),
            },
            Err(Some(bad)) => self.refuse(now, from, &bad.transaction, bad.fault),
            Err(None) => {}
        }
    }

    /// The question that this is the answer to, if we asked it there.
    fn take_pending(&mut self, from: SocketAddr, transaction: &[u8]) -> Option<Pending> {
        let number = u16::from_be_bytes(transaction.try_into().ok()?);
        if self.pending.get(&number)?.to != from {
            return None;
        }
        self.pending.remove(&number)
    }

    fn answered(
        &mut self,
        now: Now,
        from: SocketAddr,
        transaction: &[u8],
        ip: Option<SocketAddr>,
        id: NodeId,
        answer: Answer,
    ) {
        let Some(pending) = self.take_pending(from, transaction) else {
            return;
        };
        let contact = Contact { id, addr: from };
        let at = family(&from);
        if let (Some(expected), true) = (pending.id, matches!(pending.why, Why::Ping)) {
            self.return_pings = self.return_pings.saturating_sub(1);
            if expected != id {
                self.tables[at].failed(
                    now,
                    Contact {
                        id: expected,
                        addr: from,
                    },
                );
            }
        }
        if id != self.ids[at] {
            self.tables[at].answered(now, contact);
        }
        if let Some(ip) = ip
            && let Some(told) = self.votes[at].vote(from.ip(), ip.ip())
            && !self.ids[at].is_secure_for(told)
        {
            self.ids[at] = NodeId::secure(told, &mut self.rng);
            self.tables[at] = self.tables[at].renamed(self.ids[at]);
            self.retry[at] = (now, RETRY.0);
        }
        let Why::Lookup(number) = pending.why else {
            return;
        };
        let Some(lookup) = self.lookups.get_mut(&number) else {
            return;
        };
        lookup.answered(contact, answer.token, &answer.nodes);
        match &mut lookup.purpose {
            Purpose::Peers { .. } if !answer.values.is_empty() => {
                lookup.found += answer.values.len();
                self.events.push_back(Event::Peers {
                    info_hash: InfoHash(lookup.target.0),
                    peers: answer.values,
                });
            }
            Purpose::Item { salt, newest, .. } => {
                if let Some((value, mut signed)) = answer.item {
                    if let Some(signed) = &mut signed {
                        // An answer does not repeat the salt.
                        signed.salt.clone_from(salt);
                    }
                    let item = Item { value, signed };
                    let newer = newest.as_ref().is_none_or(|known| item.sequence() > known.sequence());
                    if newer && item.target() == lookup.target && item.check().is_ok() {
                        *newest = Some(item);
                    }
                }
            }
            _ => {}
        }
        self.advance(now, number);
    }

    fn refused(&mut self, now: Now, from: SocketAddr, transaction: &[u8]) {
        if let Some(pending) = self.take_pending(from, transaction) {
            self.give_up(now, &pending, false);
        }
    }

    /// A question came to nothing.
    fn give_up(&mut self, now: Now, pending: &Pending, silent: bool) {
        if let Some(id) = pending.id {
            if matches!(pending.why, Why::Ping) {
                self.return_pings = self.return_pings.saturating_sub(1);
            }
            if silent {
                let contact = Contact { id, addr: pending.to };
                self.tables[family(&pending.to)].failed(now, contact);
            }
        }
        if let Why::Lookup(number) = pending.why {
            if let Some(lookup) = self.lookups.get_mut(&number) {
                lookup.failed(pending.to);
            }
            self.advance(now, number);
        }
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now) {
        while let Some((due, transaction)) = self.deadlines.front().copied() {
            if due > now {
                break;
            }
            self.deadlines.pop_front();
            if let Some(pending) = self.pending.remove(&transaction) {
                self.give_up(now, &pending, true);
            }
        }
        if now >= self.next_upkeep {
            self.next_upkeep = now + UPKEEP;
            self.upkeep(now);
        }
        if now >= self.next_expire {
            self.next_expire = now + EXPIRE;
            self.peers.expire(now);
            self.items.expire(now);
        }
        self.tokens.rotate(now, &mut self.rng);
    }

    /// Keeps the tables filled and fresh.
    fn upkeep(&mut self, now: Now) {
        for v4 in [true, false] {
            let at = usize::from(!v4);
            if let Some(silent) = self.tables[at].stale(now) {
                self.return_pings += 1;
                self.ask(now, silent.addr, Some(silent.id), Query::Ping, Why::Ping);
            }
            let (due, pause) = self.retry[at];
            let starts = self.tables[at].len() > 0 || self.starts.iter().any(|addr| addr.is_ipv4() == v4);
            if now >= due && starts && self.tables[at].len() < ENOUGH_NODES {
                self.retry[at] = (now + pause, (pause * 2).min(RETRY.1));
                let own = self.ids[at];
                self.search(now, own, v4, Purpose::Nodes);
            } else if let Some(target) = self.tables[at].refresh(now, &mut self.rng) {
                self.search(now, target, v4, Purpose::Nodes);
            }
        }
    }

    /// When [`Dht::timeout`] has something to do.
    pub fn poll_timeout(&self) -> Now {
        let deadline = self.deadlines.front().map(|(due, _)| *due);
        deadline.map_or(self.next_upkeep, |due| due.min(self.next_upkeep))
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
