//! Script hashes: the history, the unspent outputs and the balance of every output script, as an Electrum server
//! needs them.
//!
//! | space | key | value |
//! |---|---|---|
//! | 2, history | script hash (its first 16 bytes), height, place in the block (four bytes each, big-endian) | |
//! | 3, unspent | script hash (16 bytes), outpoint (transaction id, index big-endian) | amount, height, place, LEB128 |
//! | 4, ids | height, place in the block (four bytes each, big-endian) | transaction id |
//!
//! Nothing of it needs a stored block: the third space has every transaction id in block order, so that histories are
//! told and merkle branches are made on a pruned node too. Sixteen bytes of a script hash cannot be met by another
//! script on purpose. Outputs that nobody can spend have no history, nor has the genesis block.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, OutPoint, Script, Txid};
use dunlin_store::{Space, Step, StoreError, Table};

use super::changes::Changes;
use super::frame::{Content, Joined, Point};
use crate::TxParts;
use crate::coin::{self, is_spendable, number, put_number};

const HISTORY: Space = Space(2);
const UNSPENT: Space = Space(3);
const IDS: Space = Space(4);

/// Bytes of a script hash in keys.
const SHORT: usize = 16;

/// Electrum's name of an output script: the SHA-256 of its bytes. People write it with its bytes reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptHash(pub [u8; 32]);

impl ScriptHash {
    /// The script hash of an output script.
    pub fn of(script: &Script) -> Self {
        Self(sha256::Hash::hash(script.as_bytes()).to_byte_array())
    }

    fn short(&self) -> [u8; SHORT] {
        let mut short = [0; SHORT];
        short.copy_from_slice(&self.0[..SHORT]);
        short
    }
}

/// A transaction of the chain that pays to a script or spends from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptTx {
    /// Its block's height.
    pub height: u32,
    /// Which of the block's transactions, counted from 0.
    pub position: u32,
    /// Its id.
    pub txid: Txid,
}

/// An unspent output of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptCoin {
    /// Which output.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub amount: Amount,
    /// Its block's height.
    pub height: u32,
    /// Which of the block's transactions made it, counted from 0.
    pub position: u32,
}

fn place(height: u32, position: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&height.to_be_bytes());
    key[4..].copy_from_slice(&position.to_be_bytes());
    key
}

fn take_place(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.as_chunks::<4>() {
        ([height, position], []) => Some((u32::from_be_bytes(*height), u32::from_be_bytes(*position))),
        _ => None,
    }
}

fn unspent_key(script: &Script, outpoint: &OutPoint) -> Vec<u8> {
    let mut key = ScriptHash::of(script).short().to_vec();
    key.extend_from_slice(&coin::key(outpoint));
    key
}

fn note(script: &Script, at: [u8; 8], changes: &mut Changes) {
    let mut key = [0; SHORT + 8];
    key[..SHORT].copy_from_slice(&ScriptHash::of(script).short());
    key[SHORT..].copy_from_slice(&at);
    changes.put(HISTORY, key, []);
}

#[derive(Default)]
pub(crate) struct Writer;

impl Content for Writer {
    fn load(&mut self, _: &dyn Table, _: Option<Point>) -> Result<(), StoreError> {
        Ok(())
    }

    fn join(&mut self, joined: &Joined<'_>, changes: &mut Changes) -> Result<(), StoreError> {
        let (block, height) = (joined.block, joined.height);
        for (position, (tx, txid)) in (0u32..).zip(block.transactions().zip(&block.txids)) {
            let at = place(height, position);
            changes.put(IDS, at, *txid.as_byte_array());
            if height == 0 {
                continue;
            }
            let row = usize::try_from(position).unwrap_or(usize::MAX).checked_sub(1);
            let spent = row.and_then(|row| joined.undo.spent.get(row));
            for (outpoint, coin) in tx.previous_outputs().zip(spent.into_iter().flatten()) {
                let script = &coin.output.script_pubkey;
                note(script, at, changes);
                changes.delete(UNSPENT, unspent_key(script, &outpoint));
            }
            for (vout, output) in (0u32..)
                .zip(tx.outputs())
                .filter(|(_, output)| is_spendable(output.script_pubkey))
            {
                note(output.script_pubkey, at, changes);
                let mut value = Vec::with_capacity(16);
                put_number(&mut value, output.value);
                put_number(&mut value, u64::from(height));
                put_number(&mut value, u64::from(position));
                let outpoint = OutPoint { txid: *txid, vout };
                changes.put(UNSPENT, unspent_key(output.script_pubkey, &outpoint), value);
            }
        }
        Ok(())
    }
}

