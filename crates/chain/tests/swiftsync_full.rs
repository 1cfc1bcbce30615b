//! The full form of SwiftSync: every script is checked with the coins that somebody says blocks spent, and a lie in any
//! of them is found.
#![allow(clippy::unwrap_used)]

mod regtest;
mod swift_story;

use std::sync::Arc;

use bitcoin::{Amount, ScriptBuf};
use dunlin_chain::swiftsync::SwiftProgress;
use dunlin_chain::{AssumeValid, BlockUndo, Chain, ChainConfig, ChainStore, Coin, Network, Params, Status};
use regtest::*;
use swift_story::*;

/// The first block with spends: the reward of block 1, an output of its own, and nothing else.
const FIRST: usize = 101;

/// Changes a coin.
type Lie = fn(&mut Coin);

fn every_script(hints: &[u8]) -> ChainConfig {
    ChainConfig {
        assume_valid: AssumeValid::Never,
        ..config(hints)
    }
}

fn begun_full(hints: &[u8]) -> Chain {
    let mut chain = open(&ChainStore::in_memory(), every_script(hints));
    headers(&mut chain, &STORY);
    chain
}

/// What a block spent, with one of the coins changed.
fn lie(number: usize, row: usize, input: usize, change: impl Fn(&mut Coin)) -> BlockUndo {
    let mut spent = BlockUndo::clone(&SPENT[number]);
    change(&mut spent.spent[row][input]);
    spent
}

fn give(chain: &mut Chain, number: usize, spent: BlockUndo) {
    let block = STORY[number].block.clone();
    let result = chain
        .accept_blocks(NOW, &[(block, Some(Arc::new(spent)))])
        .pop()
        .unwrap();
    result.unwrap();
}

#[test]
fn coins_and_undo_records_are_those_of_the_ordinary_sync() {
    let mut chain = begun_full(&HINTS);
    let view = chain.view();
    let target = TARGET as u32;
    let full = true;
    assert_eq!(view.spent_coins_wanted(), Some(target));
    // In any order, and nothing is taken without its coins.
    connect_with(&mut chain, (50..TARGET).rev().chain(0..48));
    connect(&mut chain, &STORY[48..49]);
    assert_eq!(
        view.swiftsync(),
        Some(SwiftProgress {
            height: 48,
            target,
            full
        })
    );
    let missing = view.missing_blocks(2, |_| false);
    assert_eq!(
        missing,
        [49, 50].map(|height| (height, STORY[height as usize - 1].place.hash))
    );
    connect_with(&mut chain, 48..50);
    assert_eq!(view.tip().height, target);
    assert_eq!((view.swiftsync(), view.spent_coins_wanted()), (None, None));
    assert_eq!(view.warning(), None);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
    for (made, spent) in STORY.iter().zip(SPENT.iter()).take(TARGET) {
        assert_eq!(view.undo(&made.place.hash).unwrap().as_ref(), Some(&**spent));
    }
    assert!(view.keeps_spent_coins());
    connect(&mut chain, &STORY[TARGET..TARGET + 20]);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET + 20));
}

#[test]
fn a_restart_goes_on_in_the_same_form_and_never_with_less_than_is_asked_for() {
    let store = ChainStore::in_memory();
    let mut chain = open(&store, every_script(&HINTS));
    headers(&mut chain, &STORY);
    connect_with(&mut chain, 0..60);
    chain.close().unwrap();
    let target = TARGET as u32;
    // What was checked is good where less is asked for, too.
    let mut chain = open(&store, config(&HINTS));
    let progress = |height, full| Some(SwiftProgress { height, target, full });
    assert_eq!(chain.view().swiftsync(), progress(60, true));
    connect_with(&mut chain, 60..TARGET);
    assert_eq!(chain.view().tip().height, target);

    let store = ChainStore::in_memory();
    let mut chain = open(&store, config(&HINTS));
    headers(&mut chain, &STORY);
    connect(&mut chain, &STORY[..60]);
    assert_eq!(chain.view().swiftsync(), progress(60, false));
    chain.close().unwrap();
    let mut chain = open(&store, every_script(&HINTS));
    assert_eq!(chain.view().swiftsync(), progress(0, true));
    assert_eq!(chain.view().missing_blocks(1, |_| false)[0].0, 1);
    connect_with(&mut chain, 0..TARGET);
    assert_eq!(chain.view().tip().height, target);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
}

