//! Operators' priorities, and the pool on disk.

use std::sync::RwLock;

use dunlin_mempool::{Config, DumpError, ImportOptions, Pool, RESERVED_SIGOPS, import, save};

use crate::harness::{COIN, Node, out, pay};

#[test]
fn a_priority_counts_as_a_fee() {
    let (mut node, coins) = Node::new(3);
    let free = pay(coins[0], COIN, 0);
    assert_eq!(node.refuse(&free), "min relay fee not met");
    node.pool.prioritise(free.compute_txid(), 5000);
    let id = node.add(&free);
    let usual = pay(coins[1], COIN, 1000);
    let other = node.add(&usual);
    let order: Vec<_> = node.pool.by_mining_order().map(|entry| entry.txid).collect();
    assert_eq!(order, [id, other]);
    assert_eq!(node.pool.entry(&id).unwrap().modified_fee(), 5000);
    assert_eq!(node.pool.info().total_fee.to_sat(), 1000, "nobody is paid by it");
    // Whoever replaces it has to pay for the priority, too.
    assert_eq!(node.refuse(&pay(coins[0], COIN, 4000)), "insufficient fee");
    node.pool.prioritise(other, -2000);
    assert_eq!(node.pool.chunk(&other).unwrap().0, -1000);
    let template = node.pool.template(4_000_000, RESERVED_SIGOPS);
    assert_eq!(template.txs.len(), 1, "what pays less than nothing is not mined");
    node.pool.prioritise(other, 2000);
    assert_eq!(node.pool.priorities().count(), 1, "a priority of nothing is none");
    node.mine(vec![free]);
    assert_eq!(node.pool.priorities().count(), 0, "a block ends it");
}

#[test]
fn what_is_saved_comes_back() {
    let (mut node, coins) = Node::new(3);
    let parent = pay(coins[0], COIN, 1000);
    let child = pay(out(&parent, 0), COIN - 1000, 50_000);
    node.add(&parent);
    node.now += 77;
    node.add(&child);
    let absent = pay(coins[1], COIN, 1).compute_txid();
    node.pool.prioritise(parent.compute_txid(), 123);
    node.pool.prioritise(absent, -9);
    let dir = std::env::temp_dir().join(format!("dunlin-pool-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("mempool.dat");
    let (now, view) = (node.now + 5, node.chain.view());
    let shown = |pool: &Pool| {
        let mut all: Vec<_> = pool.iter().map(|entry| (entry.txid, entry.time, entry.delta)).collect();
        all.sort();
        (
            all,
            pool.priorities().map(|one| (one.txid, one.delta)).collect::<Vec<_>>(),
        )
    };
    let expected = shown(&node.pool);
    assert_eq!(save(&RwLock::new(node.pool), &path, [3; 8]).unwrap(), 2);

    let keep = ImportOptions {
        use_current_time: false,
        apply_fee_delta_priority: true,
    };
    let pool = RwLock::new(Pool::new(Config::default(), view.clone()));
    let mut steps = Vec::new();
    let sum = import(&pool, &path, now, keep, |done, all| {
        steps.push((done, all));
        true
    })
    .unwrap();
    assert_eq!((sum.accepted, sum.failed), (2, 0));
    assert_eq!(steps, [(1, 2), (2, 2)]);
    assert_eq!(shown(&pool.read().unwrap()), expected);
    assert_eq!(import(&pool, &path, now, keep, |_, _| true).unwrap().known, 2);

    let fresh = ImportOptions {
        use_current_time: true,
        apply_fee_delta_priority: false,
    };
    let pool = RwLock::new(Pool::new(Config::default(), view.clone()));
    import(&pool, &path, now, fresh, |_, _| true).unwrap();
    assert!(
        pool.read()
            .unwrap()
            .iter()
            .all(|entry| entry.time == now && entry.delta == 0)
    );

    // What comes before the damage is loaded.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
    let pool = RwLock::new(Pool::new(Config::default(), view));
    let result = import(&pool, &path, now, keep, |_, _| true);
    assert!(matches!(result, Err(DumpError::Damaged(_))), "{result:?}");
    assert_eq!(pool.read().unwrap().len(), 2, "all transactions come before the cut");
    std::fs::remove_dir_all(&dir).unwrap();
}
