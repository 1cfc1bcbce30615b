//! Reading a torrent's bytes while it downloads: what a reader waits for, and what it will want next, is fetched before
//! everything else; a reader that jumps takes its wishes along.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use dunlin_peer::Now;

use super::{Read, Reader, Stage, Torrent};
use crate::command::{Event, Priority, ReadRequest};
use crate::disk::{self, DiskError};
use crate::shared::Shared;
use crate::wire::{Block, MAX_BLOCK_LEN, Message};

/// Readers of one torrent at once.
const MAX_STREAMS: usize = 64;
/// Bytes that are fetched before a reader wants them; at least the next piece.
const AHEAD: u64 = 16 << 20;
/// Pieces that are wanted first, of all readers.
const MAX_WISHES: usize = 4096;
/// A reader that has waited for so many seconds has its blocks asked of more than one peer.
const PATIENCE: u64 = 2;

/// One reader.
#[derive(Debug)]
pub(super) struct Stream {
    /// What it waits for, since when, and the ticket of its question.
    pending: Option<(Block, u64, Now)>,
    /// The pieces that it wants first.
    wanted: Range<u32>,
}

impl Torrent {
    /// A reader wants bytes; answered by [`Event::Read`] as soon as they are there.
    pub(crate) fn read_stream(&mut self, now: Now, shared: &mut Shared, request: &ReadRequest) {
        let refuse = |shared: &mut Shared, text: &str| {
            shared.out.event(Event::Read {
                ticket: request.ticket,
                result: Err(text.to_owned()),
            });
        };
        let Some(meta) = &self.meta else {
            return refuse(shared, "it is not known yet what the torrent is");
        };
        if let Some(error) = &self.error {
            return refuse(shared, error);
        }
        if self.paused {
            return refuse(shared, "the torrent is paused");
        }
        let file = meta.files.get(meta.file_at(request.offset));
        let Some(file) = file.filter(|file| file.range().contains(&request.offset) && request.len > 0) else {
            return refuse(shared, "there are no such bytes in the torrent");
        };
        let index = meta.file_at(request.offset);
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&request.stream) {
            return refuse(shared, "too many readers at once");
        }
        let len = u64::from(meta.piece_length);
        // Both lie within the torrent, whose pieces a u32 counts.
        let piece_of = |offset: u64| (offset / len) as u32;
        let (piece, begin) = (piece_of(request.offset), (request.offset % len) as u32);
        let left = u32::try_from(file.range().end - request.offset).unwrap_or(u32::MAX);
        let block = Block {
            piece,
            begin,
            len: request
                .len
                .min(MAX_BLOCK_LEN)
                .min(left)
                .min(meta.piece_len(piece) - begin),
        };
        let ahead = request.offset.saturating_add(AHEAD.max(len)).min(file.range().end - 1);
        let wanted = piece..piece_of(ahead) + 1;
        let before = self.streams.get(&request.stream);
        let jumped = before.is_none_or(|stream| !stream.wanted.contains(&piece));
        if let Some((_, ticket, _)) = before.and_then(|stream| stream.pending) {
            // One question at a time: the older one is given up.
            shared.out.event(Event::Read {
                ticket,
                result: Err("the reader asked for something else".to_owned()),
            });
        }
        if self.wishes.files.get(index) == Some(&Priority::Skip) {
            // Who reads it wants it.
            self.prioritise(now, shared, &[(index, Priority::Normal)]);
        }
        let stream = Stream {
            pending: Some((block, request.ticket, now)),
            wanted,
        };
        self.streams.insert(request.stream, stream);
        self.order_wishes();
        self.answer_streams(shared);
        if jumped
            && self
                .streams
                .get(&request.stream)
                .is_some_and(|stream| stream.pending.is_some())
        {
            self.make_way(now, shared);
        }
        self.request_all(now, shared);
    }

    /// A reader is gone.
    pub(crate) fn end_stream(&mut self, stream: u64) {
        self.streams.remove(&stream);
        self.order_wishes();
    }

    /// Tells the picker what readers want: the first wish of each, then the second of each, and so on; then what is of
    /// high priority.
    pub(super) fn order_wishes(&mut self) {
        let high: Vec<u32> = self.high_pieces().take(MAX_WISHES).collect();
        let Stage::Active(picker) = &mut self.stage else { return };
        let longest = self
            .streams
            .values()
            .map(|stream| stream.wanted.len())
            .max()
            .unwrap_or(0);
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        for at in 0..u32::try_from(longest).unwrap_or(u32::MAX) {
            for stream in self.streams.values() {
                let index = stream.wanted.start.saturating_add(at);
                let missing = stream.wanted.contains(&index) && !picker.have().get(index);
                if missing && order.len() < MAX_WISHES && seen.insert(index) {
                    order.push(index);
                }
            }
        }
        for index in high {
            if order.len() < MAX_WISHES && !picker.have().get(index) && seen.insert(index) {
                order.push(index);
            }
        }
        picker.want_first(order);
    }

    /// Takes back requests for what nobody waits for, so that peers send what somebody does.
    fn make_way(&mut self, now: Now, shared: &mut Shared) {
        let Stage::Active(picker) = &mut self.stage else { return };
        let wanted: BTreeSet<u32> = picker.wanted_first().iter().copied().collect();
        for (&id, peer) in &mut self.peers {
            let (keep, drop): (Vec<_>, Vec<_>) = peer
                .asked
                .drain(..)
                .partition(|asked| wanted.contains(&asked.block.piece));
            peer.asked.extend(keep);
            for asked in drop {
                peer.expect_late(asked.block);
                peer.send(now, shared, Message::Cancel(asked.block));
                picker.release(id, asked.block);
            }
        }
    }

    /// Has the disk read for each reader whose piece is there.
    pub(super) fn answer_streams(&mut self, shared: &mut Shared) {
        let Stage::Active(picker) = &self.stage else { return };
        for stream in self.streams.values_mut() {
            let ready = stream.pending.filter(|(block, ..)| picker.have().get(block.piece));
            let Some((block, question, _)) = ready else { continue };
            stream.pending = None;
            let ticket = shared.ticket();
            let reader = Reader::Stream(question);
            self.reads.insert(
                ticket,
                Read {
                    reader,
                    blocks: vec![block],
                },
            );
            shared.disk(disk::Job::ReadBlock {
                info_hash: self.info_hash,
                block,
                ticket,
            });
        }
    }

    /// The disk read for a reader.
    pub(super) fn stream_read(&mut self, shared: &mut Shared, ticket: u64, result: &Result<Bytes, DiskError>) {
        let result = match result {
            Ok(bytes) => Ok(bytes.clone()),
            Err(error) => Err(error.to_string()),
        };
        shared.out.event(Event::Read { ticket, result });
    }

    /// Nothing will come for those who wait.
    pub(super) fn refuse_streams(&mut self, shared: &mut Shared, text: &str) {
        for (_, stream) in std::mem::take(&mut self.streams) {
            if let Some((_, ticket, _)) = stream.pending {
                shared.out.event(Event::Read {
                    ticket,
                    result: Err(text.to_owned()),
                });
            }
        }
        self.order_wishes();
    }

    /// Notes for whom it takes too long.
    pub(super) fn tick_streams(&mut self, now: Now) {
        let Stage::Active(picker) = &mut self.stage else { return };
        let waiting = self.streams.values().filter_map(|stream| stream.pending);
        let late = waiting.filter(|(_, _, since)| now.since(*since).as_secs() >= PATIENCE);
        picker.set_late(late.map(|(block, ..)| block.piece).collect());
    }
}
