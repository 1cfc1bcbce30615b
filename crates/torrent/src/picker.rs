//! What to ask for next (BEP 3): pieces in hand first, then the rarest, at random for the first few; block by block,
//! with an end game that asks several peers for the last blocks.
//!
//! A piece is in exactly one place: had, being verified, in hand (a [`Partial`]) or open. Memory is bounded because
//! only so many pieces may be in hand at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_peer::LinkId;
use rand::Rng;

use crate::wire::{BLOCK_LEN, Block};
use crate::{Bitfield, Metainfo};

/// While we have fewer pieces than this, a new piece is chosen at random: soon we have something to trade.
const RANDOM_FIRST: u32 = 4;
/// Bytes of pieces that may be in hand at once.
const IN_HAND_BYTES: u64 = 128 << 20;
/// Pieces that may be in hand at once however large they are.
const IN_HAND_MIN: usize = 4;
/// Entries of the rarity order looked at for one choice; beyond it any piece will do.
const RARITY_SCAN: usize = 4096;
/// Peers asked for one block at once in the end game.
const END_GAME_ASKERS: usize = 4;

/// How a torrent is cut into pieces and blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of content.
    pub(crate) total: u64,
    /// Bytes of each piece but the last and those in `short`; never zero.
    pub(crate) piece_len: u32,
    /// The lengths of pieces that end before the next one begins (BEP 52).
    pub(crate) short: Arc<BTreeMap<u32, u32>>,
}

impl Shape {
    /// How a torrent is cut.
    pub(crate) fn of(meta: &Metainfo) -> Self {
        Self {
            total: meta.total_length,
            piece_len: meta.piece_length,
            short: meta.short_pieces(),
        }
    }

    /// How many pieces there are.
    pub(crate) fn pieces(&self) -> u32 {
        let pieces = self.total.div_ceil(u64::from(self.piece_len.max(1)));
        u32::try_from(pieces).unwrap_or(u32::MAX)
    }

    /// Bytes in piece `index`; zero beyond the end.
    pub(crate) fn len_of(&self, index: u32) -> u32 {
        if let Some(&len) = self.short.get(&index) {
            return len;
        }
        let start = u64::from(index) * u64::from(self.piece_len);
        let rest = self.total.saturating_sub(start);
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.piece_len)
    }

    /// Bytes in the pieces of `have`.
    pub(crate) fn bytes_of(&self, have: &Bitfield) -> u64 {
        let whole = u64::from(have.count()) * u64::from(self.piece_len);
        let last = self
            .pieces()
            .checked_sub(1)
            .filter(|last| !self.short.contains_key(last));
        let shorter = self.short.keys().copied().chain(last).filter(|&index| have.get(index));
        shorter.fold(whole, |sum, index| sum - u64::from(self.piece_len - self.len_of(index)))
    }

    /// Blocks in piece `index`.
    fn blocks_of(&self, index: u32) -> u32 {
        self.len_of(index).div_ceil(BLOCK_LEN)
    }

    /// The block of piece `index` at place `slot`.
    fn block(&self, index: u32, slot: u32) -> Block {
        let begin = slot * BLOCK_LEN;
        Block {
            piece: index,
            begin,
            len: self.len_of(index).saturating_sub(begin).min(BLOCK_LEN),
        }
    }
}

/// What became of a block that arrived.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Nobody waits for it.
    Useless,
    /// It was stored; the others who were asked for it need not send it.
    Stored {
        /// Links with a request of the same block.
        others: Vec<LinkId>,
    },
    /// It was the last of its piece.
    Complete {
        /// Links with a request of the same block.
        others: Vec<LinkId>,
        /// The piece's blocks in order.
        blocks: Vec<Bytes>,
        /// Who sent each block.
        from: Vec<LinkId>,
    },
}

/// One block of a piece in hand.
#[derive(Debug)]
enum Slot {
    Free,
    Asked { first: LinkId, more: Vec<LinkId> },
    Here { from: LinkId, data: Bytes },
}

/// A piece in hand.
#[derive(Debug)]
struct Partial {
    slots: Vec<Slot>,
    free: u32,
    here: u32,
    /// A piece that failed before is fetched from one peer alone, so that a second failure names the liar.
    only: Option<LinkId>,
}

