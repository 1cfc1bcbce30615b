//! Which links to open and to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dunlin_peer::{
    AddressEntry, CloseReason, DialToken, Direction, DisconnectCause, Host, Link, LinkId, NetAddr, NetGroup, Now,
};
use rand::Rng;

use crate::eviction::{self, Candidate};
use crate::interface::AddKind;
use crate::node::Node;
use crate::outbound::{Outbound, Wish};
use crate::peer::{Kind, Peer, Transport};
use crate::private::{self, PrivateBroadcast};
use crate::wire::services;

/// The first wait before a kept address is dialled again; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The wait after a kept peer broke the protocol.
const FAULT_BACKOFF: Duration = Duration::from_secs(10 * 60);
/// A link that lasted this long was a good one: the next dial is not delayed.
const GOOD_LINK: Duration = Duration::from_secs(60);
/// Between two dials to addresses of the book.
const DIAL_INTERVAL: Duration = Duration::from_millis(500);
/// When the book had nothing to dial.
const EMPTY_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Dial again whenever it is lost.
    Always,
    /// One dial.
    Once,
}

#[derive(Clone, Debug)]
struct Kept {
    keep: Keep,
    backoff: Duration,
    next: Now,
    dialling: bool,
    link: Option<LinkId>,
}

#[derive(Clone, Copy, Debug)]
struct Dial {
    addr: NetAddr,
    kind: Kind,
    /// The encrypted transport will be asked for.
    encrypted: bool,
}

/// The dials under way and the addresses to keep.
#[derive(Debug)]
pub(crate) struct Connections {
    kept: BTreeMap<NetAddr, Kept>,
    dials: BTreeMap<DialToken, Dial>,
    last_token: u64,
    next_automatic: Now,
    pub(crate) outbound: Outbound,
    pub(crate) private: PrivateBroadcast,
}

impl Connections {
    pub(crate) fn new(node: &mut Node) -> Self {
        let mut this = Self {
            kept: BTreeMap::new(),
            dials: BTreeMap::new(),
            last_token: 0,
            next_automatic: Now::default(),
            outbound: Outbound::new(node),
            private: PrivateBroadcast::default(),
        };
        for addr in node.config.connect_only.iter().chain(&node.config.add_peers) {
            this.keep(node.known_as(*addr), Keep::Always, node.now);
        }
        this
    }

    fn keep(&mut self, addr: NetAddr, keep: Keep, now: Now) {
        let kept = Kept {
            keep,
            backoff: MIN_BACKOFF,
            next: now,
            dialling: false,
            link: None,
        };
        let kept = self.kept.entry(addr).or_insert(kept);
        if keep == Keep::Always {
            kept.keep = keep;
        }
        kept.next = kept.next.min(now);
    }

    /// A person adds or removes an address.
    pub(crate) fn add(&mut self, node: &Node, addr: NetAddr, kind: AddKind) {
        let addr = node.known_as(addr);
        match kind {
            AddKind::Add => self.keep(addr, Keep::Always, node.now),
            AddKind::Onetry => self.keep(addr, Keep::Once, node.now),
            AddKind::Remove => {
                self.kept.remove(&addr);
            }
        }
    }

    /// The kept addresses and whether each is connected.
    pub(crate) fn added(&self, node: &Node) -> Vec<(NetAddr, bool)> {
        let connected = |link: &LinkId| node.peers.get(link).is_some_and(Peer::is_ready);
        self.kept
            .iter()
            .map(|(addr, kept)| (*addr, kept.link.as_ref().is_some_and(connected)))
            .collect()
    }

    /// When [`Connections::pump`] has something to do.
    pub(crate) fn next(&self, node: &Node) -> Option<Now> {
        let kept = self
            .kept
            .values()
            .filter(|kept| !kept.dialling && kept.link.is_none())
            .map(|kept| kept.next);
        let automatic = self.wish(node).map(|_| self.next_automatic);
        let later = self.outbound.next(node).map(|at| at.max(self.next_automatic));
        kept.chain(automatic).chain(later).chain(self.private.next()).min()
    }

    fn wish(&self, node: &Node) -> Option<Wish> {
        let count = |kind| {
            let links = node.peers.values().filter(|peer| peer.kind == kind).count();
            links + self.dials.values().filter(|dial| dial.kind == kind).count()
        };
        if self.private.wants_link() && count(Kind::Private) < private::MAX_LINKS {
            return Some(Wish::Some(Kind::Private));
        }
        self.outbound.wish(node, count)
    }

