//! A torrent's links: whom it takes, what is said first, when a link ends.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::{CloseReason, Direction, Link, LinkId, Now};

use super::{Stage, Torrent};
use crate::blame::Sender;
use crate::command::Event;
use crate::peer_link::{Claims, PeerLink};
use crate::shared::Shared;
use crate::swarm;
use crate::wire::{ExtHandshake, ExtensionIds, Handshake, Message};

/// A keep-alive goes out after this much silence of ours (BEP 3: peers wait two minutes).
const KEEP_ALIVE: Duration = Duration::from_secs(110);
/// A peer that was silent for this long is gone.
const SILENT: Duration = Duration::from_secs(180);
/// A link on which neither side wants anything ends after this long.
const USELESS: Duration = Duration::from_secs(600);
/// Two links to one peer whose handshakes are closer than this were dialled by both sides at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A link that ended sooner than this without content on it was of no use.
const SHORT: Duration = Duration::from_secs(10);
/// Links that sent blocks and that are remembered.
const SENDERS_MAX: usize = 4096;

impl Torrent {
    /// A peer shook hands. Takes the link, or says why not. `encrypted` when we dialled it so.
    pub(crate) fn accept(
        &mut self,
        now: Now,
        shared: &mut Shared,
        link: Link,
        encrypted: bool,
        theirs: &Handshake,
    ) -> Result<(), CloseReason> {
        if link.token.is_some() {
            self.dialing = self.dialing.saturating_sub(1);
        }
        let refused = self.refuse(now, shared, &link, theirs);
        if link.direction == Direction::Outbound {
            let here_already = self.peers.values().any(|peer| peer.listens_at == Some(link.addr));
            if refused.is_none() || here_already {
                self.swarm.occupy(link.addr);
            } else {
                self.swarm.link_ended(now, link.addr, false);
            }
        }
        if let Some(reason) = refused {
            return Err(reason);
        }
        let mut peer = PeerLink::new(now, link, theirs, shared.config.limits.pipeline);
        peer.encrypted = encrypted;
        peer.v2 = self.name_v2() == Some(theirs.info_hash);
        self.greet(now, shared, &mut peer);
        self.peers.insert(link.id, peer);
        shared.links += 1;
        Ok(())
    }

    /// Why the link is not wanted, if it is not.
    fn refuse(&mut self, now: Now, shared: &mut Shared, link: &Link, theirs: &Handshake) -> Option<CloseReason> {
        if !self.is_running() || shared.stopping {
            return Some(CloseReason::benign("torrent is not running"));
        }
        if self.swarm.is_banned(link.addr, &theirs.peer_id) {
            return Some(CloseReason::benign("banned from this torrent"));
        }
        if let Some(twin) = self.peers.values_mut().find(|peer| peer.peer_id == theirs.peer_id) {
            // Both sides dialled at once: keep the link that the greater id dialled, as the other side will.
            let by_greater = match link.direction {
                Direction::Outbound => shared.peer_id > theirs.peer_id,
                Direction::Inbound => shared.peer_id < theirs.peer_id,
            };
            let at_once = twin.link.direction != link.direction && now.since(twin.since) < AT_ONCE;
            if !at_once || !by_greater {
                if link.direction == Direction::Outbound && twin.link.direction == Direction::Inbound {
                    twin.listens_at = Some(link.addr);
                }
                return Some(CloseReason::benign("already connected"));
            }
            let twin = twin.link.id;
            self.close_peer(now, shared, twin, CloseReason::benign("already connected"));
        }
        let limits = shared.config.limits;
        if self.peers.len() >= limits.links_per_torrent || shared.links >= limits.links {
            return Some(CloseReason::benign("too many connections"));
        }
        None
    }

    /// What is said right after the handshake: what we have, and what we can do.
    fn greet(&self, now: Now, shared: &mut Shared, peer: &mut PeerLink) {
        let have = match &self.stage {
            Stage::Active(picker) => Some(picker.have()),
            Stage::Metadata(_) | Stage::Layers(_) | Stage::Checking(_) => None,
        };
        match have {
            Some(have) if have.is_full() && peer.fast => peer.send(now, shared, Message::HaveAll),
            Some(have) if !have.is_none() => peer.send(now, shared, Message::Bitfield(have.to_bytes())),
            _ if peer.fast => peer.send(now, shared, Message::HaveNone),
            _ => {}
        }
        if peer.extensions {
            let handshake = self.ext_handshake_for(shared, peer.link.addr);
            peer.send(now, shared, Message::ExtHandshake(handshake));
        }
    }