/// Chooses blocks and keeps account of them.
#[derive(Debug)]
pub(crate) struct Picker {
    shape: Shape,
    sequential: bool,
    have: Bitfield,
    wanted: Bitfield,
    /// How many wanted pieces are not there.
    missing: u32,
    open: Bitfield,
    verifying: BTreeSet<u32>,
    partials: BTreeMap<u32, Partial>,
    /// Pieces in hand with a block that nobody was asked for.
    unasked: BTreeSet<u32>,
    /// Pieces whose hash was wrong.
    failed: BTreeSet<u32>,
    /// Pieces that somebody wants to read, the most urgent first.
    first: Vec<u32>,
    /// Those of them that take too long.
    late: BTreeSet<u32>,
    /// For each piece, how many peers have it, those not counted that have everything.
    availability: Vec<u32>,
    seeds: u32,
    /// Breaks ties between equally rare pieces, so that peers do not all want the same one.
    shuffle: Vec<u32>,
    /// The open pieces, rarest first.
    rarest: BTreeSet<(u32, u32, u32)>,
    in_hand_max: usize,
    refused_for_room: bool,
    freed: u64,
}

impl Picker {
    /// A picker for a torrent of which `have` is there already.
    pub(crate) fn new(shape: Shape, have: Bitfield, sequential: bool, rng: &mut impl Rng) -> Self {
        let pieces = shape.pieces();
        let mut open = Bitfield::new(pieces);
        for index in (0..pieces).filter(|&index| !have.get(index)) {
            open.set(index);
        }
        let by_bytes = IN_HAND_BYTES / u64::from(shape.piece_len.max(1));
        let mut picker = Self {
            wanted: Bitfield::full(pieces),
            missing: pieces - have.count(),
            shape,
            sequential,
            have,
            verifying: BTreeSet::new(),
            partials: BTreeMap::new(),
            unasked: BTreeSet::new(),
            failed: BTreeSet::new(),
            first: Vec::new(),
            late: BTreeSet::new(),
            availability: vec![0; pieces as usize],
            seeds: 0,
            shuffle: (0..pieces).map(|_| rng.random()).collect(),
            rarest: BTreeSet::new(),
            in_hand_max: usize::try_from(by_bytes).unwrap_or(usize::MAX).max(IN_HAND_MIN),
            refused_for_room: false,
            freed: 0,
            open: Bitfield::new(0),
        };
        picker.rarest = open.iter().map(|index| picker.rank(index)).collect();
        picker.open = open;
        picker
    }

    /// The pieces that are there and verified.
    pub(crate) fn have(&self) -> &Bitfield {
        &self.have
    }

    /// How the torrent is cut.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many connected peers have piece `index`.
    pub(crate) fn availability(&self, index: u32) -> u32 {
        let counted = self.availability.get(index as usize).copied().unwrap_or(0);
        counted.saturating_add(self.seeds)
    }

    /// Rises whenever blocks that nobody was asked for appear out of those that were: a peer for whom nothing was
    /// found is worth another look.
    pub(crate) fn freed(&self) -> u64 {
        self.freed
    }

    /// Whether a request for a block of piece `index` could be made now.
    pub(crate) fn is_open(&self, index: u32) -> bool {
        self.open.get(index) || self.unasked.contains(&index)
    }

    /// These pieces are to be fetched before all others, in this order.
    pub(crate) fn want_first(&mut self, pieces: Vec<u32>) {
        self.freed = self.freed.wrapping_add(1);
        self.first = pieces;
    }

    /// Those pieces.
    pub(crate) fn wanted_first(&self) -> &[u32] {
        &self.first
    }

    /// These pieces take too long: their blocks may be asked of several peers.
    pub(crate) fn set_late(&mut self, pieces: BTreeSet<u32>) {
        self.late = pieces;
    }

    /// Whether every block that is missing has been asked for.
    pub(crate) fn in_end_game(&self) -> bool {
        self.open.count() == 0 && self.unasked.is_empty() && !self.partials.is_empty()
    }

    /// Counts the pieces of a peer; returns whether it counts as one that has everything, which
    /// [`Picker::peer_left`] needs to know.
    pub(crate) fn peer_joined(&mut self, pieces: &Bitfield) -> bool {
        if pieces.is_full() {
            self.seeds = self.seeds.saturating_add(1);
            return true;
        }
        for index in pieces.iter() {
            self.peer_has(index);
        }
        false
    }

