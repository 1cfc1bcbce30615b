//! Damage on disk: each record is named by a check, repaired from what is there, and never leads to a wrong verdict.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use bitcoin::OutPoint;
use dunlin_chain::{Chain, ChainConfig, ChainStore, CoinsSummary, Network, Params, Verification, VerifyReport};
use dunlin_store::{CrashDisk, Files};
use regtest::*;

fn open(disk: &CrashDisk) -> Chain {
    let config = ChainConfig {
        script_threads: 1,
        cache_bytes: 100,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::on_crash_disk(disk), config).unwrap()
}

/// 110 blocks; block 105 and 106 spend coinbases and each other's outputs.
struct Scene {
    disk: CrashDisk,
    made: Vec<Made>,
    /// An unspent output of block 105.
    coin: OutPoint,
    coins: CoinsSummary,
}

fn scene() -> Scene {
    let mut made = blocks(genesis(), 1, 104);
    let first = spend(&[made[0].reward()], &[(70, open_script()), (71, open_script())]);
    let txid = first.compute_txid();
    let at = |vout| OutPoint { txid, vout };
    let second = spend(&[at(0), made[1].reward()], &[(50, open_script())]);
    made.push(block(made[103].place, 1, vec![first], 0));
    made.push(block(made[104].place, 1, vec![second], 0));
    made.extend(blocks(made[105].place, 1, 4));
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk);
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    let coins = chain.summarize_coins().unwrap();
    chain.close().unwrap();
    Scene {
        disk,
        made,
        coin: at(1),
        coins,
    }
}

fn verify(chain: &mut Chain, blocks: u32, level: u8, repair: bool) -> VerifyReport {
    let asked = Verification { blocks, level, repair };
    let mut last = 0;
    let report = chain.verify(&asked, &mut |done, all| {
        assert!(done <= all && done >= last);
        last = done;
    });
    report.unwrap()
}

/// Flips a bit of the byte at an offset.
fn flip(disk: &CrashDisk, name: &str, offset: u64) {
    disk.flip_bit(name, offset as usize).unwrap();
}

/// Where the frame of a block's bytes begins in the first block file.
fn place(disk: &CrashDisk, made: &Made) -> u64 {
    let files = disk.files();
    let len = files.len("blk00000.dat").unwrap().unwrap();
    let all = files.read_at("blk00000.dat", 0, len as usize).unwrap();
    let raw = &made.block.raw[..];
    all.windows(raw.len()).position(|bytes| bytes == raw).unwrap() as u64
}

/// Flips a bit of the record of a coin, and so damages all that lie in one block with it.
fn break_coin(disk: &CrashDisk, coin: &OutPoint) {
    let files = disk.files();
    // What a key begins with may be left out, because the key before begins with it too.
    let id: &[u8; 32] = coin.txid.as_ref();
    // The oldest that has the key has the coin; a newer one may know that another output of the transaction is gone.
    let mut runs = files.list().unwrap().into_iter().filter(|name| name.ends_with(".run"));
    let broken = runs.find(|name| {
        let len = files.len(name).unwrap().unwrap();
        let all = files.read_at(name, 0, len as usize).unwrap();
        let at = all.windows(28).position(|bytes| bytes == &id[4..]);
        at.inspect(|at| flip(disk, name, *at as u64)).is_some()
    });
    assert!(broken.is_some());
}

#[test]
fn a_whole_chain_is_found_whole_at_every_level() {
    let scene = scene();
    let mut chain = open(&scene.disk);
    for level in 0..=4 {
        for (blocks, checked) in [(0, 110), (6, 6), (1000, 110)] {
            chain = {
                drop(chain);
                let config = ChainConfig::default();
                let store = ChainStore::on_crash_disk(&scene.disk);
                Chain::open(Params::new(Network::Regtest), store, config).unwrap()
            };
            let report = verify(&mut chain, blocks, level, false);
            assert_eq!(
                (report.checked, report.is_complete_and_well()),
                (checked, true),
                "{report:?}"
            );
        }
    }
    assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
    drop(chain);
    // With a cache that holds nothing the coins of so many blocks are not checked, and that is said.
    let report = verify(&mut open(&scene.disk), 0, 4, false);
    assert!(report.coins_skipped && report.faults.is_empty());
}

