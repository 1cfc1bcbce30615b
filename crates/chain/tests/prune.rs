//! Pruning: files go when they may, never before; what is left is served, and no stop in between does damage.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use dunlin_chain::{
    Chain, ChainConfig, ChainStore, Network, OpenError, OperateError, PRUNE_KEEP, Params, Prune, Status, StoreError,
};
use dunlin_store::{CrashDisk, Files};
use regtest::*;

/// Bytes of a block file: about a dozen of these blocks.
const FILE: u64 = 4_000;

fn try_open(disk: &CrashDisk, prune: Prune) -> Result<Chain, OpenError> {
    let config = ChainConfig {
        script_threads: 1,
        prune,
        block_file_bytes: FILE,
        ..ChainConfig::default()
    };
    let params = Params {
        prune_after_height: 100,
        ..Params::new(Network::Regtest)
    };
    Chain::open(params, ChainStore::on_crash_disk(disk), config)
}

fn open(disk: &CrashDisk, prune: Prune) -> Chain {
    try_open(disk, prune).unwrap()
}

fn feed(chain: &mut Chain, made: &[Made]) {
    for made in made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
}

fn bytes_on(disk: &CrashDisk) -> u64 {
    let files = disk.files();
    let names = files.list().unwrap();
    names.iter().map(|name| files.len(name).unwrap().unwrap()).sum()
}

#[test]
fn files_stay_near_the_target_and_the_last_blocks_stay() {
    let made = blocks(genesis(), 1, 700);
    let disk = CrashDisk::new(1, None);
    let whole = {
        let mut chain = open(&CrashDisk::new(1, None), Prune::Off);
        feed(&mut chain, &made);
        chain.summarize_coins().unwrap()
    };
    let need = u64::from(PRUNE_KEEP) * (made[0].block.raw.len() as u64 + 20);
    let target = need + 8 * FILE;
    let mut chain = open(&disk, Prune::Target(target));
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        assert!(bytes_on(&disk) < target + 2 * FILE + (1 << 20));
        let view = chain.view();
        let oldest = view.tip().height.saturating_sub(PRUNE_KEEP - 1).max(1);
        let hash = view.hash_at(oldest).unwrap();
        assert!(view.block_bytes(&hash).unwrap().is_some() && view.undo(&hash).unwrap().is_some());
    }
    let view = chain.view();
    let pruned = view.prune_height().unwrap();
    assert!((50..=700 - PRUNE_KEEP).contains(&pruned), "{pruned}");
    let gone = view.entry_at(pruned).unwrap();
    assert!(gone.pruned && !gone.have_data && gone.status == Status::Valid);
    assert_eq!(view.block_bytes(&gone.hash).unwrap(), None);
    assert_eq!(view.missing_blocks(10, |_| false), []);
    assert_eq!(chain.summarize_coins().unwrap(), whole);

    // A restart knows what is gone and asks for none of it; without pruning it refuses.
    drop((view, chain));
    let disk = disk.process_killed(None);
    assert!(matches!(try_open(&disk, Prune::Off), Err(OpenError::Pruned)));
    let mut chain = open(&disk, Prune::Manual);
    assert_eq!(chain.view().prune_height(), Some(pruned));
    assert_eq!(chain.view().missing_blocks(10, |_| false), []);
    assert_eq!(chain.summarize_coins().unwrap(), whole);
}

#[test]
fn the_operator_prunes_what_nobody_needs() {
    let made = blocks(genesis(), 1, 500);
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk, Prune::Manual);
    feed(&mut chain, &made);
    assert_eq!(chain.view().prune_height(), None);
    let view = chain.view();
    view.hold_blocks("index", Some(60));
    view.hold_blocks("other", Some(90));
    chain.prune_to(400).unwrap();
    let pruned = view.prune_height().unwrap();
    assert!((30..60).contains(&pruned), "{pruned}");
    view.hold_blocks("index", None);
    view.hold_blocks("other", None);
    chain.prune_to(100).unwrap();
    let pruned = view.prune_height().unwrap();
    assert!((80..=100).contains(&pruned), "{pruned}");
    chain.prune_to(u32::MAX).unwrap();
    let pruned = view.prune_height().unwrap();
    assert!((180..=500 - PRUNE_KEEP).contains(&pruned), "{pruned}");

    let mut whole = open(&CrashDisk::new(1, None), Prune::Off);
    assert!(matches!(whole.prune_to(1), Err(OperateError::NotPruning)));
}

#[test]
fn a_reorganisation_deeper_than_what_is_kept_is_named_and_does_no_damage() {
    let made = blocks(genesis(), 1, 500);
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk, Prune::Manual);
    feed(&mut chain, &made);
    chain.prune_to(u32::MAX).unwrap();
    let before = chain.summarize_coins().unwrap();
    let pruned = chain.view().prune_height().unwrap();
    assert!(matches!(
        chain.invalidate(&made[pruned as usize - 5].place.hash),
        Err(OperateError::Pruned(_))
    ));
    let rival = blocks(made[pruned as usize - 10].place, 2, 520 - pruned as usize);
    feed(&mut chain, &rival);
    assert_eq!(chain.summarize_coins().unwrap(), before);
    assert!(chain.view().warning().unwrap().contains("pruned"));

    // As deep as what is kept it goes through.
    let at = made.len() - PRUNE_KEEP as usize;
    let rival = blocks(made[at].place, 3, PRUNE_KEEP as usize + 1);
    feed(&mut chain, &rival);
    assert_eq!(chain.view().tip().hash, rival.last().unwrap().place.hash);
}

#[test]
fn a_stop_anywhere_while_pruning_loses_nothing() {
    let made = blocks(genesis(), 1, 420);
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk, Prune::Manual);
    feed(&mut chain, &made[..400]);
    chain.flush().unwrap();
    feed(&mut chain, &made[400..]);
    let end = {
        let mut chain = open(&disk.process_killed(None), Prune::Manual);
        chain.prune_to(u32::MAX).unwrap();
        (chain.summarize_coins().unwrap(), chain.view().prune_height())
    };
    drop(chain);
    for luck in 0..3 {
        for stop in 0.. {
            let stopped = disk.process_killed(Some(stop));
            stopped.reseed(luck);
            if let Ok(mut chain) = try_open(&stopped, Prune::Manual) {
                match chain.prune_to(u32::MAX) {
                    Ok(()) => {
                        assert!(stop > 10);
                        break;
                    }
                    Err(OperateError::Store(StoreError::PowerLoss)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            let found = stopped.power_loss(None);
            let mut chain = open(&found, Prune::Manual);
            // A power loss may have taken blocks that were not flushed; they come again.
            feed(&mut chain, &made[380..]);
            let missing = chain.view().missing_blocks(10, |_| false);
            assert_eq!(missing, [], "operation {stop}");
            chain.prune_to(u32::MAX).unwrap();
            assert_eq!(chain.summarize_coins().unwrap(), end.0, "operation {stop}");
            assert_eq!(chain.view().prune_height(), end.1, "operation {stop}");
            let names = found.files().list().unwrap();
            assert!(
                !names.contains(&"blk00000.dat".to_owned()),
                "operation {stop}: {names:?}"
            );
        }
    }
}
