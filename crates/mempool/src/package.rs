//! Packages: a child with some or all of its unconfirmed parents, judged together, so that the child can pay for
//! parents that pay too little by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, Txid, Wtxid};

use crate::accept::{Judged, Setting, check_max_rate, per_kvb};
use crate::entry::Id;
use crate::policy::{dust, truc};
use crate::replace::{NOT_BETTER, rate_text};
use crate::{Accepted, FeeRate, Pool, PoolReject, Ratio, RejectKind};

/// Most transactions in a package.
pub const MAX_PACKAGE_COUNT: usize = 25;
/// Most weight of a package.
const MAX_PACKAGE_WEIGHT: u64 = 404_000;

/// What a package as a whole failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageErrorKind {
    /// A rule for packages.
    Policy,
    /// One of its transactions; the results say which.
    Transaction,
}

/// Why not all of a package is in the pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}{detail}", if detail.is_empty() { "" } else { ", " })]
pub struct PackageError {
    /// Core's reject string.
    pub reason: String,
    /// More words for a person.
    pub detail: String,
    /// What kind of failure it is.
    pub kind: PackageErrorKind,
}

impl PackageError {
    fn policy(reason: &str, detail: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            detail: detail.into(),
            kind: PackageErrorKind::Policy,
        }
    }

    fn transaction(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            detail: String::new(),
            kind: PackageErrorKind::Transaction,
        }
    }
}

impl From<PoolReject> for PackageError {
    fn from(reject: PoolReject) -> Self {
        Self::policy(&reject.reason, reject.detail)
    }
}

/// What came of one transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageTx {
    /// It got in, or would get in.
    Accepted(Accepted),
    /// It was there already.
    Known {
        /// Its virtual size in bytes.
        vsize: u64,
        /// What it pays.
        fee: Amount,
    },
    /// The same transaction with this other witness was there already; this one was not looked at.
    OtherWitness(Wtxid),
    /// It did not get in.
    Refused(PoolReject),
}

/// What came of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageOutcome {
    /// Why not all of it is in the pool, or would get in.
    pub error: Option<PackageError>,
    /// What came of its transactions; those that were not looked at are missing.
    pub results: BTreeMap<Wtxid, PackageTx>,
}

impl From<PackageError> for PackageOutcome {
    fn from(error: PackageError) -> Self {
        Self {
            error: Some(error),
            results: BTreeMap::new(),
        }
    }
}

impl PackageOutcome {
    /// A member failed: the one that is named, if any.
    fn failed(reason: &str, of: Option<(Wtxid, PoolReject)>) -> Self {
        Self {
            error: Some(PackageError::transaction(reason)),
            results: of
                .into_iter()
                .map(|(wtxid, reject)| (wtxid, PackageTx::Refused(reject)))
                .collect(),
        }
    }
}

const FAILED: &str = "transaction failed";

/// Is the last transaction a child of all others, and does none of those spend from another?
pub fn is_child_with_parents_tree(package: &[Arc<Transaction>]) -> bool {
    let Some((_, parents)) = package.split_last() else {
        return false;
    };
    let ids: BTreeSet<Txid> = parents.iter().map(|tx| tx.compute_txid()).collect();
    let related = |tx: &Transaction| tx.input.iter().any(|input| ids.contains(&input.previous_output.txid));
    is_child_with_parents(package) && !parents.iter().any(|tx| related(tx))
}

fn is_child_with_parents(package: &[Arc<Transaction>]) -> bool {
    let Some((child, parents)) = package.split_last() else {
        return false;
    };
    let spent: BTreeSet<Txid> = child.input.iter().map(|input| input.previous_output.txid).collect();
    !parents.is_empty() && parents.iter().all(|tx| spent.contains(&tx.compute_txid()))
}

/// What can be said of a package without looking at anything else.
fn check_form(package: &[Arc<Transaction>]) -> Result<(), PackageError> {
    let wrong = |reason| Err(PackageError::policy(reason, ""));
    if package.len() > MAX_PACKAGE_COUNT {
        return wrong("package-too-many-transactions");
    }
    let weight: u64 = package.iter().map(|tx| tx.weight().to_wu()).sum();
    if package.len() > 1 && weight > MAX_PACKAGE_WEIGHT {
        return wrong("package-too-large");
    }
    let txids: Vec<Txid> = package.iter().map(|tx| tx.compute_txid()).collect();
    let mut later: BTreeSet<Txid> = txids.iter().copied().collect();
    if later.len() != package.len() {
        return wrong("package-contains-duplicates");
    }
    for (tx, txid) in package.iter().zip(&txids) {
        if tx.input.iter().any(|input| later.contains(&input.previous_output.txid)) {
            return wrong("package-not-sorted");
        }
        later.remove(txid);
    }
    let mut spent: BTreeSet<OutPoint> = BTreeSet::new();
    for tx in package {
        let own: BTreeSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        // One that spends an output twice by itself is named by its own checks.
        if own.is_empty() || own.iter().any(|outpoint| spent.contains(outpoint)) {
            return wrong("conflict-in-package");
        }
        spent.extend(own);
    }
    Ok(())
}

