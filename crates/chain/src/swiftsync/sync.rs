//! Going through the blocks up to the hinted height.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dunlin_store::{Batch, StoreError};

use super::aggregate::Aggregate;
use super::claim::Claim;
use super::digest::Totals;
use super::workers::{Fault, Task, Workers};
use super::{Hints, SwiftProgress, SwiftSync};
use crate::coins::Coins;
use crate::engine::MAX_CHANGE_BYTES;
use crate::rules::{self, bip30};
use crate::tree::{NodeId, Tree};
use crate::undo::BlockUndo;
use crate::{BlockOutcome, Chain, ChainChange, index, script};

/// How often the log tells how far it has come.
const TELL: Duration = Duration::from_secs(5);
/// Records of the index that are written together at the end.
const INDEX_PIECE: usize = 10_000;

/// A SwiftSync that was asked for.
pub(crate) struct Swift {
    asked: SwiftSync,
    /// `None` before it could begin.
    run: Option<Run>,
}

/// One that has begun.
struct Run {
    /// The block at the hinted height.
    target: NodeId,
    /// Up to here blocks were handed over.
    reached: NodeId,
    coins: Arc<Coins>,
    workers: Workers,
    secret: [u8; 32],
    hints: [u8; 32],
    /// Every block is checked with the coins that it is said to spend, and the aggregate is over whole coins.
    full: bool,
    told: Instant,
}

/// What a step came to.
enum Step {
    /// A block or header has to come first.
    Waits,
    /// There is more to do at once.
    More,
    /// The coins are those of the chain.
    Done,
    /// The ordinary sync has to do it.
    GivenUp {
        why: String,
        /// The hints are of no use, however often they are tried.
        wrong: bool,
    },
}

impl Step {
    fn give_up(why: impl Into<String>) -> Self {
        Self::GivenUp {
            why: why.into(),
            wrong: false,
        }
    }

    fn wrong(why: impl Into<String>) -> Self {
        Self::GivenUp {
            why: why.into(),
            wrong: true,
        }
    }
}

/// Whether a sync can begin.
enum Start {
    /// At this block; `true` in the full form.
    At(NodeId, bool),
    Later,
    Never(&'static str),
}

/// The record in the table.
const UNDER_WAY: [u8; 1] = [1];

fn record_of_wrong(hints: &[u8; 32]) -> Vec<u8> {
    [&[0][..], hints].concat()
}

/// What the coins' mark says: the hash of the hinted block, which hints, the secret, the aggregate; then as numbers of
/// 8 little-endian bytes the amount and the count of coins, and in 4 the height; and a byte that is 1 for the full form.
const MARK_BYTES: usize = 4 * 32 + 8 + 8 + 4 + 1;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    target: BlockHash,
    hints: [u8; 32],
    secret: [u8; 32],
    totals: Totals,
    height: u32,
    full: bool,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let totals = &self.totals;
        let mut out = Vec::with_capacity(MARK_BYTES);
        out.extend_from_slice(self.target.as_byte_array());
        out.extend_from_slice(&self.hints);
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&totals.aggregate.to_bytes());
        out.extend_from_slice(&totals.amount.to_le_bytes());
        out.extend_from_slice(&totals.coins.to_le_bytes());
        out.extend_from_slice(&self.height.to_le_bytes());
        out.push(u8::from(self.full));
        out
    }

    /// `None` when it is no mark of a SwiftSync.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (target, rest) = bytes.split_first_chunk::<32>()?;
        let (hints, rest) = rest.split_first_chunk::<32>()?;
        let (secret, rest) = rest.split_first_chunk::<32>()?;
        let (aggregate, rest) = rest.split_first_chunk::<32>()?;
        let (amount, rest) = rest.split_first_chunk::<8>()?;
        let (coins, rest) = rest.split_first_chunk::<8>()?;
        let (height, rest) = rest.split_first_chunk::<4>()?;
        let full = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        Some(Self {
            target: BlockHash::from_byte_array(*target),
            hints: *hints,
            secret: *secret,
            totals: Totals {
                aggregate: Aggregate::from_bytes(aggregate),
                amount: u64::from_le_bytes(*amount),
                coins: u64::from_le_bytes(*coins),
            },
            height: u32::from_le_bytes(*height),
            full,
        })
    }
}

