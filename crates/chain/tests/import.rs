//! Block files in every order and with anything between the blocks; and index and coins made anew from our own files.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::path::PathBuf;
use std::sync::Arc;

use dunlin_chain::{
    Chain, ChainConfig, ChainStore, CoinsSummary, Import, ImportError, ImportProgress, Network, OpenError, Params,
    Prune, Reindex, StoreError,
};
use dunlin_store::{CrashDisk, Files};
use regtest::*;

fn framed(made: &Made) -> Vec<u8> {
    let magic = Params::new(Network::Regtest).magic;
    let raw = &made.block.raw;
    [&magic[..], &(raw.len() as u32).to_le_bytes(), raw].concat()
}

/// 120 blocks with a spend and a branch that loses.
fn story() -> Vec<Made> {
    let mut made = blocks(genesis(), 1, 101);
    let at = made[100].place;
    made.extend(blocks(at, 2, 3));
    let spend = spend(&[made[0].reward()], &[(7, open_script())]);
    let first = block(at, 3, vec![spend], 0);
    let rest = blocks(first.place, 3, 15);
    made.push(first);
    made.extend(rest);
    made
}

fn whole(story: &[Made]) -> CoinsSummary {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    for made in story {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.summarize_coins().unwrap()
}

fn import(chain: &mut Chain, paths: &[PathBuf]) -> ImportProgress {
    let mut import = Import::open(chain, paths).unwrap();
    while import.step(chain, NOW).unwrap().is_some() {}
    let progress = import.progress();
    assert_eq!(progress.bytes_done, progress.bytes_total);
    progress
}

#[test]
fn blocks_come_in_any_order_with_anything_between() {
    let story = story();
    let folder = tempfile::tempdir().unwrap();
    let magic = Params::new(Network::Regtest).magic;
    let mut bytes = Vec::new();
    for (n, made) in story.iter().rev().enumerate() {
        match n % 5 {
            // Zeros as before preallocated space ends, a magic without a block, a length that lies, a torn block.
            0 => bytes.extend([0; 100]),
            1 => bytes.extend(magic),
            2 => bytes.extend([&magic[..], &3_999_999u32.to_le_bytes(), &[7; 50]].concat()),
            3 => bytes.extend(&framed(made)[..150]),
            _ => {}
        }
        bytes.extend(framed(made));
    }
    bytes.extend(magic);
    let plain = folder.path().join("some.dat");
    std::fs::write(&plain, &bytes).unwrap();
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let progress = import(&mut chain, std::slice::from_ref(&plain));
    assert_eq!((progress.new, progress.waiting), (story.len() as u64, 0));
    assert_eq!(chain.summarize_coins().unwrap(), whole(&story));
    assert_eq!(import(&mut chain, &[plain]).known, story.len() as u64);

    // A folder of two files, masked.
    let key = [9, 8, 7, 6, 5, 4, 3, 2];
    std::fs::write(folder.path().join("xor.dat"), key).unwrap();
    for (number, part) in story.chunks(70).enumerate().rev() {
        let mut bytes: Vec<u8> = part.iter().flat_map(framed).collect();
        for (byte, at) in bytes.iter_mut().zip(0..) {
            *byte ^= key[at % 8];
        }
        // The second part lies in the file that is read first.
        std::fs::write(folder.path().join(format!("blk0000{}.dat", 1 - number)), bytes).unwrap();
    }
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    import(&mut chain, &[folder.path().to_owned()]);
    assert_eq!(chain.summarize_coins().unwrap(), whole(&story));
}

#[test]
fn what_cannot_be_imported_is_named() {
    let chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.dat");
    let error = Import::open(&chain, std::slice::from_ref(&missing)).err().unwrap();
    assert!(error.to_string().contains("missing.dat"), "{error}");
    let error = Import::open(&chain, &[folder.path().to_owned()]).err().unwrap();
    assert!(matches!(error, ImportError::NoBlockFiles(_)), "{error}");
}

#[test]
fn invalid_blocks_and_orphans_are_counted_and_left_out() {
    let made = blocks(genesis(), 1, 10);
    let mut draft = draft(made[4].place, 9, Vec::new(), 1);
    draft.header.time += 1;
    let greedy = finish(draft, 6);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blk.dat");
    let parts = [&made[..5], &[greedy], &made[6..]].concat();
    std::fs::write(&path, parts.iter().flat_map(framed).collect::<Vec<u8>>()).unwrap();
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let progress = import(&mut chain, &[path]);
    assert_eq!((progress.new, progress.refused, progress.waiting), (5, 1, 4));
    assert_eq!(chain.view().tip().height, 5);
}

fn config(reindex: Option<Reindex>, prune: Prune) -> ChainConfig {
    ChainConfig {
        script_threads: 1,
        reindex,
        prune,
        block_file_bytes: 4_000,
        ..ChainConfig::default()
    }
}

fn open(disk: &CrashDisk, reindex: Option<Reindex>) -> Result<Chain, OpenError> {
    let params = Params::new(Network::Regtest);
    Chain::open(params, ChainStore::on_crash_disk(disk), config(reindex, Prune::Off))
}

/// Opens and makes everything anew that is to be.
fn rebuild(disk: &CrashDisk, reindex: Option<Reindex>) -> Result<Chain, StoreError> {
    let mut chain = open(disk, reindex).map_err(|error| match error {
        OpenError::Store(error) => error,
        other => panic!("{other}"),
    })?;
    if chain.is_reindexing() {
        let mut import = chain.find_own_blocks()?;
        loop {
            match import.step(&mut chain, NOW) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(ImportError::Store(error)) => return Err(error),
                // A read of our own file that fails is wrapped by the stream.
                Err(_) => return Err(StoreError::PowerLoss),
            }
        }
        chain.finish_reindex()?;
        while chain.advance()?.more {}
    }
    chain.flush()?;
    Ok(chain)
}

