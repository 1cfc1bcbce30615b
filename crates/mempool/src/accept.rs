//! Taking a transaction in. The cheap checks come first and the scripts last, in Core's order, so that the reason for
//! a refusal is the same and costs the sender more than us.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut};
use dunlin_chain::rules::{SequenceLocks, check_tx, check_tx_inputs, is_final, sequence_locks, transaction_sigop_cost};
use dunlin_chain::{Coin, Entry as Block, StoreError, script};

use crate::entry::{Entry, Id};
use crate::policy::{dust, script_flags, spend, standard, truc};
use crate::{Accepted, FeeRate, Pool, PoolReject, RejectKind};

/// Largest cost of one transaction's signature operations: a fifth of a block's.
const MAX_SIGOPS: u64 = 80_000 / 5;
/// Outputs of a transaction without known inputs that are looked up to see whether it is confirmed already.
const CONFIRMED_LOOKUPS: usize = 4;
/// Seconds up to which the tip may be old for the fee estimates to learn from what comes.
const CURRENT_TIP_AGE: u64 = 3 * 60 * 60;

/// In which setting a transaction is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// By itself.
    Alone,
    /// It was in a block that is no longer part of the chain: it does not have to pay for its place.
    Returned,
    /// By itself, as a part of a package that somebody handed in.
    AloneOfPackage,
    /// With a package that pays as a whole.
    Package,
    /// With a package that nobody hands in: each member has to pay for itself, and none may replace.
    PackageTest,
}

impl Setting {
    fn is_package(self) -> bool {
        matches!(self, Self::Package | Self::PackageTest)
    }
}

/// A transaction that passed all checks but those that concern others, and its scripts.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) entry: Entry,
    /// What it spends, in input order.
    pub(crate) spent: Vec<TxOut>,
    /// What has to go for it, without descendants.
    pub(crate) conflicts: BTreeSet<Id>,
    /// One of them spends another output of its version 3 parent.
    pub(crate) sibling: bool,
}

impl Pool {
    /// Takes a transaction in, or says why not. `now` is the time in Unix seconds.
    ///
    /// # Errors
    /// [`PoolReject`]; its kind tells whether the transaction is at fault, merely unwanted, or known.
    pub fn accept(&mut self, now: u64, tx: Arc<Transaction>) -> Result<Accepted, PoolReject> {
        self.accept_dated(now, now, tx)
    }

    /// [`Pool::accept`] of a transaction that came at `time`, in Unix seconds.
    pub(crate) fn accept_dated(&mut self, now: u64, time: u64, tx: Arc<Transaction>) -> Result<Accepted, PoolReject> {
        self.clock = self.clock.max(now);
        let accepted = self.admit(now, tx, Setting::Alone, None)?;
        self.date(&accepted.txid, time);
        self.limit(now);
        if !self.contains(&accepted.txid) {
            return Err(PoolReject::reconsiderable("mempool full", ""));
        }
        Ok(accepted)
    }

    /// What [`Pool::accept`] would say, without taking the transaction in. That the pool may be full is not looked at.
    ///
    /// # Errors
    /// Those of [`Pool::accept`].
    pub fn test_accept(&self, now: u64, tx: Arc<Transaction>) -> Result<Accepted, PoolReject> {
        let (judged, removed) = self.judge_alone(now, tx, Setting::Alone, None)?;
        Ok(self.verdict(&judged.entry, &removed))
    }

    /// [`Pool::accept`] without the limits of the whole pool. Nothing that pays more than `max_rate` is taken.
    pub(crate) fn admit(
        &mut self,
        now: u64,
        tx: Arc<Transaction>,
        setting: Setting,
        max_rate: Option<FeeRate>,
    ) -> Result<Accepted, PoolReject> {
        let (judged, removed) = self.judge_alone(now, tx, setting, max_rate)?;
        let accepted = self.verdict(&judged.entry, &removed);
        self.remove(&removed);
        if setting == Setting::Returned {
            self.make_room_for_children(&judged.entry);
        }
        let learn = setting == Setting::Alone && self.is_current(now) && self.parents_of(&judged.entry.tx).is_empty();
        if learn {
            self.estimator.entered(&judged.entry);
        }
        self.insert(judged.entry);
        Ok(accepted)
    }

    /// Is the chain near its end, so that a transaction which comes now could be in the next block?
    fn is_current(&self, now: u64) -> bool {
        u64::from(self.view.tip().header.time).saturating_add(CURRENT_TIP_AGE) >= now
    }

    fn verdict(&self, entry: &Entry, removed: &BTreeSet<Id>) -> Accepted {
        Accepted {
            txid: entry.txid,
            wtxid: entry.wtxid,
            fee: entry.fee,
            vsize: entry.vsize,
            replaced: self.names(removed),
            effective_feerate: per_kvb(entry.modified_fee(), entry.vsize),
            effective_includes: vec![entry.wtxid],
        }
    }

