//! Fetching: requests, blocks, pieces, and who is to blame when a piece is wrong.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{CloseReason, LinkId, Now};

use super::{Stage, Torrent, Write};
use crate::blame::Sender;
use crate::command::Event;
use crate::disk::{self, DiskError, Verdict};
use crate::peer_link::{Asked, Claims};
use crate::picker::Arrival;
use crate::shared::Shared;
use crate::wire::{Block, Message};

/// A peer that was asked and sent nothing for this long has snubbed us.
const SNUB: Duration = Duration::from_secs(60);
/// Blocks that nobody asked for, after which a link is closed.
const UNASKED_MAX: u32 = 32;
/// Blocks that one peer is asked for again in the end game.
const END_GAME_BLOCKS: usize = 4;
/// With this many requests or fewer on their way a peer takes part in the end game.
const END_GAME_IDLE: usize = 2;
/// Pause after a peer refused a request.
const AFTER_REJECT: Duration = Duration::from_secs(1);

impl Torrent {
    /// Asks a peer for as many blocks as its pipeline takes.
    pub(super) fn request_more(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        if !self.is_downloading() {
            return;
        }
        let budget = self.request_budget(now, shared);
        let Stage::Active(picker) = &mut self.stage else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Claims::Known(pieces) = &peer.claims else { return };
        if !peer.am_interested || peer.not_before > now {
            return;
        }
        let within = peer.peer_choking.then_some(&peer.allowed_in);
        if within.is_some_and(|set| set.is_empty()) {
            return;
        }
        let target = peer.pipeline.target();
        // Asking in bunches keeps a peer's requests together, which makes its reads large.
        if peer.asked.len() * 4 > target * 3 {
            return;
        }
        let room = target.saturating_sub(peer.asked.len()).min(budget);
        if room == 0 {
            return;
        }
        let mut blocks = Vec::new();
        if peer.dry_at != Some(picker.freed()) {
            picker.pick(id, pieces, within, room, &mut shared.rng, &mut blocks);
            if blocks.len() < room {
                peer.dry_at = Some(picker.freed());
            }
        }
        if within.is_none() && !peer.snubbed {
            picker.pick_late(id, pieces, room.saturating_sub(blocks.len()), &mut blocks);
        }
        if blocks.is_empty() && within.is_none() && peer.asked.len() <= END_GAME_IDLE && !peer.snubbed {
            picker.pick_again(id, pieces, room.min(END_GAME_BLOCKS), &mut blocks);
        }
        if peer.asked.is_empty() && !blocks.is_empty() {
            // The clock for snubbing begins with the first request.
            peer.last_block = peer.last_block.max(now);
        }
        for block in blocks {
            self.down_limit.take(block.len.into());
            shared.down.take(block.len.into());
            peer.asked.push_back(Asked { block, at: now });
            peer.send(now, shared, Message::Request(block));
        }
    }

    /// Gives every peer a chance to be asked, after blocks became free.
    pub(super) fn request_all(&mut self, now: Now, shared: &mut Shared) {
        if self.is_downloading() {
            for id in self.links() {
                self.request_more(now, shared, id);
            }
        }
    }