impl Chain {
    /// Takes up a SwiftSync that is asked for, from where it was if it had begun; else empties the second set of coins.
    pub(crate) fn open_swift(&mut self) -> Result<(), StoreError> {
        let beside = self.shared.coins().other();
        let record = self.shared.table.get(index::META, index::SWIFT_KEY)?;
        let record = record.as_deref();
        let asked = self
            .config
            .swiftsync
            .clone()
            .filter(|asked| self.can_begin(asked, record));
        let Some(asked) = asked else {
            if record == Some(&UNDER_WAY) {
                tracing::warn!(
                    "a SwiftSync was under way and is not asked for any more: what it had done is thrown away"
                );
                self.note_swift(None)?;
            }
            return self.shared.sets.erase(beside);
        };
        let target = asked.hints.height();
        let run = match record == Some(&UNDER_WAY) {
            true => self.resume(&asked)?,
            false => None,
        };
        match &run {
            Some(run) => self.show(run),
            None => {
                self.shared.sets.erase(beside)?;
                // Otherwise the headers tell.
                let full = self.assume_valid.is_none();
                let height = 0;
                self.shared.set_swift(Some(SwiftProgress { height, target, full }));
            }
        }
        self.swift = Some(Swift { asked, run });
        Ok(())
    }

    /// Headers came: they may tell in which form a sync that has not begun will be, which decides what blocks have to
    /// come with.
    pub(crate) fn choose_swift_form(&self) {
        if let Some(Swift { asked, run: None }) = &self.swift
            && let Start::At(_, full) = self.start(asked.hints.height())
        {
            let (height, target) = (0, asked.hints.height());
            self.shared.set_swift(Some(SwiftProgress { height, target, full }));
        }
    }

    /// A block came with the coins that it is said to spend: they are kept as its undo record if they are asked for.
    pub(crate) fn take_claim(&mut self, id: NodeId, spent: &BlockUndo) -> Result<(), StoreError> {
        let top = self.view().spent_coins_wanted().unwrap_or(0);
        let lacks = {
            let tree = self.shared.tree();
            let node = tree.node(id);
            node.undo.is_none() && !tree.is_active(id) && node.height <= top
        };
        match lacks {
            true => self.write_undo(id, &spent.record()),
            false => Ok(()),
        }
    }

    /// Leaves a SwiftSync whose blocks nobody gives the spent coins of: what it has done is thrown away, and the stored
    /// blocks are connected in the ordinary way by the next [`Chain::advance`]. `why` is for the log.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be noted on disk.
    pub fn leave_swiftsync(&mut self, why: &str) -> Result<(), StoreError> {
        match self.swift.take() {
            Some(swift) => self.give_up(swift, why.to_owned(), false),
            None => Ok(()),
        }
    }

    /// Whether the hints are of any use here; tells why not.
    fn can_begin(&self, asked: &SwiftSync, record: Option<&[u8]>) -> bool {
        let tip = self.view().tip().height;
        if tip > 0 {
            tracing::info!("the chain is validated up to height {tip}: hints for a first sync are not needed");
        } else if record == Some(&record_of_wrong(&asked.hints.id())) {
            tracing::warn!("a SwiftSync with these hints failed before: syncing in the ordinary way");
        } else if asked.hints.height() == 0 {
            tracing::warn!("the hints are for the first block only: syncing in the ordinary way");
        } else {
            return true;
        }
        false
    }

    /// The sync as it was at its last flush; `None` when nothing of it is of use.
    fn resume(&self, asked: &SwiftSync) -> Result<Option<Run>, StoreError> {
        let coins = self.shared.sets.open(self.shared.coins().other(), 0)?;
        let mark = coins.mark().and_then(|mark| Mark::decode(&mark));
        let Some(mark) = mark.filter(|mark| mark.hints == asked.hints.id()) else {
            tracing::info!("SwiftSync begins anew: of an earlier one nothing was written, or it had other hints");
            return Ok(None);
        };
        if !mark.full && self.assume_valid.is_none() {
            tracing::info!("SwiftSync begins anew: what it had done was without scripts, which are to be checked now");
            return Ok(None);
        }
        let tree = self.shared.tree();
        let Some(target) = tree.find(&mark.target) else {
            tracing::warn!("SwiftSync begins anew: the header of its last block is lost");
            return Ok(None);
        };
        tracing::info!("SwiftSync goes on from height {}", mark.height);
        let reached = tree.ancestor(target, mark.height);
        drop(tree);
        Ok(Some(self.run(&asked.hints, coins, (target, reached), &mark)))
    }

    /// Goes on from a mark, with the last block and the one that was reached.
    fn run(&self, hints: &Arc<Hints>, coins: Coins, (target, reached): (NodeId, NodeId), mark: &Mark) -> Run {
        coins.set_memory(self.config.cache_bytes);
        let coins = Arc::new(coins);
        let (chain, threads) = (Arc::clone(&self.shared), self.config.script_threads);
        Run {
            target,
            reached,
            workers: Workers::new(
                chain,
                Arc::clone(hints),
                &mark.secret,
                Arc::clone(&coins),
                mark.totals,
                threads,
            ),
            coins,
            secret: mark.secret,
            hints: mark.hints,
            full: mark.full,
            told: Instant::now(),
        }
    }

