//! Writing a snapshot: the coins at the tip, or at an earlier block of the validated chain.
//!
//! The coins are frozen at one instant and then written while the chain goes on. For an earlier block the frozen
//! coins are merged with what taking off the blocks above it would change; nothing is taken off in truth. Those
//! changes are held in memory for a range of transaction ids at a time, as wide as fits, and the blocks are read once
//! for each range.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use bitcoin::hashes::sha256d;
use bitcoin::{BlockHash, OutPoint};
use dunlin_store::{Step, StoreError};

use super::SnapshotError;
use super::file::{CoinWriter, HEADER_BYTES, SnapshotHeader};
use crate::coin::Key;
use crate::coin_hash::CoinsHasher;
use crate::coins::CoinsSnapshot;
use crate::{BlockUndo, Chain, Coin, Entry, ParsedBlock, View, coin};

/// Memory for changes while an earlier state is written.
const CHANGE_BYTES: usize = 256 << 20;

/// What one change takes besides its script.
const CHANGE_ENTRY_BYTES: usize = 128;

/// The ranges of transaction ids are made of this many parts, by the first byte.
const PARTS: u32 = 256;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// The block up to which the coins are.
    pub base: Entry,
    /// How many there are.
    pub coins: u64,
    /// The hash over them: Core's `hash_serialized_3`.
    pub coins_hash: sha256d::Hash,
    /// How many transactions the chain has up to and with the base.
    pub chain_tx_count: u64,
}

/// The coins at one instant, whatever the chain does later.
pub struct FrozenCoins {
    frozen: CoinsSnapshot,
    tip: Entry,
    view: View,
}

/// What taking blocks off does to coins; `None` takes one away.
type Changes = BTreeMap<Key, Option<Coin>>;

impl Chain {
    /// Freezes the coins of the tip.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn freeze_coins(&mut self) -> Result<FrozenCoins, StoreError> {
        self.set_coins_aside()?;
        self.view().frozen_coins()
    }
}

impl View {
    /// Waits until the coins that were set aside last ([`Chain::set_coins_aside`]) are on disk, and freezes those that
    /// are there.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn frozen_coins(&self) -> Result<FrozenCoins, StoreError> {
        let coins = self.shared.coins();
        coins.wait()?;
        let frozen = coins.snapshot();
        let tip = frozen.tip()?.unwrap_or(self.params().genesis_hash);
        let tip = self
            .entry(&tip)
            .ok_or_else(|| StoreError::corrupt("the record of the coins' tip"))?;
        Ok(FrozenCoins {
            frozen,
            tip,
            view: self.clone(),
        })
    }
}

impl std::fmt::Debug for FrozenCoins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrozenCoins")
            .field("tip", &self.tip)
            .finish_non_exhaustive()
    }
}

impl FrozenCoins {
    /// The block up to which the coins are.
    pub fn tip(&self) -> &Entry {
        &self.tip
    }

    /// Bytes of the files in which they lie.
    pub fn bytes_on_disk(&self) -> u64 {
        self.frozen.bytes()
    }

