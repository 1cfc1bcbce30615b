//! Transactions: in which block a transaction is and at which place, as Core's `txindex`.
//!
//! Space 2: transaction id -> number of the block and place in it, both LEB128. Space 3: number of the block (four
//! bytes, big-endian) -> hash. Blocks are numbered as they come and keep their number for good, so an entry of a block
//! that has left the chain still names that block. The genesis block's transaction is no ordinary one and left out.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Txid};
use dunlin_store::{Space, StoreError, Table};

use super::changes::Changes;
use super::frame::{Content, Joined, META, Point};
use crate::coin::{number, put_number};

const TXIDS: Space = Space(2);
const BLOCKS: Space = Space(3);

/// Key of the next block's number in [`META`].
const NEXT_KEY: &[u8] = b"next block";

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPlace {
    /// The block. It may have left the chain since, when the transaction is in no other.
    pub block: BlockHash,
    /// Which of its transactions, counted from 0.
    pub position: u32,
}

#[derive(Default)]
pub(crate) struct Writer {
    next: u32,
}

impl Content for Writer {
    fn load(&mut self, table: &dyn Table, _: Option<Point>) -> Result<(), StoreError> {
        self.next = match table.get(META, NEXT_KEY)? {
            None => 0,
            Some(bytes) => bytes
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| StoreError::corrupt("the transaction index's count of blocks"))?,
        };
        Ok(())
    }

    fn join(&mut self, joined: &Joined<'_>, changes: &mut Changes) -> Result<(), StoreError> {
        if joined.height == 0 {
            return Ok(());
        }
        changes.put_for_good(BLOCKS, self.next.to_be_bytes(), *joined.block.hash.as_byte_array());
        for (position, txid) in (0u64..).zip(&joined.block.txids) {
            let mut value = Vec::with_capacity(6);
            put_number(&mut value, u64::from(self.next));
            put_number(&mut value, position);
            changes.put_for_good(TXIDS, *txid.as_byte_array(), value);
        }
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    fn seal(&mut self, changes: &mut Changes) {
        changes.put_for_good(META, NEXT_KEY, self.next.to_be_bytes());
    }
}

/// Reading the index of transactions.
#[derive(Clone)]
pub struct TxIndex {
    pub(crate) table: Arc<dyn Table>,
}

impl TxIndex {
    /// Where a transaction is; `None` when no block that was ever in the chain has it.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn place(&self, txid: &Txid) -> Result<Option<TxPlace>, StoreError> {
        let Some(value) = self.table.get(TXIDS, txid.as_byte_array())? else {
            return Ok(None);
        };
        let damaged = || StoreError::corrupt(format!("the transaction index's entry of {txid}"));
        let mut rest: &[u8] = &value;
        let block = number(&mut rest).and_then(|number| u32::try_from(number).ok());
        let position = number(&mut rest).and_then(|number| u32::try_from(number).ok());
        let (block, position) = block.zip(position).ok_or_else(damaged)?;
        let hash = self.table.get(BLOCKS, &block.to_be_bytes())?.ok_or_else(damaged)?;
        Ok(Some(TxPlace {
            block: BlockHash::from_slice(&hash).map_err(|_| damaged())?,
            position,
        }))
    }
}
