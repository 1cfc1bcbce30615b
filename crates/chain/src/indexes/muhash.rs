//! MuHash3072: a hash over a set that members can join and leave in any order, as `gettxoutsetinfo` shows it.
//!
//! A member is hashed with SHA-256, the hash is the key of ChaCha20, and 384 bytes of its key stream are a number of
//! 3,072 bits. The set's hash is SHA-256 over the product of its members' numbers modulo the prime 2^3072 - 1103717.

use bitcoin::hashes::{Hash, sha256};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use crypto_bigint::{Limb, Odd, U3072};

/// Bytes of a number.
const NUMBER_BYTES: usize = 384;

/// The prime is 2^3072 minus this.
const PRIME_DISTANCE: u32 = 1_103_717;

/// A set in the form of a fraction, so that a member leaves as fast as one joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuHash {
    numerator: U3072,
    denominator: U3072,
}

impl Default for MuHash {
    /// The empty set.
    fn default() -> Self {
        Self {
            numerator: U3072::ONE,
            denominator: U3072::ONE,
        }
    }
}

impl MuHash {
    /// A member joins.
    pub fn insert(&mut self, member: &[u8]) {
        self.numerator = times(&self.numerator, &number(member));
    }

    /// A member leaves.
    pub fn remove(&mut self, member: &[u8]) {
        self.denominator = times(&self.denominator, &number(member));
    }

    /// The hash of the set.
    pub fn digest(&self) -> [u8; 32] {
        let mut one = [self.clone()];
        Self::reduce(&mut one);
        let [reduced] = one;
        reduced.digest_reduced()
    }

    /// Brings sets to a denominator of one. A division costs as much as some thousand products, and many sets need
    /// only one division together.
    pub(crate) fn reduce(sets: &mut [Self]) {
        let mut products = Vec::with_capacity(sets.len());
        let mut product = U3072::ONE;
        for set in sets.iter() {
            products.push(product);
            product = times(&product, &set.denominator);
        }
        let mut inverse = inverse(&product);
        for (set, before) in sets.iter_mut().zip(products).rev() {
            let own = times(&inverse, &before);
            inverse = times(&inverse, &set.denominator);
            set.numerator = canonical(times(&set.numerator, &own));
            set.denominator = U3072::ONE;
        }
    }

    /// [`MuHash::digest`] of a set that [`MuHash::reduce`] was applied to.
    pub(crate) fn digest_reduced(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.to_bytes()).to_byte_array()
    }

    /// The number that stands for a reduced set, little-endian.
    pub(crate) fn to_bytes(&self) -> [u8; NUMBER_BYTES] {
        let mut bytes = [0; NUMBER_BYTES];
        bytes.copy_from_slice(self.numerator.to_le_bytes().as_ref());
        bytes
    }

    /// Reads what [`MuHash::to_bytes`] wrote; `None` for another length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == NUMBER_BYTES).then(|| Self {
            numerator: U3072::from_le_slice(bytes),
            denominator: U3072::ONE,
        })
    }
}

fn number(member: &[u8]) -> U3072 {
    let key = sha256::Hash::hash(member).to_byte_array();
    let mut stream = [0; NUMBER_BYTES];
    ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(&mut stream);
    U3072::from_le_slice(&stream)
}

fn times(a: &U3072, b: &U3072) -> U3072 {
    a.mul_mod_special(b, Limb::from_u32(PRIME_DISTANCE))
}

fn prime() -> U3072 {
    U3072::ZERO.wrapping_sub(&U3072::from_u32(PRIME_DISTANCE))
}

/// The representative below the prime.
fn canonical(value: U3072) -> U3072 {
    let prime = prime();
    if value >= prime {
        value.wrapping_sub(&prime)
    } else {
        value
    }
}

/// One over the value; the empty set's one for zero, which no product of members is.
fn inverse(value: &U3072) -> U3072 {
    let value = canonical(*value);
    if value == U3072::ONE {
        return value;
    }
    Option::from(Odd::new(prime()))
        .and_then(|prime| Option::from(value.invert_odd_mod_vartime(&prime)))
        .unwrap_or(U3072::ONE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn member(n: u8) -> [u8; 32] {
        let mut member = [0; 32];
        member[0] = n;
        member
    }

    /// The value that Bitcoin Core's own unit test of its MuHash3072 pins.
    #[test]
    fn cores_vector() {
        let mut set = MuHash::default();
        set.insert(&member(0));
        set.insert(&member(1));
        set.remove(&member(2));
        let mut digest = set.digest();
        digest.reverse();
        assert_eq!(
            hex::encode(digest),
            "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863"
        );
    }

    #[test]
    fn order_does_not_matter_and_leaving_undoes_joining() {
        let (mut one, mut other) = (MuHash::default(), MuHash::default());
        for n in 0..9 {
            one.insert(&member(n));
            other.insert(&member(8 - n));
        }
        assert_eq!(one.digest(), other.digest());
        for n in 0..9 {
            assert_ne!(one.digest(), MuHash::default().digest());
            one.remove(&member(n));
        }
        assert_eq!(one.digest(), MuHash::default().digest());
    }

    #[test]
    fn many_are_reduced_as_each_alone() {
        let mut sets: Vec<MuHash> = (0..5)
            .map(|n| {
                let mut set = MuHash::default();
                set.insert(&member(n));
                set.remove(&member(100 + n));
                set
            })
            .collect();
        let alone: Vec<_> = sets.iter().map(MuHash::digest).collect();
        MuHash::reduce(&mut sets);
        assert_eq!(sets.iter().map(MuHash::digest_reduced).collect::<Vec<_>>(), alone);
        for set in sets {
            assert_eq!(MuHash::from_bytes(&set.to_bytes()).unwrap(), set);
        }
        assert!(MuHash::from_bytes(&[1; 383]).is_none());
    }
}
