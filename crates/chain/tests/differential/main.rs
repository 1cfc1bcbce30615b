//! The engine beside Bitcoin Core's: the same seeded blocks, valid and broken, on forks and out of order, go into both.
//! For every one the verdict, the kind of fault and the tip must be the same; at the end so must the spent coins.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod maker;
#[path = "../regtest/mod.rs"]
mod regtest;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoinkernel::notifications::types::BlockValidationResult;
use bitcoinkernel::prelude::*;
use bitcoinkernel::state::chainstate::ProcessBlockHeaderResult;
use bitcoinkernel::{
    Block, BlockHeader, BlockValidationStateRef, ChainType, ChainstateManager, ChainstateManagerBuilder, Context,
    ContextBuilder, ProcessBlockResult, ValidationMode,
};
use dunlin_chain::{BlockError, Chain, HeaderReject, Network, Params, RejectKind};
use maker::{Maker, State};
use regtest::{Made, genesis};
use ways::WAYS;

/// The clock, for both engines: Core's reads the machine's.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

type Checked = Arc<Mutex<BTreeMap<[u8; 32], Option<BlockValidationResult>>>>;

/// Bitcoin Core's engine.
struct Core {
    manager: ChainstateManager,
    _context: Context,
    checked: Checked,
    _dir: tempfile::TempDir,
}

impl Core {
    fn new() -> Self {
        let checked = Checked::default();
        let heard = Arc::clone(&checked);
        let context = ContextBuilder::new()
            .chain_type(ChainType::Regtest)
            .with_block_checked_validation(move |block: Block, state: BlockValidationStateRef<'_>| {
                let fault = (state.mode() != ValidationMode::Valid).then(|| state.result());
                heard.lock().unwrap().insert(block.hash().to_bytes(), fault);
            })
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let manager = ChainstateManagerBuilder::new(&context, &path("data"), &path("blocks"))
            .unwrap()
            .block_tree_db_in_memory(true)
            .chainstate_db_in_memory(true)
            .worker_threads(1)
            .build()
            .unwrap();
        manager.import_blocks().unwrap();
        Self {
            manager,
            _context: context,
            checked,
            _dir: dir,
        }
    }

    /// `None` when the block is taken (perhaps without being connected yet), else the kind of fault.
    fn block(&self, made: &Made) -> Option<BlockValidationResult> {
        self.checked.lock().unwrap().clear();
        let block = Block::new(&made.block.raw).unwrap();
        let result = self.manager.process_block(&block);
        let fault = self
            .checked
            .lock()
            .unwrap()
            .get(&made.place.hash.to_byte_array())
            .copied()
            .flatten();
        assert!(
            result != ProcessBlockResult::Rejected || fault.is_some(),
            "rejected without a reason"
        );
        fault
    }

    fn header(&self, made: &Made) -> Option<BlockValidationResult> {
        let header = BlockHeader::new(&serialize(made.block.header())).unwrap();
        match self.manager.process_block_header(&header).unwrap() {
            ProcessBlockHeaderResult::Valid => None,
            ProcessBlockHeaderResult::Invalid(state) => Some(state.result()),
        }
    }

    fn tip(&self) -> BlockHash {
        BlockHash::from_byte_array(self.manager.active_chain().tip().block_hash().to_bytes())
    }
}

/// Our kinds in Core's terms.
fn core_kind(kind: RejectKind) -> BlockValidationResult {
    match kind {
        RejectKind::Consensus | RejectKind::MissingInputs | RejectKind::Premature => BlockValidationResult::Consensus,
        RejectKind::InvalidHeader => BlockValidationResult::InvalidHeader,
        RejectKind::Mutated => BlockValidationResult::Mutated,
        RejectKind::TimeFuture => BlockValidationResult::TimeFuture,
        RejectKind::MissingParent => BlockValidationResult::MissingPrev,
        RejectKind::InvalidParent => BlockValidationResult::InvalidPrev,
        RejectKind::KnownInvalid => BlockValidationResult::CachedInvalid,
        RejectKind::LowWork => BlockValidationResult::HeaderLowWork,
    }
}

/// Both engines, side by side.
struct Pair {
    ours: Chain,
    core: Core,
    blocks: usize,
    refused: BTreeMap<&'static str, usize>,
    reorganisations: usize,
    parents: BTreeMap<BlockHash, BlockHash>,
    /// Blocks that both refused for ever.
    condemned: BTreeSet<BlockHash>,
}

