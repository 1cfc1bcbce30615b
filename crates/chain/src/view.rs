//! Reading the chain while it is being written.
//!
//! A [`View`] is a handle that any thread may hold. Its queries take short locks on memory and read the disk outside
//! of them, so none ever waits for a block being connected. Each query alone sees the chain before a change or after
//! it; [`View::coins`] gives several coins of one and the same state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint, Wtxid};
use bytes::Bytes;
use dunlin_store::{StoreError, Table};

use crate::coins::{CoinSets, Coins};
use crate::files::{Kind, Reader};
use crate::overlay::Overlay;
use crate::prune::Prune;
use crate::script::Flags;
use crate::script_cache::ScriptCache;
use crate::search::Search;
use crate::snapshot::Unproven;
use crate::swiftsync::SwiftProgress;
use crate::tree::{NodeId, Tree};
use crate::undo::BlockUndo;
use crate::{ChainTip, Coin, Entry, Params, ParsedBlock};

/// A tip older than this is not the network's, in seconds; Core's value.
const MAX_TIP_AGE: u64 = 24 * 60 * 60;

/// How often [`View::coins`] tries to catch a state that holds still before it stops the writer for a moment.
const TRIES: usize = 8;

/// Headers that [`View::missing_blocks`] looks at in one go.
const CHUNK: u32 = 512;

/// What the one writer and all readers share.
pub(crate) struct Shared {
    pub(crate) params: Params,
    tree: RwLock<Tree>,
    coins: RwLock<Arc<Coins>>,
    pub(crate) sets: CoinSets,
    unproven: RwLock<Option<Unproven>>,
    /// Coins read and to read of a snapshot that is being loaded.
    loading: Mutex<Option<(u64, u64)>>,
    swift: Mutex<Option<SwiftProgress>>,
    search: Mutex<Option<Search>>,
    pub(crate) reader: Reader,
    pub(crate) table: Arc<dyn Table>,
    /// What the mempool verified.
    pub(crate) scripts: Arc<ScriptCache>,
    pub(crate) cache_bytes: usize,
    generation: AtomicU64,
    caught_up: AtomicBool,
    /// Held while a state is published.
    gate: Mutex<()>,
    prune: Prune,
    /// Blocks are being found in our own files.
    pub(crate) reindexing: AtomicBool,
    /// Who still needs blocks, and from which height on.
    holds: Mutex<BTreeMap<&'static str, u32>>,
    /// What the operator has to know.
    warning: Mutex<Option<String>>,
    /// Rung after a state was published.
    bell: (Mutex<()>, Condvar),
}

impl Shared {
    pub(crate) fn new(
        params: Params,
        tree: Tree,
        coins: Coins,
        sets: CoinSets,
        reader: Reader,
        table: Arc<dyn Table>,
        prune: Prune,
    ) -> Self {
        Self {
            params,
            tree: RwLock::new(tree),
            coins: RwLock::new(Arc::new(coins)),
            sets,
            unproven: RwLock::new(None),
            loading: Mutex::new(None),
            swift: Mutex::new(None),
            search: Mutex::new(None),
            reader,
            table,
            scripts: Arc::default(),
            cache_bytes: 0,
            generation: AtomicU64::new(0),
            caught_up: AtomicBool::new(false),
            gate: Mutex::new(()),
            prune,
            reindexing: AtomicBool::new(false),
            holds: Mutex::default(),
            warning: Mutex::default(),
            bell: Default::default(),
        }
    }

