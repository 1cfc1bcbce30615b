//! REST of a real bitcoind and of our node on the same chain: status, content type and every byte of the body.

#![allow(clippy::unwrap_used)]

mod lab;

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint};
use dunlin_api::rpc::{Options as Serving, serve};
use dunlin_chain::ChainConfig;
use dunlin_chain::indexes::IndexKind;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::Options;
use lab::pair::Pair;
use lab::{http, listener};
use serde_json::json;

/// Both servers.
struct Servers {
    core: SocketAddr,
    ours: SocketAddr,
}

impl Servers {
    async fn same(&self, path: &str) {
        self.same_post(path, b"").await;
    }

    async fn same_post(&self, path: &str, body: &[u8]) {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let core = http(self.core, method, path, &[], body).await;
        let ours = http(self.ours, method, path, &[], body).await;
        assert_eq!(core.status, ours.status, "{path}: {} {}", core.body, ours.body);
        let (core_kind, our_kind) = (core.header("content-type"), ours.header("content-type"));
        if core.status != 404 || !core.bytes.is_empty() {
            assert_eq!(core_kind, our_kind, "{path}");
        }
        assert!(
            core.bytes == ours.bytes,
            "{path}:\ncore {}\nours {}",
            core.body,
            ours.body
        );
    }

    async fn same_in_all_formats(&self, path: &str, query: &str) {
        let paths = [".bin", ".hex", ".json", "", ".", ".xml"].map(|format| format!("{path}{format}{query}"));
        // bitcoind takes its time for each connection, so all are asked at once.
        futures::future::join_all(paths.iter().map(|path| self.same(path))).await;
    }
}

