//! Transactions whose scripts were found good, so that what the mempool verified is not verified again in a block.
//!
//! A `wtxid` commits to the transaction with its witnesses, and through its inputs to the outputs that it spends; what
//! the scripts say then depends on the flags alone.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use bitcoin::Wtxid;

use crate::coins::Keyed;
use crate::script::Flags;

/// Entries in each of the two halves.
const HALF: usize = 100_000;

type Half = HashSet<(Wtxid, Flags), Keyed>;

/// A bounded set: when the younger half is full it becomes the older one, whose entries are forgotten.
#[derive(Debug, Default)]
pub(crate) struct ScriptCache {
    halves: RwLock<[Half; 2]>,
}

impl ScriptCache {
    pub(crate) fn contains(&self, wtxid: &Wtxid, flags: Flags) -> bool {
        let halves = self.halves.read().unwrap_or_else(PoisonError::into_inner);
        halves.iter().any(|half| half.contains(&(*wtxid, flags)))
    }

    pub(crate) fn insert(&self, wtxid: Wtxid, flags: Flags) {
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *halves;
        if young.len() >= HALF {
            *old = std::mem::take(young);
        }
        young.insert((wtxid, flags));
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn the_youngest_are_known_under_their_flags_and_the_oldest_are_forgotten() {
        let name = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            Wtxid::from_byte_array(bytes)
        };
        let cache = ScriptCache::default();
        for n in 0..3 * HALF {
            cache.insert(name(n), 1);
        }
        assert!(cache.contains(&name(3 * HALF - 1), 1) && cache.contains(&name(2 * HALF), 1));
        assert!(!cache.contains(&name(3 * HALF - 1), 3));
        assert!(!cache.contains(&name(0), 1));
        let halves = cache.halves.read().unwrap_or_else(PoisonError::into_inner);
        assert!(halves.iter().map(HashSet::len).sum::<usize>() <= 2 * HALF);
    }
}
