//! Damage where the blocks that tell what was there are pruned: they come once more, are read and let go, and what was
//! damaged is whole again. Whoever lies, and whenever it stops in between.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use bitcoin::OutPoint;
use dunlin_chain::{
    BlockError, Chain, ChainConfig, ChainStore, CoinsSummary, Network, Params, ParsedBlock, Prune, Verification,
};
use dunlin_store::{CrashDisk, Files};
use regtest::*;

/// Bytes of a block file: about a dozen of these blocks.
const FILE: u64 = 4_000;
const HEIGHT: u32 = 420;

fn try_open(disk: &CrashDisk) -> Result<Chain, String> {
    let config = ChainConfig {
        script_threads: 1,
        prune: Prune::Manual,
        block_file_bytes: FILE,
        ..ChainConfig::default()
    };
    let params = Params {
        prune_after_height: 100,
        ..Params::new(Network::Regtest)
    };
    Chain::open(params, ChainStore::on_crash_disk(disk), config).map_err(|error| error.to_string())
}

fn open(disk: &CrashDisk) -> Chain {
    try_open(disk).unwrap()
}

/// A pruned chain of 420 blocks, with spends below and above what is kept.
struct Scene {
    disk: CrashDisk,
    made: Vec<Made>,
    coins: CoinsSummary,
    /// Unspent, and made by a pruned block.
    old: OutPoint,
    pruned: u32,
}

fn scene() -> Scene {
    let mut made = blocks(genesis(), 1, 102);
    let first = spend(&[made[0].reward()], &vec![(70, open_script()); 40]);
    let txid = first.compute_txid();
    let at = |vout| OutPoint { txid, vout };
    let second = spend(&[at(0), made[1].reward()], &[(50, open_script())]);
    made.push(block(made[101].place, 1, vec![first, second], 0));
    made.extend(blocks(made[102].place, 1, HEIGHT as usize - 104));
    // The tip spends coins whose blocks are pruned.
    let late = spend(&[at(1), at(2), made[2].reward()], &[(30, open_script())]);
    made.push(block(made[HEIGHT as usize - 2].place, 1, vec![late], 0));
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk);
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.prune_to(u32::MAX).unwrap();
    let pruned = chain.view().prune_height().unwrap();
    assert!(pruned > 103, "{pruned}");
    let coins = chain.summarize_coins().unwrap();
    chain.close().unwrap();
    Scene {
        disk,
        made,
        coins,
        old: at(3),
        pruned,
    }
}

impl Scene {
    fn disk(&self) -> CrashDisk {
        self.disk.process_killed(None)
    }

    /// A block on the tip that spends the old coin.
    fn next(&self) -> Made {
        let tip = self.made.last().unwrap().place;
        block(tip, 7, vec![spend(&[self.old], &[(9, open_script())])], 0)
    }

    /// Gives the chain what it asks for, the last first, until it asks for no more.
    fn serve(&self, chain: &mut Chain) -> Result<u32, BlockError> {
        let mut served = 0;
        loop {
            let wanted = chain.view().blocks_to_search(100, |_| false);
            let Some((lowest, _)) = wanted.first() else {
                return Ok(served);
            };
            assert!(*lowest <= self.pruned);
            for (height, hash) in wanted.into_iter().rev() {
                let made = &self.made[height as usize - 1];
                assert_eq!(made.place.hash, hash);
                chain.accept_block(NOW, Arc::clone(&made.block))?;
                served += 1;
            }
        }
    }
}

fn block_bytes(disk: &CrashDisk) -> u64 {
    let files = disk.files();
    let names = files.list().unwrap().into_iter().filter(|name| name.ends_with(".dat"));
    names.map(|name| files.len(&name).unwrap().unwrap()).sum()
}

/// Damages the first records in every run, and those of a transaction.
fn break_coins(disk: &CrashDisk, txid: &bitcoin::Txid) {
    let files = disk.files();
    let id: &[u8; 32] = txid.as_ref();
    for name in files.list().unwrap().iter().filter(|name| name.ends_with(".run")) {
        let len = files.len(name).unwrap().unwrap();
        let all = files.read_at(name, 0, len as usize).unwrap();
        // What a key begins with may be left out, because the key before begins with it too.
        if let Some(at) = all.windows(28).position(|bytes| bytes == &id[4..]) {
            disk.flip_bit(name, at).unwrap();
        }
        disk.flip_bit(name, 60).unwrap();
    }
}

