//! Putting one block on top of a chain: every rule that needs the coins.
//!
//! The order of the checks is Core's, so that a block with one fault is refused for the same reason.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::{Amount, OutPoint, TxOut};
use dunlin_store::StoreError;

use crate::overlay::Overlay;
use crate::rules::{self, bip30};
use crate::script::{self, BlockScripts, Flags, ScriptFail};
use crate::undo::BlockUndo;
use crate::{Coin, Params, ParsedBlock, Reject, TxParts};

/// A block with fewer inputs than this is checked on the calling thread: starting helpers would take longer.
const INPUTS_WORTH_HELPERS: usize = 32;

/// Why a block was not connected.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// It breaks a rule.
    Reject(Reject),
    /// Our disk's fault; nothing is known about the block.
    Store(StoreError),
}

impl From<Reject> for ConnectError {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where a block is put.
pub(crate) struct Place<'a> {
    /// Its height.
    pub(crate) height: u32,
    /// The median time past of its parent.
    pub(crate) parent_median: u32,
    /// Its ancestor at the height at which BIP 34 began, when it is that high.
    pub(crate) bip34_ancestor: Option<bitcoin::BlockHash>,
    /// The median time past of its ancestor at a height.
    pub(crate) median_at: &'a dyn Fn(u32) -> u32,
    /// Scripts are known to be good.
    pub(crate) skip_scripts: bool,
    /// How many threads may check scripts.
    pub(crate) threads: usize,
}

/// Connects `block` in the overlay and returns what it spent. After an error the overlay is of no use any more.
pub(crate) fn connect(
    params: &Params,
    overlay: &mut Overlay<'_>,
    block: &ParsedBlock,
    place: &Place<'_>,
) -> Result<BlockUndo, ConnectError> {
    let height = place.height;
    if bip30::check_needed(params, height, &block.hash, place.bip34_ancestor) {
        for tx in block.transactions() {
            let txid = tx.txid();
            for vout in 0..u32::try_from(tx.outputs().len()).unwrap_or(u32::MAX) {
                if overlay.has(&OutPoint { txid, vout })? {
                    return Err(bip30::repeated(&txid).into());
                }
            }
        }
    }

    let flags = script::block_flags(params, height, &block.hash);
    let mut undo = BlockUndo::default();
    let mut fees = 0u64;
    let mut sigops = 0u64;
    for (index, tx) in block.transactions().enumerate() {
        let named = |reject: Reject| reject.in_block(format_args!("transaction {}", tx.txid()));
        let mut spent = Vec::new();
        if index > 0 {
            for outpoint in tx.previous_outputs() {
                match overlay.spend(outpoint)? {
                    Some(coin) => spent.push(coin),
                    None => return Err(named(Reject::missing_inputs(outpoint.to_string())).into()),
                }
            }
            let fee = rules::check_tx_inputs(&tx, &spent, height).map_err(named)?;
            fees = fees.saturating_add(fee.to_sat());
            if fees > rules::MAX_MONEY {
                return Err(Reject::consensus(
                    "bad-txns-accumulated-fee-outofrange",
                    "accumulated fee in the block out of range",
                )
                .into());
            }
            if height >= params.csv_height {
                let heights: Vec<u32> = spent.iter().map(|coin| coin.height).collect();
                rules::check_sequence_locks(&tx, &heights, height, place.parent_median, place.median_at)
                    .map_err(named)?;
            }
        }
        sigops = sigops.saturating_add(rules::transaction_sigop_cost(&tx, &spent, flags));
        if sigops > rules::MAX_BLOCK_SIGOPS_COST {
            return Err(Reject::consensus("bad-blk-sigops", "too many sigops").into());
        }
        overlay.create(block, index, height);
        if index > 0 {
            undo.spent.push(spent);
        }
    }
    if let Some(coinbase) = block.transaction(0) {
        let subsidy = rules::subsidy(height, params.subsidy_halving_interval);
        rules::check_coinbase_amount(&coinbase, Amount::from_sat(fees), subsidy)?;
    }
    if !place.skip_scripts {
        check_scripts(block, &undo, flags, place.threads)?;
    }
    Ok(undo)
}

fn outputs(coins: &[Coin]) -> Vec<TxOut> {
    coins.iter().map(|coin| coin.output.clone()).collect()
}

/// Checks every input's script, with helpers when there is enough to do.
fn check_scripts(block: &ParsedBlock, undo: &BlockUndo, flags: Flags, threads: usize) -> Result<(), Reject> {
    let inputs: usize = undo.spent.iter().map(Vec::len).sum();
    if inputs == 0 {
        return Ok(());
    }
    let scripts = BlockScripts::parse(&block.raw).map_err(ScriptFail::into_block_reject)?;
    // Transactions are handed out in order. A failure stops the handing out, and all before it are still finished: so
    // the first failure of the block is found whatever the number of threads.
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let row = next.fetch_add(1, Ordering::Relaxed);
            let Some(spent) = undo.spent.get(row) else { break };
            if let Err(fail) = scripts.verify(row + 1, &outputs(spent), flags) {
                stop.store(true, Ordering::Relaxed);
                return Some((row + 1, fail));
            }
        }
        None
    };
    let failure = if threads < 2 || inputs < INPUTS_WORTH_HELPERS {
        work()
    } else {
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = helpers.into_iter().map(|helper| helper.join());
            let others: Vec<_> = others
                .map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            std::iter::once(own)
                .chain(others)
                .flatten()
                .min_by_key(|(index, _)| *index)
        })
    };
    match failure {
        None => Ok(()),
        Some((index, fail)) => {
            let txid = block.txids.get(index).map(ToString::to_string).unwrap_or_default();
            Err(fail.into_block_reject().in_block(format_args!("transaction {txid}")))
        }
    }
}
