//! One transaction of the pool.

use std::mem::size_of;
use std::sync::Arc;

use bitcoin::{Amount, Transaction, TxIn, TxOut, Txid, Wtxid};

use crate::feerate::Ratio;

/// The order of arrival; also the order in which the pool is listed.
pub(crate) type Id = u64;

/// A byte of virtual size is charged for at least this much of a signature operation's cost.
const BYTES_PER_SIGOP: u64 = 20;

/// One transaction of the pool and what was computed when it came in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its hash without witnesses.
    pub txid: Txid,
    /// Its hash with witnesses.
    pub wtxid: Wtxid,
    /// What it pays.
    pub fee: Amount,
    /// What an operator's priority adds to that, in satoshi.
    pub delta: i64,
    /// BIP 141 weight.
    pub weight: u64,
    /// Virtual size in bytes, raised where signature operations are dense.
    pub vsize: u64,
    /// Cost of its signature operations.
    pub sigops: u64,
    /// When it came in, in Unix seconds.
    pub time: u64,
    /// The height of the tip at that time.
    pub height: u32,
    /// Spends a coinbase directly, so that a reorganisation may make it premature.
    pub spends_coinbase: bool,
    /// Estimated memory that it takes, in bytes.
    pub usage: u64,
    pub(crate) adjusted_weight: u64,
}

impl Entry {
    pub(crate) fn new(tx: Arc<Transaction>, txid: Txid, wtxid: Wtxid, fee: Amount, sigops: u64) -> Self {
        let weight = tx.weight().to_wu();
        let adjusted_weight = weight.max(sigops.saturating_mul(BYTES_PER_SIGOP));
        let usage = usage(&tx);
        Self {
            tx,
            txid,
            wtxid,
            fee,
            delta: 0,
            weight,
            vsize: adjusted_weight.div_ceil(4),
            sigops,
            time: 0,
            height: 0,
            spends_coinbase: false,
            usage,
            adjusted_weight,
        }
    }

    /// The fee with the operator's priority, in satoshi; by this a transaction is mined, replaced and evicted.
    pub fn modified_fee(&self) -> i64 {
        let fee = i64::try_from(self.fee.to_sat()).unwrap_or(i64::MAX);
        fee.saturating_add(self.delta)
    }

    pub(crate) fn ratio(&self) -> Ratio {
        Ratio {
            fee: self.modified_fee(),
            weight: self.adjusted_weight,
        }
    }
}

/// Memory for the transaction, its place in the indexes, and its links, on the high side.
fn usage(tx: &Transaction) -> u64 {
    const ALLOCATION: usize = 16;
    let inputs: usize = tx
        .input
        .iter()
        .map(|input| {
            let witness: usize = input.witness.iter().map(|item| item.len() + 8).sum();
            // The outpoint is also a key of the index of spends.
            size_of::<TxIn>() + input.script_sig.len() + witness + 2 * ALLOCATION + 64
        })
        .sum();
    let outputs: usize = tx
        .output
        .iter()
        .map(|output| size_of::<TxOut>() + output.script_pubkey.len() + ALLOCATION)
        .sum();
    // Two hash indexes, the entry, the node, the cluster and the chunk with their tree nodes.
    (size_of::<Transaction>() + size_of::<Entry>() + inputs + outputs + 600) as u64
}
