//! A fresh node fetches and fully verifies a chain from a bitcoind over loopback: Dunlin against bitcoind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::{Amount, OutPoint, Transaction, TxOut, consensus};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait_until;
use serde_json::json;

use crate::cost::{Cost, Meter};
use crate::{DUNLIN, ROUNDS, report};

/// Blocks that only bring coins.
const EMPTY_BLOCKS: u64 = 140;
/// Coinbases that are fanned out, and outputs of each.
const FANS: usize = 30;
const OUTPUTS: usize = 1000;
/// What each of those outputs holds, and what its spender leaves to the miner.
const COIN: Amount = Amount::from_sat(100_000);
const FEE: Amount = Amount::from_sat(500);
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run() -> Result<()> {
    let source = Bitcoind::start(Options::default())?;
    let transactions = grow(&source)?;
    let height = source.height()?;
    let peer = source.p2p();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let dunlin = Dunlin::start(DUNLIN, &["--connect", &peer.to_string(), "--assume-valid", "none"])?;
        let meter = Meter::from_birth(dunlin.pid(), start);
        ours.push(synced(&meter, || dunlin.height().is_ok_and(|at| at == height))?);

        let start = Instant::now();
        let extra = vec!["-assumevalid=0".to_owned()];
        let core = Bitcoind::start(Options {
            connect: vec![peer],
            extra,
            ..Options::default()
        })?;
        let meter = Meter::from_birth(core.pid(), start);
        theirs.push(synced(&meter, || core.height().is_ok_and(|at| at == height))?);
    }
    let work = format!("full sync of {height} blocks with {transactions} signed transactions, every script checked");
    report(&work, &ours, "bitcoind", &theirs);
    Ok(())
}

fn synced(meter: &Meter, mut done: impl FnMut() -> bool) -> Result<Cost> {
    wait_until("the chain is synced", LIMIT, &mut done)?;
    meter.read()
}

/// Gives `source` a chain with many signed spends; returns how many.
fn grow(source: &Bitcoind) -> Result<usize> {
    let holder = Holder::new(1);
    source.generate(EMPTY_BLOCKS, &holder.address())?;
    let mut coins = Vec::new();
    for height in 1..=FANS as u64 {
        let coin = coinbase_coin(&source.block(&source.hash_at(height)?)?);
        let output = TxOut {
            value: COIN,
            script_pubkey: holder.script(),
        };
        let fan = holder.spend(&[coin], vec![output; OUTPUTS]);
        let txid = fan.compute_txid();
        coins.extend((0..OUTPUTS as u32).map(|index| (OutPoint::new(txid, index), COIN)));
        submit(source, &holder, vec![fan])?;
    }
    let spends: Vec<Transaction> = coins.into_iter().map(|coin| holder.pay(coin, &holder, FEE)).collect();
    for block in spends.chunks(OUTPUTS * 2) {
        submit(source, &holder, block.to_vec())?;
    }
    Ok(spends.len() + FANS)
}

fn submit(source: &Bitcoind, miner: &Holder, transactions: Vec<Transaction>) -> Result<()> {
    let mut plan = source.plan(miner)?;
    plan.transactions = transactions;
    let answer = source.call("submitblock", json!([consensus::encode::serialize_hex(&plan.mine())]))?;
    anyhow::ensure!(answer.is_null(), "bitcoind refuses a block of the bench: {answer}");
    source.height().context("bitcoind runs")?;
    Ok(())
}