#[tokio::test]
async fn every_resource_answers_alike() {
    let options = Options {
        extra: ["-rest", "-txindex", "-blockfilterindex"].map(str::to_owned).into(),
        ..Options::default()
    };
    let pair = Pair::start_with(options, ChainConfig::default(), &[IndexKind::Tx, IndexKind::Filter]);
    let (listener, ours) = listener().await;
    let node = std::sync::Arc::clone(&pair.shared.node);
    let stop = node.stop.clone();
    let serving = Serving {
        rest: true,
        ..Serving::default()
    };
    let task = tokio::spawn(serve(vec![listener], node, serving, stop.clone()));
    let core = pair.core.http();
    let both = Servers { core, ours };

    let (alice, bob) = (Holder::new(1), Holder::new(2));
    pair.core.generate(104, &alice.address()).unwrap();
    let coin = |height| coinbase_coin(&pair.core.block(&pair.core.hash_at(height).unwrap()).unwrap());
    let mined = alice.pay(coin(1), &bob, Amount::from_sat(5_000));
    let mut plan = pair.core.plan(&alice).unwrap();
    plan.transactions.push(mined.clone());
    let block = plan.mine();
    pair.follow().await;
    pair.same("submitblock", json!([serialize_hex(&block)])).await;
    let parent = alice.pay(coin(2), &bob, Amount::from_sat(1_410));
    let made = OutPoint {
        txid: parent.compute_txid(),
        vout: 0,
    };
    let child = bob.pay((made, parent.output[0].value), &alice, Amount::from_sat(20_000));
    for tx in [&parent, &child] {
        pair.same("sendrawtransaction", json!([serialize_hex(tx)])).await;
    }
    pair.core.wait_indexed().unwrap();

    let tip = block.block_hash().to_string();
    let genesis = pair.core.hash_at(0).unwrap();
    let first = pair.core.hash_at(1).unwrap();
    let unknown = "00".repeat(32);
    for hash in [
        &tip,
        &genesis,
        &first,
        &unknown,
        &"zz".repeat(32),
        &"1".to_owned(),
        &String::new(),
    ] {
        both.same_in_all_formats(&format!("/rest/block/{hash}"), "").await;
        both.same_in_all_formats(&format!("/rest/block/notxdetails/{hash}"), "")
            .await;
        both.same_in_all_formats(&format!("/rest/spenttxouts/{hash}"), "").await;
        both.same_in_all_formats(&format!("/rest/headers/{hash}"), "").await;
        both.same_in_all_formats(&format!("/rest/headers/7/{hash}"), "?count=3")
            .await;
        both.same_in_all_formats(&format!("/rest/blockfilter/basic/{hash}"), "")
            .await;
        both.same_in_all_formats(&format!("/rest/blockfilterheaders/basic/{hash}"), "?count=9")
            .await;
        both.same_in_all_formats(&format!("/rest/blockfilterheaders/basic/4/{hash}"), "")
            .await;
        both.same_in_all_formats(&format!("/rest/tx/{hash}"), "").await;
        both.same(&format!("/rest/deploymentinfo/{hash}.json")).await;
        for query in [
            "",
            "?offset=0&size=80",
            "?size=1&offset=%38%30",
            "?offset=0&size=0",
            "?offset=9999999&size=1",
            "?offset=1",
        ] {
            both.same_in_all_formats(&format!("/rest/blockpart/{hash}"), query)
                .await;
        }
    }
    for count in ["0", "1", "2000", "2001", "-1", "+1", "x", "", "00005", "%35"] {
        both.same(&format!("/rest/headers/{first}.json?count={count}")).await;
        both.same(&format!(
            "/rest/blockfilterheaders/basic/{first}.hex?a=b&count={count}#x"
        ))
        .await;
    }
    for path in [
        "headers/1/2/3",
        "spenttxouts/1/2",
        "blockfilter/basic",
        "blockfilter/other/",
        "blockfilterheaders/basic",
    ] {
        both.same(&format!("/rest/{path}.json")).await;
    }
    both.same(&format!("/rest/blockfilter/v0/{tip}.json")).await;
    for height in ["0", "1", "105", "106", "-1", "+1", "x%20y", "", "4294967296"] {
        both.same_in_all_formats(&format!("/rest/blockhashbyheight/{height}"), "")
            .await;
    }
    for tx in [&mined, &parent, &child, &block.txdata[0]] {
        both.same_in_all_formats(&format!("/rest/tx/{}", tx.compute_txid()), "")
            .await;
    }

    let outputs = [
        format!("{}-0", mined.compute_txid()),
        format!("{}-0", coin(1).0.txid),
        format!("{}-0", coin(2).0.txid),
        format!("{}-0", parent.compute_txid()),
        format!("{}-0", child.compute_txid()),
        format!("{}-7", child.compute_txid()),
        format!("{unknown}-1"),
        format!("{}-0", coin(3).0.txid),
        format!("{}-0", coin(4).0.txid),
    ];
    for check in ["", "checkmempool/"] {
        both.same_in_all_formats(&format!("/rest/getutxos/{check}{}", outputs.join("/")), "")
            .await;
        both.same_in_all_formats(&format!("/rest/getutxos/{check}{}", outputs[3]), "")
            .await;
        let many = vec![outputs[0].as_str(); 16].join("/");
        both.same_in_all_formats(&format!("/rest/getutxos/{check}{many}"), "")
            .await;
    }
    for path in [
        "",
        "/",
        "/checkmempool",
        "/x",
        "/1-2",
        "/1-2-3",
        &format!("/{unknown}-x"),
        &format!("/{unknown}--1"),
    ] {
        both.same_in_all_formats(&format!("/rest/getutxos{path}"), "").await;
    }
    // BIP 64's own form: whether to look into the memory pool, then the outpoints. Core takes the length of the body
    // for its first byte there, so what is asked for in the path tells what is right.
    for (first, check) in [("00", ""), ("01", "checkmempool/"), ("05", "checkmempool/")] {
        let mut body = hex::decode(format!("{first}02")).unwrap();
        for outpoint in [made, coin(3).0] {
            body.extend(bitcoin::consensus::serialize(&outpoint));
        }
        for (format, body) in [("bin", body.clone()), ("hex", hex::encode(&body).into_bytes())] {
            let path = format!("/rest/getutxos.{format}");
            let posted = http(ours, "POST", &path, &[], &body).await;
            let path = format!("/rest/getutxos/{check}{}-0/{}-0.{format}", made.txid, coin(3).0.txid);
            let told = http(core, "GET", &path, &[], b"").await;
            assert_eq!(posted.bytes, told.bytes, "{path}");
        }
        let cut_off = http(ours, "POST", "/rest/getutxos.bin", &[], &body[..40]).await;
        assert_eq!((cut_off.status, cut_off.body.as_str()), (400, "Parse error\r\n"));
        both.same_post("/rest/getutxos.hex", b"nonsense").await;
        both.same_post("/rest/getutxos.json", &body).await;
        both.same_post(&format!("/rest/getutxos/{}.bin", outputs[0]), &body)
            .await;
    }

    for query in [
        "",
        "?verbose=false",
        "?verbose=false&mempool_sequence=true",
        "?verbose=1",
        "?mempool_sequence=x",
        "?mempool_sequence=true",
    ] {
        // Times and marks of what was told to nobody differ.
        if !query.is_empty() {
            both.same_in_all_formats("/rest/mempool/contents", query).await;
        }
    }
    let contents = |addr| async move { http(addr, "GET", "/rest/mempool/contents.json", &[], b"").await.json() };
    let (core, ours) = (contents(core).await, contents(ours).await);
    assert_eq!(core.as_object().unwrap().len(), 2);
    for (txid, entry) in core.as_object().unwrap() {
        assert_eq!(ours[txid]["fees"], entry["fees"]);
    }
    for path in [
        "/rest/mempool/info",
        "/rest/mempool/info.bin",
        "/rest/mempool/other.json",
        "/rest/chaininfo.bin",
        "/rest/deploymentinfo.hex",
        "/rest/deploymentinfo.json",
        "/rest/deploymentinfo/.json",
        "/rest/nothing",
        "/rest/",
        "/rest/block",
    ] {
        both.same(path).await;
    }
    for path in ["/rest/chaininfo.json", "/rest/mempool/info.json"] {
        let core = http(both.core, "GET", path, &[], b"").await.json();
        let ours = http(both.ours, "GET", path, &[], b"").await.json();
        let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&core), names(&ours), "{path}");
    }

    let elsewhere = http(both.ours, "GET", "/rest/chaininfo.json", &["Host: evil.example"], b"").await;
    assert_eq!(elsewhere.status, 403);
    stop.trigger();
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
