//! Write tokens (BEP 5): proof that whoever stores something here can be reached at the address it gives.

use std::net::IpAddr;
use std::time::Duration;

use dunlin_peer::Now;
use hmac::{Hmac, Mac};
use rand::Rng;
use sha1::Sha1;

/// How long a secret is used; a token is taken for up to twice as long.
const ROTATE: Duration = Duration::from_secs(5 * 60);
/// Bytes of a token.
const LENGTH: usize = 8;

/// Makes and checks tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    secret: [u8; 20],
    previous: [u8; 20],
    next: Now,
}

impl Tokens {
    pub(crate) fn new(now: Now, rng: &mut impl Rng) -> Self {
        Self {
            secret: rng.random(),
            previous: rng.random(),
            next: now + ROTATE,
        }
    }

    /// Changes the secret when it is time.
    pub(crate) fn rotate(&mut self, now: Now, rng: &mut impl Rng) {
        if now >= self.next {
            self.previous = std::mem::replace(&mut self.secret, rng.random());
            self.next = now + ROTATE;
        }
    }

    /// The token for `target` of a node at `ip`.
    pub(crate) fn give(&self, ip: IpAddr, target: &[u8; 20]) -> Vec<u8> {
        token(&self.secret, ip, target).to_vec()
    }

    /// Whether the token was given to this address for this target lately.
    pub(crate) fn accepts(&self, given: &[u8], ip: IpAddr, target: &[u8; 20]) -> bool {
        [&self.secret, &self.previous]
            .iter()
            .any(|secret| token(secret, ip, target) == given)
    }
}

fn token(secret: &[u8; 20], ip: IpAddr, target: &[u8; 20]) -> [u8; LENGTH] {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    match ip {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(target);
    let mut token = [0; LENGTH];
    token.copy_from_slice(&mac.finalize().into_bytes()[..LENGTH]);
    token
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn tokens_hold_for_their_address_target_and_time() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let start = Now::from_unix_secs(0);
        let mut tokens = Tokens::new(start, &mut rng);
        let (one, two) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([1, 2, 3, 5]));
        let token = tokens.give(one, &[7; 20]);
        assert!(tokens.accepts(&token, one, &[7; 20]));
        assert!(!tokens.accepts(&token, two, &[7; 20]) && !tokens.accepts(&token, one, &[8; 20]));
        assert!(!tokens.accepts(b"", one, &[7; 20]));
        tokens.rotate(start + ROTATE, &mut rng);
        assert!(tokens.accepts(&token, one, &[7; 20]));
        tokens.rotate(start + ROTATE * 2, &mut rng);
        assert!(!tokens.accepts(&token, one, &[7; 20]));
    }
}
