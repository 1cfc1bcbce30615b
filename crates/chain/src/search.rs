//! Finding out again what damaged records said, by going through the blocks of the chain from the first one on.
//!
//! Looked for are the unspent outputs whose records are damaged, or the outputs that a block spent. Blocks that are not
//! stored any more are asked of peers once more ([`View::blocks_to_search`]); such a block is checked against its
//! header, read, and let go. Blocks may come in any order: the little that each says of what is looked for waits for
//! those before it.
//!
//! While coins are looked for the chain stays at its tip, because what is found is the state of that tip. A record in
//! the table lets the search begin again after a restart.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use dunlin_store::{Batch, Damage, Pairs, StoreError};

use crate::coin::{self, is_spendable};
use crate::engine::{Chain, MAX_CHANGE_BYTES};
use crate::repair::coin_of;
use crate::tree::{NodeId, Tree};
use crate::undo::BlockUndo;
use crate::view::Shared;
use crate::{BlockOutcome, Coin, ParsedBlock, Reject, TxParts, View, index};

/// How often the log tells how far a search has come.
const TELL: Duration = Duration::from_secs(5);
/// Blocks further above the next one than this are not taken.
const AHEAD: u32 = 4096;

/// The record in the table: coins are damaged.
const COINS: u8 = 0;
/// The undo record of the block whose hash follows is damaged.
const UNDO: u8 = 1;

/// What is looked for.
enum Goal {
    /// The unspent outputs that these records may have held.
    Coins(Vec<Damage>),
    /// What a block spent.
    Undo {
        block: NodeId,
        spent: HashSet<OutPoint>,
        /// The transactions that made it.
        makers: HashSet<Txid>,
    },
}

impl Goal {
    /// Whether outputs of a transaction may be looked for.
    fn may_want(&self, txid: &Txid) -> bool {
        match self {
            Self::Coins(damage) => damage.iter().any(|damage| damage.may_have(txid.as_byte_array())),
            Self::Undo { makers, .. } => makers.contains(txid),
        }
    }

    /// What a block says of what is looked for.
    fn read(&self, block: &ParsedBlock, height: u32) -> Extract {
        let mut extract = Extract::default();
        for (index, tx) in block.transactions().enumerate() {
            if let Self::Coins(_) = self {
                let spent = tx.previous_outputs().filter(|outpoint| self.may_want(&outpoint.txid));
                extract.spent.extend(spent);
            }
            let txid = tx.txid();
            if !self.may_want(&txid) {
                continue;
            }
            for (vout, output) in (0u32..).zip(tx.outputs()) {
                let outpoint = OutPoint { txid, vout };
                let wanted = match self {
                    Self::Coins(_) => is_spendable(output.script_pubkey),
                    Self::Undo { spent, .. } => spent.contains(&outpoint),
                };
                if wanted {
                    extract.made.push((outpoint, coin_of(&output, height, index)));
                }
            }
        }
        extract
    }
}

/// What one block says.
#[derive(Default)]
struct Extract {
    made: Vec<(OutPoint, Coin)>,
    spent: Vec<OutPoint>,
}

/// A search under way.
pub(crate) struct Search {
    goal: Goal,
    /// The last block to be read.
    top: NodeId,
    top_height: u32,
    /// The height of the next block.
    next: u32,
    /// What was found in the blocks below that; of two outputs with the same name (BIP 30) the newer one.
    found: BTreeMap<OutPoint, Coin>,
    /// What later blocks say.
    ahead: BTreeMap<u32, Extract>,
    /// A block that is not stored had to be waited for.
    waits: bool,
    told: Instant,
}

impl Search {
    /// Takes what the block at a height says, and whatever waited for it.
    fn take(&mut self, height: u32, extract: Extract) {
        self.ahead.insert(height, extract);
        while let Some(extract) = self.ahead.remove(&self.next) {
            self.found.extend(extract.made);
            for outpoint in extract.spent {
                self.found.remove(&outpoint);
            }
            self.next += 1;
        }
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            let (done, of) = (self.next - 1, self.top_height);
            let percent = u64::from(done) * 100 / u64::from(of.max(1));
            tracing::info!("looking in all blocks for what is damaged: height {done} of {of} ({percent} %)");
        }
    }

    fn is_of_coins(&self) -> bool {
        matches!(self.goal, Goal::Coins(_))
    }

    /// Whether the block at a height has not been read and is near enough.
    fn wants(&self, height: u32) -> bool {
        (self.next..=self.last_near()).contains(&height) && !self.ahead.contains_key(&height)
    }

    fn last_near(&self) -> u32 {
        self.top_height.min(self.next.saturating_add(AHEAD))
    }

    /// What the operator has to know, once blocks have to come from peers.
    fn warning(&self, tree: &Tree) -> Option<String> {
        let (what, meanwhile) = match &self.goal {
            Goal::Coins(_) => (
                "a coin is",
                format!("; the chain stays at height {} until then", self.top_height),
            ),
            Goal::Undo { .. } => ("an undo record is", String::new()),
        };
        let missing = tree.node(tree.ancestor(self.top, self.next));
        (self.waits && missing.block.is_none()).then(|| {
            format!(
                "{what} damaged on disk, and blocks that tell what it was are not kept: they are being fetched again \
                 from peers that keep all, height {} of {}{meanwhile}",
                self.next, self.top_height
            )
        })
    }
}

