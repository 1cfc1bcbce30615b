//! `invalidateblock`, `reconsiderblock`, `preciousblock` on the chain itself: what they do, that it outlives a restart,
//! and that no stop in the middle leaves anything but a state that is true.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use dunlin_chain::{Chain, ChainChange, ChainConfig, ChainStore, Network, OperateError, Params, StoreError, TipStatus};
use dunlin_store::CrashDisk;
use regtest::*;

fn open(disk: &CrashDisk) -> Chain {
    try_open(disk).unwrap()
}

fn try_open(disk: &CrashDisk) -> Result<Chain, dunlin_chain::OpenError> {
    let config = ChainConfig {
        script_threads: 1,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::on_crash_disk(disk), config)
}

/// 103 blocks, then two branches of three with a spend in each.
fn branches() -> (Vec<Made>, Vec<Made>, Vec<Made>) {
    let trunk = blocks(genesis(), 1, 103);
    let branch = |salt: u64, value: u64| {
        let spend = spend(&[trunk[0].reward()], &[(value, open_script())]);
        let mut branch = vec![block(trunk[102].place, salt, vec![spend], 0)];
        branch.extend(blocks(branch[0].place, salt, 2));
        branch
    };
    let (a, b) = (branch(2, 1000), branch(3, 2000));
    (trunk, a, b)
}

fn feed(chain: &mut Chain, made: &[Made]) {
    for made in made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
}

#[test]
fn an_invalidated_branch_gives_way_and_comes_back() {
    let (trunk, a, b) = branches();
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk);
    feed(&mut chain, &trunk);
    feed(&mut chain, &a);
    feed(&mut chain, &b[..2]);
    let at_a = chain.summarize_coins().unwrap();

    let outcome = chain.invalidate(&a[1].place.hash).unwrap();
    assert_eq!(chain.view().tip().hash, b[1].place.hash);
    let off = |change: &ChainChange| matches!(change, ChainChange::Disconnected(..));
    assert_eq!(outcome.changes.iter().filter(|change| off(change)).count(), 3);
    assert_eq!(outcome.changes.len(), 5);
    assert_eq!(chain.view().best_header().hash, b[1].place.hash);
    drop(chain);

    // After a restart it is still so, and the branch stays out however long it grows.
    let mut chain = open(&disk.process_killed(None));
    assert_eq!(chain.view().tip().hash, b[1].place.hash);
    let longer = block(a[2].place, 2, Vec::new(), 0);
    assert!(chain.accept_block(NOW, longer.block).is_err());
    let tips: Vec<_> = chain
        .view()
        .chain_tips()
        .iter()
        .map(|tip| (tip.entry.hash, tip.branch_len, tip.status))
        .collect();
    assert_eq!(
        tips,
        [
            (a[2].place.hash, 3, TipStatus::Invalid),
            (b[1].place.hash, 0, TipStatus::Active)
        ]
    );

    chain.reconsider(&a[0].place.hash).unwrap();
    assert_eq!(chain.view().tip().hash, a[2].place.hash);
    assert_eq!(chain.summarize_coins().unwrap(), at_a);
    assert!(matches!(
        chain.invalidate(&bitcoin::hashes::Hash::all_zeros()),
        Err(OperateError::NotFound(_))
    ));
}

#[test]
fn a_preferred_block_outlives_a_restart() {
    let (trunk, a, b) = branches();
    let mut disk = CrashDisk::new(1, None);
    let mut chain = open(&disk);
    for part in [&trunk, &a, &b] {
        feed(&mut chain, part);
    }
    assert_eq!(chain.view().tip().hash, a[2].place.hash);
    for branch in [&b, &a, &b] {
        chain.prefer(&branch[2].place.hash).unwrap();
        assert_eq!(chain.view().tip().hash, branch[2].place.hash);
        // A block below the tip's work changes nothing.
        chain.prefer(&a[1].place.hash).unwrap();
        disk = disk.process_killed(None);
        chain = open(&disk);
        assert_eq!(chain.view().tip().hash, branch[2].place.hash);
    }
    let outcome = chain
        .accept_block(NOW, block(a[2].place, 2, Vec::new(), 0).block)
        .unwrap();
    assert_eq!(outcome.changes.len(), 3 + 4, "more work wins over preference");
}

#[test]
fn a_stop_anywhere_leaves_one_state_or_the_other() {
    let (trunk, a, b) = branches();
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk);
    for part in [&trunk, &a] {
        feed(&mut chain, part);
    }
    feed(&mut chain, &b[..2]);
    chain.close().unwrap();
    let mut chain = open(&disk.process_killed(None));
    let before = chain.summarize_coins().unwrap();
    chain.invalidate(&a[0].place.hash).unwrap();
    let after = chain.summarize_coins().unwrap();
    assert_ne!(before, after);

    for luck in 0..4 {
        for stop in 0.. {
            let stopped = disk.process_killed(Some(stop));
            stopped.reseed(luck);
            if let Ok(mut chain) = try_open(&stopped) {
                let result = chain.invalidate(&a[0].place.hash).map_err(|error| match error {
                    OperateError::Store(error) => error,
                    other => panic!("{other}"),
                });
                match result.and_then(|_| chain.flush()) {
                    Ok(()) => {
                        assert!(stop > 2);
                        break;
                    }
                    Err(StoreError::PowerLoss) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            let mut chain = open(&stopped.power_loss(None));
            let found = chain.summarize_coins().unwrap();
            assert!(found == before || found == after, "operation {stop}");
            chain.invalidate(&a[0].place.hash).unwrap();
            assert_eq!(chain.summarize_coins().unwrap(), after, "operation {stop}");
        }
    }
}
