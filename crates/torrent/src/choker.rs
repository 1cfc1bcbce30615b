//! Whom to upload to (BEP 3): tit for tat while leeching, turns for all while seeding, and one slot that is given to
//! chance so that newcomers can show what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dunlin_peer::{LinkId, Now};
use rand::Rng;

/// Time between two rounds.
pub(crate) const ROUND: Duration = Duration::from_secs(10);
/// Time for which an optimistic unchoke lasts.
pub(crate) const OPTIMISTIC: Duration = Duration::from_secs(30);
/// While seeding, a peer that was served this long makes room for one that waits.
const TURN: Duration = Duration::from_secs(30);
/// A link is new for this long, and then three times as likely to be unchoked by chance.
const NEWCOMER: Duration = Duration::from_secs(60);

/// What the choker knows of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The link.
    pub(crate) link: LinkId,
    /// The peer wants pieces of ours.
    pub(crate) interested: bool,
    /// The peer took our requests for a minute and sent nothing (anti-snubbing).
    pub(crate) snubbed: bool,
    /// Bytes of content that came from it since the last round.
    pub(crate) received: u64,
    /// Bytes of content that went to it since the last round.
    pub(crate) sent: u64,
    /// When the link was made.
    pub(crate) connected: Now,
}

/// Decides who is unchoked.
#[derive(Debug)]
pub(crate) struct Choker {
    slots: usize,
    unchoked: BTreeMap<LinkId, Now>,
    /// When a link was last choked again, for turns while seeding.
    served: BTreeMap<LinkId, Now>,
    optimistic: Option<(LinkId, Now)>,
}

