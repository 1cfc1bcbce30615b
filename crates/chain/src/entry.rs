//! What a reader learns of one header.

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The header follows the rules; the block was never here.
    HeaderOnly,
    /// The block was stored; whether it connects is not known yet.
    Stored,
    /// The block was connected at least once: it and all its ancestors follow every rule.
    Valid,
    /// The block, or one of its ancestors, breaks a rule.
    Invalid,
}

/// One header of the tree as it was when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block's hash.
    pub hash: BlockHash,
    /// The header.
    pub header: Header,
    /// Blocks between it and the genesis block.
    pub height: u32,
    /// The work of it and all its ancestors.
    pub chain_work: Work,
    /// The median time of it and its ten predecessors, in seconds: a child's time must be later.
    pub median_time_past: u32,
    /// How many transactions it has, once it was here.
    pub tx_count: Option<u32>,
    /// Whether the block can be read from the disk.
    pub have_data: bool,
    /// Whether it was here and was deleted to save space.
    pub pruned: bool,
    /// How far it has come.
    pub status: Status,
}

/// What is known of the branch that a tip ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipStatus {
    /// It is the validated chain.
    Active,
    /// One of its blocks breaks a rule.
    Invalid,
    /// One of its blocks was never here.
    HeadersOnly,
    /// Its blocks were all here; they were never all connected.
    ValidHeaders,
    /// It was the validated chain once.
    ValidFork,
}

impl TipStatus {
    /// The name in Core's `getchaintips`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Invalid => "invalid",
            Self::HeadersOnly => "headers-only",
            Self::ValidHeaders => "valid-headers",
            Self::ValidFork => "valid-fork",
        }
    }
}

/// The end of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTip {
    /// Its last block.
    pub entry: Entry,
    /// How many of its blocks are not on the validated chain.
    pub branch_len: u32,
    /// What is known of them.
    pub status: TipStatus,
}
