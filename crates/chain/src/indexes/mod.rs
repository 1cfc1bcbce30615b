//! Indexes beside the chain: built while it syncs, or later without stopping it, and each can be left out.
//!
//! An [`Indexer`] feeds blocks and the coins that they spend to the indexes in chain order. It reads them through a
//! [`View`](crate::View), on a thread of its own, so connecting blocks never waits for it. Each index has a table of
//! its own with its own watermark; those that stand at the same block share the reading and parsing. [`Indexes`] is
//! the handle to read with.
//!
//! What an index has taken stays on a pruned node; what it has not must still be stored, so it says with
//! [`Indexes::lowest_needed`] from where on blocks must not be pruned. `script` and `filter` answer without any stored
//! block; `tx` and `spender` say in which block to look; `stats` needs none.

mod changes;
mod filter;
mod follow;
mod frame;
mod muhash;
mod script;
mod spender;
mod stats;
mod tx;

use std::path::Path;
use std::sync::Arc;

use dunlin_store::{DiskTable, MemTable, StoreError, Table};

pub use filter::{FilterHeaders, FilterIndex};
pub use follow::{IndexProgress, Indexer, Indexes};
pub use muhash::MuHash;
pub use script::{ScriptCoin, ScriptHash, ScriptIndex, ScriptTx};
pub use spender::{SpenderIndex, SpenderPlace};
pub use stats::{CoinStats, StatsIndex};
pub use tx::{TxIndex, TxPlace};

use crate::Params;
use frame::{Content, Frame};

/// Memory of a table's engine for what it read.
const TABLE_CACHE_BYTES: u64 = 8 << 20;

/// Which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexKind {
    /// Transaction id to block and place: [`TxIndex`].
    Tx,
    /// Script hash to history, unspent outputs and balance: [`ScriptIndex`].
    Script,
    /// Outpoint to the transaction that spends it: [`SpenderIndex`].
    Spender,
    /// Compact block filters: [`FilterIndex`].
    Filter,
    /// Statistics of the unspent outputs at every height: [`StatsIndex`].
    Stats,
}

/// No index has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no index `{0}`; there are tx, script, spender, filter and stats")]
pub struct UnknownIndex(String);

impl IndexKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tx, Self::Script, Self::Spender, Self::Filter, Self::Stats];

    /// Its name in options and as a folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Script => "script",
            Self::Spender => "spender",
            Self::Filter => "filter",
            Self::Stats => "stats",
        }
    }

    /// The names of its table's key spaces.
    fn spaces(self) -> &'static [&'static str] {
        match self {
            Self::Tx => &["meta", "back", "txids", "blocks"],
            Self::Script => &["meta", "back", "history", "unspent", "ids"],
            Self::Spender => &["meta", "back", "spenders"],
            Self::Filter => &["meta", "back", "headers", "filters"],
            Self::Stats => &["meta", "back", "stats"],
        }
    }

    /// Opens its table in `dir`, a folder that all indexes of a chain share. What is found damaged is deleted with a
    /// warning, and the index begins anew.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be used.
    pub fn open_dir(self, dir: &Path, params: &Params) -> Result<Arc<dyn Table>, StoreError> {
        let path = dir.join(self.name());
        let open = || -> Result<Arc<dyn Table>, StoreError> {
            let table = Arc::new(DiskTable::open(&path, self.spaces(), TABLE_CACHE_BYTES)?);
            Frame::open(table.clone(), self.space_count(), self.content(params))?;
            Ok(table)
        };
        match open() {
            Err(error) if error.is_damage() => {
                tracing::warn!("the index `{self}` is damaged and will be built again: {error}");
                std::fs::remove_dir_all(&path).map_err(|error| StoreError::from_io(&path, error))?;
                open()
            }
            opened => opened,
        }
    }

    /// A table for it that is gone when it is dropped.
    pub fn in_memory(self) -> Arc<dyn Table> {
        Arc::new(MemTable::default())
    }

    fn content(self, params: &Params) -> Box<dyn Content> {
        match self {
            Self::Tx => Box::new(tx::Writer::default()),
            Self::Script => Box::new(script::Writer),
            Self::Spender => Box::new(spender::Writer::default()),
            Self::Filter => Box::new(filter::Writer::default()),
            Self::Stats => Box::new(stats::Writer::new(params)),
        }
    }

    fn space_count(self) -> u8 {
        u8::try_from(self.spaces().len()).unwrap_or(u8::MAX)
    }
}

impl std::str::FromStr for IndexKind {
    type Err = UnknownIndex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| UnknownIndex(text.to_owned()))
    }
}

impl std::fmt::Display for IndexKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
