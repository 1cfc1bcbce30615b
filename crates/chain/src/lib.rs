//! Consensus: headers, blocks, coins, undo, reorganisations, block files. No network.
//!
//! [`Chain`] is the one writer: it takes headers and blocks in any order, keeps the valid chain with the most work
//! connected, and survives being killed at any instant. [`View`] is how everybody else reads, from any thread, without
//! ever waiting for a block being connected. The consensus rules themselves are pure functions in [`rules`], scripts
//! are verified by Core's own interpreter through [`script`], and [`build`] makes new blocks.

mod accept;
mod activate;
mod block;
mod block_stream;
pub mod build;
mod checks;
mod coin;
mod coin_hash;
mod coins;
mod config;
mod connect;
mod engine;
mod entry;
mod files;
mod flush;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
mod import;
mod index;
pub mod indexes;
mod invalidate;
mod open;
mod outcome;
mod overlay;
mod params;
mod proposal;
mod prune;
mod recent;
mod reindex;
mod reject;
mod repair;
pub mod rules;
pub mod script;
mod script_cache;
mod search;
pub mod snapshot;
mod store;
mod summary;
pub mod swiftsync;
mod test_rule;
mod tree;
mod tx_parts;
mod undo;
mod verify;
mod view;
mod wire;

pub use block::{BlockDecodeError, MAX_BLOCK_BYTES, ParsedBlock};
pub use coin::Coin;
pub use config::{AssumeValid, ChainConfig};
pub use dunlin_store::StoreError;
pub use engine::Chain;
pub use entry::{ChainTip, Entry, Status, TipStatus};
pub use import::{Import, ImportError, ImportProgress};
pub use invalidate::OperateError;
pub use outcome::{BlockError, BlockOutcome, ChainChange, HeaderReject, HeadersAccepted, OpenError};
pub use params::{Network, Params, UnknownNetwork};
pub use prune::{KEEP as PRUNE_KEEP, Prune};
pub use reindex::Reindex;
pub use reject::{Reject, RejectKind, money};
pub use search::SearchProgress;
pub use store::ChainStore;
pub use summary::{CoinsHash, CoinsSummary};
pub use test_rule::{Deployment, TestRule, UnknownTestRule};
pub use tx_parts::{Input, Output, Stack, TxParts, TxRef};
pub use undo::BlockUndo;
pub use verify::{Fault, Verification, VerifyReport};
pub use view::View;
