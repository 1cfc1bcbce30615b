//! `logging`: which parts of the program log more, by the names that Core has for its own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::error::{INVALID_PARAMETER, RpcError};
use super::method::{Answer, Call};
use super::params::text;

/// Core's categories with the modules that do the same here; those without have nothing to say.
const CATEGORIES: &[(&str, &[&str])] = &[
    ("addrman", &["dunlin_peer"]),
    ("bench", &[]),
    ("blockstorage", &["dunlin_chain", "dunlin_store"]),
    ("cmpctblock", &["dunlin_relay::compact"]),
    ("coindb", &["dunlin_chain", "dunlin_store"]),
    ("estimatefee", &["dunlin_mempool::estimate"]),
    ("http", &["dunlin_api::http"]),
    ("i2p", &[]),
    ("ipc", &[]),
    ("kernel", &["dunlin_chain"]),
    ("leveldb", &["dunlin_store"]),
    ("mempool", &["dunlin_mempool", "dunlin::daemon::bitcoin"]),
    ("mempoolrej", &["dunlin_mempool", "dunlin::daemon::bitcoin"]),
    ("net", &["dunlin_net", "dunlin_relay", "dunlin::daemon::bitcoin"]),
    ("privatebroadcast", &[]),
    ("proxy", &["dunlin_net"]),
    ("prune", &["dunlin_chain"]),
    ("qt", &[]),
    ("rand", &[]),
    ("reindex", &["dunlin_chain"]),
    ("rpc", &["dunlin_api::rpc"]),
    ("scan", &["dunlin_api::rpc"]),
    ("selectcoins", &[]),
    ("tor", &["dunlin_net"]),
    ("txpackages", &["dunlin_mempool", "dunlin_relay::tx"]),
    ("txreconciliation", &["dunlin_relay"]),
    ("validation", &["dunlin_chain"]),
    ("walletdb", &[]),
    ("zmq", &["dunlin_api::zmq"]),
];

/// Makes modules log more.
type Apply = Box<dyn Fn(&BTreeSet<&'static str>) + Send + Sync>;

/// Which categories are on.
pub struct Logging {
    on: Mutex<BTreeSet<&'static str>>,
    apply: Apply,
}

impl Default for Logging {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl Logging {
    /// Nothing is on; `apply` is told the modules of what is, whenever that changes.
    pub fn new(apply: impl Fn(&BTreeSet<&'static str>) + Send + Sync + 'static) -> Self {
        Self {
            on: Mutex::default(),
            apply: Box::new(apply),
        }
    }

    /// Switches a category, or all of them; `false` when there is none of this name.
    pub fn switch(&self, category: &str, on: bool) -> bool {
        let all = matches!(category, "" | "1" | "all");
        let named: Vec<&'static str> = CATEGORIES
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| all || *name == category)
            .collect();
        let mut active = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &named {
            if on {
                active.insert(name)
            } else {
                active.remove(name)
            };
        }
        let modules = CATEGORIES.iter().filter(|(name, _)| active.contains(name));
        (self.apply)(&modules.flat_map(|(_, modules)| modules.iter().copied()).collect());
        !named.is_empty()
    }

    /// The categories that are on.
    pub fn active(&self) -> Vec<&'static str> {
        self.on
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }

    fn is_on(&self, category: &str) -> bool {
        self.on
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(category)
    }
}

pub(crate) fn logging(call: &Call) -> Answer {
    let logging = &call.shared.node.logging;
    for (position, on) in [(0, true), (1, false)] {
        if !call.given(position) {
            continue;
        }
        for category in call.list(position)? {
            let category = text(category)?;
            if !logging.switch(category, on) {
                let text = format!("unknown logging category {category}");
                return Err(RpcError::new(INVALID_PARAMETER, text));
            }
        }
    }
    let shown: Map<String, Value> = CATEGORIES
        .iter()
        .map(|(name, _)| ((*name).to_owned(), logging.is_on(name).into()))
        .collect();
    Ok(Value::Object(shown))
}
