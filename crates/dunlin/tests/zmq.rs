//! Notifications over ZeroMQ, to a subscriber on ZeroMQ's own library.

#![allow(clippy::unwrap_used)]

use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::{Amount, Block};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::free_address;
use dunlin_testkit::zmq::{Notice, Subscriber};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn text(value: Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Mines until the subscriber hears of it, since nobody tells when its connection stands; the blocks' hashes.
fn meet(node: &Dunlin, subscriber: &Subscriber, address: &str) {
    for _ in 0..60 {
        node.call("generatetoaddress", json!([1, address])).unwrap();
        if subscriber
            .wait("a first notice", Duration::from_secs(1), |seen| !seen.is_empty())
            .is_ok()
        {
            return;
        }
    }
    panic!("nothing was heard");
}

/// The numbers of each topic rise by one.
fn assert_gapless(notices: &[Notice]) {
    let mut next = std::collections::BTreeMap::new();
    for notice in notices {
        let expected = next.entry(&notice.topic).or_insert(notice.number);
        assert_eq!(notice.number, *expected, "{notice:?}");
        *expected += 1;
    }
}

#[test]
fn subscribers_hear_of_blocks_transactions_and_changes_in_sequence() {
    let (all, some) = (free_address(), free_address());
    let options = [
        format!("--zmq={all}"),
        format!("--zmq=rawblock=tcp://{some}/3"),
        format!("--zmq=hashtx={some}/3"),
    ];
    let node = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &options.each_ref().map(String::as_str)).unwrap();
    let told = node.call("getzmqnotifications", json!([])).unwrap();
    let mut expected = Vec::new();
    for (kind, places) in [
        ("pubhashblock", &[(all, 1000)][..]),
        ("pubhashtx", &[(all, 1000), (some, 3)]),
        ("pubrawblock", &[(all, 1000), (some, 3)]),
        ("pubrawtx", &[(all, 1000)]),
        ("pubsequence", &[(all, 1000)]),
    ] {
        let mut rows: Vec<Value> = places
            .iter()
            .map(|(addr, hwm)| json!({ "type": kind, "address": format!("tcp://{addr}"), "hwm": hwm }))
            .collect();
        rows.sort_by_key(|row| row["address"].to_string());
        expected.extend(rows);
    }
    let mut told: Vec<Value> = told.as_array().unwrap().clone();
    told.sort_by_key(|row| (row["type"].to_string(), row["address"].to_string()));
    assert_eq!(told, expected);

    let (alice, bob) = (Holder::new(1), Holder::new(2));
    node.call("generatetoaddress", json!([101, alice.address()])).unwrap();
    let ear = Subscriber::start(all, &["hash", "raw", "sequence"]).unwrap();
    let few = Subscriber::start(some, &["rawblock"]).unwrap();
    meet(&node, &ear, &bob.address());
    meet(&node, &few, &bob.address());

    // A transaction, then another in its place, then a block with it.
    let block = |height: u64| -> Block {
        let hash = text(node.call("getblockhash", json!([height])).unwrap());
        let raw = text(node.call("getblock", json!([hash, 0])).unwrap());
        deserialize(&hex::decode(raw).unwrap()).unwrap()
    };
    let coin = coinbase_coin(&block(1));
    let first = alice.pay(coin, &bob, Amount::from_sat(5_000));
    let second = alice.pay(coin, &bob, Amount::from_sat(50_000));
    let sequence = |node: &Dunlin| {
        let pool = node.call("getrawmempool", json!([false, true])).unwrap();
        pool["mempool_sequence"].as_u64().unwrap()
    };
    let before = sequence(&node);
    for tx in [&first, &second] {
        node.call("sendrawtransaction", json!([serialize_hex(tx)])).unwrap();
    }
    let hashes = node.call("generatetoaddress", json!([1, bob.address()])).unwrap();
    let hash = text(hashes[0].clone());
    let mined = block(node.height().unwrap());
    ear.wait("the block is heard of", LIMIT, |seen| {
        seen.iter()
            .any(|notice| notice.topic == "rawblock" && notice.body == serialize_hex(&mined))
    })
    .unwrap();
    let (one, two) = (first.compute_txid().to_string(), second.compute_txid().to_string());
    let numbered = |number: u64| hex::encode(number.to_le_bytes());
    let tail = |topic: &str, count: usize| -> Vec<String> {
        let all = ear.of(topic);
        all[all.len() - count..]
            .iter()
            .map(|notice| notice.body.clone())
            .collect()
    };
    assert_eq!(
        tail("sequence", 4),
        [
            format!("{one}41{}", numbered(before)),
            format!("{one}52{}", numbered(before + 1)),
            format!("{two}41{}", numbered(before + 2)),
            format!("{hash}43"),
        ]
    );
    let coinbase = mined.txdata[0].compute_txid().to_string();
    assert_eq!(
        tail("hashtx", 4),
        [one.clone(), two.clone(), coinbase.clone(), two.clone()]
    );
    assert_eq!(
        tail("rawtx", 4),
        [&first, &second, &mined.txdata[0], &second].map(serialize_hex)
    );
    assert_eq!(tail("hashblock", 1), std::slice::from_ref(&hash));
    assert_eq!(sequence(&node), before + 4, "leaving for a block is a change, too");

    // The block leaves the chain: its transaction comes back, and there is no new tip to speak of.
    let blocks = ear.of("hashblock").len();
    node.call("invalidateblock", json!([hash])).unwrap();
    let back = format!("{two}41{}", numbered(before + 4));
    ear.wait("the transaction came back", LIMIT, |seen| {
        seen.iter().any(|notice| notice.body == back)
    })
    .unwrap();
    assert_eq!(tail("sequence", 2), [format!("{hash}44"), back]);
    node.call("reconsiderblock", json!([hash])).unwrap();
    ear.wait("the block is back", LIMIT, |seen| {
        seen.iter().filter(|notice| notice.topic == "hashblock").count() > blocks
    })
    .unwrap();
    assert_eq!(tail("hashblock", 1), std::slice::from_ref(&hash));
    assert_gapless(&ear.seen());
    few.wait("the blocks were heard of elsewhere", LIMIT, |seen| {
        seen.iter()
            .filter(|notice| notice.body == serialize_hex(&mined))
            .count()
            == 2
    })
    .unwrap();
    assert!(few.seen().iter().all(|notice| notice.topic == "rawblock"));
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &[&format!("--zmq={addr}")]).unwrap_err();
    let said = format!("{error:#}");
    assert!(
        said.contains(&format!("cannot listen on {addr}")) && said.contains("--zmq"),
        "{said}"
    );
}
