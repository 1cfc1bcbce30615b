//! When and in which order things reach the disk: records of the index at the end of each call, coins with their tip
//! now and then, after everything that they refer to.

use std::sync::Arc;

use dunlin_store::{Barrier, Batch, StoreError};

use crate::engine::Chain;
use crate::index;

/// With fewer blocks than this since the last flush, the next may wait twelve times as long.
const FEW_BLOCKS: u32 = 50;

/// What is remembered between flushes.
#[derive(Default)]
pub(crate) struct Flushes {
    /// When coins were last set aside, in seconds of the clock that calls bring along.
    last: Option<u64>,
    /// Steps of the tip since then.
    blocks: u32,
}

impl Chain {
    /// Writes coins, tip and index so that a power loss costs nothing from here on.
    ///
    /// # Errors
    /// [`StoreError`]; the state on disk is then the one of the last flush that succeeded.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.set_coins_aside()?;
        if let Some(background) = &self.background {
            background.coins.wait()?;
        }
        self.wait_for_swift()?;
        self.shared.coins().wait()
    }

    /// Has all coins so far written while the chain goes on; waits for those that are being written.
    ///
    /// # Errors
    /// [`StoreError`] of what is being written.
    pub fn set_coins_aside(&mut self) -> Result<(), StoreError> {
        self.settle_swift(true)?;
        // Their tip must be found in the index.
        self.write_index()?;
        let background = self.background.as_ref().zip(self.shared.unproven());
        let tip = {
            let tree = self.shared.tree();
            tree.node(tree.tip()).hash
        };
        if let Some((background, unproven)) = background {
            let reached = self.shared.tree().node(unproven.reached).hash;
            background.coins.freeze(&reached, self.barrier())?;
        }
        self.set_swift_aside()?;
        self.shared.coins().freeze(&tip, self.barrier())?;
        self.writer.handed_over();
        self.flushes.blocks = 0;
        Ok(())
    }

    /// Makes durable what coins that are set aside now refer to.
    pub(crate) fn barrier(&self) -> Barrier {
        let (files, table) = (Arc::clone(&self.store.files), Arc::clone(&self.store.table));
        let mut unsynced = self.writer.unsynced();
        Box::new(move || {
            while let Some(name) = unsynced.first() {
                files.sync(name)?;
                unsynced.pop_first();
            }
            table.sync()
        })
    }

    /// Writes everything and ends the chain. Dropping it without this loses nothing either: the next start connects
    /// the last blocks again.
    ///
    /// # Errors
    /// As [`Chain::flush`].
    pub fn close(mut self) -> Result<(), StoreError> {
        self.flush()
    }

    pub(crate) fn flush_when_due(&mut self, now_unix: u64) -> Result<(), StoreError> {
        self.settle_swift(false)?;
        let last = *self.flushes.last.get_or_insert(now_unix);
        // Few blocks are soon connected again.
        let factor = if self.flushes.blocks < FEW_BLOCKS { 12 } else { 1 };
        if now_unix >= last.saturating_add(self.config.flush_interval.saturating_mul(factor)) {
            self.set_coins_aside()?;
            self.flushes.last = Some(now_unix);
        }
        Ok(())
    }

    /// Looks after the memory that coins take, and after what is being written; called for every step of the tip.
    pub(crate) fn flush_when_full(&mut self) -> Result<(), StoreError> {
        self.flushes.blocks = self.flushes.blocks.saturating_add(1);
        self.settle_swift(false)?;
        let coins = self.shared.coins();
        coins.step()?;
        let mut full = coins.is_full();
        if let Some(background) = &self.background {
            background.coins.step()?;
            full |= background.coins.is_full();
        }
        if full {
            self.set_coins_aside()?;
        }
        Ok(())
    }

    pub(crate) fn put_dirty(&self, batch: &mut Batch) {
        let tree = self.shared.tree();
        for id in &self.dirty {
            let node = tree.node(*id);
            batch.put(index::INDEX, index::key(node), index::encode(node));
        }
    }

    /// Hands changed index records to the table without waiting for the disk.
    pub(crate) fn write_index(&mut self) -> Result<(), StoreError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.put_index(false)
    }

    /// Writes changed index records so that they survive a power loss.
    pub(crate) fn write_index_durably(&mut self) -> Result<(), StoreError> {
        self.put_index(true)
    }

    fn put_index(&mut self, durable: bool) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.put_dirty(&mut batch);
        self.shared.table.write(batch, durable)?;
        self.dirty.clear();
        Ok(())
    }
}
