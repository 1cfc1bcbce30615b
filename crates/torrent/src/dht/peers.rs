//! The peers that others announced to us (BEP 5), and samples of what was announced (BEP 51).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};

use crate::InfoHash;

/// How long an announce counts.
const EXPIRY: Duration = Duration::from_secs(30 * 60);
/// Torrents kept; further ones are refused until some expire.
const MAX_TORRENTS: usize = 2_000;
/// Peers kept for one torrent and family.
const MAX_PEERS: usize = 500;
/// Info hashes in one sample: what fits a datagram beside the nodes.
const MAX_SAMPLES: usize = 20;

/// The announces, bounded in both directions.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    torrents: BTreeMap<InfoHash, Vec<(SocketAddr, Now)>>,
}

impl Peers {
    /// Takes an announce; `false` when there is no room.
    pub(crate) fn announce(&mut self, now: Now, info_hash: InfoHash, addr: SocketAddr, rng: &mut impl Rng) -> bool {
        if !self.torrents.contains_key(&info_hash) && self.torrents.len() >= MAX_TORRENTS {
            return false;
        }
        let peers = self.torrents.entry(info_hash).or_default();
        // One address has one entry: the last announced port counts.
        peers.retain(|(known, _)| known.ip() != addr.ip() || (addr.ip().is_loopback() && *known != addr));
        let same = peers
            .iter()
            .filter(|(known, _)| known.is_ipv4() == addr.is_ipv4())
            .count();
        if same >= MAX_PEERS {
            let family = peers
                .iter()
                .enumerate()
                .filter(|(_, (known, _))| known.is_ipv4() == addr.is_ipv4());
            if let Some((at, _)) = family.choose(rng) {
                peers.swap_remove(at);
            }
        }
        peers.push((addr, now));
        true
    }

    /// Up to `max` peers of a family, drawn by lot.
    pub(crate) fn sample(&self, info_hash: &InfoHash, v4: bool, max: usize, rng: &mut impl Rng) -> Vec<SocketAddr> {
        let known = self.torrents.get(info_hash).into_iter().flatten();
        let family = known.map(|(addr, _)| *addr).filter(|addr| addr.is_ipv4() == v4);
        family.choose_multiple(rng, max)
    }

    /// Info hashes drawn by lot, and how many there are in all.
    pub(crate) fn samples(&self, rng: &mut impl Rng) -> (Vec<InfoHash>, usize) {
        let all: Vec<InfoHash> = self.torrents.keys().copied().collect();
        let some = all.choose_multiple(rng, MAX_SAMPLES).copied().collect();
        (some, all.len())
    }

    /// Forgets what was announced too long ago.
    pub(crate) fn expire(&mut self, now: Now) {
        self.torrents.retain(|_, peers| {
            peers.retain(|(_, at)| now.since(*at) < EXPIRY);
            !peers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn announces_are_kept_for_half_an_hour_within_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut peers = Peers::default();
        let torrent = InfoHash([1; 20]);
        let addr = |n: u32, port: u16| SocketAddr::from((std::net::Ipv4Addr::from(0x0800_0000 + n), port));
        let start = Now::from_unix_secs(0);
        for n in 0..1000 {
            assert!(peers.announce(start, torrent, addr(n, 1), &mut rng));
        }
        assert!(peers.announce(start, torrent, "[2001::1]:5".parse().unwrap_or(addr(0, 0)), &mut rng));
        assert_eq!(peers.sample(&torrent, true, 10_000, &mut rng).len(), MAX_PEERS);
        assert_eq!(peers.sample(&torrent, true, 50, &mut rng).len(), 50);
        assert_eq!(peers.sample(&torrent, false, 50, &mut rng).len(), 1);
        peers.announce(start + EXPIRY / 2, torrent, addr(999, 2), &mut rng);
        peers.expire(start + EXPIRY);
        assert_eq!(peers.sample(&torrent, true, 50, &mut rng), [addr(999, 2)]);
        for n in 0..3000u32 {
            let mut hash = [0; 20];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            peers.announce(start + EXPIRY, InfoHash(hash), addr(n, 1), &mut rng);
        }
        let (some, all) = peers.samples(&mut rng);
        assert_eq!((some.len(), all), (MAX_SAMPLES, MAX_TORRENTS));
    }
}
