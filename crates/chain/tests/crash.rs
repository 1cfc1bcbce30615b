//! Power loss and sudden death at every single write and sync.
//!
//! A small chain with a reorganisation runs on a disk that stops at operation n, for every n. What is found on the
//! disk afterwards must be a state that once was true, and must lead to the same end as a run that was never stopped.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint};
use dunlin_chain::{
    BlockError, Chain, ChainConfig, ChainStore, CoinsSummary, HeaderReject, Network, OpenError, Params, StoreError,
};
use dunlin_store::CrashDisk;
use regtest::*;

/// What is done to the chain, in order.
enum Act {
    Headers(std::ops::Range<usize>),
    Block(usize),
    Flush,
}

struct Story {
    made: Vec<Made>,
    acts: Vec<Act>,
}

/// 104 blocks, a branch of four with spends, a better branch of five that arrives out of order, flushes in between.
fn story() -> Story {
    let mut made = blocks(genesis(), 1, 104);
    let at = made[103].place;
    let spent = |n: usize, value| {
        spend(
            &[made[n].reward()],
            &[(value, open_script()), (value + 1, open_script())],
        )
    };
    let (first, other) = (spent(0, 5000), spent(1, 7000));
    let again = spend(
        &[OutPoint {
            txid: first.compute_txid(),
            vout: 0,
        }],
        &[(10, open_script())],
    );
    let mut old = vec![block(at, 2, vec![first], 0)];
    old.push(block(old[0].place, 2, vec![again], 0));
    old.extend(blocks(old[1].place, 2, 2));
    let mut new = vec![block(at, 3, vec![other.clone()], 0)];
    let more = spend(
        &[OutPoint {
            txid: other.compute_txid(),
            vout: 1,
        }],
        &[(20, open_script())],
    );
    new.push(block(new[0].place, 3, vec![more], 0));
    new.extend(blocks(new[1].place, 3, 4));
    made.extend(old);
    made.extend(new);

    // The first hundred blocks are there from the start; see `prepared`.
    let mut acts = vec![
        Act::Block(100),
        Act::Block(101),
        Act::Headers(102..104),
        Act::Block(103),
        Act::Block(102),
    ];
    acts.extend((104..106).map(Act::Block));
    acts.push(Act::Flush);
    acts.extend((106..108).map(Act::Block));
    acts.push(Act::Headers(108..114));
    acts.extend([109, 108, 111, 110].map(Act::Block));
    acts.push(Act::Block(112));
    acts.push(Act::Flush);
    acts.push(Act::Block(113));
    Story { made, acts }
}

fn open(disk: &CrashDisk) -> Result<Chain, OpenError> {
    open_with(disk, ChainConfig::default().cache_bytes)
}

fn open_with(disk: &CrashDisk, cache_bytes: usize) -> Result<Chain, OpenError> {
    let config = ChainConfig {
        cache_bytes,
        script_threads: 1,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::on_crash_disk(disk), config)
}

/// A disk with the first hundred blocks.
fn prepared(story: &Story) -> CrashDisk {
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&disk).unwrap();
    for made in &story.made[..100] {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.close().unwrap();
    disk
}

