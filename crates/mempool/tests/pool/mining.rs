//! Templates: what is chosen, in which order, and that the chain takes the result.

use std::sync::Arc;

use bitcoin::{Amount, ScriptBuf};
use dunlin_chain::ParsedBlock;
use dunlin_chain::build::solve;
use dunlin_mempool::RESERVED_SIGOPS;

use crate::harness::{COIN, Node, anybody, out, pay, spend};

#[test]
fn the_best_rates_come_first_and_children_pay_for_parents() {
    let (mut node, coins) = Node::new(3);
    let middle = node.add(&pay(coins[0], COIN, 5000));
    let parent = pay(coins[1], COIN, 100);
    let parent_id = node.add(&parent);
    let child = node.add(&pay(out(&parent, 0), COIN - 100, 50_000));
    let poor = node.add(&pay(coins[2], COIN, 200));
    let template = node.pool.template(4_000_000, RESERVED_SIGOPS);
    let order: Vec<_> = template.txs.iter().map(|tx| tx.tx.compute_txid()).collect();
    assert_eq!(order, [parent_id, child, middle, poor]);
    assert_eq!(template.fees, Amount::from_sat(55_300));
    assert_eq!(template.weight, template.txs.iter().map(|tx| tx.weight).sum::<u64>());
}

#[test]
fn a_mined_template_becomes_the_tip() {
    let (mut node, coins) = Node::new(3);
    for coin in &coins {
        node.add(&pay(*coin, COIN, 1000));
    }
    let view = node.chain.view();
    let before = view.tip().height;
    let mut block = node.pool.block_template(&view, node.now, anybody()).unwrap();
    assert_eq!(block.txdata.len(), 4);
    assert_eq!(block.txdata[0].output[0].value, Amount::from_sat(COIN + 3000));
    assert!(solve(&mut block));
    node.submit(ParsedBlock::from_block(block));
    assert_eq!(view.tip().height, before + 1);
    assert!(node.pool.is_empty());

    // With an empty pool there is still a block to mine, and another one after it within the same second.
    for _ in 0..2 {
        let mut block = node.pool.block_template(&view, node.now, ScriptBuf::new()).unwrap();
        assert!(solve(&mut block));
        assert_eq!(node.submit(ParsedBlock::from_block(block)).len(), 1);
    }
}

#[test]
fn the_weight_limit_skips_what_does_not_fit_and_its_descendants() {
    let (mut node, coins) = Node::new(3);
    let large = spend(&[coins[0]], &vec![10_000_000; 200]);
    let fee = COIN - 200 * 10_000_000;
    assert!(fee > 0);
    node.add(&large);
    node.add(&pay(out(&large, 0), 10_000_000, 100));
    let small = node.add(&pay(coins[1], COIN, 1000));
    let limit = 8000 + large.weight().to_wu();
    let template = node.pool.template(limit, RESERVED_SIGOPS);
    assert_eq!(
        template.txs.iter().map(|tx| tx.tx.compute_txid()).collect::<Vec<_>>(),
        [small]
    );
    assert!(
        node.pool
            .template(limit + 1, RESERVED_SIGOPS)
            .txs
            .iter()
            .any(|tx| *tx.tx == large)
    );
}

#[test]
fn signature_operations_are_limited() {
    let (mut node, coins) = Node::new(30);
    // Bare 1-of-3 outputs cost 80 each; 160 of them make 12,800, and seven such transactions would pass 80,000.
    let key = [vec![33, 2], vec![7; 32]].concat();
    let multisig = ScriptBuf::from_bytes([vec![0x51], key.repeat(3), vec![0x53, 0xae]].concat());
    for coin in &coins[..8] {
        let mut tx = spend(&[*coin], &vec![1_000_000; 160]);
        for output in &mut tx.output {
            output.script_pubkey = multisig.clone();
        }
        node.add(&tx);
    }
    let template = node.pool.template(4_000_000, RESERVED_SIGOPS);
    assert_eq!(template.txs.len(), 6);
    assert_eq!(template.sigops, 6 * 12_800);
    let txs = template
        .txs
        .iter()
        .map(|tx| Arc::unwrap_or_clone(Arc::clone(&tx.tx)))
        .collect();
    node.mine(txs);
    assert_eq!(node.pool.len(), 2);
}
