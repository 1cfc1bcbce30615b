//! The engine on regtest: order of arrival, reorganisations, faults, restarts.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Work};
use dunlin_chain::{
    AssumeValid, BlockError, BlockOutcome, Chain, ChainChange, ChainConfig, ChainStore, HeaderReject, Network,
    OpenError, Params, ParsedBlock, RejectKind, Status, StoreError,
};
use dunlin_store::CrashDisk;
use regtest::*;

fn chain() -> Chain {
    Chain::in_memory(Params::new(Network::Regtest)).unwrap()
}

fn give(chain: &mut Chain, made: &Made) -> BlockOutcome {
    chain.accept_block(NOW, Arc::clone(&made.block)).unwrap()
}

fn give_all(chain: &mut Chain, made: &[Made]) {
    for one in made {
        give(chain, one);
    }
}

fn refused(chain: &mut Chain, made: &Made) -> dunlin_chain::Reject {
    match chain.accept_block(NOW, Arc::clone(&made.block)) {
        Err(BlockError::Invalid(reject)) => reject,
        other => panic!("expected a reject, got {other:?}"),
    }
}

fn give_headers(chain: &mut Chain, made: &[Made]) -> Result<dunlin_chain::HeadersAccepted, HeaderReject> {
    let headers: Vec<_> = made.iter().map(|one| *one.block.header()).collect();
    chain.accept_headers(NOW, &headers)
}

fn steps(outcome: &BlockOutcome) -> Vec<(char, u32)> {
    outcome
        .changes
        .iter()
        .map(|change| match change {
            ChainChange::Disconnected(_, height) => ('-', *height),
            ChainChange::Connected(_, height) => ('+', *height),
        })
        .collect()
}

#[test]
fn blocks_are_connected_and_their_coins_can_be_read() {
    let mut chain = chain();
    let view = chain.view();
    let made = blocks(genesis(), 1, 101);
    for one in &made {
        let before = view.generation();
        let outcome = give(&mut chain, one);
        assert!(outcome.new && !outcome.more);
        assert_eq!(steps(&outcome), [('+', one.place.height)]);
        assert!(view.generation() > before);
    }
    assert_eq!(view.tip().hash, made[100].place.hash);
    assert_eq!(view.tip().status, Status::Valid);
    let coin = view.coin(&made[0].reward()).unwrap().unwrap();
    assert_eq!((coin.height, coin.coinbase, coin.output.value), (1, true, subsidy(1)));

    let tx = spend(
        &[made[0].reward()],
        &[(1000, open_script()), (0, bitcoin::ScriptBuf::from_bytes(vec![0x6a]))],
    );
    let txid = tx.compute_txid();
    let fees = subsidy(1).to_sat() - 1000;
    let last = block(made[100].place, 1, vec![tx], fees);
    give(&mut chain, &last);
    assert_eq!(view.coin(&made[0].reward()).unwrap(), None);
    assert!(view.coin(&OutPoint { txid, vout: 0 }).unwrap().is_some());
    assert_eq!(
        view.coin(&OutPoint { txid, vout: 1 }).unwrap(),
        None,
        "nobody can spend it, so it is not kept"
    );
    let coinbase = chain.params().genesis.txdata[0].compute_txid();
    assert_eq!(
        view.coin(&OutPoint {
            txid: coinbase,
            vout: 0
        })
        .unwrap(),
        None,
        "the first coinbase is no coin"
    );

    assert_eq!(view.block_bytes(&last.place.hash).unwrap().unwrap(), last.block.raw);
    assert!(view.block_bytes(&chain.params().genesis_hash).unwrap().is_some());
    let undo = view.undo(&last.place.hash).unwrap().unwrap();
    assert_eq!(undo.spent, [[coin]]);
    assert_eq!(view.entry(&last.place.hash).unwrap().tx_count, Some(2));
}

