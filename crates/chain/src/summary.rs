//! A summary of the whole set of unspent outputs, for people and for comparing two peers.

use bitcoin::hashes::sha256d;
use bitcoin::{Amount, BlockHash};
use dunlin_store::{Step, StoreError};

use crate::Chain;
use crate::coin_hash::CoinsHasher;

/// What `gettxoutsetinfo` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinsSummary {
    /// The block up to which the coins are.
    pub tip: BlockHash,
    /// Its height.
    pub height: u32,
    /// How many coins there are.
    pub count: u64,
    /// What they are worth together.
    pub total: Amount,
    /// Core's `hash_serialized_3`: the double SHA-256 over all coins in key order.
    pub hash: sha256d::Hash,
}

impl Chain {
    /// Flushes, then reads every coin from disk.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a coin is damaged.
    pub fn summarize_coins(&mut self) -> Result<CoinsSummary, StoreError> {
        self.flush()?;
        let tip = self.view().tip();
        let mut hasher = CoinsHasher::new();
        self.shared.coins().snapshot().scan(&[], &mut |outpoint, found| {
            hasher.add(&outpoint, &found);
            Step::Continue
        })?;
        Ok(CoinsSummary {
            tip: tip.hash,
            height: tip.height,
            count: hasher.count,
            total: hasher.amount(),
            hash: hasher.finish(),
        })
    }
}
