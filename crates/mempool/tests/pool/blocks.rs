//! Following the chain forwards and backwards.

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, Sequence};
use dunlin_mempool::RESERVED_SIGOPS;

use crate::harness::{COIN, Node, out, pay, spend};

#[test]
fn confirmed_transactions_leave_and_their_children_stay() {
    let (mut node, coins) = Node::new(2);
    let parent = pay(coins[0], COIN, 1000);
    let child = pay(out(&parent, 0), COIN - 1000, 1000);
    node.add(&parent);
    let id = node.add(&child);
    node.mine(vec![parent.clone()]);
    assert_eq!(node.pool.txids(), [id]);
    assert!(node.pool.parents(&id).is_empty());
    node.mine(vec![child]);
    assert!(node.pool.is_empty());
    assert_eq!(node.pool.info().usage, 0);
}

#[test]
fn what_a_block_rules_out_leaves_with_its_descendants() {
    let (mut node, coins) = Node::new(2);
    let parent = pay(coins[0], COIN, 1000);
    node.add(&parent);
    node.add(&pay(out(&parent, 0), COIN - 1000, 1000));
    let other = node.add(&pay(coins[1], COIN, 1000));
    node.mine(vec![pay(coins[0], COIN, 7)]);
    assert_eq!(node.pool.txids(), [other]);
}

#[test]
fn a_reorganisation_gives_transactions_back_in_order() {
    let (mut node, coins) = Node::new(2);
    let first = pay(coins[0], COIN, 1000);
    let second = pay(out(&first, 0), COIN - 1000, 1000);
    let third = pay(out(&second, 0), COIN - 2000, 1000);
    let free = pay(coins[1], COIN, 0);
    node.mine(vec![first.clone(), free.clone()]);
    node.mine(vec![second.clone()]);
    let waiting = node.add(&third);
    node.reorganise(2);
    let ids: Vec<_> = [&first, &free, &second, &third]
        .iter()
        .map(|tx| tx.compute_txid())
        .collect();
    let mut here = node.pool.txids();
    here.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(here, expected, "even what pays nothing comes back");
    assert_eq!(node.pool.parents(&waiting), [ids[2]]);
    assert_eq!(node.pool.ancestors(&waiting).len(), 3);

    // And it can be mined again.
    let template = node.pool.template(4_000_000, RESERVED_SIGOPS);
    let txs: Vec<_> = template.txs.iter().map(|tx| (*tx.tx).clone()).collect();
    assert_eq!(txs.len(), 3, "the free one is not worth mining");
    node.mine(txs);
    assert_eq!(node.pool.txids(), [ids[1]]);
}

#[test]
fn spends_of_a_lost_coinbase_leave() {
    let (mut node, coins) = Node::new(4);
    let view = node.chain.view();
    // The youngest coin that can be spent is a hundred blocks below the next one.
    assert_eq!(view.tip().height, 104);
    let bytes = view.block_bytes(&view.hash_at(5).unwrap()).unwrap().unwrap();
    let young = OutPoint::new(dunlin_chain::ParsedBlock::parse(bytes).unwrap().txids[0], 0);
    let tx = pay(young, COIN, 1000);
    node.add(&tx);
    node.add(&pay(out(&tx, 0), COIN - 1000, 1000));
    let kept = node.add(&pay(coins[0], COIN, 1000));
    node.reorganise(1);
    assert_eq!(
        node.pool.len(),
        3,
        "the coinbase is still there and as old as before, or older"
    );
    // Now its own block goes, and the spend with what builds on it.
    let depth = view.tip().height - 4;
    node.reorganise(depth);
    assert_eq!(node.pool.txids(), [kept]);
}

#[test]
fn locks_that_close_again_push_transactions_out() {
    let (mut node, coins) = Node::new(2);
    let base = pay(coins[0], COIN, 1000);
    node.mine(vec![base.clone()]);
    node.mine(vec![]);
    node.mine(vec![]);
    // Needs the coin to be three blocks old.
    let mut locked = pay(out(&base, 0), COIN - 1000, 1000);
    locked.input[0].sequence = Sequence::from_height(3);
    let id = node.add(&locked);
    let child = node.add(&pay(out(&locked, 0), COIN - 2000, 1000));
    // The coin goes back into the pool: the lock counts from the next block on.
    node.reorganise(3);
    assert!(node.pool.contains(&base.compute_txid()));
    assert!(!node.pool.contains(&id) && !node.pool.contains(&child));

    // An absolute lock by median time: after the reorganisation the clock of the chain is behind.
    let tip = node.chain.view().tip();
    let mut timed = pay(coins[1], COIN, 1000);
    timed.input[0].sequence = Sequence::ZERO;
    timed.lock_time = LockTime::from_consensus(tip.median_time_past - 1);
    let timed = node.add(&timed);
    node.reorganise(8);
    let after = node.chain.view().tip();
    assert!(after.median_time_past < tip.median_time_past);
    assert!(!node.pool.contains(&timed));
}

#[test]
fn conflicts_with_the_new_chain_do_not_come_back() {
    let (mut node, coins) = Node::new(2);
    let old = pay(coins[0], COIN, 1000);
    let child = pay(out(&old, 0), COIN - 1000, 1000);
    node.mine(vec![old.clone()]);
    node.add(&child);
    // The other branch spends the same coin otherwise.
    let view = node.chain.view();
    let fork = view.tip().height - 1;
    let mut parent = view.entry_at(fork).unwrap();
    for (step, txs) in [(1, vec![pay(coins[0], COIN, 5)]), (2, vec![])] {
        let base = dunlin_chain::build::Base {
            height: fork + step,
            parent: parent.hash,
            bits: parent.header.bits,
            time: parent.header.time + 300,
        };
        let block = node.solved(base, txs);
        let hash = block.hash;
        node.submit(block);
        parent = view.entry(&hash).unwrap();
    }
    assert!(node.pool.is_empty(), "{:?}", node.pool.txids());
}

#[test]
fn returning_parents_do_not_overfill_a_cluster() {
    let (mut node, coins) = Node::new(1);
    // One transaction with many outputs is confirmed; its hundred children are unrelated then.
    let parent = spend(&[coins[0]], &vec![1_000_000; 101]);
    node.mine(vec![parent.clone()]);
    for vout in 0..100 {
        node.add(&pay(out(&parent, vout), 1_000_000, 1000 + u64::from(vout)));
    }
    node.reorganise(1);
    let id = parent.compute_txid();
    assert_eq!(node.pool.len(), 64);
    assert_eq!(node.pool.descendants(&id).len(), 64);
    // Those that paid best are still here.
    assert!(node.pool.spender(&out(&parent, 99)).is_some());
    assert!(node.pool.spender(&out(&parent, 0)).is_none());
}
