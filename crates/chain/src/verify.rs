//! Checking the stored blocks, their undo records and the coins against each other: `verifychain`, `dunlin chain verify`.
//!
//! | level | checks of each of the last blocks |
//! |---|---|
//! | 0 | it can be read and is the one that the index names |
//! | 1 | it follows the rules that need nothing but the block |
//! | 2 | its undo record can be read |
//! | 3 | it can be taken off the tip: each coin that it made and that is unspent is there and says what it should |
//! | 4 | it can be put on again: every rule but the scripts below the assumed valid block |
//!
//! Each level includes those before it; they are Core's. Unlike Core's the check goes on after a fault, so that every
//! damaged record is named.

use bitcoin::{BlockHash, OutPoint};
use dunlin_store::StoreError;

use crate::coin::is_spendable;
use crate::connect::ConnectError;
use crate::engine::Chain;
use crate::files::Kind;
use crate::overlay::Overlay;
use crate::repair::damaged_coin;
use crate::rules::{self, bip30};
use crate::tree::NodeId;
use crate::undo::BlockUndo;
use crate::{ParsedBlock, TxParts};

/// Memory for one changed coin while blocks are taken off, roughly.
const CHANGE_BYTES: usize = 200;

/// What is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How many blocks from the tip down; 0 for all.
    pub blocks: u32,
    /// How thoroughly: from 0 to 4.
    pub level: u8,
    /// Whether damage is repaired where that is possible.
    pub repair: bool,
}

/// A record that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The height of the block at which it was found.
    pub height: u32,
    /// That block.
    pub hash: BlockHash,
    /// What is wrong, in words.
    pub what: String,
    /// Whether it was repaired, or will be as soon as peers give the blocks that this takes.
    pub repaired: bool,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many blocks were looked at.
    pub checked: u32,
    /// The check ended early where blocks were pruned or are not fetched yet.
    pub blocks_missing: bool,
    /// Levels 3 and 4 ended early: the coins of so many blocks do not fit into the cache.
    pub coins_skipped: bool,
    /// What was found.
    pub faults: Vec<Fault>,
}

impl VerifyReport {
    /// Whether everything asked for was checked and is well.
    pub fn is_complete_and_well(&self) -> bool {
        self.faults.is_empty() && !self.blocks_missing && !self.coins_skipped
    }
}

impl Chain {
    /// Checks the last blocks of the validated chain. `progress` is told how many of how many steps are done.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; damage is no error but in the report.
    pub fn verify(
        &mut self,
        asked: &Verification,
        progress: &mut dyn FnMut(u32, u32),
    ) -> Result<VerifyReport, StoreError> {
        let (tip, ids) = {
            let tree = self.shared.tree();
            let tip = tree.tip();
            let height = tree.node(tip).height;
            let count = if asked.blocks == 0 {
                height
            } else {
                asked.blocks.min(height)
            };
            let back = std::iter::successors(Some(tip), |id| tree.parent(*id));
            (tip, back.take(count as usize).collect::<Vec<NodeId>>())
        };
        let steps = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let steps = if asked.level >= 4 {
            steps.saturating_mul(2)
        } else {
            steps
        };
        let coins = self.shared.coins();
        let mut run = Run {
            chain: self,
            overlay: Overlay::new(&coins),
            report: VerifyReport::default(),
            repair: asked.repair,
            height: 0,
            hash: BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros()),
        };
        let mut whole = asked.level >= 3;
        let mut taken = Vec::new();
        for id in ids {
            if !run.enter(id) {
                run.report.blocks_missing = true;
                break;
            }
            progress(run.report.checked, steps);
            let Some(block) = run.check_block(id, asked.level)? else {
                whole = false;
                continue;
            };
            if asked.level < 2 {
                continue;
            }
            let undo = run.check_undo(id)?;
            let (true, Some(undo)) = (whole, undo) else {
                whole = false;
                continue;
            };
            if run.overlay.len().saturating_mul(CHANGE_BYTES) > run.chain.config.cache_bytes {
                run.report.coins_skipped = true;
                whole = false;
                continue;
            }
            whole = run.take_off(&block, undo)?;
            taken.push(id);
        }
        if asked.level >= 4 && whole {
            for (done, id) in (run.report.checked + 1..).zip(taken.into_iter().rev()) {
                run.enter(id);
                progress(done, steps);
                if !run.put_on(id)? {
                    break;
                }
            }
        }
        let report = run.report;
        debug_assert_eq!(tip, self.shared.tree().tip());
        Ok(report)
    }
}

/// One check under way.
struct Run<'a> {
    chain: &'a mut Chain,
    overlay: Overlay<'a>,
    report: VerifyReport,
    repair: bool,
    /// The block being looked at.
    height: u32,
    hash: BlockHash,
}