#[test]
fn a_block_is_taken_once() {
    let mut chain = chain();
    let made = blocks(genesis(), 1, 2);
    give_all(&mut chain, &made);
    let again = give(&mut chain, &made[0]);
    assert!(!again.new && again.changes.is_empty());
}

#[test]
fn blocks_may_come_in_any_order_once_their_headers_are_known() {
    let mut chain = chain();
    let view = chain.view();
    let made = blocks(genesis(), 1, 12);
    assert!(matches!(
        chain.accept_block(NOW, Arc::clone(&made[5].block)),
        Err(BlockError::MissingParent(hash)) if hash == made[4].place.hash
    ));
    let accepted = give_headers(&mut chain, &made).unwrap();
    assert_eq!((accepted.new, accepted.last), (12, made[11].place.hash));
    assert_eq!(view.best_header().height, 12);
    assert_eq!(view.tip().height, 0);
    assert_eq!(view.missing_blocks(100, |_| false).len(), 12);

    for index in [3, 11, 2, 7, 1, 5, 4] {
        assert!(give(&mut chain, &made[index]).changes.is_empty());
    }
    assert_eq!(view.entry(&made[3].place.hash).unwrap().status, Status::Stored);
    let missing = view.missing_blocks(100, |hash| *hash == made[6].place.hash);
    assert_eq!(
        missing.iter().map(|(height, _)| *height).collect::<Vec<_>>(),
        [1, 9, 10, 11]
    );
    assert_eq!(view.missing_blocks(2, |_| false).len(), 2);

    let heights = |outcome: &BlockOutcome| steps(outcome).iter().map(|(_, height)| *height).collect::<Vec<_>>();
    assert_eq!(heights(&give(&mut chain, &made[0])), [1, 2, 3, 4, 5, 6]);
    assert_eq!(heights(&give(&mut chain, &made[6])), [7, 8]);
    give_all(&mut chain, &made[8..11]);
    assert_eq!(view.tip().height, 12);
    assert!(view.missing_blocks(100, |_| false).is_empty());
}

#[test]
fn a_reorganisation_ten_deep_moves_the_coins() {
    let mut chain = chain();
    let view = chain.view();
    let trunk = blocks(genesis(), 1, 105);
    give_all(&mut chain, &trunk);
    let at = trunk[104].place;

    // The old branch spends a coin of the trunk and then the coin made of it.
    let first = spend(&[trunk[0].reward()], &[(5000, open_script())]);
    let middle = OutPoint {
        txid: first.compute_txid(),
        vout: 0,
    };
    let second = spend(&[middle], &[(4000, open_script())]);
    let last = OutPoint {
        txid: second.compute_txid(),
        vout: 0,
    };
    let mut old = vec![block(at, 2, vec![first], 0)];
    old.push(block(old[0].place, 2, vec![second], 0));
    old.extend(blocks(old[1].place, 2, 8));
    give_all(&mut chain, &old);
    assert!(view.coin(&last).unwrap().is_some());

    // The new branch spends another coin.
    let other = spend(&[trunk[1].reward()], &[(7000, open_script())]);
    let theirs = OutPoint {
        txid: other.compute_txid(),
        vout: 0,
    };
    let mut new = vec![block(at, 3, vec![other], 0)];
    new.extend(blocks(new[0].place, 3, 10));
    for one in &new[..10] {
        assert!(
            give(&mut chain, one).changes.is_empty(),
            "no branch is followed that has no more work"
        );
        assert_eq!(view.tip().hash, old[9].place.hash);
    }
    let outcome = give(&mut chain, &new[10]);
    let down = (106..=115).rev().map(|height| ('-', height));
    let up = (106..=116).map(|height| ('+', height));
    assert_eq!(steps(&outcome), down.chain(up).collect::<Vec<_>>());
    assert_eq!(view.tip().hash, new[10].place.hash);
    assert_eq!(view.coin(&last).unwrap(), None);
    assert_eq!(view.coin(&middle).unwrap(), None);
    assert!(view.coin(&trunk[0].reward()).unwrap().is_some());
    assert_eq!(view.coin(&trunk[1].reward()).unwrap(), None);
    assert!(view.coin(&theirs).unwrap().is_some());
    assert!(!view.contains_in_active(&old[0].place.hash));
    assert_eq!(view.fork_point(&old[9].place.hash).unwrap().hash, at.hash);

    // A chain that never saw the old branch has the same coins.
    let mut straight = self::chain();
    give_all(&mut straight, &trunk);
    give_all(&mut straight, &new);
    assert_eq!(chain.summarize_coins().unwrap(), straight.summarize_coins().unwrap());

    // And back again.
    give_all(&mut chain, &blocks(old[9].place, 2, 2));
    assert_eq!(view.tip().height, 117);
    assert!(view.coin(&last).unwrap().is_some());
}

