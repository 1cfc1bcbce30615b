//! A layer in memory: the newest changes, packed tightly, found by a keyed hash and given out in key order.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::arena::{Arena, Slot};
use crate::StoreError;

/// Bytes before a record's key: length of the key, flags, length of the value (little-endian).
const HEAD: usize = 4;
/// There is a value; without it the record says that the key was removed.
const LIVE: u8 = 1;
/// Nothing below this layer has a value for the key.
const FRESH: u8 = 2;

/// Keys are 1 to 255 bytes long.
pub(super) const MAX_KEY: usize = 255;
/// The longest value.
pub(super) const MAX_VALUE: usize = 60_000;
/// A layer is split by the first byte of the key: each part grows and is sorted alone, in little time.
pub(super) const SHARDS: usize = 256;

/// The hash of a key: which bucket of a layer, which bits of a filter. The seed is secret, so that nobody can choose
/// keys that collide.
pub(super) fn hash(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// A key or value that no layer takes.
pub(super) fn unfit() -> StoreError {
    StoreError::corrupt("a record of no permitted length")
}

/// What becomes of one key.
pub(super) struct Change<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    /// `None`: it is removed.
    pub(super) value: Option<&'a [u8]>,
    /// Nothing below the layer has a value for it.
    pub(super) fresh: bool,
}

/// Newest values of some keys.
#[derive(Debug)]
pub(super) struct Layer {
    seed: u64,
    arena: Arena,
    shards: Vec<HashTable<Slot>>,
    table_bytes: usize,
    len: usize,
}

fn key_of(arena: &Arena, slot: Slot) -> &[u8] {
    let len = usize::from(arena.slice(slot, 1)[0]);
    &arena.slice(slot, HEAD + len)[HEAD..]
}

fn flags_of(arena: &Arena, slot: Slot) -> u8 {
    arena.slice(slot, HEAD)[1]
}

fn len_of(arena: &Arena, slot: Slot) -> usize {
    let head = arena.slice(slot, HEAD);
    HEAD + usize::from(head[0]) + usize::from(u16::from_le_bytes([head[2], head[3]]))
}

