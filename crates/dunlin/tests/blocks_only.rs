//! A node that takes no transactions from peers, beside a bitcoind.

#![allow(clippy::unwrap_used)]

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait_until;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn transactions_of_peers_stay_away_and_our_own_go_out() {
    let core = Bitcoind::start(Options::default()).unwrap();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    core.generate(102, &alice.address()).unwrap();
    let peer = format!("--connect={}", core.p2p());
    let node = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &[&peer, "--blocks-only"]).unwrap();
    wait_until("the blocks come", LIMIT, || node.height().unwrap() == 102).unwrap();
    assert_eq!(node.call("getnetworkinfo", json!([])).unwrap()["localrelay"], false);
    wait_until("bitcoind knows what we want", LIMIT, || {
        core.peers().unwrap().iter().any(|peer| peer["relaytxes"] == false)
    })
    .unwrap();
    let tx = |height| {
        let coin = coinbase_coin(&core.block(&core.hash_at(height).unwrap()).unwrap());
        serialize_hex(&alice.pay(coin, &bob, Amount::from_sat(2_000)))
    };
    let theirs = core.call("sendrawtransaction", json!([tx(1)])).unwrap();
    let ours = node.call("sendrawtransaction", json!([tx(2)])).unwrap();
    wait_until("our own transaction reaches bitcoind", LIMIT, || {
        core.mempool().unwrap().iter().any(|txid| *txid == ours)
    })
    .unwrap();
    // What was first in bitcoind's pool would have come by now.
    assert_eq!(json!(node.mempool().unwrap()), json!([ours]));
    core.generate(1, &bob.address()).unwrap();
    wait_until("blocks still come", LIMIT, || node.height().unwrap() == 103).unwrap();
    assert_eq!(node.mempool().unwrap(), Vec::<String>::new());
    assert!(core.mempool().unwrap().is_empty(), "{theirs}");
    assert_eq!(node.peers().unwrap().len(), 1);
}
