//! Snapshots: written and loaded, validated in the background, refuted, and interrupted at every write.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::io::Cursor;

use bitcoin::hashes::{Hash, sha256d};
use dunlin_chain::snapshot::{AssumeUtxo, Dumped, SnapshotError};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, OpenError, Params, StoreError};
use dunlin_store::CrashDisk;
use regtest::*;

/// The base's height: blocks behind it are for the chain to go on with.
const BASE: usize = 108;

/// 112 blocks; some coins are spent below the base, some above it, some in the block that creates them.
fn story() -> Vec<Made> {
    let mut made = blocks(genesis(), 1, 101);
    for number in 0..11usize {
        let at = made.last().unwrap().place;
        let first = spend(
            &[made[number / 2 * 2 % 4 + number / 4 * 4].reward()],
            &[
                (1_000 + number as u64, open_script()),
                (7_000_000, closed_script()),
                (0, open_script()),
            ],
        );
        // Odd blocks would spend the same reward again: they spend an output of the block before.
        let tx = if number % 2 == 0 {
            first
        } else {
            let before = made.last().unwrap().block.txids[1];
            spend(&[bitcoin::OutPoint { txid: before, vout: 0 }], &[(900, open_script())])
        };
        let child = spend(
            &[bitcoin::OutPoint {
                txid: tx.compute_txid(),
                vout: 0,
            }],
            &[(500, closed_script()), (1, open_script())],
        );
        let txs = if number % 2 == 0 { vec![tx] } else { vec![tx, child] };
        made.push(block(at, 5, txs, 0));
    }
    made
}

fn connect(chain: &mut Chain, made: &[Made]) {
    for one in made {
        chain.accept_block(NOW, one.block.clone()).unwrap();
    }
}

fn headers(chain: &mut Chain, made: &[Made]) {
    let headers: Vec<_> = made.iter().map(|one| *one.block.header()).collect();
    chain.accept_headers(NOW, &headers).unwrap();
}

fn dump(chain: &mut Chain, made: &[Made], height: usize) -> (Vec<u8>, Dumped) {
    let mut file = Cursor::new(Vec::new());
    let frozen = chain.freeze_coins().unwrap();
    let dumped = frozen
        .write_snapshot(&made[height - 1].place.hash, &mut file, &mut |_| ())
        .unwrap();
    (file.into_inner(), dumped)
}

fn pin(dumped: &Dumped) -> AssumeUtxo {
    AssumeUtxo {
        height: dumped.base.height,
        block: dumped.base.hash,
        coins_hash: dumped.coins_hash,
        chain_tx_count: dumped.chain_tx_count,
    }
}

fn believing(pinned: AssumeUtxo) -> ChainConfig {
    ChainConfig {
        assume_utxo: vec![pinned],
        ..ChainConfig::default()
    }
}

fn open(store: ChainStore, pinned: AssumeUtxo) -> Result<Chain, OpenError> {
    Chain::open(Params::new(Network::Regtest), store, believing(pinned))
}

fn load(chain: &mut Chain, file: &[u8]) -> Result<(), SnapshotError> {
    let loaded = chain.view().load_snapshot(file, &mut |_, _| ())?;
    chain.activate_snapshot(&loaded)
}

/// Advances until nothing is left to do; what refuted the snapshot, if anything did.
fn advance(chain: &mut Chain) -> Option<String> {
    loop {
        let outcome = chain.advance().unwrap();
        if outcome.refuted.is_some() {
            return outcome.refuted;
        }
        if !outcome.more && !outcome.background {
            return None;
        }
    }
}

/// A chain of the whole story, what it dumps at the base, and the story.
fn source() -> (Chain, Vec<Made>, Vec<u8>, Dumped) {
    let made = story();
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut chain, &made);
    let (file, dumped) = dump(&mut chain, &made, BASE);
    (chain, made, file, dumped)
}

#[test]
fn an_earlier_state_is_written_as_it_was() {
    let (mut full, made, file, dumped) = source();
    let mut short = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut short, &made[..BASE]);
    let (then, dumped_then) = dump(&mut short, &made, BASE);
    assert_eq!(file, then);
    assert_eq!(dumped, dumped_then);
    let summary = short.summarize_coins().unwrap();
    assert_eq!(
        (dumped.coins, dumped.coins_hash),
        (summary.count, sha256d::Hash::from_byte_array(summary.hash))
    );
    let txs: usize = made[..BASE].iter().map(|one| one.block.txids.len()).sum();
    assert_eq!(dumped.chain_tx_count, txs as u64 + 1);
    for height in [1, 101, 103, made.len()] {
        let mut short = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
        connect(&mut short, &made[..height]);
        assert_eq!(
            dump(&mut full, &made, height),
            dump(&mut short, &made, height),
            "{height}"
        );
    }
}