impl Run<'_> {
    /// Goes to a block; `false` when it was pruned or never came.
    fn enter(&mut self, id: NodeId) -> bool {
        let tree = self.chain.shared.tree();
        let node = tree.node(id);
        (self.height, self.hash) = (node.height, node.hash);
        node.block.is_some()
    }

    fn fault(&mut self, what: impl Into<String>, repaired: bool) {
        let fault = Fault {
            height: self.height,
            hash: self.hash,
            what: what.into(),
            repaired,
        };
        tracing::error!(height = fault.height, block = %fault.hash, repaired, "{}", fault.what);
        self.report.faults.push(fault);
    }

    /// Levels 0 and 1.
    fn check_block(&mut self, id: NodeId, level: u8) -> Result<Option<ParsedBlockArc>, StoreError> {
        self.report.checked += 1;
        let Some(at) = self.chain.shared.tree().node(id).block else {
            return Ok(None);
        };
        let parsed = match self.chain.shared.reader.read(Kind::Block, &at) {
            Ok(raw) => ParsedBlock::parse(raw.into()).map_err(|error| error.to_string()),
            Err(error @ StoreError::Corrupt { .. }) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        let whole = parsed.and_then(|block| match block.hash == self.hash {
            true => Ok(block),
            false => Err("the record of the block holds another".to_owned()),
        });
        match whole {
            Ok(block) => {
                if level >= 1
                    && let Err(reject) = rules::check_block(self.chain.params(), &block)
                {
                    self.fault(format!("the stored block breaks a rule: {reject}"), false);
                }
                Ok(Some(block))
            }
            Err(what) => {
                if self.repair {
                    self.chain.lose(id);
                    self.chain.write_index()?;
                }
                self.fault(what, self.repair);
                Ok(None)
            }
        }
    }

    /// Level 2.
    fn check_undo(&mut self, id: NodeId) -> Result<Option<BlockUndo>, StoreError> {
        let what = match self.chain.view().undo(&self.hash) {
            Ok(Some(undo)) => return Ok(Some(undo)),
            Ok(None) => format!("the undo record of block {} is not there", self.hash),
            Err(error @ StoreError::Corrupt { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        let undo = if self.repair {
            self.chain.rebuild_undo(id)?
        } else {
            None
        };
        self.fault(what, undo.is_some() || self.chain.shared.searches_undo_of(id));
        Ok(undo)
    }

    /// Level 3; `false` when the coins are not those of the chain below from here on.
    fn take_off(&mut self, block: &ParsedBlock, undo: BlockUndo) -> Result<bool, StoreError> {
        let forgiving = bip30::is_overwritten(self.height, &self.hash);
        let mut whole = true;
        let spent_here: std::collections::HashSet<OutPoint> = block
            .transactions()
            .skip(1)
            .flat_map(|tx| tx.previous_outputs())
            .collect();
        for (index, tx) in block.transactions().enumerate() {
            let txid = tx.txid();
            for (vout, output) in (0u32..).zip(tx.outputs()) {
                let outpoint = OutPoint { txid, vout };
                if !is_spendable(output.script_pubkey) || spent_here.contains(&outpoint) || forgiving {
                    continue;
                }
                let what = match self.overlay.get(&outpoint) {
                    Ok(Some(coin)) => {
                        let same = coin.output.value.to_sat() == output.value
                            && coin.output.script_pubkey.as_script() == output.script_pubkey
                            && coin.height == self.height
                            && coin.coinbase == (index == 0);
                        if same {
                            continue;
                        }
                        format!("the coin {outpoint} is not what its block made")
                    }
                    Ok(None) => format!("the coin {outpoint} is not there"),
                    Err(error) if damaged_coin(&error).is_some() => error.to_string(),
                    Err(error) => return Err(error),
                };
                let repaired = self.repair && self.chain.repair_coins()?;
                self.fault(what, repaired);
                whole &= repaired && self.chain.shared.search().is_none();
            }
        }
        if !whole {
            return Ok(false);
        }
        match self.overlay.disconnect(block, undo, self.height) {
            Ok(()) => Ok(true),
            Err(error @ StoreError::Corrupt { .. }) => {
                self.fault(error.to_string(), false);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Level 4; `false` when nothing can be put on from here on.
    fn put_on(&mut self, id: NodeId) -> Result<bool, StoreError> {
        let Some(block) = self.chain.load(id)? else {
            return Ok(false);
        };
        let what = match self.chain.connect(&mut self.overlay, id, &block) {
            Ok(_) => return Ok(true),
            Err(ConnectError::Reject(reject)) => format!("the stored block cannot be put on the chain: {reject}"),
            Err(ConnectError::Store(error @ StoreError::Corrupt { .. })) => error.to_string(),
            Err(ConnectError::Store(error)) => return Err(error),
        };
        self.fault(what, false);
        Ok(false)
    }
}

type ParsedBlockArc = std::sync::Arc<ParsedBlock>;
