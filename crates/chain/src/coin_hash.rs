//! How Core hashes unspent outputs: the form of one, and the hash of all in order.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::{OutPoint, Script, VarInt};

use crate::{Coin, Output};

/// Core's measure of an output's size: 50 bytes and its script.
pub(crate) fn bogo_size(script: &Script) -> u64 {
    50 + script.len() as u64
}

/// A coin as Core hashes it, for `hash_serialized_3` and for MuHash alike: outpoint, `height * 2 + coinbase`, amount,
/// script with its length.
pub(crate) fn hashed_form(outpoint: &OutPoint, output: Output<'_>, height: u32, coinbase: bool, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(outpoint.txid.as_byte_array());
    out.extend_from_slice(&outpoint.vout.to_le_bytes());
    out.extend_from_slice(&((height << 1) | u32::from(coinbase)).to_le_bytes());
    out.extend_from_slice(&output.value.to_le_bytes());
    // Writing to memory cannot fail.
    let written = VarInt::from(output.script_pubkey.len()).consensus_encode(out);
    debug_assert!(written.is_ok());
    out.extend_from_slice(output.script_pubkey.as_bytes());
}

/// A coin's output as [`hashed_form`] takes it.
pub(crate) fn output_of(coin: &Coin) -> Output<'_> {
    Output {
        value: coin.output.value.to_sat(),
        script_pubkey: &coin.output.script_pubkey,
    }
}

/// Core's `hash_serialized_3`: the double SHA-256 over all coins in the order of their ids and indexes.
#[derive(Clone)]
pub(crate) struct CoinsHasher {
    engine: sha256::HashEngine,
    record: Vec<u8>,
    /// How many it has taken.
    pub(crate) count: u64,
}

impl CoinsHasher {
    pub(crate) fn new() -> Self {
        Self {
            engine: sha256d::Hash::engine(),
            record: Vec::new(),
            count: 0,
        }
    }

    /// Takes the next coin.
    pub(crate) fn add(&mut self, outpoint: &OutPoint, coin: &Coin) {
        hashed_form(outpoint, output_of(coin), coin.height, coin.coinbase, &mut self.record);
        self.engine.input(&self.record);
        self.count += 1;
    }

    /// The hash of all coins taken.
    pub(crate) fn finish(self) -> sha256d::Hash {
        sha256d::Hash::from_engine(self.engine)
    }
}
