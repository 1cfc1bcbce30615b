//! How a chain is run.

use bitcoin::BlockHash;

use crate::prune::Prune;
use crate::snapshot::AssumeUtxo;
use crate::swiftsync::SwiftSync;
use crate::{Reindex, files};

/// Which blocks' scripts are taken as checked by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssumeValid {
    /// The network's pinned block and its ancestors.
    #[default]
    Pinned,
    /// None: every script is checked.
    Never,
    /// This block and its ancestors.
    Block(BlockHash),
}

/// How a chain is run.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Memory for coins and for finding them on disk, in bytes; what is not on disk yet takes up to half of it and is
    /// then written.
    pub cache_bytes: usize,
    /// Threads that check scripts, the writing one included.
    pub script_threads: usize,
    /// Which scripts need no check.
    pub assume_valid: AssumeValid,
    /// Whether old blocks are deleted.
    pub prune: Prune,
    /// A block file takes no further block once it would pass this many bytes.
    pub block_file_bytes: u64,
    /// What is made anew when the chain is opened.
    pub reindex: Option<Reindex>,
    /// Opening connects what was stored beyond the last flush. Without it, [`Chain::advance`](crate::Chain::advance) does.
    pub catch_up: bool,
    /// Coins are written at least this often while many blocks come, in seconds of the clock that calls bring along:
    /// so much work is done again after a sudden death.
    pub flush_interval: u64,
    /// Snapshots to believe beside those that the network's parameters name.
    pub assume_utxo: Vec<AssumeUtxo>,
    /// With what an empty chain is synced at first.
    pub swiftsync: Option<SwiftSync>,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 450 << 20,
            script_threads: std::thread::available_parallelism().map_or(1, usize::from).min(16),
            assume_valid: AssumeValid::Pinned,
            prune: Prune::Off,
            block_file_bytes: files::MAX_FILE_BYTES,
            reindex: None,
            catch_up: true,
            flush_interval: 5 * 60,
            assume_utxo: Vec::new(),
            swiftsync: None,
        }
    }
}