    /// Dials what is due.
    pub(crate) fn pump(&mut self, node: &mut Node) {
        let now = node.now;
        let due: Vec<NetAddr> = self
            .kept
            .iter()
            .filter(|(_, kept)| !kept.dialling && kept.link.is_none() && kept.next <= now)
            .map(|(addr, _)| *addr)
            .collect();
        for addr in due {
            let linked = node.peers.values().find(|peer| !peer.is_inbound() && peer.addr == addr);
            let linked = linked.map(|peer| peer.link);
            if let Some(kept) = self.kept.get_mut(&addr) {
                kept.link = linked;
                kept.dialling = linked.is_none();
            }
            if linked.is_none() {
                let encrypted = encrypts(node);
                self.dial(
                    node,
                    Dial {
                        addr,
                        kind: Kind::Manual,
                        encrypted,
                    },
                );
            }
        }
        if self.next_automatic <= now
            && let Some(wish) = self.wish(node)
        {
            let picked = match wish {
                Wish::Anchor(addr) => {
                    let refused = node.bans.refuses(&addr.host, now.unix_secs());
                    (!refused && node.reaches(&addr) && !self.is_taken(node, &addr)).then_some(addr)
                }
                Wish::Some(kind) => self.pick(node, kind),
            };
            self.outbound.tried(node, wish);
            self.next_automatic = now
                + if picked.is_some() {
                    DIAL_INTERVAL
                } else {
                    EMPTY_INTERVAL
                };
            if let Some(addr) = picked {
                let kind = match wish {
                    Wish::Anchor(_) => Kind::BlockRelay,
                    Wish::Some(kind) => kind,
                };
                let v2 = |entry: &AddressEntry| entry.services & services::P2P_V2 != 0;
                let encrypted = encrypts(node) && node.book.entry(&addr).is_some_and(v2);
                self.dial(node, Dial { addr, kind, encrypted });
            }
        }
    }

    /// Whether we are linked to this address, dial it, or keep it.
    fn is_taken(&self, node: &Node, addr: &NetAddr) -> bool {
        node.peers.values().any(|peer| peer.addr == *addr)
            || self.dials.values().any(|dial| dial.addr == *addr)
            || self.kept.contains_key(addr)
    }

    fn dial(&mut self, node: &mut Node, dial: Dial) {
        self.last_token += 1;
        let token = DialToken(self.last_token);
        self.dials.insert(token, dial);
        match dial.kind {
            // What is kept of addresses must not tell of it.
            Kind::Private => self.private.dialled(),
            _ => node.book.attempt(dial.addr, node.now),
        }
        node.out.dial(dial.addr, token);
    }

    /// An address of the book in a network group that no outbound link uses yet; for a feeler one that nobody tried.
    fn pick(&self, node: &mut Node, kind: Kind) -> Option<NetAddr> {
        let (now, unix) = (node.now, node.now.unix_secs());
        let mut taken: BTreeSet<NetAddr> = node.peers.values().map(|peer| peer.addr).collect();
        taken.extend(self.dials.values().map(|dial| dial.addr));
        taken.extend(self.kept.keys());
        // Names on hidden networks cost nothing: spreading links over groups of them proves nothing.
        let map = node.book.as_map().cloned();
        let group = |host: &Host| {
            let outside = host.ip().is_some() && host.is_public();
            outside.then(|| NetGroup::of(*host, map.as_deref()))
        };
        let outbound = node
            .peers
            .values()
            .filter(|peer| !peer.is_inbound())
            .map(|peer| peer.addr);
        let dialled = self.dials.values().map(|dial| dial.addr);
        let groups: BTreeSet<NetGroup> = outbound.chain(dialled).filter_map(|addr| group(&addr.host)).collect();
        let wanted = services::NETWORK | services::WITNESS;
        let (feeler, private) = (kind == Kind::Feeler, kind == Kind::Private);
        let reachable = match private {
            true => node.config.reachable.and(node.config.private_broadcast),
            false => node.config.reachable,
        };
        let Node { book, bans, rng, .. } = node;
        book.pick_with(rng, now, |entry| {
            entry.services & wanted == wanted
                && !(feeler && entry.tried)
                && !taken.contains(&entry.addr)
                && reachable.contains(entry.addr.host.class())
                && (private || group(&entry.addr.host).is_none_or(|group| !groups.contains(&group)))
                && !bans.refuses(&entry.addr.host, unix)
        })
    }

    /// A dial came to nothing.
    pub(crate) fn failed(&mut self, node: &Node, token: DialToken) {
        let Some(dial) = self.dials.remove(&token) else {
            return;
        };
        match dial.kind {
            Kind::Manual => self.lost(node, dial.addr, None),
            Kind::Private => self.private.failed(),
            _ => {}
        }
    }