    /// Shows every coin whose key, the transaction's id in wire order and then the index, begins with `prefix`, in the
    /// order of the keys.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a coin is damaged, and what `visit` returns.
    pub fn each<E: From<StoreError>>(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(OutPoint, Coin) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut failed = None;
        self.frozen.scan(prefix, &mut |outpoint, found| {
            if !coin::key(&outpoint).starts_with(prefix) {
                return Step::Stop;
            }
            match visit(outpoint, found) {
                Ok(()) => Step::Continue,
                Err(error) => {
                    failed = Some(error);
                    Step::Stop
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Writes the coins at `target`, a block of the validated chain; `tell` hears now and then how many of 256 parts
    /// are written.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was written then is of no use.
    pub fn write_snapshot(
        &self,
        target: &BlockHash,
        output: impl Write + Seek,
        tell: &mut dyn FnMut(u32),
    ) -> Result<Dumped, SnapshotError> {
        let base = self
            .view
            .entry(target)
            .filter(|entry| {
                self.ancestor(entry.height)
                    .is_some_and(|found| found.hash == entry.hash)
            })
            .ok_or_else(|| SnapshotError::Refused(format!("block {target} is not below the tip")))?;
        let mut output = BufWriter::with_capacity(1 << 20, output);
        output.write_all(&[0; HEADER_BYTES])?;
        let mut writer = CoinWriter::new(output);
        let mut hasher = CoinsHasher::new();
        let mut done = 0;
        while done < PARTS {
            let (range, changes) = self.changes(&base, done..PARTS)?;
            done = range.end;
            let mut changes = changes.into_iter().peekable();
            for part in range {
                self.each::<SnapshotError>(&[part as u8], &mut |outpoint, found| {
                    let key = coin::key(&outpoint);
                    while let Some((at, change)) = changes.next_if(|(at, _)| *at < key) {
                        put(&mut writer, &mut hasher, &at, change)?;
                    }
                    match changes.next_if(|(at, _)| *at == key) {
                        Some((at, change)) => put(&mut writer, &mut hasher, &at, change),
                        None => put(&mut writer, &mut hasher, &key, Some(found)),
                    }
                })?;
                tell(part);
            }
            for (at, change) in changes {
                put(&mut writer, &mut hasher, &at, change)?;
            }
        }
        let mut output = writer.finish()?;
        let header = SnapshotHeader {
            base: base.hash,
            coins: hasher.count,
        };
        output.seek(SeekFrom::Start(0))?;
        output.write_all(&header.encode(self.view.params()))?;
        output.flush()?;
        Ok(Dumped {
            coins: hasher.count,
            coins_hash: hasher.finish(),
            chain_tx_count: self.view.chain_tx_count(&base.hash).unwrap_or(0),
            base,
        })
    }

    /// What taking off the blocks above `base` changes, for as many parts of `wanted` from its start as fit in memory.
    fn changes(&self, base: &Entry, wanted: Range<u32>) -> Result<(Range<u32>, Changes), SnapshotError> {
        let mut range = wanted;
        let (mut changes, mut bytes) = (Changes::new(), 0);
        let mut at = self.tip.clone();
        while at.hash != base.hash {
            let (block, undo) = self.read(&at.hash)?;
            let mut change = |outpoint: OutPoint, coin: Option<Coin>| {
                let key = coin::key(&outpoint);
                if range.contains(&u32::from(key[0])) {
                    bytes += CHANGE_ENTRY_BYTES + coin.as_ref().map_or(0, |coin| coin.output.script_pubkey.len());
                    changes.insert(key, coin);
                }
            };
            let spent = std::iter::once(Vec::new()).chain(undo.spent);
            let rows: Vec<_> = block.block().txdata.iter().zip(&block.txids).zip(spent).collect();
            for ((tx, txid), spent) in rows.into_iter().rev() {
                for (vout, output) in (0u32..).zip(&tx.output) {
                    if coin::is_spendable(&output.script_pubkey) {
                        change(OutPoint { txid: *txid, vout }, None);
                    }
                }
                for (input, coin) in tx.input.iter().zip(spent) {
                    change(input.previous_output, Some(coin));
                }
            }
            while bytes > CHANGE_BYTES && range.end - range.start > 1 {
                range.end = range.start + (range.end - range.start) / 2;
                changes.retain(|key, _| range.contains(&u32::from(key[0])));
                let size = |coin: &Coin| coin.output.script_pubkey.len();
                bytes = changes
                    .values()
                    .map(|coin| CHANGE_ENTRY_BYTES + coin.as_ref().map_or(0, size))
                    .sum();
            }
            let parent = at.header.prev_blockhash;
            at = self.view.entry(&parent).ok_or_else(|| missing(&parent))?;
        }
        Ok((range, changes))
    }

    /// A block and what it spent.
    pub(crate) fn read(&self, hash: &BlockHash) -> Result<(Arc<ParsedBlock>, BlockUndo), SnapshotError> {
        let block = self.read_block(hash)?;
        let undo = self.view.undo(hash)?.ok_or_else(|| missing(hash))?;
        Ok((block, undo))
    }

    pub(crate) fn read_block(&self, hash: &BlockHash) -> Result<Arc<ParsedBlock>, SnapshotError> {
        let raw = self.view.block_bytes(hash)?.ok_or_else(|| missing(hash))?;
        let parsed = ParsedBlock::parse(raw);
        Ok(parsed.map_err(|_| StoreError::corrupt(format!("the record of block {hash}")))?)
    }

    /// The block at a height not above the tip's.
    pub(crate) fn ancestor(&self, height: u32) -> Option<Entry> {
        let hash = self.view.ancestor(&self.tip.hash, height)?;
        self.view.entry(&hash)
    }
}

fn missing(hash: &BlockHash) -> SnapshotError {
    SnapshotError::Refused(format!(
        "Could not roll back to requested height since necessary block data is already pruned (block {hash})."
    ))
}

fn put(
    writer: &mut CoinWriter<impl Write>,
    hasher: &mut CoinsHasher,
    key: &Key,
    coin: Option<Coin>,
) -> Result<(), SnapshotError> {
    if let Some(coin) = coin {
        let outpoint = coin::outpoint(key).ok_or_else(|| io::Error::other("a key of a coin"))?;
        hasher.add(&outpoint, &coin);
        writer.put(outpoint, coin)?;
    }
    Ok(())
}
