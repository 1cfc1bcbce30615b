//! Changes to the coins that nobody sees yet.
//!
//! Blocks are taken off and put on in an overlay. When the last of them fits it is published in one step; when one
//! breaks a rule the overlay is dropped and nothing has happened.

use bitcoin::OutPoint;
use dunlin_store::{Draft, StoreError};

use crate::coin::{self, is_spendable};
use crate::coins::{Coins, damaged, named};
use crate::rules::bip30;
use crate::undo::{BlockUndo, SpentRecord};
use crate::{Coin, ParsedBlock, TxParts};

pub(crate) struct Overlay<'a>(Draft<'a>);

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a Coins) -> Self {
        Self(base.draft())
    }

    /// Makes the net changes visible, all at once; `with` runs while readers are still kept out.
    pub(crate) fn publish<T>(self, with: impl FnOnce() -> T) -> Result<T, StoreError> {
        self.0.publish(with)
    }

    /// How many coins differ from the base.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A coin that is unspent here.
    pub(crate) fn get(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        let found = self.0.get(&coin::key(outpoint), coin::decode);
        let found = found.map_err(|error| named(outpoint, error))?;
        found.map(|coin| coin.ok_or_else(|| damaged(outpoint))).transpose()
    }

    /// Whether a coin is unspent here.
    pub(crate) fn has(&self, outpoint: &OutPoint) -> Result<bool, StoreError> {
        let found = self.0.get(&coin::key(outpoint), |_| ());
        Ok(found.map_err(|error| named(outpoint, error))?.is_some())
    }

    /// Takes a coin out: it is read into `coin` and written down in `record`. `false` when it is not there.
    pub(crate) fn spend(
        &mut self,
        outpoint: &OutPoint,
        coin: &mut Coin,
        record: &mut SpentRecord,
    ) -> Result<bool, StoreError> {
        let taken = self.0.take(&coin::key(outpoint), |value| {
            record.append(value);
            coin::decode_into(value, coin)
        });
        match taken.map_err(|error| named(outpoint, error))? {
            Some(Some(())) => Ok(true),
            Some(None) => Err(damaged(outpoint)),
            None => Ok(false),
        }
    }

    /// Takes a coin out; `false` when it is not there.
    fn remove(&mut self, outpoint: &OutPoint) -> Result<bool, StoreError> {
        let taken = self.0.take(&coin::key(outpoint), |_| ());
        Ok(taken.map_err(|error| named(outpoint, error))?.is_some())
    }

    /// Creates the outputs of the transaction at `index`.
    pub(crate) fn create(&mut self, block: &ParsedBlock, index: usize, height: u32) -> Result<(), StoreError> {
        let Some(tx) = block.transaction(index) else {
            return Ok(());
        };
        let txid = tx.txid();
        let coinbase = index == 0;
        for (vout, output) in (0u32..).zip(tx.outputs()) {
            if is_spendable(output.script_pubkey) {
                let script = output.script_pubkey.as_bytes();
                // Before BIP 34 a coinbase could repeat an earlier one whose output the table still has.
                self.0.put(&coin::key(&OutPoint { txid, vout }), !coinbase, |out| {
                    coin::encode_parts(height, coinbase, output.value, script, out);
                })?;
            }
        }
        Ok(())
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
                if is_spendable(output.script_pubkey) && !self.remove(&OutPoint { txid, vout })? && !forgiving {
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
                self.0
                    .put(&coin::key(&outpoint), true, |out| coin::encode(&coin, out))?;
            }
        }
        Ok(())
    }
}
