//! Transaction rules: shape and amounts, inputs and coinbase maturity, lock time finality (BIP 113 decides the time to
//! compare with) and relative lock times (BIP 68).

use std::collections::HashSet;

use bitcoin::Amount;

use super::block::{MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR};
use crate::{Coin, Reject, RejectKind, TxParts, money};

/// No amount, and no sum of amounts, exceeds this many satoshi.
pub const MAX_MONEY: u64 = 21_000_000 * 100_000_000;
/// Blocks that must be built on a coinbase before it is spent, its own included.
pub const COINBASE_MATURITY: u32 = 100;
/// Lock times below are heights, others are times.
pub const LOCKTIME_THRESHOLD: u32 = 500_000_000;

const SEQUENCE_FINAL: u32 = 0xffff_ffff;
const SEQUENCE_LOCKTIME_DISABLE_FLAG: u32 = 1 << 31;
const SEQUENCE_LOCKTIME_TYPE_FLAG: u32 = 1 << 22;
const SEQUENCE_LOCKTIME_MASK: u32 = 0xffff;
const SEQUENCE_LOCKTIME_GRANULARITY: u32 = 9;

/// What can be said of a transaction alone.
pub fn check_tx(tx: &impl TxParts) -> Result<(), Reject> {
    let reject = |reason| Err(Reject::consensus(reason, ""));
    if tx.inputs().len() == 0 {
        return reject("bad-txns-vin-empty");
    }
    if tx.outputs().len() == 0 {
        return reject("bad-txns-vout-empty");
    }
    if (tx.base_size() as u64).saturating_mul(WITNESS_SCALE_FACTOR) > MAX_BLOCK_WEIGHT {
        return reject("bad-txns-oversize");
    }
    let mut total = 0_u64;
    for output in tx.outputs() {
        let value = output.value;
        // On the wire an amount is signed; the upper half of the unsigned range is negative.
        if value > i64::MAX as u64 {
            return reject("bad-txns-vout-negative");
        }
        if value > MAX_MONEY {
            return reject("bad-txns-vout-toolarge");
        }
        total = total.saturating_add(value);
        if total > MAX_MONEY {
            return reject("bad-txns-txouttotal-toolarge");
        }
    }
    // CVE-2018-17144: nothing later notices an input that is named twice.
    if spends_twice(tx) {
        return reject("bad-txns-inputs-duplicate");
    }
    if tx.is_coinbase() {
        if tx.inputs().any(|input| !(2..=100).contains(&input.script_sig.len())) {
            return reject("bad-cb-length");
        }
    } else if tx.inputs().any(|input| input.previous_output.is_null()) {
        return reject("bad-txns-prevout-null");
    }
    Ok(())
}

/// Whether two inputs name the same output.
fn spends_twice(tx: &impl TxParts) -> bool {
    let mut outpoints = tx.inputs().map(|input| input.previous_output);
    match outpoints.len() {
        0 | 1 => false,
        2 => outpoints.next() == outpoints.next(),
        count => {
            let mut seen = HashSet::with_capacity(count);
            !outpoints.all(|outpoint| seen.insert(outpoint))
        }
    }
}

/// The rules for a transaction (not a coinbase) that passed [`check_tx`] and whose coins are all known: `spent` holds
/// them in input order, `height` is that of the block which would contain it. Returns the fee.
pub fn check_tx_inputs(tx: &impl TxParts, spent: &[Coin], height: u32) -> Result<Amount, Reject> {
    if spent.len() != tx.inputs().len() {
        return Err(Reject::missing_inputs("inputs missing/spent"));
    }
    let mut value_in = 0_u64;
    for coin in spent {
        let depth = i64::from(height) - i64::from(coin.height);
        if coin.coinbase && depth < i64::from(COINBASE_MATURITY) {
            return Err(Reject::new(
                RejectKind::Premature,
                "bad-txns-premature-spend-of-coinbase",
                format!("tried to spend coinbase at depth {depth}"),
            ));
        }
        let value = coin.output.value.to_sat();
        value_in = value_in.saturating_add(value);
        if value > MAX_MONEY || value_in > MAX_MONEY {
            return Err(Reject::consensus("bad-txns-inputvalues-outofrange", ""));
        }
    }
    let value_out = tx.outputs().fold(0_u64, |sum, output| sum.saturating_add(output.value));
    match value_in.checked_sub(value_out) {
        Some(fee) => Ok(Amount::from_sat(fee)),
        None => {
            let [value_in, value_out] = [value_in, value_out].map(|sum| money(i64::try_from(sum).unwrap_or(i64::MAX)));
            Err(Reject::consensus(
                "bad-txns-in-belowout",
                format!("value in ({value_in}) < value out ({value_out})"),
            ))
        }
    }
}

