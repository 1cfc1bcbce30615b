//! `kill -9` at 30 random instants during sync and at 30 during a download: each restart goes on from verified state to
//! the right end.

#![allow(clippy::unwrap_used)]

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::content::{self, Bytes64};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::{Dunlin, run, start_command};
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::slow_wire::SlowWire;
use dunlin_testkit::wait::{wait_equal, wait_for, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const KILLS: u64 = 30;
const LIMIT: Duration = Duration::from_secs(90);

/// Instants that differ from run to run; a failure prints the seed.
fn instants() -> Bytes64 {
    let seed = match std::env::var("CRASH_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => {
            u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() & 0xffff_ffff).unwrap()
        }
    };
    eprintln!("CRASH_SEED={seed}");
    Bytes64::new(seed)
}

/// A chain long enough that a sync is cut many times before its end, with a payment in every fiftieth block.
fn long_chain(core: &Bitcoind, miner: &Holder) {
    let friend = Holder::new(2);
    core.generate(150, &miner.address()).unwrap();
    for height in 1..=140 {
        let coin = coinbase_coin(&core.block(&core.hash_at(height).unwrap()).unwrap());
        let payment = serialize_hex(&miner.pay(coin, &friend, Amount::from_sat(5_000)));
        core.call("sendrawtransaction", json!([payment])).unwrap();
        core.generate(50, &miner.address()).unwrap();
    }
}

/// What a node knows of an outpoint, without what depends on its own moment.
fn coin(rpc: &dunlin_testkit::Rpc, outpoint: &OutPoint) -> Value {
    let answer = rpc
        .call("gettxout", json!([outpoint.txid.to_string(), outpoint.vout, false]))
        .unwrap();
    if answer.is_null() {
        answer
    } else {
        json!([answer["value"], answer["scriptPubKey"]["hex"], answer["coinbase"]])
    }
}

#[test]
fn killed_during_sync_it_goes_on() {
    let mut random = instants();
    let core = Bitcoind::start(Options::default()).unwrap();
    let miner = Holder::new(1);
    long_chain(&core, &miner);
    // At full speed the whole chain would be there in half a second.
    let wire = SlowWire::start(core.p2p(), 400_000).unwrap();
    let mut dunlin = Dunlin::start(DUNLIN, &["--connect", &wire.address().to_string()]).unwrap();
    let mut reached = 0;
    let mut heights = Vec::new();
    let mut behind = 0;
    for kill in 0..KILLS {
        if kill % 7 == 3 {
            // Now and then the way's end is another one than before.
            let fork = core.hash_at(core.height().unwrap() - 4).unwrap();
            core.call("invalidateblock", json!([fork])).unwrap();
            core.generate(6, &Holder::new(10 + u8::try_from(kill).unwrap()).address())
                .unwrap();
        }
        if kill % 2 == 0 {
            // At any instant, the opening of the data folder included.
            std::thread::sleep(Duration::from_millis(random.below(300)));
        } else {
            // What it had is there without a peer: RPC answers while the stored blocks are still being connected.
            let height = wait_for("dunlin is back where it was, by itself", LIMIT, || {
                dunlin.check_alive().unwrap();
                dunlin.height().ok().filter(|&height| height >= reached)
            })
            .unwrap();
            wire.hold(false);
            // While blocks come in, for as long as there are any to come.
            let end = core.height().unwrap();
            wait_until("the sync moves", LIMIT, || {
                let now = dunlin.height().unwrap();
                now > height || now >= end
            })
            .unwrap();
            std::thread::sleep(Duration::from_millis(random.below(120)));
            // What it has connected is a part of Core's chain, or of one that Core has left since.
            let height = dunlin.height().unwrap();
            let hash = dunlin.call("getblockhash", json!([height])).unwrap();
            let known = core.call("getblockheader", json!([hash])).unwrap();
            assert_eq!(known["height"], json!(height));
            // A reorganisation may take it back a few blocks.
            reached = height.saturating_sub(6);
            behind += u64::from(height < end);
            heights.push(height);
        }
        dunlin.kill9();
        wire.hold(kill % 2 == 0);
        dunlin.restart_unready().unwrap();
    }
    eprintln!("heights before kills: {heights:?} of {}", core.height().unwrap());
    assert!(
        behind >= KILLS / 4,
        "only {behind} kills fell into the sync: the chain is too short for this machine"
    );
    wire.set_rate(0);
    wait_equal(
        "dunlin has Core's tip",
        LIMIT,
        || {
            dunlin.check_alive().unwrap();
            dunlin.best_hash().unwrap_or_default()
        },
        || core.best_hash().unwrap(),
    )
    .unwrap();
    // Every coin of every coinbase and payment is as Core has it: there, or spent.
    let (mut unspent, mut spent) = (0, 0);
    let paid = (1..=150).chain((200..core.height().unwrap()).step_by(50));
    for height in paid.chain((core.height().unwrap() - 12)..=core.height().unwrap()) {
        let block = core.block(&core.hash_at(height).unwrap()).unwrap();
        for transaction in &block.txdata {
            let outpoint = OutPoint::new(transaction.compute_txid(), 0);
            let theirs = coin(core.rpc(), &outpoint);
            assert_eq!(coin(dunlin.rpc(), &outpoint), theirs, "{outpoint} of block {height}");
            if theirs.is_null() { spent += 1 } else { unspent += 1 }
        }
    }
    assert!(
        spent > 100 && unspent > 100,
        "{spent} spent, {unspent} unspent: the comparison saw both"
    );
    // And it ends and begins in good order after all that.
    let tip = dunlin.best_hash().unwrap();
    dunlin.stop().unwrap();
    dunlin.restart().unwrap();
    assert_eq!(dunlin.best_hash().unwrap(), tip);
}

