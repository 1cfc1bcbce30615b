//! One bit for each piece, as BEP 3 sends it: the first piece is the highest bit of the first byte.

use bytes::Bytes;

/// A set of piece indices below a fixed length.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// `len` pieces, none in the set.
    pub fn new(len: u32) -> Self {
        Self {
            bytes: vec![0; byte_len(len)],
            len,
            ones: 0,
        }
    }

    /// `len` pieces, all in the set.
    pub fn full(len: u32) -> Self {
        let mut all = Self {
            bytes: vec![0xff; byte_len(len)],
            len,
            ones: len,
        };
        if let Some(last) = all.bytes.last_mut() {
            *last &= last_mask(len);
        }
        all
    }

    /// Takes a peer's bitfield for a torrent of `len` pieces; `None` when its length is wrong or a spare bit is set.
    pub fn from_wire(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != byte_len(len) || bytes.last().is_some_and(|last| last & !last_mask(len) != 0) {
            return None;
        }
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self {
            bytes: bytes.to_vec(),
            len,
            ones,
        })
    }

    /// The bytes as the wire has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy for a `bitfield` message.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// How many pieces there are, in the set or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no pieces at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pieces are in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether no piece is in the set.
    pub fn is_none(&self) -> bool {
        self.ones == 0
    }

    /// Whether `index` is in the set; an index out of range is not.
    pub fn get(&self, index: u32) -> bool {
        index < self.len
            && self
                .bytes
                .get(index as usize / 8)
                .is_some_and(|byte| byte & bit(index) != 0)
    }

    /// Puts `index` in the set; `true` when it was not there. An index out of range changes nothing.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.len || self.get(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(index as usize / 8) {
            *byte |= bit(index);
            self.ones += 1;
        }
        true
    }

    /// Takes `index` out of the set; `true` when it was there.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.get(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(index as usize / 8) {
            *byte &= !bit(index);
            self.ones -= 1;
        }
        true
    }

    /// The indices in the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes.iter().zip(0u32..).flat_map(|(&byte, at)| {
            let mut rest = byte;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let lead = rest.leading_zeros();
                rest &= !(0x80 >> lead);
                Some(at * 8 + lead)
            })
        })
    }

    /// The first index at or after `from` that is in both sets.
    pub fn first_common(&self, other: &Self, from: u32) -> Option<u32> {
        let start = from as usize / 8;
        let mut mask = 0xffu8 >> (from % 8);
        for (at, (mine, theirs)) in self.bytes.iter().zip(&other.bytes).enumerate().skip(start) {
            let both = mine & theirs & std::mem::replace(&mut mask, 0xff);
            if both != 0 {
                // Both sets are indexed by u32, so the place of one of their bytes times eight fits.
                return Some(at as u32 * 8 + both.leading_zeros());
            }
        }
        None
    }
}

fn byte_len(len: u32) -> usize {
    len.div_ceil(8) as usize
}

fn bit(index: u32) -> u8 {
    0x80 >> (index % 8)
}

/// The bits of the last byte that stand for pieces.
fn last_mask(len: u32) -> u8 {
    match len % 8 {
        0 => 0xff,
        used => !(0xff >> used),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn first_piece_is_the_high_bit_and_counts_stay_true() {
        let mut set = Bitfield::new(10);
        assert!(set.set(0) && set.set(9) && !set.set(9) && !set.set(10));
        assert_eq!(set.as_bytes(), [0x80, 0x40]);
        assert_eq!((set.count(), set.iter().collect::<Vec<_>>()), (2, vec![0, 9]));
        assert!(set.clear(0) && !set.clear(0) && !set.clear(77));
        assert_eq!(set.count(), 1);
        assert_eq!(Bitfield::full(10).as_bytes(), [0xff, 0xc0]);
        assert!(Bitfield::full(10).is_full() && Bitfield::full(8).as_bytes() == [0xff]);
    }

    #[test]
    fn a_wire_bitfield_has_the_right_length_and_no_spare_bits() {
        assert_eq!(Bitfield::from_wire(&[0xff, 0xc0], 10).unwrap(), Bitfield::full(10));
        assert!(Bitfield::from_wire(&[0xff, 0xe0], 10).is_none());
        assert!(Bitfield::from_wire(&[0xff], 10).is_none());
        assert!(Bitfield::from_wire(&[0xff, 0, 0], 10).is_none());
        assert!(Bitfield::from_wire(&[], 0).unwrap().is_full());
    }

    #[test]
    fn first_common_walks_from_any_start() {
        let mut a = Bitfield::new(40);
        let mut b = Bitfield::new(40);
        for index in [3, 17, 39] {
            a.set(index);
        }
        for index in [3, 18, 39] {
            b.set(index);
        }
        assert_eq!(a.first_common(&b, 0), Some(3));
        assert_eq!(a.first_common(&b, 4), Some(39));
        assert_eq!(a.first_common(&b, 40), None);
    }
}
