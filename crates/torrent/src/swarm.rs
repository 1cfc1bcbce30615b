//! The addresses of a torrent's swarm: who is known, whom to dial next, who is banned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;

use crate::PeerId;

/// Addresses kept for one torrent.
const MAX_KNOWN: usize = 2_000;
/// First pause after a failed dial; doubled with each failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(15);
/// Longest pause between dials to an address that somebody reported.
const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// First and longest pause for an address that the user named.
const BACKOFF_NAMED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Pause before an address is dialled again after a link to it ended.
const AFTER_LINK: Duration = Duration::from_secs(20);
/// An address that somebody reported is forgotten after this many failures in a row.
const FAILURES_MAX: u32 = 6;

/// Who told us of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A peer that dialled us and said where it listens.
    Inbound,
    /// A peer in the house that said so by multicast.
    Lsd,
    /// Another peer.
    Pex,
    /// A node of the DHT.
    Dht,
    /// A tracker.
    Tracker,
    /// The user.
    User,
}

/// What is known of an address.
#[derive(Debug)]
struct Known {
    source: Source,
    failures: u32,
    next_dial: Now,
    busy: bool,
    seed: bool,
    order: u32,
}

/// The known addresses.
#[derive(Debug, Default)]
pub(crate) struct Swarm {
    known: BTreeMap<SocketAddr, Known>,
    /// Those that may be dialled, by the time from which on they may.
    queue: BTreeSet<(Now, u32, SocketAddr)>,
    banned_ips: BTreeSet<IpAddr>,
    banned_addrs: BTreeSet<SocketAddr>,
    banned_ids: BTreeSet<PeerId>,
}

impl Swarm {
    /// Learns an address. Those that cannot be dialled are ignored.
    pub(crate) fn learn(&mut self, now: Now, addr: SocketAddr, source: Source, rng: &mut impl Rng) {
        if addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast() || self.is_banned_addr(addr) {
            return;
        }
        if let Some(known) = self.known.get_mut(&addr) {
            if source == Source::User {
                // Named again: the user wants it tried now.
                known.source = source;
                known.failures = 0;
                if !known.busy {
                    self.queue.remove(&(known.next_dial, known.order, addr));
                    known.next_dial = now;
                    self.queue.insert((now, known.order, addr));
                }
            }
            return;
        }
        if self.known.len() >= MAX_KNOWN && !self.forget_worst() {
            return;
        }
        let order = rng.random();
        let known = Known {
            source,
            failures: 0,
            next_dial: now,
            busy: false,
            seed: false,
            order,
        };
        self.known.insert(addr, known);
        self.queue.insert((now, order, addr));
    }

    /// Takes up to `room` addresses that may be dialled now. With `skip_seeds`, those known to have everything are
    /// left alone: seeds have nothing to say to each other.
    pub(crate) fn take_due(&mut self, now: Now, room: usize, skip_seeds: bool) -> Vec<SocketAddr> {
        let due: Vec<_> = self
            .queue
            .iter()
            .take_while(|(at, _, _)| *at <= now)
            .filter(|(_, _, addr)| !skip_seeds || self.known.get(addr).is_some_and(|known| !known.seed))
            .take(room)
            .copied()
            .collect();
        for entry in &due {
            self.queue.remove(entry);
            if let Some(known) = self.known.get_mut(&entry.2) {
                known.busy = true;
            }
        }
        due.into_iter().map(|(_, _, addr)| addr).collect()
    }

    /// When the next address may be dialled.
    pub(crate) fn next_due(&self) -> Option<Now> {
        self.queue.first().map(|(at, _, _)| *at)
    }

    /// A dial came to nothing.
    pub(crate) fn dial_failed(&mut self, now: Now, addr: SocketAddr) {
        let Some(known) = self.known.get_mut(&addr) else { return };
        known.failures = known.failures.saturating_add(1);
        if known.failures >= FAILURES_MAX && known.source != Source::User {
            self.forget(addr);
            return;
        }
        let (first, longest) = match known.source {
            Source::User => BACKOFF_NAMED,
            Source::Inbound | Source::Lsd | Source::Pex | Source::Dht | Source::Tracker => (BACKOFF_FIRST, BACKOFF_MAX),
        };
        let pause = first.saturating_mul(1 << (known.failures - 1).min(12)).min(longest);
        self.requeue(addr, now + pause);
    }

    /// A link to the address exists now, whoever made it: do not dial.
    pub(crate) fn occupy(&mut self, addr: SocketAddr) {
        if let Some(known) = self.known.get_mut(&addr) {
            self.queue.remove(&(known.next_dial, known.order, addr));
            known.busy = true;
        }
    }

    /// The link to the address ended. When it was `of_use`, the address may be dialled again soon; otherwise it
    /// counts as a failure.
    pub(crate) fn link_ended(&mut self, now: Now, addr: SocketAddr, of_use: bool) {
        if !of_use {
            return self.dial_failed(now, addr);
        }
        let Some(known) = self.known.get_mut(&addr) else { return };
        known.failures = 0;
        let pause = match known.source {
            Source::User => BACKOFF_NAMED.0,
            Source::Inbound | Source::Lsd | Source::Pex | Source::Dht | Source::Tracker => AFTER_LINK,
        };
        self.requeue(addr, now + pause);
    }

    /// Notes that the peer there has everything.
    pub(crate) fn note_seed(&mut self, addr: SocketAddr) {
        if let Some(known) = self.known.get_mut(&addr) {
            known.seed = true;
        }
    }