/// Reading the index of script hashes. Each query alone sees some state of the index; its progress says up to where.
#[derive(Clone)]
pub struct ScriptIndex {
    pub(crate) table: Arc<dyn Table>,
}

impl ScriptIndex {
    /// The transactions of a script in the order of the chain; `None` when there are more than `max`.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn history(&self, script: &ScriptHash, max: usize) -> Result<Option<Vec<ScriptTx>>, StoreError> {
        let mut places = Vec::new();
        self.table.scan(HISTORY, &script.short(), &mut |key, _| {
            places.extend(key.get(SHORT..).and_then(take_place));
            if places.len() > max { Step::Stop } else { Step::Continue }
        })?;
        if places.len() > max {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(places.len());
        for (height, position) in places {
            // A block that leaves the chain between the two reads takes its transactions along.
            if let Some(txid) = self.txid_at(height, position)? {
                found.push(ScriptTx { height, position, txid });
            }
        }
        Ok(Some(found))
    }

    /// The unspent outputs of a script in the order of the chain; `None` when there are more than `max`.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a record is damaged.
    pub fn unspent(&self, script: &ScriptHash, max: usize) -> Result<Option<Vec<ScriptCoin>>, StoreError> {
        let mut found = Vec::new();
        let mut damaged = false;
        self.table.scan(UNSPENT, &script.short(), &mut |key, value| {
            match script_coin(key, value) {
                Some(coin) => found.push(coin),
                None => damaged = true,
            }
            if damaged || found.len() > max {
                Step::Stop
            } else {
                Step::Continue
            }
        })?;
        if damaged {
            return Err(StoreError::corrupt("an unspent output in the script index"));
        }
        if found.len() > max {
            return Ok(None);
        }
        found.sort_unstable_by_key(|coin| (coin.height, coin.position, coin.outpoint.vout));
        Ok(Some(found))
    }

    /// What the unspent outputs of a script are worth together.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or a record is damaged.
    pub fn balance(&self, script: &ScriptHash) -> Result<Amount, StoreError> {
        let mut sum = 0u64;
        let mut damaged = false;
        self.table.scan(UNSPENT, &script.short(), &mut |_, mut value| {
            match number(&mut value) {
                Some(amount) => sum = sum.saturating_add(amount),
                None => damaged = true,
            }
            if damaged { Step::Stop } else { Step::Continue }
        })?;
        if damaged {
            return Err(StoreError::corrupt("an unspent output in the script index"));
        }
        Ok(Amount::from_sat(sum))
    }

    /// The id of the transaction at a place in the chain; `None` beyond what is indexed.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails or the record is damaged.
    pub fn txid_at(&self, height: u32, position: u32) -> Result<Option<Txid>, StoreError> {
        let bytes = self.table.get(IDS, &place(height, position))?;
        bytes
            .map(|bytes| {
                Txid::from_slice(&bytes).map_err(|_| {
                    StoreError::corrupt(format!("transaction {position} of block {height} in the script index"))
                })
            })
            .transpose()
    }

    /// The ids of all transactions of the block at a height, in block order, for merkle branches; empty beyond what is
    /// indexed.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn txids(&self, height: u32) -> Result<Vec<Txid>, StoreError> {
        let mut found = Vec::new();
        self.table.scan(IDS, &height.to_be_bytes(), &mut |_, value| {
            found.extend(Txid::from_slice(value).ok());
            Step::Continue
        })?;
        Ok(found)
    }
}

fn script_coin(key: &[u8], mut value: &[u8]) -> Option<ScriptCoin> {
    Some(ScriptCoin {
        outpoint: coin::outpoint(key.get(SHORT..)?)?,
        amount: Amount::from_sat(number(&mut value)?),
        height: u32::try_from(number(&mut value)?).ok()?,
        position: u32::try_from(number(&mut value)?).ok()?,
    })
}
