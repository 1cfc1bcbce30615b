//! The engine: takes headers and blocks, keeps the chain with the most work connected, survives being killed.
//!
//! What is on disk at any instant:
//! * Blocks and undo records are appended to files. The index (a record for each header) says where, with a checksum.
//! * Index records follow at the end of each call, not synced: after a power loss some are missing or point at bytes
//!   that never arrived. The checksum tells, and the block counts as not stored.
//! * Coins are set aside together with the tip that they are those of, and written while the chain goes on. The tip is
//!   on disk once they all are, and only after every block, undo and index record that they refer to was synced.
//!
//! So the coins on disk are always exactly those of some block whose whole history is on disk, and opening connects
//! again whatever was stored beyond it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{BlockHash, Work};
use dunlin_store::Files;

use crate::checks::ScriptPool;
use crate::config::ChainConfig;
use crate::files::Writer;
use crate::flush::Flushes;
use crate::recent::Recent;
use crate::snapshot::Background;
use crate::swiftsync::Swift;
use crate::tree::NodeId;
use crate::view::{Shared, View};
use crate::{ChainChange, ChainStore, Params};

/// One call connects at most about this many bytes of blocks, because its changes hold them all in memory.
pub(crate) const MAX_CHANGE_BYTES: usize = 64 << 20;

/// A chain whose blocks have all arrived; the greatest is the one to follow: most work, then first seen.
pub(crate) type Candidate = (Work, Reverse<u64>, NodeId);

/// The chain's one writer. Reading goes through [`Chain::view`], from any thread.
pub struct Chain {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: ChainConfig,
    pub(crate) assume_valid: Option<BlockHash>,
    pub(crate) writer: Writer,
    pub(crate) recent: Recent,
    /// Threads that check scripts.
    pub(crate) scripts: ScriptPool,
    /// Blocks whose scripts are good, but which stood before one that is not.
    pub(crate) checked: BTreeSet<NodeId>,
    /// The block that was refused and is looked at once more to name its fault.
    pub(crate) doubted: Option<NodeId>,
    /// Nodes whose record on disk is out of date.
    pub(crate) dirty: BTreeSet<NodeId>,
    /// Linked, not known to be invalid, with at least the tip's work.
    pub(crate) candidates: BTreeSet<Candidate>,
    /// Stored blocks whose parent is not linked, by parent.
    pub(crate) waiting: BTreeMap<NodeId, Vec<NodeId>>,
    pub(crate) next_sequence: u64,
    /// Changes of a call that failed after it had made them; the next call that succeeds delivers them.
    pub(crate) undelivered: Vec<ChainChange>,
    /// The second set of coins, while a snapshot is being validated.
    pub(crate) background: Option<Background>,
    /// A SwiftSync under way: until it ends, the tip stays at the genesis block.
    pub(crate) swift: Option<Swift>,
    /// The coins are those of a SwiftSync, and the table does not say so yet.
    pub(crate) swift_unsettled: bool,
    pub(crate) flushes: Flushes,
    pub(crate) store: ChainStore,
}

impl Chain {
    pub(crate) fn files(&self) -> Arc<dyn Files> {
        Arc::clone(&self.store.files)
    }

    /// Shares the memory for coins among the sets that there are.
    pub(crate) fn share_memory(&self) {
        let coins = self.shared.coins();
        match &self.background {
            None => coins.set_memory(self.config.cache_bytes),
            Some(background) => {
                coins.set_memory(self.config.cache_bytes / 2);
                background.coins.set_memory(self.config.cache_bytes / 2);
            }
        }
    }

    /// A handle for queries.
    pub fn view(&self) -> View {
        View {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The network's parameters.
    pub fn params(&self) -> &Params {
        &self.shared.params
    }
}
