//! Transactions and packages from a seed, given to a real bitcoind and to our pool in one order: every verdict and its
//! reason are compared. They conflict, pay too little, come too early, belong to version 3, carry dust, make clusters
//! too large, or are fine; blocks come in between.

#![allow(clippy::unwrap_used)]

mod lab;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, opcodes};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use lab::pair::Pair;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Coins of the chain at the start, and how many steps follow.
const COINS: usize = 120;
const STEPS: usize = 1_500;

/// The script that everybody satisfies, and the output that stands for it.
fn truth() -> ScriptBuf {
    Builder::new().push_opcode(opcodes::OP_TRUE).into_script()
}

fn anybody() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&truth().wscript_hash())
}

struct Story {
    pair: Pair,
    rng: StdRng,
    /// Every output that there ever was, spent or not.
    coins: Vec<(OutPoint, u64)>,
    taken: usize,
    refused: std::collections::BTreeMap<String, usize>,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let pair = Pair::start();
        let miner = Holder::new(1);
        pair.core.generate(101, &miner.address()).unwrap();
        let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
        let output = TxOut {
            value: coin.1 / (COINS as u64 + 1),
            script_pubkey: anybody(),
        };
        let spread = miner.spend(&[coin], vec![output.clone(); COINS]);
        let mut plan = pair.core.plan(&miner).unwrap();
        plan.transactions.push(spread.clone());
        let block = serialize_hex(&plan.mine());
        assert_eq!(pair.core.call("submitblock", json!([block])).unwrap(), Value::Null);
        pair.follow().await;
        let txid = spread.compute_txid();
        let coins = (0..COINS as u32).map(|vout| (OutPoint { txid, vout }, output.value.to_sat()));
        Self {
            coins: coins.collect(),
            pair,
            rng: StdRng::seed_from_u64(seed),
            taken: 0,
            refused: Default::default(),
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_ratio(1, one_in)
    }

    /// A coin, more likely a late one, so that families come about.
    fn coin(&mut self) -> (OutPoint, u64) {
        let count = self.coins.len();
        let from = if self.chance(2) { count.saturating_sub(12) } else { 0 };
        self.coins[self.rng.random_range(from..count)]
    }

    fn fee(&mut self, vsize: u64) -> u64 {
        match self.rng.random_range(0..8) {
            0 => 0,
            1 => vsize / 10 - 1,
            2 => vsize.div_ceil(10),
            3 => self.rng.random_range(20_000..90_000),
            _ => vsize * self.rng.random_range(1..12),
        }
    }

    /// A transaction that spends `coins`, with whatever faults fate has for it.
    fn spend(&mut self, coins: &[(OutPoint, u64)]) -> Transaction {
        let version = match self.rng.random_range(0..12) {
            0 => self.rng.random_range(0..6),
            1..=3 => 3,
            4 => 1,
            _ => 2,
        };
        let mut witness = Witness::new();
        witness.push(truth().as_bytes());
        let input = |coin: &(OutPoint, u64)| TxIn {
            previous_output: coin.0,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: witness.clone(),
        };
        let outputs = match self.rng.random_range(0..12) {
            0 => self.rng.random_range(20..40),
            1 => 300,
            _ => self.rng.random_range(1..4),
        };
        let output = TxOut {
            value: Amount::ZERO,
            script_pubkey: anybody(),
        };
        let mut tx = Transaction {
            version: Version(version),
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: vec![output; outputs],
        };
        if self.chance(15) {
            // Relative and absolute locks about the present height.
            let height = self.pair.core.height().unwrap() as u32;
            tx.lock_time = LockTime::from_consensus(height + self.rng.random_range(0..3));
            tx.input[0].sequence = Sequence::from_height(self.rng.random_range(0..8));
        }
        if self.chance(15) {
            tx.output[0].script_pubkey = self.odd_script();
        }
        if self.chance(30) {
            tx.input[0].witness = Witness::from_slice(&[vec![1; 90], truth().to_bytes()]);
        }
        if self.chance(60) {
            tx.input.push(tx.input[0].clone());
        }
        let value: u64 = coins.iter().map(|coin| coin.1).sum();
        let fee = self.fee(tx.vsize() as u64);
        let each = value.saturating_sub(fee) / outputs as u64;
        for output in &mut tx.output {
            output.value = Amount::from_sat(each);
        }
        // What does not divide evenly goes to the first.
        let rest = value.saturating_sub(fee) - each * outputs as u64;
        tx.output[0].value += Amount::from_sat(rest);
        if self.chance(12) {
            // Dust, at the others' gain.
            let dust = self.rng.random_range(0..400).min(tx.output[0].value.to_sat());
            let gain = tx.output[0].value.to_sat() - dust;
            tx.output[0].value = Amount::from_sat(dust);
            if let Some(second) = tx.output.get_mut(1) {
                second.value += Amount::from_sat(gain);
            }
        }
        if self.chance(40) {
            tx.output[0].value += Amount::from_sat(value);
        }
        tx
    }

