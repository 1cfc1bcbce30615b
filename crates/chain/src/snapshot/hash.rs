//! Core's `hash_serialized_3`: the double SHA-256 over all coins in the order of their ids and indexes.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::{Amount, OutPoint};

use crate::Coin;

/// Takes coins in order and ends with their hash.
#[derive(Clone)]
pub(crate) struct CoinsHasher {
    engine: sha256::HashEngine,
    record: Vec<u8>,
    /// How many it has taken.
    pub(crate) count: u64,
    /// What they are worth together, in satoshi.
    pub(crate) total: u64,
}

impl CoinsHasher {
    pub(crate) fn new() -> Self {
        Self {
            engine: sha256d::Hash::engine(),
            record: Vec::new(),
            count: 0,
            total: 0,
        }
    }

    /// Takes the next coin.
    pub(crate) fn add(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.record.clear();
        let code = (coin.height << 1) | u32::from(coin.coinbase);
        let written = outpoint
            .consensus_encode(&mut self.record)
            .and_then(|_| code.consensus_encode(&mut self.record))
            .and_then(|_| coin.output.consensus_encode(&mut self.record));
        // Writing to memory cannot fail.
        debug_assert!(written.is_ok());
        self.engine.input(&self.record);
        self.count += 1;
        self.total = self.total.saturating_add(coin.output.value.to_sat());
    }

    /// The worth of all coins taken.
    pub(crate) fn amount(&self) -> Amount {
        Amount::from_sat(self.total)
    }

    /// The hash of all coins taken.
    pub(crate) fn finish(self) -> sha256d::Hash {
        sha256d::Hash::from_engine(self.engine)
    }
}
