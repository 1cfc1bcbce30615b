//! Names in the DHT's key space: distance, and ids bound to an IP address (BEP 42).

use std::fmt;
use std::net::IpAddr;

use dunlin_peer::is_public;
use rand::Rng;

/// Bits of a name.
pub(crate) const BITS: u32 = 160;

/// A node's name, or the name of what is looked for; distance is the exclusive or of two names, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

impl NodeId {
    /// A name drawn from `rng`.
    pub(crate) fn random(rng: &mut impl Rng) -> Self {
        Self(rng.random())
    }

    /// A name as BEP 42 demands of a node at `ip`.
    pub(crate) fn secure(ip: IpAddr, rng: &mut impl Rng) -> Self {
        let mut id = Self::random(rng);
        let prefix = prefix(ip, id.0[19]);
        id.0[..2].copy_from_slice(&prefix[..2]);
        id.0[2] = (prefix[2] & 0xf8) | (id.0[2] & 0x07);
        id
    }

    /// Whether a node at `ip` may have this name (BEP 42). Addresses that are not public are exempt.
    pub(crate) fn is_secure_for(&self, ip: IpAddr) -> bool {
        if !is_public(ip) {
            return true;
        }
        let prefix = prefix(ip, self.0[19]);
        self.0[..2] == prefix[..2] && self.0[2] & 0xf8 == prefix[2] & 0xf8
    }

    /// The distance to another name; smaller is closer.
    pub(crate) fn distance(&self, other: &Self) -> [u8; 20] {
        std::array::from_fn(|at| self.0[at] ^ other.0[at])
    }

    /// How many leading bits two names share.
    pub(crate) fn shared_bits(&self, other: &Self) -> u32 {
        let distance = self.distance(other);
        match distance.iter().position(|byte| *byte != 0) {
            Some(at) => at as u32 * 8 + distance[at].leading_zeros(),
            None => BITS,
        }
    }

    /// A name that shares exactly `bits` leading bits with this one.
    pub(crate) fn random_sharing(&self, bits: u32, rng: &mut impl Rng) -> Self {
        let mut id = Self::random(rng);
        for bit in 0..=bits.min(BITS - 1) {
            let (byte, mask) = ((bit / 8) as usize, 0x80 >> (bit % 8));
            let own = self.0[byte] & mask;
            let wanted = if bit == bits { own ^ mask } else { own };
            id.0[byte] = (id.0[byte] & !mask) | wanted;
        }
        id
    }
}

/// The first three bytes that a node at `ip` must have; `random` is the last byte of its name.
fn prefix(ip: IpAddr, random: u8) -> [u8; 3] {
    const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
    const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
    let octets;
    let (bytes, mask): (&[u8], &[u8]) = match ip {
        IpAddr::V4(ip) => {
            octets = ip.to_ipv6_mapped().octets();
            (&octets[12..], &MASK_V4)
        }
        IpAddr::V6(ip) => {
            octets = ip.octets();
            (&octets[..8], &MASK_V6)
        }
    };
    let mut masked: Vec<u8> = bytes.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
    if let Some(first) = masked.first_mut() {
        *first |= (random & 0x07) << 5;
    }
    let [a, b, c, _] = crc32c::crc32c(&masked).to_be_bytes();
    [a, b, c]
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::id::write_hex(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The test vectors of BEP 42: address, last byte, and the first 21 bits as the three leading bytes show them.
    #[test]
    fn names_are_bound_to_addresses_as_bep_42_has_it() {
        let vectors = [
            ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
        ];
        for (ip, random, want) in vectors {
            let ip: IpAddr = ip.parse().unwrap();
            let got = prefix(ip, random);
            assert_eq!((got[0], got[1], got[2] & 0xf8), (want[0], want[1], want[2] & 0xf8));
            let mut id = NodeId([0; 20]);
            id.0[..3].copy_from_slice(&want);
            id.0[19] = random;
            assert!(id.is_secure_for(ip));
            id.0[0] ^= 1;
            assert!(!id.is_secure_for(ip));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for ip in ["8.8.8.8", "2a00:1450::1", "192.168.1.7"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert!((0..50).all(|_| NodeId::secure(ip, &mut rng).is_secure_for(ip)));
        }
        assert!(NodeId([0; 20]).is_secure_for("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn distance_counts_shared_bits() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let id = NodeId::random(&mut rng);
        assert_eq!(id.shared_bits(&id), BITS);
        for bits in 0..BITS {
            assert_eq!(id.random_sharing(bits, &mut rng).shared_bits(&id), bits);
        }
    }
}
