//! Opening a chain: what is on disk is read, and what was stored beyond the coins is connected again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_store::{Batch, StoreError};

use crate::checks::ScriptPool;
use crate::coins::CoinSets;
use crate::config::{AssumeValid, ChainConfig};
use crate::engine::Chain;
use crate::files::{Kind, Reader, Writer};
use crate::flush::Flushes;
use crate::prune::{self, Prune};
use crate::recent::Recent;
use crate::snapshot::{Background, Unproven};
use crate::tree::Tree;
use crate::view::Shared;
use crate::{BlockOutcome, ChainStore, OpenError, Params, ParsedBlock, Reindex, files, import, index, reindex};

/// Parsed blocks that wait for a parent are kept in memory up to this many bytes of their encoding.
const RECENT_BYTES: usize = 32 << 20;

impl Chain {
    /// Opens the chain in `store`, or begins it there, and connects what was stored beyond the last flush.
    ///
    /// # Errors
    /// [`OpenError`] when the store is another network's or another version's, or the disk fails.
    pub fn open(mut params: Params, store: ChainStore, config: ChainConfig) -> Result<Self, OpenError> {
        let mut writer = Writer::new(Arc::clone(&store.files), params.magic, config.block_file_bytes);
        let reader = Reader::new(Arc::clone(&store.files), params.magic);
        let mut tree = Tree::new(&params.genesis.header);
        let mut finding = false;
        let mut layout = store.table.get(index::META, index::LAYOUT_KEY)?;
        if layout.is_none() && has_blocks(&params, &store)? {
            if config.reindex != Some(Reindex::Everything) {
                return Err(OpenError::NoIndex);
            }
            let mut batch = facts(&params);
            reindex::order(&mut batch);
            store.table.write(batch, true)?;
            layout = store.table.get(index::META, index::LAYOUT_KEY)?;
        }
        match layout {
            None => begin(&params, &store, &mut writer, &mut tree)?,
            Some(layout) => {
                check_store(&params, &store, &layout)?;
                if config.reindex == Some(Reindex::Coins) {
                    index::load(&*store.table, &mut tree)?;
                    if tree.ids().any(|id| tree.node(id).pruned) {
                        return Err(OpenError::Pruned);
                    }
                    tree = Tree::new(&params.genesis.header);
                }
                if reindex::prepare(&params, &store, config.reindex)? {
                    reindex::reserve(&store, &mut writer)?;
                    finding = true;
                }
                index::load(&*store.table, &mut tree)?;
            }
        }
        let mut pruned = false;
        for id in tree.ids() {
            let node = tree.node(id);
            pruned |= node.pruned;
            for (kind, at) in [(Kind::Block, node.block), (Kind::Undo, node.undo)] {
                if let Some(at) = at {
                    writer.occupy(kind, &at);
                }
            }
        }
        if config.prune == Prune::Off && pruned {
            return Err(OpenError::Pruned);
        }
        prune::finish(&mut writer, &*store.table)?;
        let sets = CoinSets::new(&store);
        let coins = sets.open(index::coins(&*store.table)?, config.cache_bytes)?;
        let tip = coins.tip()?.unwrap_or(params.genesis_hash);
        let tip = tree.find(&tip).ok_or(OpenError::NoIndex)?;
        tree.set_active(tip);

        params.assume_utxo.extend_from_slice(&config.assume_utxo);
        let assume_valid = match config.assume_valid {
            AssumeValid::Pinned => params.assume_valid,
            AssumeValid::Never => None,
            AssumeValid::Block(hash) => Some(hash),
        };
        let mut shared = Shared::new(
            params,
            tree,
            coins,
            sets,
            reader,
            Arc::clone(&store.table),
            config.prune,
        );
        shared.cache_bytes = config.cache_bytes;
        let shared = Arc::new(shared);
        let mut chain = Self {
            scripts: ScriptPool::new(config.script_threads, Arc::clone(&shared.scripts)),
            checked: BTreeSet::new(),
            doubted: None,
            shared,
            config,
            assume_valid,
            writer,
            recent: Recent::new(RECENT_BYTES),
            dirty: BTreeSet::new(),
            candidates: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_sequence: 1,
            undelivered: Vec::new(),
            background: None,
            swift: None,
            swift_unsettled: false,
            flushes: Flushes::default(),
            store,
        };
        chain.open_background()?;
        chain.shared.reindexing.store(finding, Ordering::Relaxed);
        chain.link_loaded();
        if !finding {
            chain.resume_search()?;
        }
        while chain.config.catch_up && !finding {
            let mut outcome = BlockOutcome::default();
            chain.follow(&mut outcome)?;
            chain.write_index()?;
            if !outcome.changes.is_empty() {
                let tip = chain.view().tip();
                tracing::info!(
                    height = tip.height,
                    blocks = outcome.changes.len(),
                    "connected stored blocks again"
                );
            }
            if !outcome.more {
                break;
            }
        }
        Ok(chain)
    }

