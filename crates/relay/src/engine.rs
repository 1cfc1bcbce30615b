//! Carrying out a peer's jobs: the chain's one writer, and the mempool kept in step with it.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use bitcoin::consensus::serialize;
use bytes::Bytes;
use dunlin_chain::indexes::Indexes;
use dunlin_chain::snapshot::SnapshotError;
use dunlin_chain::{
    BlockError, BlockOutcome, BlockUndo, Chain, ChainChange, OperateError, Params, ParsedBlock, StoreError, View,
};
use dunlin_mempool::Pool;
use dunlin_peer::{LinkId, Now};

use crate::filters::read_filters;
use crate::importing::Importing;
use crate::interface::{BlockForm, ChainOp, Done, Job, Operated, Ticket};
use crate::spent::read_spent;

/// Runs jobs one after another: on the commit thread of the program, or directly in the simulator.
pub struct Engine {
    /// The chain.
    pub chain: Chain,
    /// The mempool, which everyone else reads.
    pub pool: Arc<RwLock<Pool>>,
    /// The indexes that filters are read from.
    pub indexes: Indexes,
    /// Files to import.
    pub import: Option<Importing>,
}

impl Engine {
    /// An engine over a chain and the mempool that belongs to it.
    pub fn new(chain: Chain, pool: Arc<RwLock<Pool>>) -> Self {
        Self {
            chain,
            pool,
            indexes: Indexes::default(),
            import: None,
        }
    }

    /// Carries out one job.
    pub fn run(&mut self, now: Now, job: Job) -> Done {
        let unix = now.unix_secs();
        match job {
            Job::AcceptHeaders { link, headers, proven } => Done::Headers {
                link,
                count: headers.len(),
                last: headers.last().map(|header| header.block_hash()),
                result: if proven {
                    self.chain.accept_proven_headers(unix, &headers)
                } else {
                    self.chain.accept_headers(unix, &headers)
                },
            },
            Job::ParseBlock { link, raw } => parse_block(self.chain.params(), link, raw),
            // An engine reaches no network; the program asks its resolver instead.
            Job::Resolve { .. } => Done::Resolved { addrs: Vec::new() },
            Job::AcceptCompact { link, compact } => Done::Compact {
                link,
                result: self.chain.accept_headers(unix, &[compact.header]),
                compact,
            },
            Job::AcceptBlock { .. } => self.run_all(now, [job]).pop().unwrap_or(Done::Nothing),
            Job::LeaveSwiftSync => {
                let left = self
                    .chain
                    .leave_swiftsync("no peer tells the coins that blocks spent (BIP 455)");
                Done::CaughtUp {
                    result: left.and_then(|()| self.advance(now)),
                    more: false,
                }
            }
            Job::Advance => Done::Advanced {
                result: self.advance(now),
            },
            Job::Operate { ticket, op } => {
                let (outcome, result) = match self.operate(now, &op) {
                    Ok((outcome, done)) => (outcome, Ok(done)),
                    Err(error) => (BlockOutcome::default(), Err(error)),
                };
                Done::Operated {
                    ticket,
                    outcome,
                    result,
                }
            }
            Job::CatchUp => {
                let result = self.catch_up(now);
                Done::CaughtUp {
                    more: result.is_ok() && self.import.is_some(),
                    result,
                }
            }
            Job::AcceptTx { source, tx } => {
                let result = self.pool_mut().accept(unix, tx.clone());
                Done::Tx { source, tx, result }
            }
            Job::TestTx { ticket, tx } => {
                let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
                let result = pool.test_accept(unix, tx.clone());
                Done::TxTested { ticket, tx, result }
            }
            Job::AcceptPackage { link, txs } => {
                let outcome = self.pool_mut().accept_package(unix, &txs, None);
                Done::Package { link, txs, outcome }
            }
            Job::ReadSpent { .. } => read_spent(&self.chain.view(), &job).unwrap_or(Done::Nothing),
            Job::ReadFilters { .. } => read_filters(&self.chain.view(), &self.indexes, &job).unwrap_or(Done::Nothing),
            Job::ReadBlock { .. } => {
                let done = read_block(&self.chain.view(), &job);
                if let Some(Done::BlockRead {
                    hash, result: Err(_), ..
                }) = &done
                {
                    // A damaged record is fetched again from peers.
                    if let Err(error) = self.chain.mark_lost(hash) {
                        tracing::error!(%hash, %error, "a damaged block could not be marked");
                    }
                }
                done.unwrap_or(Done::Nothing)
            }
        }
    }

