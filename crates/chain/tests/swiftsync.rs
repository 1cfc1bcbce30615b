//! SwiftSync: the coins are those of the ordinary sync, wrong hints leave no trace, and the power may go at any write.
#![allow(clippy::unwrap_used)]

mod regtest;
mod swift_story;

use bitcoin::OutPoint;
use dunlin_chain::swiftsync::{HintsWriter, SwiftProgress};
use dunlin_chain::{AssumeValid, BlockError, Chain, ChainChange, ChainConfig, ChainStore, Network, Params, StoreError};
use dunlin_store::CrashDisk;
use regtest::*;
use swift_story::*;

#[test]
fn hints_are_the_same_wherever_the_tip_is() {
    let made = hints_from(TARGET);
    assert_eq!(made, *HINTS);
    assert_eq!(hints_from(TARGET + 4), made);
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut chain, &STORY[..TARGET]);
    let frozen = chain.freeze_coins().unwrap();
    for height in [0, TARGET as u32 + 1] {
        let error = frozen.write_hints(height, Vec::new(), &mut |_, _| ()).unwrap_err();
        assert!(error.to_string().contains("from 1 to that of the tip, 112"), "{error}");
    }
}

#[test]
fn the_coins_are_those_of_the_ordinary_sync() {
    let mut chain = begun(&HINTS);
    let view = chain.view();
    let target = TARGET as u32;
    let at = |height| {
        let full = false;
        Some(SwiftProgress { height, target, full })
    };
    assert_eq!(view.swiftsync(), at(0));

    // Until the last block has come nothing can be seen, in whatever order the others do.
    for one in STORY[50..TARGET].iter().rev().chain(&STORY[..49]) {
        assert!(chain.accept_block(NOW, one.block.clone()).unwrap().changes.is_empty());
    }
    assert_eq!(view.tip().height, 0);
    assert_eq!(view.swiftsync(), at(49));
    assert_eq!(view.coin(&STORY[30].reward()).unwrap(), None);
    assert_eq!(chain.summarize_coins().unwrap().count, 0);
    let refused = view.load_snapshot(&b""[..], &mut |_, _| ());
    assert!(refused.is_err());

    let outcome = chain.accept_block(NOW, STORY[49].block.clone()).unwrap();
    let [ChainChange::Connected(block, height)] = &outcome.changes[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!((block.hash, *height), (STORY[TARGET - 1].place.hash, target));
    assert_eq!(view.tip().hash, block.hash);
    assert_eq!(view.swiftsync(), None);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));

    // And the chain goes on, across a restart too.
    connect(&mut chain, &STORY[TARGET..TARGET + 20]);
    assert_eq!(view.tip().height, target + 20);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET + 20));
    assert!(
        view.missing_blocks(5000, |_| false)
            .iter()
            .all(|(height, _)| *height > target + 20)
    );
}

#[test]
fn a_restart_goes_on_where_the_sync_was() {
    let store = ChainStore::in_memory();
    let mut chain = open(&store, config(&HINTS));
    headers(&mut chain, &STORY);
    connect(&mut chain, &STORY[..60]);
    chain.close().unwrap();
    let mut again = config(&HINTS);
    // The secret is the one that it began with.
    again.swiftsync.as_mut().unwrap().secret = [8; 32];
    let mut chain = open(&store, again);
    let target = TARGET as u32;
    let (height, full) = (60, false);
    assert_eq!(chain.view().swiftsync(), Some(SwiftProgress { height, target, full }));
    connect(&mut chain, &STORY[60..TARGET]);
    assert_eq!(chain.view().tip().height, target);
    chain.close().unwrap();
    // Afterwards the hints are not needed any more.
    for config in [config(&HINTS), ChainConfig::default()] {
        let mut chain = open(&store, config);
        assert_eq!(chain.view().tip().height, target);
        assert_eq!(chain.view().swiftsync(), None);
        assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
        chain.close().unwrap();
    }
}

#[test]
fn without_its_hints_or_with_others_a_sync_begins_anew() {
    for other in [None, Some(changed(110, |unspent| unspent.clear()))] {
        let store = ChainStore::in_memory();
        let mut chain = open(&store, config(&HINTS));
        headers(&mut chain, &STORY);
        connect(&mut chain, &STORY[..60]);
        chain.close().unwrap();
        let (config, tip) = match &other {
            Some(hints) => (config(hints), 0),
            None => (ChainConfig::default(), 60),
        };
        let mut chain = open(&store, config);
        assert_eq!(chain.view().tip().height, tip);
        connect(&mut chain, &STORY[60..TARGET]);
        assert_eq!(chain.view().tip().height, TARGET as u32);
        assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
        assert_eq!(chain.view().warning().is_some(), other.is_some());
    }
}