#[test]
fn hints_above_the_assumed_block_lead_to_the_full_form() {
    let below = ChainConfig {
        assume_valid: AssumeValid::Block(STORY[TARGET - 2].place.hash),
        ..config(&HINTS)
    };
    let mut chain = open(&ChainStore::in_memory(), below);
    assert_eq!(chain.view().spent_coins_wanted(), None);
    headers(&mut chain, &STORY);
    assert_eq!(chain.view().spent_coins_wanted(), Some(TARGET as u32));
    connect_with(&mut chain, 0..TARGET);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
}

#[test]
fn a_lie_in_any_coin_is_found_in_the_end() {
    let lies: [Lie; 5] = [
        |coin| coin.output.value += Amount::from_sat(1),
        |coin| coin.output.value -= Amount::from_sat(1),
        |coin| coin.output.script_pubkey = ScriptBuf::from_bytes(vec![0x51, 0x51]),
        |coin| coin.coinbase = false,
        // Mature all the same.
        |coin| coin.height -= 1,
    ];
    for lying in lies {
        let number = FIRST + 2;
        let mut chain = begun_full(&HINTS);
        connect_with(&mut chain, 0..number);
        give(&mut chain, number, lie(number, 0, 0, lying));
        connect_with(&mut chain, number + 1..TARGET - 1);
        assert_eq!(chain.view().tip().height, 0, "nothing is wrong with the block alone");
        connect_with(&mut chain, [TARGET - 1]);
        let warning = chain.view().warning().unwrap();
        assert!(
            warning.starts_with("SwiftSync to height 112 has failed (what was created"),
            "{warning}"
        );
        // The ordinary sync has begun, and believes nothing.
        assert_eq!(chain.view().tip().height, TARGET as u32);
        assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
        let undo = chain.view().undo(&STORY[number].place.hash).unwrap();
        assert_eq!(undo.as_ref(), Some(&*SPENT[number]));
    }
}

#[test]
fn a_coin_with_which_its_block_breaks_a_rule_ends_the_sync_at_once() {
    let lies: [(Lie, &str); 3] = [
        (
            |coin| coin.output.script_pubkey = closed_script(),
            "block-script-verify-flag-failed",
        ),
        (|coin| coin.height += 10, "bad-txns-premature-spend-of-coinbase"),
        (|coin| coin.output.value = Amount::ZERO, "bad-txns-in-belowout"),
    ];
    for (lying, reason) in lies {
        let mut chain = begun_full(&HINTS);
        connect_with(&mut chain, 0..FIRST);
        give(&mut chain, FIRST, lie(FIRST, 0, 0, lying));
        connect_with(&mut chain, FIRST + 1..TARGET);
        let warning = chain.view().warning().unwrap();
        assert!(warning.contains(reason), "{warning}");
        assert_eq!(chain.view().tip().height, TARGET as u32);
        assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
    }
}

