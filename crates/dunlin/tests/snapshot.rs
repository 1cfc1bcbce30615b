//! Snapshots against a real bitcoind: its files load here and ours there, and both go on from one while the blocks
//! below are validated in the background.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::{Value, json};

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(60);
/// The height of a snapshot that both programs pin for regtest.
const BASE: u64 = 200;

/// The blocks whose snapshot at height 200 is pinned: time rises by a second from the genesis block's, every reward goes
/// to the witness program of `OP_TRUE`, and everything else is as a miner without options does it.
fn pinned_chain() -> Vec<String> {
    dunlin_testkit::coins::assume_utxo_chain(BASE as u32 + 20)
        .iter()
        .map(bitcoin::consensus::encode::serialize_hex)
        .collect()
}

fn feed(call: &dyn Fn(&str, Value) -> Value, blocks: &[String]) {
    for block in blocks {
        assert_eq!(call("submitblock", json!([block])), Value::Null);
    }
}

fn feed_headers(call: &dyn Fn(&str, Value) -> Value, blocks: &[String]) {
    for block in blocks {
        call("submitheader", json!([&block[..160]]));
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn files_are_the_same_byte_for_byte_and_load_on_both_sides() {
    let blocks = pinned_chain();
    let full_core = Bitcoind::start(Options::default()).unwrap();
    feed(&|method, args| full_core.call(method, args).unwrap(), &blocks);
    let full_dunlin = Dunlin::start(DUNLIN, &["--connect", &full_core.p2p().to_string()]).unwrap();
    wait_equal(
        "both have the same tip",
        LIMIT,
        || full_core.best_hash().unwrap(),
        || full_dunlin.best_hash().unwrap(),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for (name, args) in [
        ("latest", json!(["latest"])),
        ("rollback", json!(["rollback", {"rollback": 200}])),
        ("early", json!(["", {"rollback": 101}])),
    ] {
        let dump = |call: &dyn Fn(Value) -> Value, whose: &str| {
            let path = file(&format!("{name}-{whose}"));
            let mut args = args.as_array().unwrap().clone();
            args.insert(0, json!(path.display().to_string()));
            let mut answer = call(Value::Array(args));
            assert_eq!(answer["path"], json!(path.display().to_string()));
            answer["path"] = Value::Null;
            (answer, bytes(&path))
        };
        let theirs = dump(&|args| full_core.call("dumptxoutset", args).unwrap(), "core");
        let ours = dump(&|args| full_dunlin.call("dumptxoutset", args).unwrap(), "dunlin");
        assert_eq!(ours, theirs, "{name}");
    }
    let (of_core, of_dunlin) = (file("rollback-core"), file("rollback-dunlin"));
    let error = |args: Value| {
        let ours = full_dunlin.call("dumptxoutset", args.clone()).unwrap_err();
        let theirs = full_core.call("dumptxoutset", args).unwrap_err();
        assert_eq!(ours.code(), theirs.code());
        assert_eq!(ours.to_string(), theirs.to_string());
    };
    let fresh = file("fresh").display().to_string();
    error(json!([of_core.display().to_string(), "latest"]));
    error(json!([fresh, "newest"]));
    error(json!([fresh, "latest", {"rollback": 3}]));
    error(json!([fresh, "rollback", {"rollback": 1000}]));

    // Ours in Core.
    let young_core = Bitcoind::start(Options::default()).unwrap();
    feed_headers(&|method, args| young_core.call(method, args).unwrap(), &blocks);
    let path = of_dunlin.display().to_string();
    let theirs = young_core.call("loadtxoutset", json!([path])).unwrap();
    // Core's in ours.
    let mut young = Dunlin::start(DUNLIN, &["--connect", &full_core.p2p().to_string()]).unwrap();
    drop(young.stop());
    let mut young = Dunlin::start(DUNLIN, &[]).unwrap();
    feed_headers(&|method, args| young.call(method, args).unwrap(), &blocks);
    let core_path = of_core.display().to_string();
    let mut ours = young.call("loadtxoutset", json!([core_path])).unwrap();
    assert_eq!(ours["path"], json!(core_path));
    ours["path"] = json!(path);
    assert_eq!(ours, theirs);
    assert_eq!(young.height().unwrap(), BASE);
    let states = |of: &dyn Fn(&str, Value) -> Value| {
        let mut states = of("getchainstates", json!([]));
        for state in states["chainstates"].as_array_mut().unwrap() {
            for key in ["coins_db_cache_bytes", "coins_tip_cache_bytes", "verificationprogress"] {
                assert!(state.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
        }
        states
    };
    assert_eq!(
        states(&|method, args| young.call(method, args).unwrap()),
        states(&|method, args| young_core.call(method, args).unwrap())
    );
    let again = young.call("loadtxoutset", json!([core_path])).unwrap_err();
    assert!(again.to_string().contains("more than once"), "{again}");

    // It is killed, comes back, fetches both sides of the base from Core, and is done with the snapshot.
    young.kill9();
    young.set_extra(&["--connect", &full_core.p2p().to_string()]);
    young.restart().unwrap();
    wait_equal(
        "the tip is reached",
        LIMIT,
        || full_core.best_hash().unwrap(),
        || young.best_hash().unwrap(),
    )
    .unwrap();
    wait_until("the snapshot is validated", LIMIT, || {
        young.call("getchainstates", json!([])).unwrap()["chainstates"]
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .unwrap();
    let again = file("again").display().to_string();
    let dumped = young.call("dumptxoutset", json!([again, "latest"])).unwrap();
    assert_eq!(bytes(&file("again")), bytes(&file("latest-core")), "{dumped}");
    young.stop().unwrap();
}