#[test]
fn wrong_hints_cost_time_and_nothing_else() {
    // Places 0 and 1 are of the coinbase; then come the outputs of the first transaction, of which the first is spent in
    // the same block.
    let also = |place: u32| {
        move |unspent: &mut Vec<u32>| {
            assert!(!unspent.contains(&place));
            unspent.push(place);
            unspent.sort_unstable();
        }
    };
    let wrong = [
        changed(105, also(2)),
        changed(105, |unspent| unspent.truncate(unspent.len() - 1)),
        changed(3, |unspent| unspent.push(500)),
        changed(111, |unspent| unspent.clear()),
    ];
    let want = coins_at(TARGET + 5);
    for hints in wrong {
        let store = ChainStore::in_memory();
        let mut chain = open(&store, config(&hints));
        headers(&mut chain, &STORY);
        connect(&mut chain, &STORY[..TARGET + 5]);
        let warning = chain.view().warning().unwrap();
        assert!(warning.starts_with("the hints for height 112 are wrong ("), "{warning}");
        assert_eq!(chain.view().swiftsync(), None);
        assert_eq!(chain.view().tip().height, TARGET as u32 + 5);
        assert_eq!(chain.summarize_coins().unwrap(), want);
        assert!(chain.view().undo(&STORY[104].place.hash).unwrap().is_some());
        chain.close().unwrap();
    }

    // What cannot be spent is never a coin, whatever the hints say of it.
    let mut chain = begun(&changed(105, also(1)));
    connect(&mut chain, &STORY[..TARGET + 5]);
    assert_eq!(chain.view().warning(), None);
    assert_eq!(chain.view().undo(&STORY[104].place.hash).unwrap(), None);
    assert_eq!(chain.summarize_coins().unwrap(), want);
}

#[test]
fn hints_that_were_wrong_are_not_tried_again() {
    let hints = changed(105, |unspent| unspent.clear());
    let disk = CrashDisk::new(1, None);
    let mut chain = open(&ChainStore::on_crash_disk(&disk), config(&hints));
    headers(&mut chain, &STORY);
    connect(&mut chain, &STORY[..TARGET]);
    assert!(chain.view().warning().is_some());
    drop(chain);
    // What was connected since was not flushed; the blocks are there.
    let found = disk.process_killed(None);
    let mut chain = open(&ChainStore::on_crash_disk(&found), config(&hints));
    assert_eq!(chain.view().swiftsync(), None);
    connect(&mut chain, &STORY[..TARGET]);
    assert_eq!(chain.summarize_coins().unwrap(), coins_at(TARGET));
    assert_eq!(chain.view().warning(), None);
}

#[test]
fn hints_that_cannot_be_used_are_put_aside() {
    // The block is not deep enough; there is none so high.
    for made in [&STORY[..TARGET + 100], &STORY[..TARGET - 10]] {
        let mut chain = open(&ChainStore::in_memory(), config(&HINTS));
        headers(&mut chain, made);
        let last = &made[made.len().saturating_sub(10)..];
        connect(&mut chain, &made[..made.len() - 10]);
        connect(&mut chain, last);
        assert_eq!(chain.view().swiftsync(), None);
        assert_eq!(chain.view().tip().hash, made.last().unwrap().place.hash);
        assert_eq!(chain.view().warning(), None);
    }
}