    /// Goes on with a SwiftSync; `true` when the chain stays where it is until there is more.
    pub(crate) fn sync_swiftly(&mut self, outcome: &mut BlockOutcome) -> Result<bool, StoreError> {
        let Some(mut swift) = self.swift.take() else {
            return Ok(false);
        };
        let step = self.swift_step(&mut swift, outcome);
        match step {
            Ok(Step::Waits | Step::More) => {
                outcome.more = matches!(step, Ok(Step::More));
                self.swift = Some(swift);
                Ok(true)
            }
            Ok(Step::Done) => Ok(false),
            Ok(Step::GivenUp { why, wrong }) => self.give_up(swift, why, wrong).map(|()| false),
            Err(error) => {
                self.swift = Some(swift);
                Err(error)
            }
        }
    }

    fn swift_step(&mut self, swift: &mut Swift, outcome: &mut BlockOutcome) -> Result<Step, StoreError> {
        if swift.run.is_none() {
            let (target, full) = match self.start(swift.asked.hints.height()) {
                Start::At(target, full) => (target, full),
                Start::Later => return Ok(Step::Waits),
                Start::Never(why) => return Ok(Step::give_up(why)),
            };
            if !full {
                self.drop_claims()?;
            }
            self.note_swift(Some(&UNDER_WAY))?;
            let coins = self.shared.sets.open(self.shared.coins().other(), 0)?;
            let start = Mark {
                target: self.shared.tree().node(target).hash,
                hints: swift.asked.hints.id(),
                secret: swift.asked.secret,
                totals: Totals::default(),
                height: 0,
                full,
            };
            let run = self.run(&swift.asked.hints, coins, (target, 0), &start);
            self.show(&run);
            swift.run = Some(run);
        }
        let Some(run) = &mut swift.run else {
            return Ok(Step::Waits);
        };
        let mut bytes = 0;
        loop {
            let next = {
                let tree = self.shared.tree();
                if !tree.is_ancestor(run.target, tree.best_header()) {
                    let why = "the chain with the most work has another block at the hinted height now";
                    return Ok(Step::give_up(why));
                }
                tree.ancestor(run.target, tree.node(run.reached).height.saturating_add(1))
            };
            if run.workers.has_failed() || run.reached == run.target {
                return self.finish(run, outcome);
            }
            if bytes > MAX_CHANGE_BYTES {
                return Ok(Step::More);
            }
            let (height, claimed) = {
                let tree = self.shared.tree();
                let node = tree.node(next);
                (node.height, node.undo.is_some())
            };
            if run.full && !claimed {
                return Ok(Step::Waits);
            }
            let Some(block) = self.load(next)? else {
                return Ok(Step::Waits);
            };
            let claim = match run.full {
                true => match self.claim(next)? {
                    Some(claim) => Some(claim),
                    None => return Ok(Step::Waits),
                },
                false => None,
            };
            self.recent.remove(next);
            bytes += block.raw.len();
            let overwritten = bip30::is_overwritten(height, &block.hash);
            run.workers.hand_over(Task {
                block,
                height,
                overwritten,
                claim,
            });
            run.reached = next;
            run.coins.step()?;
            if run.coins.is_full() {
                self.write_index()?;
                self.freeze_run(run)?;
                self.writer.handed_over();
            }
            self.show(run);
            if run.told.elapsed() >= TELL {
                run.told = Instant::now();
                let target = swift.asked.hints.height();
                let percent = u64::from(height) * 100 / u64::from(target.max(1));
                tracing::info!("SwiftSync: height {height} of {target} ({percent} %)");
            }
        }
    }

