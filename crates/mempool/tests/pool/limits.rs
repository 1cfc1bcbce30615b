//! Memory, expiry and the rolling minimum fee.

use dunlin_mempool::{Config, RESERVED_SIGOPS};

use crate::harness::{COIN, Node, out, pay};

#[test]
fn a_full_pool_evicts_what_pays_worst_and_raises_its_floor() {
    let (mut node, coins) = Node::with(
        30,
        Config {
            max_bytes: 20_000,
            ..Config::default()
        },
    );
    let vsize = pay(coins[0], COIN, 0).vsize() as u64;
    let mut added = 0;
    while node.pool.info().min_feerate == 100 {
        let fee = vsize * (1 + added as u64);
        let tx = pay(coins[added], COIN, fee);
        node.add(&tx);
        added += 1;
        assert!(node.pool.info().usage <= 20_000);
    }
    assert!(added > 5 && added < 30, "{added}");
    assert_eq!(node.pool.len(), added - 1);
    assert_eq!(node.pool.spender(&coins[0]), None, "the poorest is gone");
    // One satoshi per byte went, so the floor is a step above that.
    assert_eq!(node.pool.info().min_feerate, 1100);
    assert_eq!(node.refuse(&pay(coins[29], COIN, vsize)), "mempool min fee not met");
    let floor = (vsize * 1100).div_ceil(1000);
    assert_eq!(
        node.refuse(&pay(coins[29], COIN, floor)),
        "mempool full",
        "still the worst of all"
    );

    // A block makes room; half a day later the floor has fallen.
    let txs = node
        .pool
        .template(4_000_000, RESERVED_SIGOPS)
        .txs
        .iter()
        .map(|tx| (*tx.tx).clone())
        .collect();
    node.mine(txs);
    assert!(node.pool.is_empty());
    let before = node.pool.info().min_feerate;
    node.now += 6 * 60 * 60;
    assert!(node.pool.min_feerate(node.now).sat_per_kvb() < before / 2);
    node.now += 24 * 60 * 60;
    assert_eq!(node.pool.min_feerate(node.now).sat_per_kvb(), 100);
    node.add(&pay(coins[29], COIN, vsize));
}

#[test]
fn a_poor_parent_is_kept_by_a_rich_child() {
    let (mut node, coins) = Node::with(
        30,
        Config {
            max_bytes: 20_000,
            ..Config::default()
        },
    );
    let parent = pay(coins[0], COIN, 200);
    let child = pay(out(&parent, 0), COIN - 200, 100_000);
    node.add(&parent);
    let id = node.add(&child);
    for coin in &coins[1..] {
        let _ = node.accept(&pay(*coin, COIN, 2000));
    }
    assert!(node.pool.contains(&id) && node.pool.contains(&parent.compute_txid()));
    assert!(node.pool.info().usage <= 20_000);
    assert!(node.pool.mining_feerate(&parent.compute_txid()) > node.pool.mining_feerate(&node.pool.txids()[2]));
}

#[test]
fn old_transactions_are_forgotten_with_their_descendants() {
    let (mut node, coins) = Node::new(2);
    let parent = pay(coins[0], COIN, 1000);
    node.add(&parent);
    node.now += 336 * 60 * 60;
    let child = pay(out(&parent, 0), COIN - 1000, 1000);
    node.add(&child);
    node.now += 1;
    let kept = node.add(&pay(coins[1], COIN, 1000));
    assert_eq!(node.pool.txids(), [kept]);
}