#[test]
fn the_chain_goes_on_from_a_snapshot_while_the_blocks_below_are_validated() {
    let (mut full, made, file, dumped) = source();
    let store = ChainStore::in_memory();
    let mut chain = open(store.clone(), pin(&dumped)).unwrap();
    connect(&mut chain, &made[..5]);
    headers(&mut chain, &made);
    load(&mut chain, &file).unwrap();
    let view = chain.view();
    assert_eq!(view.tip().height, BASE as u32);
    assert!(view.coin(&made[BASE - 1].reward()).unwrap().is_some());
    let progress = view.snapshot().unwrap();
    assert_eq!((progress.base.height, progress.reached.height), (BASE as u32, 5));

    // The blocks behind the base come first, then those below it.
    let heights = |missing: Vec<(u32, _)>| missing.into_iter().map(|(height, _)| height).collect::<Vec<_>>();
    assert_eq!(
        heights(view.missing_blocks(1000, |_| false)),
        (109..=112).collect::<Vec<_>>()
    );
    assert_eq!(
        heights(view.missing_history(1000, |_| false)),
        (6..=108).collect::<Vec<_>>()
    );
    connect(&mut chain, &made[BASE..]);
    assert_eq!(view.tip().hash, made.last().unwrap().place.hash);
    assert!(view.missing_blocks(1000, |_| false).is_empty());
    assert_eq!(chain.summarize_coins().unwrap(), full.summarize_coins().unwrap());

    // Half of the rest, in another order, with a restart between.
    for one in made[5..60].iter().rev() {
        chain.accept_block(NOW, one.block.clone()).unwrap();
    }
    assert_eq!(advance(&mut chain), None);
    assert_eq!(view.snapshot().unwrap().reached.height, 60);
    chain.close().unwrap();
    let mut chain = open(store.clone(), pin(&dumped)).unwrap();
    let view = chain.view();
    assert_eq!(view.tip().height, 112);
    assert_eq!(view.snapshot().unwrap().reached.height, 60);
    connect(&mut chain, &made[60..BASE]);
    assert_eq!(advance(&mut chain), None);
    assert_eq!(view.snapshot(), None);
    assert!(view.missing_history(1000, |_| false).is_empty());
    assert_eq!(chain.summarize_coins().unwrap(), full.summarize_coins().unwrap());
    for one in &made {
        assert_eq!(
            view.undo(&one.place.hash).unwrap(),
            full.view().undo(&one.place.hash).unwrap()
        );
    }
    chain.close().unwrap();
    let mut chain = open(store, pin(&dumped)).unwrap();
    assert_eq!(chain.view().snapshot(), None);
    assert_eq!(chain.summarize_coins().unwrap(), full.summarize_coins().unwrap());
    // And it can reorganise below the base now.
    let branch = blocks(made[99].place, 77, 20);
    connect(&mut chain, &branch);
    assert_eq!(chain.view().tip().hash, branch.last().unwrap().place.hash);
}

#[test]
fn files_that_are_not_the_pinned_ones_are_refused_and_leave_nothing() {
    let (mut full, made, file, dumped) = source();
    let mut chain = open(ChainStore::in_memory(), pin(&dumped)).unwrap();
    let refused = |chain: &mut Chain, file: &[u8]| load(chain, file).unwrap_err().to_string();
    assert!(refused(&mut chain, &file).contains("must appear in the headers chain"));
    headers(&mut chain, &made);
    connect(&mut chain, &made[..5]);
    let before = chain.summarize_coins().unwrap();
    for len in [0, 50, 51, 60, file.len() / 2, file.len() - 1] {
        assert!(!refused(&mut chain, &file[..len]).is_empty());
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(refused(&mut chain, &longer).contains("left over"));
    for at in (51..file.len()).step_by(97) {
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        let text = refused(&mut chain, &flipped);
        assert!(text.contains("Bad snapshot"), "{at}: {text}");
    }
    let (other, _) = dump(&mut full, &made, BASE + 1);
    let text = refused(&mut chain, &other);
    assert!(
        text.contains("not recognized") && text.contains("available: 110, 200, 299, 108"),
        "{text}"
    );
    assert_eq!(chain.summarize_coins().unwrap(), before);
    assert_eq!(chain.view().snapshot_loading(), None);
    load(&mut chain, &file).unwrap();
    assert!(refused(&mut chain, &file).contains("more than once"));
    let mut ahead = Chain::open(
        Params::new(Network::Regtest),
        ChainStore::in_memory(),
        believing(pin(&dumped)),
    )
    .unwrap();
    connect(&mut ahead, &made);
    assert!(refused(&mut ahead, &file).contains("Work does not exceed"));
}

/// A snapshot with one amount changed, and a pin that believes it.
fn forged() -> (Vec<Made>, Vec<u8>, AssumeUtxo) {
    let (_, made, file, dumped) = source();
    // The reward of block 107 in its short form: 50 coins.
    let txid = bitcoin::consensus::serialize(&made[106].coinbase());
    let at = file.windows(32).position(|bytes| bytes == txid).unwrap();
    let value = at + 32 + 1 + 1 + 2;
    let mut file = file;
    assert_eq!(file[value], 0x32);
    file[value] = 0x33;
    let mut pinned = pin(&dumped);
    pinned.coins_hash = sha256d::Hash::all_zeros();
    let mut chain = open(ChainStore::in_memory(), pinned).unwrap();
    headers(&mut chain, &made);
    let text = load(&mut chain, &file).unwrap_err().to_string();
    pinned.coins_hash = text.rsplit(' ').next().unwrap().parse().unwrap();
    (made, file, pinned)
}

#[test]
fn a_wrong_snapshot_is_found_out_and_the_validated_chain_is_back() {
    let (made, file, pinned) = forged();
    let store = ChainStore::in_memory();
    let mut chain = open(store.clone(), pinned).unwrap();
    headers(&mut chain, &made);
    load(&mut chain, &file).unwrap();
    connect(&mut chain, &made[BASE..]);
    connect(&mut chain, &made[..BASE]);
    let text = advance(&mut chain).unwrap();
    assert!(text.contains("the snapshot is wrong"), "{text}");
    assert_eq!(chain.view().snapshot(), None);
    drop(chain);
    let mut chain = open(store, pinned).unwrap();
    let mut full = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut full, &made);
    assert_eq!(chain.summarize_coins().unwrap(), full.summarize_coins().unwrap());
}

