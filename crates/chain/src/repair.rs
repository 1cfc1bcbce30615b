//! Rebuilding damaged records from the stored blocks, without making everything anew.
//!
//! * A damaged block is fetched from peers again ([`Chain::mark_lost`]).
//! * An undo record holds the outputs that a block spent. They are found again by reading the blocks below it, from the
//!   nearest back, until each of them has been met.
//! * A coin that cannot be read is found again in the same way, below the tip. That its record was there says that it is
//!   unspent; only what it says has to be found.
//!
//! The nearest block back is the right one also for the two transactions that the main chain holds twice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::{Amount, OutPoint, TxOut, Txid};
use dunlin_store::StoreError;

use crate::coins::Change;
use crate::engine::Chain;
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::{Coin, ParsedBlock, TxParts};

/// How often the log tells how far a search has come.
const TELL: Duration = Duration::from_secs(5);

impl Chain {
    /// The result, or `None` when it was an error that names a damaged coin and that was repaired: try again.
    pub(crate) fn mended<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match damaged_coin(&error) {
            Some(outpoint) if self.repair_coin(outpoint)? => Ok(None),
            _ => Err(error),
        }
    }

    /// Finds a damaged coin in the block that made it and puts it right; `false` when a block on the way is not there.
    pub(crate) fn repair_coin(&mut self, outpoint: OutPoint) -> Result<bool, StoreError> {
        tracing::warn!(coin = %outpoint, "a coin is damaged on disk; looking for the block that made it");
        let tip = self.shared.tree().tip();
        let Some(mut found) = self.find_outputs(tip, HashSet::from([outpoint]))? else {
            return Ok(false);
        };
        let Some(coin) = found.remove(&outpoint) else {
            return Ok(false);
        };
        tracing::info!(coin = %outpoint, height = coin.height, "the coin is whole again");
        let change = Change {
            coin: Some(coin),
            existed: true,
        };
        // The next flush writes it over the damaged record.
        self.shared.coins().publish([(outpoint, change)].into_iter(), || ());
        Ok(true)
    }

    /// Makes the undo record of a block anew; `None` when a block that it takes is not there.
    pub(crate) fn rebuild_undo(&mut self, id: NodeId) -> Result<Option<BlockUndo>, StoreError> {
        let Some(block) = self.load(id)? else { return Ok(None) };
        tracing::warn!(block = %block.hash, "an undo record is damaged; looking for the outputs that the block spent");
        let spends = || block.transactions().skip(1);
        let wanted = spends().flat_map(|tx| tx.previous_outputs()).collect();
        let Some(found) = self.find_outputs(id, wanted)? else {
            return Ok(None);
        };
        let mut undo = BlockUndo::default();
        for tx in spends() {
            let coins = tx.previous_outputs().map(|outpoint| found.get(&outpoint).cloned());
            match coins.collect::<Option<Vec<Coin>>>() {
                Some(coins) => undo.spent.push(coins),
                None => return Ok(None),
            }
        }
        self.write_undo(id, &undo)?;
        self.write_index()?;
        Ok(Some(undo))
    }

    /// Looks for outputs in a block and those below it; `None` when one of the blocks is not there. One that turns out
    /// to be damaged is noted, so that it is fetched again.
    fn find_outputs(
        &mut self,
        from: NodeId,
        mut wanted: HashSet<OutPoint>,
    ) -> Result<Option<HashMap<OutPoint, Coin>>, StoreError> {
        let mut txids: HashSet<Txid> = wanted.iter().map(|outpoint| outpoint.txid).collect();
        let mut found = HashMap::new();
        let mut told = Instant::now();
        let mut next = Some(from);
        while let (Some(id), false) = (next, wanted.is_empty()) {
            let height = {
                let tree = self.shared.tree();
                next = tree.parent(id);
                tree.node(id).height
            };
            let Some(block) = self.load(id)? else {
                tracing::warn!(height, "the search ends at a block that is not there");
                return Ok(None);
            };
            take_outputs(&block, height, &mut txids, &mut wanted, &mut found);
            if told.elapsed() >= TELL {
                told = Instant::now();
                tracing::info!(height, left = wanted.len(), "looking for outputs in older blocks");
            }
        }
        Ok(Some(found))
    }
}

/// Takes the wanted outputs of a block.
fn take_outputs(
    block: &ParsedBlock,
    height: u32,
    txids: &mut HashSet<Txid>,
    wanted: &mut HashSet<OutPoint>,
    found: &mut HashMap<OutPoint, Coin>,
) {
    for (index, tx) in block.transactions().enumerate() {
        let txid = tx.txid();
        if !txids.remove(&txid) {
            continue;
        }
        for (vout, output) in (0u32..).zip(tx.outputs()) {
            let outpoint = OutPoint { txid, vout };
            if wanted.remove(&outpoint) {
                let coin = Coin {
                    output: TxOut {
                        value: Amount::from_sat(output.value),
                        script_pubkey: output.script_pubkey.to_owned(),
                    },
                    height,
                    coinbase: index == 0,
                };
                found.insert(outpoint, coin);
            }
        }
    }
}

/// The coin that an error names as damaged.
pub(crate) fn damaged_coin(error: &StoreError) -> Option<OutPoint> {
    let StoreError::Corrupt { what } = error else {
        return None;
    };
    what.strip_prefix("the coin ")?.parse().ok()
}