impl Pair {
    fn new() -> Self {
        Self {
            ours: Chain::in_memory(Params::new(Network::Regtest)).unwrap(),
            core: Core::new(),
            blocks: 0,
            refused: BTreeMap::new(),
            reorganisations: 0,
            parents: BTreeMap::new(),
            condemned: BTreeSet::new(),
        }
    }

    /// Whether both say the same.
    ///
    /// There is one difference by intent. Core forgets a block whose fault shows without its context and takes what is
    /// built on it until it is tried again; we remember it. So we may refuse a descendant, or the block when it comes
    /// again, earlier than Core: but only then.
    fn agree(&self, made: &Made, ours: Option<BlockValidationResult>, core: Option<BlockValidationResult>) -> bool {
        let remembered = matches!(
            ours,
            Some(BlockValidationResult::CachedInvalid | BlockValidationResult::InvalidPrev)
        );
        let mut line = std::iter::successors(Some(made.place.hash), |hash| self.parents.get(hash).copied());
        ours == core || remembered && line.any(|hash| self.condemned.contains(&hash))
    }

    /// Gives a block to both; says whether it was taken.
    fn offer(&mut self, made: &Made, name: &'static str) -> bool {
        self.blocks += 1;
        let before = self.ours.view().tip().hash;
        let (ours, text) = match self.ours.accept_block(now(), Arc::clone(&made.block)) {
            Ok(_) => (None, String::from("taken")),
            Err(BlockError::Invalid(reject)) => (Some(core_kind(reject.kind)), reject.to_string()),
            Err(BlockError::MissingParent(_)) => (Some(BlockValidationResult::MissingPrev), String::from("no parent")),
            Err(BlockError::Store(error)) => panic!("{error}"),
        };
        let core = self.core.block(made);
        self.parents.insert(made.place.hash, made.block.prev());
        let agree = self.agree(made, ours, core);
        assert!(
            agree,
            "block {} ({name}) at {}: {text}, Core: {core:?}",
            self.blocks, made.place.height
        );
        if ours == Some(BlockValidationResult::Consensus) {
            self.condemned.insert(made.place.hash);
        }
        let tip = self.ours.view().tip().hash;
        assert_eq!(tip, self.core.tip(), "block {} ({name}): tips differ", self.blocks);
        if tip != before && self.ours.view().fork_point(&before).unwrap().hash != before {
            self.reorganisations += 1;
        }
        if ours.is_some() {
            *self.refused.entry(name).or_default() += 1;
        }
        ours.is_none()
    }

    fn offer_header(&mut self, made: &Made) {
        let ours = match self.ours.accept_headers(now(), &[*made.block.header()]) {
            Ok(_) => None,
            Err(HeaderReject::Invalid { reject, .. }) => Some(core_kind(reject.kind)),
            Err(HeaderReject::Orphan(_)) => Some(BlockValidationResult::MissingPrev),
            Err(other) => panic!("{other}"),
        };
        let core = self.core.header(made);
        self.parents.insert(made.place.hash, made.block.prev());
        assert!(
            self.agree(made, ours, core),
            "header at {}: {ours:?}, Core: {core:?}",
            made.place.height
        );
    }

    /// Compares what every block of the active chain spent.
    fn compare_spent(&self) {
        let view = self.ours.view();
        for height in 1..=view.tip().height {
            let hash = view.hash_at(height).unwrap();
            let ours = view.undo(&hash).unwrap().unwrap();
            let chain = self.core.manager.active_chain();
            let entry = chain.at_height(height as usize).unwrap();
            let core = self.core.manager.read_spent_outputs(&entry).unwrap();
            assert_eq!(core.count(), ours.spent.len());
            for (index, coins) in ours.spent.iter().enumerate() {
                let theirs = core.transaction_spent_outputs(index).unwrap();
                assert_eq!(theirs.count(), coins.len());
                for (place, coin) in coins.iter().enumerate() {
                    let other = theirs.coin(place).unwrap();
                    let output = other.output();
                    assert_eq!(other.confirmation_height(), coin.height);
                    assert_eq!(other.is_coinbase(), coin.coinbase);
                    assert_eq!(output.value(), i64::try_from(coin.output.value.to_sat()).unwrap());
                    assert_eq!(output.script_pubkey().to_bytes(), coin.output.script_pubkey.to_bytes());
                }
            }
        }
    }
}

