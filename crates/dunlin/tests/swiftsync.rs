//! SwiftSync beside a real bitcoind: hints made by one node let another sync from bitcoind to bitcoind's own coins.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use dunlin_chain::swiftsync::{Hints, HintsWriter};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::{Dunlin, run};
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::json;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(120);
/// The hinted height.
const TARGET: u64 = 110;

/// A bitcoind with some spends and two weeks of work above the hinted height.
fn source() -> Bitcoind {
    let core = Bitcoind::start(Options::default()).unwrap();
    let (miner, other) = (Holder::new(1), Holder::new(2));
    core.generate(101, &miner.address()).unwrap();
    for height in 1..20 {
        let block = core.block(&core.hash_at(height).unwrap()).unwrap();
        let first = miner.pay(coinbase_coin(&block), &other, Amount::from_sat(1000));
        let value = first.output[0].value;
        let coin = (bitcoin::OutPoint::new(first.compute_txid(), 0), value);
        core.call("sendrawtransaction", json!([serialize_hex(&first)])).unwrap();
        if height % 3 == 0 {
            let second = other.pay(coin, &miner, Amount::from_sat(1000));
            core.call("sendrawtransaction", json!([serialize_hex(&second)]))
                .unwrap();
        }
        core.generate(1, &miner.address()).unwrap();
    }
    core.generate(2030, &miner.address()).unwrap();
    core
}

/// The coins of a node as a snapshot file, and the hash over them.
fn coins(call: impl Fn(serde_json::Value) -> serde_json::Value, file: &Path) -> (Vec<u8>, String) {
    let answer = call(json!([file.display().to_string(), "latest"]));
    let hash = answer["txoutset_hash"].as_str().unwrap().to_owned();
    (std::fs::read(file).unwrap(), hash)
}

fn wait_tip(core: &Bitcoind, node: &Dunlin) {
    let (theirs, ours) = (|| core.best_hash().unwrap(), || node.best_hash().unwrap());
    wait_equal("the tip is reached", LIMIT, theirs, ours).unwrap();
}

fn hints(of: &Dunlin, file: &Path) -> Vec<u8> {
    let height = TARGET.to_string();
    let path = file.display().to_string();
    let args = ["chain", "hints", "--height", &height, "-o", &path];
    let said = of.cli(&args).unwrap().ok().unwrap();
    assert!(said.starts_with("wrote the hints for height 110, block "), "{said}");
    let again = of.cli(&args).unwrap();
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("already exists"), "{}", again.stderr);
    std::fs::read(file).unwrap()
}