/// Carries out the story from `from` on until the power goes; says how far it came. Tips are noted.
fn play(chain: &mut Chain, story: &Story, tips: &mut Vec<BlockHash>) -> Result<(), StoreError> {
    for act in &story.acts {
        match act {
            Act::Headers(range) => {
                let headers: Vec<_> = story.made[range.clone()]
                    .iter()
                    .map(|made| *made.block.header())
                    .collect();
                match chain.accept_headers(NOW, &headers) {
                    Ok(_) => {}
                    Err(HeaderReject::Store(error)) => return Err(error),
                    Err(other) => panic!("{other}"),
                }
            }
            Act::Block(index) => {
                // After a restart a header may have to come again before its block.
                let header = *story.made[*index].block.header();
                if chain.view().entry(&header.block_hash()).is_none() {
                    let mut missing = vec![header];
                    while chain.view().entry(&missing[0].prev_blockhash).is_none() {
                        let parent = missing[0].prev_blockhash;
                        let made = story.made.iter().find(|made| made.place.hash == parent).unwrap();
                        missing.insert(0, *made.block.header());
                    }
                    match chain.accept_headers(NOW, &missing) {
                        Ok(_) => {}
                        Err(HeaderReject::Store(error)) => return Err(error),
                        Err(other) => panic!("{other}"),
                    }
                }
                match chain.accept_block(NOW, Arc::clone(&story.made[*index].block)) {
                    Ok(_) => {}
                    Err(BlockError::Store(error)) => return Err(error),
                    Err(other) => panic!("block {index}: {other}"),
                }
            }
            Act::Flush => chain.flush()?,
        }
        tips.push(chain.view().tip().hash);
    }
    // A peer goes on asking for what is missing until nothing is.
    loop {
        let missing = chain.view().missing_blocks(10, |_| false);
        let Some((_, hash)) = missing.first() else {
            return Ok(());
        };
        let made = story.made.iter().find(|made| made.place.hash == *hash).unwrap();
        match chain.accept_block(NOW, Arc::clone(&made.block)) {
            Ok(_) => {}
            Err(BlockError::Store(error)) => return Err(error),
            Err(other) => panic!("{other}"),
        }
    }
}

/// The coins of every block of the story, each counted by a chain that got nothing but its ancestors.
struct Truth<'a> {
    story: &'a Story,
    known: BTreeMap<BlockHash, CoinsSummary>,
}

impl Truth<'_> {
    fn at(&mut self, tip: BlockHash) -> CoinsSummary {
        let story = self.story;
        *self.known.entry(tip).or_insert_with(|| {
            let mut path = Vec::new();
            let mut at = tip;
            while let Some(made) = story.made.iter().find(|made| made.place.hash == at) {
                path.push(made);
                at = made.block.prev();
            }
            let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
            for made in path.iter().rev() {
                chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
            }
            chain.summarize_coins().unwrap()
        })
    }
}

/// Stops the story at operation `stop` in the way of `fail`, and checks what is left.
fn stop_at(
    story: &Story,
    start: &CrashDisk,
    truth: &mut Truth<'_>,
    cache_bytes: usize,
    stop: u64,
    fail: impl Fn(&CrashDisk, Option<u64>) -> CrashDisk,
    end: &CoinsSummary,
) -> bool {
    let disk = start.process_killed(Some(stop));
    let mut tips = vec![story.made[99].place.hash];
    match open_with(&disk, cache_bytes) {
        Ok(mut chain) => {
            let result = play(&mut chain, story, &mut tips);
            if result.is_ok() {
                assert!(!disk.is_off());
                return false;
            }
            // The step that was cut short may have moved the tip already.
            tips.push(chain.view().tip().hash);
        }
        Err(OpenError::Store(StoreError::PowerLoss)) => {}
        Err(other) => panic!("operation {stop}: {other}"),
    }
    assert!(disk.is_off());

    let found = fail(&disk, None);
    let mut chain = open(&found).unwrap_or_else(|error| panic!("operation {stop}: cannot open again: {error}"));
    let tip = chain.view().tip();
    // Opening connects stored blocks that the run may not have come to: their tip lies on the way of the story.
    let known = tips.contains(&tip.hash)
        || story
            .made
            .iter()
            .any(|made| made.place.hash == tip.hash && is_tip(story, made));
    assert!(
        known,
        "operation {stop}: {} at {} never was a tip",
        tip.hash, tip.height
    );
    assert_eq!(
        chain.summarize_coins().unwrap(),
        truth.at(tip.hash),
        "operation {stop}: the coins are not those of the tip"
    );

    play(&mut chain, story, &mut tips).unwrap_or_else(|error| panic!("operation {stop}: cannot go on: {error}"));
    assert_eq!(chain.summarize_coins().unwrap(), *end, "operation {stop}: another end");
    true
}

