//! Rebuilding damaged records from the stored blocks, without making everything anew.
//!
//! * A damaged block is fetched from peers again ([`Chain::mark_lost`]).
//! * An undo record holds the outputs that a block spent. They are found again by reading the blocks below it, from the
//!   nearest back, until each of them has been met.
//! * Coins lie in blocks of some dozens behind one checksum. When one cannot be read, all blocks of the chain are read
//!   for what is unspent of the transactions whose ids lie in the range of the damaged ones, and that takes their place.
//!
//! On a pruned node the blocks that tell of old coins are gone: the operator is told what to do.
//!
//! The nearest block back is the right one also for the two transactions that the main chain holds twice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::{Amount, OutPoint, TxOut, Txid};
use dunlin_store::StoreError;

use crate::coin::is_spendable;
use crate::engine::Chain;
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::{Coin, Output, ParsedBlock, TxParts};

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

    /// Makes the damaged records on the way to a coin anew; `false` when a block on the way is not there.
    pub(crate) fn repair_coin(&mut self, outpoint: OutPoint) -> Result<bool, StoreError> {
        tracing::warn!(coin = %outpoint, "a coin is damaged on disk; looking for what it was in the blocks");
        // What is found out is the state of the tip, so that must be the state on disk.
        self.flush()?;
        let coins = self.shared.coins();
        let mended = coins.mend(&outpoint, |inside| self.find_coins(inside))?;
        if mended {
            tracing::info!(coin = %outpoint, "the coin is whole again");
        }
        Ok(mended)
    }

    /// The unspent outputs of the transactions that `inside` names; `None` when a block is not there.
    fn find_coins(&mut self, inside: &dyn Fn(&Txid) -> bool) -> Result<Option<Vec<(OutPoint, Coin)>>, StoreError> {
        let (mut found, mut spent) = (Vec::new(), HashSet::new());
        let mut told = Instant::now();
        let mut next = Some(self.shared.tree().tip());
        while let Some(id) = next {
            let height = {
                let tree = self.shared.tree();
                next = tree.parent(id);
                tree.node(id).height
            };
            // The outputs of the first block cannot be spent.
            if height == 0 {
                break;
            }
            let Some(block) = self.load(id)? else {
                self.tell_of_the_end(id);
                return Ok(None);
            };
            spent.extend(
                block
                    .transactions()
                    .flat_map(|tx| tx.previous_outputs())
                    .filter(|at| inside(&at.txid)),
            );
            for (index, tx) in block.transactions().enumerate() {
                let txid = tx.txid();
                if !inside(&txid) {
                    continue;
                }
                for (vout, output) in (0u32..).zip(tx.outputs()) {
                    let outpoint = OutPoint { txid, vout };
                    // The newest of two with the same name counts: noting it as spent keeps the older one out.
                    if is_spendable(output.script_pubkey) && spent.insert(outpoint) {
                        found.push((outpoint, coin_of(&output, height, index)));
                    }
                }
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                tracing::info!(height, found = found.len(), "looking for coins in older blocks");
            }
        }
        Ok(Some(found))
    }

    /// The search for coins has come to a block that is not there.
    fn tell_of_the_end(&self, id: NodeId) {
        let (height, pruned) = {
            let tree = self.shared.tree();
            (tree.node(id).height, tree.node(id).pruned)
        };
        if !pruned {
            tracing::warn!(height, "the search ends at a block that is not there");
            return;
        }
        let text = format!(
            "a coin is damaged on disk, and the blocks up to height {height} that tell what it was are pruned; --reindex \
             fetches the whole chain again"
        );
        tracing::error!("{text}");
        self.shared.warn(text);
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
        self.write_undo(id, &undo.record())?;
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
                found.insert(outpoint, coin_of(&output, height, index));
            }
        }
    }
}

/// The coin that an output of the block's transaction number `index` makes.
fn coin_of(output: &Output<'_>, height: u32, index: usize) -> Coin {
    Coin {
        output: TxOut {
            value: Amount::from_sat(output.value),
            script_pubkey: output.script_pubkey.to_owned(),
        },
        height,
        coinbase: index == 0,
    }
}

/// The coin that an error names as damaged.
pub(crate) fn damaged_coin(error: &StoreError) -> Option<OutPoint> {
    let StoreError::Corrupt { what } = error else {
        return None;
    };
    what.strip_prefix("the coin ")?.split(' ').next()?.parse().ok()
}