    /// What we can do, for a peer at `addr` (BEP 10).
    pub(super) fn ext_handshake_for(&self, shared: &Shared, addr: SocketAddr) -> ExtHandshake {
        ExtHandshake {
            ids: ExtensionIds {
                ut_metadata: ExtensionIds::OURS.ut_metadata,
                ut_pex: ExtensionIds::OURS.ut_pex.filter(|_| self.exchanges_peers(shared)),
                lt_donthave: ExtensionIds::OURS.lt_donthave,
            },
            client: Some(shared.config.client.clone()),
            port: shared.config.listen_port,
            request_queue: u32::try_from(shared.config.limits.peer_requests).ok(),
            metadata_size: self
                .meta
                .as_ref()
                .and_then(|meta| u32::try_from(meta.raw_info.len()).ok()),
            your_ip: Some(addr.ip().to_canonical()),
            upload_only: self.only_serves() && matches!(self.stage, Stage::Active(_)),
        }
    }

    /// Counts a peer's pieces once they are understood, and begins to want them.
    pub(super) fn count_peer(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        self.fetch_layers(now, shared);
        let Stage::Active(picker) = &mut self.stage else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Claims::Known(pieces) = &peer.claims else { return };
        if peer.counted_as_seed.is_none() {
            peer.counted_as_seed = Some(picker.peer_joined(pieces));
        }
        self.count_wanted(id);
        if self.leave_fellow_seed(now, shared, id) {
            return;
        }
        self.update_interest(now, shared, id);
        self.grant_allowed_fast(now, shared, id);
        self.request_more(now, shared, id);
    }

    /// Counts what a peer has of what we want.
    pub(super) fn count_wanted(&mut self, id: LinkId) {
        let Stage::Active(picker) = &self.stage else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Claims::Known(pieces) = &peer.claims else { return };
        let wanted = pieces.iter().filter(|&index| picker.lacks(index)).count();
        peer.wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        peer.dry_at = None;
    }

    /// Two peers that both only serve have nothing to say to each other; true when the link was ended for that.
    pub(super) fn leave_fellow_seed(&mut self, now: Now, shared: &mut Shared, id: LinkId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let fellow = self.only_serves() && matches!(self.stage, Stage::Active(_)) && peer.is_seed();
        if fellow {
            for addr in [Some(peer.link.addr), peer.listens_at].into_iter().flatten() {
                self.swarm.note_seed(addr);
            }
            self.close_peer(now, shared, id, CloseReason::benign("both sides are seeds"));
        }
        fellow
    }

    /// Tells the peer whether we want something of it, when that changed.
    pub(super) fn update_interest(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let downloading = self.is_downloading();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let interested = downloading && peer.wanted > 0;
        if interested != peer.am_interested {
            peer.am_interested = interested;
            let msg = if interested {
                Message::Interested
            } else {
                Message::NotInterested
            };
            peer.send(now, shared, msg);
        }
    }

    /// Ends a link from our side.
    pub(super) fn close_peer(&mut self, now: Now, shared: &mut Shared, id: LinkId, reason: CloseReason) {
        if self.forget_peer(now, shared, id, !reason.fault) {
            shared.close(id, reason);
            self.fill_slots(now, shared);
            self.request_all(now, shared);
        }
    }

    /// Ends all links.
    pub(super) fn close_all(&mut self, now: Now, shared: &mut Shared, reason: &CloseReason) {
        for id in self.links() {
            if self.forget_peer(now, shared, id, true) {
                shared.close(id, reason.clone());
            }
        }
    }

    /// A link ended from outside.
    pub(crate) fn disconnected(&mut self, now: Now, shared: &mut Shared, id: LinkId, fault: bool) {
        if self.forget_peer(now, shared, id, !fault) {
            self.fill_slots(now, shared);
            self.request_all(now, shared);
        }
    }

