//! The engine: takes headers and blocks, keeps the chain with the most work connected, survives being killed.
//!
//! What is on disk at any instant:
//! * Blocks and undo records are appended to files. The index (a record for each header) says where, with a checksum.
//! * Index records follow at the end of each call, not synced: after a power loss some are missing or point at bytes
//!   that never arrived. The checksum tells, and the block counts as not stored.
//! * Coins are set aside together with the tip that they are those of, and written while the chain goes on. The tip is
//!   on disk once they all are, and only after every block, undo and index record that they refer to was synced.
//!
//! So the coins on disk are always exactly those of some block whose whole history is on disk, and opening connects
//! again whatever was stored beyond it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use dunlin_store::{Barrier, Batch, Files, StoreError};

use crate::checks::ScriptPool;
use crate::coins::CoinSets;
use crate::files::{self, Kind, Location, Reader, Writer};
use crate::prune::{self, Prune};
use crate::recent::Recent;
use crate::snapshot::{AssumeUtxo, Background, Unproven};
use crate::tree::{NodeId, Tree};
use crate::view::{Shared, View};
use crate::{
    BlockError, BlockOutcome, ChainChange, ChainStore, HeaderReject, HeadersAccepted, OpenError, Params, ParsedBlock,
    Reindex, Reject, index, reindex, rules,
};

/// Which blocks' scripts are taken as checked by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssumeValid {
    /// The network's pinned block and its ancestors.
    #[default]
    Pinned,
    /// None: every script is checked.
    Never,
    /// This block and its ancestors.
    Block(BlockHash),
}

/// How a chain is run.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Memory for coins and for finding them on disk, in bytes; what is not on disk yet takes up to half of it and is
    /// then written.
    pub cache_bytes: usize,
    /// Threads that check scripts, the writing one included.
    pub script_threads: usize,
    /// Which scripts need no check.
    pub assume_valid: AssumeValid,
    /// Whether old blocks are deleted.
    pub prune: Prune,
    /// A block file takes no further block once it would pass this many bytes.
    pub block_file_bytes: u64,
    /// What is made anew when the chain is opened.
    pub reindex: Option<Reindex>,
    /// Opening connects what was stored beyond the last flush. Without it, [`Chain::advance`] does.
    pub catch_up: bool,
    /// Coins are written at least this often while many blocks come, in seconds of the clock that calls bring along:
    /// so much work is done again after a sudden death.
    pub flush_interval: u64,
    /// Snapshots to believe beside those that the network's parameters name.
    pub assume_utxo: Vec<AssumeUtxo>,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 450 << 20,
            script_threads: std::thread::available_parallelism().map_or(1, usize::from).min(16),
            assume_valid: AssumeValid::Pinned,
            prune: Prune::Off,
            block_file_bytes: files::MAX_FILE_BYTES,
            reindex: None,
            catch_up: true,
            flush_interval: 5 * 60,
            assume_utxo: Vec::new(),
        }
    }
}

/// One call connects at most about this many bytes of blocks, because its changes hold them all in memory.
pub(crate) const MAX_CHANGE_BYTES: usize = 64 << 20;

/// With fewer blocks than this since the last flush, the next may wait twelve times as long.
const FEW_BLOCKS: u32 = 50;

/// Parsed blocks that wait for a parent are kept in memory up to this many bytes of their encoding.
const RECENT_BYTES: usize = 32 << 20;

/// Once the headers have the network's minimum work, a branch must come this close to the best header, in blocks.
const LOW_WORK_DEPTH: u32 = 144;

/// A chain whose blocks have all arrived; the greatest is the one to follow: most work, then first seen.
pub(crate) type Candidate = (Work, Reverse<u64>, NodeId);