    /// All checks of a transaction by itself; with it comes what has to go for it, descendants included.
    fn judge_alone(
        &self,
        now: u64,
        tx: Arc<Transaction>,
        setting: Setting,
        max_rate: Option<FeeRate>,
    ) -> Result<(Judged, BTreeSet<Id>), PoolReject> {
        let judged = self.judge(now, tx, setting, &[])?;
        let removed = self.check_replacement(&judged)?;
        check_max_rate(&judged.entry, max_rate)?;
        if setting != Setting::Returned && self.config.require_standard {
            dust::check_spends(&judged.entry.tx, |txid| self.get(txid), self.config.dust_feerate)?;
        }
        self.check_scripts(&judged)?;
        Ok((judged, removed))
    }

    /// The checks that need nobody's agreement, without scripts. `earlier` are those before it in its package.
    pub(crate) fn judge(
        &self,
        now: u64,
        tx: Arc<Transaction>,
        setting: Setting,
        earlier: &[Judged],
    ) -> Result<Judged, PoolReject> {
        check_tx(&*tx)?;
        if tx.is_coinbase() {
            return Err(PoolReject::consensus("coinbase", ""));
        }
        if self.config.require_standard {
            standard::check(&tx, &self.config)?;
        }
        standard::check_min_size(&tx)?;
        let tip = self.view.tip();
        if !is_final(&*tx, tip.height.saturating_add(1), tip.median_time_past) {
            return Err(PoolReject::policy("non-final", ""));
        }
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        if self.contains_wtxid(&wtxid) {
            return Err(PoolReject::known("txn-already-in-mempool"));
        }
        if self.contains(&txid) {
            return Err(PoolReject::known("txn-same-nonwitness-data-in-mempool"));
        }
        let mut conflicts: BTreeSet<Id> = tx
            .input
            .iter()
            .filter_map(|input| self.spender_id(&input.previous_output))
            .collect();
        if setting == Setting::PackageTest && !conflicts.is_empty() {
            return Err(PoolReject::policy("bip125-replacement-disallowed", ""));
        }

        let coins = self.coins(&tx, txid, &tip, earlier)?;
        if !self
            .locks(&tx, &coins, &tip)
            .open_at(tip.height.saturating_add(1), tip.median_time_past)
        {
            return Err(PoolReject::policy("non-BIP68-final", ""));
        }
        let fee = check_tx_inputs(&*tx, &coins, tip.height.saturating_add(1))?;
        let spends_coinbase = coins.iter().any(|coin| coin.coinbase);
        let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.output).collect();
        if self.config.require_standard {
            spend::check_inputs(&tx, &spent)?;
            spend::check_witnesses(&tx, &spent)?;
        }
        let sigops = transaction_sigop_cost(&*tx, &spent, script::VERIFY_ALL);
        let mut entry = Entry::new(tx, txid, wtxid, fee, sigops);
        entry.time = now;
        entry.height = tip.height;
        entry.spends_coinbase = spends_coinbase;
        entry.delta = self.deltas.get(&txid).copied().unwrap_or_default();

