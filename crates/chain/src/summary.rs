//! A summary of the whole set of unspent outputs, for people and for comparing two peers.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, Txid};
use dunlin_store::StoreError;

use crate::Chain;
use crate::coin_hash::{CoinsHasher, bogo_size, hashed_form, output_of};
use crate::indexes::MuHash;
use crate::snapshot::FrozenCoins;

/// What `gettxoutsetinfo` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinsSummary {
    /// The block up to which the coins are.
    pub tip: BlockHash,
    /// Its height.
    pub height: u32,
    /// How many coins there are.
    pub count: u64,
    /// How many transactions made them.
    pub transactions: u64,
    /// Core's measure of their size, which depends on no database.
    pub bogo_size: u64,
    /// What they are worth together.
    pub total: Amount,
    /// The hash that was asked for, in the order of its bytes; zeros for none.
    pub hash: [u8; 32],
}

/// Which hash over all coins is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoinsHash {
    /// Core's `hash_serialized_3`: the double SHA-256 over all coins in key order.
    Serialized,
    /// MuHash3072, which does not depend on their order.
    MuHash,
    /// None.
    None,
}

impl Chain {
    /// Flushes, then reads every coin from disk; with [`CoinsHash::Serialized`].
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a coin is damaged.
    pub fn summarize_coins(&mut self) -> Result<CoinsSummary, StoreError> {
        self.freeze_coins()?.summarize(CoinsHash::Serialized)
    }
}

impl FrozenCoins {
    /// Reads every coin.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a coin is damaged.
    pub fn summarize(&self, kind: CoinsHash) -> Result<CoinsSummary, StoreError> {
        let (mut hasher, mut set, mut form) = (CoinsHasher::new(), MuHash::default(), Vec::new());
        let (mut count, mut transactions, mut bytes, mut total) = (0u64, 0u64, 0u64, 0u64);
        let mut last: Option<Txid> = None;
        self.each::<StoreError>(&[], &mut |outpoint, coin| {
            match kind {
                CoinsHash::Serialized => hasher.add(&outpoint, &coin),
                CoinsHash::MuHash => {
                    hashed_form(&outpoint, output_of(&coin), coin.height, coin.coinbase, &mut form);
                    set.insert(&form);
                }
                CoinsHash::None => {}
            }
            transactions += u64::from(last.replace(outpoint.txid) != Some(outpoint.txid));
            count += 1;
            bytes += bogo_size(&coin.output.script_pubkey);
            total = total.saturating_add(coin.output.value.to_sat());
            Ok(())
        })?;
        Ok(CoinsSummary {
            tip: self.tip().hash,
            height: self.tip().height,
            count,
            transactions,
            bogo_size: bytes,
            total: Amount::from_sat(total),
            hash: match kind {
                CoinsHash::Serialized => hasher.finish().to_byte_array(),
                CoinsHash::MuHash => set.digest(),
                CoinsHash::None => [0; 32],
            },
        })
    }
}