impl Pool {
    /// Takes a transaction and those of its parents that are not here yet, parents first. Each that can gets in by
    /// itself; the rest is judged by what they pay together. `now` is the time in Unix seconds; nothing that pays more
    /// than `max_rate` by itself is taken.
    pub fn accept_package(
        &mut self,
        now: u64,
        package: &[Arc<Transaction>],
        max_rate: Option<FeeRate>,
    ) -> PackageOutcome {
        self.clock = self.clock.max(now);
        if let Err(error) = check_form(package) {
            return error.into();
        }
        if package.len() != 1 && !is_child_with_parents(package) {
            return PackageError::policy("package-not-child-with-parents", "").into();
        }
        let mut results = BTreeMap::new();
        let mut left = Vec::new();
        let mut over = false;
        for tx in package {
            let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
            if let Some(here) = self.entry(&txid) {
                let result = if here.wtxid == wtxid {
                    PackageTx::Known {
                        vsize: here.vsize,
                        fee: here.fee,
                    }
                } else {
                    PackageTx::OtherWitness(here.wtxid)
                };
                results.insert(wtxid, result);
                continue;
            }
            match self.admit(now, Arc::clone(tx), Setting::AloneOfPackage, max_rate) {
                Ok(accepted) => {
                    results.insert(wtxid, PackageTx::Accepted(accepted));
                }
                Err(reject) => {
                    let hope = matches!(reject.kind, RejectKind::Reconsiderable | RejectKind::MissingInputs(_));
                    if package.len() == 1 || !hope {
                        over = true;
                    } else {
                        left.push(Arc::clone(tx));
                    }
                    results.insert(wtxid, PackageTx::Refused(reject));
                }
            }
        }
        let mut error = over.then(|| PackageError::transaction(FAILED));
        if !over && !left.is_empty() {
            let together = self.accept_together(now, &left, max_rate);
            error = together.error;
            results.extend(together.results);
        }
        self.limit(now);
        for tx in package {
            let wtxid = tx.compute_wtxid();
            let was_here = !matches!(results.get(&wtxid), Some(PackageTx::Refused(_)) | None);
            if was_here && !self.contains(&tx.compute_txid()) {
                error = Some(PackageError::transaction(FAILED));
                let full = PoolReject::policy("mempool full", "");
                results.insert(wtxid, PackageTx::Refused(full));
            }
        }
        PackageOutcome { error, results }
    }

    /// What the pool says of transactions that were handed in together, parents first, without taking them in. Each has
    /// to pay for itself, and none may replace.
    pub fn test_package(&self, now: u64, package: &[Arc<Transaction>]) -> PackageOutcome {
        match self.judge_together(now, package, Setting::PackageTest, None) {
            Err(outcome) => outcome,
            Ok((judged, removed)) => self.verdicts(&judged, &removed, false),
        }
    }

    fn accept_together(&mut self, now: u64, package: &[Arc<Transaction>], max_rate: Option<FeeRate>) -> PackageOutcome {
        if let [tx] = package {
            let (wtxid, tx) = (tx.compute_wtxid(), Arc::clone(tx));
            return match self.admit(now, tx, Setting::AloneOfPackage, max_rate) {
                Err(reject) => PackageOutcome::failed(FAILED, Some((wtxid, reject))),
                Ok(accepted) => PackageOutcome {
                    error: None,
                    results: BTreeMap::from([(wtxid, PackageTx::Accepted(accepted))]),
                },
            };
        }
        match self.judge_together(now, package, Setting::Package, max_rate) {
            Err(outcome) => outcome,
            Ok((judged, removed)) => {
                let outcome = self.verdicts(&judged, &removed, true);
                self.remove(&removed);
                for judged in judged {
                    self.insert(judged.entry);
                }
                outcome
            }
        }
    }

    /// `as_one`: all are in by the fee rate of the whole.
    fn verdicts(&self, package: &[Judged], removed: &BTreeSet<Id>, as_one: bool) -> PackageOutcome {
        let (fee, vsize) = sums(package);
        let all: Vec<Wtxid> = package.iter().map(|judged| judged.entry.wtxid).collect();
        let mut replaced = self.names(removed);
        let verdict = |judged: &Judged| {
            let entry = &judged.entry;
            let own = per_kvb(entry.modified_fee(), entry.vsize);
            let accepted = Accepted {
                txid: entry.txid,
                wtxid: entry.wtxid,
                fee: entry.fee,
                vsize: entry.vsize,
                replaced: std::mem::take(&mut replaced),
                effective_feerate: if as_one { per_kvb(fee, vsize) } else { own },
                effective_includes: if as_one { all.clone() } else { vec![entry.wtxid] },
            };
            (entry.wtxid, PackageTx::Accepted(accepted))
        };
        PackageOutcome {
            error: None,
            results: package.iter().map(verdict).collect(),
        }
    }