#[test]
fn everything_is_made_anew_and_a_stop_anywhere_only_delays_it() {
    let story = story();
    let want = whole(&story);
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk, None).unwrap();
    for made in &story {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.close().unwrap();
    for what in [Reindex::Coins, Reindex::Everything] {
        let mut stops = 0;
        for stop in 0.. {
            let stopped = disk.process_killed(Some(stop));
            if let Ok(mut chain) = rebuild(&stopped, Some(what))
                && let Ok(coins) = chain.summarize_coins()
            {
                assert_eq!(coins, want);
                assert_eq!(chain.view().missing_blocks(10, |_| false), []);
                assert_eq!(chain.view().chain_tips().len(), 2);
                break;
            }
            stops += 1;
            // The next start is told nothing, or the same again.
            let again = if stop % 2 == 0 { None } else { Some(what) };
            let found = stopped.power_loss(None);
            let mut chain = rebuild(&found, again).unwrap();
            assert_eq!(chain.summarize_coins().unwrap(), want, "operation {stop}");
            let names = found.files().list().unwrap();
            assert!(names.contains(&"rev00000.dat".to_owned()), "{names:?}");
        }
        assert!(stops > 4, "{stops}");
    }
}

#[test]
fn blocks_that_lost_their_ancestors_go_when_all_is_made_anew() {
    let made = blocks(genesis(), 1, 420);
    let disk = CrashDisk::new(1, None);
    let params = || Params {
        prune_after_height: 100,
        ..Params::new(Network::Regtest)
    };
    let open = |reindex| {
        let store = ChainStore::on_crash_disk(&disk);
        Chain::open(params(), store, config(reindex, Prune::Manual)).unwrap()
    };
    let mut chain = open(None);
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.prune_to(100).unwrap();
    drop(chain);
    let mut chain = open(Some(Reindex::Everything));
    let mut import = chain.find_own_blocks().unwrap();
    while import.step(&mut chain, NOW).unwrap().is_some() {}
    assert!(import.progress().waiting > 300);
    chain.finish_reindex().unwrap();
    let names = disk.files().list().unwrap();
    assert!(
        names.iter().filter(|name| !name.starts_with("coins")).count() < 3,
        "{names:?}"
    );
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    assert_eq!(chain.view().tip().height, 420);
    assert_eq!(chain.summarize_coins().unwrap(), whole(&made));
}

#[test]
fn blocks_without_their_headers_are_left_alone_until_they_are_indexed_anew() {
    let story = story();
    let want = whole(&story);
    let folder = tempfile::tempdir().unwrap();
    let params = Params::new(Network::Regtest);
    let open = |reindex| Chain::open_dir(params.clone(), folder.path(), config(reindex, Prune::Off));
    let mut chain = open(None).unwrap();
    for made in &story {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.close().unwrap();
    let blocks = || std::fs::read(folder.path().join("blocks/blk00000.dat")).unwrap();
    let before = blocks();
    std::fs::remove_dir_all(folder.path().join("headers")).unwrap();
    for reindex in [None, Some(Reindex::Coins), None] {
        let Err(error @ OpenError::NoIndex) = open(reindex) else {
            panic!("it was opened");
        };
        let text = error.to_string();
        assert!(text.contains("--reindex") && !text.contains('\n'), "{text}");
        assert!(blocks() == before, "the blocks are untouched");
    }
    // The word is kept when the first run dies at once.
    drop(open(Some(Reindex::Everything)).unwrap());
    let mut chain = open(None).unwrap();
    assert!(chain.is_reindexing());
    let mut own = chain.find_own_blocks().unwrap();
    while own.step(&mut chain, NOW).unwrap().is_some() {}
    chain.finish_reindex().unwrap();
    while chain.advance().unwrap().more {}
    assert_eq!(chain.summarize_coins().unwrap(), want);
    assert!(blocks().starts_with(&before));
    // Headers that do not reach the coins' tip are no index either.
    chain.close().unwrap();
    std::fs::remove_dir_all(folder.path().join("headers")).unwrap();
    std::fs::remove_dir_all(folder.path().join("blocks")).unwrap();
    assert!(matches!(open(None), Err(OpenError::NoIndex)));
}
