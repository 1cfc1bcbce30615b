//! Several blocks at once: their scripts are checked while others are connected, and the outcome is that of giving
//! them one by one.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction};
use dunlin_chain::{
    BlockError, BlockOutcome, BlockUndo, Chain, ChainChange, ChainConfig, ChainStore, Network, Params, ParsedBlock,
    Status,
};
use regtest::*;

/// Blocks in which everything is spent that the block before created.
const RUN: usize = 12;
/// Coins of each block of the run; more than a block must have to be worth helpers.
const COINS: u64 = 60;

fn chain(threads: usize) -> Chain {
    let config = ChainConfig {
        script_threads: threads,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap()
}

/// A trunk, and on it a run of blocks of which those at `bad` have a transaction whose script fails.
fn story(bad: &[usize]) -> Vec<Made> {
    let mut made = blocks(genesis(), 1, 101);
    let place = made[100].place;
    let outputs: Vec<_> = (0..COINS)
        .map(|n| (n, open_script()))
        .chain([(0, closed_script())])
        .collect();
    let split = spend(&[made[0].reward()], &outputs);
    let mut from = split.compute_txid();
    let closed = OutPoint::new(from, COINS as u32);
    made.push(block(place, 1, vec![split], 0));
    for n in 0..RUN {
        let all: Vec<_> = (0..COINS as u32).map(|vout| OutPoint::new(from, vout)).collect();
        let outputs: Vec<_> = (0..COINS).map(|n| (n, open_script())).collect();
        let tx = spend(&all, &outputs);
        from = tx.compute_txid();
        let mut txs: Vec<Transaction> = vec![tx];
        if bad.contains(&n) {
            txs.push(spend(&[closed], &[(0, open_script())]));
        }
        made.push(block(made.last().unwrap().place, 1, txs, 0));
    }
    made
}

fn parsed(made: &[Made]) -> Vec<(Arc<ParsedBlock>, Option<Arc<BlockUndo>>)> {
    made.iter().map(|made| (Arc::clone(&made.block), None)).collect()
}

fn connected(outcome: &BlockOutcome) -> Vec<u32> {
    let one = |change: &ChainChange| match change {
        ChainChange::Connected(_, height) => *height,
        ChainChange::Disconnected(..) => panic!("nothing leaves this chain"),
    };
    outcome.changes.iter().map(one).collect()
}

#[test]
fn a_run_of_sound_blocks_is_connected_in_one_call() {
    for threads in [1, 2, 5] {
        let made = story(&[]);
        let mut chain = chain(threads);
        let results = chain.accept_blocks(NOW, &parsed(&made));
        let outcomes: Vec<BlockOutcome> = results.into_iter().map(Result::unwrap).collect();
        assert!(outcomes.iter().all(|outcome| outcome.new));
        let (last, others) = outcomes.split_last().unwrap();
        assert!(others.iter().all(|outcome| outcome.changes.is_empty()));
        assert_eq!(connected(last), (1..=made.len() as u32).collect::<Vec<_>>());
        assert_eq!(chain.view().tip().hash, made.last().unwrap().place.hash);

        // The same as one by one, in the coins, too.
        let mut single = self::chain(1);
        for one in &made {
            single.accept_block(NOW, Arc::clone(&one.block)).unwrap();
        }
        assert_eq!(chain.summarize_coins().unwrap(), single.summarize_coins().unwrap());
    }
}

#[test]
fn the_first_bad_script_of_a_run_decides() {
    for threads in [1, 2, 5] {
        for bad in [vec![0], vec![4, 7], vec![RUN - 1]] {
            let made = story(&bad);
            let first = 102 + bad[0];
            let mut chain = chain(threads);
            let results = chain.accept_blocks(NOW, &parsed(&made));
            for (index, result) in results.iter().enumerate() {
                match result {
                    Err(BlockError::Invalid(reject)) if index == first => {
                        assert_eq!(reject.reason, "block-script-verify-flag-failed");
                        let txid = made[first].block.txids[2].to_string();
                        assert!(reject.detail.contains(&txid), "{reject}");
                    }
                    Ok(outcome) if index != first => assert!(outcome.new),
                    other => panic!("{threads} threads, {bad:?}: block {index}: {other:?}"),
                }
            }
            let outcome = results.iter().rev().find_map(|result| result.as_ref().ok()).unwrap();
            assert_eq!(connected(outcome), (1..=first as u32).collect::<Vec<_>>());
            let view = chain.view();
            assert_eq!(view.tip().hash, made[first - 1].place.hash);
            for later in &made[first..] {
                assert_eq!(view.entry(&later.place.hash).unwrap().status, Status::Invalid);
            }
            let mut single = self::chain(1);
            for one in &made[..first] {
                single.accept_block(NOW, Arc::clone(&one.block)).unwrap();
            }
            assert_eq!(chain.summarize_coins().unwrap(), single.summarize_coins().unwrap());
            // Another branch goes on from the last sound block.
            let other = block(made[first - 1].place, 2, Vec::new(), 0);
            chain.accept_block(NOW, Arc::clone(&other.block)).unwrap();
            assert_eq!(view.tip().hash, other.place.hash);
        }
    }
}

#[test]
fn a_missing_coin_does_not_hide_the_bad_script_before_it() {
    for threads in [1, 3] {
        let mut made = story(&[3]);
        let last = made.len() - 1;
        let nothing = OutPoint::new(made[0].coinbase(), 7);
        made[last] = block(
            made[last - 1].place,
            1,
            vec![spend(&[nothing], &[(0, open_script())])],
            0,
        );
        let mut chain = chain(threads);
        let results = chain.accept_blocks(NOW, &parsed(&made));
        let refused: Vec<usize> = (0..results.len()).filter(|index| results[*index].is_err()).collect();
        assert_eq!(refused, [105]);
        assert_eq!(chain.view().tip().hash, made[104].place.hash);

        // Without the bad script before it the missing coin is the fault.
        let mut made = story(&[]);
        made[last] = block(
            made[last - 1].place,
            1,
            vec![spend(&[nothing], &[(0, open_script())])],
            0,
        );
        let mut chain = self::chain(threads);
        let mut results = chain.accept_blocks(NOW, &parsed(&made));
        match results.pop().unwrap() {
            Err(BlockError::Invalid(reject)) => assert_eq!(reject.reason, "bad-txns-inputs-missingorspent"),
            other => panic!("{other:?}"),
        }
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(chain.view().tip().hash, made[last - 1].place.hash);
    }
}

#[test]
fn what_was_verified_before_is_not_verified_again() {
    use dunlin_chain::script::{VERIFY_ALL, VERIFY_NONE};
    for (flags, taken) in [(VERIFY_ALL, true), (VERIFY_NONE, false)] {
        let made = story(&[2]);
        let mut chain = chain(2);
        // A claim that is false, so that one sees whether it is believed.
        chain.view().note_verified(made[104].block.wtxids[2], flags);
        let results = chain.accept_blocks(NOW, &parsed(&made));
        assert_eq!(results[104].is_ok(), taken);
    }
}
