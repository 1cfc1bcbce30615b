//! Dust: outputs that cost more to spend than they are worth. A transaction may have one if it pays no fee, so that
//! only somebody who spends the dust at once has a reason to mine it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut, Txid, VarInt};

use super::output::is_unspendable;
use crate::{FeeRate, PoolReject};

/// Dust outputs that a transaction may have.
pub(crate) const MAX_DUST_OUTPUTS: usize = 1;

/// The least value of an output that is not dust at `rate`.
fn threshold(output: &TxOut, rate: FeeRate) -> u64 {
    if is_unspendable(&output.script_pubkey) {
        return 0;
    }
    let script = output.script_pubkey.len();
    let own = 8 + VarInt::from(script).size() + script;
    // The input that would spend it: outpoint, script length, sequence, and 107 bytes of signature and key, a quarter
    // of them where they are witness.
    let spending = 32
        + 4
        + 1
        + 4
        + if output.script_pubkey.is_witness_program() {
            107 / 4
        } else {
            107
        };
    rate.fee((own + spending) as u64).to_sat()
}

/// The dust outputs of a transaction.
pub(crate) fn outputs(tx: &Transaction, rate: FeeRate) -> impl Iterator<Item = u32> + '_ {
    let indexed = (0_u32..).zip(&tx.output);
    indexed
        .filter(move |(_, output)| output.value.to_sat() < threshold(output, rate))
        .map(|(index, _)| index)
}

/// A transaction must spend all dust of those that it spends from; `unconfirmed` finds them.
pub(crate) fn check_spends(
    tx: &Transaction,
    unconfirmed: impl Fn(&Txid) -> Option<Arc<Transaction>>,
    rate: FeeRate,
) -> Result<(), PoolReject> {
    let parents: BTreeSet<Txid> = tx.input.iter().map(|input| input.previous_output.txid).collect();
    let mut unspent = BTreeSet::new();
    for txid in parents {
        if let Some(parent) = unconfirmed(&txid) {
            unspent.extend(outputs(&parent, rate).map(|vout| OutPoint { txid, vout }));
        }
    }
    for input in &tx.input {
        unspent.remove(&input.previous_output);
    }
    if unspent.is_empty() {
        return Ok(());
    }
    Err(PoolReject::policy(
        "missing-ephemeral-spends",
        format!(
            "tx {} (wtxid={}) did not spend parent's ephemeral dust",
            tx.compute_txid(),
            tx.compute_wtxid()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, PubkeyHash, ScriptBuf, WPubkeyHash, WScriptHash};

    #[test]
    fn the_thresholds_are_the_known_ones() {
        let rate = FeeRate::from_sat_per_kvb(3000);
        let of = |script_pubkey: ScriptBuf| {
            threshold(
                &TxOut {
                    value: Amount::ZERO,
                    script_pubkey,
                },
                rate,
            )
        };
        assert_eq!(of(ScriptBuf::new_p2pkh(&PubkeyHash::all_zeros())), 546);
        assert_eq!(of(ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros())), 294);
        assert_eq!(of(ScriptBuf::new_p2wsh(&WScriptHash::all_zeros())), 330);
        assert_eq!(of(ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73])), 240, "anchors");
        assert_eq!(of(ScriptBuf::from_bytes(vec![0x6a, 1, 1])), 0);
    }
}
