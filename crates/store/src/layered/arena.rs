//! Memory for many small records: carved out of chunks, used again by size, given back all at once.

/// Slots begin at multiples of this many bytes and are as many long.
const UNIT: usize = 8;
/// Bytes of one chunk; no slot is longer.
const CHUNK: usize = 256 << 10;
const UNITS: usize = CHUNK / UNIT;

/// A slot's place: units from the start of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// The chunks and the slots in them that are free again.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Box<[u8]>>,
    /// Bytes carved out of the last chunk.
    end: usize,
    /// For each length in units: one more than the place of a free slot, or 0. A free slot begins with the next one.
    free: Vec<u32>,
}

fn units(len: usize) -> usize {
    len.div_ceil(UNIT)
}

impl Arena {
    /// Memory carved out so far, free slots included.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len().saturating_sub(1) * CHUNK + self.end
    }

    /// A slot of at least `len` bytes; `None` when it is longer than a chunk or the arena has 32 GiB.
    pub(super) fn take(&mut self, len: usize) -> Option<Slot> {
        let units = units(len);
        if units == 0 || units > UNITS {
            return None;
        }
        if let Some(head) = self.free.get_mut(units)
            && *head != 0
        {
            let slot = Slot(*head - 1);
            let next = self.slice(slot, 4).first_chunk::<4>().copied().unwrap_or_default();
            self.free[units] = u32::from_le_bytes(next);
            return Some(slot);
        }
        if self.chunks.is_empty() || self.end + units * UNIT > CHUNK {
            // The last number stays unused, because free slots are noted as one more.
            if self.chunks.len() + 1 >= u32::MAX as usize / UNITS {
                return None;
            }
            self.chunks.push(vec![0; CHUNK].into_boxed_slice());
            self.end = 0;
        }
        let at = (self.chunks.len() - 1) * UNITS + self.end / UNIT;
        self.end += units * UNIT;
        u32::try_from(at).ok().map(Slot)
    }

    /// Gives a slot of `len` bytes back.
    pub(super) fn give(&mut self, slot: Slot, len: usize) {
        let units = units(len);
        if self.free.len() <= units {
            self.free.resize(units + 1, 0);
        }
        let next = self.free[units];
        self.slice_mut(slot, 4).copy_from_slice(&next.to_le_bytes());
        self.free[units] = slot.0 + 1;
    }

    /// Whether slots of these lengths are the same size.
    pub(super) fn same_size(one: usize, other: usize) -> bool {
        units(one) == units(other)
    }

    /// The first `len` bytes of a slot.
    pub(super) fn slice(&self, slot: Slot, len: usize) -> &[u8] {
        let (chunk, at) = (slot.0 as usize / UNITS, slot.0 as usize % UNITS * UNIT);
        &self.chunks[chunk][at..at + len]
    }

    /// The first `len` bytes of a slot, to be written.
    pub(super) fn slice_mut(&mut self, slot: Slot, len: usize) -> &mut [u8] {
        let (chunk, at) = (slot.0 as usize / UNITS, slot.0 as usize % UNITS * UNIT);
        &mut self.chunks[chunk][at..at + len]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_are_used_again() {
        let mut arena = Arena::default();
        let lens: Vec<usize> = (0..20_000).map(|n| 1 + n * 37 % 90).collect();
        let slots: Vec<Slot> = lens.iter().map(|len| arena.take(*len).unwrap()).collect();
        for (n, (slot, len)) in slots.iter().zip(&lens).enumerate() {
            arena.slice_mut(*slot, *len).fill(n as u8);
        }
        for (n, (slot, len)) in slots.iter().zip(&lens).enumerate() {
            assert!(arena.slice(*slot, *len).iter().all(|byte| *byte == n as u8));
        }
        let before = arena.bytes();
        for (slot, len) in slots.iter().zip(&lens) {
            arena.give(*slot, *len);
        }
        for len in &lens {
            arena.take(*len).unwrap();
        }
        assert_eq!(arena.bytes(), before);
        assert!(arena.take(CHUNK).is_some());
        assert!(arena.take(CHUNK + 1).is_none());
        assert!(arena.take(0).is_none());
    }
}
