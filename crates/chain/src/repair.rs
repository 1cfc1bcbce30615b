//! Rebuilding damaged records from blocks, without making everything anew.
//!
//! * A damaged block is fetched from peers again ([`Chain::mark_lost`]).
//! * An undo record holds the outputs that a block spent. They are found again by reading the blocks below it, from the
//!   nearest back, until each of them has been met.
//! * Coins lie in blocks of some dozens behind one checksum. When one cannot be read, all blocks of the chain are read
//!   for what is unspent of the transactions whose ids lie in the range of the damaged ones, and that takes their place
//!   (`search`). Where blocks are not there, as on a pruned node, peers are asked for them, also for undo records.
//!
//! The nearest block back is the right one also for the two transactions that the main chain holds twice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::{Amount, OutPoint, TxOut, Txid};
use dunlin_store::StoreError;

use crate::engine::Chain;
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::{BlockOutcome, Coin, Output, ParsedBlock, TxParts};

/// How often the log tells how far a search has come.
const TELL: Duration = Duration::from_secs(5);

impl Chain {
    /// The result, or `None` when it was an error that names a damaged coin, and what it was is being looked for
    /// ([`Chain::search_on`]): then it has to be tried again.
    pub(crate) fn mended<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if damaged_coin(&error).is_some() => {
                tracing::warn!(%error, "a coin cannot be read");
                self.search_coins()?.then_some(None).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Mends damaged coins, or begins to; `false` when nothing can be mended.
    pub(crate) fn repair_coins(&mut self) -> Result<bool, StoreError> {
        if !self.search_coins()? {
            return Ok(false);
        }
        let mut outcome = BlockOutcome {
            more: true,
            ..BlockOutcome::default()
        };
        while std::mem::take(&mut outcome.more) {
            self.search_on(&mut 0, &mut outcome)?;
        }
        Ok(true)
    }

    /// Makes the undo record of a block anew; `None` when a block that it takes is not there, and has to be fetched.
    pub(crate) fn rebuild_undo(&mut self, id: NodeId) -> Result<Option<BlockUndo>, StoreError> {
        let Some(block) = self.load(id)? else { return Ok(None) };
        tracing::warn!(block = %block.hash, "an undo record is damaged; looking for the outputs that the block spent");
        let spends = block.transactions().skip(1);
        let wanted: HashSet<OutPoint> = spends.flat_map(|tx| tx.previous_outputs()).collect();
        let Some(found) = self.find_outputs(id, wanted.clone())? else {
            self.search_undo(id, wanted)?;
            return Ok(None);
        };
        let Some(undo) = BlockUndo::of(&block, |outpoint| found.get(outpoint).cloned()) else {
            return Ok(None);
        };
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
pub(crate) fn coin_of(output: &Output<'_>, height: u32, index: usize) -> Coin {
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
