//! The consensus rules as pure functions: no disk, no clock, no cache. Each takes what it needs and answers with a
//! [`Reject`](crate::Reject) that carries Bitcoin Core's reason string; the order of the checks is Core's too, so a
//! block that is broken in one way is named the same by both.
//!
//! A block passes, in this order: [`check_header`], [`contextual_check_header`], [`check_block`],
//! [`contextual_check_block`], and then for each transaction in turn, with the coins it spends at hand,
//! [`check_tx_inputs`], [`check_sequence_locks`], [`transaction_sigop_cost`] against [`MAX_BLOCK_SIGOPS_COST`] and
//! the scripts (`crate::script`); before them [`bip30::check_needed`], after them [`check_coinbase_amount`].

pub mod bip30;
mod block;
mod header;
mod merkle;
mod ops;
mod signet;
mod sigops;
mod subsidy;
mod target;
mod tx;

pub(crate) use block::check_body;
pub use block::{
    MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_COMMITMENT_HEADER, bip34_prefix, check_block,
    check_coinbase_amount, contextual_check_block, is_mutated, witness_commitment_index, witness_root,
};
pub use header::{
    HeaderChain, MAX_FUTURE_BLOCK_TIME, MAX_TIMEWARP, MEDIAN_TIME_SPAN, check_header, contextual_check_header,
    median_time_past, median_time_past_at, next_work_required, permitted_difficulty_transition,
};
pub use merkle::{Merkle, merkle_root};
pub use signet::check_signet_solution;
pub(crate) use signet::{SIGNET_HEADER, append_push, solution_transactions};
pub use sigops::{legacy_sigops, p2sh_sigops, script_sigops, transaction_sigop_cost, witness_sigops};
pub use subsidy::subsidy;
pub use target::{derive_target, retarget, work_of};
pub use tx::{
    COINBASE_MATURITY, LOCKTIME_THRESHOLD, MAX_MONEY, SequenceLocks, check_sequence_locks, check_tx, check_tx_inputs,
    is_final, sequence_locks,
};