#[test]
fn coins_are_mended_with_blocks_that_come_once_more_and_are_not_kept() {
    let scene = scene();
    let disk = scene.disk();
    break_coins(&disk, &scene.old.txid);
    let mut chain = open(&disk);
    assert!(chain.view().coin(&scene.old).is_err());
    assert_eq!(chain.view().warning(), None);
    let next = scene.next();
    chain.accept_block(NOW, Arc::clone(&next.block)).unwrap();
    // It waits, and says for what.
    let view = chain.view();
    assert_eq!(view.tip().height, HEIGHT);
    let told = view.warning().unwrap();
    assert!(
        told.starts_with("a coin is damaged on disk") && told.contains(&format!("height 1 of {HEIGHT}")),
        "{told}"
    );
    let progress = view.search().unwrap();
    assert_eq!((progress.height, progress.target, progress.rests), (0, HEIGHT, true));
    let before = block_bytes(&disk);
    assert_eq!(scene.serve(&mut chain).unwrap(), scene.pruned);
    // All that was written is the undo record of the new block.
    assert!(block_bytes(&disk) - before < 200);
    assert_eq!((view.search(), view.warning()), (None, None));
    assert_eq!(view.tip().hash, next.place.hash);
    assert_eq!(view.prune_height(), Some(scene.pruned));
    assert_eq!(view.coin(&scene.old).unwrap(), None);
    // Nothing else has changed.
    chain.invalidate(&next.place.hash).unwrap();
    assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
    chain.close().unwrap();
    assert_eq!(open(&disk).summarize_coins().unwrap(), scene.coins);
}

#[test]
fn a_false_body_is_refused_and_does_no_harm() {
    let scene = scene();
    let disk = scene.disk();
    break_coins(&disk, &scene.old.txid);
    let mut chain = open(&disk);
    let next = scene.next();
    chain.accept_block(NOW, Arc::clone(&next.block)).unwrap();
    let whole = |made: &Made| bitcoin::consensus::deserialize::<bitcoin::Block>(&made.block.raw).unwrap();
    let others = whole(&scene.made[102]).txdata;
    for (height, hash) in chain.view().blocks_to_search(1000, |_| false) {
        let mut block = whole(&scene.made[height as usize - 1]);
        match height % 3 {
            // Others' transactions, one too many, and one twice.
            0 => block.txdata = others.clone(),
            1 => block.txdata.push(spend(&[scene.old], &[(1, open_script())])),
            _ => block.txdata.push(block.txdata.last().unwrap().clone()),
        }
        let error = chain.accept_block(NOW, ParsedBlock::from_block(block)).unwrap_err();
        let BlockError::Invalid(reject) = error else {
            panic!("{error}")
        };
        assert!(
            ["bad-txnmrklroot", "bad-txns-duplicate"].contains(&&*reject.reason),
            "{reject}"
        );
        assert!(!chain.view().entry(&hash).unwrap().have_data);
    }
    assert_eq!(chain.view().search().unwrap().height, 0);
    scene.serve(&mut chain).unwrap();
    assert_eq!(chain.view().tip().hash, next.place.hash);
    chain.invalidate(&next.place.hash).unwrap();
    assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
}

