//! Both engines, side by side: what goes into one goes into the other, and they must say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::BlockHash;
use bitcoinkernel::notifications::types::BlockValidationResult;
use bitcoinkernel::prelude::*;
use dunlin_chain::{BlockError, Chain, ChainChange, HeaderReject, Network, Params, ParsedBlock, Reject, RejectKind};

use super::core::{Core, Fault};
use super::regtest::Made;

/// The clock, for both engines: Core's reads the machine's.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub blocks: u64,
    /// Transactions of those blocks.
    pub transactions: u64,
    pub headers: u64,
    /// Spent outputs of connected blocks.
    pub spent: u64,
    pub reorganisations: u64,
    pub taken: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<&'static str, u64>,
    pub reasons: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.transactions += other.transactions;
        self.headers += other.headers;
        self.spent += other.spent;
        self.reorganisations += other.reorganisations;
        for (mine, theirs) in [(&mut self.taken, &other.taken), (&mut self.refused, &other.refused)] {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// How many blocks were refused.
    pub fn broken(&self) -> u64 {
        self.refused.values().sum()
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

fn fault(reject: &Reject) -> Fault {
    (core_kind(reject.kind), reject.reason.clone().into_owned())
}

/// Both engines, and what was compared so far.
pub struct Pair {
    pub ours: Chain,
    core: Core,
    pub counts: Counts,
    parents: BTreeMap<BlockHash, BlockHash>,
    /// Blocks that both refused for ever.
    condemned: BTreeSet<BlockHash>,
}

impl Pair {
    pub fn new() -> Self {
        Self {
            ours: Chain::in_memory(Params::new(Network::Regtest)).unwrap(),
            core: Core::new(),
            counts: Counts::default(),
            parents: BTreeMap::new(),
            condemned: BTreeSet::new(),
        }
    }

    /// Whether both say the same.
    ///
    /// There is one difference by intent. Core forgets a block whose fault shows without its context and takes what is
    /// built on it until it is tried again; we remember it. So we may refuse a descendant, or the block when it comes
    /// again, earlier than Core: but only then.
    fn agree(&self, hash: BlockHash, ours: Option<&Fault>, core: Option<&Fault>) -> bool {
        ours == core || self.is_remembered(hash, ours)
    }

    fn is_remembered(&self, hash: BlockHash, ours: Option<&Fault>) -> bool {
        let earlier = matches!(
            ours,
            Some((
                BlockValidationResult::CachedInvalid | BlockValidationResult::InvalidPrev,
                _
            ))
        );
        let mut line = std::iter::successors(Some(hash), |hash| self.parents.get(hash).copied());
        earlier && line.any(|hash| self.condemned.contains(&hash))
    }

    /// Gives a block to both; says whether it was taken.
    pub fn offer(&mut self, made: &Made, name: &'static str) -> bool {
        self.counts.blocks += 1;
        self.counts.transactions += made.block.txids.len() as u64;
        let hash = made.place.hash;
        let before = self.ours.view().tip().hash;
        let mut others = BTreeMap::new();
        let mut connected: Vec<Arc<ParsedBlock>> = Vec::new();
        let (ours, text) = match self.ours.accept_block(now(), Arc::clone(&made.block)) {
            Ok(outcome) => {
                for change in outcome.changes {
                    if let ChainChange::Connected(block, _) = change {
                        connected.push(block);
                    }
                }
                for (hash, reject) in outcome.rejected {
                    others.insert(hash, fault(&reject));
                }
                (None, String::from("taken"))
            }
            Err(BlockError::Invalid(reject)) => (Some(fault(&reject)), reject.to_string()),
            Err(BlockError::MissingParent(_)) => (
                Some((BlockValidationResult::MissingPrev, String::from("prev-blk-not-found"))),
                String::from("no parent"),
            ),
            Err(BlockError::Store(error)) => panic!("{error}"),
        };
        let (core, core_others) = self.core.block(made);
        self.parents.insert(hash, made.block.prev());
        assert!(
            self.agree(hash, ours.as_ref(), core.as_ref()),
            "block {} ({name}) at {}: {text}, Core: {core:?}\n{}",
            self.counts.blocks,
            made.place.height,
            hex::encode(&made.block.raw[..made.block.raw.len().min(4000)])
        );
        if ours == core && ours.is_none() {
            assert_eq!(
                others, core_others,
                "block {} ({name}): other blocks",
                self.counts.blocks
            );
        }
        if let Some((BlockValidationResult::Consensus, _)) = ours {
            self.condemned.insert(hash);
        }
        let tip = self.ours.view().tip().hash;
        assert_eq!(
            tip,
            self.core.tip(),
            "block {} ({name}): tips differ",
            self.counts.blocks
        );
        if tip != before && self.ours.view().fork_point(&before).unwrap().hash != before {
            self.counts.reorganisations += 1;
        }
        for block in connected {
            if self.ours.view().contains_in_active(&block.hash) {
                self.compare_spent(&block.hash);
            }
        }
        let tally = if let Some((_, reason)) = &ours {
            *self.counts.reasons.entry(reason.clone()).or_default() += 1;
            &mut self.counts.refused
        } else {
            &mut self.counts.taken
        };
        *tally.entry(name).or_default() += 1;
        ours.is_none()
    }

    pub fn offer_header(&mut self, made: &Made) {
        self.counts.headers += 1;
        let ours = match self.ours.accept_headers(now(), &[*made.block.header()]) {
            Ok(_) => None,
            Err(HeaderReject::Invalid { reject, .. }) => Some(fault(&reject)),
            Err(HeaderReject::Orphan(_)) => {
                Some((BlockValidationResult::MissingPrev, String::from("prev-blk-not-found")))
            }
            Err(other) => panic!("{other}"),
        };
        let core = self.core.header(made);
        self.parents.insert(made.place.hash, made.block.prev());
        assert!(
            self.agree(made.place.hash, ours.as_ref(), core.as_ref()),
            "header at {}: {ours:?}, Core: {core:?}",
            made.place.height
        );
    }

    /// Compares what a connected block spent.
    fn compare_spent(&mut self, hash: &BlockHash) {
        let view = self.ours.view();
        let ours = view.undo(hash).unwrap().unwrap();
        let height = view.entry(hash).unwrap().height;
        let chain = self.core.manager.active_chain();
        let entry = chain.at_height(height as usize).unwrap();
        let core = self.core.manager.read_spent_outputs(&entry).unwrap();
        assert_eq!(core.count(), ours.spent.len());
        for (index, coins) in ours.spent.iter().enumerate() {
            let theirs = core.transaction_spent_outputs(index).unwrap();
            assert_eq!(theirs.count(), coins.len());
            self.counts.spent += coins.len() as u64;
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

    /// Compares what every block of the active chain spent.
    pub fn compare_all_spent(&mut self) {
        let view = self.ours.view();
        for height in 1..=view.tip().height {
            let hash = view.hash_at(height).unwrap();
            self.compare_spent(&hash);
        }
    }
}