#[test]
fn coins_that_do_not_fit_their_block_are_known_by_it() {
    let (number, height) = (FIRST + 1, FIRST as u32 + 2);
    let block = &STORY[number].block;
    let coins = || SPENT[number].spent.iter().flatten().cloned().collect::<Vec<Coin>>();
    let claimed = |coins: Vec<Coin>| BlockUndo::claimed(block, height, coins);
    assert_eq!(claimed(coins()), Ok(BlockUndo::clone(&SPENT[number])));
    let mut fewer = coins();
    let extra = fewer.pop().unwrap();
    assert!(claimed(fewer).is_err());
    let mut more = coins();
    more.push(extra);
    assert!(claimed(more).is_err());
    // The first is older, the second is made in the block.
    assert!(coins()[0].height < height && coins()[1].height == height);
    let changes: [(usize, Lie); 9] = [
        (0, |coin| coin.height = 0),
        (0, |coin| coin.height = FIRST as u32 + 2),
        (0, |coin| coin.height = u32::MAX),
        (0, |coin| coin.output.value = Amount::MAX_MONEY + Amount::from_sat(1)),
        (0, |coin| {
            coin.output.script_pubkey = ScriptBuf::from_bytes(vec![0x51; 10_001])
        }),
        (1, |coin| coin.output.value += Amount::from_sat(1)),
        (1, |coin| coin.output.script_pubkey = closed_script()),
        (1, |coin| coin.height -= 1),
        (1, |coin| coin.coinbase = true),
    ];
    for (which, change) in changes {
        let mut coins = coins();
        change(&mut coins[which]);
        assert!(claimed(coins).is_err());
    }
    // The chain looks itself, whoever gives it coins.
    let mut chain = begun_full(&HINTS);
    connect_with(&mut chain, 0..number);
    give(&mut chain, number, lie(number, 0, 0, |coin| coin.height = u32::MAX));
    connect_with(&mut chain, number + 1..TARGET);
    assert!(chain.view().warning().is_some());
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
}

#[test]
fn a_block_that_is_invalid_with_true_coins_is_refused_as_ever() {
    let good = &STORY[..FIRST + 3];
    let closed = bitcoin::OutPoint {
        txid: good.last().unwrap().block.txids[1],
        vout: 2,
    };
    let tx = spend(&[closed], &[(1, open_script())]);
    let bad = block(good.last().unwrap().place, 9, vec![tx], 0);
    let above = blocks(bad.place, 3, ABOVE);
    let mut plain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut plain, good);
    let coin = plain.view().coin(&closed).unwrap().unwrap();

    let one_thread = ChainConfig {
        script_threads: 1,
        ..every_script(&HINTS)
    };
    let mut chain = open(&ChainStore::in_memory(), one_thread);
    headers(&mut chain, good);
    headers(&mut chain, std::slice::from_ref(&bad));
    headers(&mut chain, &above);
    connect_with(&mut chain, 0..good.len());
    let spent = BlockUndo::claimed(&bad.block, bad.place.height, [coin]).unwrap();
    let mut offered = vec![(bad.block.clone(), Some(Arc::new(spent)))];
    offered.extend(
        above
            .iter()
            .take(TARGET)
            .map(|one| (one.block.clone(), Some(Arc::default()))),
    );
    let mut found = Vec::new();
    for one in offered {
        match chain.accept_blocks(NOW, &[one]).pop().unwrap() {
            Ok(outcome) => found.extend(outcome.rejected.into_iter().map(|(_, reject)| reject.reason)),
            Err(dunlin_chain::BlockError::Invalid(reject)) => found.push(reject.reason),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(found.first().unwrap(), "block-script-verify-flag-failed");
    let view = chain.view();
    assert_eq!(view.tip().hash, good.last().unwrap().place.hash);
    assert_eq!(view.entry(&bad.place.hash).unwrap().status, Status::Invalid);
    assert!(view.warning().unwrap().contains("block-script-verify-flag-failed"));
    assert_eq!(chain.summarize_coins().unwrap(), plain.summarize_coins().unwrap());
}

#[test]
fn without_anybody_who_tells_coins_the_ordinary_sync_takes_over() {
    let mut chain = begun_full(&HINTS);
    connect_with(&mut chain, 0..30);
    connect(&mut chain, &STORY[30..TARGET + 3]);
    assert_eq!(chain.view().tip().height, 0);
    chain.leave_swiftsync("nobody tells them").unwrap();
    assert_eq!(chain.view().spent_coins_wanted(), None);
    let outcome = chain.advance().unwrap();
    assert_eq!(outcome.changes.len(), TARGET + 3);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET + 3));
    assert_eq!(chain.view().warning(), None);
    // It does nothing where there is none.
    chain.leave_swiftsync("again").unwrap();
    assert_eq!(chain.view().tip().height, TARGET as u32 + 3);
}