#[test]
fn a_longer_branch_with_an_invalid_block_leaves_no_trace() {
    let mut chain = chain();
    let view = chain.view();
    let trunk = blocks(genesis(), 1, 5);
    give_all(&mut chain, &trunk);
    let old = blocks(trunk[4].place, 2, 3);
    give_all(&mut chain, &old);
    let before = chain.summarize_coins().unwrap();

    let mut new = blocks(trunk[4].place, 3, 2);
    let mut greedy = draft(new[1].place, 3, Vec::new(), 0);
    greedy.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
    new.push(finish(greedy, 8));
    new.extend(blocks(new[2].place, 3, 3));
    give_headers(&mut chain, &new).unwrap();
    assert_eq!(view.best_header().height, 11);
    for index in [5, 4, 3, 2, 1] {
        assert!(give(&mut chain, &new[index]).changes.is_empty());
    }
    // The first block of the branch is innocent: it is taken, and the guilty one is named.
    let outcome = give(&mut chain, &new[0]);
    assert!(outcome.new && outcome.changes.is_empty());
    assert_eq!(outcome.rejected.len(), 1);
    assert_eq!(
        (outcome.rejected[0].0, &*outcome.rejected[0].1.reason),
        (new[2].place.hash, "bad-cb-amount")
    );
    assert_eq!(view.tip().hash, old[2].place.hash);
    assert_eq!(chain.summarize_coins().unwrap(), before);
    assert_eq!(view.entry(&new[5].place.hash).unwrap().status, Status::Invalid);
    assert_eq!(view.entry(&new[1].place.hash).unwrap().status, Status::Stored);
    assert_eq!(view.best_header().hash, old[2].place.hash);
    assert!(view.missing_blocks(10, |_| false).is_empty());

    // What is built on it is refused, by name.
    let child = block(new[5].place, 3, Vec::new(), 0);
    match give_headers(&mut chain, std::slice::from_ref(&child)) {
        Err(HeaderReject::Invalid { index: 0, reject, .. }) => assert_eq!(reject.reason, "bad-prevblk"),
        other => panic!("{other:?}"),
    }
    assert_eq!(refused(&mut chain, &new[2]).reason, "duplicate-invalid");
    give(&mut chain, &block(old[2].place, 2, Vec::new(), 0));
    assert_eq!(view.tip().height, 9);
}

