//! Transactions whose parents have not come yet.
//!
//! Bounded for each peer and for all together; a peer that fills its share pushes out its own oldest ones. An orphan
//! leaves when it is accepted or refused, when a block takes its inputs, when everyone who announced it is gone, or
//! after [`EXPIRY`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use dunlin_peer::{LinkId, Now};

/// Most orphans that one peer can make us keep.
const MAX_PER_PEER: usize = 50;
/// Most orphans at all.
const MAX_ORPHANS: usize = 500;
/// Heaviest orphan, in weight units: the heaviest standard transaction.
const MAX_WEIGHT: u64 = 400_000;
/// Heaviest sum of one peer's orphans, in weight units.
const MAX_WEIGHT_PER_PEER: u64 = 1_600_000;
/// How long an orphan waits for its parents.
const EXPIRY: Duration = Duration::from_secs(20 * 60);

#[derive(Clone, Debug)]
struct Orphan {
    tx: Arc<Transaction>,
    weight: u64,
    from: BTreeSet<LinkId>,
    expires: Now,
    sequence: u64,
}

/// The pool of orphans.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    all: BTreeMap<Wtxid, Orphan>,
    by_parent: BTreeMap<OutPoint, BTreeSet<Wtxid>>,
    sequence: u64,
}

impl Orphans {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn contains(&self, wtxid: &Wtxid) -> bool {
        self.all.contains_key(wtxid)
    }

    pub(crate) fn tx(&self, wtxid: &Wtxid) -> Option<&Arc<Transaction>> {
        self.all.get(wtxid).map(|orphan| &orphan.tx)
    }

    /// Another peer announced an orphan that we have.
    pub(crate) fn add_announcer(&mut self, wtxid: &Wtxid, link: LinkId) {
        if self.load(link).0 < MAX_PER_PEER
            && let Some(orphan) = self.all.get_mut(wtxid)
        {
            orphan.from.insert(link);
        }
    }

    /// Keeps an orphan; returns whether it is kept.
    pub(crate) fn add(&mut self, now: Now, tx: Arc<Transaction>, from: LinkId) -> bool {
        let wtxid = tx.compute_wtxid();
        if self.contains(&wtxid) {
            self.add_announcer(&wtxid, from);
            return true;
        }
        let weight = tx.weight().to_wu();
        if weight > MAX_WEIGHT {
            return false;
        }
        loop {
            let (count, sum) = self.load(from);
            if count < MAX_PER_PEER && sum + weight <= MAX_WEIGHT_PER_PEER {
                break;
            }
            let Some(oldest) = self.oldest(Some(from)) else { break };
            self.remove(&oldest);
        }
        while self.all.len() >= MAX_ORPHANS
            && let Some(oldest) = self.oldest(None)
        {
            self.remove(&oldest);
        }
        self.sequence += 1;
        for input in &tx.input {
            self.by_parent.entry(input.previous_output).or_default().insert(wtxid);
        }
        let (expires, sequence) = (now + EXPIRY, self.sequence);
        self.all.insert(
            wtxid,
            Orphan {
                tx,
                weight,
                from: BTreeSet::from([from]),
                expires,
                sequence,
            },
        );
        true
    }

    pub(crate) fn remove(&mut self, wtxid: &Wtxid) -> Option<Arc<Transaction>> {
        let orphan = self.all.remove(wtxid)?;
        for input in &orphan.tx.input {
            if let Some(children) = self.by_parent.get_mut(&input.previous_output) {
                children.remove(wtxid);
                if children.is_empty() {
                    self.by_parent.remove(&input.previous_output);
                }
            }
        }
        Some(orphan.tx)
    }

    /// Orphans that spend outputs of `parent`, with one of the peers that gave each; they stay until judged.
    pub(crate) fn children(&self, parent: Txid) -> Vec<(LinkId, Arc<Transaction>)> {
        let outputs = OutPoint::new(parent, 0)..=OutPoint::new(parent, u32::MAX);
        let mut found = BTreeMap::new();
        for wtxid in self.by_parent.range(outputs).flat_map(|(_, children)| children) {
            if let Some(orphan) = self.all.get(wtxid)
                && let Some(from) = orphan.from.first()
            {
                found.insert(orphan.sequence, (*from, orphan.tx.clone()));
            }
        }
        found.into_values().collect()
    }

