//! What to mine next, as miners are told over RPC and Stratum: the chosen transactions, what a coinbase may take, and how
//! it commits to their witnesses.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Wtxid};
use dunlin_chain::build::{Base, commitment_script};
use dunlin_chain::rules::subsidy;
use dunlin_mempool::Template;

use crate::backend::BitcoinBackend;
use crate::rpc::unix_now;

/// How often transactions are chosen while the pool follows a chain that just moved.
const ATTEMPTS: u32 = 1000;
/// The time between two such attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// No template can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The chain moves too fast to make a block template")]
pub(crate) struct MovesTooFast;

/// What the next block may be.
#[derive(Clone, Debug)]
pub(crate) struct BlockTemplate {
    /// Where it stands.
    pub(crate) base: Base,
    /// The pool's change counter when it was made.
    pub(crate) sequence: u64,
    /// The transactions after the coinbase.
    pub(crate) chosen: Arc<Template>,
    /// The script of the commitment to the witnesses, where such a one is due.
    pub(crate) commitment: Option<ScriptBuf>,
    /// What a coinbase may take, in satoshi.
    pub(crate) value: u64,
}

impl BlockTemplate {
    /// Chooses transactions for a block of `max_weight` with header and coinbase, and signature operations of the cost
    /// `reserved_sigops` in its coinbase. It waits a moment while the pool follows a chain that just moved: call it where
    /// waiting is no harm.
    pub(crate) fn make(
        bitcoin: &dyn BitcoinBackend,
        max_weight: u64,
        reserved_sigops: u64,
    ) -> Result<Self, MovesTooFast> {
        let (view, pool) = (bitcoin.view(), bitcoin.pool());
        for _ in 0..ATTEMPTS {
            let before = view.generation();
            let base = Base::on_tip(&view, unix_now());
            let (chosen, sequence, follows) = {
                let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
                let follows = pool.follows(&base.parent);
                let chosen = follows.then(|| pool.template(max_weight, reserved_sigops));
                (chosen.unwrap_or_default(), pool.sequence(), follows)
            };
            if view.generation() != before || !follows {
                std::thread::sleep(PAUSE);
                continue;
            }
            let params = view.params();
            let wtxids = chosen.txs.iter().map(|tx| tx.wtxid);
            let commits = base.height >= params.segwit_height;
            let value = subsidy(base.height, params.subsidy_halving_interval) + chosen.fees;
            return Ok(Self {
                commitment: commits.then(|| commitment_script(std::iter::once(Wtxid::all_zeros()).chain(wtxids))),
                value: Amount::to_sat(value),
                base,
                sequence,
                chosen: Arc::new(chosen),
            });
        }
        Err(MovesTooFast)
    }
}