    /// Carries out several jobs. Neighbouring blocks go to the chain together, so that it checks their scripts while it
    /// connects others; the answers are in the order of the jobs.
    pub fn run_all(&mut self, now: Now, jobs: impl IntoIterator<Item = Job>) -> Vec<Done> {
        let mut done = Vec::new();
        let (mut origins, mut blocks) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::AcceptBlock {
                    from,
                    ticket,
                    block,
                    spent,
                } => {
                    origins.push((from, ticket));
                    blocks.push((block, spent));
                }
                other => {
                    self.accept_all(now, &mut origins, &mut blocks, &mut done);
                    done.push(self.run(now, other));
                }
            }
        }
        self.accept_all(now, &mut origins, &mut blocks, &mut done);
        self.settle_pool();
        done
    }

    /// A snapshot and a SwiftSync move the tip without a change that the pool could follow.
    fn settle_pool(&self) {
        let tip = self.chain.view().tip().hash;
        if !self.pool.read().unwrap_or_else(PoisonError::into_inner).follows(&tip) {
            self.pool_mut().set_tip(tip);
        }
    }

    fn accept_all(
        &mut self,
        now: Now,
        origins: &mut Vec<(Option<LinkId>, Option<Ticket>)>,
        blocks: &mut Vec<(Arc<ParsedBlock>, Option<Arc<BlockUndo>>)>,
        done: &mut Vec<Done>,
    ) {
        if blocks.is_empty() {
            return;
        }
        let results = self.chain.accept_blocks(now.unix_secs(), blocks);
        let judged = origins.drain(..).zip(blocks.drain(..));
        for (((from, ticket), (block, _)), result) in judged.zip(results) {
            if let Ok(outcome) = &result {
                self.follow(now, &outcome.changes);
            }
            done.push(Done::Block {
                from,
                ticket,
                block,
                result,
            });
        }
    }

    /// Gives the chain a block and brings the mempool in step with what happened.
    ///
    /// # Errors
    /// Those of [`Chain::accept_block`]; the mempool is in step also then.
    pub fn accept_block(&mut self, now: Now, block: Arc<ParsedBlock>) -> Result<BlockOutcome, BlockError> {
        let outcome = self.chain.accept_block(now.unix_secs(), block)?;
        self.follow(now, &outcome.changes);
        Ok(outcome)
    }

    /// Goes on connecting stored blocks after an outcome with `more`.
    ///
    /// # Errors
    /// Those of [`Chain::advance`].
    pub fn advance(&mut self, now: Now) -> Result<BlockOutcome, StoreError> {
        let outcome = self.chain.advance()?;
        self.follow(now, &outcome.changes);
        Ok(outcome)
    }

    /// Does what an operator asks; after an outcome with `more` there is still something to connect.
    ///
    /// # Errors
    /// Those of the chain's operation.
    pub fn operate(&mut self, now: Now, op: &ChainOp) -> Result<(BlockOutcome, Operated), OperateError> {
        let outcome = match op {
            ChainOp::Invalidate(hash) => self.chain.invalidate(hash)?,
            ChainOp::Reconsider(hash) => self.chain.reconsider(hash)?,
            ChainOp::Prefer(hash) => self.chain.prefer(hash)?,
            ChainOp::Prune(height) => {
                self.chain.prune_to(*height)?;
                BlockOutcome::default()
            }
            ChainOp::Verify(asked) => {
                let mut told = None;
                let report = self.chain.verify(asked, &mut |done, all| {
                    let tenth = u64::from(done) * 10 / u64::from(all.max(1));
                    if told != Some(tenth) {
                        told = Some(tenth);
                        tracing::info!("checking the stored chain: {done} of {all}");
                    }
                })?;
                return Ok((BlockOutcome::default(), Operated::Verified(report)));
            }
            ChainOp::Propose(block) => {
                let verdict = self.chain.judge_proposal(now.unix_secs(), block)?;
                return Ok((BlockOutcome::default(), Operated::Proposed(verdict)));
            }
            ChainOp::Header(header) => {
                self.chain.accept_headers(now.unix_secs(), &[*header])?;
                BlockOutcome::default()
            }
            ChainOp::FreezeCoins => {
                self.chain.set_coins_aside()?;
                BlockOutcome::default()
            }
            ChainOp::ActivateSnapshot(loaded) => {
                // Its transactions were judged by coins that the chain leaves behind.
                if !self.pool.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    let text = "Can't activate a snapshot when mempool not empty";
                    return Err(SnapshotError::Refused(text.to_owned()).into());
                }
                self.chain.activate_snapshot(loaded)?;
                self.chain.advance()?
            }
        };
        self.follow(now, &outcome.changes);
        Ok((outcome, Operated::Done))
    }

    /// Does a piece of what is left: importing files, then connecting stored blocks.
    fn catch_up(&mut self, now: Now) -> Result<BlockOutcome, StoreError> {
        let Some(import) = &mut self.import else {
            return self.advance(now);
        };
        let outcome = match import.step(&mut self.chain, now)? {
            Some(outcome) => outcome,
            None => {
                self.import = None;
                return self.advance(now);
            }
        };
        self.follow(now, &outcome.changes);
        Ok(outcome)
    }

    fn follow(&mut self, now: Now, changes: &[ChainChange]) {
        if changes.is_empty() {
            return;
        }
        let mut pool = self.pool_mut();
        for change in changes {
            match change {
                ChainChange::Connected(block, _) => pool.block_connected(block),
                ChainChange::Disconnected(block, _) => pool.block_disconnected(block),
            }
        }
        pool.after_reorg(now.unix_secs());
    }

    fn pool_mut(&self) -> RwLockWriteGuard<'_, Pool> {
        self.pool.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out a [`Job::ParseBlock`], which needs nothing but the network's parameters.