    fn odd_script(&mut self) -> ScriptBuf {
        let key = [vec![33, 2], vec![7; 32]].concat();
        ScriptBuf::from_bytes(match self.rng.random_range(0..7) {
            0 => vec![0x51],
            1 => [vec![0x6a, 0x4c, 80], vec![3; 80]].concat(),
            2 => [vec![0x51], key.repeat(3), vec![0x53, 0xae]].concat(),
            3 => [vec![0x51], key.repeat(4), vec![0x54, 0xae]].concat(),
            4 => vec![0x51, 2, 0x4e, 0x73],
            5 => [vec![0x52, 20], vec![1; 20]].concat(),
            _ => vec![],
        })
    }

    fn random_tx(&mut self) -> Transaction {
        let count = if self.chance(4) { 2 } else { 1 };
        let mut coins: Vec<(OutPoint, u64)> = (0..count).map(|_| self.coin()).collect();
        coins.dedup();
        if self.chance(80) {
            coins[0].0 = OutPoint::new(Txid::from_byte_array([5; 32]), 0);
        }
        self.spend(&coins)
    }

    fn remember(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output).take(6) {
            if output.script_pubkey == anybody() {
                self.coins.push((OutPoint { txid, vout }, output.value.to_sat()));
            }
        }
    }

    /// Asks both about one transaction, and hands it in where they like it.
    async fn one(&mut self) {
        let tx = self.random_tx();
        let hex = serialize_hex(&tx);
        let verdict = self.verdicts(json!([[hex], 0])).await;
        match verdict[0]["reject-reason"].as_str() {
            Some(reason) => *self.refused.entry(reason.to_owned()).or_default() += 1,
            None => {
                self.pair.same("sendrawtransaction", json!([hex, 0, 21_000_000])).await;
                self.taken += 1;
                self.remember(&tx);
            }
        }
    }

    /// What both say, but for the details: which of several faulty parents they name depends on where these lie in memory.
    async fn verdicts(&self, params: Value) -> Value {
        self.pair
            .same_but("testmempoolaccept", params, &["reject-details"])
            .await
    }

    /// A parent, sometimes two, with a child that may pay for them.
    async fn family(&mut self) {
        let parents: Vec<Transaction> = (0..self.rng.random_range(1..3)).map(|_| self.random_tx()).collect();
        let coins: Vec<(OutPoint, u64)> = parents
            .iter()
            .map(|parent| {
                let vout = self.rng.random_range(0..parent.output.len());
                let outpoint = OutPoint::new(parent.compute_txid(), vout as u32);
                (outpoint, parent.output[vout].value.to_sat())
            })
            .collect();
        let child = self.spend(&coins);
        let all: Vec<Transaction> = parents.into_iter().chain([child]).collect();
        let hex: Vec<String> = all.iter().map(serialize_hex).collect();
        self.verdicts(json!([hex, 0])).await;
        let params = json!([hex, 0, 21_000_000]);
        self.pair.same_but("submitpackage", params, &["error"]).await;
        let here = self.pair.core.mempool().unwrap();
        for tx in all {
            if here.contains(&tx.compute_txid().to_string()) {
                self.remember(&tx);
            }
        }
    }

    async fn block(&mut self) {
        self.pair.core.generate(1, &Holder::new(2).address()).unwrap();
        self.pair.follow().await;
    }

    async fn compare_pools(&self) {
        let mut core = self.pair.core.mempool().unwrap();
        let ours = self.pair.ours("getrawmempool", &json!([])).await.unwrap();
        let mut ours: Vec<String> = serde_json::from_value(ours).unwrap();
        core.sort();
        ours.sort();
        assert_eq!(core, ours);
    }
}

#[tokio::test]
async fn both_say_the_same_of_everything() {
    let seed = std::env::var("DUNLIN_ADMISSION_SEED").map_or(11, |text| text.parse().unwrap());
    let mut story = Story::begin(seed).await;
    for step in 1..=STEPS {
        match story.rng.random_range(0..60) {
            0 => story.block().await,
            1..=12 => story.family().await,
            _ => story.one().await,
        }
        if step % 50 == 0 {
            story.compare_pools().await;
        }
    }
    story.compare_pools().await;
    println!("{} taken; refused: {:#?}", story.taken, story.refused);
    assert!(story.taken > STEPS / 10 && story.refused.len() > 12);
}
