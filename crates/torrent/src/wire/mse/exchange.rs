//! The key exchange: Diffie-Hellman modulo a prime of 768 bits, generator 2, numbers big-endian.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U192, U768};
use rand::RngCore;

/// The prime.
const PRIME: Odd<U768> = Odd::<U768>::from_be_hex(concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563",
));
const PARAMS: FixedMontyParams<{ U768::LIMBS }> = FixedMontyParams::new_vartime(PRIME);

/// Bytes of a public key and of the shared secret.
pub(super) const KEY: usize = 96;
/// Bits of a private key: what the specification recommends.
const SECRET_BITS: u32 = 160;

/// A private key.
pub(super) struct Secret(U192);

impl Secret {
    pub(super) fn new(rng: &mut impl RngCore) -> Self {
        let mut bytes = [0; 24];
        rng.fill_bytes(&mut bytes[4..]);
        Self(U192::from_be_slice(&bytes))
    }

    /// What the other side is told.
    pub(super) fn public(&self) -> [u8; KEY] {
        self.raise(&U768::from_u8(2))
    }

    /// The secret shared with whoever told us `theirs`; `None` when that is a key which makes everybody's secret the
    /// same, or none at all.
    pub(super) fn shared(&self, theirs: &[u8; KEY]) -> Option<[u8; KEY]> {
        let theirs = U768::from_be_slice(theirs);
        let last = PRIME.get_copy().wrapping_sub(&U768::ONE);
        (theirs > U768::ONE && theirs < last).then(|| self.raise(&theirs))
    }

    fn raise(&self, base: &U768) -> [u8; KEY] {
        let number = FixedMontyForm::new(base, &PARAMS)
            .pow_bounded_exp(&self.0, SECRET_BITS)
            .retrieve();
        let mut bytes = [0; KEY];
        bytes.copy_from_slice(number.to_be_bytes().as_ref());
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn both_sides_come_to_the_same_secret_and_degenerate_keys_are_refused() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (one, other) = (Secret::new(&mut rng), Secret::new(&mut rng));
        let shared = one.shared(&other.public());
        assert!(shared.is_some());
        assert_eq!(shared, other.shared(&one.public()));
        let mut small = [0; KEY];
        assert_eq!(one.shared(&small), None);
        small[KEY - 1] = 1;
        assert_eq!(one.shared(&small), None);
        small[KEY - 1] = 2;
        assert_eq!(one.shared(&small), Some(one.public()));
        let mut order_two = PRIME.get_copy().wrapping_sub(&U768::ONE);
        let bytes = |number: &U768| <[u8; KEY]>::try_from(number.to_be_bytes().as_ref()).unwrap();
        assert_eq!(one.shared(&bytes(&order_two)), None);
        order_two = order_two.wrapping_sub(&U768::ONE);
        assert!(one.shared(&bytes(&order_two)).is_some());
        assert_eq!(one.shared(&[0xff; KEY]), None);
    }

    #[test]
    fn a_small_power_is_as_arithmetic_says() {
        // 2^10 mod P.
        let mut expected = [0; KEY];
        expected[KEY - 2] = 4;
        assert_eq!(Secret(U192::from_u8(10)).public(), expected);
    }
}
