//! Serving: who is unchoked, which requests wait, and blocks on their way from the disk to a peer.

use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{CloseReason, LinkId, Now};

use super::{Read, Reader, Stage, Torrent};
use crate::allowed_fast::{SET_SIZE, allowed_fast_set};
use crate::choker::{Candidate, ROUND};
use crate::command::Event;
use crate::disk::{self, DiskError, DiskErrorKind};
use crate::shared::Shared;
use crate::wire::{Block, MAX_BLOCK_LEN, Message};

/// A full send window opens again after this long even when the driver never said that its queue drained: it may
/// have a mark beyond our window, and it bounds what is queued on a link in any case.
const STALL: Duration = Duration::from_secs(2);

impl Torrent {
    /// One round of the choker.
    pub(super) fn choke_round(&mut self, now: Now, shared: &mut Shared) {
        self.next_round = now + ROUND;
        let candidates = self.candidates();
        let seeding = self.only_serves();
        let (choke, unchoke) = self.choker.round(now, seeding, &candidates, &mut shared.rng);
        for peer in self.peers.values_mut() {
            peer.round_down = 0;
            peer.round_up = 0;
        }
        for id in choke {
            self.choke(now, shared, id);
        }
        for id in unchoke {
            self.unchoke(now, shared, id);
        }
    }

    /// Gives free slots away at once.
    pub(super) fn fill_slots(&mut self, now: Now, shared: &mut Shared) {
        let candidates = self.candidates();
        for id in self.choker.fill(now, &candidates, &mut shared.rng) {
            self.unchoke(now, shared, id);
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.peers
            .values()
            .map(|peer| Candidate {
                link: peer.link.id,
                interested: peer.peer_interested,
                snubbed: peer.snubbed,
                received: peer.round_down,
                sent: peer.round_up,
                connected: peer.since,
            })
            .collect()
    }

    fn choke(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if std::mem::replace(&mut peer.am_choking, true) {
            return;
        }
        peer.send(now, shared, Message::Choke);
        let waiting = std::mem::take(&mut peer.requests);
        for block in waiting {
            if peer.allowed_out.contains(&block.piece) {
                peer.requests.push_back(block);
            } else if peer.fast {
                peer.send(now, shared, Message::Reject(block));
            }
        }
    }

    fn unchoke(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && std::mem::replace(&mut peer.am_choking, false)
        {
            peer.send(now, shared, Message::Unchoke);
        }
    }

    /// Tells a newcomer which pieces it may fetch while choked (BEP 6).
    pub(super) fn grant_allowed_fast(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let Some(meta) = &self.meta else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let newcomer = peer.pieces().is_some_and(|pieces| (pieces.count() as usize) < SET_SIZE);
        if !peer.fast || !newcomer || !peer.allowed_out.is_empty() {
            return;
        }
        let set = allowed_fast_set(&self.info_hash.0, peer.link.addr.ip(), meta.piece_count(), SET_SIZE);
        for index in set {
            peer.allowed_out.insert(index);
            peer.send(now, shared, Message::AllowedFast(index));
        }
    }

    /// A peer asks for a block.
    pub(super) fn requested(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        block: Block,
    ) -> Result<(), CloseReason> {
        let Some(meta) = &self.meta else { return Ok(()) };
        if !meta.contains(block) {
            return Err(CloseReason::fault("asks for bytes that do not exist"));
        }
        let have = matches!(&self.stage, Stage::Active(picker) if picker.have().get(block.piece));
        let limit = shared.config.limits.peer_requests;
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let allowed = !peer.am_choking || peer.allowed_out.contains(&block.piece);
        if !have || !allowed || peer.requests.len() >= limit {
            if peer.fast {
                peer.send(now, shared, Message::Reject(block));
            }
            return Ok(());
        }
        peer.requests.push_back(block);
        self.serve(now, shared, id);
        Ok(())
    }

    /// A peer takes back a request; with the fast extension it still gets an answer.
    pub(super) fn cancelled(&mut self, now: Now, shared: &mut Shared, id: LinkId, block: Block) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(at) = peer.requests.iter().position(|waiting| *waiting == block) {
            peer.requests.remove(at);
            if peer.fast {
                peer.send(now, shared, Message::Reject(block));
            }
        }
    }

