//! What comes of giving the chain headers and blocks.

use std::sync::Arc;

use bitcoin::BlockHash;
use dunlin_store::StoreError;

use crate::{Network, ParsedBlock, Reject};

/// One step of the active chain, in the order in which it was taken.
#[derive(Clone, Debug)]
pub enum ChainChange {
    /// The block at this height was taken off the tip.
    Disconnected(Arc<ParsedBlock>, u32),
    /// The block was put on the tip, at this height.
    Connected(Arc<ParsedBlock>, u32),
}

/// What became of a batch of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersAccepted {
    /// How many were not known before.
    pub new: usize,
    /// The last header of the batch; the genesis block when the batch was empty.
    pub last: BlockHash,
}

/// Why a batch of headers was not taken to its end. Headers before the broken one stay accepted.
#[derive(Debug, thiserror::Error)]
pub enum HeaderReject {
    /// The first header's parent is not known: ask the sender for what lies between.
    #[error("the parent {0} is not known")]
    Orphan(BlockHash),
    /// A header breaks a rule: the sender's fault, except where the reject's kind says otherwise.
    #[error("header {index} ({hash}): {reject}")]
    Invalid {
        /// Its place in the batch.
        index: usize,
        /// Its hash.
        hash: BlockHash,
        /// The rule.
        reject: Reject,
    },
    /// The headers do not follow each other.
    #[error("header {index} does not follow the one before it")]
    NotContinuous {
        /// The place of the first that does not.
        index: usize,
    },
    /// The branch ends with too little work to be worth keeping; the sender may merely be behind.
    #[error("the branch has too little work")]
    LowWork,
    /// Our disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a block.
#[derive(Debug, Default)]
pub struct BlockOutcome {
    /// The block was not stored before.
    pub new: bool,
    /// What happened to the active chain, in order. It is empty for a block that waits for its parents or lies on a
    /// branch with less work.
    pub changes: Vec<ChainChange>,
    /// Other blocks, stored earlier, that turned out invalid when their turn came.
    pub rejected: Vec<(BlockHash, Reject)>,
    /// The snapshot on which the chain rested was found wrong, in words for the operator: the chain on disk is again
    /// what the node has validated itself, and the node must be stopped and started again.
    pub refuted: Option<String>,
    /// The validation of a snapshot can go on: call [`Chain::advance`](crate::Chain::advance) when nothing else is to
    /// be done.
    pub background: bool,
    /// Stored blocks are left to connect: call [`Chain::advance`](crate::Chain::advance). A call stops after so many
    /// bytes of blocks that its changes always fit in memory.
    pub more: bool,
}

/// Why a block was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It breaks a rule: the sender's fault, except where the reject's kind says otherwise.
    #[error(transparent)]
    Invalid(Reject),
    /// Its parent's header is not known.
    #[error("the parent {0} is not known")]
    MissingParent(BlockHash),
    /// Our disk's fault: the chain on disk is whole, but nothing more can be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a chain could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory belongs to another network.
    #[error("the data directory holds the {found} chain, not {wanted}")]
    WrongNetwork {
        /// Whose chain it is.
        found: String,
        /// What was asked for.
        wanted: Network,
    },
    /// The data directory was written by a version with another layout.
    #[error(
        "the data directory has layout {found}, this version knows {known}: choose another, or delete this one and \
         fetch the chain again"
    )]
    WrongLayout {
        /// Its layout.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Blocks or coins are there without the headers that lead to them.
    #[error(
        "the folder `headers` is missing or incomplete, while blocks and coins are there: put it back, or run with \
         --reindex to make it anew from the block files"
    )]
    NoIndex,
    /// Blocks were pruned, and the chain is to be run without pruning.
    #[error("blocks were pruned: run with --prune, or fetch the whole chain again with --reindex")]
    Pruned,
    /// The disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}
