//! The aggregate of BIP 457: a sum of hashes from which every coin that was added and taken off again is gone.
//!
//! Each hash is SHA-256 with a secret salt before what is hashed, read as a number of 256 bits; sums wrap around. Who
//! does not know the salt cannot choose coins whose hashes cancel each other out.

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{OutPoint, VarInt};
use crypto_bigint::U256;

/// What is hashed before each coin: a whole block of SHA-256, so that it is worked in once.
const SALT_BYTES: usize = 64;

/// A sum of hashes modulo 2^256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aggregate(U256);

impl Aggregate {
    /// Adds what was created.
    pub(crate) fn add(&mut self, hash: sha256::Hash) {
        self.0 = self.0.wrapping_add(&U256::from_le_slice(hash.as_byte_array()));
    }

    /// Takes off what was spent.
    pub(crate) fn remove(&mut self, hash: sha256::Hash) {
        self.0 = self.0.wrapping_sub(&U256::from_le_slice(hash.as_byte_array()));
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0 = self.0.wrapping_add(&other.0);
    }

    /// Whether nothing is left.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == U256::ZERO
    }

    /// The sum, the least byte first.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0.to_words()) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// Reads [`Aggregate::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(U256::from_le_slice(bytes))
    }
}

/// What a coin says beside its name.
pub(crate) struct CoinParts<'a> {
    pub(crate) height: u32,
    pub(crate) coinbase: bool,
    pub(crate) script: &'a [u8],
    /// In satoshi.
    pub(crate) value: u64,
}

/// The salted hash.
#[derive(Clone)]
pub(crate) struct Salted(sha256::HashEngine);

impl Salted {
    /// Hashes with a secret. It must be random and new for each sync.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut engine = sha256::Hash::engine();
        let mut salt = [0; SALT_BYTES];
        salt[..secret.len()].copy_from_slice(secret);
        engine.input(&salt);
        Self(engine)
    }

    /// The hash of a coin's name alone: the assume-valid form.
    pub(crate) fn outpoint(&self, outpoint: &OutPoint) -> sha256::Hash {
        let mut bytes = [0; 36];
        bytes[..32].copy_from_slice(outpoint.txid.as_byte_array());
        bytes[32..].copy_from_slice(&outpoint.vout.to_le_bytes());
        self.hash(&bytes)
    }

    /// The hash of a whole coin as BIP 457 writes it: the full form.
    pub(crate) fn coin(&self, outpoint: &OutPoint, coin: &CoinParts<'_>) -> sha256::Hash {
        let mut engine = self.0.clone();
        engine.input(&((coin.height << 1) | u32::from(coin.coinbase)).to_le_bytes());
        let script = coin.script;
        let len = VarInt::from(script.len());
        engine.input(&serialize(&len));
        engine.input(script);
        engine.input(&coin.value.to_le_bytes());
        engine.input(outpoint.txid.as_byte_array());
        engine.input(&outpoint.vout.to_le_bytes());
        sha256::Hash::from_engine(engine)
    }

    fn hash(&self, bytes: &[u8]) -> sha256::Hash {
        let mut engine = self.0.clone();
        engine.input(bytes);
        sha256::Hash::from_engine(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Txid;

    fn at(vout: u32) -> OutPoint {
        OutPoint {
            txid: Txid::from_byte_array([9; 32]),
            vout,
        }
    }

    #[test]
    fn what_comes_and_goes_in_any_order_leaves_nothing() {
        let salted = Salted::new(&[3; 32]);
        let mut sums = [Aggregate::default(); 2];
        for vout in 0..100 {
            sums[0].add(salted.outpoint(&at(vout)));
            sums[1].remove(salted.outpoint(&at(99 - vout)));
            let mut sum = sums[0];
            sum.merge(&sums[1]);
            assert_eq!(sum.is_zero(), vout == 99, "{vout}");
            assert_eq!(Aggregate::from_bytes(&sum.to_bytes()), sum);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_salt_and_the_name() {
        let known = sha256::Hash::hash(&[&[1; 32][..], &[0; 32], &[9; 32], &[2, 1, 0, 0]].concat());
        assert_eq!(Salted::new(&[1; 32]).outpoint(&at(258)), known);
        assert_ne!(Salted::new(&[2; 32]).outpoint(&at(258)), known);
    }

    #[test]
    fn the_hash_of_a_coin_is_that_of_everything_it_says() {
        let script = [7; 300];
        let parts = |height, coinbase, script, value| CoinParts {
            height,
            coinbase,
            script,
            value,
        };
        let salt = [&[1; 32][..], &[0; 32]].concat();
        let coin = [
            &[3, 2, 0, 0][..],
            &[0xfd, 44, 1],
            &script,
            &[5, 0, 0, 0, 0, 0, 0, 1],
            &[9; 32],
            &[2, 1, 0, 0],
        ];
        let known = sha256::Hash::hash(&[salt, coin.concat()].concat());
        let salted = Salted::new(&[1; 32]);
        let value = 5 | 1 << 56;
        assert_eq!(salted.coin(&at(258), &parts(257, true, &script, value)), known);
        for other in [
            parts(257, false, &script, value),
            parts(256, true, &script, value),
            parts(257, true, &script[1..], value),
            parts(257, true, &script, value - 1),
        ] {
            assert_ne!(salted.coin(&at(258), &other), known);
        }
        assert_ne!(salted.coin(&at(257), &parts(257, true, &script, value)), known);
    }
}