    /// Orphans of this peer that spend outputs of `parent`, the oldest first.
    pub(crate) fn children_of(&self, link: LinkId, parent: Txid) -> Vec<Arc<Transaction>> {
        let outputs = OutPoint::new(parent, 0)..=OutPoint::new(parent, u32::MAX);
        let wtxids = self.by_parent.range(outputs).flat_map(|(_, children)| children);
        let orphans = wtxids.filter_map(|wtxid| self.all.get(wtxid));
        let own: BTreeMap<u64, Arc<Transaction>> = orphans
            .filter(|orphan| orphan.from.contains(&link))
            .map(|orphan| (orphan.sequence, Arc::clone(&orphan.tx)))
            .collect();
        own.into_values().collect()
    }

    /// A block spent these outputs: whoever still wants them will never be valid.
    pub(crate) fn spent(&mut self, outputs: impl Iterator<Item = OutPoint>) {
        for output in outputs {
            for wtxid in self.by_parent.get(&output).cloned().unwrap_or_default() {
                self.remove(&wtxid);
            }
        }
    }

    pub(crate) fn disconnected(&mut self, link: LinkId) {
        self.all.values_mut().for_each(|orphan| {
            orphan.from.remove(&link);
        });
        let alone = |(wtxid, orphan): (&Wtxid, &Orphan)| orphan.from.is_empty().then_some(*wtxid);
        for wtxid in self.all.iter().filter_map(alone).collect::<Vec<_>>() {
            self.remove(&wtxid);
        }
    }

    /// Drops what has waited too long.
    pub(crate) fn expire(&mut self, now: Now) {
        let late = |(wtxid, orphan): (&Wtxid, &Orphan)| (orphan.expires <= now).then_some(*wtxid);
        for wtxid in self.all.iter().filter_map(late).collect::<Vec<_>>() {
            self.remove(&wtxid);
        }
    }

    fn load(&self, link: LinkId) -> (usize, u64) {
        let own = self.all.values().filter(|orphan| orphan.from.contains(&link));
        own.fold((0, 0), |(count, sum), orphan| (count + 1, sum + orphan.weight))
    }

    fn oldest(&self, of: Option<LinkId>) -> Option<Wtxid> {
        let all = self
            .all
            .iter()
            .filter(|(_, orphan)| of.is_none_or(|link| orphan.from.contains(&link)));
        all.min_by_key(|(_, orphan)| orphan.sequence).map(|(wtxid, _)| *wtxid)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute, transaction};

    use super::*;

    fn spend(parent: Txid, salt: u64) -> Arc<Transaction> {
        Arc::new(Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(parent, 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(salt),
                script_pubkey: ScriptBuf::new(),
            }],
        })
    }

    fn parent(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    #[test]
    fn children_are_found_and_stay_until_removed() {
        let mut orphans = Orphans::default();
        let now = Now::from_unix_secs(1);
        let child = spend(parent(1), 5);
        assert!(orphans.add(now, child.clone(), LinkId(1)));
        assert_eq!(orphans.children(parent(1)).len(), 1);
        assert!(orphans.children(parent(2)).is_empty());
        orphans.spent(std::iter::once(OutPoint::new(parent(1), 0)));
        assert_eq!(orphans.len(), 0);
        assert!(orphans.by_parent.is_empty());
    }

    #[test]
    fn a_peer_pushes_out_its_own_and_leaves_nothing_behind() {
        let mut orphans = Orphans::default();
        let now = Now::from_unix_secs(1);
        let kept = spend(parent(9), 1);
        orphans.add(now, kept.clone(), LinkId(2));
        for n in 0..200 {
            orphans.add(now, spend(parent(1), n), LinkId(1));
        }
        assert_eq!(orphans.len(), MAX_PER_PEER + 1);
        assert!(orphans.contains(&kept.compute_wtxid()));
        orphans.disconnected(LinkId(1));
        assert_eq!(orphans.len(), 1);
        orphans.expire(now + EXPIRY);
        assert_eq!(orphans.len(), 0);
        assert!(orphans.by_parent.is_empty());
    }

    #[test]
    fn the_whole_pool_is_bounded() {
        let mut orphans = Orphans::default();
        for n in 0..2000 {
            orphans.add(Now::default(), spend(parent(1), n), LinkId(n));
        }
        assert_eq!(orphans.len(), MAX_ORPHANS);
    }
}
