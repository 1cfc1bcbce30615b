//! What peers say that a block spent (BIP 455), before anything proves it.
//!
//! In the full form a block is checked with such coins by itself, through the functions that connect blocks; whether
//! the coins are those that the chain made, the aggregate says in the end. What the block alone can tell of them is
//! looked at first, so that a peer whose answer cannot be right is known at once. They are kept as the block's undo
//! record, which they become when the aggregate is zero.

use std::collections::HashMap;

use crate::coin::MAX_SCRIPT_SIZE;
use crate::connect::{Place, Tally};
use crate::rules::MAX_MONEY;
use crate::script::{self, Flags};
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::view::Shared;
use crate::{Coin, ParsedBlock, Reject, TxParts};

impl BlockUndo {
    /// Sorts coins, which somebody says the inputs of a block at `height` spent in this order, by transactions.
    ///
    /// # Errors
    /// When it is not one for each input, or the block itself shows that one cannot be what is spent there.
    pub fn claimed(
        block: &ParsedBlock,
        height: u32,
        coins: impl IntoIterator<Item = Coin>,
    ) -> Result<Self, &'static str> {
        let mut coins = coins.into_iter();
        let inputs = block.transactions().skip(1).map(|tx| tx.inputs().len());
        let claim = Self {
            spent: inputs.map(|count| coins.by_ref().take(count).collect()).collect(),
        };
        if coins.next().is_some() {
            return Err("more coins than inputs");
        }
        fits(block, height, &claim).map(|()| claim)
    }
}

/// Whether coins can be what a block spends, as far as the block itself says: there is one for each input; an output of
/// the same block is told as it stands there, and after the transaction that makes it; every other one is older; and
/// amounts and scripts are within the bounds of outputs that can be spent.
fn fits(block: &ParsedBlock, height: u32, claim: &BlockUndo) -> Result<(), &'static str> {
    if claim.spent.len() != block.txids.len().saturating_sub(1) {
        return Err("coins for another number of transactions");
    }
    let none = Vec::new();
    let rows = std::iter::once(&none).chain(&claim.spent);
    let mut made = HashMap::with_capacity(block.txids.len());
    for (index, (tx, coins)) in block.transactions().zip(rows).enumerate() {
        let outpoints = tx.previous_outputs();
        if index > 0 && outpoints.len() != coins.len() {
            return Err("fewer coins than inputs");
        }
        for (outpoint, coin) in outpoints.zip(coins) {
            let (value, script) = (coin.output.value.to_sat(), &coin.output.script_pubkey);
            if value > MAX_MONEY || script.len() > MAX_SCRIPT_SIZE {
                return Err("a coin that cannot be");
            }
            let right = match made.get(&outpoint.txid) {
                None => (1..height).contains(&coin.height),
                Some(&maker) => block
                    .transaction(maker)
                    .and_then(|tx| tx.output(outpoint.vout))
                    .is_some_and(|output| {
                        (output.value, output.script_pubkey) == (value, script.as_script())
                            && (coin.height, coin.coinbase) == (height, maker == 0)
                    }),
            };
            if !right {
                return Err("a coin that is not the one spent there");
            }
        }
        made.insert(tx.txid(), index);
    }
    Ok(())
}

/// What a block is said to spend, and how it is to be checked with that.
pub(crate) struct Claim {
    pub(crate) id: NodeId,
    pub(crate) undo: BlockUndo,
    /// The rules for its scripts.
    pub(crate) flags: Flags,
    /// Others have checked its scripts.
    pub(crate) scripts_assumed: bool,
}

impl Claim {
    /// Checks every rule that needs the spent coins.
    pub(crate) fn check(&self, shared: &Shared, block: &ParsedBlock) -> Result<(), Reject> {
        let (height, parent_median) = {
            let tree = shared.tree();
            let parent = tree.parent(self.id).unwrap_or(self.id);
            (tree.node(self.id).height, tree.node(parent).median_time_past)
        };
        fits(block, height, &self.undo).map_err(Reject::missing_inputs)?;
        let median_at = |height: u32| {
            let tree = shared.tree();
            tree.node(tree.ancestor(self.id, height)).median_time_past
        };
        let place = Place {
            height,
            parent_median,
            look_for_repeats: false,
            median_at: &median_at,
            flags: self.flags,
        };
        let mut tally = Tally::default();
        let none = Vec::new();
        let rows = std::iter::once(&none).chain(&self.undo.spent);
        for (index, (tx, spent)) in block.transactions().zip(rows).enumerate() {
            tally.add(&shared.params, &place, index, &tx, spent)?;
        }
        tally.finish(&shared.params, &place, block)?;
        if self.scripts_assumed {
            return Ok(());
        }
        for (tx, spent) in block.transactions().skip(1).zip(&self.undo.spent) {
            script::verify_raw(tx.raw(), spent, self.flags).map_err(|fail| {
                let reject = fail.into_block_reject();
                reject.in_block(format_args!("transaction {}", tx.txid()))
            })?;
        }
        Ok(())
    }
}
