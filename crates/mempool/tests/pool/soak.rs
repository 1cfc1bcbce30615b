//! Long runs from a seed: spends, double spends, blocks and reorganisations in any order. Whatever happens, the chain
//! accepts a block made of everything that the pool would mine.

use std::collections::BTreeMap;

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
    let (mut accepted, mut mined) = (0, 0);
    for _ in 0..400 {
        match dice.roll(20) {
            0 => mined += mine(&mut node),
            1 => node.reorganise(1 + dice.roll(3) as u32),
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
        let info = node.pool.info();
        assert!(info.usage <= max_bytes);
        assert_eq!(info.size, node.pool.txids().len());
        assert_eq!(info.bytes, node.pool.iter().map(|entry| entry.vsize).sum::<u64>());
        assert_eq!(info.total_fee, node.pool.iter().map(|entry| entry.fee).sum());
    }
    // Everything that is left is mined in the end.
    mined += mine(&mut node);
    assert!(node.pool.is_empty(), "{:?}", node.pool);
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