/// Whether the story ever has this block as its tip: all of the old branch, and of the new one what has more work.
fn is_tip(story: &Story, made: &Made) -> bool {
    let index = story
        .made
        .iter()
        .position(|one| one.place.hash == made.place.hash)
        .unwrap();
    index < 108 || made.place.height > story.made[107].place.height
}

fn every_operation(cache_bytes: usize, fail: impl Fn(&CrashDisk, Option<u64>) -> CrashDisk) {
    let story = story();
    let start = prepared(&story);
    let mut truth = Truth {
        story: &story,
        known: BTreeMap::new(),
    };
    let end = truth.at(story.made.last().unwrap().place.hash);

    let disk = start.process_killed(None);
    let mut chain = open_with(&disk, cache_bytes).unwrap();
    let mut tips = Vec::new();
    play(&mut chain, &story, &mut tips).unwrap();
    let operations = disk.operations();
    assert_eq!(chain.summarize_coins().unwrap(), end);
    for tip in tips {
        assert!(is_tip(
            &story,
            story.made.iter().find(|made| made.place.hash == tip).unwrap()
        ));
    }
    assert!(operations > 50, "{operations} operations");

    for stop in 0..operations {
        assert!(
            stop_at(&story, &start, &mut truth, cache_bytes, stop, &fail, &end),
            "operation {stop} was never reached"
        );
    }
}

#[test]
fn power_loss_at_every_operation() {
    for luck in 0..8 {
        // With a cache so small that every block is flushed, with one that is now and then, and with one that never is.
        for cache_bytes in [100, 6000, usize::MAX] {
            every_operation(cache_bytes, |disk, stop| {
                disk.reseed(luck);
                disk.power_loss(stop)
            });
        }
    }
}

#[test]
fn sudden_death_at_every_operation() {
    every_operation(100, CrashDisk::process_killed);
    every_operation(usize::MAX, CrashDisk::process_killed);
}

/// What one stop leaves behind depends on luck: the same with other luck, and with a second stop while recovering.
#[test]
fn power_loss_while_recovering_from_power_loss() {
    let story = story();
    let start = prepared(&story);
    let mut truth = Truth {
        story: &story,
        known: BTreeMap::new(),
    };
    let end = truth.at(story.made.last().unwrap().place.hash);
    for round in 0..150u64 {
        let mut disk = start.process_killed(Some(3 + round % 47));
        disk.reseed(round);
        for again in 0..4 {
            match open(&disk) {
                Ok(mut chain) => {
                    let tip = chain.view().tip().hash;
                    if again == 3 {
                        assert_eq!(chain.summarize_coins().unwrap(), truth.at(tip), "round {round}");
                    }
                    let played = play(&mut chain, &story, &mut Vec::new());
                    if let Ok(coins) = played.and_then(|()| chain.summarize_coins()) {
                        assert_eq!(coins, end, "round {round}");
                        break;
                    }
                }
                Err(OpenError::Store(StoreError::PowerLoss)) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
            disk = disk.power_loss((again < 2).then_some(round * 7 % 31 + again));
        }
        let mut chain = open(&disk.process_killed(None)).unwrap();
        play(&mut chain, &story, &mut Vec::new()).unwrap();
        assert_eq!(chain.summarize_coins().unwrap(), end, "round {round}");
    }
}

/// The very first start, stopped at every operation.
#[test]
fn power_loss_while_the_store_is_made() {
    for seed in 0..20 {
        for stop in 0..3 {
            let disk = CrashDisk::new(seed, Some(stop));
            assert!(
                matches!(open(&disk), Err(OpenError::Store(StoreError::PowerLoss))),
                "operation {stop}"
            );
            let found = disk.power_loss(None);
            let mut chain = open(&found).unwrap();
            assert_eq!(chain.view().tip().hash, genesis().hash);
            assert!(chain.view().block_bytes(&genesis().hash).unwrap().is_some());
            chain
                .accept_block(NOW, block(genesis(), 1, Vec::new(), 0).block)
                .unwrap();
        }
    }
}