#[test]
fn a_snapshot_of_an_invalid_chain_is_found_out() {
    let mut made = story();
    made.truncate(BASE - 1);
    // The base takes a satoshi too much, which only the background validation sees.
    let at = made.last().unwrap().place;
    let mut draft = draft(at, 9, Vec::new(), 0);
    draft.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
    made.push(finish(draft, at.height + 1));
    let (_, _, file, dumped) = source();
    let mut file = file;
    file[11..43].copy_from_slice(made[BASE - 1].place.hash.as_ref());
    let pinned = AssumeUtxo {
        block: made[BASE - 1].place.hash,
        ..pin(&dumped)
    };
    let store = ChainStore::in_memory();
    let mut chain = open(store.clone(), pinned).unwrap();
    headers(&mut chain, &made);
    load(&mut chain, &file).unwrap();
    connect(&mut chain, &made);
    let text = advance(&mut chain).unwrap();
    assert!(text.contains("bad-cb-amount"), "{text}");
    drop(chain);
    let chain = open(store, pinned).unwrap();
    assert_eq!(chain.view().tip().height, BASE as u32 - 1);
    assert_eq!(chain.view().best_header().height, BASE as u32 - 1);
}

/// Everything from a prepared disk to a validated snapshot; fails when the power goes.
fn run(disk: &CrashDisk, made: &[Made], file: &[u8], pinned: AssumeUtxo) -> Result<Chain, StoreError> {
    let of_store = |error: SnapshotError| match error {
        SnapshotError::Store(error) => error,
        other => panic!("{other}"),
    };
    let mut chain = match open(ChainStore::on_crash_disk(disk), pinned) {
        Ok(chain) => chain,
        Err(OpenError::Store(error)) => return Err(error),
        Err(other) => panic!("{other}"),
    };
    let view = chain.view();
    let tip = view.tip().height;
    assert!(tip as usize >= 100 && tip as usize <= made.len(), "{tip}");
    if tip < BASE as u32 {
        assert_eq!(view.snapshot(), None);
        let loaded = view.load_snapshot(file, &mut |_, _| ()).map_err(of_store)?;
        chain.activate_snapshot(&loaded).map_err(of_store)?;
    }
    // A block that a power loss damaged is found out when its turn comes, and fetched again.
    loop {
        let missing = view.missing_blocks(1, |_| false);
        let missing = missing.into_iter().chain(view.missing_history(1, |_| false)).next();
        if let Some((height, _)) = missing {
            match chain.accept_block(NOW, made[height as usize - 1].block.clone()) {
                Ok(_) => continue,
                Err(dunlin_chain::BlockError::Store(error)) => return Err(error),
                Err(other) => panic!("{other}"),
            }
        }
        let outcome = chain.advance()?;
        assert_eq!(outcome.refuted, None);
        if !outcome.more && !outcome.background && view.snapshot().is_none() {
            break;
        }
    }
    chain.flush()?;
    Ok(chain)
}

#[test]
fn power_may_go_at_any_write() {
    let (mut full, made, file, dumped) = source();
    let (want, pinned) = (full.summarize_coins().unwrap(), pin(&dumped));
    let prepared = CrashDisk::new(3, None);
    let mut chain = open(ChainStore::on_crash_disk(&prepared), pinned).unwrap();
    connect(&mut chain, &made[..100]);
    headers(&mut chain, &made);
    chain.close().unwrap();
    let mut stops = 0;
    for stop in 1.. {
        let disk = prepared.power_loss(Some(stop));
        let Err(StoreError::PowerLoss) = run(&disk, &made, &file, pinned).map(drop) else {
            break;
        };
        stops = stop;
        for found in [disk.power_loss(None), disk.process_killed(None)] {
            let mut chain = run(&found, &made, &file, pinned).unwrap();
            assert_eq!(chain.view().snapshot(), None, "operation {stop}");
            assert_eq!(chain.summarize_coins().unwrap(), want, "operation {stop}");
        }
    }
    assert!(stops > 20, "{stops}");
}
