//! Making the index and the coins anew from our own block files (`--reindex`), or only the coins from the index and
//! the blocks (`--reindex-chainstate`).
//!
//! A mark in the table says how far it has come, so a run that is stopped goes on at the next start. Everything is made
//! anew in two stages: first every block is found and its header indexed ([`Import`]), then the chain with the most
//! work is connected as usual. Undo records are written anew with it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use dunlin_store::{Batch, Space, Step, StoreError, Table};

use crate::coins::CoinSets;
use crate::files::{Kind, Writer};
use crate::import::{self, Import};
use crate::tree::Tree;
use crate::{Chain, ChainStore, Params, index, prune};

/// What is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reindex {
    /// The index of blocks, and the coins.
    Everything,
    /// The coins.
    Coins,
}

/// Key of the mark, in the table's facts; its value is one of the stages.
const STAGE_KEY: &[u8] = b"reindex";
/// The coins are being deleted.
const CLEARING_COINS: u8 = 1;
/// Coins and index are being deleted.
const CLEARING_ALL: u8 = 2;
/// Blocks are being found.
const FINDING: u8 = 3;

/// Records deleted in one batch.
const BATCH: usize = 50_000;

fn stage(table: &dyn Table) -> Result<Option<u8>, StoreError> {
    Ok(table
        .get(index::META, STAGE_KEY)?
        .and_then(|bytes| bytes.first().copied()))
}

fn put_stage(table: &dyn Table, stage: u8) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(index::META, STAGE_KEY, [stage]);
    table.write(batch, true)
}

/// Has everything made anew once the batch is written and the chain is opened.
pub(crate) fn order(batch: &mut Batch) {
    batch.put(index::META, STAGE_KEY, [CLEARING_ALL]);
}

/// Deletes what is to be made anew, or goes on deleting where an earlier run stopped. Says whether blocks are to be
/// found now. The store is known to be ours.
pub(crate) fn prepare(params: &Params, store: &ChainStore, wanted: Option<Reindex>) -> Result<bool, StoreError> {
    let table = &*store.table;
    let wanted = wanted.map(|what| match what {
        Reindex::Everything => CLEARING_ALL,
        Reindex::Coins => CLEARING_COINS,
    });
    let now = match (stage(table)?, wanted) {
        // Finding blocks goes on, even when it is asked for again.
        (Some(FINDING), _) => return Ok(true),
        (Some(CLEARING_ALL), _) | (_, Some(CLEARING_ALL)) => CLEARING_ALL,
        (Some(stage), _) | (None, Some(stage)) => stage,
        (None, None) => return Ok(false),
    };
    put_stage(table, now)?;
    tracing::info!("deleting what is made anew");
    let sets = CoinSets::new(store);
    (0..=1).try_for_each(|number| sets.erase(number))?;
    let mut batch = Batch::default();
    batch.delete(index::META, index::SNAPSHOT_KEY);
    batch.delete(index::META, index::COINS_KEY);
    if now == CLEARING_COINS {
        batch.delete(index::META, STAGE_KEY);
        table.write(batch, true)?;
        return Ok(false);
    }
    clear(table, index::INDEX)?;
    for name in store.files.list()? {
        if name.starts_with("rev") {
            store.files.remove(&name)?;
        }
    }
    let tree = Tree::new(&params.genesis.header);
    batch.delete(index::META, prune::DOOMED_KEY);
    batch.put(index::INDEX, index::key(tree.node(0)), index::encode(tree.node(0)));
    batch.put(index::META, STAGE_KEY, [FINDING]);
    table.write(batch, true)?;
    Ok(true)
}

/// Deletes every record of a key space.
fn clear(table: &dyn Table, space: Space) -> Result<(), StoreError> {
    loop {
        let mut batch = Batch::default();
        table.scan(space, b"", &mut |key, _| {
            batch.delete(space, key);
            if batch.len() < BATCH {
                Step::Continue
            } else {
                Step::Stop
            }
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        table.write(batch, false)?;
    }
}

/// Keeps new blocks out of the files in which old ones are still to be found.
pub(crate) fn reserve(store: &ChainStore, writer: &mut Writer) -> Result<(), StoreError> {
    for name in store.files.list()? {
        if let Some(number) = import::number(&name) {
            writer.reserve(number, store.files.len(&name)?.unwrap_or(0));
        }
    }
    Ok(())
}

impl Chain {
    /// Whether the blocks of our own files are still being found; until they are, nothing is connected.
    pub fn is_reindexing(&self) -> bool {
        self.shared.reindexing.load(Ordering::Relaxed)
    }

    /// What finds the blocks of our own files; after its last step comes [`Chain::finish_reindex`].
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read.
    pub fn find_own_blocks(&self) -> Result<Import, StoreError> {
        Import::own(self)
    }

    /// All blocks were found: files in which there are none are deleted (they hold what no chain leads to), and
    /// connecting may begin ([`Chain::advance`]).
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn finish_reindex(&mut self) -> Result<(), StoreError> {
        let used: BTreeSet<u32> = {
            let tree = self.shared.tree();
            let places = tree.ids().filter_map(|id| tree.node(id).block);
            places.map(|at| at.file).collect()
        };
        if self.shared.tree().node(0).block.is_none() {
            let raw = bitcoin::consensus::serialize(&self.params().genesis);
            let at = self.writer.append_block(&raw)?;
            self.shared.tree_mut().store_block(0, at, 1);
            self.dirty.insert(0);
        }
        let mut batch = Batch::default();
        batch.delete(index::META, STAGE_KEY);
        self.put_dirty(&mut batch);
        self.writer.sync()?;
        self.shared.table.write(batch, true)?;
        self.dirty.clear();
        self.shared.reindexing.store(false, Ordering::Relaxed);
        for name in self.files().list()? {
            if let Some(number) = import::number(&name)
                && !used.contains(&number)
                && number < self.writer.current()
            {
                self.files().remove(&Kind::Block.name(number))?;
                self.writer.delete(number)?;
            }
        }
        Ok(())
    }
}
