//! Choosing what to mine: chunk by chunk from the best fee rate down, within the weight, the signature operations and
//! the finality of the next block.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, Block, ScriptBuf, Transaction, Txid, Wtxid};
use dunlin_chain::View;
use dunlin_chain::build::{Base, assemble};
use dunlin_chain::rules::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, is_final};

use crate::entry::{Entry, Id};
use crate::{FeeRate, Pool, Ratio};

/// Weight kept free for the header, the count of transactions and the coinbase.
pub const RESERVED_WEIGHT: u64 = 8000;
/// Cost of signature operations kept free for the coinbase when nothing else is asked for.
pub const RESERVED_SIGOPS: u64 = 400;
/// Chunks in a row that may not fit before a nearly full block is taken as full.
const MAX_FAILURES: usize = 1000;
/// Weight below the limit at which a block counts as nearly full.
const NEARLY_FULL: u64 = 4000;

/// One chosen transaction.
#[derive(Clone, Debug)]
pub struct TemplateTx {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its hash without witnesses.
    pub txid: Txid,
    /// Its hash with witnesses.
    pub wtxid: Wtxid,
    /// What it pays.
    pub fee: Amount,
    /// Cost of its signature operations.
    pub sigops: u64,
    /// Its weight.
    pub weight: u64,
}

/// The transactions of a new block, parents before children, without the coinbase.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// In block order.
    pub txs: Vec<TemplateTx>,
    /// Sum of the fees.
    pub fees: Amount,
    /// Sum of the weights.
    pub weight: u64,
    /// Sum of the costs of signature operations.
    pub sigops: u64,
}

/// No block can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The pool has not followed the chain to its present tip yet, so its transactions may not fit; try again.
    #[error("the chain changed while the block was being assembled")]
    ChainMoved,
}

impl Pool {
    /// Chooses transactions for the next block, of `max_weight` with its header and coinbase, and with signature
    /// operations of this cost left for the coinbase.
    pub fn template(&self, max_weight: u64, reserved_sigops: u64) -> Template {
        let tip = self.view.tip();
        let height = tip.height.saturating_add(1);
        let max_weight = max_weight.min(MAX_BLOCK_WEIGHT);
        let mut template = Template::default();
        let mut skipped = BTreeSet::new();
        let mut failures = 0;
        for (cluster, chunk) in self.graph.by_rate() {
            if chunk.ratio.cmp_rate(&least(self.config.block_min_feerate)).is_lt() {
                break;
            }
            let members: Vec<&Entry> = chunk
                .members
                .iter()
                .filter_map(|id: &Id| self.entries.get(id))
                .collect();
            let weight: u64 = members.iter().map(|entry| entry.weight).sum();
            let sigops: u64 = members.iter().map(|entry| entry.sigops).sum();
            let fits = !skipped.contains(&cluster)
                && RESERVED_WEIGHT + template.weight + weight < max_weight
                && reserved_sigops.saturating_add(template.sigops + sigops) < MAX_BLOCK_SIGOPS_COST
                && members
                    .iter()
                    .all(|entry| is_final(&*entry.tx, height, tip.median_time_past));
            if !fits {
                // Later chunks of the cluster may build on this one.
                skipped.insert(cluster);
                failures += 1;
                if failures > MAX_FAILURES && RESERVED_WEIGHT + template.weight + NEARLY_FULL > max_weight {
                    break;
                }
                continue;
            }
            failures = 0;
            template.weight += weight;
            template.sigops += sigops;
            for entry in members {
                template.fees += entry.fee;
                template.txs.push(TemplateTx {
                    tx: Arc::clone(&entry.tx),
                    txid: entry.txid,
                    wtxid: entry.wtxid,
                    fee: entry.fee,
                    sigops: entry.sigops,
                    weight: entry.weight,
                });
            }
        }
        template
    }

    /// An unsolved block on the tip that `view` shows, with the pool's best transactions; its coinbase pays the
    /// subsidy and all fees to `coinbase_script`. `now` is the time in Unix seconds.
    ///
    /// # Errors
    /// [`TemplateError`] when the chain moves meanwhile.
    pub fn block_template(&self, view: &View, now: u64, coinbase_script: ScriptBuf) -> Result<Block, TemplateError> {
        let before = view.generation();
        let base = Base::on_tip(view, now);
        let template = self.template(MAX_BLOCK_WEIGHT, RESERVED_SIGOPS);
        if view.generation() != before || !self.follows(&base.parent) {
            return Err(TemplateError::ChainMoved);
        }
        let txs = template.txs.iter().map(|chosen| (*chosen.tx).clone()).collect();
        Ok(assemble(view.params(), &base, txs, template.fees, coinbase_script, b""))
    }
}

/// A rate as a ratio of fee and weight.
fn least(rate: FeeRate) -> Ratio {
    Ratio {
        fee: i64::try_from(rate.sat_per_kvb()).unwrap_or(i64::MAX),
        weight: 4000,
    }
}