    fn forget(&mut self, addr: SocketAddr) {
        if let Some(known) = self.known.remove(&addr) {
            self.queue.remove(&(known.next_dial, known.order, addr));
        }
    }

    /// Never dials the address again: it is our own.
    pub(crate) fn never(&mut self, addr: SocketAddr) {
        self.forget(addr);
        self.banned_addrs.insert(addr);
    }

    /// Bans a liar for this torrent: its host, or on loopback, where many peers share one host, its address and id.
    pub(crate) fn ban(&mut self, addr: SocketAddr, id: Option<PeerId>) {
        let ip = addr.ip().to_canonical();
        if ip.is_loopback() {
            self.banned_addrs.insert(addr);
            self.banned_ids.extend(id);
            self.forget(addr);
            return;
        }
        self.banned_ips.insert(ip);
        let there: Vec<SocketAddr> = self
            .known
            .keys()
            .copied()
            .filter(|known| known.ip().to_canonical() == ip)
            .collect();
        for addr in there {
            self.forget(addr);
        }
    }

    /// Whether a peer from `addr` that calls itself `id` is banned.
    pub(crate) fn is_banned(&self, addr: SocketAddr, id: &PeerId) -> bool {
        self.is_banned_addr(addr) || self.banned_ids.contains(id)
    }

    /// How many addresses are known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    fn is_banned_addr(&self, addr: SocketAddr) -> bool {
        self.banned_addrs.contains(&addr) || self.banned_ips.contains(&addr.ip().to_canonical())
    }

    fn requeue(&mut self, addr: SocketAddr, at: Now) {
        if let Some(known) = self.known.get_mut(&addr) {
            self.queue.remove(&(known.next_dial, known.order, addr));
            known.busy = false;
            known.next_dial = at;
            self.queue.insert((at, known.order, addr));
        }
    }

    /// Drops the idle address that failed most; false when all are in use or named by the user.
    fn forget_worst(&mut self) -> bool {
        let worst = self
            .known
            .iter()
            .filter(|(_, known)| !known.busy && known.source != Source::User && known.failures > 0)
            .max_by_key(|(_, known)| known.failures)
            .map(|(&addr, _)| addr);
        match worst {
            Some(addr) => {
                self.forget(addr);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6881))
    }

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(secs)
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(5)
    }

    #[test]
    fn failures_back_off_and_in_the_end_are_forgotten() {
        let mut swarm = Swarm::default();
        swarm.learn(at(0), addr(1), Source::Tracker, &mut rng());
        let mut now = at(0);
        let mut pauses = Vec::new();
        while let Some(due) = swarm.next_due() {
            pauses.push(due.since(now).as_secs());
            now = due;
            assert_eq!(swarm.take_due(now, 10, false), [addr(1)]);
            assert!(swarm.take_due(now, 10, false).is_empty(), "one dial at a time");
            swarm.dial_failed(now, addr(1));
        }
        assert_eq!(pauses, [0, 15, 30, 60, 120, 240]);
        assert!(swarm.len() == 0);
    }

    #[test]
    fn a_named_address_is_never_given_up() {
        let mut swarm = Swarm::default();
        swarm.learn(at(0), addr(1), Source::User, &mut rng());
        let mut now = at(0);
        for _ in 0..50 {
            let due = swarm.next_due().unwrap_or_default();
            assert!(due.since(now) <= BACKOFF_NAMED.1);
            now = due;
            assert_eq!(swarm.take_due(now, 1, false).len(), 1);
            swarm.dial_failed(now, addr(1));
        }
    }

    #[test]
    fn seeds_are_left_alone_by_seeds() {
        let mut swarm = Swarm::default();
        swarm.learn(at(0), addr(1), Source::Tracker, &mut rng());
        swarm.learn(at(0), addr(2), Source::Tracker, &mut rng());
        swarm.note_seed(addr(1));
        assert_eq!(swarm.take_due(at(1), 10, true), [addr(2)]);
        assert_eq!(swarm.take_due(at(1), 10, false), [addr(1)]);
    }

    #[test]
    fn a_banned_host_does_not_come_back_on_another_port() {
        let mut swarm = Swarm::default();
        swarm.learn(at(0), addr(1), Source::Tracker, &mut rng());
        swarm.ban(addr(1), None);
        assert!(swarm.len() == 0);
        let other_port = SocketAddr::from(([10, 0, 0, 1], 7000));
        swarm.learn(at(0), other_port, Source::User, &mut rng());
        assert!(swarm.len() == 0);
        assert!(swarm.is_banned(other_port, &PeerId([0; 20])));
        assert!(!swarm.is_banned(addr(2), &PeerId([0; 20])));
    }

    #[test]
    fn on_loopback_the_ban_is_for_one_peer() {
        let mut swarm = Swarm::default();
        let liar = SocketAddr::from(([127, 0, 0, 1], 7000));
        let honest = SocketAddr::from(([127, 0, 0, 1], 7001));
        swarm.ban(liar, Some(PeerId([9; 20])));
        assert!(swarm.is_banned(liar, &PeerId([0; 20])));
        assert!(swarm.is_banned(honest, &PeerId([9; 20])));
        assert!(!swarm.is_banned(honest, &PeerId([0; 20])));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let mut swarm = Swarm::default();
        for number in 0..10_000u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            swarm.learn(at(0), SocketAddr::from((ip, 1)), Source::Tracker, &mut rng());
        }
        assert_eq!(swarm.len(), MAX_KNOWN);
    }
}
