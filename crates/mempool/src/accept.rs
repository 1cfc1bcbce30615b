//! Taking a transaction in. The cheap checks come first and the scripts last, in Core's order, so that the reason for
//! a refusal is the same and costs the sender more than us.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut};
use dunlin_chain::rules::{SequenceLocks, check_tx, check_tx_inputs, is_final, sequence_locks, transaction_sigop_cost};
use dunlin_chain::{Coin, Entry as Block, StoreError, script};

use crate::entry::{Entry, Id};
use crate::policy::{dust, spend, standard, truc};
use crate::{Accepted, Pool, PoolReject, RejectKind};

/// Largest cost of one transaction's signature operations: a fifth of a block's.
const MAX_SIGOPS: u64 = 80_000 / 5;
/// Outputs of a transaction without known inputs that are looked up to see whether it is confirmed already.
const CONFIRMED_LOOKUPS: usize = 4;

/// Where a transaction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody sent it.
    Sent,
    /// It was in a block that is no longer part of the chain: it does not have to pay for its place.
    Returned,
}

impl Pool {
    /// Takes a transaction in, or says why not. `now` is the time in Unix seconds.
    ///
    /// # Errors
    /// [`PoolReject`]; its kind tells whether the transaction is at fault, merely unwanted, or known.
    pub fn accept(&mut self, now: u64, tx: Arc<Transaction>) -> Result<Accepted, PoolReject> {
        self.clock = self.clock.max(now);
        let accepted = self.admit(now, tx, Origin::Sent)?;
        self.limit(now);
        if !self.contains(&accepted.txid) {
            return Err(PoolReject::policy("mempool full", ""));
        }
        Ok(accepted)
    }

    /// [`Pool::accept`] without the limits of the whole pool.
    pub(crate) fn admit(&mut self, now: u64, tx: Arc<Transaction>, origin: Origin) -> Result<Accepted, PoolReject> {
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

        let coins = self.coins(&tx, txid, &tip)?;
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

        let pays = entry.fee.to_sat() != 0;
        if self.config.require_standard && pays && dust::outputs(&entry.tx, self.config.dust_feerate).next().is_some() {
            return Err(PoolReject::policy("dust", "tx with dust output must be 0-fee"));
        }
        if sigops > MAX_SIGOPS {
            return Err(PoolReject::policy("bad-txns-too-many-sigops", sigops.to_string()));
        }
        if origin == Origin::Sent {
            self.check_fee(now, &entry)?;
            self.check_truc(&entry, &mut conflicts)?;
        }

        let removed = self.check_replacement(&entry, &conflicts)?;
        if origin == Origin::Sent && self.config.require_standard {
            let parents = self.parents_of(&entry.tx);
            let parents = parents
                .iter()
                .filter_map(|id| self.entries.get(id))
                .map(|parent| &*parent.tx);
            dust::check_spends(&entry.tx, parents, self.config.dust_feerate)?;
        }
        check_scripts(&entry.tx, &spent)?;
        self.view.note_verified(wtxid, script::VERIFY_ALL);

        let replaced = self.names(&removed);
        self.remove(&removed);
        if origin == Origin::Returned {
            self.make_room_for_children(&entry);
        }
        let accepted = Accepted {
            txid,
            wtxid,
            fee: entry.fee,
            vsize: entry.vsize,
            replaced,
        };
        self.insert(entry);
        Ok(accepted)
    }

    /// The coins that a transaction spends, in input order: outputs of the pool, which count as made in the next
    /// block, or of the chain.
    fn coins(&self, tx: &Transaction, txid: bitcoin::Txid, tip: &Block) -> Result<Vec<Coin>, PoolReject> {
        let mut coins = Vec::with_capacity(tx.input.len());
        let mut missing = Vec::new();
        for input in &tx.input {
            match self.coin(&input.previous_output, tip)? {
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
            let output = usize::try_from(outpoint.vout)
                .ok()
                .and_then(|vout| parent.tx.output.get(vout));
            return Ok(output.map(|output| Coin {
                output: output.clone(),
                height: tip.height.saturating_add(1),
                coinbase: false,
            }));
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

    fn check_fee(&self, now: u64, entry: &Entry) -> Result<(), PoolReject> {
        let short = |reason, needed: bitcoin::Amount| {
            let detail = format!("{} < {}", entry.fee.to_sat(), needed.to_sat());
            if entry.fee < needed {
                Err(PoolReject::policy(reason, detail))
            } else {
                Ok(())
            }
        };
        short("mempool min fee not met", self.floor_at(now).fee(entry.vsize))?;
        short("min relay fee not met", self.config.min_relay_feerate.fee(entry.vsize))
    }

    /// Applies BIP 431. Where putting the other child of the parent out would do, that child joins the conflicts.
    fn check_truc(&self, entry: &Entry, conflicts: &mut BTreeSet<Id>) -> Result<(), PoolReject> {
        let parents = self.parents_of(&entry.tx);
        let parents = parents.iter().filter_map(|id| Some((*id, self.entries.get(id)?)));
        let Err(violation) = truc::check(entry, parents, |id| conflicts.contains(&id), &self.graph) else {
            return Ok(());
        };
        match violation.sibling {
            Some(sibling) => {
                conflicts.insert(sibling);
                Ok(())
            }
            None => Err(PoolReject::policy("TRUC-violation", violation.detail)),
        }
    }
}

/// Runs the scripts with every consensus rule.
fn check_scripts(tx: &Transaction, spent: &[TxOut]) -> Result<(), PoolReject> {
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
