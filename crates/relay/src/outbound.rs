//! Links of our own choice: full ones, two that relay blocks only, now and then another of each that proves itself or
//! goes, and short looks at addresses that nobody has tried (feelers).
//!
//! Links that relay blocks only carry neither transactions nor addresses, so nobody can find them by watching those;
//! the addresses of the last ones (anchors) are dialled first after a restart. Whoever wants to cut us off has to
//! replace them all, in as many network groups.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use dunlin_peer::{CloseReason, LinkId, NetAddr, NetClasses, Now};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::interface::Job;
use crate::node::Node;
use crate::peer::{Kind, Peer};
use crate::wire::services;

/// Mean time between two looks at an untried address.
const FEELER_MEAN: Duration = Duration::from_secs(2 * 60);
/// Mean time between two more links that relay blocks only.
const EXTRA_BLOCK_RELAY_MEAN: Duration = Duration::from_secs(5 * 60);
/// How often links beyond the usual number are looked at.
const EXTRA_CHECK: Duration = Duration::from_secs(45);
/// A link is given this long before it is compared with others.
const MIN_TIME: Duration = Duration::from_secs(30);
/// Seeds asked at once, and the time between two rounds.
const SEEDS_AT_ONCE: usize = 3;
const SEED_WAIT: Duration = Duration::from_secs(11);
/// Fixed seeds are a last resort: what else there is has so long to tell of peers.
const FIXED_WAIT: Duration = Duration::from_secs(60);
/// With this many full links no seed is asked any more.
const ENOUGH_PEERS: usize = 2;
/// Most addresses taken from one seed.
const MAX_FROM_SEED: usize = 32;
/// In the address book all seeds together count as one teller, which no peer can be.
const SEED_SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x88c0, 0x8724, 0, 0, 0, 0, 0);
/// And the fixed ones as another.
const FIXED_SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x88c0, 0x8724, 0, 0, 0, 0, 1);
const DAY_SECS: u64 = 24 * 60 * 60;
/// How often the age of our tip is looked at.
const STALE_CHECK: Duration = Duration::from_secs(10 * 60);
/// A tip that is older than this many blocks' time may be so because our peers keep new ones from us.
const STALE_BLOCKS: u32 = 3;

/// When which kind of link is due.
#[derive(Debug)]
pub(crate) struct Outbound {
    anchors: VecDeque<NetAddr>,
    next_feeler: Now,
    next_extra_block_relay: Now,
    next_check: Now,
    next_stale_check: Now,
    /// Seeds that were not asked.
    seeds: Vec<String>,
    next_seeds: Now,
    /// Addresses to begin with that were not used, and when they will be.
    fixed: Vec<NetAddr>,
    next_fixed: Now,
    /// Our tip is stale: one more full link is wanted.
    stale: bool,
    tip_changed: Now,
}

/// What is wanted next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// This address as a link that relays blocks only.
    Anchor(NetAddr),
    /// Some address, for this kind of link.
    Some(Kind),
}

impl Outbound {
    pub(crate) fn new(node: &mut Node) -> Self {
        let now = node.now;
        let mut seeds = node.config.dns_seeds.clone();
        if !node.config.connect_only.is_empty() || node.config.max_outbound == 0 {
            seeds.clear();
            node.config.fixed_seeds.clear();
        }
        let nobody_else = seeds.is_empty() && node.config.add_peers.is_empty();
        seeds.shuffle(&mut node.rng);
        Self {
            // Known addresses get a chance first: asking tells others that we are here.
            next_seeds: if node.book.is_empty() { now } else { now + SEED_WAIT },
            seeds,
            fixed: std::mem::take(&mut node.config.fixed_seeds),
            next_fixed: if nobody_else { now } else { now + FIXED_WAIT },
            anchors: node.config.anchors.iter().copied().collect(),
            next_feeler: now + node.exponential(FEELER_MEAN),
            next_extra_block_relay: now + node.exponential(EXTRA_BLOCK_RELAY_MEAN),
            next_check: now + EXTRA_CHECK,
            next_stale_check: now + STALE_CHECK,
            stale: false,
            tip_changed: now,
        }
    }

