//! Peer exchange (BEP 11): peers tell each other, now and then, who came to the swarm and who left it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::{Direction, LinkId, Now, is_public};

use super::Torrent;
use crate::peer_link::PeerLink;
use crate::shared::Shared;
use crate::swarm;
use crate::utp::is_utp;
use crate::wire::{Message, Pex, PexFlags};

/// Time between two messages to a peer.
const INTERVAL: Duration = Duration::from_secs(60);
/// A peer that tells more often than this is not listened to: some clocks run a little fast.
const MIN_HEARD: Duration = Duration::from_secs(45);
/// Peers named in one message as come, and as many as gone.
const MAX_NAMED: usize = 50;

/// What was exchanged with one peer.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    told: BTreeSet<SocketAddr>,
    next_told: Now,
    next_heard: Now,
}

/// Where others can reach a peer, and what they should know of it.
fn reachable(peer: &PeerLink) -> Option<(SocketAddr, PexFlags)> {
    let (addr, mut flags) = match peer.link.direction {
        Direction::Outbound => (peer.link.addr, PexFlags::REACHABLE),
        Direction::Inbound => (peer.listens_at?, 0),
    };
    if peer.encrypted {
        flags |= PexFlags::ENCRYPTION;
    }
    if is_utp(peer.link.id) {
        flags |= PexFlags::UTP;
    }
    let only_serves = peer.ext.as_ref().is_some_and(|ext| ext.upload_only);
    if only_serves || peer.pieces().is_some_and(|pieces| pieces.is_full()) {
        flags |= PexFlags::SEED;
    }
    Some((addr, PexFlags(flags)))
}

impl Torrent {
    /// Whether peers are exchanged at all: never in a private torrent (BEP 27).
    pub(super) fn exchanges_peers(&self, shared: &Shared) -> bool {
        shared.config.pex && self.meta.as_ref().is_none_or(|meta| !meta.private)
    }

    /// Tells those whose turn it is who came and who left.
    pub(super) fn tell_peers(&mut self, now: Now, shared: &mut Shared) {
        if !self.exchanges_peers(shared) {
            return;
        }
        let due = |peer: &PeerLink| {
            let listens = peer.ext.as_ref().is_some_and(|ext| ext.ids.ut_pex.is_some());
            listens && now >= peer.pex.next_told
        };
        if !self.peers.values().any(due) {
            return;
        }
        let swarm: BTreeMap<SocketAddr, PexFlags> = self.peers.values().filter_map(reachable).collect();
        for peer in self.peers.values_mut().filter(|peer| due(peer)) {
            let own = reachable(peer).map(|(addr, _)| addr);
            // Addresses of a house are of no use outside of it.
            let outside = is_public(peer.link.addr.ip());
            let told = &mut peer.pex.told;
            let news = swarm
                .iter()
                .filter(|(addr, _)| Some(**addr) != own && !told.contains(addr) && (!outside || is_public(addr.ip())));
            let added: Vec<_> = news.take(MAX_NAMED).map(|(addr, flags)| (*addr, *flags)).collect();
            let gone = told.iter().filter(|addr| !swarm.contains_key(addr));
            let dropped: Vec<_> = gone.take(MAX_NAMED).copied().collect();
            if added.is_empty() && dropped.is_empty() {
                continue;
            }
            told.extend(added.iter().map(|(addr, _)| *addr));
            told.retain(|addr| !dropped.contains(addr));
            peer.pex.next_told = now + INTERVAL;
            peer.send(now, shared, Message::Pex(Pex { added, dropped }));
        }
    }

    /// A peer told who came. Who left is of no interest: we find out ourselves.
    pub(super) fn peers_told(&mut self, now: Now, shared: &mut Shared, id: LinkId, pex: &Pex) {
        if !self.exchanges_peers(shared) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| now >= peer.pex.next_heard) else {
            return;
        };
        peer.pex.next_heard = now + MIN_HEARD;
        let addrs: Vec<SocketAddr> = pex.added.iter().take(2 * MAX_NAMED).map(|(addr, _)| *addr).collect();
        self.learn(now, shared, &addrs, swarm::Source::Pex);
    }
}