#[test]
fn killed_during_a_download_it_goes_on() {
    const TOTAL: u64 = 96 << 20;
    let mut random = instants();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("seed");
    content::write_file(&home.join("file.bin"), TOTAL, 77).unwrap();
    let torrent = Torrent::create(&home.join("file.bin"), 256 << 10, None).unwrap();
    let path = folder.path().join("file.torrent");
    torrent.save(&path).unwrap();
    let seeder = Libtorrent::start().unwrap();
    let hash = seeder.seed(&path, &home).unwrap();
    // Slow enough that 30 kills fall into the download.
    seeder.limit(&hash, 6 << 20, 0).unwrap();

    let output = folder.path().join("got");
    let (source, target) = (path.display().to_string(), output.display().to_string());
    let peer = seeder.address().to_string();
    let args = [
        "torrent", "get", &source, "--output", &target, "--peer", &peer, "--no-dht", "--no-lsd", "--json",
    ];
    let given = || seeder.status(&hash).unwrap()["uploaded"].as_u64().unwrap();
    let mut killed_at_work = 0;
    for kill in 0..KILLS {
        let before = given();
        let mut download = start_command(Path::new(DUNLIN), args, &folder.path().join("get.log")).unwrap();
        if kill % 2 == 0 {
            // At any instant, the opening and checking of what is there included.
            std::thread::sleep(Duration::from_millis(random.below(500)));
        } else {
            // While data flows.
            wait_until("data flows", LIMIT, || given() > before || download.exited().is_some()).unwrap();
            std::thread::sleep(Duration::from_millis(random.below(300)));
        }
        if download.exited().is_none() {
            killed_at_work += 1;
            download.kill9();
        }
    }
    assert_eq!(killed_at_work, KILLS, "the download was over before the last kill");
    // libtorrent adds up its figures once a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let given_before = given();

    seeder.limit(&hash, 0, 0).unwrap();
    let outcome = run(Path::new(DUNLIN), args, LIMIT).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let sum = content::sha256_file(&output.join("file.bin")).unwrap();
    assert_eq!(sum, content::sha256_file(&home.join("file.bin")).unwrap());
    // What was verified before a kill was not fetched again: the last run needed less than the whole, and all runs
    // together not much more than the whole and what each kill tore off.
    std::thread::sleep(Duration::from_millis(1_500));
    let given = given();
    let last = given - given_before;
    eprintln!("given before the last run {given_before}, in it {last}, of {TOTAL}");
    assert!(given_before > 4 << 20, "the kills fell into a download that moved");
    assert!(
        last < TOTAL - given_before / 3,
        "the last run began anew: {last} of {TOTAL} after {given_before}"
    );
    assert!(
        given < TOTAL + KILLS * (4 << 20),
        "{given} bytes were needed for {TOTAL}"
    );
}