/// May the transaction be in a block of this height? `time` is the block's own, or the median time past of its parent
/// where BIP 113 is in force.
pub fn is_final(tx: &impl TxParts, height: u32, time: u32) -> bool {
    let lock = tx.lock_time();
    let reached = if lock < LOCKTIME_THRESHOLD { height } else { time };
    lock == 0 || lock < reached || tx.inputs().all(|input| input.sequence == SEQUENCE_FINAL)
}

/// The last height and the last time at which a transaction's relative lock times are not yet met; -1 stands for no
/// limit, as in Core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceLocks {
    /// The transaction is valid in blocks above this height.
    pub height: i64,
    /// The transaction is valid in blocks whose parent's median time past is above this, in seconds.
    pub time: i64,
}

impl SequenceLocks {
    /// No relative lock.
    pub const NONE: Self = Self { height: -1, time: -1 };

    /// Is the lock open for a block of `height` whose parent has `parent_median` as median time past?
    pub fn open_at(&self, height: u32, parent_median: u32) -> bool {
        self.height < i64::from(height) && self.time < i64::from(parent_median)
    }
}

/// The relative locks of `tx` (BIP 68): `heights` are those of the coins it spends, in input order, and
/// `median_time_past_at` answers with the median time past of the block at a height of the same chain.
///
/// Call it only where BIP 68 is in force. The version is compared without its sign: negative versions take part.
pub fn sequence_locks(
    tx: &impl TxParts,
    heights: impl IntoIterator<Item = u32>,
    mut median_time_past_at: impl FnMut(u32) -> u32,
) -> SequenceLocks {
    let mut locks = SequenceLocks::NONE;
    if (tx.version() as u32) < 2 {
        return locks;
    }
    for (input, coin_height) in tx.inputs().zip(heights) {
        let sequence = input.sequence;
        if sequence & SEQUENCE_LOCKTIME_DISABLE_FLAG != 0 {
            continue;
        }
        let value = sequence & SEQUENCE_LOCKTIME_MASK;
        if sequence & SEQUENCE_LOCKTIME_TYPE_FLAG != 0 {
            // Counted from the earliest time that the coin's own block could have had.
            let from = i64::from(median_time_past_at(coin_height.saturating_sub(1)));
            let span = i64::from(value << SEQUENCE_LOCKTIME_GRANULARITY);
            locks.time = locks.time.max(from + span - 1);
        } else {
            locks.height = locks.height.max(i64::from(coin_height) + i64::from(value) - 1);
        }
    }
    locks
}

/// BIP 68 as a rule of a block of `height` whose parent has `parent_median`; see [`sequence_locks`] for the rest.
pub fn check_sequence_locks(
    tx: &impl TxParts,
    heights: impl IntoIterator<Item = u32>,
    height: u32,
    parent_median: u32,
    median_time_past_at: impl FnMut(u32) -> u32,
) -> Result<(), Reject> {
    if sequence_locks(tx, heights, median_time_past_at).open_at(height, parent_median) {
        return Ok(());
    }
    let detail = format!("contains a non-BIP68-final transaction {}", tx.txid());
    Err(Reject::new(RejectKind::Premature, "bad-txns-nonfinal", detail))
}

#[cfg(test)]
#[path = "tx_tests.rs"]
mod tests;