pub fn parse_block(params: &Params, link: LinkId, raw: Bytes) -> Done {
    let bytes = raw.len();
    let result = ParsedBlock::parse(raw);
    if let Ok(block) = &result {
        // The block remembers the verdict for the chain.
        let _ = block.check(params);
    }
    Done::BlockParsed { link, bytes, result }
}

/// Carries out a [`Job::ReadBlock`] with nothing but a view, so that reads need not wait for the commit thread;
/// `None` for any other job.
pub fn read_block(view: &View, job: &Job) -> Option<Done> {
    let Job::ReadBlock { link, hash, form } = job else {
        return None;
    };
    let result = view.block_bytes(hash).and_then(|raw| match raw {
        Some(raw) if *form == BlockForm::Stripped => strip(raw).map(Some),
        raw => Ok(raw),
    });
    Some(Done::BlockRead {
        link: *link,
        hash: *hash,
        form: form.clone(),
        result,
    })
}

/// The block without its witnesses, for a peer that does not know them.
fn strip(raw: Bytes) -> Result<Bytes, StoreError> {
    let mut block: bitcoin::Block = bitcoin::consensus::deserialize(&raw)
        .map_err(|error| StoreError::corrupt(format!("a stored block does not decode: {error}")))?;
    for input in block.txdata.iter_mut().flat_map(|tx| &mut tx.input) {
        input.witness.clear();
    }
    Ok(serialize(&block).into())
}