    /// Counts one more piece of a peer.
    pub(crate) fn peer_has(&mut self, index: u32) {
        self.recount(index, |count| count.saturating_add(1));
    }

    /// Uncounts the pieces of a peer.
    pub(crate) fn peer_left(&mut self, pieces: &Bitfield, counted_as_seed: bool) {
        if counted_as_seed {
            self.seeds = self.seeds.saturating_sub(1);
            return;
        }
        for index in pieces.iter() {
            self.recount(index, |count| count.saturating_sub(1));
        }
    }

    /// Appends up to `count` blocks to ask `link` for. `pieces` is what the peer has; with `within`, only those
    /// pieces count (the allowed-fast set of a peer that chokes us).
    pub(crate) fn pick(
        &mut self,
        link: LinkId,
        pieces: &Bitfield,
        within: Option<&BTreeSet<u32>>,
        count: usize,
        rng: &mut impl Rng,
        out: &mut Vec<Block>,
    ) {
        let goal = out.len().saturating_add(count);
        let allowed = |index: u32| pieces.get(index) && within.is_none_or(|set| set.contains(&index));
        for at in 0..self.first.len() {
            let index = self.first[at];
            if out.len() >= goal {
                return;
            }
            if !allowed(index) {
                continue;
            }
            if self.open.get(index) {
                if self.partials.len() >= self.in_hand_max && !self.make_room() {
                    self.refused_for_room = true;
                    break;
                }
                self.take_in_hand(link, index);
            }
            let only = self.partials.get(&index).and_then(|partial| partial.only);
            if only.is_none_or(|only| only == link) {
                self.ask_for(link, index, goal, out);
            }
        }
        let mut after = 0;
        while out.len() < goal {
            let in_hand = self.unasked.range(after..).copied().find(|index| {
                let only = self.partials.get(index).and_then(|partial| partial.only);
                allowed(*index) && only.is_none_or(|only| only == link)
            });
            let Some(index) = in_hand else { break };
            self.ask_for(link, index, goal, out);
            after = index.saturating_add(1);
        }
        while out.len() < goal {
            let Some(index) = self.new_piece(pieces, within, rng) else {
                return;
            };
            if self.partials.len() >= self.in_hand_max && !self.make_room() {
                self.refused_for_room = true;
                return;
            }
            self.take_in_hand(link, index);
            self.ask_for(link, index, goal, out);
        }
    }

    /// Appends up to `count` blocks that others were asked for already; nothing outside of the end game.
    pub(crate) fn pick_again(&mut self, link: LinkId, pieces: &Bitfield, count: usize, out: &mut Vec<Block>) {
        if !self.in_end_game() {
            return;
        }
        self.ask_again(link, pieces, count, out, |_| true);
    }

    /// Appends up to `count` blocks of late pieces that others were asked for already.
    pub(crate) fn pick_late(&mut self, link: LinkId, pieces: &Bitfield, count: usize, out: &mut Vec<Block>) {
        if !self.late.is_empty() {
            let late = std::mem::take(&mut self.late);
            self.ask_again(link, pieces, count, out, |index| late.contains(&index));
            self.late = late;
        }
    }

    fn ask_again(
        &mut self,
        link: LinkId,
        pieces: &Bitfield,
        count: usize,
        out: &mut Vec<Block>,
        wanted: impl Fn(u32) -> bool,
    ) {
        let goal = out.len().saturating_add(count);
        for askers in 1..END_GAME_ASKERS {
            // From the back: what was asked for last is what the others will send last.
            for (&index, partial) in self.partials.iter_mut().rev() {
                if !wanted(index) || !pieces.get(index) || partial.only.is_some_and(|only| only != link) {
                    continue;
                }
                let blocks = self.shape.blocks_of(index);
                for (slot, place) in partial.slots.iter_mut().zip(0..blocks).rev() {
                    if out.len() >= goal {
                        return;
                    }
                    if let Slot::Asked { first, more } = slot
                        && more.len() + 1 == askers
                        && *first != link
                        && !more.contains(&link)
                    {
                        more.push(link);
                        out.push(self.shape.block(index, place));
                    }
                }
            }
        }
    }

