//! Loading a snapshot beside the coins that are there.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::BlockHash;
use dunlin_store::{Batch, Changes, StoreError};

use super::file::{CoinReader, SnapshotHeader};
use super::{AssumeUtxo, SnapshotError, Unproven};
use crate::coin_hash::CoinsHasher;
use crate::coins::Coins;
use crate::view::Shared;
use crate::{Chain, View, coin, index};

/// Coins are handed over in pieces of this many.
const PIECE_COINS: usize = 20_000;

/// Memory for coins while they are loaded.
const MEMORY: usize = 64 << 20;

/// How often progress is told, in coins.
const TELL_COINS: u64 = 1 << 20;

/// A snapshot whose coins are all on disk and have the pinned hash; [`Chain::activate_snapshot`] makes them
/// those of the chain. Dropped before that, they are deleted.
pub struct LoadedSnapshot {
    shared: Arc<Shared>,
    loaded: Arc<Coins>,
    pinned: AssumeUtxo,
    coins: u64,
    active: AtomicBool,
}

impl LoadedSnapshot {
    /// How many coins there are.
    pub fn coins(&self) -> u64 {
        self.coins
    }

    /// The base's height.
    pub fn height(&self) -> u32 {
        self.pinned.height
    }

    /// The base's hash.
    pub fn base(&self) -> BlockHash {
        self.pinned.block
    }
}

impl std::fmt::Debug for LoadedSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedSnapshot")
            .field("pinned", &self.pinned)
            .field("coins", &self.coins)
            .finish_non_exhaustive()
    }
}

impl Drop for LoadedSnapshot {
    fn drop(&mut self) {
        if !self.active.load(Ordering::Acquire)
            && let Err(error) = self.shared.sets.remove(&self.loaded)
        {
            tracing::warn!(%error, "the coins of a snapshot that is not used could not be deleted; the next start does it");
        }
        if !self.active.load(Ordering::Acquire) {
            self.shared.set_loading(None);
        }
    }
}

