//! Transactions of disconnected blocks, until the change of the chain is complete.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::{Transaction, Txid};

/// Most bytes of transactions that are kept to be given back.
const MAX_BYTES: u64 = 20_000_000;

/// In the order of their blocks, whatever was disconnected last at the front.
#[derive(Default)]
pub(crate) struct Returned {
    /// By a number that falls from one to the next.
    txs: BTreeMap<u64, (Txid, Arc<Transaction>)>,
    places: HashMap<Txid, u64>,
    bytes: u64,
}

impl Returned {
    /// Takes a transaction that stood before all others.
    pub(crate) fn push_front(&mut self, txid: Txid, tx: Arc<Transaction>) {
        self.remove(&txid);
        let first = self.txs.keys().next().map_or(u64::MAX, |place| place.saturating_sub(1));
        self.bytes += tx.total_size() as u64;
        self.places.insert(txid, first);
        self.txs.insert(first, (txid, tx));
    }

    /// Removes the last one while there are too many. Blocks leave from the tip downwards, so those have waited longest
    /// and build on the others.
    pub(crate) fn pop_excess(&mut self) -> Option<Arc<Transaction>> {
        if self.bytes <= MAX_BYTES {
            return None;
        }
        let (_, (txid, tx)) = self.txs.pop_last()?;
        self.places.remove(&txid);
        self.bytes -= tx.total_size() as u64;
        Some(tx)
    }

    /// Forgets one that is in the chain again.
    pub(crate) fn remove(&mut self, txid: &Txid) {
        if let Some((_, tx)) = self.places.remove(txid).and_then(|place| self.txs.remove(&place)) {
            self.bytes -= tx.total_size() as u64;
        }
    }

    /// All in their order.
    pub(crate) fn into_all(self) -> impl Iterator<Item = (Txid, Arc<Transaction>)> {
        self.txs.into_values()
    }
}
