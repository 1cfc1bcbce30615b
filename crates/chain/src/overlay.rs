//! Changes to the coins that nobody sees yet.
//!
//! Blocks are taken off and put on in an overlay. When the last of them fits it is published in one step; when one
//! breaks a rule the overlay is dropped and nothing has happened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bitcoin::{Amount, OutPoint, TxOut};
use dunlin_store::StoreError;

use crate::coin::is_spendable;
use crate::coins::{Change, Coins, Keyed};
use crate::rules::bip30;
use crate::undo::BlockUndo;
use crate::{Coin, ParsedBlock, TxParts};

pub(crate) struct Overlay<'a> {
    base: &'a Coins,
    changes: HashMap<OutPoint, Change, Keyed>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a Coins) -> Self {
        Self {
            base,
            changes: HashMap::default(),
        }
    }

    /// The net changes, to be published.
    pub(crate) fn into_changes(self) -> impl Iterator<Item = (OutPoint, Change)> {
        self.changes.into_iter()
    }

    /// How many coins differ from the base.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// A coin that is unspent here.
    pub(crate) fn get(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        match self.changes.get(outpoint) {
            Some(change) => Ok(change.coin.clone()),
            None => self.base.get(outpoint),
        }
    }

    /// Whether a coin is unspent here.
    pub(crate) fn has(&self, outpoint: &OutPoint) -> Result<bool, StoreError> {
        match self.changes.get(outpoint) {
            Some(change) => Ok(change.coin.is_some()),
            None => Ok(self.base.get(outpoint)?.is_some()),
        }
    }

    /// Takes a coin out; `None` when it is not there.
    pub(crate) fn spend(&mut self, outpoint: OutPoint) -> Result<Option<Coin>, StoreError> {
        match self.changes.entry(outpoint) {
            Entry::Occupied(mut entry) => {
                let taken = entry.get_mut().coin.take();
                if !entry.get().existed {
                    // Born here and spent here: the base never hears of it.
                    entry.remove();
                }
                Ok(taken)
            }
            Entry::Vacant(entry) => {
                let taken = self.base.get(&outpoint)?;
                if taken.is_some() {
                    entry.insert(Change {
                        coin: None,
                        existed: true,
                    });
                }
                Ok(taken)
            }
        }
    }

    /// Puts a coin in; `existed` says that the base may have one under this name.
    fn put(&mut self, outpoint: OutPoint, coin: Coin, existed: bool) {
        match self.changes.entry(outpoint) {
            Entry::Occupied(mut entry) => entry.get_mut().coin = Some(coin),
            Entry::Vacant(entry) => {
                entry.insert(Change {
                    coin: Some(coin),
                    existed,
                });
            }
        }
    }

    /// Creates the outputs of the transaction at `index`.
    pub(crate) fn create(&mut self, block: &ParsedBlock, index: usize, height: u32) {
        let Some(tx) = block.transaction(index) else { return };
        let txid = tx.txid();
        let coinbase = index == 0;
        for (vout, output) in (0u32..).zip(tx.outputs()) {
            if is_spendable(output.script_pubkey) {
                let coin = Coin {
                    output: TxOut {
                        value: Amount::from_sat(output.value),
                        script_pubkey: output.script_pubkey.to_owned(),
                    },
                    height,
                    coinbase,
                };
                // Before BIP 34 a coinbase could repeat an earlier one whose output the table still has.
                self.put(OutPoint { txid, vout }, coin, coinbase);
            }
        }
    }

    /// Takes a block off: removes what it created and restores what it spent, last transaction first.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the block, its undo record and the coins do not belong together.
    pub(crate) fn disconnect(&mut self, block: &ParsedBlock, undo: BlockUndo, height: u32) -> Result<(), StoreError> {
        let mismatch = || StoreError::corrupt(format!("the undo record of block {}", block.hash));
        if undo.spent.len() + 1 != block.len() {
            return Err(mismatch());
        }
        let forgiving = bip30::is_overwritten(height, &block.hash);
        let restored = std::iter::once(Vec::new()).chain(undo.spent);
        let mut rows: Vec<_> = block.transactions().zip(restored).collect();
        while let Some((tx, coins)) = rows.pop() {
            let txid = tx.txid();
            for (vout, output) in (0u32..).zip(tx.outputs()) {
                if is_spendable(output.script_pubkey) && self.spend(OutPoint { txid, vout })?.is_none() && !forgiving {
                    return Err(mismatch());
                }
            }
            if tx.is_coinbase() {
                continue;
            }
            let outpoints = tx.previous_outputs();
            if coins.len() != outpoints.len() {
                return Err(mismatch());
            }
            for (outpoint, coin) in outpoints.zip(coins) {
                self.put(outpoint, coin, false);
            }
        }
        Ok(())
    }
}
