//! Many DHT nodes in one process: they meet through one of them, find each other's peers, keep each other's items,
//! survive loss and departure, and answer strangers within bounds.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dunlin_peer::Now;
use dunlin_torrent::InfoHash;
use dunlin_torrent::dht::{Announce, Config, Dht, Event, NodeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Parcel = (Now, u64, SocketAddr, SocketAddr, Vec<u8>);

/// Nodes at public addresses in many networks, a wire with 40 ms of delay, and loss.
struct Net {
    now: Now,
    nodes: BTreeMap<SocketAddr, Dht>,
    /// By arrival: when, the how manieth, from, to, the bytes.
    wire: BinaryHeap<Reverse<Parcel>>,
    sent: u64,
    longest: usize,
    loss: f64,
    rng: ChaCha8Rng,
}

fn addr(n: u32) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0800_0001 + n * 0x0001_0100);
    SocketAddr::new(IpAddr::V4(ip), 6881)
}

impl Net {
    fn new(count: u32, seed: u64) -> Self {
        let now = Now::from_unix_secs(1_000);
        let mut net = Self {
            now,
            nodes: BTreeMap::new(),
            wire: BinaryHeap::new(),
            sent: 0,
            longest: 0,
            loss: 0.0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        for n in 0..count {
            net.add(n, &Config::default());
        }
        net
    }

    fn add(&mut self, n: u32, config: &Config) {
        let seed = self.rng.random();
        let mut dht = Dht::new(config, seed, self.now);
        if n > 0 {
            dht.meet(self.now, &[addr(0)]);
        }
        self.nodes.insert(addr(n), dht);
    }

    fn node(&mut self, n: u32) -> &mut Dht {
        self.nodes.get_mut(&addr(n)).unwrap()
    }

    fn collect(&mut self) {
        for (from, node) in &mut self.nodes {
            while let Some((to, bytes)) = node.poll_datagram() {
                self.longest = self.longest.max(bytes.len());
                self.sent += 1;
                if !self.rng.random_bool(self.loss) {
                    let at = self.now + Duration::from_millis(40);
                    self.wire.push(Reverse((at, self.sent, *from, to, bytes)));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            let timer = self.nodes.values().map(Dht::poll_timeout).min().unwrap();
            let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
            let next = arrival.map_or(timer, |at| at.min(timer)).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if arrival == Some(next) {
                let Reverse((_, _, from, to, bytes)) = self.wire.pop().unwrap();
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.receive(next, from, &bytes);
                }
            } else {
                for node in self.nodes.values_mut().filter(|node| node.poll_timeout() <= next) {
                    node.timeout(next);
                }
            }
        }
    }

    fn events(&mut self, n: u32) -> Vec<Event> {
        let node = self.node(n);
        std::iter::from_fn(|| node.poll_event()).collect()
    }

    /// The peers that node `n` finds.
    fn find(&mut self, n: u32, info_hash: InfoHash, announce: Announce) -> BTreeSet<SocketAddr> {
        let now = self.now;
        self.node(n).find_peers(now, info_hash, announce);
        self.run(Duration::from_secs(30));
        let events = self.events(n);
        assert!(
            events.iter().any(|event| matches!(event, Event::Searched { .. })),
            "{events:?}"
        );
        let peers = events.into_iter().filter_map(|event| match event {
            Event::Peers { info_hash: of, peers } if of == info_hash => Some(peers),
            _ => None,
        });
        peers.flatten().collect()
    }
}

const TORRENT: InfoHash = InfoHash([0x5a; 20]);

#[test]
fn strangers_find_each_other_through_a_hundred_nodes() {
    let mut net = Net::new(100, 1);
    net.run(Duration::from_secs(60));
    for n in 0..100 {
        let nodes = net.node(n).node_counts()[0];
        assert!(nodes >= 15, "node {n} knows {nodes}");
    }
    assert!(net.find(7, TORRENT, Announce::Port(7777)).is_empty());
    let peer = SocketAddr::new(addr(7).ip(), 7777);
    assert_eq!(net.find(93, TORRENT, Announce::Port(9393)), BTreeSet::from([peer]));
    let both = BTreeSet::from([peer, SocketAddr::new(addr(93).ip(), 9393)]);
    assert_eq!(net.find(40, TORRENT, Announce::No), both);
    assert!(net.find(40, InfoHash([1; 20]), Announce::No).is_empty());
    assert!(net.longest < 1400, "a datagram of {} bytes", net.longest);
    // A busy minute is worth a few thousand datagrams, not more.
    assert!(net.sent < 100_000, "{} datagrams", net.sent);
}

#[test]
fn loss_and_departure_are_survived() {
    let mut net = Net::new(80, 2);
    net.loss = 0.1;
    net.run(Duration::from_secs(60));
    net.find(70, TORRENT, Announce::Port(7070));
    // A third leaves without a word, the node through which all met among them.
    for n in 0..27 {
        net.nodes.remove(&addr(n));
    }
    net.run(Duration::from_secs(20 * 60));
    let found = net.find(50, TORRENT, Announce::No);
    assert_eq!(found, BTreeSet::from([SocketAddr::new(addr(70).ip(), 7070)]));
}

#[test]
fn names_become_those_of_the_address() {
    let mut net = Net::new(40, 3);
    net.run(Duration::from_secs(120));
    let own: Vec<NodeId> = (0..40).map(|n| net.node(n).ids()[0]).collect();
    let distinct: BTreeSet<&NodeId> = own.iter().collect();
    assert_eq!(distinct.len(), 40);
    net.find(5, TORRENT, Announce::Port(5));
    assert_eq!(
        net.find(6, TORRENT, Announce::No).len(),
        1,
        "the DHT works after all changed their names"
    );
}

#[test]
fn items_are_kept_and_the_newest_is_found() {
    let mut net = Net::new(60, 4);
    net.run(Duration::from_secs(60));
    let now = net.now;
    let secret = [9; 32];
    let target = net.node(3).put(now, 1, b"5:hello".to_vec());
    net.node(4).put_mutable(now, 2, &secret, b"salt", 1, b"i1e".to_vec());
    net.run(Duration::from_secs(20));
    let now = net.now;
    net.node(5).put_mutable(now, 3, &secret, b"salt", 2, b"i2e".to_vec());
    net.run(Duration::from_secs(20));
    for (n, ticket) in [(3, 1), (4, 2), (5, 3)] {
        let stored = net.events(n);
        assert!(
            matches!(stored[..], [Event::Stored { ticket: t, nodes: 8 }] if t == ticket),
            "{stored:?}"
        );
    }
    let now = net.now;
    let key = ed25519_dalek::SigningKey::from_bytes(&secret)
        .verifying_key()
        .to_bytes();
    net.node(50).get(now, 4, target);
    net.node(51).get_mutable(now, 5, &key, b"salt");
    net.node(52).get_mutable(now, 6, &key, b"another salt");
    net.run(Duration::from_secs(20));
    let item = |net: &mut Net, n| net.events(n).pop().unwrap();
    let found = Some((b"5:hello".to_vec(), None));
    assert_eq!(item(&mut net, 50), Event::Item { ticket: 4, found });
    let found = Some((b"i2e".to_vec(), Some(2)));
    assert_eq!(item(&mut net, 51), Event::Item { ticket: 5, found });
    assert_eq!(item(&mut net, 52), Event::Item { ticket: 6, found: None });
}

#[test]
fn a_read_only_node_finds_and_is_never_asked() {
    let mut net = Net::new(50, 5);
    net.add(
        50,
        &Config {
            read_only: true,
            ..Config::default()
        },
    );
    net.run(Duration::from_secs(60));
    net.find(9, TORRENT, Announce::Port(9));
    assert_eq!(net.find(50, TORRENT, Announce::Port(50)).len(), 1);
    assert_eq!(
        net.find(10, TORRENT, Announce::No).len(),
        1,
        "it did not announce itself"
    );
    let hidden = net
        .nodes
        .iter()
        .filter(|(at, node)| **at != addr(50) && node.known_nodes().contains(&addr(50)));
    assert_eq!(hidden.count(), 0);
}

#[test]
fn strangers_get_answers_within_bounds() {
    let mut net = Net::new(1, 6);
    let now = net.now;
    let victim = addr(77);
    let query = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe";
    for _ in 0..10_000 {
        net.node(0).receive(now, victim, query);
    }
    let node = net.node(0);
    let answers: Vec<usize> = std::iter::from_fn(|| node.poll_datagram())
        .map(|(_, bytes)| bytes.len())
        .collect();
    assert!(answers.len() <= 60, "{} answers to one address", answers.len());
    // Random bytes, cut and bent queries: no answer without a query, and never a panic.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for round in 0..20_000u32 {
        let mut bytes = query.to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(0..=bytes.len()));
        net.node(0).receive(
            now + Duration::from_secs(round.into()),
            addr(100 + round % 1000),
            &bytes,
        );
        let node = net.node(0);
        while node.poll_datagram().is_some() {}
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut net = Net::new(30, seed);
        net.run(Duration::from_secs(100));
        (net.sent, net.node(3).known_nodes())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