impl View {
    /// Reads a snapshot and writes its coins beside the coins of the chain; `tell` hears now and then how many coins of how
    /// many are read. Memory is bounded whatever the file says; any thread may do it while the chain goes on.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is left of the snapshot then.
    pub fn load_snapshot(
        &self,
        mut input: impl Read,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<LoadedSnapshot, SnapshotError> {
        let header = SnapshotHeader::read(self.params(), &mut input).map_err(SnapshotError::Header)?;
        let pinned = self.usable(&header.base)?;
        if !self.shared.begin_loading(header.coins) {
            return Err(SnapshotError::Refused("another snapshot is being loaded".to_owned()));
        }
        let beside = self.shared.coins().other();
        let opened = self
            .shared
            .sets
            .erase(beside)
            .and_then(|()| self.shared.sets.open(beside, MEMORY));
        let coins = opened.inspect_err(|_| self.shared.set_loading(None))?;
        let mut loaded = LoadedSnapshot {
            shared: Arc::clone(&self.shared),
            loaded: Arc::new(coins),
            pinned,
            coins: 0,
            active: AtomicBool::new(false),
        };
        tracing::info!(base = %pinned.block, height = pinned.height, coins = header.coins, "loading a snapshot");
        let hash = loaded.fill(&header, input, tell)?;
        if hash != pinned.coins_hash {
            return Err(SnapshotError::Refused(format!(
                "Bad snapshot content hash: expected {}, got {hash}",
                pinned.coins_hash
            )));
        }
        Ok(loaded)
    }

    /// The pinned snapshot of a base, when it can be used now.
    fn usable(&self, base: &BlockHash) -> Result<AssumeUtxo, SnapshotError> {
        let refuse = |text: String| Err(SnapshotError::Refused(text));
        if self.shared.unproven().is_some() {
            return refuse("Can't activate a snapshot-based chainstate more than once".to_owned());
        }
        if self.shared.swift().is_some() {
            return refuse("a SwiftSync is under way, and there is room for one of the two only".to_owned());
        }
        let known = &self.params().assume_utxo;
        let Some(pinned) = known.iter().find(|known| known.block == *base) else {
            let heights: Vec<String> = known.iter().map(|known| known.height.to_string()).collect();
            return refuse(format!(
                "assumeutxo block hash in snapshot metadata not recognized (hash: {base}). The following snapshot \
                 heights are available: {}",
                heights.join(", ")
            ));
        };
        let tree = self.shared.tree();
        let Some(id) = tree.find(base).filter(|id| tree.node(*id).height == pinned.height) else {
            return refuse(format!(
                "The base block header ({base}) must appear in the headers chain. Make sure all headers are syncing, \
                 and call loadtxoutset again"
            ));
        };
        if tree.node(id).invalid {
            return refuse(format!("The base block header ({base}) is part of an invalid chain"));
        }
        if !tree.is_ancestor(id, tree.best_header()) {
            return refuse(
                "A forked headers-chain with more work than the chain with the snapshot base block header exists. \
                 Please proceed to sync without AssumeUtxo."
                    .to_owned(),
            );
        }
        if tree.node(id).work <= tree.node(tree.tip()).work {
            return refuse("Work does not exceed active chainstate".to_owned());
        }
        Ok(*pinned)
    }

    /// How many coins of how many a snapshot that is being loaded has read.
    pub fn snapshot_loading(&self) -> Option<(u64, u64)> {
        self.shared.loading()
    }
}

impl LoadedSnapshot {
    /// Writes every coin of the file; returns their hash.
    fn fill(
        &mut self,
        header: &SnapshotHeader,
        input: impl Read,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<bitcoin::hashes::sha256d::Hash, SnapshotError> {
        let refuse = |done: u64, what: &dyn std::fmt::Display| {
            SnapshotError::Refused(format!("Bad snapshot data after deserializing {done} coins - {what}"))
        };
        let mut reader = CoinReader::new(input, header.coins);
        let mut hasher = CoinsHasher::new();
        let (mut group, mut piece) = (Vec::new(), Changes::default());
        while reader.next(&mut group).map_err(|error| refuse(hasher.count, &error))? {
            for (outpoint, found) in &group {
                if found.height > self.pinned.height || !coin::is_spendable(&found.output.script_pubkey) {
                    return Err(refuse(
                        hasher.count,
                        &format_args!("{outpoint} cannot be unspent at the base"),
                    ));
                }
                hasher.add(outpoint, found);
                piece.put(&coin::key(outpoint), true, |out| coin::encode(found, out));
                if hasher.count.is_multiple_of(TELL_COINS) {
                    self.shared.set_loading(Some((hasher.count, header.coins)));
                    tell(hasher.count, header.coins);
                }
            }
            if piece.len() >= PIECE_COINS {
                self.loaded.publish_new(&std::mem::take(&mut piece))?;
                if self.loaded.is_full() {
                    self.set_aside()?;
                }
            }
        }
        self.loaded.publish_new(&piece)?;
        self.set_aside()?;
        self.loaded.wait()?;
        self.coins = hasher.count;
        Ok(hasher.finish())
    }

    /// Has the coins so far written. They refer to nothing, and count only once a record in the table says so.
    fn set_aside(&self) -> Result<(), StoreError> {
        self.loaded.freeze(&self.pinned.block, Box::new(|| Ok(())))
    }
}

impl Chain {
    /// Makes a loaded snapshot's coins those of the chain and its base the tip, in one durable step; the coins of
    /// before go on being validated in the background.
    ///
    /// # Errors
    /// [`SnapshotError`] when the chain has changed so that the snapshot cannot be used any more, or the disk fails;
    /// the chain is as before.
    pub fn activate_snapshot(&mut self, loaded: &LoadedSnapshot) -> Result<(), SnapshotError> {
        let pinned = self.view().usable(&loaded.pinned.block)?;
        self.flush()?;
        let (base, old_tip, record) = {
            let tree = self.shared.tree();
            let base = tree.find(&pinned.block).unwrap_or(tree.tip());
            let unproven = Unproven {
                base,
                coins_hash: pinned.coins_hash,
                reached: tree.tip(),
                audited: 0,
            };
            let record = unproven.encode(&pinned.block);
            (base, unproven, record)
        };
        let mut batch = Batch::default();
        batch.put(index::META, index::SNAPSHOT_KEY, record);
        batch.put(index::META, index::COINS_KEY, [loaded.loaded.number()]);
        self.shared.table.write(batch, true)?;
        loaded.active.store(true, Ordering::Release);
        self.shared.set_loading(None);
        let coins = Arc::clone(&loaded.loaded);
        let old = self.shared.replace_coins(coins, base, Some(old_tip));
        self.background = Some(super::Background::new(old));
        self.share_memory();
        self.link_again();
        tracing::info!(
            base = %pinned.block,
            height = pinned.height,
            "the chain goes on from the snapshot; the blocks below it are validated in the background"
        );
        Ok(())
    }
}
