//! JSON-RPC over HTTP in Bitcoin Core's terms (version 31), so that tools made for Core work unchanged, and the few
//! methods of our own that the command line uses.
//!
//! `table` defines each method once; dispatch, argument checks and `help` are made from it.

mod access;
mod activity;
mod address;
pub mod auth;
mod block_stats;
mod block_template;
pub(crate) mod chain;
mod coins;
mod coins_at_tip;
mod control;
mod create_tx;
mod deployments;
mod derive;
mod descriptors;
pub mod error;
mod fees;
mod help;
pub(crate) mod index;
pub(crate) mod json;
mod known_nodes;
mod logging;
mod mempool;
mod mempool_file;
mod message;
mod method;
mod mining;
mod mining_info;
mod net;
mod operate;
mod own;
mod packages;
mod params;
mod protocol;
mod psbt;
mod raw_tx;
mod scan;
pub(crate) mod script;
mod server;
mod sign;
mod sign_tx;
mod snapshot;
mod submit;
mod table;
mod testing;
pub(crate) mod torrents;
pub(crate) mod tx;
mod tx_proof;
mod wait;
mod warm_up;
mod wrap;
mod zmq;

use std::sync::{Arc, PoisonError, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_chain::View;
use dunlin_mempool::Pool;

pub use access::Access;
pub use auth::{Auth, Cookie};
pub(crate) use chain::progress;
pub use error::RpcError;
pub use logging::Logging;
pub(crate) use net::sanitize;
pub use operate::report_json;
pub use params::{Written, written};
pub use protocol::{Params, Request};
pub use server::{Options, Shared, call, router, serve};
pub use snapshot::hints_json;
pub use testing::set_mock_time;
pub use warm_up::warm_up;

use crate::backend::{BitcoinBackend, TorrentBackend};

/// The time since the Unix epoch, as every clock of this process shows it.
pub(crate) fn since_epoch() -> Duration {
    let read = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = u64::try_from(read.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(dunlin_peer::time_offset::apply(micros))
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_now() -> u64 {
    since_epoch().as_secs()
}

impl method::Call {
    /// The Bitcoin part.
    pub(crate) fn bitcoin(&self) -> Result<Arc<dyn BitcoinBackend>, RpcError> {
        let off = || RpcError::new(error::P2P_DISABLED, "The Bitcoin part of this node is switched off");
        self.shared.node.bitcoin.clone().ok_or_else(off)
    }

    /// The chain as it is now.
    pub(crate) fn view(&self) -> Result<View, RpcError> {
        Ok(self.bitcoin()?.view())
    }

    /// The BitTorrent part.
    pub(crate) fn torrent(&self) -> Result<Arc<dyn TorrentBackend>, RpcError> {
        let off = || RpcError::new(error::P2P_DISABLED, "The BitTorrent part of this node is switched off");
        self.shared.node.torrent.clone().ok_or_else(off)
    }
}

/// Runs `read` on the pool. What a panic left of it is still good to read: the pool changes in whole steps.
pub(crate) fn with_pool<T>(bitcoin: &dyn BitcoinBackend, read: impl FnOnce(&Pool) -> T) -> T {
    let pool = bitcoin.pool();
    let guard: RwLockReadGuard<'_, Pool> = pool.read().unwrap_or_else(PoisonError::into_inner);
    read(&guard)
}