/// Writes a record into a slot of its own; `None` when the arena is full.
fn store(arena: &mut Arena, old: Option<Slot>, key: &[u8], flags: u8, value: &[u8]) -> Option<Slot> {
    let len = HEAD + key.len() + value.len();
    let slot = match old {
        Some(slot) if Arena::same_size(len_of(arena, slot), len) => slot,
        Some(slot) => {
            let new = arena.take(len)?;
            let old_len = len_of(arena, slot);
            arena.give(slot, old_len);
            new
        }
        None => arena.take(len)?,
    };
    let record = arena.slice_mut(slot, len);
    record[0] = key.len() as u8;
    record[1] = flags;
    record[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
    record[HEAD..HEAD + key.len()].copy_from_slice(key);
    record[HEAD + key.len()..].copy_from_slice(value);
    Some(slot)
}

impl Layer {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            arena: Arena::default(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            table_bytes: 0,
            len: 0,
        }
    }

    /// How many records there are, removals included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory for records and their places.
    pub(super) fn bytes(&self) -> usize {
        self.arena.bytes() + self.table_bytes
    }

    /// The value of a key; `Some(None)` when it was removed here, `None` when this layer does not know.
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<Option<&[u8]>> {
        let shard = self.shards.get(usize::from(*key.first()?))?;
        let slot = *shard.find(hash, |slot| key_of(&self.arena, *slot) == key)?;
        Some(self.record(slot).1)
    }

    /// Puts a key in or removes it; `false` when the arena is full.
    pub(super) fn apply(&mut self, change: &Change<'_>) -> bool {
        match change.value {
            Some(value) => self.put(change.hash, change.key, value, change.fresh),
            None => self.remove(change.hash, change.key),
        }
    }

    /// Sets a key. `fresh` says that nothing below has a value for it. `false` when the arena is full.
    pub(super) fn put(&mut self, hash: u64, key: &[u8], value: &[u8], fresh: bool) -> bool {
        let flags = LIVE | if fresh { FRESH } else { 0 };
        self.set(hash, key, flags, value)
    }

    /// Removes a key; what was put here fresh leaves no trace. `false` when the arena is full.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let Some(shard) = key.first().and_then(|first| self.shards.get_mut(usize::from(*first))) else {
            return false;
        };
        let arena = &mut self.arena;
        if let Ok(entry) = shard.find_entry(hash, |slot| key_of(arena, *slot) == key)
            && flags_of(arena, *entry.get()) & FRESH != 0
        {
            let (slot, _) = entry.remove();
            let len = len_of(arena, slot);
            arena.give(slot, len);
            self.len -= 1;
            return true;
        }
        self.set(hash, key, 0, &[])
    }

    fn set(&mut self, hash: u64, key: &[u8], flags: u8, value: &[u8]) -> bool {
        let seed = self.seed;
        let Some(shard) = key.first().and_then(|first| self.shards.get_mut(usize::from(*first))) else {
            return false;
        };
        let arena = &mut self.arena;
        let before = shard.allocation_size();
        // Two steps, because looking needs the arena and writing changes it.
        let found = shard.find_mut(hash, |slot| key_of(arena, *slot) == key);
        if let Some(slot) = found {
            // What is fresh stays fresh, and what is not does not become it.
            let flags = flags & !FRESH | flags_of(arena, *slot) & FRESH;
            let Some(new) = store(arena, Some(*slot), key, flags, value) else {
                return false;
            };
            *slot = new;
            return true;
        }
        let Some(slot) = store(arena, None, key, flags, value) else {
            return false;
        };
        shard.insert_unique(hash, slot, |slot| super::layer::hash(seed, key_of(arena, *slot)));
        self.table_bytes += shard.allocation_size() - before;
        self.len += 1;
        true
    }

    /// The record in a slot: its key, and its value unless it was removed.
    pub(super) fn record(&self, slot: Slot) -> (&[u8], Option<&[u8]>) {
        let record = self.arena.slice(slot, len_of(&self.arena, slot));
        let (key, value) = record[HEAD..].split_at(usize::from(record[0]));
        (key, (record[1] & LIVE != 0).then_some(value))
    }

    /// The records whose key begins with the byte `shard`, in key order.
    pub(super) fn sorted(&self, shard: usize) -> Vec<Slot> {
        let slots = self.shards.get(shard).into_iter().flatten();
        let mut slots: Vec<(u64, Slot)> = slots
            .map(|slot| (super::run::prefix(&key_of(&self.arena, *slot)[1..]), *slot))
            .collect();
        slots.sort_unstable_by(|one, other| {
            let full = || key_of(&self.arena, one.1).cmp(key_of(&self.arena, other.1));
            one.0.cmp(&other.0).then_with(full)
        });
        slots.into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_layer_is_a_map_that_forgets_what_was_fresh() {
        let mut layer = Layer::new(7);
        let mut model: BTreeMap<Vec<u8>, (Option<Vec<u8>>, bool)> = BTreeMap::new();
        let mut dice = 1u64;
        for _ in 0..60_000 {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let roll = dice >> 33;
            let key = format!("{}", roll % 3000).into_bytes();
            let hash = hash(7, &key);
            if roll % 5 < 3 {
                let value = vec![roll as u8; (roll % 70) as usize];
                let fresh = roll % 7 < 4;
                assert!(layer.put(hash, &key, &value, fresh));
                let fresh = model.get(&key).map_or(fresh, |(_, fresh)| *fresh);
                model.insert(key, (Some(value), fresh));
            } else {
                assert!(layer.remove(hash, &key));
                match model.get(&key) {
                    Some((_, true)) => model.remove(&key),
                    _ => model.insert(key, (None, false)),
                };
            }
        }
        assert_eq!(layer.len(), model.len());
        for (key, (value, _)) in &model {
            assert_eq!(layer.get(hash(7, key), key), Some(value.as_deref()));
        }
        assert_eq!(layer.get(hash(7, b"nobody"), b"nobody"), None);
        let listed: Vec<_> = (0..SHARDS)
            .flat_map(|shard| layer.sorted(shard))
            .map(|slot| layer.record(slot))
            .collect();
        let expected: Vec<_> = model
            .iter()
            .map(|(key, (value, _))| (&key[..], value.as_deref()))
            .collect();
        assert_eq!(listed, expected);
        assert!(layer.bytes() < 3000 * 110, "{}", layer.bytes());
    }
}