/// How far a search for what damaged records said has come; see [`View::search`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchProgress {
    /// The height up to which all blocks were read.
    pub height: u32,
    /// The height of the last block to be read.
    pub target: u32,
    /// Whether the chain stays where it is until the search is over: other blocks are of no use before.
    pub rests: bool,
}

impl View {
    /// The search for what damaged records said, while there is one.
    pub fn search(&self) -> Option<SearchProgress> {
        let search = self.shared.search();
        search.as_ref().map(|search| SearchProgress {
            height: search.next - 1,
            target: search.top_height,
            rests: search.is_of_coins(),
        })
    }

    /// Blocks to fetch for such a search, in height order, without those that `skip` names; at most `max`.
    pub fn blocks_to_search(&self, max: usize, skip: impl Fn(&BlockHash) -> bool) -> Vec<(u32, BlockHash)> {
        let missing: Vec<(u32, BlockHash)> = {
            let search = self.shared.search();
            let Some(search) = search.as_ref() else {
                return Vec::new();
            };
            let tree = self.shared.tree();
            let heights = (search.next..=search.last_near()).filter(|height| search.wants(*height));
            let nodes = heights.map(|height| tree.node(tree.ancestor(search.top, height)));
            nodes
                .filter(|node| node.block.is_none())
                .map(|node| (node.height, node.hash))
                .collect()
        };
        // No lock is held while `skip` runs: it may well ask this view something.
        missing.into_iter().filter(|(_, hash)| !skip(hash)).take(max).collect()
    }
}

impl Shared {
    /// What the operator has to know of a search.
    pub(crate) fn search_warning(&self) -> Option<String> {
        let search = self.search();
        search.as_ref().and_then(|search| search.warning(&self.tree()))
    }

    /// Whether what this block spent is being looked for.
    pub(crate) fn searches_undo_of(&self, id: NodeId) -> bool {
        let goal = self.search();
        matches!(goal.as_ref().map(|search| &search.goal), Some(Goal::Undo { block, .. }) if *block == id)
    }
}

impl Chain {
    /// Looks for damaged coins, and begins to look for what they were; `false` when none is damaged.
    pub(crate) fn search_coins(&mut self) -> Result<bool, StoreError> {
        if self.shared.search().as_ref().is_some_and(Search::is_of_coins) {
            return Ok(true);
        }
        // What is found is the state of the tip, so that must be the state on disk.
        self.flush()?;
        let coins = self.shared.coins();
        let damage = coins.damage()?;
        if damage.is_empty() {
            return Ok(false);
        }
        tracing::warn!(
            records = damage.len(),
            "coins are damaged on disk; looking in all blocks for what they were"
        );
        let tip = self.shared.tree().tip();
        self.begin_search(Goal::Coins(damage), tip, vec![COINS])?;
        Ok(true)
    }

    /// Begins to look for what a block spent, unless another search is under way.
    pub(crate) fn search_undo(&mut self, id: NodeId, spent: HashSet<OutPoint>) -> Result<(), StoreError> {
        if self.shared.search().is_some() {
            return Ok(());
        }
        let makers = spent.iter().map(|outpoint| outpoint.txid).collect();
        let block = id;
        let record = [&[UNDO][..], self.shared.tree().node(id).hash.as_byte_array()].concat();
        self.begin_search(Goal::Undo { block, spent, makers }, id, record)?;
        // What is stored was looked through already.
        self.wait_for_block();
        Ok(())
    }

    fn begin_search(&mut self, goal: Goal, top: NodeId, record: Vec<u8>) -> Result<(), StoreError> {
        self.note_search(Some(record))?;
        let top_height = self.shared.tree().node(top).height;
        *self.shared.search() = Some(Search {
            goal,
            top,
            top_height,
            next: 1,
            found: BTreeMap::new(),
            ahead: BTreeMap::new(),
            waits: false,
            told: Instant::now(),
        });
        Ok(())
    }