    /// Another block became the tip.
    pub(crate) fn tip_changed(&mut self, now: Now) {
        self.tip_changed = now;
    }

    /// What is wanted, given how many links and dials there are of a kind.
    pub(crate) fn wish(&self, node: &Node, count: impl Fn(Kind) -> usize) -> Option<Wish> {
        let config = &node.config;
        if !config.connect_only.is_empty() || config.max_outbound == 0 {
            return None;
        }
        let (full, block_relay) = (count(Kind::Automatic), count(Kind::BlockRelay));
        if let Some(anchor) = self.anchors.front()
            && block_relay < config.max_block_relay
        {
            return Some(Wish::Anchor(*anchor));
        }
        if node.book.is_empty() {
            return None;
        }
        let kind = if full < config.max_outbound {
            Kind::Automatic
        } else if block_relay < config.max_block_relay {
            Kind::BlockRelay
        } else if self.stale && full == config.max_outbound {
            Kind::Automatic
        } else if self.next_extra_block_relay <= node.now && block_relay == config.max_block_relay && block_relay > 0 {
            Kind::BlockRelay
        } else if self.next_feeler <= node.now && count(Kind::Feeler) == 0 {
            Kind::Feeler
        } else {
            return None;
        };
        Some(Wish::Some(kind))
    }

    /// A wish is being fulfilled, or cannot be.
    pub(crate) fn tried(&mut self, node: &mut Node, wish: Wish) {
        match wish {
            Wish::Anchor(_) => {
                self.anchors.pop_front();
            }
            Wish::Some(Kind::Feeler) => self.next_feeler = node.now + node.exponential(FEELER_MEAN),
            Wish::Some(Kind::BlockRelay) if self.next_extra_block_relay <= node.now => {
                self.next_extra_block_relay = node.now + node.exponential(EXTRA_BLOCK_RELAY_MEAN);
            }
            Wish::Some(_) => {}
        }
    }

    /// When a wish may come up by itself, or links have to be looked at.
    pub(crate) fn next(&self, node: &Node) -> Option<Now> {
        let fixed = (!self.fixed.is_empty()).then_some(self.next_fixed);
        if !self.seeds.is_empty() {
            let next = self.next_seeds.min(self.next_check);
            return Some(fixed.map_or(next, |fixed| fixed.min(next)));
        }
        let idle = !node.config.connect_only.is_empty() || node.config.max_outbound == 0 || node.book.is_empty();
        // What is due already and not possible now becomes so by an input, which looks at it again.
        let wishes = [self.next_feeler, self.next_extra_block_relay].into_iter();
        let wishes = wishes.filter(|at| *at > node.now);
        let looks = [self.next_check, self.next_stale_check];
        let usual = (!idle).then(|| wishes.chain(looks).min()).flatten();
        usual.into_iter().chain(fixed).min()
    }

    /// Asks a few seeds at a time, until there are peers or no seeds left.
    fn ask_seeds(&mut self, node: &mut Node) {
        if self.seeds.is_empty() || self.next_seeds > node.now {
            return;
        }
        if of_kind(node, Kind::Automatic).len() >= ENOUGH_PEERS {
            return self.seeds.clear();
        }
        self.next_seeds = node.now + SEED_WAIT;
        let rest = self.seeds.split_off(self.seeds.len().min(SEEDS_AT_ONCE));
        for seed in std::mem::replace(&mut self.seeds, rest) {
            let bits = services::NETWORK | services::WITNESS;
            let name = format!("x{bits:x}.{seed}");
            let port = node.view.params().default_port;
            node.out.job(Job::Resolve { name, port });
        }
    }