    /// Takes a link out of every account.
    fn forget_peer(&mut self, now: Now, shared: &mut Shared, id: LinkId, of_use: bool) -> bool {
        let Some(peer) = self.peers.remove(&id) else {
            return false;
        };
        shared.links = shared.links.saturating_sub(1);
        shared.eager.insert(self.info_hash);
        self.choker.remove(id);
        match &mut self.stage {
            Stage::Active(picker) => {
                for asked in &peer.asked {
                    picker.release(id, asked.block);
                }
                if let (Claims::Known(pieces), Some(as_seed)) = (&peer.claims, peer.counted_as_seed) {
                    picker.peer_left(pieces, as_seed);
                }
            }
            Stage::Metadata(fetch) => fetch.remove(id),
            Stage::Layers(fetch) => fetch.remove(id),
            Stage::Checking(_) => {}
        }
        let dialable = match peer.link.direction {
            Direction::Outbound => Some(peer.link.addr),
            Direction::Inbound => peer.listens_at,
        };
        if let Some(addr) = dialable {
            if peer.is_seed() {
                self.swarm.note_seed(addr);
            }
            let busy = peer.down.total() > 0 || peer.up.total() > 0 || now.since(peer.since) >= SHORT;
            self.swarm.link_ended(now, addr, of_use && busy);
        }
        true
    }

    /// The peer that dialled us says where it listens: remember it, but do not dial it while it is here.
    pub(super) fn learn_listener(&mut self, now: Now, shared: &mut Shared, id: LinkId, port: u16) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.link.direction == Direction::Inbound && peer.listens_at.is_none() {
            let addr = SocketAddr::new(peer.link.addr.ip(), port);
            peer.listens_at = Some(addr);
            self.swarm.learn(now, addr, swarm::Source::Inbound, &mut shared.rng);
            self.swarm.occupy(addr);
        }
    }

    /// An address turned out to be our own.
    pub(crate) fn is_myself(&mut self, addr: SocketAddr) {
        self.dialing = self.dialing.saturating_sub(1);
        self.swarm.never(addr);
    }

    /// Stops or goes on reading from all links.
    pub(crate) fn set_reading(&mut self, shared: &mut Shared, reading: bool) {
        for (&id, peer) in &mut self.peers {
            if peer.reading != reading {
                peer.reading = reading;
                shared.set_reading(id, reading);
            }
        }
    }

    /// Who is behind a link.
    pub(super) fn remember_sender(&mut self, id: LinkId) {
        if self.senders.contains_key(&id) {
            return;
        }
        if let Some(peer) = self.peers.get(&id) {
            let sender = Sender {
                addr: peer.link.addr,
                id: peer.peer_id,
            };
            self.senders.insert(id, sender);
        }
        while self.senders.len() > SENDERS_MAX {
            self.senders.pop_first();
        }
    }

    /// Bans a liar and ends its links.
    pub(super) fn ban(&mut self, now: Now, shared: &mut Shared, liar: Sender, reason: &str) {
        if self.swarm.is_banned(liar.addr, &liar.id) {
            return;
        }
        self.swarm.ban(liar.addr, Some(liar.id));
        shared.out.event(Event::PeerBanned {
            info_hash: self.info_hash,
            addr: liar.addr,
            reason: reason.to_owned(),
        });
        let theirs: Vec<LinkId> = self
            .peers
            .values()
            .filter(|peer| self.swarm.is_banned(peer.link.addr, &peer.peer_id))
            .map(|peer| peer.link.id)
            .collect();
        for id in theirs {
            if let Stage::Active(picker) = &mut self.stage {
                picker.distrust(id);
            }
            if let Some(addr) = self.peers.get(&id).and_then(|peer| peer.listens_at) {
                self.swarm.ban(addr, None);
            }
            self.close_peer(now, shared, id, CloseReason::fault(reason.to_owned()));
        }
    }

    /// Keep-alives, silence, snubbing, pipelines, stalled uploads.
    pub(super) fn tick_links(&mut self, now: Now, shared: &mut Shared) {
        let crowded = self.peers.len() * 2 > shared.config.limits.links_per_torrent;
        for id in self.links() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if now.since(peer.last_received) >= SILENT {
                self.close_peer(now, shared, id, CloseReason::benign("peer is silent"));
                continue;
            }
            let busy_at = peer.since.max(peer.last_block);
            let wanted = peer.am_interested || peer.peer_interested;
            if crowded && !wanted && now.since(busy_at) >= USELESS {
                self.close_peer(now, shared, id, CloseReason::benign("nothing to exchange"));
                continue;
            }
            if now.since(peer.last_sent) >= KEEP_ALIVE {
                peer.send(now, shared, Message::KeepAlive);
            }
            if !peer.asked.is_empty() {
                let rate = peer.down.rate(now);
                peer.pipeline.measured(rate);
            }
            self.check_snubbed(now, shared, id);
            self.serve_stalled(now, shared, id);
        }
    }
}
