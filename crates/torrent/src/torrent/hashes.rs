//! Piece layers (BEP 52): fetched when a version 2 torrent came without them, served to others.

use std::sync::Arc;

use dunlin_peer::{CloseReason, LinkId, Now};

use super::{Stage, Torrent};
use crate::blame::Sender;
use crate::layers::{LayerFetch, Progress, Tree};
use crate::shared::Shared;
use crate::wire::{HashRequest, Message};
use bytes::Bytes;

/// How often a peer may fetch all layers, and a few hashes more for small ones.
const SERVED_TIMES: u64 = 3;
const SERVED_EXTRA: u64 = 8192;

impl Torrent {
    /// It is known what the torrent is: finds out what is there, once there is something to check it with.
    pub(super) fn begin(&mut self, now: Now, shared: &mut Shared) {
        let Some(meta) = &self.meta else { return };
        let missing = meta.missing_layers();
        if meta.info_hash_v1.is_some() || missing.is_empty() {
            self.tell_metadata(shared);
            return self.begin_check(shared);
        }
        self.stage = Stage::Layers(LayerFetch::new(&missing, meta.piece_length));
        self.fetch_layers(now, shared);
    }

    /// Asks peers for what is missing of the piece layers.
    pub(super) fn fetch_layers(&mut self, now: Now, shared: &mut Shared) {
        let Stage::Layers(fetch) = &mut self.stage else { return };
        // Who has pieces has their hashes.
        let able = self.peers.values().filter(|peer| peer.v2 && peer.claims.are_any());
        let links: Vec<LinkId> = able.map(|peer| peer.link.id).collect();
        for (id, request) in fetch.requests(now, &links) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.send(now, shared, Message::HashRequest(request));
            }
        }
    }

    /// A peer sent nodes.
    pub(super) fn hashes_came(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        request: &HashRequest,
        hashes: &Bytes,
    ) -> Result<(), CloseReason> {
        let Stage::Layers(fetch) = &mut self.stage else {
            return Ok(());
        };
        match fetch.received(id, request, hashes) {
            Progress::Ignored => {}
            Progress::Stored => self.fetch_layers(now, shared),
            Progress::Complete(layers) => {
                let Some(meta) = &self.meta else { return Ok(()) };
                let mut meta = (**meta).clone();
                meta.layers.extend(layers);
                self.meta = Some(Arc::new(meta));
                self.begin(now, shared);
            }
            Progress::Lie => {
                if let Some(peer) = self.peers.get(&id) {
                    let liar = Sender {
                        addr: peer.link.addr,
                        id: peer.peer_id,
                    };
                    self.ban(now, shared, liar, "sent wrong hashes");
                }
                self.fetch_layers(now, shared);
            }
        }
        Ok(())
    }

    /// A peer will not answer.
    pub(super) fn hashes_refused(&mut self, now: Now, shared: &mut Shared, id: LinkId, request: &HashRequest) {
        if let Stage::Layers(fetch) = &mut self.stage {
            fetch.rejected(now, id, request);
            self.fetch_layers(now, shared);
        }
    }

    /// A peer asks for nodes of a file's tree.
    pub(super) fn hashes_wanted(&mut self, now: Now, shared: &mut Shared, id: LinkId, request: HashRequest) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let answer = self.meta.as_ref().and_then(|meta| {
            let layer = meta.layers.get(&request.root)?;
            let limit = u64::from(meta.piece_count()) * SERVED_TIMES + SERVED_EXTRA;
            if peer.hashes_served > limit {
                return None;
            }
            peer.hashes_served += u64::from(request.length);
            if self.tree.as_ref().is_none_or(|tree| tree.root() != request.root) {
                self.tree = Some(Tree::new(request.root, layer, meta.piece_length));
            }
            self.tree.as_ref()?.answer(&request)
        });
        let msg = match answer {
            Some(hashes) => Message::Hashes { request, hashes },
            None => Message::HashReject(request),
        };
        peer.send(now, shared, msg);
    }
}
