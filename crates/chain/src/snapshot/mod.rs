//! Assume-UTXO: beginning with the coins of a late block instead of with the first block.
//!
//! A snapshot file (`file`) holds the unspent outputs at one block, its *base*, in Bitcoin Core's format. It is
//! loaded (`load`) beside the coins that are there, which stay untouched, and counts only when the hash over all its
//! coins is the one that this version pins for the base ([`Params::assume_utxo`](crate::Params::assume_utxo)). Then,
//! in one atomic step, its coins become those of the validated chain and its base the tip, and the coins that were
//! there before go on in the background (`background`): the blocks from where they are up to the base are fetched
//! and connected with every check. At the base both sets must have the same hash. If they do, the second set is
//! deleted and nothing of the snapshot is taken on trust any more; if not, the node says so, goes back to the coins
//! that it has validated itself and stops.
//!
//! On disk: there is room for two sets of coins, each of which says of which block its coins are. A record in the table
//! says which of them is the chain's, another, as long as the background validation lasts, what is being validated.
//! They change together, in one durable batch, once the coins that they speak of are durable. A set that no record
//! names is left from a load or an end that was interrupted, and is removed when the chain is opened.
//!
//! What holds until the validation is done: blocks below the base are missing or not validated, so the chain cannot
//! reorganise below the base, and such blocks are not served until they have come.

mod background;
pub(crate) mod compress;
mod dump;
pub(crate) mod file;
mod load;

use std::fs::File;
use std::path::{Path, PathBuf};

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256d};
use dunlin_store::StoreError;

use crate::tree::NodeId;
use crate::{Entry, View};

pub(crate) use background::Background;
pub use compress::{compress_amount, decompress_amount};
pub use dump::{Dumped, FrozenCoins};
pub use file::SnapshotHeader;
pub use load::LoadedSnapshot;

/// A snapshot that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssumeUtxo {
    /// The base's height.
    pub height: u32,
    /// The base's hash.
    pub block: BlockHash,
    /// The hash over all coins at the base: Core's `hash_serialized_3`.
    pub coins_hash: sha256d::Hash,
    /// How many transactions the chain has up to and with the base.
    pub chain_tx_count: u64,
}

/// Why a snapshot was not loaded or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file's header is not that of a snapshot for this network.
    #[error("Unable to parse metadata: {0}")]
    Header(String),
    /// The snapshot cannot be used now, or never; the text says why.
    #[error("{0}")]
    Refused(String),
    /// Reading or writing the file failed.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The file cannot be begun.
    #[error("Couldn't open file {} for writing.", .0.display())]
    Unwritable(PathBuf),
    /// Our own disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a file beside `path` and moves it there at the end, so that an interrupted one is not taken for a whole one.
///
/// # Errors
/// [`SnapshotError`] of writing; nothing is left of the file then.
pub fn write_whole<T>(path: &Path, write: impl FnOnce(&File) -> Result<T, SnapshotError>) -> Result<T, SnapshotError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".incomplete");
    let unfinished = PathBuf::from(unfinished);
    let file = File::create(&unfinished).map_err(|_| SnapshotError::Unwritable(unfinished.clone()))?;
    let written = write(&file).and_then(|written| {
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        Ok(written)
    });
    if written.is_err() {
        // It may be gone already.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Which snapshot the chain rests on, and how far its validation has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unproven {
    /// The snapshot's base.
    pub(crate) base: NodeId,
    /// The hash over its coins.
    pub(crate) coins_hash: sha256d::Hash,
    /// Up to here the background validation has come.
    pub(crate) reached: NodeId,
    /// Parts of [`AUDIT_PARTS`](background::AUDIT_PARTS) of the background's coins that are hashed.
    pub(crate) audited: u32,
}

impl Unproven {
    /// The record in the table: the hash of the base, the hash of the coins.
    pub(crate) fn encode(&self, base: &BlockHash) -> Vec<u8> {
        [base.to_byte_array(), self.coins_hash.to_byte_array()].concat()
    }

    /// Reads the record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(BlockHash, sha256d::Hash)> {
        let (base, coins) = bytes.split_first_chunk::<32>()?;
        let coins = coins.try_into().ok()?;
        Some((BlockHash::from_byte_array(*base), sha256d::Hash::from_byte_array(coins)))
    }
}

/// How far the validation of a snapshot has come; see [`View::snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// The snapshot's base.
    pub base: Entry,
    /// The last block that was validated in the background.
    pub reached: Entry,
    /// Percent of the coins at the base that are compared, once all blocks are validated.
    pub compared: u32,
}

impl View {
    /// The snapshot that the chain rests on and that is not validated yet.
    pub fn snapshot(&self) -> Option<SnapshotProgress> {
        let unproven = self.shared.unproven()?;
        let tree = self.shared.tree();
        Some(SnapshotProgress {
            base: tree.entry(unproven.base),
            reached: tree.entry(unproven.reached),
            compared: unproven.audited * 100 / background::AUDIT_PARTS,
        })
    }

    /// Blocks below the snapshot's base that the background validation still needs and that are not stored, in height
    /// order, without those that `skip` names; at most `max`.
    pub fn missing_history(&self, max: usize, skip: impl Fn(&BlockHash) -> bool) -> Vec<(u32, BlockHash)> {
        let Some(unproven) = self.shared.unproven() else {
            return Vec::new();
        };
        let (mut height, base) = {
            let tree = self.shared.tree();
            let from = tree.ancestor(unproven.reached, tree.node(unproven.base).height);
            let fork = tree.common(from, unproven.base);
            (
                tree.node(fork).height.saturating_add(1),
                tree.node(unproven.base).height,
            )
        };
        let mut found = Vec::new();
        while height <= base && found.len() < max {
            let end = base.min(height.saturating_add(HEIGHTS_AT_ONCE));
            let some: Vec<(u32, BlockHash)> = {
                let tree = self.shared.tree();
                (height..=end)
                    .map(|height| tree.node(tree.ancestor(unproven.base, height)))
                    .filter(|node| node.block.is_none() && !node.invalid)
                    .map(|node| (node.height, node.hash))
                    .collect()
            };
            // The lock is not held while `skip` runs: it may well ask this view something.
            found.extend(some.into_iter().filter(|(_, hash)| !skip(hash)));
            height = end.saturating_add(1);
        }
        found.truncate(max);
        found
    }
}

/// Heights that [`View::missing_history`] looks at under one lock.
const HEIGHTS_AT_ONCE: u32 = 512;
