//! What each message of a peer does.

use dunlin_peer::{CloseReason, LinkId, Now};

use super::{Stage, Torrent};
use crate::Bitfield;
use crate::peer_link::Claims;
use crate::shared::Shared;
use crate::wire::{Block, ExtHandshake, Message, Metadata};

/// Allowed-fast pieces that are remembered of one peer.
const ALLOWED_FAST_MAX: usize = 256;

impl Torrent {
    /// A message came on one of the torrent's links.
    pub(crate) fn received(&mut self, now: Now, shared: &mut Shared, id: LinkId, msg: Message) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.last_received = now;
        let outcome = match msg {
            Message::Piece { piece, begin, data } => self.block_came(now, shared, id, piece, begin, data),
            Message::Request(block) => self.requested(now, shared, id, block),
            Message::Have(index) => self.peer_has(now, shared, id, index),
            Message::Choke => {
                self.peer_chokes(now, shared, id);
                Ok(())
            }
            Message::Unchoke => {
                peer.peer_choking = false;
                peer.dry_at = None;
                self.request_more(now, shared, id);
                Ok(())
            }
            Message::Interested => {
                peer.peer_interested = true;
                self.fill_slots(now, shared);
                Ok(())
            }
            Message::NotInterested => {
                peer.peer_interested = false;
                self.fill_slots(now, shared);
                Ok(())
            }
            Message::Cancel(block) => {
                self.cancelled(now, shared, id, block);
                Ok(())
            }
            Message::Reject(block) => {
                self.rejected(now, shared, id, block);
                Ok(())
            }
            Message::Bitfield(bytes) => self.peer_claims(now, shared, id, |pieces| match pieces {
                Some(pieces) => Bitfield::from_wire(&bytes, pieces).map(Claims::Known),
                None => Some(Claims::Early {
                    bitfield: Some(bytes.clone()),
                    all: false,
                    haves: Default::default(),
                }),
            }),
            Message::HaveAll => self.peer_claims(now, shared, id, |pieces| {
                Some(match pieces {
                    Some(pieces) => Claims::Known(Bitfield::full(pieces)),
                    None => Claims::Early {
                        bitfield: None,
                        all: true,
                        haves: Default::default(),
                    },
                })
            }),
            Message::HaveNone => self.peer_claims(now, shared, id, |pieces| {
                Some(pieces.map_or_else(Claims::early, |pieces| Claims::Known(Bitfield::new(pieces))))
            }),
            Message::DontHave(index) => {
                self.peer_lost(now, shared, id, index);
                Ok(())
            }
            Message::AllowedFast(index) => {
                let beyond = self.piece_count().is_some_and(|pieces| index >= pieces);
                if let Some(peer) = self.peers.get_mut(&id)
                    && !beyond
                    && peer.allowed_in.len() < ALLOWED_FAST_MAX
                {
                    peer.allowed_in.insert(index);
                    peer.dry_at = None;
                    self.request_more(now, shared, id);
                }
                Ok(())
            }
            Message::ExtHandshake(handshake) => self.ext_handshake(now, shared, id, handshake),
            Message::Metadata(Metadata::Request { piece }) => {
                self.metadata_requested(now, shared, id, piece);
                Ok(())
            }
            Message::Metadata(Metadata::Data { piece, data, .. }) => self.metadata_came(now, shared, id, piece, data),
            Message::Metadata(Metadata::Reject { piece }) => {
                if let Stage::Metadata(fetch) = &mut self.stage {
                    fetch.refused(now, id, piece);
                }
                Ok(())
            }
            Message::Handshake(_) => Err(CloseReason::fault("a second handshake")),
            Message::Pex(pex) => {
                self.peers_told(now, shared, id, &pex);
                Ok(())
            }
            Message::HashRequest(request) => {
                self.hashes_wanted(now, shared, id, request);
                Ok(())
            }
            Message::Hashes { request, hashes } => self.hashes_came(now, shared, id, &request, &hashes),
            Message::HashReject(request) => {
                self.hashes_refused(now, shared, id, &request);
                Ok(())
            }
            // Suggestions are only that.
            Message::Encrypt(_)
            | Message::KeepAlive
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::Unknown { .. } => Ok(()),
        };
        if let Err(reason) = outcome {
            self.close_peer(now, shared, id, reason);
        }
    }

    /// How many pieces there are, once that is known.
    fn piece_count(&self) -> Option<u32> {
        self.meta.as_ref().map(|meta| meta.piece_count())
    }

    /// A peer says all that it has at once; allowed as its first word about pieces only (BEP 3, BEP 6).
    fn peer_claims(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        read: impl FnOnce(Option<u32>) -> Option<Claims>,
    ) -> Result<(), CloseReason> {
        let pieces = self.piece_count();
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if std::mem::replace(&mut peer.claimed, true) {
            return Err(CloseReason::fault("a second bitfield"));
        }
        let claims = read(pieces).ok_or_else(|| CloseReason::fault("bitfield of wrong size"))?;
        if let (Stage::Active(picker), Claims::Known(old), Some(as_seed)) =
            (&mut self.stage, &peer.claims, peer.counted_as_seed.take())
        {
            picker.peer_left(old, as_seed);
        }
        peer.claims = claims;
        self.count_peer(now, shared, id);
        Ok(())
    }

    fn peer_has(&mut self, now: Now, shared: &mut Shared, id: LinkId, index: u32) -> Result<(), CloseReason> {
        let pieces = self.piece_count();
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let Some(pieces) = pieces else {
            peer.claims.early_have(index);
            return Ok(());
        };
        if index >= pieces {
            return Err(CloseReason::fault("has a piece that does not exist"));
        }
        if matches!(peer.claims, Claims::Early { .. }) {
            // Its first word is a `have`: until now it had nothing.
            peer.claimed = true;
            let set = peer.claims.understood(pieces);
            peer.claims = Claims::Known(set.ok_or_else(|| CloseReason::fault("bitfield of wrong size"))?);
            self.count_peer(now, shared, id);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let Claims::Known(set) = &mut peer.claims else {
            return Ok(());
        };
        if !set.set(index) {
            return Ok(());
        }
        let full = set.is_full();
        let Stage::Active(picker) = &mut self.stage else {
            return Ok(());
        };
        if peer.counted_as_seed.is_some() {
            picker.peer_has(index);
        }
        if picker.lacks(index) {
            peer.wanted += 1;
            if picker.is_open(index) {
                peer.dry_at = None;
            }
            self.update_interest(now, shared, id);
            self.request_more(now, shared, id);
        }
        if full {
            self.leave_fellow_seed(now, shared, id);
        }
        Ok(())
    }

    /// BEP 54: a peer no longer has a piece.
    fn peer_lost(&mut self, now: Now, shared: &mut Shared, id: LinkId, index: u32) {
        let Stage::Active(picker) = &mut self.stage else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Claims::Known(set) = &mut peer.claims else { return };
        if !set.get(index) {
            return;
        }
        if let Some(as_seed) = peer.counted_as_seed {
            picker.peer_left(set, as_seed);
        }
        set.clear(index);
        peer.counted_as_seed = Some(picker.peer_joined(set));
        if picker.lacks(index) {
            peer.wanted = peer.wanted.saturating_sub(1);
        }
        self.update_interest(now, shared, id);
    }

    fn peer_chokes(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.peer_choking = true;
        // With the fast extension each request is answered, if only by a reject; without it they are forgotten.
        if !peer.fast {
            let asked: Vec<Block> = peer.asked.drain(..).map(|asked| asked.block).collect();
            for block in asked {
                peer.expect_late(block);
                if let Stage::Active(picker) = &mut self.stage {
                    picker.release(id, block);
                }
            }
            self.request_all(now, shared);
        }
    }

    fn ext_handshake(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        handshake: ExtHandshake,
    ) -> Result<(), CloseReason> {
        let limit = shared.config.limits.pipeline;
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if !peer.extensions {
            return Err(CloseReason::fault("extension handshake without the extension bit"));
        }
        peer.pipeline.told_reqq(handshake.request_queue, limit);
        let port = handshake.port;
        let offers = handshake.ids.ut_metadata.and(handshake.metadata_size);
        peer.ext = Some(handshake);
        if let Some(port) = port {
            self.learn_listener(now, shared, id, port);
        }
        if let (Stage::Metadata(fetch), Some(size)) = (&mut self.stage, offers) {
            if !fetch.offer(now, id, size) {
                tracing::debug!(%id, size, "peer claims an impossible metadata size");
            }
            self.fetch_metadata(now, shared);
        }
        self.leave_fellow_seed(now, shared, id);
        Ok(())
    }
}