    /// A block arrived.
    pub(super) fn block_came(
        &mut self,
        now: Now,
        shared: &mut Shared,
        id: LinkId,
        piece: u32,
        begin: u32,
        data: Bytes,
    ) -> Result<(), CloseReason> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let bytes = u64::from(len);
        self.down.add(now, bytes);
        peer.down.add(now, bytes);
        peer.round_down = peer.round_down.saturating_add(bytes);
        let block = Block { piece, begin, len };
        let asked = peer.take_asked(block);
        if asked {
            peer.last_block = now;
            peer.snubbed = false;
            peer.pipeline.block_came();
        } else if !peer.take_late(block) {
            self.wasted = self.wasted.saturating_add(bytes);
            peer.unasked_blocks += 1;
            if peer.unasked_blocks > UNASKED_MAX {
                return Err(CloseReason::fault("sends blocks that nobody asked for"));
            }
            return Ok(());
        }
        let Stage::Active(picker) = &mut self.stage else {
            self.wasted = self.wasted.saturating_add(bytes);
            return Ok(());
        };
        match picker.received(id, block, data) {
            Arrival::Useless => self.wasted = self.wasted.saturating_add(bytes),
            Arrival::Stored { others } => {
                self.remember_sender(id);
                self.cancel_at(now, shared, block, &others);
            }
            Arrival::Complete { others, blocks, from } => {
                self.remember_sender(id);
                self.cancel_at(now, shared, block, &others);
                self.write_piece(shared, piece, blocks, from);
            }
        }
        self.request_more(now, shared, id);
        Ok(())
    }

    /// The block is here: the others need not send it any more.
    fn cancel_at(&mut self, now: Now, shared: &mut Shared, block: Block, others: &[LinkId]) {
        for &other in others {
            if let Some(peer) = self.peers.get_mut(&other)
                && peer.take_asked(block)
            {
                peer.expect_late(block);
                peer.send(now, shared, Message::Cancel(block));
                self.request_more(now, shared, other);
            }
        }
    }

    /// Hands a whole piece to the disk, which verifies it before it writes.
    fn write_piece(&mut self, shared: &mut Shared, piece: u32, blocks: Vec<Bytes>, from: Vec<LinkId>) {
        let bytes = blocks.iter().map(|block| block.len() as u64).sum();
        shared.dirty = shared.dirty.saturating_add(bytes);
        self.blame.retry(piece, &blocks);
        self.writes.insert(piece, Write { bytes, from });
        shared.disk(disk::Job::WritePiece {
            info_hash: self.info_hash,
            piece,
            blocks,
        });
    }

    /// The disk's verdict on a piece.
    pub(super) fn written(&mut self, now: Now, shared: &mut Shared, piece: u32, result: Result<Verdict, DiskError>) {
        let Some(write) = self.writes.remove(&piece) else {
            return;
        };
        shared.dirty = shared.dirty.saturating_sub(write.bytes);
        let Stage::Active(picker) = &mut self.stage else {
            self.open_when_quiet(shared);
            return;
        };
        match result {
            Ok(Verdict::Verified) => {
                picker.verified(piece);
                self.saves.wanted = true;
                self.piece_is_good(now, shared, piece);
            }
            Ok(Verdict::HashMismatch { block_hashes }) => {
                picker.rejected(piece, true);
                self.piece_is_bad(now, shared, piece, &block_hashes, &write.from);
                self.request_all(now, shared);
            }
            Err(error) => {
                picker.rejected(piece, false);
                self.fail(now, shared, error.to_string());
            }
        }
        self.save_if_due(now, shared);
    }

    fn piece_is_good(&mut self, now: Now, shared: &mut Shared, piece: u32) {
        let wanted = matches!(&self.stage, Stage::Active(picker) if picker.is_wanted(piece));
        for id in self.links() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.send(now, shared, Message::Have(piece));
            if wanted && peer.has(piece) {
                peer.wanted = peer.wanted.saturating_sub(1);
                if peer.wanted == 0 {
                    self.update_interest(now, shared, id);
                }
            }
        }
        for liar in self.blame.cleared(piece) {
            self.ban(now, shared, liar, "sent a corrupt block");
        }
        self.answer_streams(shared);
        if self.is_done() {
            for id in self.links() {
                self.update_interest(now, shared, id);
                self.leave_fellow_seed(now, shared, id);
            }
            self.finish(shared);
        }
    }

    fn piece_is_bad(&mut self, now: Now, shared: &mut Shared, piece: u32, hashes: &[[u8; 20]], from: &[LinkId]) {
        let senders: Vec<Option<Sender>> = from.iter().map(|id| self.senders.get(id).copied()).collect();
        let mut addrs: Vec<SocketAddr> = senders.iter().flatten().map(|sender| sender.addr).collect();
        addrs.sort();
        addrs.dedup();
        self.wasted = self.wasted.saturating_add(self.len_of(piece));
        shared.out.event(Event::PieceFailed {
            info_hash: self.info_hash,
            piece,
            from: addrs,
        });
        if let Some(liar) = self.blame.failed(piece, hashes, &senders) {
            self.ban(now, shared, liar, "sent a piece with a wrong hash");
        }
    }

    fn len_of(&self, piece: u32) -> u64 {
        self.meta.as_ref().map_or(0, |meta| u64::from(meta.piece_len(piece)))
    }

    /// A peer will not send a block (BEP 6).
    pub(super) fn rejected(&mut self, now: Now, shared: &mut Shared, id: LinkId, block: Block) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.take_asked(block) {
            return;
        }
        if peer.peer_choking {
            // An allowed-fast piece that it does not grant after all.
            peer.allowed_in.remove(&block.piece);
        } else {
            peer.not_before = now + AFTER_REJECT;
        }
        if let Stage::Active(picker) = &mut self.stage {
            picker.release(id, block);
        }
        if peer.asked.is_empty() {
            self.request_all(now, shared);
        }
    }

    /// Takes back every request to a peer.
    pub(super) fn withdraw_requests(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let asked: Vec<Block> = peer.asked.drain(..).map(|asked| asked.block).collect();
        for block in asked {
            peer.expect_late(block);
            peer.send(now, shared, Message::Cancel(block));
            if let Stage::Active(picker) = &mut self.stage {
                picker.release(id, block);
            }
        }
    }

    /// A peer that keeps us waiting loses its requests to others and its place among those we serve.
    pub(super) fn check_snubbed(&mut self, now: Now, shared: &mut Shared, id: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(first) = peer.asked.front() else { return };
        if now.since(peer.last_block.max(first.at)) < SNUB || !peer.reading {
            return;
        }
        peer.snubbed = true;
        peer.pipeline.collapse();
        self.withdraw_requests(now, shared, id);
        self.request_all(now, shared);
    }
}
