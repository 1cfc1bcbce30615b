//! Replacing by fee.

use dunlin_mempool::RejectKind;

use crate::harness::{COIN, Node, out, pay, spend};

#[test]
fn a_better_paying_transaction_replaces_without_having_been_announced() {
    let (mut node, coins) = Node::new(1);
    let old = pay(coins[0], COIN, 1000);
    let id = node.add(&old);
    let vsize = old.vsize() as u64;
    assert_eq!(node.refuse(&pay(coins[0], COIN, 999)), "insufficient fee");
    // Its own size has to be paid at the incremental rate on top.
    assert_eq!(
        node.refuse(&pay(coins[0], COIN, 1000 + vsize.div_ceil(10) - 1)),
        "insufficient fee"
    );
    let new = pay(coins[0], COIN, 1000 + vsize.div_ceil(10));
    assert_eq!(node.accept(&new).unwrap().replaced, [id]);
    assert_eq!(node.pool.txids(), [new.compute_txid()]);
    assert_eq!(node.pool.spender(&coins[0]), Some(new.compute_txid()));
}

#[test]
fn descendants_go_too_and_have_to_be_paid_for() {
    let (mut node, coins) = Node::new(1);
    let parent = pay(coins[0], COIN, 1000);
    let child = pay(out(&parent, 0), COIN - 1000, 9000);
    let ids = [node.add(&parent), node.add(&child)];
    assert_eq!(node.refuse(&pay(coins[0], COIN, 9999)), "insufficient fee");
    assert_eq!(node.accept(&pay(coins[0], COIN, 11_000)).unwrap().replaced, ids);
    assert_eq!(node.pool.len(), 1);
    assert_eq!(node.pool.spender(&out(&parent, 0)), None);
}

#[test]
fn more_fees_at_a_worse_rate_do_not_suffice() {
    let (mut node, coins) = Node::new(2);
    // Small and dear; the replacement pays more in all, but is so large that small blocks would earn less.
    node.add(&pay(coins[0], COIN, 20_000));
    let large = spend(&[coins[0]], &vec![10_000; 300]);
    let change = COIN - 300 * 10_000 - 25_000;
    let mut large = large;
    large.output.push(bitcoin::TxOut {
        value: bitcoin::Amount::from_sat(change),
        script_pubkey: crate::harness::anybody(),
    });
    assert_eq!(node.refuse(&large), "replacement-failed");
}

#[test]
fn nothing_may_spend_what_it_replaces() {
    let (mut node, coins) = Node::new(2);
    let parent = pay(coins[0], COIN, 1000);
    node.add(&parent);
    let reject = node.accept(&spend(&[coins[0], out(&parent, 0)], &[COIN])).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("bad-txns-spends-conflicting-tx", RejectKind::Consensus)
    );
}

#[test]
fn one_transaction_may_replace_several() {
    let (mut node, coins) = Node::new(5);
    let ids: Vec<_> = coins[..4]
        .iter()
        .map(|coin| node.add(&pay(*coin, COIN, 1000)))
        .collect();
    let other = node.add(&pay(coins[4], COIN, 1000));
    let merged = spend(&coins[..4], &[4 * COIN - 50_000]);
    assert_eq!(node.accept(&merged).unwrap().replaced, ids);
    assert_eq!(node.pool.txids(), [other, merged.compute_txid()]);
}

#[test]
fn no_more_than_a_hundred_clusters_are_disturbed() {
    let (mut node, coins) = Node::new(101);
    for coin in &coins {
        node.add(&pay(*coin, COIN, 1000));
    }
    let value = coins.len() as u64 * COIN;
    assert_eq!(
        node.refuse(&spend(&coins, &[value - 1_000_000])),
        "too many potential replacements"
    );
    node.add(&spend(&coins[..100], &[100 * COIN - 1_000_000]));
    assert_eq!(node.pool.len(), 2);
}