    /// What a block is said to spend; `None` when that is damaged, and has to come again.
    fn claim(&mut self, id: NodeId) -> Result<Option<Claim>, StoreError> {
        let (hash, height, scripts_assumed) = {
            let tree = self.shared.tree();
            let node = tree.node(id);
            (node.hash, node.height, self.scripts_assumed(&tree, id))
        };
        match self.view().undo(&hash) {
            Ok(Some(undo)) => Ok(Some(Claim {
                id,
                undo,
                flags: script::block_flags(self.params(), height, &hash),
                scripts_assumed,
            })),
            Ok(None) | Err(StoreError::Corrupt { .. }) => {
                self.shared.tree_mut().node_mut(id).undo = None;
                self.dirty.insert(id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets what blocks were said to spend: nobody will have looked at it when they are part of the chain.
    fn drop_claims(&mut self) -> Result<(), StoreError> {
        let claimed: Vec<NodeId> = {
            let mut tree = self.shared.tree_mut();
            let claimed: Vec<NodeId> = tree.ids().filter(|id| tree.node(*id).undo.is_some()).collect();
            for id in &claimed {
                tree.node_mut(*id).undo = None;
            }
            claimed
        };
        self.dirty.extend(claimed);
        self.write_index()
    }

    /// Where the sync leads, if it can begin, and in which form.
    fn start(&self, height: u32) -> Start {
        let tree = self.shared.tree();
        let best = tree.best_header();
        if tree.node(best).height >= height && tree.node(best).work >= self.params().minimum_chain_work {
            let target = tree.ancestor(best, height);
            // Where scripts may have to be checked after all, blocks have to come with what they spend.
            let full = match self.assume_valid {
                None => true,
                Some(assumed) => tree
                    .find(&assumed)
                    .is_some_and(|assumed| !tree.is_ancestor(target, assumed)),
            };
            if full || self.scripts_assumed(&tree, target) {
                return match self.repeats_known(&tree, target) {
                    true => Start::At(target, full),
                    false => Start::Never("the chain is not the one whose repeated coinbases are known"),
                };
            }
        }
        // While headers come, more blocks may be found to be deep enough; once their blocks are all here, none come.
        match best == 0 || tree.node(best).sequence == 0 {
            true => Start::Later,
            false => Start::Never("the chain ends before it, or not two weeks of work above it"),
        }
    }

    /// Whether it is known which transactions are repeated up to a block (BIP 30).
    fn repeats_known(&self, tree: &Tree, target: NodeId) -> bool {
        let params = self.params();
        let best = tree.best_header();
        let known = tree.best_at(params.bip34_height).map(|id| tree.node(id));
        bip30::is_ruled_out(params)
            || (tree.node(best).height >= params.bip34_height
                && known.map(|node| node.hash) == params.bip34_hash
                && !bip30::check_needed(
                    params,
                    tree.node(target).height,
                    &tree.node(target).hash,
                    params.bip34_hash,
                ))
    }

    /// All blocks were handed over, or one could not be added up: the aggregate decides.
    fn finish(&mut self, run: &mut Run, outcome: &mut BlockOutcome) -> Result<Step, StoreError> {
        let totals = match run.workers.drain() {
            Ok(totals) => totals,
            Err(Fault::Hints(why) | Fault::Claim(why)) => return Ok(Step::wrong(why)),
            Err(Fault::Store(error)) => return Err(error),
        };
        let height = self.shared.tree().node(run.target).height;
        if !totals.aggregate.is_zero() {
            return Ok(Step::wrong(format!(
                "what was created, less what was spent, is not what they say is unspent at height {height}"
            )));
        }
        let interval = self.params().subsidy_halving_interval;
        let subsidies = (1..=height).map(|height| rules::subsidy(height, interval).to_sat());
        if totals.amount > subsidies.fold(0, u64::saturating_add) {
            return Ok(Step::wrong(format!(
                "there is more money at height {height} than all subsidies"
            )));
        }
        let Some(block) = self.load(run.target)? else {
            // It comes again, and then this does.
            return Ok(Step::Waits);
        };

        self.write_index()?;
        self.freeze_run(run)?;
        self.writer.handed_over();
        self.mark_valid(run.target)?;
        // An empty set is that of the genesis block, which the chain has until the table says otherwise.
        self.shared.sets.remove(&self.shared.coins())?;
        self.shared.replace_coins(Arc::clone(&run.coins), run.target, None);
        self.swift_unsettled = true;
        self.share_memory();
        self.link_again();
        tracing::info!(
            "SwiftSync: the {} coins at height {height} are what the blocks leave unspent; the chain goes on from there",
            totals.coins
        );
        outcome.changes.push(ChainChange::Connected(block, height));
        Ok(Step::Done)
    }

    /// Notes in the table, once the coins of a SwiftSync that has ended are on disk, that they are those of the chain;
    /// before that no later coins may be written. Waits for that, or looks whether it is so.
    pub(crate) fn settle_swift(&mut self, wait: bool) -> Result<(), StoreError> {
        if !self.swift_unsettled {
            return Ok(());
        }
        let coins = self.shared.coins();
        if wait {
            coins.wait()?;
        }
        let written = coins.mark().and_then(|mark| Mark::decode(&mark)).is_some_and(|mark| {
            let tree = self.shared.tree();
            tree.find(&mark.target)
                .is_some_and(|id| tree.node(id).height == mark.height)
        });
        if !written {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(index::META, index::COINS_KEY, [coins.number()]);
        batch.delete(index::META, index::SWIFT_KEY);
        self.shared.table.write(batch, true)?;
        self.swift_unsettled = false;
        self.shared.set_swift(None);
        Ok(())
    }

    /// Notes that a block and those below it are part of the validated chain.
    fn mark_valid(&mut self, target: NodeId) -> Result<(), StoreError> {
        let ids: Vec<NodeId> = {
            let tree = self.shared.tree();
            std::iter::successors(Some(target), |id| tree.parent(*id)).collect()
        };
        for piece in ids.chunks(INDEX_PIECE) {
            let mut tree = self.shared.tree_mut();
            for id in piece {
                tree.node_mut(*id).valid = true;
            }
            drop(tree);
            self.dirty.extend(piece);
            self.write_index()?;
        }
        Ok(())
    }

    /// Throws everything away.
    fn give_up(&mut self, swift: Swift, why: String, wrong: bool) -> Result<(), StoreError> {
        let height = swift.asked.hints.height();
        let full = swift.run.as_ref().is_some_and(|run| run.full);
        let text = match wrong {
            true if full => format!(
                "SwiftSync to height {height} has failed ({why}): the hints are wrong, a peer told wrong coins, or a \
                 block is invalid; what was done is thrown away"
            ),
            true => format!("the hints for height {height} are wrong ({why}): what was done with them is thrown away"),
            false => format!("the hints for height {height} cannot be used: {why}"),
        };
        tracing::warn!("{text}; syncing in the ordinary way");
        if wrong {
            self.shared.warn(text);
        }
        let record = wrong.then(|| record_of_wrong(&swift.asked.hints.id()));
        self.note_swift(record.as_deref())?;
        if let Some(run) = swift.run {
            drop(run.workers);
            self.shared.sets.remove(&run.coins)?;
        }
        self.shared.set_swift(None);
        Ok(())
    }

    /// Sets the record in the table, durably.
    fn note_swift(&self, record: Option<&[u8]>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        match record {
            Some(record) => batch.put(index::META, index::SWIFT_KEY, record),
            None => batch.delete(index::META, index::SWIFT_KEY),
        }
        self.shared.table.write(batch, true)
    }

    /// Tells readers how far the sync has come.
    fn show(&self, run: &Run) {
        let tree = self.shared.tree();
        let (height, target) = (tree.node(run.reached).height, tree.node(run.target).height);
        drop(tree);
        let full = run.full;
        self.shared.set_swift(Some(SwiftProgress { height, target, full }));
    }

    /// Has what a SwiftSync has done so far written; part of every flush.
    pub(crate) fn set_swift_aside(&mut self) -> Result<(), StoreError> {
        match self.swift.as_ref().and_then(|swift| swift.run.as_ref()) {
            Some(run) => self.freeze_run(run),
            None => Ok(()),
        }
    }

    /// Waits until that is on disk.
    pub(crate) fn wait_for_swift(&self) -> Result<(), StoreError> {
        match self.swift.as_ref().and_then(|swift| swift.run.as_ref()) {
            Some(run) => run.coins.wait(),
            None => Ok(()),
        }
    }

    /// Sets coins aside with the sums that belong to them. When a block could not be added up, nothing is: the next step
    /// says so.
    fn freeze_run(&self, run: &Run) -> Result<(), StoreError> {
        if run.workers.has_failed() {
            return Ok(());
        }
        let totals = match run.workers.drain() {
            Ok(totals) => totals,
            Err(fault) => {
                run.workers.fail(fault);
                return Ok(());
            }
        };
        let tree = self.shared.tree();
        let mark = Mark {
            target: tree.node(run.target).hash,
            hints: run.hints,
            secret: run.secret,
            totals,
            height: tree.node(run.reached).height,
            full: run.full,
        };
        drop(tree);
        run.coins.freeze_marked(&mark.encode(), self.barrier())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_survives_writing() {
        let mark = Mark {
            target: BlockHash::from_byte_array([1; 32]),
            hints: [2; 32],
            secret: [3; 32],
            totals: Totals {
                aggregate: Aggregate::from_bytes(&[4; 32]),
                amount: u64::MAX - 5,
                coins: 6,
            },
            height: 7,
            full: true,
        };
        let bytes = mark.encode();
        assert_eq!(bytes.len(), MARK_BYTES);
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for len in 0..MARK_BYTES {
            assert_eq!(Mark::decode(&bytes[..len]), None);
        }
        assert_eq!(Mark::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
