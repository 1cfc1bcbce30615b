//! What SwiftSync makes of one block: hashes for the aggregate, and the coins that are unspent in the end.

use bitcoin::OutPoint;
use dunlin_store::Changes;

use super::aggregate::{Aggregate, CoinParts, Salted};
use super::hints::{Hints, HintsError};
use crate::coin::{self, is_spendable};
use crate::undo::BlockUndo;
use crate::{ParsedBlock, TxParts};

/// Sums over blocks in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Coins created less coins spent, without those that are unspent in the end.
    pub(crate) aggregate: Aggregate,
    /// The amounts of those, in satoshi; as good as endless beyond 64 bits.
    pub(crate) amount: u64,
    /// How many they are.
    pub(crate) coins: u64,
}

impl Totals {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.aggregate.merge(&other.aggregate);
        self.amount = self.amount.saturating_add(other.amount);
        self.coins = self.coins.saturating_add(other.coins);
    }
}

/// Adds up one block; the coins that stay go to `kept`.
///
/// `overwritten` says that nobody can ever spend the outputs of its coinbase, because a later one of the same name took
/// their place (BIP 30). With what the block is said to spend, the sums are over whole coins: the full form. Without,
/// they are over the names of coins.
///
/// # Errors
/// When the hints for the block are damaged, or name outputs that it has not got.
pub(crate) fn digest(
    hints: &Hints,
    salted: &Salted,
    block: &ParsedBlock,
    height: u32,
    overwritten: bool,
    spends: Option<&BlockUndo>,
    kept: &mut Changes,
) -> Result<Totals, HintsError> {
    let mut totals = Totals::default();
    let unspent = hints.unspent(height)?;
    let mut unspent = unspent.into_iter().peekable();
    let mut place = 0u32;
    for (index, tx) in block.transactions().enumerate() {
        let (txid, coinbase) = (tx.txid(), index == 0);
        match (index.checked_sub(1), spends) {
            (None, _) => {}
            (Some(_), None) => {
                for spent in tx.previous_outputs() {
                    totals.aggregate.remove(salted.outpoint(&spent));
                }
            }
            (Some(row), Some(spends)) => {
                let coins = spends.spent.get(row).into_iter().flatten();
                for (spent, coin) in tx.previous_outputs().zip(coins) {
                    let parts = CoinParts {
                        height: coin.height,
                        coinbase: coin.coinbase,
                        script: coin.output.script_pubkey.as_bytes(),
                        value: coin.output.value.to_sat(),
                    };
                    totals.aggregate.remove(salted.coin(&spent, &parts));
                }
            }
        }
        for (vout, output) in (0u32..).zip(tx.outputs()) {
            let stays = unspent.next_if_eq(&place).is_some();
            place = place.saturating_add(1);
            if !is_spendable(output.script_pubkey) || (overwritten && coinbase) {
                continue;
            }
            let outpoint = OutPoint { txid, vout };
            let script = output.script_pubkey.as_bytes();
            if stays {
                kept.put(&coin::key(&outpoint), true, |out| {
                    coin::encode_parts(height, coinbase, output.value, script, out);
                });
                totals.amount = totals.amount.saturating_add(output.value);
                totals.coins += 1;
            } else if spends.is_some() {
                let parts = CoinParts {
                    height,
                    coinbase,
                    script,
                    value: output.value,
                };
                totals.aggregate.add(salted.coin(&outpoint, &parts));
            } else {
                totals.aggregate.add(salted.outpoint(&outpoint));
            }
        }
    }
    match unspent.next() {
        None => Ok(totals),
        Some(_) => Err(HintsError::Damaged {
            height,
            what: "they name an output that the block has not got",
        }),
    }
}
