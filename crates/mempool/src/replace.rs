//! Replacement: a transaction, or a parent with its child, that spends what others in the pool spend puts them out if
//! it pays for it. It need not be announced by a sequence number.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bitcoin::Txid;
use dunlin_chain::money;

use crate::accept::Judged;
use crate::entry::{Entry, Id};
use crate::graph::{Candidate, newcomer};
use crate::{FeeRate, Pool, PoolReject, diagram};

/// Clusters that one replacement may touch.
const MAX_CONFLICTING_CLUSTERS: usize = 100;

impl Pool {
    /// Checks that `judged` may join and put its conflicts out. Returns everything that has to go, descendants
    /// included.
    pub(crate) fn check_replacement(&self, judged: &Judged) -> Result<BTreeSet<Id>, PoolReject> {
        let entry = &judged.entry;
        let candidate = Candidate {
            ratio: entry.ratio(),
            parents: self.parents_of(&entry.tx),
        };
        if judged.conflicts.is_empty() {
            let parents = candidate.parents.iter().copied();
            if !self.graph.fits(candidate.ratio.weight, parents, self.cluster_limits()) {
                return Err(PoolReject::policy("too-large-cluster", ""));
            }
            return Ok(BTreeSet::new());
        }
        let suffix = if judged.sibling {
            " (including sibling eviction)"
        } else {
            ""
        };
        let removed = self
            .replaced_by(entry.txid, &judged.conflicts)
            .map_err(|detail| PoolReject::policy(format!("too many potential replacements{suffix}"), detail))?;
        self.check_pays(&removed, entry.txid, entry.modified_fee(), entry.vsize)
            .map_err(|detail| PoolReject::reconsiderable(format!("insufficient fee{suffix}"), detail))?;
        let ancestors = self.graph.ancestors(candidate.parents.iter().copied());
        if ancestors.intersection(&removed).next().is_some() {
            let detail = format!("{} spends conflicting transaction", entry.txid);
            return Err(PoolReject::consensus("bad-txns-spends-conflicting-tx", detail));
        }
        let improves = self.improves(&removed, &[candidate])?;
        if !improves {
            return Err(PoolReject::reconsiderable("replacement-failed", NOT_BETTER));
        }
        Ok(removed)
    }

    /// Everything that has to go when `conflicts` go, or why that would be too much.
    pub(crate) fn replaced_by(&self, txid: Txid, conflicts: &BTreeSet<Id>) -> Result<BTreeSet<Id>, String> {
        let clusters = self.graph.cluster_count(conflicts);
        if clusters > MAX_CONFLICTING_CLUSTERS {
            return Err(format!(
                "rejecting replacement {txid}; too many conflicting clusters ({clusters} > {MAX_CONFLICTING_CLUSTERS})"
            ));
        }
        Ok(self.graph.descendants(conflicts.iter().copied()))
    }

    /// Checks that a replacement of `vsize` virtual bytes pays no less than what it puts out, and for its own relay on
    /// top. All fees with the operator's priorities, in satoshi.
    pub(crate) fn check_pays(&self, removed: &BTreeSet<Id>, txid: Txid, fee: i64, vsize: u64) -> Result<(), String> {
        let fees = removed.iter().filter_map(|id| self.entries.get(id));
        let old = fees.fold(0_i64, |sum, entry| sum.saturating_add(entry.modified_fee()));
        if fee < old {
            let (fee, old) = (money(fee), money(old));
            return Err(format!(
                "rejecting replacement {txid}, less fees than conflicting txs; {fee} < {old}"
            ));
        }
        let additional = fee.saturating_sub(old);
        let needed = self.config.incremental_feerate.fee(vsize).to_sat();
        let needed = i64::try_from(needed).unwrap_or(i64::MAX);
        if additional < needed {
            let (additional, needed) = (money(additional), money(needed));
            return Err(format!(
                "rejecting replacement {txid}, not enough additional fees to relay; {additional} < {needed}"
            ));
        }
        Ok(())
    }

    /// Whether the pool earns more in some amount of weight, and less in none, with `candidates` for `removed`.
    pub(crate) fn improves(&self, removed: &BTreeSet<Id>, candidates: &[Candidate]) -> Result<bool, PoolReject> {
        let plan = self
            .graph
            .plan(removed, candidates, self.cluster_limits())
            .map_err(|_| PoolReject::policy("too-large-cluster", ""))?;
        Ok(diagram::compare(&plan.after, &plan.before) == Some(Ordering::Greater))
    }

    /// The members of a package as they would join, parents before children.
    pub(crate) fn candidates(&self, package: &[Judged]) -> Vec<Candidate> {
        let place = |txid: &Txid| package.iter().position(|judged| judged.entry.txid == *txid);
        let candidate = |entry: &Entry| {
            let mut parents = self.parents_of(&entry.tx);
            let inputs = entry.tx.input.iter();
            parents.extend(inputs.filter_map(|input| place(&input.previous_output.txid).map(newcomer)));
            Candidate {
                ratio: entry.ratio(),
                parents,
            }
        };
        package.iter().map(|judged| candidate(&judged.entry)).collect()
    }
}

/// Why a replacement that pays more is refused all the same.
pub(crate) const NOT_BETTER: &str = "insufficient feerate: does not improve feerate diagram";

/// A fee rate as Core writes it.
pub(crate) fn rate_text(fee: i64, vsize: u64) -> String {
    let rate = FeeRate::of(bitcoin::Amount::from_sat(fee.max(0).unsigned_abs()), vsize).sat_per_kvb();
    format!("{}.{:08} BTC/kvB", rate / 100_000_000, rate % 100_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_core_writes_them() {
        assert_eq!(rate_text(150, 100), "0.00001500 BTC/kvB");
    }
}
