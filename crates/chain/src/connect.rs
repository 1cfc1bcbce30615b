//! Putting one block on top of a chain: every rule that needs the coins, but for the scripts.
//!
//! The order of the checks is Core's, so that a block with one fault is refused for the same reason.

use bitcoin::{Amount, OutPoint};
use dunlin_store::StoreError;

use crate::overlay::Overlay;
use crate::rules::{self, bip30};
use crate::script::Flags;
use crate::tx_parts::TxRef;
use crate::undo::SpentRecord;
use crate::{Coin, Params, ParsedBlock, Reject, TxParts};

/// Why a block was not connected.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// It breaks a rule.
    Reject(Reject),
    /// Our disk's fault; nothing is known about the block.
    Store(StoreError),
}

impl From<Reject> for ConnectError {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where a block is put.
pub(crate) struct Place<'a> {
    /// Its height.
    pub(crate) height: u32,
    /// The median time past of its parent.
    pub(crate) parent_median: u32,
    /// Whether its outputs must be looked up among the coins (BIP 30).
    pub(crate) look_for_repeats: bool,
    /// The median time past of its ancestor at a height.
    pub(crate) median_at: &'a dyn Fn(u32) -> u32,
    /// The rules that its scripts are under.
    pub(crate) flags: Flags,
}

/// What the transactions of a block come to, and the rules that need nothing but what they spend.
#[derive(Default)]
pub(crate) struct Tally {
    fees: u64,
    sigops: u64,
}

impl Tally {
    /// Takes the block's next transaction, with what it spends; the coinbase, at index 0, spends nothing.
    pub(crate) fn add(
        &mut self,
        params: &Params,
        place: &Place<'_>,
        index: usize,
        tx: &TxRef<'_>,
        spent: &[Coin],
    ) -> Result<(), Reject> {
        let named = |reject: Reject| reject.in_block(format_args!("transaction {}", tx.txid()));
        let height = place.height;
        if index > 0 {
            let fee = rules::check_tx_inputs(tx, spent, height).map_err(named)?;
            self.fees = self.fees.saturating_add(fee.to_sat());
            if self.fees > rules::MAX_MONEY {
                return Err(Reject::consensus(
                    "bad-txns-accumulated-fee-outofrange",
                    "accumulated fee in the block out of range",
                ));
            }
            if height >= params.csv_height {
                let heights = spent.iter().map(|coin| coin.height);
                rules::check_sequence_locks(tx, heights, height, place.parent_median, place.median_at)
                    .map_err(named)?;
            }
        }
        self.sigops = self
            .sigops
            .saturating_add(rules::transaction_sigop_cost(tx, spent, place.flags));
        if self.sigops > rules::MAX_BLOCK_SIGOPS_COST {
            return Err(Reject::consensus("bad-blk-sigops", "too many sigops"));
        }
        Ok(())
    }

    /// Every transaction was taken: what the coinbase may claim.
    pub(crate) fn finish(&self, params: &Params, place: &Place<'_>, block: &ParsedBlock) -> Result<(), Reject> {
        let Some(coinbase) = block.transaction(0) else {
            return Ok(());
        };
        let subsidy = rules::subsidy(place.height, params.subsidy_halving_interval);
        rules::check_coinbase_amount(&coinbase, Amount::from_sat(self.fees), subsidy)
    }
}

/// Connects `block` in the overlay and returns what it spent; its scripts are still to be checked. After an error the overlay is of no use any more.
pub(crate) fn connect(
    params: &Params,
    overlay: &mut Overlay<'_>,
    block: &ParsedBlock,
    place: &Place<'_>,
) -> Result<SpentRecord, ConnectError> {
    let height = place.height;
    if place.look_for_repeats {
        for tx in block.transactions() {
            let txid = tx.txid();
            for vout in 0..u32::try_from(tx.outputs().len()).unwrap_or(u32::MAX) {
                if overlay.has(&OutPoint { txid, vout })? {
                    return Err(bip30::repeated(&txid).into());
                }
            }
        }
    }

    let mut record = SpentRecord::new(block.len().saturating_sub(1));
    let mut tally = Tally::default();
    // Filled anew by each transaction.
    let mut coins: Vec<Coin> = Vec::new();
    for (index, tx) in block.transactions().enumerate() {
        let mut count = 0;
        if index > 0 {
            let outpoints = tx.previous_outputs();
            record.begin(outpoints.len());
            for outpoint in outpoints {
                if count == coins.len() {
                    coins.push(Coin::nothing());
                }
                if !overlay.spend(&outpoint, &mut coins[count], &mut record)? {
                    let reject = Reject::missing_inputs(outpoint.to_string());
                    return Err(reject.in_block(format_args!("transaction {}", tx.txid())).into());
                }
                count += 1;
            }
        }
        tally.add(params, place, index, &tx, &coins[..count])?;
        overlay.create(block, index, height)?;
    }
    tally.finish(params, place, block)?;
    Ok(record)
}