#[test]
fn hints_of_one_node_let_another_sync_to_the_same_coins() {
    let core = source();
    let (peer, tip) = (core.p2p().to_string(), core.best_hash().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };

    let mut maker = Dunlin::start(DUNLIN, &["--connect", &peer]).unwrap();
    wait_tip(&core, &maker);
    let made = hints(&maker, &file("online"));
    maker.stop().unwrap();
    assert_eq!(hints(&maker, &file("offline")), made, "with and without a running peer");
    // A node with all undo records offers the coins that blocks spent; bitcoind notes that and thinks nothing of it.
    maker.restart().unwrap();
    wait_until("bitcoind hears of the feature", LIMIT, || {
        core.debug_log()
            .contains("unknown feature advertised: blockspentcoinsv1")
    })
    .unwrap();
    maker.stop().unwrap();
    let too_high = maker.cli(&[
        "chain",
        "hints",
        "--height",
        "3000",
        "-o",
        &file("none").display().to_string(),
    ]);
    let too_high = too_high.unwrap();
    assert_eq!(too_high.code, Some(1));
    assert!(
        too_high.stderr.contains("from 1 to that of the tip, 2150"),
        "{}",
        too_high.stderr
    );
    assert!(!file("none").exists() && !file("none.incomplete").exists());

    let path = file("online").display().to_string();
    let args = ["--connect", &peer, "--assume-valid", &tip, "--swiftsync", &path];
    let want = coins(|args| core.call("dumptxoutset", args).unwrap(), &file("core"));
    let mut swift = Dunlin::start(DUNLIN, &args).unwrap();
    wait_tip(&core, &swift);
    let log = swift.log();
    assert!(
        log.contains("SwiftSync: the ") && log.contains("at height 110"),
        "{log}"
    );
    assert_eq!(
        coins(|args| swift.call("dumptxoutset", args).unwrap(), &file("swift")),
        want
    );
    // It goes on, also after a restart with the same options.
    core.generate(3, &Holder::new(3).address()).unwrap();
    swift.stop().unwrap();
    swift.restart().unwrap();
    wait_tip(&core, &swift);
    let tip = core.best_hash().unwrap();
    assert_eq!(
        coins(|args| swift.call("dumptxoutset", args).unwrap(), &file("swift-later")),
        coins(|args| core.call("dumptxoutset", args).unwrap(), &file("core-later"))
    );
    swift.stop().unwrap();

    // Hints that leave one coin out.
    let right = Hints::parse(made).unwrap();
    let mut writer = HintsWriter::new(Vec::new(), right.height()).unwrap();
    for height in 1..=right.height() {
        let mut unspent = right.unspent(height).unwrap();
        if height == 105 {
            unspent.truncate(unspent.len() - 1);
        }
        writer.push(&unspent).unwrap();
    }
    let wrong = writer.finish().unwrap();
    std::fs::write(file("wrong"), &wrong).unwrap();
    let path = file("wrong").display().to_string();
    let args = ["--connect", &peer, "--assume-valid", &tip, "--swiftsync", &path];
    let mut cheated = Dunlin::start(DUNLIN, &args).unwrap();
    wait_tip(&core, &cheated);
    let info = cheated.call("getblockchaininfo", json!([])).unwrap();
    let warning = info["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("the hints for height 110 are wrong ("), "{warning}");
    assert_eq!(
        coins(|args| cheated.call("dumptxoutset", args).unwrap(), &file("cheated")).1,
        coins(|args| core.call("dumptxoutset", args).unwrap(), &file("core-again")).1
    );
    cheated.stop().unwrap();
}

#[test]
fn a_sync_that_is_killed_goes_on_and_says_how_far_it_is() {
    let core = source();
    let (peer, tip) = (core.p2p().to_string(), core.best_hash().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hints");
    let mut maker = Dunlin::start(DUNLIN, &["--connect", &peer]).unwrap();
    wait_tip(&core, &maker);
    hints(&maker, &path);
    maker.stop().unwrap();

    // All headers, and half of the blocks.
    let path = path.display().to_string();
    let hash = |height: u64| core.hash_at(height).unwrap();
    let mut swift = Dunlin::start(DUNLIN, &["--assume-valid", &tip, "--swiftsync", &path]).unwrap();
    for height in 1..=2150 {
        let header = core.call("getblockheader", json!([hash(height), false])).unwrap();
        swift.call("submitheader", json!([header])).unwrap();
    }
    let submit = |node: &Dunlin, height: u64| {
        let block = core.call("getblock", json!([hash(height), 0])).unwrap();
        let said = node.call("submitblock", json!([block])).unwrap();
        assert!(said.is_null() || said == "inconclusive", "{height}: {said}");
    };
    (1..=60).for_each(|height| submit(&swift, height));
    let status = swift.call("dunlin.status", json!([])).unwrap();
    assert_eq!(status["bitcoin"]["swiftsync"], json!({"height": 60, "target": TARGET}));
    assert!(
        swift
            .cli(&["status"])
            .unwrap()
            .ok()
            .unwrap()
            .contains("height 60 of 110; nothing counts before the end")
    );
    let info = swift.call("getblockchaininfo", json!([])).unwrap();
    assert_eq!((&info["blocks"], &info["headers"]), (&json!(0), &json!(2150)));
    let refused = swift.call("loadtxoutset", json!([path])).unwrap_err();
    assert!(!refused.to_string().is_empty());
    swift.stop().unwrap();
    swift.restart().unwrap();
    wait_until("it goes on where it was", LIMIT, || {
        let status = swift.call("dunlin.status", json!([])).unwrap();
        status["bitcoin"]["swiftsync"]["height"] == 60
    })
    .unwrap();
    assert!(swift.log().contains("SwiftSync goes on from height 60"));
    (61..=80).for_each(|height| submit(&swift, height));
    swift.kill9();
    swift.set_extra(&["--assume-valid", &tip, "--swiftsync", &path, "--connect", &peer]);
    swift.restart().unwrap();
    wait_tip(&core, &swift);
    assert_eq!(
        coins(
            |args| swift.call("dumptxoutset", args).unwrap(),
            &folder.path().join("swift")
        ),
        coins(
            |args| core.call("dumptxoutset", args).unwrap(),
            &folder.path().join("core")
        )
    );
    swift.stop().unwrap();
}

#[test]
fn with_every_script_checked_the_coins_that_blocks_spent_come_from_one_of_us() {
    let core = source();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hints");
    let mut maker = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
    wait_tip(&core, &maker);
    hints(&maker, &path);

    // Only bitcoind is there at first, which has no coins to tell.
    let path = path.display().to_string();
    let args = ["--assume-valid", "none", "--swiftsync", &path, "--index", "tx,script"];
    let mut swift = Dunlin::start(DUNLIN, &args).unwrap();
    let add = |to: &str| swift.call("addnode", json!([to, "add"])).unwrap();
    add(&core.p2p().to_string());
    wait_until("the headers come", LIMIT, || {
        swift.call("getblockchaininfo", json!([])).unwrap()["headers"] == 2150
    })
    .unwrap();
    assert_eq!(swift.height().unwrap(), 0);
    add(&maker.doors().p2p.to_string());
    wait_tip(&core, &swift);
    let log = swift.log();
    assert!(
        log.contains("SwiftSync: the ") && log.contains("at height 110"),
        "{log}"
    );
    let info = swift.call("getblockchaininfo", json!([])).unwrap();
    assert_eq!(info["warnings"], json!([]));
    assert_eq!(
        coins(
            |args| swift.call("dumptxoutset", args).unwrap(),
            &folder.path().join("swift")
        ),
        coins(
            |args| core.call("dumptxoutset", args).unwrap(),
            &folder.path().join("core")
        )
    );
    // What blocks spent is known, so statistics and indexes below the hinted height are those of any node.
    let stats = |height: u64| {
        let theirs = core.call("getblockstats", json!([height])).unwrap();
        assert_eq!(swift.call("getblockstats", json!([height])).unwrap(), theirs);
        assert!(theirs["totalfee"].as_u64().unwrap() > 0);
    };
    stats(105);
    wait_until("the indexes are there", LIMIT, || {
        let info = swift.call("getindexinfo", json!([])).unwrap();
        info["txindex"]["synced"] == true && info["txindex"]["best_block_height"] == 2150
    })
    .unwrap();
    swift.stop().unwrap();
    maker.stop().unwrap();
}

#[test]
fn files_that_are_no_hints_and_options_that_exclude_each_other_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hints");
    let fails = |more: &[&str], says: &str| {
        let path = file.display().to_string();
        let data = folder.path().join("data").display().to_string();
        let args = [
            &[
                "run",
                "--network",
                "regtest",
                "--no-listen",
                "--no-dial",
                "--disable",
                "torrent",
                "--data-dir",
                &data,
            ],
            &["--swiftsync", &path][..],
            more,
        ]
        .concat();
        let output = run(Path::new(DUNLIN), args, LIMIT).unwrap();
        assert_eq!(output.code, Some(1), "{}", output.stderr);
        assert!(output.stderr.contains(says), "{}", output.stderr);
    };
    fails(&[], "it cannot be read: No such file");
    for (bytes, says) in [
        (&b"OXTU"[..], "it is no hints file"),
        (b"UTXO\x01\x01\0\0\0\0", "it has version 1, and only version 0 is known"),
        (b"UTXO\x00\x02\0\0\0\0", "it ends before the hints for block 2"),
        (b"UTXO\x00\x01\0\0\0\0\0", "1 bytes follow the hints for the last block"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        fails(&[], says);
    }
    std::fs::write(&file, b"UTXO\x00\x01\0\0\0\0").unwrap();
    fails(
        &["--index", "tx"],
        "leave out --index, or --swiftsync, or add --assume-valid none",
    );
}
