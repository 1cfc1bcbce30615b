//! Addresses of other peers: hearing of them, passing a few on, telling our own (`addr`, `addrv2` of BIP 155).
//!
//! What one peer can tell us is limited by a token bucket; a fresh address is passed on to two peers, always the same
//! ones for a day; answers to `getaddr` are the same for everyone for about a day, so that asking often tells nothing.

use std::time::Duration;

use dunlin_peer::{Budget, LinkId, NetAddr, Now};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::known::{Known, Salt};
use crate::node::Node;
use crate::peer::Peer;
use crate::wire::{MAX_ADDR, Message, PeerAddr, services};

/// Tokens of the bucket are thousandths of an address, so that a tenth of one a second is a whole number.
const ADDRESS: u64 = 1_000;
const RATE: u64 = ADDRESS / 10;
const BURST: u64 = 1_000 * ADDRESS;
/// Part of the book that answers `getaddr`, in percent.
const MAX_PERCENT: usize = 23;
const CACHE: Duration = Duration::from_secs(21 * 60 * 60);
const SEND_MEAN: Duration = Duration::from_secs(30);
const SELF_MEAN: Duration = Duration::from_secs(24 * 60 * 60);
/// Younger addresses, in messages this small, are passed on.
const FRESH_SECS: u64 = 10 * 60;
const MAX_RELAYED: usize = 10;
const DAY_SECS: u64 = 24 * 60 * 60;
/// Addresses that a peer is known to have, remembered at least.
const KNOWN: usize = 2_500;

/// The addresses exchanged with one peer.
#[derive(Clone, Debug)]
pub(crate) struct AddrState {
    /// Addresses are exchanged: always with those whom we dialled, with others once they send or ask.
    pub(crate) enabled: bool,
    known: Known,
    to_send: Vec<PeerAddr>,
    next_send: Option<Now>,
    next_self: Option<Now>,
    budget: Budget,
    asked: bool,
    answered: bool,
    pub(crate) processed: u64,
    pub(crate) rate_limited: u64,
}

impl AddrState {
    pub(crate) fn new(now: Now) -> Self {
        let mut budget = Budget::new(RATE, BURST);
        // One address at once, so that a peer can tell its own.
        budget.take(now, BURST - ADDRESS);
        Self {
            enabled: false,
            known: Known::new(KNOWN),
            to_send: Vec::new(),
            next_send: None,
            next_self: None,
            budget,
            asked: false,
            answered: false,
            processed: 0,
            rate_limited: 0,
        }
    }

    /// When [`Addresses::tick`] has something to do for this peer.
    pub(crate) fn next(&self) -> Option<Now> {
        if !self.enabled {
            return None;
        }
        let send = self.next_send.filter(|_| !self.to_send.is_empty());
        send.into_iter().chain(self.next_self).min()
    }
}

/// What is shared by all peers.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// The answer to `getaddr`, and until when it holds.
    cache: Option<(Now, Vec<PeerAddr>)>,
}