impl Choker {
    /// A choker that serves `slots` peers at once, at least two: one by merit, one by chance.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(2),
            unchoked: BTreeMap::new(),
            served: BTreeMap::new(),
            optimistic: None,
        }
    }

    /// Whether the link is unchoked.
    #[cfg(test)]
    pub(crate) fn is_unchoked(&self, link: LinkId) -> bool {
        self.unchoked.contains_key(&link)
    }

    /// The link that is unchoked by chance.
    pub(crate) fn optimistic(&self) -> Option<LinkId> {
        self.optimistic.map(|(link, _)| link)
    }

    /// The link is gone.
    pub(crate) fn remove(&mut self, link: LinkId) {
        self.unchoked.remove(&link);
        self.served.remove(&link);
        if self.optimistic() == Some(link) {
            self.optimistic = None;
        }
    }

    /// Gives slots that are free to interested peers at once, without waiting for the next round. Returns whom to
    /// unchoke.
    pub(crate) fn fill(&mut self, now: Now, candidates: &[Candidate], rng: &mut impl Rng) -> Vec<LinkId> {
        let active = candidates
            .iter()
            .filter(|candidate| candidate.interested && self.unchoked.contains_key(&candidate.link))
            .count();
        let mut waiting: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| candidate.interested && !self.unchoked.contains_key(&candidate.link))
            .collect();
        let mut chosen = Vec::new();
        while active + chosen.len() < self.slots && !waiting.is_empty() {
            let link = waiting.swap_remove(rng.random_range(0..waiting.len())).link;
            self.unchoked.insert(link, now);
            chosen.push(link);
        }
        chosen
    }

    /// One round: returns whom to choke and whom to unchoke.
    pub(crate) fn round(
        &mut self,
        now: Now,
        seeding: bool,
        candidates: &[Candidate],
        rng: &mut impl Rng,
    ) -> (Vec<LinkId>, Vec<LinkId>) {
        let mut wanting: Vec<Candidate> = candidates.iter().copied().filter(|c| c.interested).collect();
        if seeding {
            wanting.sort_by_key(|candidate| self.seeding_rank(now, candidate));
        } else {
            wanting.retain(|candidate| !candidate.snubbed && candidate.received > 0);
            wanting.sort_by_key(|candidate| (std::cmp::Reverse(candidate.received), candidate.link));
        }
        let by_merit: BTreeSet<LinkId> = wanting.iter().take(self.slots - 1).map(|c| c.link).collect();
        self.turn_optimistic(now, candidates, &by_merit, rng);

        let mut chosen = by_merit;
        chosen.extend(self.optimistic());
        // Slots that merit left empty go to whoever waits: idle capacity helps nobody.
        let mut spare: Vec<LinkId> = candidates
            .iter()
            .filter(|c| c.interested && !chosen.contains(&c.link))
            .map(|c| c.link)
            .collect();
        while chosen.len() < self.slots && !spare.is_empty() {
            chosen.insert(spare.swap_remove(rng.random_range(0..spare.len())));
        }

        let choke: Vec<LinkId> = self
            .unchoked
            .keys()
            .copied()
            .filter(|link| !chosen.contains(link))
            .collect();
        let unchoke: Vec<LinkId> = chosen
            .iter()
            .copied()
            .filter(|link| !self.unchoked.contains_key(link))
            .collect();
        for &link in &choke {
            self.unchoked.remove(&link);
            self.served.insert(link, now);
        }
        for &link in &unchoke {
            self.unchoked.insert(link, now);
        }
        (choke, unchoke)
    }

    /// While seeding: those in the middle of their turn, then those who waited longest; among equals, those who
    /// take most.
    fn seeding_rank(&self, now: Now, candidate: &Candidate) -> (bool, Now, std::cmp::Reverse<u64>, LinkId) {
        let in_turn = self
            .unchoked
            .get(&candidate.link)
            .is_some_and(|&since| now.since(since) < TURN && candidate.sent > 0);
        let waiting_since = match self.unchoked.get(&candidate.link) {
            Some(_) if !in_turn => now,
            _ => self.served.get(&candidate.link).copied().unwrap_or_default(),
        };
        (
            !in_turn,
            waiting_since,
            std::cmp::Reverse(candidate.sent),
            candidate.link,
        )
    }

    /// Draws the next optimistic unchoke when the old one has had its time.
    fn turn_optimistic(&mut self, now: Now, candidates: &[Candidate], by_merit: &BTreeSet<LinkId>, rng: &mut impl Rng) {
        if let Some((link, since)) = self.optimistic {
            let still_wants = candidates.iter().any(|c| c.link == link && c.interested);
            if still_wants && !by_merit.contains(&link) && now.since(since) < OPTIMISTIC {
                return;
            }
        }
        let previous = self.optimistic.take().map(|(link, _)| link);
        let mut hat = Vec::new();
        for candidate in candidates {
            if !candidate.interested || by_merit.contains(&candidate.link) || Some(candidate.link) == previous {
                continue;
            }
            let tickets = if now.since(candidate.connected) < NEWCOMER {
                3
            } else {
                1
            };
            hat.extend(std::iter::repeat_n(candidate.link, tickets));
        }
        let nobody_else = previous
            .filter(|link| !by_merit.contains(link) && candidates.iter().any(|c| c.link == *link && c.interested));
        let drawn = if hat.is_empty() {
            nobody_else
        } else {
            hat.get(rng.random_range(0..hat.len())).copied()
        };
        self.optimistic = drawn.map(|link| (link, now));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(10_000 + secs)
    }

    fn candidate(link: u64, received: u64, sent: u64) -> Candidate {
        Candidate {
            link: LinkId(link),
            interested: true,
            snubbed: false,
            received,
            sent,
            connected: Now::from_unix_secs(0),
        }
    }

    /// Runs rounds over `secs` seconds; returns for how many rounds each link was unchoked.
    fn run(choker: &mut Choker, seeding: bool, candidates: &[Candidate], secs: u64) -> BTreeMap<LinkId, u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut rounds = BTreeMap::new();
        for sec in (0..secs).step_by(10) {
            choker.round(at(sec), seeding, candidates, &mut rng);
            for candidate in candidates {
                if choker.is_unchoked(candidate.link) {
                    *rounds.entry(candidate.link).or_insert(0) += 1;
                }
            }
        }
        rounds
    }

    #[test]
    fn those_who_give_most_are_served_and_a_free_rider_gets_chance_alone() {
        let mut candidates: Vec<Candidate> = (1..=8).map(|link| candidate(link, link * 1_000, 0)).collect();
        candidates.push(candidate(100, 0, 0));
        let mut choker = Choker::new(4);
        let rounds = run(&mut choker, false, &candidates, 3_000);
        for best in 6..=8 {
            assert_eq!(rounds.get(&LinkId(best)), Some(&300));
        }
        let rider = rounds.get(&LinkId(100)).copied().unwrap_or(0);
        assert!((1..150).contains(&rider), "served {rider} of 300 rounds");
    }

    #[test]
    fn the_optimistic_slot_moves_every_thirty_seconds() {
        let candidates: Vec<Candidate> = (1..=8).map(|link| candidate(link, 100, 0)).collect();
        let mut choker = Choker::new(3);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut seen = Vec::new();
        for sec in (0..300).step_by(10) {
            choker.round(at(sec), false, &candidates, &mut rng);
            seen.push(choker.optimistic());
        }
        assert!(seen.chunks(3).all(|three| three[0] == three[1] && three[1] == three[2]));
        assert!(
            seen.chunks(3)
                .zip(seen.chunks(3).skip(1))
                .all(|(one, next)| one[0] != next[0])
        );
    }

    #[test]
    fn a_seed_gives_everybody_a_turn() {
        let candidates: Vec<Candidate> = (1..=12).map(|link| candidate(link, 0, link * 100)).collect();
        let mut choker = Choker::new(4);
        let rounds = run(&mut choker, true, &candidates, 1_200);
        for candidate in &candidates {
            let served = rounds.get(&candidate.link).copied().unwrap_or(0);
            assert!(served >= 15, "{} was served {served} of 120 rounds", candidate.link);
        }
    }

    #[test]
    fn a_snubbing_peer_loses_its_place() {
        let mut candidates: Vec<Candidate> = (1..=6).map(|link| candidate(link, 1_000, 0)).collect();
        candidates[0].received = 1_000_000;
        candidates[0].snubbed = true;
        let mut choker = Choker::new(3);
        let rounds = run(&mut choker, false, &candidates, 600);
        assert!(rounds.get(&LinkId(1)).copied().unwrap_or(0) < 30);
    }

    #[test]
    fn free_slots_are_filled_at_once_and_never_overfilled() {
        let mut candidates: Vec<Candidate> = (1..=6).map(|link| candidate(link, 0, 0)).collect();
        candidates[0].interested = false;
        let mut choker = Choker::new(4);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let chosen = choker.fill(at(0), &candidates, &mut rng);
        assert_eq!(chosen.len(), 4);
        assert!(!chosen.contains(&LinkId(1)));
        assert!(choker.fill(at(1), &candidates, &mut rng).is_empty());
        choker.remove(chosen[0]);
        candidates.retain(|c| c.link != chosen[0]);
        assert_eq!(choker.fill(at(1), &candidates, &mut rng).len(), 1);
    }
}
