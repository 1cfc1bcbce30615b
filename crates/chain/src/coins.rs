//! The set of unspent outputs, over a store of layers in memory and runs on disk.
//!
//! There is one writer. It prepares its changes in an [`Overlay`](crate::overlay::Overlay) and publishes them in one
//! step, so a reader sees the set as it was before a change or after it. Coins gather in memory; when they fill half of
//! the memory allowed they are set aside and written in the background, while the other half fills. What was written
//! stays in memory to be read for as long as there is room. What is created and spent before it was set aside is never
//! written.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};
use dunlin_store::{Barrier, Changes, Damage, Draft, Files, Layered, Pairs, Snapshot, Step, StoreError, Writing};

use crate::{ChainStore, Coin, coin};

/// What the names of a set's files begin with.
const PREFIXES: [&str; 2] = ["coins0", "coins1"];

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

/// Where sets of coins are: there is room for two, because a snapshot is loaded and validated beside the other.
pub(crate) struct CoinSets {
    files: Arc<dyn Files>,
    writing: Writing,
}

impl CoinSets {
    pub(crate) fn new(store: &ChainStore) -> Self {
        Self {
            files: Arc::clone(&store.coins),
            writing: store.writing,
        }
    }

    /// Opens a set, which may take up to `memory` bytes; a new one when it has no files.
    pub(crate) fn open(&self, number: u8, memory: usize) -> Result<Coins, StoreError> {
        let prefix = PREFIXES[usize::from(number & 1)];
        Ok(Coins {
            store: Layered::open(Arc::clone(&self.files), prefix, self.writing)?,
            number: number & 1,
            memory: AtomicUsize::new(memory),
        })
    }

    /// Removes a set that is not open.
    pub(crate) fn erase(&self, number: u8) -> Result<(), StoreError> {
        Layered::erase(&*self.files, PREFIXES[usize::from(number & 1)])
    }

    /// Removes a set that nobody needs any more.
    pub(crate) fn remove(&self, coins: &Coins) -> Result<(), StoreError> {
        coins.store.stop();
        self.erase(coins.number)
    }
}

/// The unspent outputs, shared by the one writer and all readers.
pub(crate) struct Coins {
    store: Layered,
    number: u8,
    memory: AtomicUsize,
}

/// The coins on disk at one instant.
pub(crate) struct CoinsSnapshot(Snapshot);

impl CoinsSnapshot {
    /// The block up to which they are; `None` before coins were ever written.
    pub(crate) fn tip(&self) -> Result<Option<BlockHash>, StoreError> {
        tip_of(self.0.mark())
    }

    /// Bytes of the files in which they lie.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Shows every coin whose key is not below `from`, in the order of transaction ids and indexes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names a record that is damaged.
    pub(crate) fn scan(&self, from: &[u8], visit: &mut dyn FnMut(OutPoint, Coin) -> Step) -> Result<(), StoreError> {
        let mut damaged = None;
        self.0.scan(
            from,
            &mut |key, value| match (coin::outpoint(key), coin::decode(value)) {
                (Some(outpoint), Some(found)) => visit(outpoint, found),
                _ => {
                    damaged = Some(StoreError::corrupt(format!("the coin with key {key:02x?}")));
                    Step::Stop
                }
            },
        )?;
        damaged.map_or(Ok(()), Err)
    }
}

fn tip_of(mark: Option<&[u8]>) -> Result<Option<BlockHash>, StoreError> {
    // What else a mark says is for whoever wrote it.
    let hash = |mark: &[u8]| BlockHash::from_slice(mark.get(..32).unwrap_or_default());
    let tip = mark.map(hash).transpose();
    tip.map_err(|_| StoreError::corrupt("the record of the coins' tip"))
}

pub(crate) fn named(outpoint: &OutPoint, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what } => StoreError::corrupt(format!("the coin {outpoint} ({what})")),
        other => other,
    }
}

/// The record of a coin that is none.
pub(crate) fn damaged(outpoint: &OutPoint) -> StoreError {
    StoreError::corrupt(format!("the coin {outpoint}"))
}

impl Coins {
    /// The number of the other set.
    pub(crate) fn other(&self) -> u8 {
        1 - self.number
    }

    /// The number of this set.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// Changes how much memory the coins may take.
    pub(crate) fn set_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// The block up to which the coins on disk are; `None` before they were ever written.
    pub(crate) fn tip(&self) -> Result<Option<BlockHash>, StoreError> {
        tip_of(self.store.mark().as_deref())
    }

    /// Looks a coin up.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names a coin whose record is damaged.
    pub(crate) fn get(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        match self.store.get(&coin::key(outpoint), coin::decode) {
            Ok(None) => Ok(None),
            Ok(Some(Some(found))) => Ok(Some(found)),
            Ok(Some(None)) => Err(damaged(outpoint)),
            Err(error) => Err(named(outpoint, error)),
        }
    }

    /// Says that coins will be looked up soon, see [`Layered::will_need`].
    pub(crate) fn will_need(&self, outpoints: impl Iterator<Item = OutPoint>) {
        let keys: Vec<coin::Key> = outpoints.map(|outpoint| coin::key(&outpoint)).collect();
        self.store.will_need(keys.iter().map(|key| &**key));
    }

