//! The set of unspent outputs: a write-back cache over the table.
//!
//! There is one writer. It prepares its changes in an [`Overlay`](crate::overlay::Overlay) and publishes them in one
//! step, so a reader sees the set as it was before a change or after it and holds the lock for one lookup only. What
//! is created and spent between two flushes never reaches the table.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use dunlin_store::{Batch, Space, StoreError, Table};

use crate::{Coin, coin};

/// Memory for one entry without its script's bytes: key, value, the map's slack and the script's allocation.
const ENTRY_BYTES: usize = 144;

/// A coin as the cache keeps it.
#[derive(Clone, Debug)]
struct Packed {
    value: Amount,
    /// `height * 2 + coinbase`; heights stay far below 2^31.
    code: u32,
    script: Box<[u8]>,
}

impl From<Coin> for Packed {
    fn from(coin: Coin) -> Self {
        Self {
            value: coin.output.value,
            code: (coin.height << 1) | u32::from(coin.coinbase),
            script: coin.output.script_pubkey.into_bytes().into_boxed_slice(),
        }
    }
}

impl Packed {
    fn unpack(&self) -> Coin {
        Coin {
            output: TxOut {
                value: self.value,
                script_pubkey: ScriptBuf::from_bytes(self.script.to_vec()),
            },
            height: self.code >> 1,
            coinbase: self.code & 1 == 1,
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// `None`: spent, and the table does not know yet.
    coin: Option<Packed>,
    /// The table does not have this state.
    dirty: bool,
    /// The table has no coin under this key.
    fresh: bool,
}

/// A keyed hash for outpoints. Transaction ids are hashes already; the secret key keeps a peer from choosing ids that
/// collide.
#[derive(Clone, Debug)]
pub(crate) struct Keyed(u64, u64);

impl Default for Keyed {
    fn default() -> Self {
        let source = RandomState::new();
        Self(source.hash_one(0u8) | 1, source.hash_one(1u8) | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded {
            state: self.0,
            key: self.1,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Folded {
    state: u64,
    key: u64,
}

impl Folded {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key);
        self.state = (product as u64) ^ ((product >> 64) as u64);
        self.key = self.key.rotate_left(17);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[derive(Debug, Default)]
struct Cache {
    slots: HashMap<OutPoint, Slot, Keyed>,
    script_bytes: usize,
}

impl Cache {
    fn bytes(&self) -> usize {
        self.slots.len() * ENTRY_BYTES + self.script_bytes
    }

    fn put(&mut self, outpoint: OutPoint, packed: Packed, in_table: bool) {
        let added = packed.script.len();
        let removed = match self.slots.entry(outpoint) {
            Entry::Occupied(mut entry) => {
                let slot = entry.get_mut();
                slot.dirty = true;
                slot.coin.replace(packed).map_or(0, |old| old.script.len())
            }
            Entry::Vacant(entry) => {
                entry.insert(Slot {
                    coin: Some(packed),
                    dirty: true,
                    fresh: !in_table,
                });
                0
            }
        };
        self.script_bytes = self.script_bytes + added - removed;
    }

    fn spend(&mut self, outpoint: OutPoint) {
        match self.slots.entry(outpoint) {
            Entry::Occupied(mut entry) => {
                self.script_bytes -= entry.get().coin.as_ref().map_or(0, |old| old.script.len());
                if entry.get().fresh {
                    entry.remove();
                } else {
                    let slot = entry.get_mut();
                    slot.coin = None;
                    slot.dirty = true;
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Slot {
                    coin: None,
                    dirty: true,
                    fresh: false,
                });
            }
        }
    }
}

/// One coin's net change, as an overlay publishes it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The coin afterwards; `None` when it is spent.
    pub(crate) coin: Option<Coin>,
    /// Whether a coin may have been there before.
    pub(crate) existed: bool,
}

/// The unspent outputs, shared by the one writer and all readers.
pub(crate) struct Coins {
    cache: RwLock<Cache>,
    table: Arc<dyn Table>,
    space: Space,
}

impl Coins {
    pub(crate) fn new(table: Arc<dyn Table>, space: Space) -> Self {
        Self {
            cache: RwLock::default(),
            table,
            space,
        }
    }

    /// Where the table keeps these coins.
    pub(crate) fn space(&self) -> Space {
        self.space
    }

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        // Only `publish` and `settle` change the cache, and neither can panic half way.
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a coin up in the cache, then in the table.
    ///
    /// The lock is let go before the table is asked. A flush writes the table before it drops anything from the cache,
    /// so the answer was true at some instant during the call.
    pub(crate) fn get(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        if let Some(slot) = self.read().slots.get(outpoint) {
            return Ok(slot.coin.as_ref().map(Packed::unpack));
        }
        let Some(bytes) = self.table.get(self.space, &coin::key(outpoint))? else {
            return Ok(None);
        };
        match coin::decode(&bytes) {
            Some(found) => Ok(Some(found)),
            None => Err(StoreError::corrupt(format!("the coin {outpoint}"))),
        }
    }

    /// Makes changes visible, all at once; `with` runs while readers are still kept out.
    pub(crate) fn publish<T>(&self, changes: impl Iterator<Item = (OutPoint, Change)>, with: impl FnOnce() -> T) -> T {
        // What needs memory or time is prepared before readers are kept out.
        let changes: Vec<(OutPoint, Option<Packed>, bool)> = changes
            .map(|(at, change)| (at, change.coin.map(Packed::from), change.existed))
            .collect();
        let mut cache = self.write();
        for (outpoint, packed, existed) in changes {
            match packed {
                Some(packed) => cache.put(outpoint, packed, existed),
                None => cache.spend(outpoint),
            }
        }
        with()
    }

    /// Memory used by the cache.
    pub(crate) fn bytes(&self) -> usize {
        self.read().bytes()
    }

    /// Adds everything that the table does not have yet to `batch`. After the batch is written the caller calls
    /// [`Coins::settle`]; in between it publishes nothing.
    pub(crate) fn collect(&self, batch: &mut Batch) {
        let cache = self.read();
        let mut dirty: Vec<(&OutPoint, &Slot)> = cache.slots.iter().filter(|(_, slot)| slot.dirty).collect();
        // In key order the table takes them fastest, and the batch is the same from run to run.
        dirty.sort_unstable_by_key(|(outpoint, _)| coin::key(outpoint));
        for (outpoint, slot) in dirty {
            match &slot.coin {
                Some(packed) => {
                    let mut value = Vec::with_capacity(10 + packed.script.len());
                    coin::encode(&packed.unpack(), &mut value);
                    batch.put(self.space, coin::key(outpoint), value);
                }
                None => batch.delete(self.space, coin::key(outpoint)),
            }
        }
    }

    /// Notes that the table has everything. Coins stay in the cache unless it holds more than `keep_bytes`.
    pub(crate) fn settle(&self, keep_bytes: usize) {
        let mut cache = self.write();
        if cache.bytes() > keep_bytes {
            *cache = Cache {
                slots: HashMap::with_hasher(Keyed::default()),
                script_bytes: 0,
            };
            return;
        }
        cache.slots.retain(|_, slot| {
            slot.dirty = false;
            slot.fresh = false;
            slot.coin.is_some()
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use dunlin_store::MemTable;

    const SPACE: Space = Space(0);

    fn at(vout: u32) -> OutPoint {
        OutPoint {
            txid: bitcoin::Txid::from_byte_array([7; 32]),
            vout,
        }
    }

    fn coin_of(value: u64) -> Coin {
        Coin {
            output: TxOut {
                value: Amount::from_sat(value),
                script_pubkey: ScriptBuf::from_bytes(vec![1; 30]),
            },
            height: 5,
            coinbase: false,
        }
    }

    fn change(coins: &Coins, vout: u32, value: Option<u64>, existed: bool) {
        let change = Change {
            coin: value.map(coin_of),
            existed,
        };
        coins.publish([(at(vout), change)].into_iter(), || ());
    }

    fn flush(coins: &Coins, keep: usize) -> usize {
        let mut batch = Batch::default();
        coins.collect(&mut batch);
        let len = batch.len();
        coins.table.write(batch, true).unwrap();
        coins.settle(keep);
        len
    }

    #[test]
    fn a_coin_born_and_spent_within_a_flush_is_never_written() {
        let coins = Coins::new(Arc::new(MemTable::default()), SPACE);
        change(&coins, 0, Some(10), false);
        change(&coins, 1, Some(11), false);
        change(&coins, 0, None, true);
        assert_eq!(coins.get(&at(0)).unwrap(), None);
        assert_eq!(flush(&coins, usize::MAX), 1);
        assert_eq!(coins.get(&at(1)).unwrap(), Some(coin_of(11)));
        assert_eq!(flush(&coins, usize::MAX), 0);
        change(&coins, 1, None, true);
        assert_eq!(flush(&coins, usize::MAX), 1);
        assert_eq!(coins.get(&at(1)).unwrap(), None);
        assert_eq!(coins.bytes(), 0);
    }

    #[test]
    fn a_coin_of_the_table_that_is_spent_and_restored_is_still_deleted_later() {
        for keep in [0, usize::MAX] {
            let coins = Coins::new(Arc::new(MemTable::default()), SPACE);
            change(&coins, 0, Some(10), false);
            flush(&coins, keep);
            change(&coins, 0, None, true);
            change(&coins, 0, Some(10), false);
            assert_eq!(coins.get(&at(0)).unwrap(), Some(coin_of(10)));
            change(&coins, 0, None, true);
            flush(&coins, 0);
            assert_eq!(coins.get(&at(0)).unwrap(), None, "keep {keep}");
        }
    }

    #[test]
    fn memory_is_accounted_for_exactly() {
        let coins = Coins::new(Arc::new(MemTable::default()), SPACE);
        for vout in 0..10 {
            change(&coins, vout, Some(1), false);
        }
        assert_eq!(coins.bytes(), 10 * (ENTRY_BYTES + 30));
        change(&coins, 3, Some(2), true);
        assert_eq!(coins.bytes(), 10 * (ENTRY_BYTES + 30));
        for vout in 0..10 {
            change(&coins, vout, None, true);
        }
        assert_eq!(coins.bytes(), 0);
    }

    #[test]
    fn the_hash_spreads_outpoints_that_differ_in_one_bit() {
        let keyed = Keyed::default();
        let mut seen = std::collections::BTreeSet::new();
        for vout in 0..1000 {
            // The map takes its buckets from the low bits and its tags from the high ones.
            seen.insert(keyed.hash_one(at(vout)) >> 32);
        }
        assert!(seen.len() > 990, "{}", seen.len());
    }
}