#[test]
fn a_damaged_block_is_named_and_fetched_again() {
    let scene = scene();
    let broken = &scene.made[49];
    let disk = scene.disk.process_killed(None);
    flip(&disk, "blk00000.dat", place(&disk, broken) + 30);
    let mut chain = open(&disk);
    let report = verify(&mut chain, 0, 0, false);
    assert_eq!((report.faults.len(), report.faults[0].height), (1, 50));
    assert!(report.faults[0].what.contains("blk00000.dat"), "{report:?}");
    assert_eq!(chain.view().missing_blocks(10, |_| false), []);
    assert!(verify(&mut chain, 0, 0, true).faults[0].repaired);
    assert_eq!(chain.view().missing_blocks(10, |_| false), [(50, broken.place.hash)]);
    chain.accept_block(NOW, Arc::clone(&broken.block)).unwrap();
    assert!(verify(&mut chain, 0, 2, false).is_complete_and_well());
}

#[test]
fn a_damaged_undo_record_is_made_anew_from_the_blocks() {
    let scene = scene();
    let files = scene.disk.files();
    let len = files.len("rev00000.dat").unwrap().unwrap();
    // Every byte from the record of block 105 on: the frames behind it are those of blocks with nothing to undo.
    for offset in len - 80..len {
        let disk = scene.disk.process_killed(None);
        flip(&disk, "rev00000.dat", offset);
        let mut chain = open(&disk);
        let report = verify(&mut chain, 8, 2, false);
        assert_eq!(report.faults.len(), 1, "byte {offset}: {report:?}");
        assert!(report.faults[0].what.contains("rev00000.dat"), "{report:?}");
        if offset % 2 == 0 {
            assert!(verify(&mut chain, 8, 2, true).faults[0].repaired);
            assert!(verify(&mut chain, 8, 2, false).is_complete_and_well());
        }
        // Repaired or not: taking the blocks off finds the right coins.
        chain.invalidate(&scene.made[104].place.hash).unwrap();
        assert_eq!(chain.view().tip().height, 104);
        let mut fresh = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
        for made in &scene.made[..104] {
            fresh.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        }
        assert_eq!(chain.summarize_coins().unwrap(), fresh.summarize_coins().unwrap());
    }
}

#[test]
fn a_damaged_coin_is_named_and_made_anew() {
    let scene = scene();
    let disk = scene.disk.process_killed(None);
    break_coin(&disk, &scene.coin);
    let config = || ChainConfig {
        script_threads: 1,
        ..ChainConfig::default()
    };
    let open = || {
        let store = ChainStore::on_crash_disk(&disk);
        Chain::open(Params::new(Network::Regtest), store, config()).unwrap()
    };
    let mut chain = open();
    assert!(chain.view().coin(&scene.coin).is_err());
    let report = verify(&mut chain, 10, 3, false);
    // All coins that lie behind one checksum are damaged together.
    assert!(!report.faults.is_empty());
    for fault in &report.faults {
        assert!(
            fault.what.starts_with("the coin ") && fault.what.contains(".run"),
            "{report:?}"
        );
    }
    assert!(verify(&mut chain, 10, 3, true).faults[0].repaired);
    assert!(verify(&mut chain, 10, 4, false).is_complete_and_well());
    chain.close().unwrap();
    let mut chain = open();
    assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
}

#[test]
fn a_valid_block_that_spends_a_damaged_coin_is_valid() {
    let scene = scene();
    let disk = scene.disk.process_killed(None);
    break_coin(&disk, &scene.coin);
    let mut chain = open(&disk);
    let tip = scene.made.last().unwrap().place;
    let good = spend(&[scene.coin], &[(71, open_script())]);
    let greedy = spend(&[scene.coin], &[(72, open_script())]);
    assert!(chain.accept_block(NOW, block(tip, 5, vec![greedy], 0).block).is_err());
    let next = block(tip, 6, vec![good], 0);
    chain.accept_block(NOW, Arc::clone(&next.block)).unwrap();
    assert_eq!(chain.view().tip().hash, next.place.hash);
}