    /// Takes up the validation of a snapshot again, or a SwiftSync; removes the second set of coins when there is
    /// neither.
    fn open_background(&mut self) -> Result<(), StoreError> {
        let sets = &self.shared.sets;
        let beside = self.shared.coins().other();
        let Some(record) = self.shared.table.get(index::META, index::SNAPSHOT_KEY)? else {
            return self.open_swift();
        };
        let coins = sets.open(beside, self.config.cache_bytes)?;
        let reached = coins.tip()?.unwrap_or(self.params().genesis_hash);
        let found = Unproven::decode(&record).and_then(|(base, coins_hash)| {
            let tree = self.shared.tree();
            Some(Unproven {
                base: tree.find(&base)?,
                coins_hash,
                reached: tree.find(&reached)?,
                audited: 0,
            })
        });
        let unproven = found.ok_or_else(|| StoreError::corrupt("the record of the snapshot"))?;
        if self.config.swiftsync.is_some() {
            tracing::warn!("a snapshot is being validated: the hints are not used");
        }
        self.shared.set_unproven(Some(unproven));
        self.background = Some(Background::new(Arc::new(coins)));
        self.share_memory();
        Ok(())
    }

    /// [`Chain::open`] in a directory; see [`ChainStore::open_dir`].
    ///
    /// # Errors
    /// As [`Chain::open`].
    pub fn open_dir(params: Params, dir: &Path, config: ChainConfig) -> Result<Self, OpenError> {
        if dir.join(index::FORMER_DIR).exists() {
            return Err(OpenError::WrongLayout {
                found: index::LAYOUT - 1,
                known: index::LAYOUT,
            });
        }
        let store = ChainStore::open_dir(dir)?;
        Self::open(params, store, config)
    }

    /// A new chain in memory, for the simulator and for tests.
    ///
    /// # Errors
    /// As [`Chain::open`]; memory has none of its reasons.
    pub fn in_memory(params: Params) -> Result<Self, OpenError> {
        Self::open(params, ChainStore::in_memory(), ChainConfig::default())
    }
}

/// Begins a chain in an empty store: the genesis block, its record, and whose chain it is.
fn begin(params: &Params, store: &ChainStore, writer: &mut Writer, tree: &mut Tree) -> Result<(), StoreError> {
    let genesis = ParsedBlock::from_block(params.genesis.clone());
    let at = writer.append_block(&genesis.raw)?;
    writer.sync()?;
    tree.store_block(0, at, 1);
    let mut batch = facts(params);
    batch.put(index::INDEX, index::key(tree.node(0)), index::encode(tree.node(0)));
    store.table.write(batch, true)
}

/// What says whose chain a store holds.
fn facts(params: &Params) -> Batch {
    let mut batch = Batch::default();
    batch.put(index::META, index::LAYOUT_KEY, index::LAYOUT.to_be_bytes());
    batch.put(index::META, index::NETWORK_KEY, params.network.name().as_bytes());
    batch
}

/// Whether there are more blocks than the genesis block, which is all that a beginning cut short leaves.
fn has_blocks(params: &Params, store: &ChainStore) -> Result<bool, StoreError> {
    let genesis = files::FRAME + params.genesis.total_size() as u64;
    for name in store.files.list()? {
        match import::number(&name) {
            Some(0) if store.files.len(&name)?.unwrap_or(0) <= genesis => {}
            Some(_) => return Ok(true),
            None => {}
        }
    }
    Ok(false)
}

/// Refuses a store that is not ours to touch.
fn check_store(params: &Params, store: &ChainStore, layout: &[u8]) -> Result<(), OpenError> {
    let found = layout.try_into().map(u32::from_be_bytes).unwrap_or(0);
    if found != index::LAYOUT {
        return Err(OpenError::WrongLayout {
            found,
            known: index::LAYOUT,
        });
    }
    let network = store.table.get(index::META, index::NETWORK_KEY)?.unwrap_or_default();
    if network != params.network.name().as_bytes() {
        return Err(OpenError::WrongNetwork {
            found: String::from_utf8_lossy(&network).into_owned(),
            wanted: params.network,
        });
    }
    Ok(())
}