    /// All checks of a package as one; with it comes what has to go for it, descendants included.
    fn judge_together(
        &self,
        now: u64,
        package: &[Arc<Transaction>],
        setting: Setting,
        max_rate: Option<FeeRate>,
    ) -> Result<(Vec<Judged>, BTreeSet<Id>), PackageOutcome> {
        check_form(package)?;
        let mut judged: Vec<Judged> = Vec::with_capacity(package.len());
        for tx in package {
            let checked = self
                .judge(now, Arc::clone(tx), setting, &judged)
                .and_then(|checked| check_max_rate(&checked.entry, max_rate).map(|()| checked));
            match checked {
                Ok(checked) => judged.push(checked),
                Err(reject) => return Err(PackageOutcome::failed(FAILED, Some((tx.compute_wtxid(), reject)))),
            }
        }
        for index in 0..judged.len() {
            let parents = judged.get(index).map(|judged| self.parents_of(&judged.entry.tx));
            let parents = parents.unwrap_or_default();
            let parents = parents.iter().filter_map(|id| Some((*id, self.entries.get(id)?)));
            truc::check_package(&judged, index, parents, &self.graph)
                .map_err(|detail| PackageError::policy("TRUC-violation", detail))?;
        }
        let (fee, vsize) = sums(&judged);
        if setting == Setting::Package
            && let Err(reject) = self.check_fee(now, fee, vsize)
        {
            let last = judged.last().map(|judged| (judged.entry.wtxid, reject));
            return Err(PackageOutcome::failed(FAILED, last));
        }
        let removed = self.check_package_replacement(package, &judged)?;
        if self.config.require_standard {
            let find = |txid: &Txid| {
                let member = judged.iter().find(|judged| judged.entry.txid == *txid);
                member.map_or_else(|| self.get(txid), |judged| Some(Arc::clone(&judged.entry.tx)))
            };
            for judged in &judged {
                if let Err(reject) = dust::check_spends(&judged.entry.tx, find, self.config.dust_feerate) {
                    return Err(PackageOutcome::failed(
                        "unspent-dust",
                        Some((judged.entry.wtxid, reject)),
                    ));
                }
            }
        }
        for judged in &judged {
            if let Err(reject) = self.check_scripts(judged) {
                return Err(PackageOutcome::failed(FAILED, Some((judged.entry.wtxid, reject))));
            }
        }
        Ok((judged, removed))
    }

    /// A parent with its child may replace as one if both have no other relatives here.
    fn check_package_replacement(
        &self,
        package: &[Arc<Transaction>],
        judged: &[Judged],
    ) -> Result<BTreeSet<Id>, PackageError> {
        let failed = |why: &str, detail: String| PackageError::policy(&format!("package RBF failed: {why}"), detail);
        let conflicts: BTreeSet<Id> = judged.iter().flat_map(|judged| &judged.conflicts).copied().collect();
        let candidates = self.candidates(judged);
        if conflicts.is_empty() {
            self.improves(&conflicts, &candidates)?;
            return Ok(conflicts);
        }
        let ([parent, child], true) = (judged, is_child_with_parents(package)) else {
            return Err(failed("package must be 1-parent-1-child", String::new()));
        };
        if judged
            .iter()
            .any(|judged| !self.parents_of(&judged.entry.tx).is_empty())
        {
            let why = "new transaction cannot have mempool ancestors";
            return Err(failed(why, String::new()));
        }
        let removed = self
            .replaced_by(child.entry.txid, &conflicts)
            .map_err(|detail| failed("too many potential replacements", detail))?;
        let (fee, vsize) = sums(judged);
        self.check_pays(&removed, child.entry.txid, fee, vsize)
            .map_err(|detail| failed("insufficient anti-DoS fees", detail))?;
        let ratio = |fee: i64, vsize: u64| Ratio { fee, weight: vsize };
        let (alone, alone_size) = (parent.entry.modified_fee(), parent.entry.vsize);
        if ratio(fee, vsize).cmp_rate(&ratio(alone, alone_size)).is_le() {
            let detail = format!(
                "package feerate {} <= parent feerate is {}",
                rate_text(fee, vsize),
                rate_text(alone, alone_size)
            );
            return Err(failed(
                "package feerate is less than or equal to parent feerate",
                detail,
            ));
        }
        if !self.improves(&removed, &candidates)? {
            return Err(failed(NOT_BETTER, String::new()));
        }
        Ok(removed)
    }
}

/// Modified fees in satoshi and virtual bytes of a package.
fn sums(package: &[Judged]) -> (i64, u64) {
    package.iter().fold((0_i64, 0_u64), |(fee, vsize), judged| {
        (
            fee.saturating_add(judged.entry.modified_fee()),
            vsize.saturating_add(judged.entry.vsize),
        )
    })
}
