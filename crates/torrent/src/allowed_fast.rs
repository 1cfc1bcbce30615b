//! The allowed-fast set (BEP 6): pieces that a peer may fetch while choked, fixed by its address and the torrent.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

/// Pieces in the set that we grant (the number that BEP 6 proposes).
pub(crate) const SET_SIZE: usize = 10;

/// The canonical set of `count` pieces for a peer at `addr`, in the order of generation.
///
/// BEP 6 defines it for IPv4 alone; any other address gets an empty set, and so does a torrent of no more than
/// `count` pieces, where a set would be the whole torrent.
pub(crate) fn allowed_fast_set(info_hash: &[u8; 20], addr: IpAddr, pieces: u32, count: usize) -> Vec<u32> {
    let IpAddr::V4(ip) = addr.to_canonical() else {
        return Vec::new();
    };
    if count == 0 || usize::try_from(pieces).is_ok_and(|pieces| pieces <= count) {
        return Vec::new();
    }
    let [a, b, c, _] = ip.octets();
    let mut hash: [u8; 20] = Sha1::new()
        .chain_update([a, b, c, 0])
        .chain_update(info_hash)
        .finalize()
        .into();
    let mut set = Vec::with_capacity(count);
    loop {
        for word in hash.chunks_exact(4) {
            let number = word.iter().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
            let piece = number % pieces;
            if !set.contains(&piece) {
                set.push(piece);
                if set.len() >= count {
                    return set;
                }
            }
        }
        hash = Sha1::digest(hash).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector published in BEP 6.
    #[test]
    fn bep_6_vector() {
        let addr = IpAddr::from([80, 4, 4, 200]);
        let nine = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(allowed_fast_set(&[0xaa; 20], addr, 1313, 7), nine[..7]);
        assert_eq!(allowed_fast_set(&[0xaa; 20], addr, 1313, 9), nine);
    }

    #[test]
    fn neighbours_share_a_set_and_small_torrents_have_none() {
        let one = allowed_fast_set(&[1; 20], IpAddr::from([10, 0, 0, 1]), 500, SET_SIZE);
        let other = allowed_fast_set(&[1; 20], IpAddr::from([10, 0, 0, 99]), 500, SET_SIZE);
        assert_eq!(one, other);
        assert!(allowed_fast_set(&[1; 20], IpAddr::from([10, 0, 0, 1]), 10, SET_SIZE).is_empty());
        assert!(allowed_fast_set(&[1; 20], IpAddr::from([0u16; 8]), 500, SET_SIZE).is_empty());
    }
}
