//! The info dictionary: fetched for a magnet link, served to others (BEP 9).

use std::sync::Arc;

use bytes::Bytes;
use dunlin_peer::{CloseReason, LinkId, Now};

use super::{Stage, Torrent};
use crate::Metainfo;
use crate::blame::Sender;
use crate::command::Event;
use crate::metadata::{Progress, pieces_of};
use crate::shared::Shared;
use crate::wire::{METADATA_PIECE_LEN, Message, Metadata};

/// How often a peer may fetch the whole info dictionary, and a few requests more for small ones.
const SERVED_TIMES: u32 = 3;
const SERVED_EXTRA: u32 = 16;

impl Torrent {
    /// Asks peers for what is missing of the info dictionary.
    pub(super) fn fetch_metadata(&mut self, now: Now, shared: &mut Shared) {
        let Stage::Metadata(fetch) = &mut self.stage else {
            return;
        };
        for (id, piece) in fetch.requests(now) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.send(now, shared, Message::Metadata(Metadata::Request { piece }));
            }
        }
    }

    /// A piece of the info dictionary arrived.
    pub(super) fn metadata_came(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        piece: u32,
        data: Bytes,
    ) -> Result<(), CloseReason> {
        let Stage::Metadata(fetch) = &mut self.stage else {
            return Ok(());
        };
        match fetch.received(id, piece, data) {
            Progress::Ignored => {}
            Progress::Stored | Progress::Wrong => self.fetch_metadata(now, shared),
            Progress::Complete(raw_info) => self.metadata_complete(now, shared, &raw_info),
            Progress::Liar(liar) => {
                if let Some(peer) = self.peers.get(&liar) {
                    let liar = Sender {
                        addr: peer.link.addr,
                        id: peer.peer_id,
                    };
                    self.ban(now, shared, liar, "sent wrong metadata");
                }
                self.fetch_metadata(now, shared);
            }
        }
        Ok(())
    }

    fn metadata_complete(&mut self, now: Now, shared: &mut Shared, raw_info: &[u8]) {
        match Metainfo::from_info(raw_info, self.info_hash) {
            Ok(meta) if self.promised_v2.is_some_and(|hash| meta.info_hash_v2 != Some(hash)) => {
                self.fail(now, shared, "the magnet link names two different torrents".to_owned());
            }
            Ok(mut meta) => {
                meta.trackers.clone_from(&self.trackers);
                self.name.clone_from(&meta.name);
                self.meta = Some(Arc::new(meta));
                shared.renamed.push(self.info_hash);
                self.untold = true;
                self.saves.wanted = true;
                // Those who still look for the info dictionary can have it from us now.
                for id in self.links() {
                    let Some(addr) = self.peers.get(&id).map(|peer| peer.link.addr) else {
                        continue;
                    };
                    let handshake = self.ext_handshake_for(shared, addr);
                    if let Some(peer) = self.peers.get_mut(&id)
                        && peer.extensions
                    {
                        peer.send(now, shared, Message::ExtHandshake(handshake));
                    }
                }
                self.begin(now, shared);
            }
            // The hash is right, so no peer is to blame and no other answer will come.
            Err(error) => self.fail(now, shared, format!("the magnet link's torrent is of no use: {error}")),
        }
    }

    /// Tells once what a magnet link turned out to be.
    pub(super) fn tell_metadata(&mut self, shared: &mut Shared) {
        if let Some(metainfo) = self.meta.clone().filter(|_| std::mem::take(&mut self.untold)) {
            shared.out.event(Event::MetadataReceived {
                info_hash: self.info_hash,
                metainfo,
            });
        }
    }

    /// A peer asks for a piece of the info dictionary.
    pub(super) fn metadata_requested(&mut self, now: Now, shared: &mut Shared, id: LinkId, piece: u32) {
        let raw_info = self.meta.as_ref().map(|meta| meta.raw_info.clone());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let answer = raw_info.and_then(|raw_info| {
            let total_size = u32::try_from(raw_info.len()).ok()?;
            let limit = pieces_of(total_size)
                .saturating_mul(SERVED_TIMES)
                .saturating_add(SERVED_EXTRA);
            let begin = piece
                .checked_mul(METADATA_PIECE_LEN)
                .filter(|&begin| begin < total_size)?;
            if peer.metadata_served >= limit {
                return None;
            }
            peer.metadata_served += 1;
            let end = begin.saturating_add(METADATA_PIECE_LEN).min(total_size);
            Some(Metadata::Data {
                piece,
                total_size,
                data: raw_info.slice(begin as usize..end as usize),
            })
        });
        peer.send(
            now,
            shared,
            Message::Metadata(answer.unwrap_or(Metadata::Reject { piece })),
        );
    }
}