    /// Changes over the coins that nobody sees yet.
    pub(crate) fn draft(&self) -> Draft<'_> {
        Draft::new(&self.store)
    }

    /// Whether it is time to set coins aside. When all memory is in use, what is on disk too leaves it.
    pub(crate) fn is_full(&self) -> bool {
        let memory = self.memory.load(Ordering::Relaxed);
        if self.store.bytes() > memory {
            self.store.forget_clean();
        }
        // However much the index of the runs takes, the coins get half of the memory.
        let for_coins = memory.saturating_sub(self.store.index_bytes()).max(memory / 2);
        // Writing is much faster than filling, as a rule; where it is not, the two together get all.
        self.store.active_bytes() > for_coins / 4 * 3 || self.store.unwritten_bytes() > for_coins
    }

    /// Sets all coins so far aside to be written as those of `tip`, once `barrier` has made durable what they refer to.
    ///
    /// # Errors
    /// [`StoreError`] when what was set aside before cannot be written; nothing has changed then.
    pub(crate) fn freeze(&self, tip: &BlockHash, barrier: Barrier) -> Result<(), StoreError> {
        self.store.freeze(tip.as_byte_array(), barrier)
    }

    /// [`Coins::freeze`] with a mark that says more than the block's hash, with which it begins.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn freeze_marked(&self, mark: &[u8], barrier: Barrier) -> Result<(), StoreError> {
        self.store.freeze(mark, barrier)
    }

    /// The mark of the coins on disk.
    pub(crate) fn mark(&self) -> Option<Box<[u8]>> {
        self.store.mark()
    }

    /// Adds coins that were not there before; keys and values are those of [`coin`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the coins in memory have grown too large.
    pub(crate) fn publish_new(&self, coins: &Changes) -> Result<(), StoreError> {
        self.store.publish(coins, || ())
    }

    /// Waits until what was set aside is on disk.
    ///
    /// # Errors
    /// [`StoreError`]; the next call tries again.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        self.store.wait()
    }

    /// Does a piece of the writing that is due, or tells how it went in the background.
    ///
    /// # Errors
    /// [`StoreError`]; it is tried again.
    pub(crate) fn step(&self) -> Result<(), StoreError> {
        self.store.step()
    }

    /// Whether somebody came upon a damaged record since this was asked last.
    pub(crate) fn take_damage_met(&self) -> bool {
        self.store.take_damage_met()
    }

    /// Reads all that is on disk for what is damaged.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub(crate) fn damage(&self) -> Result<Vec<Damage>, StoreError> {
        self.store.take_damage_met();
        self.store.damage()
    }

    /// Mends that, see [`Layered::mend`]; keys and values are those of [`coin`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn mend(&self, damage: &[Damage], truth: &Pairs) -> Result<(), StoreError> {
        self.store.mend(damage, truth)?;
        self.store.take_damage_met();
        Ok(())
    }

    /// The coins of the newest tip on disk, whatever is written later.
    pub(crate) fn snapshot(&self) -> CoinsSnapshot {
        CoinsSnapshot(self.store.snapshot())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf, TxOut};
    use dunlin_store::CrashDisk;

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

    fn open(disk: &CrashDisk) -> Coins {
        CoinSets::new(&ChainStore::on_crash_disk(disk))
            .open(0, 1 << 20)
            .unwrap()
    }

    fn change(coins: &Coins, vout: u32, value: Option<u64>, existed: bool) {
        let (mut draft, key) = (coins.draft(), coin::key(&at(vout)));
        match value.map(coin_of) {
            Some(coin) => draft.put(&key, !existed, |out| coin::encode(&coin, out)).unwrap(),
            None => assert_eq!(draft.take(&key, |_| ()).unwrap().is_some(), existed),
        }
        draft.publish(|| ()).unwrap();
    }

    fn flush(coins: &Coins) -> usize {
        coins.freeze(&BlockHash::all_zeros(), Box::new(|| Ok(()))).unwrap();
        coins.wait().unwrap();
        let mut count = 0;
        let mut visit = |_, _| {
            count += 1;
            Step::Continue
        };
        coins.snapshot().scan(&[], &mut visit).unwrap();
        count
    }

    #[test]
    fn coins_come_and_go_across_flushes() {
        let disk = CrashDisk::new(1, None);
        let coins = open(&disk);
        change(&coins, 0, Some(10), false);
        change(&coins, 1, Some(11), false);
        change(&coins, 0, None, true);
        assert_eq!(coins.get(&at(0)).unwrap(), None);
        assert_eq!(flush(&coins), 1);
        assert_eq!(coins.get(&at(1)).unwrap(), Some(coin_of(11)));
        change(&coins, 1, None, true);
        assert_eq!(flush(&coins), 0);
        assert_eq!(coins.get(&at(1)).unwrap(), None);
        // Spent, restored as a reorganisation does, and spent again.
        change(&coins, 2, Some(12), false);
        assert_eq!(flush(&coins), 1);
        change(&coins, 2, None, true);
        change(&coins, 2, Some(12), false);
        assert_eq!(coins.get(&at(2)).unwrap(), Some(coin_of(12)));
        change(&coins, 2, None, true);
        assert_eq!(flush(&coins), 0);
        assert_eq!(open(&disk).get(&at(2)).unwrap(), None);
    }

    #[test]
    fn a_damaged_coin_is_named() {
        let disk = CrashDisk::new(1, None);
        let coins = open(&disk);
        change(&coins, 3, Some(10), false);
        flush(&coins);
        drop(coins);
        disk.flip_bit("coins0-000000.run", 50).unwrap();
        let text = open(&disk).get(&at(3)).unwrap_err().to_string();
        assert!(
            text.contains(&at(3).to_string()) && text.contains("coins0-000000.run"),
            "{text}"
        );
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