impl Addresses {
    /// The handshake is complete.
    pub(crate) fn ready(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link).filter(|peer| peer.relays_txs()) else {
            return;
        };
        peer.addrs.next_self = Some(now);
        if !peer.is_inbound() {
            peer.addrs.enabled = true;
            peer.addrs.asked = true;
            peer.addrs.budget.grant(MAX_ADDR as u64 * ADDRESS);
            node.send(link, Message::GetAddr);
        }
    }

    /// `addr` or `addrv2` came.
    pub(crate) fn on_addr(&mut self, node: &mut Node, link: LinkId, mut entries: Vec<PeerAddr>) {
        let (now, unix) = (node.now, node.now.unix_secs());
        // A link that relays blocks only must not tell by addresses that it is there.
        if !node.ready(link).is_some_and(|peer| peer.relays_txs()) {
            return;
        }
        entries.shuffle(&mut node.rng);
        let total = entries.len();
        for mut entry in entries {
            let salt = node.salt;
            let Some(peer) = node.ready(link) else { return };
            peer.addrs.enabled = true;
            if !peer.addrs.budget.take(now, ADDRESS) {
                peer.addrs.rate_limited += 1;
                continue;
            }
            if entry.services & (services::NETWORK | services::NETWORK_LIMITED) == 0 {
                continue;
            }
            peer.addrs.processed += 1;
            peer.addrs.known.insert(name(&salt, &entry));
            let (asked, source) = (peer.addrs.asked, peer.addr.host);
            if entry.time <= 100_000_000 || u64::from(entry.time) > unix + FRESH_SECS {
                entry.time = u32::try_from(unix.saturating_sub(5 * DAY_SECS)).unwrap_or(u32::MAX);
            }
            if node.bans.refuses(&entry.host, unix) {
                continue;
            }
            let fresh = u64::from(entry.time) + FRESH_SECS > unix;
            if fresh && !asked && total <= MAX_RELAYED && entry.host.is_public() {
                relay(node, link, entry);
            }
            if node.reaches(&entry.addr()) {
                // Others exaggerate: what is heard counts two hours older.
                let time = u64::from(entry.time).saturating_sub(2 * 3600);
                node.book.add(entry.addr(), entry.services, time, source);
            }
        }
        if let Some(peer) = node.ready(link)
            && total < MAX_ADDR
        {
            peer.addrs.asked = false;
        }
    }

    /// `getaddr` came: answered once, and only to those who dialled us, so that nobody can tell our links by it.
    pub(crate) fn on_getaddr(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link) else { return };
        if !peer.is_inbound() || peer.addrs.answered {
            return;
        }
        peer.addrs.enabled = true;
        peer.addrs.answered = true;
        if self.cache.as_ref().is_none_or(|(until, _)| *until <= now) {
            let max = (node.book.len() * MAX_PERCENT / 100).min(MAX_ADDR);
            let sample = node.book.sample(&mut node.rng, max, now);
            let entry = |(addr, services, time): (NetAddr, u64, u64)| PeerAddr {
                time: u32::try_from(time).unwrap_or(u32::MAX),
                services,
                host: addr.host,
                port: addr.port,
            };
            let until = now + CACHE + node.rng.random_range(Duration::ZERO..CACHE / 3);
            self.cache = Some((until, sample.into_iter().map(entry).collect()));
        }
        let entries = self
            .cache
            .as_ref()
            .map(|(_, entries)| entries.clone())
            .unwrap_or_default();
        let unix = now.unix_secs();
        for entry in entries {
            if !node.bans.refuses(&entry.host, unix) {
                push(node, link, entry);
            }
        }
    }

    /// Sends what is due to this peer.
    pub(crate) fn tick(&mut self, node: &mut Node, link: LinkId, downloading: bool) {
        let now = node.now;
        if node
            .ready(link)
            .is_none_or(|peer| peer.addrs.next().is_none_or(|at| at > now))
        {
            return;
        }
        self.tell_own(node, link, downloading);
        let next = now + node.exponential(SEND_MEAN);
        let salt = node.salt;
        let Some(peer) = node.ready(link) else { return };
        if peer.addrs.to_send.is_empty() || peer.addrs.next_send.is_some_and(|at| at > now) {
            return;
        }
        peer.addrs.next_send = Some(next);
        let mut entries = std::mem::take(&mut peer.addrs.to_send);
        entries.retain(|entry| {
            let short = name(&salt, entry);
            let known = peer.addrs.known.contains(short);
            peer.addrs.known.insert(short);
            !known
        });
        if !entries.is_empty() {
            let msg = if peer.wants_addrv2 {
                Message::AddrV2(entries)
            } else {
                Message::Addr(entries)
            };
            node.send(link, msg);
        }
    }

    /// Tells the peer our own address, about once a day; the first time in a message of its own.
    fn tell_own(&mut self, node: &mut Node, link: LinkId, downloading: bool) {
        let now = node.now;
        let due = node
            .ready(link)
            .and_then(|peer| peer.addrs.next_self)
            .is_some_and(|at| at <= now);
        if !due {
            return;
        }
        let next = now + node.exponential(SELF_MEAN);
        let own = own_address(node, link);
        let ours = node.services();
        let salt = node.salt;
        let Some(peer) = node.ready(link) else { return };
        peer.addrs.next_self = Some(next);
        let Some(addr) = own.filter(|_| !downloading) else {
            return;
        };
        let time = u32::try_from(now.unix_secs()).unwrap_or(u32::MAX);
        let entry = PeerAddr {
            time,
            services: ours,
            host: addr.host,
            port: addr.port,
        };
        peer.addrs.known.insert(name(&salt, &entry));
        let msg = if peer.wants_addrv2 {
            Message::AddrV2(vec![entry])
        } else {
            Message::Addr(vec![entry])
        };
        node.send(link, msg);
    }
}

