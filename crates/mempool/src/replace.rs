//! Replacement: a transaction that spends what others in the pool spend puts them out if it pays for it. It need not
//! be announced by a sequence number.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bitcoin::Amount;

use crate::entry::{Entry, Id};
use crate::graph::Candidate;
use crate::{Pool, PoolReject, diagram};

/// Clusters that one replacement may touch.
const MAX_CONFLICTING_CLUSTERS: usize = 100;

impl Pool {
    /// Checks that `entry` may join and put `conflicts` out. Returns everything that has to go, descendants included.
    pub(crate) fn check_replacement(
        &self,
        entry: &Entry,
        conflicts: &BTreeSet<Id>,
    ) -> Result<BTreeSet<Id>, PoolReject> {
        let candidate = Candidate {
            ratio: entry.ratio(),
            parents: self.parents_of(&entry.tx),
        };
        let too_large = |_| PoolReject::policy("too-large-cluster", "");
        if conflicts.is_empty() {
            let parents = candidate.parents.iter().copied();
            if !self.graph.fits(candidate.ratio.weight, parents, self.cluster_limits()) {
                return Err(too_large(()));
            }
            return Ok(BTreeSet::new());
        }

        let clusters = self.graph.cluster_count(conflicts);
        if clusters > MAX_CONFLICTING_CLUSTERS {
            let detail = format!(
                "rejecting replacement {}; too many conflicting clusters ({clusters} > {MAX_CONFLICTING_CLUSTERS})",
                entry.txid
            );
            return Err(PoolReject::policy("too many potential replacements", detail));
        }
        let removed = self.graph.descendants(conflicts.iter().copied());
        let old: Amount = removed
            .iter()
            .filter_map(|id| self.entries.get(id))
            .map(|entry| entry.fee)
            .sum();
        if entry.fee < old {
            let detail = format!(
                "rejecting replacement {}, less fees than conflicting txs; {} < {old}",
                entry.txid, entry.fee
            );
            return Err(PoolReject::policy("insufficient fee", detail));
        }
        let additional = entry.fee - old;
        let needed = self.config.incremental_feerate.fee(entry.vsize);
        if additional < needed {
            let detail = format!(
                "rejecting replacement {}, not enough additional fees to relay; {additional} < {needed}",
                entry.txid
            );
            return Err(PoolReject::policy("insufficient fee", detail));
        }
        if self
            .graph
            .ancestors(candidate.parents.iter().copied())
            .intersection(&removed)
            .next()
            .is_some()
        {
            let detail = format!("{} spends conflicting transaction", entry.txid);
            return Err(PoolReject::consensus("bad-txns-spends-conflicting-tx", detail));
        }
        let plan = self
            .graph
            .plan(&removed, &candidate, self.cluster_limits())
            .map_err(|_| too_large(()))?;
        if diagram::compare(&plan.after, &plan.before) != Some(Ordering::Greater) {
            return Err(PoolReject::policy(
                "replacement-failed",
                "insufficient feerate: does not improve feerate diagram",
            ));
        }
        Ok(removed)
    }
}