    /// Takes the fixed seeds of each network of which nothing is known.
    fn use_fixed(&mut self, node: &mut Node) {
        if self.next_fixed > node.now {
            return;
        }
        let known: NetClasses = node.book.iter().map(|entry| entry.addr.host.class()).collect();
        let unix = node.now.unix_secs();
        for addr in std::mem::take(&mut self.fixed) {
            if node.reaches(&addr) && !known.contains(addr.host.class()) {
                let age = node.rng.random_range(7 * DAY_SECS..14 * DAY_SECS);
                let services = services::NETWORK | services::WITNESS;
                node.book
                    .add(addr, services, unix.saturating_sub(age), IpAddr::from(FIXED_SOURCE));
            }
        }
    }

    /// Looks at the age of the tip, and closes the link that proved least where there is one more than usual.
    pub(crate) fn tick(&mut self, node: &mut Node, blocks_in_flight: bool) {
        let now = node.now;
        self.ask_seeds(node);
        self.use_fixed(node);
        if self.next_stale_check <= now {
            self.next_stale_check = now + STALE_CHECK;
            let limit = Duration::from_secs(u64::from(node.view.params().target_spacing)) * STALE_BLOCKS;
            self.stale = now.since(self.tip_changed) > limit && !blocks_in_flight;
        }
        if self.next_check > now {
            return;
        }
        self.next_check = now + EXTRA_CHECK;
        if let Some(link) = worst_block_relay(node) {
            node.close(link, CloseReason::benign("another peer that relays blocks did better"));
        }
        if let Some(link) = worst_full(node) {
            self.stale = false;
            node.close(link, CloseReason::benign("another peer announced blocks later"));
        }
    }
}

/// Takes the addresses that a seed gave.
pub(crate) fn learn(node: &mut Node, addrs: Vec<NetAddr>) {
    let unix = node.now.unix_secs();
    for addr in addrs.into_iter().take(MAX_FROM_SEED) {
        // As if last seen three to seven days ago: peers that tell of themselves come first.
        let age = node.rng.random_range(3 * DAY_SECS..7 * DAY_SECS);
        let services = services::NETWORK | services::WITNESS;
        node.book
            .add(addr, services, unix.saturating_sub(age), IpAddr::from(SEED_SOURCE));
    }
}

/// The addresses of the links that relay blocks only.
pub(crate) fn anchors(node: &Node) -> Vec<NetAddr> {
    let anchor = |peer: &&Peer| peer.kind == Kind::BlockRelay && peer.is_ready();
    let addrs = node.peers.values().filter(anchor).map(|peer| peer.addr);
    addrs.take(node.config.max_block_relay).collect()
}

fn of_kind(node: &Node, kind: Kind) -> Vec<&Peer> {
    let fits = |peer: &&Peer| peer.kind == kind && peer.is_ready();
    node.peers.values().filter(fits).collect()
}

/// A link may go when it had its time and owes us nothing.
fn may_go(peer: &Peer, now: Now) -> bool {
    now.since(peer.connected_at) >= MIN_TIME && peer.blocks.in_flight.is_empty()
}

/// Of the two youngest the one that gave us a new block less recently; the youngest when neither did.
fn worst_block_relay(node: &Node) -> Option<LinkId> {
    let peers = of_kind(node, Kind::BlockRelay);
    let [.., second, youngest] = peers[..] else { return None };
    if peers.len() <= node.config.max_block_relay {
        return None;
    }
    let loser = if youngest.blocks.last_new > second.blocks.last_new {
        second
    } else {
        youngest
    };
    may_go(loser, node.now).then_some(loser.link)
}

/// The full link whose last new block is longest ago, the youngest of those that never gave one.
fn worst_full(node: &Node) -> Option<LinkId> {
    let peers = of_kind(node, Kind::Automatic);
    if peers.len() <= node.config.max_outbound {
        return None;
    }
    let open = peers.into_iter().filter(|peer| !peer.headers.is_protected());
    let worst = open.min_by_key(|peer| (peer.blocks.last_new, std::cmp::Reverse(peer.link)))?;
    may_go(worst, node.now).then_some(worst.link)
}
