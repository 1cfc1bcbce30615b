//! Compact block filters over the wire (BIP 157), as a real bitcoind serves them.

#![allow(clippy::unwrap_used)]

use bitcoin::BlockHash;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters};
use dunlin_testkit::bitcoin_peer::Asker;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait_until;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// `NODE_COMPACT_FILTERS`.
const COMPACT_FILTERS: u64 = 1 << 6;

fn filters(start_height: u32, stop_hash: BlockHash) -> NetworkMessage {
    NetworkMessage::GetCFilters(GetCFilters {
        filter_type: 0,
        start_height,
        stop_hash,
    })
}

fn headers(start_height: u32, stop_hash: BlockHash) -> NetworkMessage {
    NetworkMessage::GetCFHeaders(GetCFHeaders {
        filter_type: 0,
        start_height,
        stop_hash,
    })
}

fn checkpoints(stop_hash: BlockHash) -> NetworkMessage {
    NetworkMessage::GetCFCheckpt(GetCFCheckpt {
        filter_type: 0,
        stop_hash,
    })
}

#[test]
fn filters_are_served_as_bitcoind_serves_them() {
    let core = Bitcoind::start(Options {
        extra: ["-blockfilterindex", "-peerblockfilters"].map(str::to_owned).into(),
        ..Options::default()
    })
    .unwrap();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    core.generate(2005, &alice.address()).unwrap();
    let first = coinbase_coin(&core.block(&core.hash_at(1).unwrap()).unwrap());
    let tx = alice.pay(first, &bob, bitcoin::Amount::from_sat(1_000));
    core.call(
        "sendrawtransaction",
        json!([bitcoin::consensus::encode::serialize_hex(&tx)]),
    )
    .unwrap();
    core.generate(2, &bob.address()).unwrap();
    core.wait_indexed().unwrap();
    let peer = format!("--connect={}", core.p2p());
    let node = Dunlin::start(
        env!("CARGO_BIN_EXE_dunlin"),
        &[&peer, "--index=filter", "--peer-block-filters"],
    )
    .unwrap();
    wait_until("the filters are there", LIMIT, || {
        let info = node.call("getindexinfo", json!([])).unwrap();
        let row = &info["basic block filter index"];
        row["synced"] == true && row["best_block_height"] == 2007
    })
    .unwrap();
    let told = node.call("getnetworkinfo", json!([])).unwrap();
    assert!(
        told["localservicesnames"]
            .as_array()
            .unwrap()
            .contains(&json!("COMPACT_FILTERS")),
        "{told}"
    );

    let at = |height: u64| -> BlockHash { core.hash_at(height).unwrap().parse().unwrap() };
    let questions = [
        (filters(0, at(0)), 1),
        (filters(2000, at(2007)), 8),
        (filters(1008, at(2007)), 1000),
        (headers(0, at(0)), 1),
        (headers(0, at(1999)), 1),
        (headers(2006, at(2007)), 1),
        (checkpoints(at(0)), 1),
        (checkpoints(at(999)), 1),
        (checkpoints(at(2000)), 1),
        (checkpoints(at(2007)), 1),
    ];
    let mut theirs = Asker::dial(core.p2p()).unwrap();
    let mut ours = Asker::dial(node.doors().p2p).unwrap();
    assert!(theirs.services() & COMPACT_FILTERS != 0 && ours.services() & COMPACT_FILTERS != 0);
    for (question, count) in questions {
        let theirs = theirs.ask(question.clone(), count).unwrap();
        let ours = ours.ask(question.clone(), count).unwrap();
        assert_eq!(ours, theirs, "{question:?}");
    }

    // What BIP 157 forbids ends the connection, here and there.
    let unknown: BlockHash = "11".repeat(32).parse().unwrap();
    let other_kind = GetCFilters {
        filter_type: 1,
        start_height: 0,
        stop_hash: at(0),
    };
    for question in [
        filters(0, at(1000)),
        headers(0, at(2000)),
        filters(5, at(4)),
        headers(5, at(4)),
        filters(0, unknown),
        checkpoints(unknown),
        NetworkMessage::GetCFilters(other_kind),
    ] {
        for addr in [core.p2p(), node.doors().p2p] {
            let answer = Asker::dial(addr).unwrap().ask(question.clone(), 1);
            assert!(answer.is_err(), "{addr} {question:?}: {answer:?}");
        }
    }
}

#[test]
fn filters_are_offered_only_when_asked_for() {
    let node = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &["--index=filter"]).unwrap();
    let mut peer = Asker::dial(node.doors().p2p).unwrap();
    assert_eq!(peer.services() & COMPACT_FILTERS, 0);
    let genesis: BlockHash = node.best_hash().unwrap().parse().unwrap();
    assert!(peer.ask(checkpoints(genesis), 1).is_err());
    let alone = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &["--peer-block-filters"]).unwrap_err();
    assert!(format!("{alone:#}").contains("needs --index filter"), "{alone:#}");
}
