//! A chain whose coins are many and small, and transactions that spend them, made by hand.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bitcoin::{Amount, Block, OutPoint, Transaction, TxOut};
use dunlin_testkit::coins::{BlockPlan, Holder, coinbase_coin};

/// Rewards that are mature when they are spent, and those spent.
const MATURITY: u32 = 100;
const SPREAD: u32 = 18;
/// Coins made of each reward.
const COINS_EACH: usize = 2_500;
const COIN: Amount = Amount::from_sat(1_900_000);
const FEE: u64 = 2_000;
/// Seconds between two blocks.
const SPACING: u32 = 60;
/// The largest family of transactions that spend each other: halved so often, a coin still pays every fee.
const FAMILY: usize = 5;

pub(super) struct Funds {
    owner: Holder,
    heir: Holder,
    /// From height 1 on.
    pub(super) blocks: Vec<Block>,
    coins: Vec<OutPoint>,
}

impl Funds {
    /// Ends its chain now, so that no node takes it for old.
    pub(super) fn new() -> Result<Self> {
        let (owner, heir) = (Holder::new(1), Holder::new(2));
        let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let (mut blocks, mut coins) = (Vec::<Block>::new(), Vec::new());
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        for height in 1..=MATURITY + SPREAD {
            let previous = blocks.last().unwrap_or(&genesis).block_hash();
            let time = now - (MATURITY + SPREAD - height + 1) * SPACING;
            let mut plan = BlockPlan::new(previous, height, time, &owner);
            if let Some(mature) = height.checked_sub(MATURITY + 1) {
                let reward = coinbase_coin(blocks.get(mature as usize).context("the chain has that block")?);
                let output = TxOut {
                    value: COIN,
                    script_pubkey: owner.script(),
                };
                let spread = owner.spend(&[reward], vec![output; COINS_EACH]);
                let txid = spread.compute_txid();
                coins.extend((0..COINS_EACH as u32).map(|vout| OutPoint { txid, vout }));
                plan.transactions.push(spread);
            }
            blocks.push(plan.mine());
        }
        Ok(Self {
            owner,
            heir,
            blocks,
            coins,
        })
    }

    /// The last block and its height.
    pub(super) fn tip(&self) -> Result<(Block, u32)> {
        let tip = self.blocks.last().context("the chain has blocks")?;
        Ok((tip.clone(), MATURITY + SPREAD))
    }

    /// A block on `tip`, which it becomes.
    pub(super) fn next(&self, tip: &mut (Block, u32), transactions: Vec<Transaction>) -> Result<Block> {
        let (previous, height) = tip;
        let mut plan = BlockPlan::new(previous.block_hash(), *height + 1, previous.header.time + 1, &self.heir);
        plan.transactions = transactions;
        let block = plan.mine();
        *tip = (block.clone(), *height + 1);
        Ok(block)
    }

    /// Transactions that each spend one of these coins, in two parts.
    pub(super) fn payments(&self, coins: Range<usize>) -> Result<Vec<Transaction>> {
        let coins = self.coins.get(coins).context("there are not so many coins")?;
        Ok(coins
            .iter()
            .zip(0..)
            .map(|(coin, place)| self.pay(*coin, COIN, FEE + place % 1_000))
            .collect())
    }

    /// So many transactions, some alone, some in chains, parents before children, with fees that differ.
    pub(super) fn families(&self, count: usize) -> Result<Vec<Transaction>> {
        let mut txs: Vec<Transaction> = Vec::with_capacity(count);
        let mut coins = self.coins.iter();
        while txs.len() < count {
            let place = txs.len();
            let coin = *coins.next().context("there are not so many coins")?;
            txs.push(self.pay(coin, COIN, FEE + (place * 7 % 5_000) as u64));
            for _ in 1..=place % FAMILY {
                let parent = txs.last().context("a parent was made")?;
                let (coin, value) = (OutPoint::new(parent.compute_txid(), 1), parent.output[1].value);
                let fee = FEE + (txs.len() * 11 % 5_000) as u64;
                txs.push(self.pay(coin, value, fee));
            }
        }
        txs.truncate(count);
        Ok(txs)
    }

    /// Half to the heir, the rest back.
    fn pay(&self, coin: OutPoint, value: Amount, fee: u64) -> Transaction {
        let half = value / 2;
        let back = TxOut {
            value: value - half - Amount::from_sat(fee),
            script_pubkey: self.owner.script(),
        };
        let paid = TxOut {
            value: half,
            script_pubkey: self.heir.script(),
        };
        self.owner.spend(&[(coin, value)], vec![paid, back])
    }
}
