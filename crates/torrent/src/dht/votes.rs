//! What our own address is, as the nodes that answer us see it (BEP 42).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dunlin_peer::{NetGroup, is_public};

/// Networks that must agree.
const QUORUM: usize = 5;
/// Addresses that are voted for at once, and voters counted for each.
const MAX_ADDRESSES: usize = 20;

/// The votes of one family.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    for_address: BTreeMap<IpAddr, BTreeSet<NetGroup>>,
    settled: Option<IpAddr>,
}

impl Votes {
    /// Counts that a node at `voter` sees us at `ip`. Returns the address when enough networks agree on one that is
    /// not the one they agreed on before.
    pub(crate) fn vote(&mut self, voter: IpAddr, ip: IpAddr) -> Option<IpAddr> {
        if !is_public(ip) || ip.is_ipv4() != voter.is_ipv4() || self.settled == Some(ip) {
            return None;
        }
        if self.for_address.len() >= MAX_ADDRESSES && !self.for_address.contains_key(&ip) {
            self.for_address.clear();
        }
        let voters = self.for_address.entry(ip).or_default();
        voters.insert(NetGroup::of(voter, None));
        if voters.len() < QUORUM {
            return None;
        }
        self.for_address.clear();
        self.settled = Some(ip);
        Some(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_networks_settle_it_and_one_cannot() {
        let ip = |a: u8, b: u8, d: u8| IpAddr::from([a, b, 9, d]);
        let ours = ip(8, 8, 8);
        let mut votes = Votes::default();
        assert!((0..100).all(|n| votes.vote(ip(1, 2, n), ours).is_none()), "one network");
        assert!((2..5).all(|n| votes.vote(ip(n, 2, 1), ours).is_none()));
        assert_eq!(votes.vote(ip(7, 2, 1), ours), Some(ours));
        assert!(
            (20..90).all(|n| votes.vote(ip(n, 2, 1), ours).is_none()),
            "known already"
        );
        assert!((20..90).all(|n| votes.vote(ip(n, 2, 1), ip(192, 168, 1)).is_none()));
        assert!((20..90).all(|n| votes.vote(ip(n, 2, 1), IpAddr::from([10, 0, 0, 1])).is_none()));
    }
}
