//! An operator's priorities: fees that are not paid, added to or taken from those that are.

use bitcoin::Txid;

use crate::Pool;
use crate::policy::dust;

/// One priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// Of which transaction.
    pub txid: Txid,
    /// What it adds to the fee, in satoshi.
    pub delta: i64,
    /// The fee with it, where the transaction is here, in satoshi.
    pub modified_fee: Option<i64>,
}

impl Pool {
    /// Adds `delta` satoshi to the fee by which a transaction is judged, here already or not. It is forgotten when a
    /// block has the transaction, or one that conflicts with it.
    pub fn prioritise(&mut self, txid: Txid, delta: i64) {
        let sum = self
            .deltas
            .get(&txid)
            .copied()
            .unwrap_or_default()
            .saturating_add(delta);
        if sum == 0 {
            self.deltas.remove(&txid);
        } else {
            self.deltas.insert(txid, sum);
        }
        let Some(id) = self.id(&txid) else { return };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.delta = sum;
            let ratio = entry.ratio();
            self.graph.set_ratio(id, ratio);
        }
    }

    /// All priorities, by transaction.
    pub fn priorities(&self) -> impl Iterator<Item = Priority> + '_ {
        self.deltas.iter().map(|(txid, delta)| Priority {
            txid: *txid,
            delta: *delta,
            modified_fee: self.entry(txid).map(|entry| entry.modified_fee()),
        })
    }

    /// Whether a transaction of the pool has an output of dust; such a one must stay without a fee.
    pub fn has_dust(&self, txid: &Txid) -> bool {
        self.get(txid)
            .is_some_and(|tx| dust::outputs(&tx, self.config.dust_feerate).next().is_some())
    }
}