    /// Begins again what a stop has interrupted.
    pub(crate) fn resume_search(&mut self) -> Result<(), StoreError> {
        let Some(record) = self.shared.table.get(index::META, index::SEARCH_KEY)? else {
            return Ok(());
        };
        match record.split_first() {
            Some((&COINS, _)) => drop(self.search_coins()?),
            Some((&UNDO, hash)) => {
                let hash = BlockHash::from_slice(hash).unwrap_or(self.params().genesis_hash);
                let id = self.shared.tree().find(&hash);
                if let Some(id) = id
                    && !matches!(self.view().undo(&hash), Ok(Some(_)))
                {
                    self.rebuild_undo(id)?;
                }
            }
            _ => {}
        }
        match self.shared.search().is_some() {
            true => Ok(()),
            false => self.note_search(None),
        }
    }

    fn note_search(&self, record: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        match record {
            Some(record) => batch.put(index::META, index::SEARCH_KEY, record),
            None => batch.delete(index::META, index::SEARCH_KEY),
        }
        self.shared.table.write(batch, true)
    }

    /// A block that was pruned and comes again for a search is read; `None` when it is no such block.
    pub(crate) fn take_for_search(&mut self, block: &ParsedBlock) -> Option<Result<(), Reject>> {
        let height = {
            let search = self.shared.search();
            let search = search.as_ref()?;
            let tree = self.shared.tree();
            let id = tree.find(&block.hash)?;
            let node = tree.node(id);
            let wanted = node.pruned && search.wants(node.height) && tree.is_ancestor(id, search.top);
            wanted.then_some(node.height)?
        };
        // The hash is that of the header; the body may be anybody's.
        if let Err(reject) = block.check(self.params()) {
            return Some(Err(reject));
        }
        self.read_for_search(block, height);
        Some(Ok(()))
    }

    fn read_for_search(&self, block: &ParsedBlock, height: u32) {
        if let Some(search) = self.shared.search().as_mut() {
            let extract = search.goal.read(block, height);
            search.take(height, extract);
        }
    }

    /// Goes on with a search as far as stored blocks lead, and mends what was damaged at its end; `true` when the chain
    /// has to stay where it is. `bytes` counts what was read.
    pub(crate) fn search_on(&mut self, bytes: &mut usize, outcome: &mut BlockOutcome) -> Result<bool, StoreError> {
        loop {
            let (next, height, rests) = {
                let mut search = self.shared.search();
                let Some(under_way) = search.as_ref() else {
                    return Ok(false);
                };
                let tree = self.shared.tree();
                let rests = under_way.is_of_coins();
                if rests && under_way.top != tree.tip() {
                    // The coins are others than those that were damaged.
                    *search = None;
                    drop((tree, search));
                    self.note_search(None)?;
                    return Ok(false);
                }
                let height = under_way.next;
                let next = (height <= under_way.top_height).then(|| tree.ancestor(under_way.top, height));
                (next, height, rests)
            };
            let Some(id) = next else {
                self.end_search()?;
                continue;
            };
            if *bytes > MAX_CHANGE_BYTES {
                outcome.more = true;
                return Ok(rests);
            }
            let Some(block) = self.load(id)? else {
                self.wait_for_block();
                return Ok(rests);
            };
            *bytes += block.raw.len();
            self.read_for_search(&block, height);
        }
    }

    /// A block has to come first; that is told once.
    fn wait_for_block(&self) {
        let first = {
            let mut search = self.shared.search();
            let search = search.as_mut();
            search.is_some_and(|search| !std::mem::replace(&mut search.waits, true))
        };
        if first && let Some(text) = self.shared.search_warning() {
            tracing::warn!("{text}");
        }
    }

    /// All blocks were read: what was found takes the place of what was damaged.
    fn end_search(&mut self) -> Result<(), StoreError> {
        let Some(search) = self.shared.search().take() else {
            return Ok(());
        };
        match search.goal {
            Goal::Coins(damage) => {
                let pair = |(outpoint, found): (OutPoint, Coin)| {
                    let mut value = Vec::new();
                    coin::encode(&found, &mut value);
                    (coin::key(&outpoint).to_vec(), value)
                };
                let truth: Pairs = search.found.into_iter().map(pair).collect();
                let coins = self.shared.coins();
                match coins.mend(&damage, &truth) {
                    Ok(()) => tracing::info!(coins = truth.len(), "the damaged coins are whole again"),
                    // More is damaged by now.
                    Err(StoreError::Corrupt { .. }) if self.search_coins()? => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            Goal::Undo { block: id, .. } => {
                if let Some(block) = self.load(id)?
                    && let Some(undo) = BlockUndo::of(&block, |outpoint| search.found.get(outpoint).cloned())
                {
                    self.write_undo(id, &undo.record())?;
                    self.write_index()?;
                    tracing::info!(block = %block.hash, "the undo record is whole again");
                }
            }
        }
        self.note_search(None)
    }
}