        let pays = entry.fee.to_sat() != 0 || entry.modified_fee() != 0;
        if self.config.require_standard && pays && dust::outputs(&entry.tx, self.config.dust_feerate).next().is_some() {
            return Err(PoolReject::policy("dust", "tx with dust output must be 0-fee"));
        }
        if sigops > MAX_SIGOPS {
            return Err(PoolReject::policy("bad-txns-too-many-sigops", sigops.to_string()));
        }
        if !matches!(setting, Setting::Returned | Setting::Package) {
            self.check_fee(now, entry.modified_fee(), entry.vsize)?;
        }
        let sibling = setting != Setting::Returned && self.check_truc(&entry, &mut conflicts, !setting.is_package())?;
        Ok(Judged {
            entry,
            spent,
            conflicts,
            sibling,
        })
    }

    /// Checks the scripts by Core's flags as far as their form shows, runs them with every consensus rule, and remembers
    /// that they are fine.
    pub(crate) fn check_scripts(&self, judged: &Judged) -> Result<(), PoolReject> {
        if let Err((input, broken)) = script_flags::check(&judged.entry.tx, &judged.spent) {
            let reason = format!("mempool-script-verify-flag-failed ({broken})");
            return Err(PoolReject::policy(reason, failed_input(&judged.entry, input)));
        }
        verify(&judged.entry.tx, &judged.spent)?;
        self.view.note_verified(judged.entry.wtxid, script::VERIFY_ALL);
        Ok(())
    }

    /// The coins that a transaction spends, in input order: outputs of its package or the pool, which count as made in
    /// the next block, or of the chain.
    fn coins(
        &self,
        tx: &Transaction,
        txid: bitcoin::Txid,
        tip: &Block,
        earlier: &[Judged],
    ) -> Result<Vec<Coin>, PoolReject> {
        let mut coins = Vec::with_capacity(tx.input.len());
        let mut missing = Vec::new();
        for input in &tx.input {
            let mut entries = earlier.iter().map(|judged| &judged.entry);
            let coin = match entries.find(|entry| entry.txid == input.previous_output.txid) {
                Some(parent) => output_of(parent, input.previous_output.vout, tip),
                None => self.coin(&input.previous_output, tip)?,
            };
            match coin {
                Some(coin) => coins.push(coin),
                None => missing.push(input.previous_output),
            }
        }
        if missing.is_empty() {
            return Ok(coins);
        }
        for vout in (0..tx.output.len().min(CONFIRMED_LOOKUPS) as u32).map(|vout| OutPoint { txid, vout }) {
            if self.view.coin(&vout)?.is_some() {
                return Err(PoolReject::known("txn-already-known"));
            }
        }
        Err(PoolReject::missing(missing))
    }

    /// An output of the pool or the chain; whether another transaction of the pool spends it is not asked.
    pub(crate) fn coin(&self, outpoint: &OutPoint, tip: &Block) -> Result<Option<Coin>, StoreError> {
        if let Some(parent) = self.entry(&outpoint.txid) {
            return Ok(output_of(parent, outpoint.vout, tip));
        }
        self.view.coin(outpoint)
    }

    /// The relative lock times of a transaction on the present chain.
    pub(crate) fn locks(&self, tx: &Transaction, coins: &[Coin], tip: &Block) -> SequenceLocks {
        let heights = coins.iter().map(|coin| coin.height);
        sequence_locks(tx, heights, |height| {
            let median = |entry: Block| entry.median_time_past;
            if height >= tip.height {
                tip.median_time_past
            } else {
                self.view.entry_at(height).map_or(0, median)
            }
        })
    }

    /// Does a fee, with the operator's priority, suffice for so many virtual bytes?
    pub(crate) fn check_fee(&self, now: u64, fee: i64, vsize: u64) -> Result<(), PoolReject> {
        let short = |reason, needed: bitcoin::Amount| {
            let needed = i64::try_from(needed.to_sat()).unwrap_or(i64::MAX);
            if fee < needed {
                Err(PoolReject::reconsiderable(reason, format!("{fee} < {needed}")))
            } else {
                Ok(())
            }
        };
        short("mempool min fee not met", self.floor_at(now).fee(vsize))?;
        short("min relay fee not met", self.config.min_relay_feerate.fee(vsize))
    }

    /// Applies BIP 431. Where putting the other child of the parent out would do, and `evict` allows it, that child
    /// joins the conflicts; returns whether it did.
    fn check_truc(&self, entry: &Entry, conflicts: &mut BTreeSet<Id>, evict: bool) -> Result<bool, PoolReject> {
        let parents = self.parents_of(&entry.tx);
        let parents = parents.iter().filter_map(|id| Some((*id, self.entries.get(id)?)));
        let Err(violation) = truc::check(entry, parents, |id| conflicts.contains(&id), &self.graph) else {
            return Ok(false);
        };
        match violation.sibling {
            Some(sibling) if evict => {
                conflicts.insert(sibling);
                Ok(true)
            }
            _ => Err(PoolReject::policy("TRUC-violation", violation.detail)),
        }
    }
}

/// An output of an unconfirmed transaction, as if it were in the next block.
fn output_of(parent: &Entry, vout: u32, tip: &Block) -> Option<Coin> {
    let output = parent.tx.output.get(usize::try_from(vout).ok()?)?;
    Some(Coin {
        output: output.clone(),
        height: tip.height.saturating_add(1),
        coinbase: false,
    })
}

/// A fee rate in satoshi per 1000 virtual bytes, rounded down.
pub(crate) fn per_kvb(fee: i64, vsize: u64) -> i64 {
    let rate = (i128::from(fee) * 1000).div_euclid(i128::from(vsize.max(1)));
    i64::try_from(rate).unwrap_or(i64::MAX)
}

/// Refuses what pays more than its sender wants to pay.
pub(crate) fn check_max_rate(entry: &Entry, max_rate: Option<FeeRate>) -> Result<(), PoolReject> {
    let exceeded = |rate: FeeRate| {
        i128::from(entry.modified_fee()) * 1000 > i128::from(rate.sat_per_kvb()) * i128::from(entry.vsize)
    };
    if max_rate.is_some_and(exceeded) {
        return Err(PoolReject::policy("max feerate exceeded", ""));
    }
    Ok(())
}

/// Names an input whose script fails, as Core does.
fn failed_input(entry: &Entry, input: usize) -> String {
    let spent = entry.tx.input.get(input).map(|input| input.previous_output);
    let spent = spent.unwrap_or_default();
    format!(
        "input {input} of {} (wtxid {}), spending {spent}",
        entry.txid, entry.wtxid
    )
}

/// Runs the scripts with every consensus rule.
fn verify(tx: &Transaction, spent: &[TxOut]) -> Result<(), PoolReject> {
    script::verify_tx(tx, spent, script::VERIFY_ALL).map_err(|fail| {
        let stripped =
            tx.input.iter().all(|input| input.witness.is_empty()) && spend::spends_witness_program(tx, spent);
        PoolReject {
            reason: "mempool-script-verify-flag-failed".into(),
            // Somebody may have taken the witness off on the way: nothing is proven against the transaction.
            kind: if stripped {
                RejectKind::Policy
            } else {
                RejectKind::Consensus
            },
            detail: fail.to_string(),
        }
    })
}