    /// Starts reads for a peer's requests as far as its window goes; neighbours are read in one go.
    pub(super) fn serve(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let window = shared.config.limits.upload_window;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        while peer.reads_bytes.saturating_add(peer.sent_bytes) < window {
            if !peer.requests.is_empty() && self.up_limit.left(now).min(shared.up.left(now)) == 0 {
                shared.held.insert(self.info_hash);
                return;
            }
            let Some(first) = peer.requests.pop_front() else {
                peer.stalled_since = None;
                return;
            };
            let mut whole = first;
            let mut blocks = vec![first];
            while let Some(&next) = peer.requests.front() {
                let adjoins = next.piece == whole.piece && next.begin.checked_sub(whole.begin) == Some(whole.len);
                let len = whole.len.saturating_add(next.len);
                if !adjoins || len > MAX_BLOCK_LEN {
                    break;
                }
                whole.len = len;
                blocks.push(next);
                peer.requests.pop_front();
            }
            self.up_limit.take(whole.len.into());
            shared.up.take(whole.len.into());
            peer.reads_bytes = peer.reads_bytes.saturating_add(u64::from(whole.len));
            let ticket = shared.ticket();
            self.reads.insert(
                ticket,
                Read {
                    reader: Reader::Peer(id),
                    blocks,
                },
            );
            shared.disk(disk::Job::ReadBlock {
                info_hash: self.info_hash,
                block: whole,
                ticket,
            });
        }
        if !peer.requests.is_empty() {
            peer.stalled_since.get_or_insert(now);
        }
    }

    /// The disk read a block, or several neighbours.
    pub(super) fn read(&mut self, now: Now, shared: &mut Shared, ticket: u64, result: Result<Bytes, DiskError>) {
        let Some(read) = self.reads.remove(&ticket) else { return };
        let link = match read.reader {
            Reader::Peer(link) => link,
            Reader::Stream(question) => {
                self.stream_read(shared, question, &result);
                if let Err(error) = result {
                    self.read_failed(now, shared, &error);
                }
                return;
            }
        };
        match result {
            Ok(mut data) => {
                let Some(peer) = self.peers.get_mut(&link) else {
                    return;
                };
                let whole = data.len() as u64;
                peer.reads_bytes = peer.reads_bytes.saturating_sub(whole);
                peer.sent_bytes = peer.sent_bytes.saturating_add(whole);
                for block in read.blocks {
                    let len = block.len as usize;
                    if data.len() < len {
                        return;
                    }
                    let bytes = u64::from(block.len);
                    self.up.add(now, bytes);
                    peer.up.add(now, bytes);
                    peer.round_up = peer.round_up.saturating_add(bytes);
                    let msg = Message::Piece {
                        piece: block.piece,
                        begin: block.begin,
                        data: data.split_to(len),
                    };
                    peer.send(now, shared, msg);
                }
            }
            Err(error) => {
                if let Some(peer) = self.peers.get_mut(&link) {
                    for block in read.blocks {
                        peer.reads_bytes = peer.reads_bytes.saturating_sub(u64::from(block.len));
                        if peer.fast {
                            peer.send(now, shared, Message::Reject(block));
                        }
                    }
                }
                self.read_failed(now, shared, &error);
            }
        }
    }

    fn read_failed(&mut self, now: Now, shared: &mut Shared, error: &DiskError) {
        if !matches!(self.stage, Stage::Active(_)) {
            return;
        }
        if error.kind == DiskErrorKind::Changed {
            // Somebody changed the files: what we promised is no longer true, so look again.
            shared.out.event(Event::Error {
                info_hash: self.info_hash,
                text: error.to_string(),
            });
            self.recheck(now, shared);
        } else {
            self.fail(now, shared, error.to_string());
        }
    }

    /// The link's send queue has drained.
    pub(crate) fn writable(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.sent_bytes = 0;
            peer.stalled_since = None;
            self.serve(now, shared, id);
        }
    }

    /// Opens a send window that nothing else opened.
    pub(super) fn serve_stalled(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.stalled_since.is_some_and(|since| now.since(since) >= STALL)
        {
            self.writable(now, shared, id);
        }
    }
}
