//! Sets that forget: what was seen lately, in bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use bitcoin::hashes::siphash24;

/// A secret with which identifiers are shortened, so that nobody can make them collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt {
    k0: u64,
    k1: u64,
}

impl Salt {
    pub(crate) fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    /// A 64-bit name for `bytes` that only we can compute.
    pub(crate) fn shorten(&self, bytes: &[u8]) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.k0, self.k1, bytes)
    }
}

/// Keys are salted hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Shorts = HashSet<u64, BuildHasherDefault<Identity>>;

/// Remembers at least the last `generation` insertions and at most twice as many. Never iterated.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    generation: usize,
    young: Shorts,
    old: Shorts,
}

impl Known {
    pub(crate) fn new(generation: usize) -> Self {
        Self {
            generation,
            young: Shorts::default(),
            old: Shorts::default(),
        }
    }

    pub(crate) fn insert(&mut self, key: u64) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.young.contains(&key) || self.old.contains(&key)
    }

    pub(crate) fn clear(&mut self) {
        self.young = Shorts::default();
        self.old = Shorts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_generation_and_stays_bounded() {
        let salt = Salt::new(1, 2);
        let mut known = Known::new(100);
        for n in 0u64..1000 {
            known.insert(salt.shorten(&n.to_le_bytes()));
            assert!(known.young.len() + known.old.len() <= 200);
        }
        assert!((900..1000).all(|n: u64| known.contains(salt.shorten(&n.to_le_bytes()))));
        assert!(!known.contains(salt.shorten(&5u64.to_le_bytes())));
        known.clear();
        assert!(!known.contains(salt.shorten(&999u64.to_le_bytes())));
    }
}