#[test]
fn blocks_that_break_rules_are_found_in_the_end() {
    // A coinbase takes too much; a coin is spent that never was; one is spent twice.
    let rewards = |made: &Made| made.reward();
    let start = blocks(genesis(), 1, 101);
    let at = start.last().unwrap().place;
    let greedy = block(at, 9, vec![], 1);
    let nowhere = OutPoint {
        txid: start[0].coinbase(),
        vout: 7,
    };
    let ghost = block(at, 9, vec![spend(&[nowhere], &[(1, open_script())])], 0);
    let twice = [rewards(&start[0]), rewards(&start[1])].map(|reward| {
        let once = spend(&[rewards(&start[0])], &[(1, open_script())]);
        [once, spend(&[reward], &[(2, open_script())])]
    });
    let double = block(at, 9, twice[0].to_vec(), 0);
    for (last, reason) in [
        (greedy, "bad-cb-amount"),
        (ghost, "bad-txns-inputs-missingorspent"),
        (double, "bad-txns-inputs-missingorspent"),
    ] {
        let mut made = start.clone();
        let above = blocks(last.place, 3, ABOVE);
        made.push(last);
        // What the maker of such blocks would hint: everything that is not spent.
        let spent: Vec<OutPoint> = made
            .iter()
            .flat_map(|one| one.block.transactions().skip(1).flat_map(|tx| tx.previous_outputs()))
            .collect();
        let mut writer = HintsWriter::new(Vec::new(), made.len() as u32).unwrap();
        for one in &made {
            let block = one.block.block();
            let outputs = block.txdata.iter().flat_map(|tx| {
                let txid = tx.compute_txid();
                (0u32..)
                    .zip(&tx.output)
                    .map(move |(vout, output)| (OutPoint { txid, vout }, output))
            });
            let unspent = (0u32..)
                .zip(outputs)
                .filter(|(_, (outpoint, output))| !output.script_pubkey.is_op_return() && !spent.contains(outpoint));
            writer
                .push(&unspent.map(|(place, _)| place).collect::<Vec<_>>())
                .unwrap();
        }
        let hints = writer.finish().unwrap();
        let assumed = above.last().unwrap().place.hash;
        let mut chain = open(
            &ChainStore::in_memory(),
            ChainConfig {
                assume_valid: AssumeValid::Block(assumed),
                ..config(&hints)
            },
        );
        headers(&mut chain, &made);
        headers(&mut chain, &above);
        let (last, first) = made.split_last().unwrap();
        connect(&mut chain, first);
        assert_eq!(chain.view().tip().height, 0);
        match chain.accept_block(NOW, last.block.clone()) {
            Err(BlockError::Invalid(reject)) => assert_eq!(reject.reason, reason),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(chain.view().tip().height, 101);
    }
}

#[test]
fn a_better_chain_of_headers_ends_it_and_a_better_chain_reorganises_below_the_hinted_block() {
    // While it is under way.
    let branch = blocks(STORY[TARGET - 3].place, 77, ABOVE + 10);
    let mut chain = begun(&HINTS);
    connect(&mut chain, &STORY[..TARGET - 1]);
    assert_eq!(chain.view().tip().height, 0);
    headers(&mut chain, &branch);
    connect(&mut chain, &branch[..1]);
    assert_eq!(chain.view().swiftsync(), None);
    assert_eq!(chain.view().tip().height, TARGET as u32 - 1);

    // After it, with undo records that have to be made first.
    let mut chain = begun(&HINTS);
    connect(&mut chain, &STORY[..TARGET + 3]);
    let fork = 105;
    let branch = blocks(STORY[fork - 1].place, 78, 20);
    assert_eq!(chain.view().undo(&STORY[fork].place.hash).unwrap(), None);
    connect(&mut chain, &branch);
    assert_eq!(chain.view().tip().hash, branch.last().unwrap().place.hash);
    let mut plain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut plain, &STORY[..fork]);
    connect(&mut plain, &branch);
    assert_eq!(chain.summarize_coins().unwrap(), plain.summarize_coins().unwrap());
}

#[test]
fn power_may_go_at_any_write() {
    let want = coins_at(TARGET + 10);
    let wrong = changed(108, |unspent| unspent.truncate(unspent.len() - 1));
    // Headers and the first blocks are there from the start, with a bit of the sync.
    for (hints, cache_bytes, assume_valid) in [
        (&*HINTS, usize::MAX, None),
        (&*HINTS, 2000, None),
        (&wrong, usize::MAX, None),
        (&*HINTS, usize::MAX, Some(AssumeValid::Never)),
        (&*HINTS, 2000, Some(AssumeValid::Never)),
        (&wrong, usize::MAX, Some(AssumeValid::Never)),
    ] {
        let prepared = CrashDisk::new(3, None);
        let mut config = config(hints);
        config.script_threads = 1;
        config.assume_valid = assume_valid.unwrap_or(config.assume_valid);
        let mut chain = open(&ChainStore::on_crash_disk(&prepared), config.clone());
        config.cache_bytes = cache_bytes;
        headers(&mut chain, &STORY);
        connect_with(&mut chain, 0..95);
        chain.close().unwrap();
        let mut stops = 0;
        for stop in 1.. {
            let disk = prepared.power_loss(Some(stop));
            let Err(StoreError::PowerLoss) = play(&disk, &config).map(drop) else {
                break;
            };
            stops = stop;
            for found in [disk.power_loss(None), disk.process_killed(None)] {
                let mut chain = play(&found, &config).unwrap();
                assert_eq!(chain.view().tip().height as usize, TARGET + 10, "operation {stop}");
                assert_eq!(chain.summarize_coins().unwrap(), want, "operation {stop}");
            }
        }
        assert!(stops > 20, "{stops}");
    }
}