#[test]
fn blocks_that_break_a_rule_of_coins_are_refused_with_its_name() {
    let mut chain = chain();
    let trunk = blocks(genesis(), 1, 102);
    give_all(&mut chain, &trunk);
    let at = trunk[101].place;
    let coin = trunk[0].reward();
    let worth = subsidy(1).to_sat();

    let twice = |value| spend(&[coin], &[(value, open_script())]);
    let cases = [
        (
            vec![spend(&[trunk[20].reward()], &[(1, open_script())])],
            0,
            "bad-txns-premature-spend-of-coinbase",
        ),
        (vec![twice(1), twice(2)], 0, "bad-txns-inputs-missingorspent"),
        (
            vec![spend(
                &[OutPoint {
                    txid: trunk[0].coinbase(),
                    vout: 9,
                }],
                &[(1, open_script())],
            )],
            0,
            "bad-txns-inputs-missingorspent",
        ),
        (vec![twice(worth + 1)], 0, "bad-txns-in-belowout"),
        (vec![twice(worth - 10)], 11, "bad-cb-amount"),
    ];
    for (txs, fees, want) in cases {
        let bad = block(at, 9, txs, fees);
        assert_eq!(refused(&mut chain, &bad).reason, want);
        assert_eq!(chain.view().entry(&bad.place.hash).unwrap().status, Status::Invalid);
    }

    // A script that is not satisfied.
    let lock = spend(&[coin], &[(worth, closed_script())]);
    let locked = OutPoint {
        txid: lock.compute_txid(),
        vout: 0,
    };
    let next = block(at, 1, vec![lock], 0);
    give(&mut chain, &next);
    let bad = block(next.place, 1, vec![spend(&[locked], &[(worth, open_script())])], 0);
    let reject = refused(&mut chain, &bad);
    assert!(reject.reason.contains("script-verify-flag-failed"), "{reject}");
    assert_eq!(chain.view().tip().hash, next.place.hash);
}

#[test]
fn many_inputs_are_checked_by_many_threads_with_one_answer() {
    for threads in [1, 2, 5] {
        let config = ChainConfig {
            script_threads: threads,
            ..ChainConfig::default()
        };
        let mut chain = Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap();
        let trunk = blocks(genesis(), 1, 101);
        give_all(&mut chain, &trunk);
        let outputs: Vec<_> = (0..200u64)
            .map(|n| (n, if n % 50 == 49 { closed_script() } else { open_script() }))
            .collect();
        let split = spend(&[trunk[0].reward()], &outputs);
        let txid = split.compute_txid();
        let first = block(trunk[100].place, 1, vec![split], 0);
        give(&mut chain, &first);
        let each: Vec<_> = (0..200)
            .map(|vout| spend(&[OutPoint { txid, vout }], &[(0, open_script())]))
            .collect();
        let first_bad = each[49].compute_txid().to_string();
        let reject = refused(&mut chain, &block(first.place, 1, each.clone(), 0));
        assert!(reject.detail.contains(&first_bad), "{threads} threads: {reject}");
        let good = each
            .into_iter()
            .enumerate()
            .filter(|(n, _)| n % 50 != 49)
            .map(|(_, tx)| tx)
            .collect();
        give(&mut chain, &block(first.place, 2, good, 0));
    }
}