/// A short name of the address, whatever its time and services.
fn name(salt: &Salt, entry: &PeerAddr) -> u64 {
    let mut bytes = Vec::with_capacity(36);
    entry.host.with_bytes(|network, host| {
        bytes.push(network);
        bytes.extend_from_slice(host);
    });
    bytes.extend_from_slice(&entry.port.to_be_bytes());
    salt.shorten(&bytes)
}

/// Which of our addresses this peer is told, if any: one of its own network before others. Peers on a network that hides
/// where we are must not learn the others, nor others that one.
fn own_address(node: &Node, link: LinkId) -> Option<NetAddr> {
    let theirs = node.peers.get(&link)?.network();
    let fits = |addr: &&NetAddr| {
        let ours = addr.host.class();
        ours == theirs || !(ours.hides() || theirs.hides())
    };
    let own = node.config.external.iter().filter(fits);
    own.filter(|_| node.config.listen_port.is_some())
        .max_by_key(|addr| addr.host.class() == theirs)
        .copied()
}

/// Passes an address on to two peers (one, when we cannot reach its network ourselves), drawn anew each day.
fn relay(node: &mut Node, from: LinkId, entry: PeerAddr) {
    let short = name(&node.salt, &entry);
    // Each address changes its peers at another time of the day.
    let day = (node.now.unix_secs() + short % DAY_SECS) / DAY_SECS;
    let count = if node.reaches(&entry.addr()) { 2 } else { 1 };
    let takes = |peer: &&Peer| peer.is_ready() && peer.link != from && peer.addrs.enabled;
    let fits = |peer: &&Peer| entry.host.ip().is_some() || peer.wants_addrv2;
    let rank = |peer: &Peer| {
        let mut seed = [0; 24];
        seed[..8].copy_from_slice(&short.to_le_bytes());
        seed[8..16].copy_from_slice(&day.to_le_bytes());
        seed[16..].copy_from_slice(&peer.link.0.to_le_bytes());
        (node.salt.shorten(&seed), peer.link)
    };
    let mut ranked: Vec<_> = node.peers.values().filter(takes).filter(fits).map(rank).collect();
    ranked.sort_unstable();
    for (_, link) in ranked.into_iter().rev().take(count) {
        push(node, link, entry);
    }
}

fn push(node: &mut Node, link: LinkId, entry: PeerAddr) {
    let salt = node.salt;
    let (now, draw) = (node.now, node.rng.random_range(0..MAX_ADDR));
    let Some(peer) = node.ready(link) else { return };
    if peer.addrs.known.contains(name(&salt, &entry)) {
        return;
    }
    peer.addrs.next_send.get_or_insert(now);
    let queue = &mut peer.addrs.to_send;
    if queue.len() < MAX_ADDR {
        queue.push(entry);
    } else if let Some(place) = queue.get_mut(draw) {
        // A full queue: somebody's place is taken.
        *place = entry;
    }
}
