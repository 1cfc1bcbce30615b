//! Whose inbound link makes room when all places are taken.
//!
//! Peers are protected for what an attacker cannot easily have many of: a network group drawn by secret, short round
//! trips, recent useful transactions and blocks, age. Of those left, the youngest of the most common network group
//! goes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_peer::{LinkId, Now};

/// What decides about one inbound peer.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) link: LinkId,
    /// Its network group, hashed with a secret.
    pub(crate) group: u64,
    pub(crate) min_ping: Option<Duration>,
    pub(crate) last_tx: Option<Now>,
    pub(crate) last_block: Option<Now>,
    pub(crate) connected_at: Now,
}

const BY_GROUP: usize = 4;
const BY_PING: usize = 8;
const BY_TX: usize = 4;
const BY_BLOCK: usize = 4;

/// Takes away the `count` best by `key`; among equals the older.
fn protect<K: Ord>(candidates: &mut Vec<Candidate>, count: usize, key: impl Fn(&Candidate) -> K) {
    candidates.sort_by_key(|candidate| (key(candidate), Reverse(candidate.connected_at), Reverse(candidate.link)));
    candidates.truncate(candidates.len().saturating_sub(count));
}

/// The link to close, or `None` when everyone is protected.
pub(crate) fn choose(mut candidates: Vec<Candidate>) -> Option<LinkId> {
    let candidates = &mut candidates;
    protect(candidates, BY_GROUP, |c| c.group);
    protect(candidates, BY_PING, |c| Reverse(c.min_ping.unwrap_or(Duration::MAX)));
    protect(candidates, BY_TX, |c| c.last_tx);
    protect(candidates, BY_BLOCK, |c| c.last_block);
    // Half of the rest stays for its age.
    let half = candidates.len() / 2;
    protect(candidates, half, |c| Reverse(c.connected_at));
    let mut groups: BTreeMap<u64, (usize, Now, LinkId)> = BTreeMap::new();
    for candidate in candidates.iter() {
        let group = groups
            .entry(candidate.group)
            .or_insert((0, candidate.connected_at, candidate.link));
        group.0 += 1;
        if (candidate.connected_at, candidate.link) > (group.1, group.2) {
            (group.1, group.2) = (candidate.connected_at, candidate.link);
        }
    }
    groups.into_values().max().map(|(_, _, link)| link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u64) -> Candidate {
        Candidate {
            link: LinkId(n),
            group: n % 7,
            min_ping: Some(Duration::from_millis(100 + n)),
            last_tx: None,
            last_block: None,
            connected_at: Now::from_unix_secs(n),
        }
    }

    #[test]
    fn merit_protects_and_the_flooding_group_loses() {
        let mut all: Vec<Candidate> = (0..40).map(candidate).collect();
        // An attacker opens many young links from one network.
        for n in 100..160 {
            all.push(Candidate {
                group: 3,
                min_ping: None,
                ..candidate(n)
            });
        }
        let victim = choose(all.clone()).expect("somebody goes");
        assert_eq!(victim, LinkId(159));
        // The same peer stays when it gave us the last block.
        all.last_mut().expect("not empty").last_block = Some(Now::from_unix_secs(500));
        assert_ne!(choose(all), Some(LinkId(159)));
    }

    #[test]
    fn a_few_peers_are_all_protected() {
        assert_eq!(choose((0..16).map(candidate).collect()), None);
        assert_eq!(choose(Vec::new()), None);
    }
}
