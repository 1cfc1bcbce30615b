//! Where all choices come from.

/// Choices from bytes as long as there are some, then from SplitMix64: the same bytes and seed give the same blocks.
pub struct Dice {
    bytes: Vec<u8>,
    next: usize,
    state: u64,
}

impl Dice {
    /// Choices from a seed alone.
    pub fn seeded(seed: u64) -> Self {
        Self {
            bytes: Vec::new(),
            next: 0,
            state: seed,
        }
    }

    /// Choices from a fuzzer's bytes.
    pub fn fuzzed(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            next: 0,
            state: 0,
        }
    }

    /// Whether the bytes are used up.
    pub fn is_out(&self) -> bool {
        self.next >= self.bytes.len()
    }

    /// A number below `sides`. Two bytes are enough for all that is chosen here.
    pub fn roll(&mut self, sides: usize) -> usize {
        if let Some(&[low, high]) = self.bytes.get(self.next..self.next + 2) {
            self.next += 2;
            return usize::from(u16::from_le_bytes([low, high])) % sides;
        }
        self.next = self.bytes.len();
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    /// One of the items.
    pub fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.roll(items.len())]
    }
}