    /// The lowest height of a block that somebody still needs.
    pub(crate) fn lowest_held(&self) -> Option<u32> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.values().min().copied()
    }

    /// Notes what the operator has to know.
    pub(crate) fn warn(&self, text: String) {
        *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub(crate) fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        // A panic while the tree is written is a bug in code without I/O; readers still get a whole node each.
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coins of the validated chain.
    pub(crate) fn coins(&self) -> Arc<Coins> {
        Arc::clone(&self.coins.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes other coins those of the validated chain, whose tip is `tip` from now on; returns the former ones.
    pub(crate) fn replace_coins(&self, coins: Arc<Coins>, tip: NodeId, unproven: Option<Unproven>) -> Arc<Coins> {
        let gate = self.gate();
        let mut current = self.coins.write().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *current, coins);
        drop(current);
        self.tree_mut().set_active(tip);
        self.set_unproven(unproven);
        self.generation.fetch_add(1, Ordering::Release);
        drop(gate);
        self.ring();
        former
    }

    /// The snapshot that is being validated.
    pub(crate) fn unproven(&self) -> Option<Unproven> {
        *self.unproven.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_unproven(&self, unproven: Option<Unproven>) {
        *self.unproven.write().unwrap_or_else(PoisonError::into_inner) = unproven;
    }

    /// Notes that a snapshot of so many coins is being loaded; `false` when another one is.
    pub(crate) fn begin_loading(&self, coins: u64) -> bool {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let free = loading.is_none();
        if free {
            *loading = Some((0, coins));
        }
        free
    }

    pub(crate) fn set_loading(&self, progress: Option<(u64, u64)>) {
        *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    pub(crate) fn loading(&self) -> Option<(u64, u64)> {
        *self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_swift(&self, progress: Option<SwiftProgress>) {
        *self.swift.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    pub(crate) fn swift(&self) -> Option<SwiftProgress> {
        *self.swift.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The search for what damaged records said; only the writer changes it.
    pub(crate) fn search(&self) -> MutexGuard<'_, Option<Search>> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `tip`, the blocks newly found `valid` and the coins that go with them, of an overlay over ours, visible in
    /// one step.
    pub(crate) fn publish(&self, overlay: Overlay<'_>, tip: NodeId, valid: &[NodeId]) -> Result<(), StoreError> {
        let gate = self.gate();
        overlay.publish(|| {
            let mut tree = self.tree_mut();
            for id in valid {
                tree.node_mut(*id).valid = true;
            }
            tree.set_active(tip);
            self.generation.fetch_add(1, Ordering::Release);
        })?;
        drop(gate);
        self.ring();
        Ok(())
    }

    /// Has everybody in [`Shared::wait_while`] look again.
    pub(crate) fn ring(&self) {
        // Who is about to wait holds the lock while looking, so the bell is never rung between look and wait.
        drop(self.bell.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.1.notify_all();
    }

    /// Waits while `idle`, at most `patience`; it is asked again whenever the bell rings.
    pub(crate) fn wait_while(&self, patience: Duration, idle: impl Fn() -> bool) {
        let guard = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.1.wait_timeout_while(guard, patience, |()| idle()));
    }
}

/// A cheap handle to query the chain with; clones see the same chain.
#[derive(Clone)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
}

impl View {
    /// The network's parameters.
    pub fn params(&self) -> &Params {
        &self.shared.params
    }

    /// Remembers that a transaction's scripts are good under `flags`, so that they need no check in a block. The
    /// identifier commits to what they say and to the outputs that they spend.
    pub fn note_verified(&self, wtxid: Wtxid, flags: Flags) {
        self.shared.scripts.insert(wtxid, flags);
    }

    /// Memory that coins may take before they are written.
    pub fn cache_bytes(&self) -> usize {
        self.shared.cache_bytes
    }

    /// Rises with every change of the tip.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The tip of the validated chain.
    pub fn tip(&self) -> Entry {
        let tree = self.shared.tree();
        tree.entry(tree.tip())
    }

    /// The header with the most work behind it that is not known to be invalid; its blocks may still be missing.
    pub fn best_header(&self) -> Entry {
        let tree = self.shared.tree();
        tree.entry(tree.best_header())
    }

    /// What is known of a header.
    pub fn entry(&self, hash: &BlockHash) -> Option<Entry> {
        let tree = self.shared.tree();
        tree.find(hash).map(|id| tree.entry(id))
    }

    /// How many headers are known, all branches together.
    pub fn header_count(&self) -> usize {
        self.shared.tree().len()
    }

    /// The block of the validated chain at a height.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        let tree = self.shared.tree();
        tree.active_at(height).map(|id| tree.node(id).hash)
    }

    /// The header of the validated chain at a height.
    pub fn entry_at(&self, height: u32) -> Option<Entry> {
        let tree = self.shared.tree();
        tree.active_at(height).map(|id| tree.entry(id))
    }

    /// Whether a block is part of the validated chain.
    pub fn contains_in_active(&self, hash: &BlockHash) -> bool {
        let tree = self.shared.tree();
        tree.find(hash).is_some_and(|id| tree.is_active(id))
    }

    /// The ancestor of a block at a height not above its own.
    pub fn ancestor(&self, hash: &BlockHash, height: u32) -> Option<BlockHash> {
        let tree = self.shared.tree();
        let id = tree.find(hash)?;
        (height <= tree.node(id).height).then(|| tree.node(tree.ancestor(id, height)).hash)
    }

    /// The last block that the validated chain has in common with the chain that ends with `hash`.
    pub fn fork_point(&self, hash: &BlockHash) -> Option<Entry> {
        let tree = self.shared.tree();
        let id = tree.find(hash)?;
        Some(tree.entry(tree.fork_point(id)))
    }

    /// Keeps blocks from a height on from being pruned, for `who` needs them; `None` lets them go. Each name has one
    /// height, the last that was given. What was pruned before stays pruned.
    pub fn hold_blocks(&self, who: &'static str, from: Option<u32>) {
        let mut holds = self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner);
        match from {
            Some(height) => holds.insert(who, height),
            None => holds.remove(who),
        };
    }

    /// Whether old blocks are deleted.
    pub fn prune(&self) -> Prune {
        self.shared.prune
    }

    /// Whether the undo records of all blocks of the validated chain are kept: none was pruned, and none was left out by
    /// a snapshot or a SwiftSync.
    pub fn keeps_spent_coins(&self) -> bool {
        let tree = self.shared.tree();
        let first = tree.active_at(1);
        let whole = first.is_some_and(|id| tree.node(id).undo.is_some());
        drop(tree);
        whole && self.shared.prune == Prune::Off && self.shared.unproven().is_none()
    }

    /// The height of the last block of the validated chain below which a block or its undo record is missing, that one
    /// included; `None` when nothing is missing but the genesis block.
    pub fn prune_height(&self) -> Option<u32> {
        let tree = self.shared.tree();
        let whole = |id: &NodeId| tree.node(*id).block.is_some() && tree.node(*id).undo.is_some();
        let back = std::iter::successors(Some(tree.tip()), |id| tree.parent(*id));
        let missing = back.take_while(|id| *id != 0).find(|id| !whole(id));
        missing.map(|id| tree.node(id).height)
    }

    /// The first block of the validated chain with at least this time, in Unix seconds.
    pub fn first_at_time(&self, time: u32) -> Option<Entry> {
        let tree = self.shared.tree();
        let mut ids = (0..).map_while(|height| tree.active_at(height));
        ids.find(|id| tree.node(*id).header.time >= time)
            .map(|id| tree.entry(id))
    }

    /// What the operator has to know of this chain.
    pub fn warning(&self) -> Option<String> {
        let noted = || {
            let warning = self.shared.warning.lock();
            warning.unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.shared.search_warning().or_else(noted)
    }

    /// The ends of all branches, the highest first: the tip, and every header off the validated chain that no other
    /// builds on.
    pub fn chain_tips(&self) -> Vec<ChainTip> {
        let tree = self.shared.tree();
        let off: Vec<NodeId> = tree.ids().filter(|id| !tree.is_active(*id)).collect();
        let parents: HashSet<NodeId> = off.iter().filter_map(|id| tree.parent(*id)).collect();
        let mut ends: Vec<NodeId> = off.into_iter().filter(|id| !parents.contains(id)).collect();
        ends.push(tree.tip());
        ends.sort_by_key(|id| (Reverse(tree.node(*id).height), *id));
        ends.into_iter().map(|id| tree.chain_tip(id)).collect()
    }

    /// Hashes from `from` (the best header when not given or not known) back to the genesis block, ten in a row and
    /// then ever further apart, for `getheaders` and `getblocks`.
    pub fn locator(&self, from: Option<BlockHash>) -> Vec<BlockHash> {
        let tree = self.shared.tree();
        let mut at = from
            .and_then(|hash| tree.find(&hash))
            .unwrap_or_else(|| tree.best_header());
        let mut hashes = Vec::new();
        let mut step = 1u32;
        loop {
            hashes.push(tree.node(at).hash);
            let height = tree.node(at).height;
            if height == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step = step.saturating_mul(2);
            }
            at = tree.ancestor(at, height.saturating_sub(step));
        }
    }

    /// Headers of the validated chain after the first hash of `locator` that lies on it (after the genesis block when
    /// none does), up to and with `stop`, at most `max`.
    pub fn headers_after(&self, locator: &[BlockHash], stop: BlockHash, max: usize) -> Vec<Header> {
        let tree = self.shared.tree();
        let start = locator
            .iter()
            .filter_map(|hash| tree.find(hash))
            .find(|id| tree.is_active(*id))
            .map_or(0, |id| tree.node(id).height);
        let mut headers = Vec::new();
        let mut height = start;
        while headers.len() < max {
            height = height.saturating_add(1);
            let Some(id) = tree.active_at(height) else { break };
            let node = tree.node(id);
            headers.push(node.header);
            if node.hash == stop {
                break;
            }
        }
        headers
    }

    /// Blocks to fetch: those that the validated chain has lost to a damaged disk, then those on the way to the best
    /// header that are not stored, or not with the coins that they spend where those are wanted
    /// ([`View::spent_coins_wanted`]), in height order, without those that `skip` names; at most `max`.
    pub fn missing_blocks(&self, max: usize, skip: impl Fn(&BlockHash) -> bool) -> Vec<(u32, BlockHash)> {
        if self.shared.reindexing.load(Ordering::Relaxed) {
            // They may well be in our own files.
            return Vec::new();
        }
        let top = self.spent_coins_wanted().unwrap_or(0);
        let missing = |tree: &Tree, id: NodeId| {
            let node = tree.node(id);
            let lacks = node.block.is_none() || (node.height <= top && node.undo.is_none());
            (lacks && !node.invalid).then_some((node.height, node.hash))
        };
        let (mut found, mut height): (Vec<_>, u32) = {
            let tree = self.shared.tree();
            let fork = tree.node(tree.fork_point(tree.best_header())).height;
            let lost = tree.lost().filter_map(|id| missing(&tree, id)).collect();
            (lost, fork.saturating_add(1))
        };
        found.retain(|(_, hash)| !skip(hash));
        // The lock is not held while `skip` runs: it may well ask this view something.
        loop {
            let (some, top) = {
                let tree = self.shared.tree();
                let top = tree.node(tree.best_header()).height;
                let ids = (height..=top)
                    .take(CHUNK as usize)
                    .filter_map(|height| tree.best_at(height));
                (ids.filter_map(|id| missing(&tree, id)).collect::<Vec<_>>(), top)
            };
            found.extend(some.into_iter().filter(|(_, hash)| !skip(hash)));
            if found.len() >= max || top.saturating_sub(height) < CHUNK {
                break;
            }
            height = height.saturating_add(CHUNK);
        }
        found.truncate(max);
        found
    }

    /// A stored block in wire encoding; `None` when it is not known or not stored.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the record is damaged; [`Chain::mark_lost`](crate::Chain::mark_lost) has it
    /// fetched again.
    pub fn block_bytes(&self, hash: &BlockHash) -> Result<Option<Bytes>, StoreError> {
        let place = || {
            let tree = self.shared.tree();
            tree.find(hash).and_then(|id| tree.node(id).block)
        };
        let Some(at) = place() else { return Ok(None) };
        match self.shared.reader.read(Kind::Block, &at) {
            Ok(raw) => Ok(Some(raw.into())),
            // Its file was pruned between the two looks.
            Err(_) if place().is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The coins that a block spent; `None` when it was never connected.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the record is damaged.
    pub fn undo(&self, hash: &BlockHash) -> Result<Option<BlockUndo>, StoreError> {
        let at = {
            let tree = self.shared.tree();
            tree.find(hash).and_then(|id| tree.node(id).undo)
        };
        let Some(at) = at else { return Ok(None) };
        let bytes = self.shared.reader.read(Kind::Undo, &at)?;
        match BlockUndo::decode(&bytes) {
            Some(undo) => Ok(Some(undo)),
            None => Err(StoreError::corrupt(format!("the undo record of block {hash}"))),
        }
    }

    /// An unspent output.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        self.shared.coins().get(outpoint)
    }

    /// Says that a block will be connected soon: the system is asked to read the coins that it spends, as far as they are
    /// only on disk, so that whoever connects it does not wait for the disk.
    pub fn will_connect(&self, block: &ParsedBlock) {
        let spent = block.transactions().skip(1).flat_map(|tx| tx.previous_outputs());
        self.shared.coins().will_need(spent);
    }

    /// Several unspent outputs of one state, and the tip of that state.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn coins(&self, outpoints: &[OutPoint]) -> Result<(Entry, Vec<Option<Coin>>), StoreError> {
        let read = || -> Result<_, StoreError> {
            let tip = self.tip();
            let coins = outpoints
                .iter()
                .map(|outpoint| self.coin(outpoint))
                .collect::<Result<_, _>>()?;
            Ok((tip, coins))
        };
        for _ in 0..TRIES {
            let before = self.generation();
            let found = read()?;
            if self.generation() == before {
                return Ok(found);
            }
        }
        // Blocks are connected faster than these coins are read, as in a first sync: hold the writer once.
        let _gate = self.shared.gate();
        read()
    }

    /// How many transactions the chain has up to a block: counted back to the first block, or to a pinned snapshot
    /// below which the counts are not known. `None` when some other count is not known.
    pub fn chain_tx_count(&self, hash: &BlockHash) -> Option<u64> {
        let known = &self.params().assume_utxo;
        let mut at = self.entry(hash)?;
        let mut sum = 0u64;
        loop {
            if let Some(known) = known.iter().find(|known| known.block == at.hash) {
                return Some(sum.saturating_add(known.chain_tx_count));
            }
            sum = sum.saturating_add(u64::from(at.tx_count?));
            if at.height == 0 {
                return Some(sum);
            }
            at = self.entry(&at.header.prev_blockhash)?;
        }
    }

    /// Whether the chain is still far behind: too little work, or a tip older than a day at `now_unix`. Once it has
    /// caught up it never says yes again.
    pub fn is_initial_download(&self, now_unix: u64) -> bool {
        if self.shared.caught_up.load(Ordering::Relaxed) {
            return false;
        }
        let tip = self.tip();
        let behind = tip.chain_work < self.params().minimum_chain_work
            || u64::from(tip.header.time).saturating_add(MAX_TIP_AGE) < now_unix;
        if !behind {
            self.shared.caught_up.store(true, Ordering::Relaxed);
        }
        behind
    }
}