#[test]
fn a_check_begins_it_and_a_restart_begins_it_again() {
    let scene = scene();
    let disk = scene.disk();
    break_coins(&disk, &scene.old.txid);
    let mut chain = open(&disk);
    let asked = |repair| Verification {
        blocks: 10,
        level: 3,
        repair,
    };
    let report = chain.verify(&asked(false), &mut |_, _| {}).unwrap();
    assert!(!report.faults.is_empty() && chain.view().search().is_none());
    let report = chain.verify(&asked(true), &mut |_, _| {}).unwrap();
    assert!(report.faults.iter().all(|fault| fault.repaired), "{report:?}");
    let wanted = chain.view().blocks_to_search(20, |_| false);
    for (height, _) in &wanted {
        let made = &scene.made[*height as usize - 1];
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    assert_eq!(chain.view().search().unwrap().height, 20);
    drop(chain);
    let disk = disk.process_killed(None);
    let mut chain = open(&disk);
    assert_eq!(chain.view().blocks_to_search(20, |_| false), wanted);
    scene.serve(&mut chain).unwrap();
    assert!(chain.verify(&asked(false), &mut |_, _| {}).unwrap().faults.is_empty());
    drop(chain);
    let mut chain = open(&disk.process_killed(None));
    assert_eq!(chain.view().search(), None);
    assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
}

#[test]
fn damage_that_only_a_reader_met_is_mended_with_the_next_block() {
    let scene = scene();
    let disk = scene.disk();
    break_coins(&disk, &scene.old.txid);
    let mut chain = open(&disk);
    let tip = scene.made.last().unwrap().place;
    chain.accept_block(NOW, block(tip, 1, vec![], 0).block).unwrap();
    assert!(chain.view().search().is_none(), "nobody has met it");
    assert!(chain.view().coin(&scene.old).is_err());
    let made = blocks(tip, 1, 2);
    chain.accept_block(NOW, Arc::clone(&made[1].block)).unwrap();
    assert!(chain.view().search().is_some());
    assert_eq!(scene.serve(&mut chain).unwrap(), scene.pruned);
    assert_eq!(chain.view().tip().height, HEIGHT + 2);
    assert!(chain.view().coin(&scene.old).unwrap().is_some());
}

#[test]
fn an_undo_record_is_made_anew_from_blocks_that_come_once_more() {
    let scene = scene();
    let disk = scene.disk();
    let files = disk.files();
    let tip = scene.made.last().unwrap().place;
    let name = files
        .list()
        .unwrap()
        .into_iter()
        .rfind(|name| name.starts_with("rev"))
        .unwrap();
    let len = files.len(&name).unwrap().unwrap();
    disk.flip_bit(&name, len as usize - 1).unwrap();
    for operator in [true, false] {
        let disk = disk.process_killed(None);
        let mut chain = open(&disk);
        let rivals = blocks(scene.made[HEIGHT as usize - 2].place, 9, 2);
        if operator {
            chain.invalidate(&tip.hash).unwrap();
        } else {
            for rival in &rivals {
                chain.accept_block(NOW, Arc::clone(&rival.block)).unwrap();
            }
        }
        assert_eq!(chain.view().tip().hash, tip.hash);
        let told = chain.view().warning().unwrap();
        assert!(told.starts_with("an undo record is damaged on disk"), "{told}");
        drop(chain);
        let mut chain = open(&disk);
        assert!(!chain.view().search().unwrap().rests);
        assert_eq!(scene.serve(&mut chain).unwrap(), scene.pruned);
        assert_eq!(chain.view().search(), None);
        let height = if operator { HEIGHT - 1 } else { HEIGHT + 1 };
        assert_eq!(chain.view().tip().height, height);
        assert!(chain.view().undo(&tip.hash).unwrap().is_some());
        if operator {
            chain.reconsider(&tip.hash).unwrap();
            assert_eq!(chain.summarize_coins().unwrap(), scene.coins);
        }
    }
}

#[test]
fn a_stop_at_any_operation_loses_nothing() {
    let scene = scene();
    let next = scene.next();
    let end = {
        let mut chain = open(&scene.disk());
        chain.accept_block(NOW, Arc::clone(&next.block)).unwrap();
        chain.summarize_coins().unwrap()
    };
    let disk = scene.disk();
    break_coins(&disk, &scene.old.txid);
    let all = |chain: &mut Chain| {
        chain.accept_block(NOW, Arc::clone(&next.block))?;
        scene.serve(chain)?;
        chain.flush().map_err(BlockError::Store)
    };
    for stop in 0.. {
        let stopped = disk.process_killed(Some(stop));
        let finished = try_open(&stopped).is_ok_and(|mut chain| all(&mut chain).is_ok());
        let mut chain = open(&stopped.power_loss(None));
        all(&mut chain).unwrap();
        assert_eq!(chain.view().tip().hash, next.place.hash, "operation {stop}");
        assert_eq!(chain.summarize_coins().unwrap(), end, "operation {stop}");
        if finished {
            assert!(stop > 10);
            break;
        }
    }
}
