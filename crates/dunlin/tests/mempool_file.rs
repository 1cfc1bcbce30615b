//! The memory pool across restarts, and its file between us and a real bitcoind.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, Transaction};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::json;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(60);

fn loaded(dunlin: &Dunlin) {
    wait_until("the memory pool is loaded", LIMIT, || {
        dunlin.call("getmempoolinfo", json!([])).unwrap()["loaded"] == json!(true)
    })
    .unwrap();
}

/// The ids of a mempool, sorted.
fn ids(mempool: Vec<String>) -> Vec<String> {
    let mut ids = mempool;
    ids.sort();
    ids
}

/// A chain of three transactions from one coin.
fn family(holder: &Holder, coin: (OutPoint, Amount)) -> Vec<Transaction> {
    let mut coin = coin;
    let mut txs = Vec::new();
    for fee in [1000, 500, 20_000] {
        let tx = holder.pay(coin, holder, Amount::from_sat(fee));
        coin = (OutPoint::new(tx.compute_txid(), 0), tx.output[0].value);
        txs.push(tx);
    }
    txs
}

#[test]
fn the_pool_survives_restarts_and_moves_to_core_and_back() {
    let holder = Holder::new(1);
    let core = Bitcoind::start(Options::default()).unwrap();
    core.generate(110, &holder.address()).unwrap();
    let mut dunlin = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
    wait_equal(
        "both have the same tip",
        LIMIT,
        || core.best_hash().unwrap(),
        || dunlin.best_hash().unwrap(),
    )
    .unwrap();
    loaded(&dunlin);
    let coin = |height| coinbase_coin(&core.block(&core.hash_at(height).unwrap()).unwrap());
    let txs = family(&holder, coin(1));
    for tx in &txs {
        core.call("sendrawtransaction", json!([serialize_hex(tx)])).unwrap();
    }
    let first = txs[0].compute_txid().to_string();
    core.call("prioritisetransaction", json!([first, 0, 777])).unwrap();
    wait_equal(
        "the transactions flood",
        LIMIT,
        || ids(core.mempool().unwrap()),
        || ids(dunlin.mempool().unwrap()),
    )
    .unwrap();

    // A clean stop keeps what there is, with its time.
    let entry = |dunlin: &Dunlin| dunlin.call("getmempoolentry", json!([first])).unwrap();
    let before = entry(&dunlin);
    dunlin.set_extra(&[]);
    dunlin.stop().unwrap();
    dunlin.restart().unwrap();
    loaded(&dunlin);
    assert_eq!(ids(dunlin.mempool().unwrap()), ids(core.mempool().unwrap()));
    assert_eq!(entry(&dunlin), before);

    // What bitcoind writes is read by us.
    let written = core.call("savemempool", json!([])).unwrap();
    let file = written["filename"].as_str().unwrap();
    let options = json!({ "apply_fee_delta_priority": true, "use_current_time": false });
    assert_eq!(dunlin.call("importmempool", json!([file, options])).unwrap(), json!({}));
    let priorities = json!({ first.as_str(): { "fee_delta": 777, "in_mempool": true, "modified_fee": 1777 } });
    assert_eq!(
        dunlin.call("getprioritisedtransactions", json!([])).unwrap(),
        priorities
    );
    let other = family(&holder, coin(2));
    for tx in &other {
        dunlin.call("sendrawtransaction", json!([serialize_hex(tx)])).unwrap();
    }

    // And what we write by bitcoind.
    let written = dunlin.call("savemempool", json!([])).unwrap();
    let file = written["filename"].as_str().unwrap().to_owned();
    core.call("importmempool", json!([file, { "use_current_time": false }]))
        .unwrap();
    assert_eq!(ids(core.mempool().unwrap()), ids(dunlin.mempool().unwrap()));
    assert_eq!(core.mempool().unwrap().len(), 6);

    // A file that was cut gives what is left of it, one warning, and is kept.
    dunlin.stop().unwrap();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    dunlin.restart().unwrap();
    loaded(&dunlin);
    let left = dunlin.mempool().unwrap().len();
    assert!((1..6).contains(&left), "{left} of 6");
    let log = dunlin.log();
    assert_eq!(log.matches("it is damaged").count(), 1, "{log}");
    assert_eq!(fs::read(format!("{file}.damaged")).unwrap(), bytes[..bytes.len() / 2]);
    dunlin.stop().unwrap();
    assert!(fs::read(&file).unwrap().len() > 100, "a new file takes its place");
}
