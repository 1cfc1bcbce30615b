//! BIP 324 against a real bitcoind, whoever dials and whatever each side is willing to speak.

#![allow(clippy::unwrap_used)]

use dunlin_testkit::coins::Holder;
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(60);

/// The transport and session id of the one peer, once its handshake is complete.
fn transport(peers: impl Fn() -> Vec<Value>) -> (String, String) {
    let text = |peer: &Value, key: &str| peer[key].as_str().unwrap().to_owned();
    wait_for("the peer is there", LIMIT, || {
        let peers = peers();
        let peer = peers.iter().find(|peer| peer["version"].as_u64().unwrap() > 0)?;
        Some((text(peer, "transport_protocol_type"), text(peer, "session_id")))
    })
    .unwrap()
}

/// Blocks go both ways over the link, and both sides say `expected` of it.
fn talk(core: &Bitcoind, dunlin: &Dunlin, expected: &str) {
    let (ours, our_session) = transport(|| dunlin.peers().unwrap());
    let (theirs, their_session) = transport(|| core.peers().unwrap());
    assert_eq!((ours.as_str(), theirs.as_str()), (expected, expected));
    assert_eq!(our_session, their_session);
    assert_eq!(our_session.len(), if expected == "v2" { 64 } else { 0 });
    let miner = Holder::new(1);
    let agree = || {
        wait_equal(
            "both have the same tip",
            LIMIT,
            || core.best_hash().unwrap(),
            || dunlin.best_hash().unwrap(),
        )
        .unwrap();
    };
    // Far more messages than the 224 after which the keys change.
    core.generate(300, &miner.address()).unwrap();
    agree();
    dunlin.call("generatetoaddress", json!([300, miner.address()])).unwrap();
    agree();
    assert_eq!(core.height().unwrap(), 600);
    assert_eq!(core.peers().unwrap().len(), 1);
}

fn core(v2transport: bool, connect: Option<&Dunlin>) -> Bitcoind {
    Bitcoind::start(Options {
        v2transport,
        connect: connect.iter().map(|dunlin| dunlin.doors().p2p).collect(),
        ..Options::default()
    })
    .unwrap()
}

fn dunlin(options: &[&str], connect: Option<&Bitcoind>) -> Dunlin {
    let addr = connect.map(|core| core.p2p().to_string());
    let mut options = options.to_vec();
    if let Some(addr) = &addr {
        options.extend(["--connect", addr]);
    }
    Dunlin::start(DUNLIN, &options).unwrap()
}

#[test]
fn we_dial_and_both_encrypt() {
    let core = core(true, None);
    let dunlin = dunlin(&[], Some(&core));
    talk(&core, &dunlin, "v2");
}

#[test]
fn core_dials_and_both_encrypt() {
    let dunlin = dunlin(&[], None);
    let core = core(true, Some(&dunlin));
    talk(&core, &dunlin, "v2");
}

#[test]
fn we_fall_back_when_core_does_not_encrypt() {
    let core = core(false, None);
    let dunlin = dunlin(&[], Some(&core));
    talk(&core, &dunlin, "v1");
}

#[test]
fn core_that_does_not_encrypt_is_understood() {
    let dunlin = dunlin(&[], None);
    let core = core(false, Some(&dunlin));
    talk(&core, &dunlin, "v1");
}

#[test]
fn told_not_to_encrypt_we_neither_ask_for_it_nor_answer() {
    let first = core(true, None);
    let ours = dunlin(&["--no-v2transport"], Some(&first));
    talk(&first, &ours, "v1");
    drop((first, ours));
    // Core falls back.
    let ours = dunlin(&["--no-v2transport"], None);
    let second = core(true, Some(&ours));
    talk(&second, &ours, "v1");
}
