//! Whose inbound link makes room when all places are taken, by Bitcoin Core's rules.
//!
//! Peers are protected for what an attacker cannot easily have many of: a network group drawn by secret, short round
//! trips, recent useful transactions and blocks, age. Links over networks on which round trips are long, and those from
//! this machine, have up to half of the places that age protects. Of those left, first those that misbehaved, the
//! youngest of the most common network group goes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_peer::{LinkId, NetClass, Now};

/// What decides about one inbound peer.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) link: LinkId,
    /// Its network group, hashed with a secret.
    pub(crate) group: u64,
    /// The network that it comes through.
    pub(crate) network: NetClass,
    /// It comes from this machine.
    pub(crate) local: bool,
    /// It wants transactions.
    pub(crate) relays_txs: bool,
    /// Its address misbehaved lately.
    pub(crate) discouraged: bool,
    pub(crate) min_ping: Option<Duration>,
    pub(crate) last_tx: Option<Now>,
    pub(crate) last_block: Option<Now>,
    pub(crate) connected_at: Now,
}

const BY_GROUP: usize = 4;
const BY_PING: usize = 8;
const BY_TX: usize = 4;
const BLOCKS_ONLY: usize = 8;
const BY_BLOCK: usize = 4;

/// Takes away the `count` best by `key` of those that `fits` accepts; among equals the older.
fn protect<K: Ord>(
    candidates: &mut Vec<Candidate>,
    count: usize,
    key: impl Fn(&Candidate) -> K,
    fits: impl Fn(&Candidate) -> bool,
) -> usize {
    candidates.sort_by_key(|candidate| (key(candidate), Reverse(candidate.connected_at), Reverse(candidate.link)));
    let from = candidates.len().saturating_sub(count);
    let before = candidates.len();
    let mut place = 0;
    candidates.retain(|candidate| {
        place += 1;
        place <= from || !fits(candidate)
    });
    before - candidates.len()
}

fn everyone(_: &Candidate) -> bool {
    true
}

fn age(candidate: &Candidate) -> Reverse<Now> {
    Reverse(candidate.connected_at)
}

/// Half of those that are left stays for its age; of that half, half belongs to links at a disadvantage.
fn protect_by_age(candidates: &mut Vec<Candidate>) {
    type Fits = fn(&Candidate) -> bool;
    let kinds: [Fits; 4] = [
        |candidate| candidate.network == NetClass::Cjdns,
        |candidate| candidate.network == NetClass::I2p,
        |candidate| candidate.local && candidate.network != NetClass::Onion,
        |candidate| candidate.network == NetClass::Onion,
    ];
    let total = candidates.len() / 2;
    let most = total / 2;
    let count = |candidates: &[Candidate], fits: Fits| candidates.iter().filter(|candidate| fits(candidate)).count();
    let mut kinds: Vec<Fits> = kinds.into_iter().filter(|fits| count(candidates, *fits) > 0).collect();
    // What the rarest does not use falls to the others.
    kinds.sort_by_key(|fits| count(candidates, *fits));
    let mut protected = 0;
    while protected < most {
        let present: Vec<Fits> = kinds
            .iter()
            .copied()
            .filter(|fits| count(candidates, *fits) > 0)
            .collect();
        if present.is_empty() {
            break;
        }
        let each = ((most - protected) / present.len()).max(1);
        for fits in present {
            if protected >= most {
                break;
            }
            // Oldest of this kind last, so that the last of all are these.
            protected += protect(candidates, each, |candidate| (fits(candidate), age(candidate)), fits);
        }
    }
    protect(candidates, total - protected, age, everyone);
}

/// The link to close, or `None` when everyone is protected.
pub(crate) fn choose(mut candidates: Vec<Candidate>) -> Option<LinkId> {
    let candidates = &mut candidates;
    protect(candidates, BY_GROUP, |c| c.group, everyone);
    protect(
        candidates,
        BY_PING,
        |c| Reverse(c.min_ping.unwrap_or(Duration::MAX)),
        everyone,
    );
    protect(candidates, BY_TX, |c| c.last_tx, everyone);
    protect(
        candidates,
        BLOCKS_ONLY,
        |c| (!c.relays_txs, c.last_block),
        |c| !c.relays_txs,
    );
    protect(candidates, BY_BLOCK, |c| c.last_block, everyone);
    protect_by_age(candidates);
    if candidates.iter().any(|candidate| candidate.discouraged) {
        candidates.retain(|candidate| candidate.discouraged);
    }
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
            network: NetClass::Ipv4,
            local: false,
            relays_txs: true,
            discouraged: false,
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

    /// Who is left when one after the other goes.
    fn last(mut all: Vec<Candidate>) -> Vec<Candidate> {
        while let Some(link) = choose(all.clone()) {
            all.retain(|candidate| candidate.link != link);
        }
        all
    }

    #[test]
    fn networks_at_a_disadvantage_keep_a_part() {
        let slow = |n: u64, network| Candidate {
            network,
            min_ping: Some(Duration::from_secs(3)),
            ..candidate(n)
        };
        let mut all: Vec<Candidate> = (0..100).map(candidate).collect();
        all.extend((200..220).map(|n| slow(n, NetClass::Onion)));
        all.extend((300..303).map(|n| slow(n, NetClass::I2p)));
        // Hundreds come to push them out.
        for n in 1_000..1_200 {
            let victim = choose(all.clone()).expect("somebody goes");
            all.retain(|candidate| candidate.link != victim);
            all.push(candidate(n));
        }
        let left = |network| all.iter().filter(|candidate| candidate.network == network).count();
        assert_eq!(left(NetClass::I2p), 3, "the rarest all stay");
        assert!(left(NetClass::Onion) >= 10, "{}", left(NetClass::Onion));
        assert!(left(NetClass::Ipv4) > 70);
    }

    #[test]
    fn who_only_relays_blocks_and_gave_one_stays_and_who_misbehaved_goes_first() {
        let mut all: Vec<Candidate> = (0..60).map(candidate).collect();
        for n in 100..104 {
            all.push(Candidate {
                relays_txs: false,
                last_block: Some(Now::from_unix_secs(n)),
                min_ping: None,
                ..candidate(n)
            });
        }
        // Others gave blocks later.
        for other in &mut all[..10] {
            other.last_block = Some(Now::from_unix_secs(1_000));
        }
        let left = last(all.clone());
        let stays = |n: u64| left.iter().any(|candidate| candidate.link == LinkId(n));
        assert!((100..104).all(stays));
        let bad = all
            .iter_mut()
            .find(|candidate| candidate.link == LinkId(57))
            .expect("it is there");
        (bad.discouraged, bad.min_ping, bad.group) = (true, None, 0);
        assert_eq!(choose(all), Some(LinkId(57)));
    }

    #[test]
    fn a_few_peers_are_all_protected() {
        assert_eq!(choose((0..16).map(candidate).collect()), None);
        assert_eq!(choose(Vec::new()), None);
    }
}