    /// Stores a block from `link`. The caller has made sure that the link was asked for just this block.
    pub(crate) fn received(&mut self, link: LinkId, block: Block, data: Bytes) -> Arrival {
        let Some(partial) = self.partials.get_mut(&block.piece) else {
            return Arrival::Useless;
        };
        let place = block.begin / BLOCK_LEN;
        if self.shape.block(block.piece, place) != block || data.len() != block.len as usize {
            return Arrival::Useless;
        }
        let Some(slot) = partial.slots.get_mut(place as usize) else {
            return Arrival::Useless;
        };
        if partial.only.is_some_and(|only| only != link) {
            return Arrival::Useless;
        }
        let others = match slot {
            Slot::Here { .. } => return Arrival::Useless,
            Slot::Free => {
                partial.free = partial.free.saturating_sub(1);
                Vec::new()
            }
            Slot::Asked { first, more } => {
                let mut others = std::mem::take(more);
                others.push(*first);
                others.retain(|&other| other != link);
                others
            }
        };
        *slot = Slot::Here { from: link, data };
        partial.here += 1;
        if partial.free == 0 {
            self.unasked.remove(&block.piece);
        }
        if (partial.here as usize) < partial.slots.len() {
            return Arrival::Stored { others };
        }
        let slots = self
            .partials
            .remove(&block.piece)
            .map(|partial| partial.slots)
            .unwrap_or_default();
        self.verifying.insert(block.piece);
        if std::mem::take(&mut self.refused_for_room) {
            self.freed = self.freed.wrapping_add(1);
        }
        let (from, blocks) = slots
            .into_iter()
            .filter_map(|slot| match slot {
                Slot::Here { from, data } => Some((from, data)),
                Slot::Free | Slot::Asked { .. } => None,
            })
            .unzip();
        Arrival::Complete { others, blocks, from }
    }

    /// `link` will not send `block` after all.
    pub(crate) fn release(&mut self, link: LinkId, block: Block) {
        let Some(partial) = self.partials.get_mut(&block.piece) else {
            return;
        };
        let Some(slot) = partial.slots.get_mut((block.begin / BLOCK_LEN) as usize) else {
            return;
        };
        let Slot::Asked { first, more } = slot else { return };
        more.retain(|&other| other != link);
        if *first != link {
            return;
        }
        if let Some(heir) = more.pop() {
            *first = heir;
            return;
        }
        *slot = Slot::Free;
        partial.free += 1;
        let idle = partial.free as usize == partial.slots.len();
        let abandoned =
            partial.only == Some(link) && !partial.slots.iter().any(|slot| matches!(slot, Slot::Asked { .. }));
        self.unasked.insert(block.piece);
        self.freed = self.freed.wrapping_add(1);
        if idle || abandoned {
            self.put_back(block.piece);
        }
    }

    /// Forgets the blocks that `link` sent into pieces in hand: it turned out to be a liar.
    pub(crate) fn distrust(&mut self, link: LinkId) {
        let mut emptied = Vec::new();
        for (&index, partial) in &mut self.partials {
            for slot in &mut partial.slots {
                if matches!(slot, Slot::Here { from, .. } if *from == link) {
                    *slot = Slot::Free;
                    partial.here -= 1;
                    partial.free += 1;
                    self.unasked.insert(index);
                    self.freed = self.freed.wrapping_add(1);
                }
            }
            if partial.only == Some(link) || partial.free as usize == partial.slots.len() {
                emptied.push(index);
            }
        }
        for index in emptied {
            self.put_back(index);
        }
    }

    /// The piece was verified and written.
    pub(crate) fn verified(&mut self, index: u32) {
        self.verifying.remove(&index);
        self.failed.remove(&index);
        if self.have.set(index) && self.wanted.get(index) {
            self.missing -= 1;
        }
    }

    /// The piece's hash was wrong, or it could not be written: it must be fetched again.
    pub(crate) fn rejected(&mut self, index: u32, wrong_hash: bool) {
        if !self.verifying.remove(&index) {
            return;
        }
        if wrong_hash {
            self.failed.insert(index);
        }
        self.reopen(index);
    }

    /// Whether a piece is wanted and not there.
    pub(crate) fn lacks(&self, index: u32) -> bool {
        self.wanted.get(index) && !self.have.get(index)
    }

    /// Whether a piece is wanted.
    pub(crate) fn is_wanted(&self, index: u32) -> bool {
        self.wanted.get(index)
    }

    /// Whether every wanted piece is there.
    pub(crate) fn is_done(&self) -> bool {
        self.missing == 0
    }