/// The chain's one writer. Reading goes through [`Chain::view`], from any thread.
pub struct Chain {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: ChainConfig,
    pub(crate) assume_valid: Option<BlockHash>,
    pub(crate) writer: Writer,
    pub(crate) recent: Recent,
    /// Threads that check scripts.
    pub(crate) scripts: ScriptPool,
    /// Blocks whose scripts are good, but which stood before one that is not.
    pub(crate) checked: BTreeSet<NodeId>,
    /// The block that was refused and is looked at once more to name its fault.
    pub(crate) doubted: Option<NodeId>,
    /// Nodes whose record on disk is out of date.
    pub(crate) dirty: BTreeSet<NodeId>,
    /// Linked, not known to be invalid, with at least the tip's work.
    pub(crate) candidates: BTreeSet<Candidate>,
    /// Stored blocks whose parent is not linked, by parent.
    pub(crate) waiting: BTreeMap<NodeId, Vec<NodeId>>,
    pub(crate) next_sequence: u64,
    /// Changes of a call that failed after it had made them; the next call that succeeds delivers them.
    pub(crate) undelivered: Vec<ChainChange>,
    /// The second set of coins, while a snapshot is being validated.
    pub(crate) background: Option<Background>,
    last_flush: Option<u64>,
    /// Steps of the tip since coins were last set aside.
    blocks_since_flush: u32,
    store: ChainStore,
}

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
        match store.table.get(index::META, index::LAYOUT_KEY)? {
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
        for id in tree.ids() {
            let node = tree.node(id);
            for (kind, at) in [(Kind::Block, node.block), (Kind::Undo, node.undo)] {
                if let Some(at) = at {
                    writer.occupy(kind, &at);
                }
            }
        }
        if config.prune == Prune::Off && tree.ids().any(|id| tree.node(id).pruned) {
            return Err(OpenError::Pruned);
        }
        prune::finish(&mut writer, &*store.table)?;
        let sets = CoinSets::new(&store);
        let coins = sets.open(index::coins(&*store.table)?, config.cache_bytes)?;
        let tip = coins.tip()?.unwrap_or(params.genesis_hash);
        let tip = tree
            .find(&tip)
            .ok_or_else(|| StoreError::corrupt(format!("the header of the coins' tip {tip}")))?;
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
            last_flush: None,
            blocks_since_flush: 0,
            store,
        };
        chain.open_background()?;
        chain.shared.reindexing.store(finding, Ordering::Relaxed);
        chain.link_loaded();
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

    pub(crate) fn files(&self) -> Arc<dyn Files> {
        Arc::clone(&self.store.files)
    }

    /// Takes up the validation of a snapshot again; removes the second set of coins when there is none.
    fn open_background(&mut self) -> Result<(), StoreError> {
        let sets = &self.shared.sets;
        let beside = self.shared.coins().other();
        let Some(record) = self.shared.table.get(index::META, index::SNAPSHOT_KEY)? else {
            return sets.erase(beside);
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
        self.shared.set_unproven(Some(unproven));
        self.background = Some(Background::new(Arc::new(coins)));
        self.share_memory();
        Ok(())
    }

    /// Shares the memory for coins among the sets that there are.
    pub(crate) fn share_memory(&self) {
        let coins = self.shared.coins();
        match &self.background {
            None => coins.set_memory(self.config.cache_bytes),
            Some(background) => {
                coins.set_memory(self.config.cache_bytes / 2);
                background.coins.set_memory(self.config.cache_bytes / 2);
            }
        }
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

    /// A handle for queries.
    pub fn view(&self) -> View {
        View {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The network's parameters.
    pub fn params(&self) -> &Params {
        &self.shared.params
    }

    /// Takes a batch of headers, each the child of the one before it. `now_unix` is the clock in seconds.
    ///
    /// Once the headers known have the network's pinned minimum of work, a branch that ends far below the best header
    /// is refused before anything of it is stored. Before that every branch with its proof of work done is stored.
    ///
    /// # Errors
    /// [`HeaderReject`]; headers before the broken one may stay accepted.
    pub fn accept_headers(&mut self, now_unix: u64, headers: &[Header]) -> Result<HeadersAccepted, HeaderReject> {
        let hashes: Vec<BlockHash> = headers.iter().map(Header::block_hash).collect();
        self.check_headers_apart(headers, &hashes)?;
        let mut accepted = HeadersAccepted {
            new: 0,
            last: self.params().genesis_hash,
        };
        let mut outcome = Ok(());
        for (index, (header, hash)) in headers.iter().zip(&hashes).enumerate() {
            match self.accept_header(now_unix, header, *hash) {
                Ok((_, new)) => {
                    accepted.new += usize::from(new);
                    accepted.last = *hash;
                }
                Err(reject) => {
                    outcome = Err(HeaderReject::Invalid {
                        index,
                        hash: *hash,
                        reject,
                    });
                    break;
                }
            }
        }
        self.write_index()?;
        outcome.map(|()| accepted)
    }

    /// What can be said of a batch of headers before any of it is stored.
    fn check_headers_apart(&self, headers: &[Header], hashes: &[BlockHash]) -> Result<(), HeaderReject> {
        let Some(first) = headers.first() else {
            return Ok(());
        };
        for (index, pair) in headers.windows(2).enumerate() {
            if pair[1].prev_blockhash != hashes[index] {
                return Err(HeaderReject::NotContinuous { index: index + 1 });
            }
        }
        for (index, (header, hash)) in headers.iter().zip(hashes).enumerate() {
            rules::check_header(self.params(), header).map_err(|reject| HeaderReject::Invalid {
                index,
                hash: *hash,
                reject,
            })?;
        }
        let tree = self.shared.tree();
        let unknown = headers
            .iter()
            .zip(hashes)
            .position(|(_, hash)| tree.find(hash).is_none());
        let Some(unknown) = unknown.and_then(|index| headers.get(index..)) else {
            return Ok(());
        };
        let Some(parent) = unknown.first().and_then(|header| tree.find(&header.prev_blockhash)) else {
            return Err(HeaderReject::Orphan(first.prev_blockhash));
        };
        let start = tree.node(parent).work;
        let work = unknown
            .iter()
            .fold(start, |sum, header| sum + rules::work_of(header.bits));
        match self.work_floor(&tree) {
            Some(floor) if work < floor => Err(HeaderReject::LowWork),
            _ => Ok(()),
        }
    }

    /// The work that a new branch must end with. There is a floor once the headers known have the network's minimum
    /// work: what is still far below the best header then was made to fill our memory, or by somebody far behind.
    fn work_floor(&self, tree: &Tree) -> Option<Work> {
        let best = tree.best_header();
        let minimum = self.params().minimum_chain_work;
        if minimum == Work::from_be_bytes([0; 32]) || tree.node(best).work < minimum {
            return None;
        }
        let near = tree.ancestor(best, tree.node(best).height.saturating_sub(LOW_WORK_DEPTH));
        Some(tree.node(near).work.max(minimum))
    }

    /// Checks one header in its context and adds it to the tree; says whether it is new.
    pub(crate) fn accept_header(
        &mut self,
        now_unix: u64,
        header: &Header,
        hash: BlockHash,
    ) -> Result<(NodeId, bool), Reject> {
        let parent = {
            let tree = self.shared.tree();
            if let Some(id) = tree.find(&hash) {
                if tree.node(id).invalid {
                    return Err(Reject::known_invalid(format!("block {hash}")));
                }
                return Ok((id, false));
            }
            rules::check_header(&self.shared.params, header)?;
            let parent = tree
                .find(&header.prev_blockhash)
                .ok_or_else(|| Reject::missing_parent(format!("block {}", header.prev_blockhash)))?;
            if tree.node(parent).invalid {
                return Err(Reject::invalid_parent(format!("block {}", header.prev_blockhash)));
            }
            rules::contextual_check_header(&self.shared.params, header, &tree.branch(parent), now_unix)?;
            parent
        };
        let id = self.shared.tree_mut().insert(parent, *header, hash);
        self.dirty.insert(id);
        Ok((id, true))
    }

    /// Takes a block: checks it, stores it, and connects whatever has the most work now. `now_unix` is the clock in
    /// seconds. The parent's header must be known; the parent's block may still be missing.
    ///
    /// # Errors
    /// [`BlockError`] says whose fault it is. What had been connected before a disk error is delivered by the next
    /// call that succeeds.
    pub fn accept_block(&mut self, now_unix: u64, block: Arc<ParsedBlock>) -> Result<BlockOutcome, BlockError> {
        let mut results = self.accept_blocks(now_unix, &[block]);
        results.pop().expect("each block has its result")
    }

    /// [`Chain::accept_block`] for several blocks at once, which are connected while the scripts of those before them
    /// are still being checked. There is one result for each block; what happened to the chain is told by the last
    /// that is no error, or by the next call.
    pub fn accept_blocks(
        &mut self,
        now_unix: u64,
        blocks: &[Arc<ParsedBlock>],
    ) -> Vec<Result<BlockOutcome, BlockError>> {
        let stored = blocks.iter().map(|block| {
            let (id, new) = self.store_block(now_unix, block, None)?;
            if new {
                self.recent.insert(id, Arc::clone(block));
            }
            Ok(BlockOutcome {
                new,
                ..BlockOutcome::default()
            })
        });
        let mut results: Vec<Result<BlockOutcome, BlockError>> = stored.collect();
        if results.iter().all(Result::is_err) {
            if let (Err(error), Some(last)) = (self.write_index(), results.last_mut()) {
                *last = Err(error.into());
            }
            return results;
        }
        let connected = self.connect_stored().and_then(|mut outcome| {
            outcome.background = self.background_ready();
            match self.flush_when_due(now_unix) {
                Ok(()) => Ok(outcome),
                Err(error) => {
                    self.undelivered = outcome.changes;
                    Err(error)
                }
            }
        });
        let mut outcome = match connected {
            Ok(outcome) => outcome,
            Err(error) => {
                if let Some(last) = results.iter_mut().rfind(|result| result.is_ok()) {
                    *last = Err(error.into());
                }
                return results;
            }
        };
        for (block, result) in blocks.iter().zip(&mut results) {
            if let Some(index) = outcome.rejected.iter().position(|(hash, _)| *hash == block.hash)
                && result.is_ok()
            {
                *result = Err(BlockError::Invalid(outcome.rejected.swap_remove(index).1));
            }
        }
        match results.iter_mut().flatten().last() {
            Some(last) => {
                *last = BlockOutcome {
                    new: last.new,
                    ..outcome
                }
            }
            None => self.undelivered = outcome.changes,
        }
        results
    }

    /// Takes a block that lies in one of our files already; nothing is connected.
    pub(crate) fn adopt_block(
        &mut self,
        now_unix: u64,
        block: &Arc<ParsedBlock>,
        at: Location,
    ) -> Result<(), BlockError> {
        if block.hash == self.params().genesis_hash {
            self.shared.tree_mut().store_block(0, at, 1);
            self.dirty.insert(0);
            return Ok(());
        }
        self.store_block(now_unix, block, Some(at)).map(drop)
    }

    /// Checks a block as far as it goes without coins and writes it to its file, unless it lies in one.
    fn store_block(
        &mut self,
        now_unix: u64,
        block: &Arc<ParsedBlock>,
        place: Option<Location>,
    ) -> Result<(NodeId, bool), BlockError> {
        let known = {
            let tree = self.shared.tree();
            let known = tree.find(&block.hash);
            if let Some(id) = known
                && tree.node(id).block.is_some()
                && !tree.node(id).invalid
            {
                return Ok((id, false));
            }
            known
        };
        if let Err(reject) = block.check(self.params()) {
            // Most of what is checked there is committed to by the header, but a body that somebody swapped fails too,
            // and its header must stay open for the real one.
            if let Some(id) = known
                && reject.kind.is_permanent_for_block()
                && !rules::is_mutated(block, self.has_segwit(id))
            {
                self.mark_invalid(id);
            }
            return Err(BlockError::Invalid(reject));
        }
        if known.is_none() {
            // The proof of work was checked above, so the claimed target counts.
            let tree = self.shared.tree();
            let parent = tree
                .find(&block.prev())
                .ok_or(BlockError::MissingParent(block.prev()))?;
            let work = tree.node(parent).work + rules::work_of(block.header().bits);
            if self.work_floor(&tree).is_some_and(|floor| work < floor) {
                return Err(BlockError::Invalid(Reject::low_work(format!("block {}", block.hash))));
            }
        }
        let (id, _) = self
            .accept_header(now_unix, block.header(), block.hash)
            .map_err(BlockError::Invalid)?;
        let (height, parent_median) = {
            let tree = self.shared.tree();
            let parent = tree.parent(id).map_or(0, |parent| tree.node(parent).median_time_past);
            (tree.node(id).height, parent)
        };
        if let Err(reject) = rules::contextual_check_block(self.params(), block, height, parent_median) {
            if reject.kind.is_permanent_for_block() {
                self.mark_invalid(id);
            }
            return Err(BlockError::Invalid(reject));
        }
        let at = match place {
            Some(at) => at,
            None => self.writer.append_block(&block.raw)?,
        };
        let count = u32::try_from(block.txids.len()).unwrap_or(u32::MAX);
        self.shared.tree_mut().store_block(id, at, count);
        self.dirty.insert(id);
        self.link(id);
        Ok((id, true))
    }

    fn has_segwit(&self, id: NodeId) -> bool {
        self.shared.tree().node(id).height >= self.params().segwit_height
    }

    /// Forgets a stored block whose bytes were found damaged, so that it is among the missing ones.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be noted on disk.
    pub fn mark_lost(&mut self, hash: &BlockHash) -> Result<(), StoreError> {
        let id = self.shared.tree().find(hash);
        if let Some(id) = id {
            self.lose(id);
            self.write_index()?;
        }
        Ok(())
    }

    /// Writes coins, tip and index so that a power loss costs nothing from here on.
    ///
    /// # Errors
    /// [`StoreError`]; the state on disk is then the one of the last flush that succeeded.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.set_coins_aside()?;
        if let Some(background) = &self.background {
            background.coins.wait()?;
        }
        self.shared.coins().wait()
    }

    /// Has all coins so far written while the chain goes on.
    fn set_coins_aside(&mut self) -> Result<(), StoreError> {
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
        self.shared.coins().freeze(&tip, self.barrier())?;
        self.writer.handed_over();
        self.blocks_since_flush = 0;
        Ok(())
    }

    /// Makes durable what coins that are set aside now refer to.
    fn barrier(&self) -> Barrier {
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

    fn flush_when_due(&mut self, now_unix: u64) -> Result<(), StoreError> {
        let last = *self.last_flush.get_or_insert(now_unix);
        // Few blocks are soon connected again.
        let factor = if self.blocks_since_flush < FEW_BLOCKS { 12 } else { 1 };
        if now_unix >= last.saturating_add(self.config.flush_interval.saturating_mul(factor)) {
            self.set_coins_aside()?;
            self.last_flush = Some(now_unix);
        }
        Ok(())
    }

    /// Looks after the memory that coins take, and after what is being written; called for every step of the tip.
    pub(crate) fn flush_when_full(&mut self) -> Result<(), StoreError> {
        self.blocks_since_flush = self.blocks_since_flush.saturating_add(1);
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

/// Begins a chain in an empty store: the genesis block, its record, and whose chain it is.
fn begin(params: &Params, store: &ChainStore, writer: &mut Writer, tree: &mut Tree) -> Result<(), StoreError> {
    let genesis = ParsedBlock::from_block(params.genesis.clone());
    let at = writer.append_block(&genesis.raw)?;
    writer.sync()?;
    tree.store_block(0, at, 1);
    let mut batch = Batch::default();
    batch.put(index::META, index::LAYOUT_KEY, index::LAYOUT.to_be_bytes());
    batch.put(index::META, index::NETWORK_KEY, params.network.name().as_bytes());
    batch.put(index::INDEX, index::key(tree.node(0)), index::encode(tree.node(0)));
    store.table.write(batch, true)
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