/// A few blocks in a row of which all headers go first and the blocks in random order; one may be broken.
fn out_of_order(pair: &mut Pair, maker: &mut Maker, on: &Rc<State>, states: &mut Vec<Rc<State>>) {
    let length = 3 + maker.dice.roll(4);
    let broken = (maker.dice.roll(2) == 0).then(|| maker.dice.roll(length));
    let mut row = Vec::new();
    let mut valid = Vec::new();
    let mut state = Rc::clone(on);
    for index in 0..length {
        let made = if broken == Some(index) {
            let (_, way) = WAYS[maker.dice.roll(WAYS.len())];
            way(maker, &state).unwrap_or_else(|| maker.block(&state))
        } else {
            maker.block(&state)
        };
        state = maker.after(&state, &made);
        row.push(made);
        if broken.is_none_or(|broken| index < broken) {
            valid.push(Rc::clone(&state));
        }
    }
    for made in &row {
        pair.offer_header(made);
    }
    while !row.is_empty() {
        let made = row.swap_remove(maker.dice.roll(row.len()));
        pair.offer(&made, "one of a row");
    }
    states.extend(valid);
}

fn run(seed: u64, steps: usize) -> Pair {
    let mut maker = Maker::new(seed);
    let mut pair = Pair::new();
    let mut states = vec![Rc::new(State {
        place: genesis(),
        parent: None,
        coins: Vec::new(),
    })];
    for _ in 0..130 {
        let on = Rc::clone(states.last().unwrap());
        let made = maker.block(&on);
        assert!(pair.offer(&made, "valid"));
        states.push(maker.after(&on, &made));
    }
    let mut last: Option<Made> = None;
    let mut turn = 0;
    for _ in 0..steps {
        // Mostly on the tip; sometimes a little below it or on another branch.
        let tip = pair.ours.view().tip().hash;
        let best = states.iter().rposition(|state| state.place.hash == tip).unwrap();
        let on = match maker.dice.roll(4) {
            0 => states[states.len() - 1 - maker.dice.roll(12)].clone(),
            _ => states[best].clone(),
        };
        match maker.dice.roll(11) {
            0..=3 => {
                let made = maker.block(&on);
                assert!(pair.offer(&made, "valid"));
                states.push(maker.after(&on, &made));
                last = Some(made);
            }
            4..=7 => {
                // In turn, so that each comes up often; one that the state has no coins for comes again later.
                let (name, way) = WAYS[turn % WAYS.len()];
                if let Some(made) = way(&mut maker, &on) {
                    let taken = pair.offer(&made, name);
                    turn += 1;
                    if taken {
                        // On a branch with less work nobody has looked at its coins yet; build on it until somebody does.
                        let mut state = maker.after(&on, &made);
                        for _ in 0..16 {
                            let next = maker.block(&state);
                            state = maker.after(&state, &next);
                            let hash = made.place.hash;
                            if !pair.offer(&next, name) || pair.ours.view().contains_in_active(&hash) {
                                break;
                            }
                        }
                    }
                    last = Some(made);
                } else {
                    turn += 1;
                }
            }
            8 => out_of_order(&mut pair, &mut maker, &on, &mut states),
            9 => {
                if let Some(made) = &last {
                    pair.offer(made, "again");
                }
            }
            _ => {
                // A better branch from up to ten blocks below the tip.
                let depth = 1 + maker.dice.roll(10);
                let mut on = Rc::clone(&states[best]);
                for _ in 0..depth {
                    on = Rc::clone(on.parent.as_ref().unwrap());
                }
                for _ in 0..=depth {
                    let made = maker.block(&on);
                    assert!(pair.offer(&made, "valid"));
                    on = maker.after(&on, &made);
                    states.push(Rc::clone(&on));
                }
            }
        }
    }
    pair.compare_spent();
    pair
}

#[test]
fn every_verdict_and_every_tip_are_those_of_bitcoin_core() {
    bitcoinkernel::disable_logging();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut blocks, mut reorganisations) = (0, 0);
    for seed in 0..8 {
        let pair = run(seed, 400);
        blocks += pair.blocks;
        reorganisations += pair.reorganisations;
        for (name, count) in pair.refused {
            *refused.entry(name).or_default() += count;
        }
    }
    println!("{blocks} blocks, {reorganisations} reorganisations, refused: {refused:#?}");
    for (name, _) in WAYS {
        assert!(
            refused.get(name).is_some_and(|count| *count >= 2),
            "`{name}` was hardly tried"
        );
    }
    assert!(reorganisations > 200, "{reorganisations} reorganisations");
}
