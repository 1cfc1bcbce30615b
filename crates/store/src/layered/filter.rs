//! Which keys a run surely does not have: a Bloom filter whose bits for one key all lie in one cache line.

/// Words of a line: 64 bytes.
const WORDS: usize = 8;
/// Bits looked at for one key; nine bits of a 64-bit number choose each.
const PROBES: u32 = 7;
/// Memory for each key. With seven probes about one look-up in 150 is answered with a wrong "maybe".
const BITS_PER_KEY: u64 = 12;

/// The filter; an empty one says "maybe" to every key.
#[derive(Debug, Default)]
pub(super) struct Filter {
    lines: Vec<[u64; WORDS]>,
}

impl Filter {
    /// A filter for up to `keys` keys.
    pub(super) fn new(keys: u64) -> Self {
        let lines = usize::try_from((keys.saturating_mul(BITS_PER_KEY)).div_ceil(512)).unwrap_or(0);
        Self {
            lines: vec![[0; WORDS]; lines.max(1)],
        }
    }

    fn line(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.lines.len() as u128) >> 64) as usize
    }

    fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
        // The line is chosen by the high bits, so all bits must have their say in the probes.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ hash;
        (0..PROBES).map(move |probe| {
            let bit = mixed >> (probe * 9) & 511;
            ((bit >> 6) as usize, 1 << (bit & 63))
        })
    }

    /// Adds the key with this hash.
    pub(super) fn add(&mut self, hash: u64) {
        let line = self.line(hash);
        if let Some(line) = self.lines.get_mut(line) {
            for (word, bit) in Self::probes(hash) {
                line[word] |= bit;
            }
        }
    }

    /// `false` when the key with this hash was surely not added.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let Some(line) = self.lines.get(self.line(hash)) else {
            return true;
        };
        Self::probes(hash).all(|(word, bit)| line[word] & bit != 0)
    }

    /// Memory used.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * WORDS * 8
    }

    /// Appends the filter as little-endian words.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.lines.as_flattened().iter().flat_map(|word| word.to_le_bytes()));
    }

    /// Reads what [`Filter::encode`] wrote; what does not fill a line is left out.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let (lines, _) = words.as_chunks::<WORDS>();
        Self {
            lines: lines.iter().map(|line| line.map(u64::from_le_bytes)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layered::layer;

    #[test]
    fn all_that_was_added_is_found_and_little_else() {
        let hash = |n: u64| layer::hash(3, &n.to_be_bytes());
        let mut filter = Filter::new(100_000);
        (0..100_000).for_each(|n| filter.add(hash(n)));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let filter = Filter::decode(&bytes);
        assert!((0..100_000).all(|n| filter.may_have(hash(n))));
        let wrong = (100_000..300_000).filter(|n| filter.may_have(hash(*n))).count();
        assert!(wrong < 2000, "{wrong} of 200000");
        assert!(Filter::default().may_have(5));
    }
}
