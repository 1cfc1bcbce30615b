//! Long runs from a seed: spends, double spends, packages, priorities, blocks and reorganisations in any order.
//! Whatever happens, the pool is whole, and the chain accepts a block made of everything that the pool would mine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction};
use dunlin_chain::build::solve;
use dunlin_chain::{ChainChange, ParsedBlock};
use dunlin_mempool::Config;

use crate::harness::{COIN, Node, out, spend};

/// A fixed sequence, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Outputs that were made at some time, spent or not, with their values.
type Outputs = BTreeMap<OutPoint, u64>;

fn random_spend(dice: &mut Dice, outputs: &Outputs) -> Transaction {
    let pick = |dice: &mut Dice| {
        let at = dice.roll(outputs.len() as u64) as usize;
        outputs
            .iter()
            .nth(at)
            .map(|(outpoint, value)| (*outpoint, *value))
            .unwrap()
    };
    let mut coins = BTreeMap::from([pick(dice)]);
    if dice.roll(3) == 0 {
        coins.extend([pick(dice)]);
    }
    let total: u64 = coins.values().sum();
    let fee = [100, 500, 3000, 20_000, 200_000][dice.roll(5) as usize];
    let parts = 1 + dice.roll(3);
    let each = total.saturating_sub(fee) / parts;
    spend(&coins.into_keys().collect::<Vec<_>>(), &vec![each; parts as usize])
}

/// No input is missing or spent twice, parents and children know each other, and every transaction is in one chunk.
fn assert_whole(node: &Node) {
    let (pool, view) = (&node.pool, node.chain.view());
    let mut spent = BTreeSet::new();
    for entry in pool.iter() {
        let mut parents = BTreeSet::new();
        for input in &entry.tx.input {
            let outpoint = input.previous_output;
            assert!(spent.insert(outpoint), "{outpoint} is spent twice");
            assert_eq!(pool.spender(&outpoint), Some(entry.txid));
            match pool.get(&outpoint.txid) {
                Some(parent) => {
                    assert!(parent.output.len() > outpoint.vout as usize);
                    parents.insert(outpoint.txid);
                }
                None => assert!(view.coin(&outpoint).unwrap().is_some(), "{outpoint} is missing"),
            }
        }
        assert_eq!(pool.parents(&entry.txid).into_iter().collect::<BTreeSet<_>>(), parents);
        for parent in parents {
            assert!(pool.children(&parent).contains(&entry.txid));
        }
        let cluster = pool.cluster(&entry.txid).unwrap();
        let members = cluster.iter().flat_map(|(_, _, members)| members);
        let fees = members.clone().map(|txid| pool.entry(txid).unwrap().modified_fee());
        assert_eq!(cluster.iter().map(|(fee, _, _)| fee).sum::<i64>(), fees.sum());
        assert_eq!(members.filter(|txid| **txid == entry.txid).count(), 1);
    }
    let mut before = BTreeSet::new();
    for entry in pool.by_mining_order() {
        assert!(pool.parents(&entry.txid).iter().all(|parent| before.contains(parent)));
        assert!(before.insert(entry.txid));
    }
    assert_eq!(before.len(), pool.len());
}

/// Mines what the pool proposes. Panics when the chain refuses it.
fn mine(node: &mut Node) -> usize {
    node.now += 600;
    let view = node.chain.view();
    let mut block = node
        .pool
        .block_template(&view, node.now, crate::harness::anybody())
        .unwrap();
    assert!(solve(&mut block));
    let count = block.txdata.len() - 1;
    let changes = node.submit(ParsedBlock::from_block(block));
    assert!(matches!(changes.as_slice(), [ChainChange::Connected(..)]));
    count
}

fn run(seed: u64, max_bytes: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let (mut node, coins) = Node::with(
        20,
        Config {
            max_bytes,
            ..Config::default()
        },
    );
    let mut outputs: Outputs = coins.into_iter().map(|coin| (coin, COIN)).collect();
    let (mut accepted, mut packages, mut mined) = (0, 0, 0);
    for _ in 0..400 {
        match dice.roll(20) {
            0 => mined += mine(&mut node),
            1 => node.reorganise(1 + dice.roll(3) as u32),
            2 => {
                let txids = node.pool.txids();
                if !txids.is_empty() {
                    let txid = txids[dice.roll(txids.len() as u64) as usize];
                    node.pool.prioritise(txid, dice.roll(50_000) as i64);
                }
            }
            3 | 4 => {
                // A parent that may pay nothing, and a child that may pay for both.
                let mut parent = random_spend(&mut dice, &outputs);
                parent.output.truncate(1);
                let value = parent.output[0].value.to_sat();
                let child = spend(&[out(&parent, 0)], &[value.saturating_sub(dice.roll(40_000))]);
                let txs = [Arc::new(parent), Arc::new(child)];
                let outcome = node.pool.accept_package(node.now, &txs, None);
                if outcome.error.is_none() {
                    packages += 1;
                    for tx in &txs {
                        outputs.insert(out(tx, 0), tx.output[0].value.to_sat());
                    }
                }
            }
            _ => {
                let tx = random_spend(&mut dice, &outputs);
                if node.accept(&tx).is_ok() {
                    accepted += 1;
                    for (vout, output) in (0..).zip(&tx.output) {
                        outputs.insert(out(&tx, vout), output.value.to_sat());
                    }
                }
            }
        }
        assert_whole(&node);
        let info = node.pool.info();
        assert!(info.usage <= max_bytes);
        assert_eq!(info.size, node.pool.txids().len());
        assert_eq!(info.bytes, node.pool.iter().map(|entry| entry.vsize).sum::<u64>());
        assert_eq!(info.total_fee, node.pool.iter().map(|entry| entry.fee).sum());
    }
    // Everything that is left is mined in the end.
    mined += mine(&mut node);
    assert!(node.pool.is_empty(), "{:?}", node.pool);
    assert!(packages > 0);
    (accepted, mined)
}

#[test]
fn whatever_is_in_the_pool_can_be_mined() {
    let (mut accepted, mut mined) = (0, 0);
    for seed in 1..=8 {
        let (a, m) = run(seed, 300_000_000);
        accepted += a;
        mined += m;
    }
    println!("{accepted} accepted, {mined} mined");
    assert!(accepted > 500 && mined > 250);
}

#[test]
fn a_pool_that_is_always_full_keeps_its_bounds_and_can_be_mined() {
    for seed in 11..=16 {
        let (accepted, mined) = run(seed, 25_000);
        assert!(accepted > 20 && mined > 10);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(5, 40_000), run(5, 40_000));
}