#[test]
fn a_swapped_body_does_not_condemn_its_header() {
    let mut chain = chain();
    let trunk = blocks(genesis(), 1, 102);
    give_all(&mut chain, &trunk);
    // With three transactions the last can be repeated without a change of the merkle root.
    let txs = [0, 1].map(|n: usize| spend(&[trunk[n].reward()], &[(5, open_script())]));
    let honest = block(trunk[101].place, 1, txs.to_vec(), 0);

    let mut swapped = honest.block.block().clone();
    swapped.txdata.pop();
    let mut doubled = honest.block.block().clone();
    doubled.txdata.push(doubled.txdata[2].clone());
    let mut spoiled = honest.block.block().clone();
    spoiled.txdata[0].input[0].witness = bitcoin::Witness::from_slice(&[[1u8; 32]]);
    for (body, want) in [
        (swapped, "bad-txnmrklroot"),
        (doubled, "bad-txns-duplicate"),
        (spoiled, "bad-witness-merkle-match"),
    ] {
        match chain.accept_block(NOW, ParsedBlock::from_block(body)) {
            Err(BlockError::Invalid(reject)) => {
                assert_eq!((&*reject.reason, reject.kind), (want, RejectKind::Mutated));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(steps(&give(&mut chain, &honest)), [('+', 103)]);
}

#[test]
fn the_first_seen_of_equal_branches_stays_also_after_a_restart() {
    let disk = CrashDisk::new(1, None);
    let open = || {
        let store = ChainStore::on_crash_disk(&disk);
        Chain::open(Params::new(Network::Regtest), store, ChainConfig::default()).unwrap()
    };
    for salt in 0..6 {
        let mut chain = open();
        let at = chain.view().tip();
        let on = Place {
            hash: at.hash,
            height: at.height,
            time: at.header.time,
        };
        let (first, second) = (
            block(on, 100 + salt, Vec::new(), 0),
            block(on, 200 + salt, Vec::new(), 0),
        );
        give(&mut chain, &first);
        assert!(give(&mut chain, &second).changes.is_empty());
        assert_eq!(chain.view().tip().hash, first.place.hash);
        drop(chain);
        assert_eq!(open().view().tip().hash, first.place.hash);
    }
}

#[test]
fn headers_are_checked_in_their_context() {
    let mut chain = chain();
    let made = blocks(genesis(), 1, 3);
    assert!(
        matches!(give_headers(&mut chain, &made[1..]), Err(HeaderReject::Orphan(hash)) if hash == made[0].place.hash)
    );
    let gap = [made[0].clone(), made[2].clone()];
    assert!(matches!(
        give_headers(&mut chain, &gap),
        Err(HeaderReject::NotContinuous { index: 1 })
    ));
    assert_eq!(chain.accept_headers(NOW, &[]).unwrap().new, 0);

    let mut late = draft(made[0].place, 1, Vec::new(), 0);
    late.header.time = u32::try_from(NOW).unwrap() + 2 * 60 * 60 + 1;
    let late = seal(late, 2);
    match give_headers(&mut chain, &[made[0].clone(), late]) {
        Err(HeaderReject::Invalid { index: 1, reject, .. }) => {
            assert_eq!((&*reject.reason, reject.kind), ("time-too-new", RejectKind::TimeFuture));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.view().best_header().height, 1, "the header before it stays");

    let mut unsolved = *made[1].block.header();
    while unsolved.target().is_met_by(unsolved.block_hash()) {
        unsolved.nonce += 1;
    }
    match chain.accept_headers(NOW, &[unsolved]) {
        Err(HeaderReject::Invalid { reject, .. }) => assert_eq!(reject.reason, "high-hash"),
        other => panic!("{other:?}"),
    }
    assert_eq!(give_headers(&mut chain, &made).unwrap().new, 2);
}

#[test]
fn a_flood_of_headers_with_little_work_is_refused() {
    let mut params = Params::new(Network::Regtest);
    // Two hashes for each block.
    let mut minimum = [0; 32];
    minimum[31] = 100;
    params.minimum_chain_work = Work::from_be_bytes(minimum);
    let mut chain = Chain::open(params, ChainStore::in_memory(), ChainConfig::default()).unwrap();
    let flood = blocks(genesis(), 7, 40);
    give_headers(&mut chain, &flood[..20]).unwrap();
    let main = blocks(genesis(), 1, 300);
    give_headers(&mut chain, &main).unwrap();
    let known = chain.view().header_count();
    assert!(matches!(
        give_headers(&mut chain, &flood[20..]),
        Err(HeaderReject::LowWork)
    ));
    // A known header at the front does not help, and a block is no way around.
    let mut from_genesis = vec![chain.params().genesis.header];
    from_genesis.extend(flood.iter().map(|made| *made.block.header()));
    assert!(matches!(
        chain.accept_headers(NOW, &from_genesis),
        Err(HeaderReject::LowWork)
    ));
    assert_eq!(refused(&mut chain, &flood[20]).reason, "too-little-chainwork");
    assert_eq!(chain.view().header_count(), known);
    give_headers(&mut chain, &flood[..20]).unwrap();
    give_headers(&mut chain, &blocks(main[200].place, 8, 10)).unwrap();
}

#[test]
fn without_a_minimum_of_work_the_number_of_headers_off_the_best_chain_is_bounded() {
    let mut chain = chain();
    let main = blocks(genesis(), 1, 30);
    give_headers(&mut chain, &main).unwrap();
    // Siblings: as many first blocks as one likes.
    let mut header = *main[0].block.header();
    let mut taken = 0;
    let refusal = loop {
        header.nonce += 1;
        if header.validate_pow(header.target()).is_err() {
            continue;
        }
        match chain.accept_headers(NOW, &[header]) {
            Ok(accepted) => taken += accepted.new,
            Err(reject) => break reject,
        }
    };
    assert!(matches!(refusal, HeaderReject::LowWork));
    assert_eq!(taken, 100_000);
    assert_eq!(chain.view().header_count(), 1 + 30 + taken);
    // The best chain grows as before, and a branch with as much work comes in.
    give_headers(&mut chain, &blocks(main[29].place, 2, 5)).unwrap();
    assert!(matches!(
        give_headers(&mut chain, &blocks(main[9].place, 3, 10)),
        Err(HeaderReject::LowWork)
    ));
    give_headers(&mut chain, &blocks(main[9].place, 3, 25)).unwrap();
}

#[test]
fn locators_and_headers_lead_a_peer_along_the_active_chain() {
    let mut chain = chain();
    let view = chain.view();
    let made = blocks(genesis(), 1, 60);
    give_all(&mut chain, &made);
    let side = blocks(made[49].place, 2, 5);
    give_all(&mut chain, &side);
    let tip = made[59].place.hash;
    let locator = view.locator(None);
    assert_eq!(locator[0], tip);
    assert_eq!(
        locator[..10],
        made[50..].iter().rev().map(|one| one.place.hash).collect::<Vec<_>>()
    );
    assert_eq!(*locator.last().unwrap(), genesis().hash);
    assert!(locator.len() < 20);

    let none = "0000000000000000000000000000000000000000000000000000000000000000"
        .parse::<BlockHash>()
        .unwrap();
    let hashes = |headers: Vec<bitcoin::block::Header>| headers.iter().map(|one| one.block_hash()).collect::<Vec<_>>();
    let after = |locator: &[BlockHash], stop, max| hashes(view.headers_after(locator, stop, max));
    let all: Vec<_> = made.iter().map(|one| one.place.hash).collect();
    assert_eq!(after(&[], none, 2000), all);
    assert_eq!(after(&locator, none, 2000), []);
    assert_eq!(after(&[none, side[4].place.hash, all[9]], none, 5), all[10..15]);
    assert_eq!(after(&view.locator(Some(side[4].place.hash)), none, 2000), all[50..]);
    assert_eq!(after(&[all[9]], all[12], 2000), all[10..13]);
    assert_eq!(view.ancestor(&side[4].place.hash, 50), Some(all[49]));
    assert_eq!(view.ancestor(&side[4].place.hash, 51), Some(side[0].place.hash));
    assert_eq!(view.ancestor(&side[4].place.hash, 56), None);
}

#[test]
fn missing_blocks_are_listed_however_far_the_headers_are_ahead() {
    let made = blocks(genesis(), 1, 1300);
    let mut chain = chain();
    give_headers(&mut chain, &made).unwrap();
    give_all(&mut chain, &made[..2]);
    let heights = |max, low| -> Vec<u32> {
        let view = chain.view();
        // What is skipped may be asked of the same view.
        let missing = view.missing_blocks(max, |hash| view.entry(hash).unwrap().height < low);
        missing.into_iter().map(|(height, _)| height).collect()
    };
    assert_eq!(heights(5000, 0), (3..=1300).collect::<Vec<_>>());
    assert_eq!(heights(600, 650), (650..1250).collect::<Vec<_>>());
    assert_eq!(heights(3, 1300), [1300]);
    assert_eq!(heights(3, 1301), [0; 0]);
}

#[test]
fn the_first_download_ends_once_and_for_all() {
    let mut chain = chain();
    let view = chain.view();
    give_all(&mut chain, &blocks(genesis(), 1, 2));
    let day = 24 * 60 * 60;
    let tip = u64::from(view.tip().header.time);
    assert!(view.is_initial_download(tip + day + 1));
    assert!(!view.is_initial_download(tip + day));
    assert!(!view.is_initial_download(tip + 100 * day));
}

#[test]
fn a_directory_of_an_earlier_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("index")).unwrap();
    let opened = Chain::open_dir(Params::new(Network::Regtest), dir.path(), ChainConfig::default());
    let Err(error @ OpenError::WrongLayout { .. }) = opened else {
        panic!("it was opened");
    };
    assert_eq!(
        error.to_string(),
        "the data directory has layout 2, this version knows 3: choose another, or delete this one and fetch the chain \
         again"
    );
    assert!(!dir.path().join("blocks").exists(), "it was touched");
}

#[test]
fn a_chain_in_a_directory_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = |network| Chain::open_dir(Params::new(network), dir.path(), ChainConfig::default());
    let made = blocks(genesis(), 1, 110);
    let mut chain = open(Network::Regtest).unwrap();
    give_all(&mut chain, &made[..105]);
    let want = chain.summarize_coins().unwrap();
    assert!(matches!(
        open(Network::Regtest),
        Err(OpenError::Store(StoreError::InUse { .. }))
    ));
    chain.close().unwrap();

    let mut chain = open(Network::Regtest).unwrap();
    assert_eq!(chain.summarize_coins().unwrap(), want);
    // Without a flush: what is not in the table is connected again from the block files.
    give_all(&mut chain, &made[105..]);
    drop(chain);
    let mut chain = open(Network::Regtest).unwrap();
    assert_eq!(chain.view().tip().hash, made[109].place.hash);
    let mut fresh = self::chain();
    give_all(&mut fresh, &made);
    assert_eq!(chain.summarize_coins().unwrap(), fresh.summarize_coins().unwrap());
    drop(chain);

    match open(Network::Signet) {
        Err(error @ OpenError::WrongNetwork { .. }) => {
            assert_eq!(
                error.to_string(),
                "the data directory holds the regtest chain, not signet"
            );
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_small_cache_is_flushed_and_changes_nothing() {
    let config = ChainConfig {
        cache_bytes: 1000,
        ..ChainConfig::default()
    };
    let mut small = Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap();
    let mut large = chain();
    let trunk = blocks(genesis(), 1, 130);
    let mut at = trunk[129].place;
    let mut made = trunk.clone();
    for one in &trunk[..25] {
        let tx = spend(&[one.reward()], &[(1, open_script()), (2, open_script())]);
        let next = spend(
            &[OutPoint {
                txid: tx.compute_txid(),
                vout: 1,
            }],
            &[(2, open_script())],
        );
        made.push(block(at, 1, vec![tx, next], 0));
        at = made.last().unwrap().place;
    }
    give_all(&mut small, &made);
    give_all(&mut large, &made);
    assert_eq!(small.summarize_coins().unwrap(), large.summarize_coins().unwrap());
}

#[test]
fn a_damaged_block_is_named_fetched_again_and_served_again() {
    let disk = CrashDisk::new(1, None);
    let store = ChainStore::on_crash_disk(&disk);
    let mut chain = Chain::open(Params::new(Network::Regtest), store, ChainConfig::default()).unwrap();
    let view = chain.view();
    let made = blocks(genesis(), 1, 5);
    give_all(&mut chain, &made);
    let hash = made[2].place.hash;
    // Somewhere in the third of five blocks of about equal length.
    let len = dunlin_store::Files::len(&disk.files(), "blk00000.dat")
        .unwrap()
        .unwrap();
    disk.flip_bit("blk00000.dat", usize::try_from(len / 2 + 60).unwrap())
        .unwrap();
    let error = view.block_bytes(&hash).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert!(error.to_string().contains("blk00000.dat"), "{error}");

    chain.mark_lost(&hash).unwrap();
    assert_eq!(view.missing_blocks(10, |_| false), [(3, hash)]);
    assert_eq!(view.tip().height, 5, "the chain stays connected");
    assert_eq!(view.block_bytes(&hash).unwrap(), None);
    drop(chain);
    let store = ChainStore::on_crash_disk(&disk);
    let mut chain = Chain::open(Params::new(Network::Regtest), store, ChainConfig::default()).unwrap();
    let view = chain.view();
    assert_eq!(view.missing_blocks(10, |_| false)[0], (3, hash));
    assert!(give(&mut chain, &made[2]).new);
    assert_eq!(view.block_bytes(&hash).unwrap().unwrap(), made[2].block.raw);
    assert!(view.missing_blocks(10, |_| false).is_empty());
    give_all(&mut chain, &made);
    assert_eq!(view.tip().height, 5);
}

#[test]
fn a_damaged_block_of_a_waiting_branch_is_fetched_again() {
    let disk = CrashDisk::new(1, None);
    let open = || {
        let store = ChainStore::on_crash_disk(&disk);
        Chain::open(Params::new(Network::Regtest), store, ChainConfig::default()).unwrap()
    };
    let made = blocks(genesis(), 1, 4);
    let mut chain = open();
    give_headers(&mut chain, &made).unwrap();
    give_all(&mut chain, &[made[3].clone(), made[2].clone(), made[1].clone()]);
    drop(chain);
    let len = dunlin_store::Files::len(&disk.files(), "blk00000.dat")
        .unwrap()
        .unwrap();
    // Height 3 was written as the second of the three.
    disk.flip_bit("blk00000.dat", usize::try_from(len - 380).unwrap())
        .unwrap();
    let mut chain = open();
    let view = chain.view();
    give(&mut chain, &made[0]);
    assert_eq!(view.tip().height, 2);
    assert_eq!(view.missing_blocks(9, |_| false), [(3, made[2].place.hash)]);
    give(&mut chain, &made[2]);
    assert_eq!(view.tip().height, 4);
}

#[test]
fn scripts_below_an_assumed_valid_block_are_not_checked_once_they_are_buried() {
    let trunk = blocks(genesis(), 1, 101);
    let lock = spend(&[trunk[0].reward()], &[(9, closed_script())]);
    let locked = OutPoint {
        txid: lock.compute_txid(),
        vout: 0,
    };
    let mut made = trunk.clone();
    made.push(block(trunk[100].place, 1, vec![lock], 0));
    made.push(block(
        made[101].place,
        1,
        vec![spend(&[locked], &[(9, open_script())])],
        0,
    ));
    made.extend(blocks(made[102].place, 1, 2100));
    let bad = &made[102];

    let run = |assume_valid, headers: &[Made]| {
        let config = ChainConfig {
            assume_valid,
            ..ChainConfig::default()
        };
        let mut chain = Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap();
        give_headers(&mut chain, headers).unwrap();
        give_all(&mut chain, &made[..102]);
        chain.accept_block(NOW, Arc::clone(&bad.block)).is_ok()
    };
    let assumed = AssumeValid::Block(made[200].place.hash);
    assert!(run(assumed, &made));
    assert!(!run(AssumeValid::Never, &made));
    assert!(!run(AssumeValid::Pinned, &made), "regtest has no pinned block");
    assert!(!run(assumed, &made[..1000]), "not buried deep enough");
    assert!(
        !run(AssumeValid::Block(made[100].place.hash), &made),
        "above the assumed block"
    );
    let other = blocks(trunk[100].place, 5, 2);
    assert!(!run(AssumeValid::Block(other[1].place.hash), &made), "not known");
}