    /// From now on these pieces are wanted. What is in hand is fetched to its end.
    pub(crate) fn want(&mut self, wanted: Bitfield) {
        self.wanted = wanted;
        self.missing = 0;
        for index in 0..self.shape.pieces() {
            let lacking = self.lacks(index);
            self.missing += u32::from(lacking);
            let busy = self.verifying.contains(&index) || self.partials.contains_key(&index);
            if lacking && !busy && !self.open.get(index) {
                self.reopen(index);
            } else if !lacking && self.open.get(index) {
                self.open.clear(index);
                self.rarest.remove(&self.rank(index));
            }
        }
        self.freed = self.freed.wrapping_add(1);
    }

    /// Whether everything is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.have.is_full()
    }

    /// Where the piece stands in the order of rarity.
    fn rank(&self, index: u32) -> (u32, u32, u32) {
        let at = index as usize;
        let count = self.availability.get(at).copied().unwrap_or(0);
        (count, self.shuffle.get(at).copied().unwrap_or(0), index)
    }

    fn recount(&mut self, index: u32, change: impl Fn(u32) -> u32) {
        let old = self.rank(index);
        let Some(count) = self.availability.get_mut(index as usize) else {
            return;
        };
        *count = change(*count);
        if self.open.get(index) {
            self.rarest.remove(&old);
            self.rarest.insert(self.rank(index));
        }
    }

    fn new_piece(&self, pieces: &Bitfield, within: Option<&BTreeSet<u32>>, rng: &mut impl Rng) -> Option<u32> {
        if let Some(set) = within {
            return set
                .iter()
                .copied()
                .find(|&index| pieces.get(index) && self.open.get(index));
        }
        if self.sequential {
            return self.open.first_common(pieces, 0);
        }
        if self.have.count() >= RANDOM_FIRST {
            let rarest = self.rarest.iter().take(RARITY_SCAN).map(|&(_, _, index)| index);
            if let Some(index) = rarest.into_iter().find(|&index| pieces.get(index)) {
                return Some(index);
            }
        }
        let start = rng.random_range(0..self.shape.pieces().max(1));
        self.open
            .first_common(pieces, start)
            .or_else(|| self.open.first_common(pieces, 0))
    }

    /// Gives up the piece in hand that has the least to lose, of those that nobody is working on.
    fn make_room(&mut self) -> bool {
        let idle = self
            .partials
            .iter()
            .filter(|(_, partial)| partial.free + partial.here == partial.slots.len() as u32)
            .min_by_key(|(_, partial)| partial.here)
            .map(|(&index, _)| index);
        match idle {
            Some(index) => {
                self.put_back(index);
                true
            }
            None => false,
        }
    }

    fn take_in_hand(&mut self, link: LinkId, index: u32) {
        self.rarest.remove(&self.rank(index));
        self.open.clear(index);
        let blocks = self.shape.blocks_of(index);
        let partial = Partial {
            slots: (0..blocks).map(|_| Slot::Free).collect(),
            free: blocks,
            here: 0,
            only: self.failed.contains(&index).then_some(link),
        };
        self.partials.insert(index, partial);
        self.unasked.insert(index);
    }

    /// Marks free blocks of a piece in hand as asked for, until `out` is as long as `goal`.
    fn ask_for(&mut self, link: LinkId, index: u32, goal: usize, out: &mut Vec<Block>) {
        let Some(partial) = self.partials.get_mut(&index) else {
            return;
        };
        for (slot, place) in partial.slots.iter_mut().zip(0u32..) {
            if out.len() >= goal || partial.free == 0 {
                break;
            }
            if matches!(slot, Slot::Free) {
                *slot = Slot::Asked {
                    first: link,
                    more: Vec::new(),
                };
                partial.free -= 1;
                out.push(self.shape.block(index, place));
            }
        }
        if partial.free == 0 {
            self.unasked.remove(&index);
        }
    }

    /// A piece in hand is dropped with what it holds.
    fn put_back(&mut self, index: u32) {
        self.partials.remove(&index);
        self.unasked.remove(&index);
        self.reopen(index);
    }

    fn reopen(&mut self, index: u32) {
        if !self.wanted.get(index) {
            return;
        }
        self.open.set(index);
        self.rarest.insert(self.rank(index));
        self.freed = self.freed.wrapping_add(1);
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
