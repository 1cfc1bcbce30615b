//! A summary of the whole set of unspent outputs, for people and for comparing two peers.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Amount, BlockHash};
use dunlin_store::{Step, StoreError};

use crate::{Chain, coin, index};

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
    /// Flushes, then reads every coin from the table.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a coin is damaged.
    pub fn summarize_coins(&mut self) -> Result<CoinsSummary, StoreError> {
        self.flush()?;
        let tip = self.view().tip();
        let mut engine = sha256d::Hash::engine();
        let mut count = 0u64;
        let mut total = 0u64;
        let mut damaged = None;
        self.shared.table.scan(index::COINS, b"", &mut |key, value| {
            let (Some(outpoint), Some(found)) = (coin::outpoint(key), coin::decode(value)) else {
                damaged = Some(StoreError::corrupt(format!("the coin with key {key:02x?}")));
                return Step::Stop;
            };
            let mut record = Vec::new();
            let code = (found.height << 1) | u32::from(found.coinbase);
            let written = outpoint
                .consensus_encode(&mut record)
                .and_then(|_| code.consensus_encode(&mut record))
                .and_then(|_| found.output.consensus_encode(&mut record));
            // Writing to memory cannot fail.
            debug_assert!(written.is_ok());
            engine.input(&record);
            count += 1;
            total = total.saturating_add(found.output.value.to_sat());
            Step::Continue
        })?;
        match damaged {
            Some(error) => Err(error),
            None => Ok(CoinsSummary {
                tip: tip.hash,
                height: tip.height,
                count,
                total: Amount::from_sat(total),
                hash: sha256d::Hash::from_engine(engine),
            }),
        }
    }
}