    fn lost(&mut self, node: &Node, addr: NetAddr, wait: Option<Duration>) {
        let Some(kept) = self.kept.get_mut(&addr) else { return };
        kept.dialling = false;
        kept.link = None;
        if kept.keep == Keep::Once {
            self.kept.remove(&addr);
            return;
        }
        kept.next = node.now + wait.unwrap_or(kept.backoff);
        kept.backoff = (kept.backoff * 2).min(MAX_BACKOFF);
    }

    /// A link stands. Enters it among the peers, or closes it when there is no room for it.
    pub(crate) fn connected(&mut self, node: &mut Node, mut link: Link<NetAddr>) -> bool {
        link.addr = node.known_as(link.addr);
        let dial = link.token.and_then(|token| self.dials.remove(&token));
        let kind = match (link.direction, dial) {
            (Direction::Inbound, _) => Kind::Inbound,
            (Direction::Outbound, Some(dial)) => dial.kind,
            (Direction::Outbound, None) => Kind::Automatic,
        };
        if let Some(dial) = dial
            && dial.kind == Kind::Manual
            && let Some(kept) = self.kept.get_mut(&dial.addr)
        {
            kept.dialling = false;
            kept.link = Some(link.id);
        }
        let nonce = node.rng.random();
        let mut refusal = None;
        if kind == Kind::Inbound {
            if node.bans.refuses(&link.addr.host, node.now.unix_secs()) {
                refusal = Some("the address is banned");
            } else if !make_room(node) {
                refusal = Some("too many connections");
            }
        }
        let mut peer = Peer::new(link, kind, nonce, node.now);
        peer.onion = kind == Kind::Inbound && link.bind.is_some() && link.bind == node.config.onion_bind;
        peer.asked_encryption = dial.is_some_and(|dial| dial.encrypted);
        node.peers.insert(link.id, peer);
        if let Some(text) = refusal {
            node.close(link.id, CloseReason::benign(text));
        }
        refusal.is_none()
    }

    /// A link is gone; it is no longer among the peers.
    pub(crate) fn gone(&mut self, node: &mut Node, peer: &Peer, cause: &DisconnectCause) {
        if peer.kind == Kind::Private {
            self.private.gone(peer.link);
        }
        let found = self
            .kept
            .iter()
            .find(|(_, kept)| kept.link == Some(peer.link))
            .map(|(addr, _)| *addr);
        // A peer that knows nothing of the encrypted transport takes its first bytes for nonsense and hangs up.
        let refused = peer.asked_encryption && peer.transport == Transport::Detecting;
        if refused && !matches!(cause, DisconnectCause::Ours(_)) {
            if let Some(kept) = found.and_then(|addr| self.kept.get_mut(&addr)) {
                kept.link = None;
                kept.dialling = true;
            }
            let addr = found.unwrap_or(peer.addr);
            return self.dial(
                node,
                Dial {
                    addr,
                    kind: peer.kind,
                    encrypted: false,
                },
            );
        }
        let Some(addr) = found else { return };
        if node.now.since(peer.connected_at) >= GOOD_LINK
            && let Some(kept) = self.kept.get_mut(&addr)
        {
            kept.backoff = MIN_BACKOFF;
        }
        let fault = matches!(cause, DisconnectCause::Ours(reason) if reason.fault);
        self.lost(node, addr, fault.then_some(FAULT_BACKOFF));
    }
}

/// Whether we speak the encrypted transport.
fn encrypts(node: &Node) -> bool {
    node.config.services & services::P2P_V2 != 0
}

/// Whether one more inbound link fits, perhaps in the place of a worse one.
fn make_room(node: &mut Node) -> bool {
    let open = |peer: &&Peer| peer.is_inbound() && !peer.closing;
    if node.peers.values().filter(open).count() < node.config.max_inbound {
        return true;
    }
    let candidate = |peer: &Peer| Candidate {
        link: peer.link,
        group: node.salt.shorten(&node.book.group(&peer.addr.host).to_bytes()),
        network: peer.network(),
        local: peer.addr.host.is_loopback(),
        relays_txs: peer.tx.wanted,
        discouraged: node.bans.refuses(&peer.addr.host, node.now.unix_secs()),
        min_ping: peer.ping.min,
        last_tx: peer.tx.last,
        last_block: peer.blocks.last_new,
        connected_at: peer.connected_at,
    };
    match eviction::choose(node.peers.values().filter(open).map(candidate).collect()) {
        Some(link) => {
            node.close(link, CloseReason::benign("makes room for another peer"));
            true
        }
        None => false,
    }
}
