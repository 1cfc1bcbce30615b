//! The same chain and the same mempool in a real bitcoind and in our node: every answer is compared field by field.

#![allow(clippy::unwrap_used)]

mod lab;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{Amount, OutPoint, PublicKey, ScriptBuf, TxOut, WitnessProgram, WitnessVersion, opcodes};
use dunlin_chain::{ChainConfig, Prune};
use dunlin_testkit::coins::{BlockPlan, Holder, coinbase_coin};
use dunlin_testkit::core::Options;
use lab::pair::Pair;
use serde_json::{Value, json};

/// Outputs of every kind that a script can make.
fn zoo(key: PublicKey) -> Vec<ScriptBuf> {
    let hash = [7; 20];
    let uncompressed = PublicKey::new_uncompressed(key.inner);
    let program = |version, bytes: &[u8]| ScriptBuf::new_witness_program(&WitnessProgram::new(version, bytes).unwrap());
    vec![
        ScriptBuf::new_p2pk(&key),
        ScriptBuf::new_p2pk(&uncompressed),
        ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array(hash)),
        ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array(hash)),
        ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array(hash)),
        ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([9; 32])),
        program(WitnessVersion::V1, &key.inner.x_only_public_key().0.serialize()),
        program(WitnessVersion::V1, &[0xff; 32]),
        program(WitnessVersion::V1, &[0x4e, 0x73]),
        program(WitnessVersion::V16, &[1, 2, 3, 4, 5]),
        ScriptBuf::from_bytes(vec![0, 5, 1, 2, 3, 4, 5]),
        Builder::new()
            .push_int(1)
            .push_key(&key)
            .push_key(&uncompressed)
            .push_int(2)
            .push_opcode(opcodes::all::OP_CHECKMULTISIG)
            .into_script(),
        ScriptBuf::from_bytes(vec![]),
        ScriptBuf::from_bytes(vec![0x6a]),
        ScriptBuf::from_bytes(vec![0x6a, 4, 1, 2, 3, 4, 0x4c, 6, 1, 2, 3, 4, 5, 6]),
        ScriptBuf::from_bytes(vec![0x6a, 0x4d, 0xff]),
        ScriptBuf::from_bytes((0x4f..=0xff).collect()),
        ScriptBuf::from_bytes(vec![
            1, 0x80, 2, 0xff, 0x80, 4, 0xff, 0xff, 0xff, 0x7f, 0, 0x4c, 0, 5, 1, 2, 3, 4, 5,
        ]),
    ]
}

#[tokio::test]
async fn a_fresh_chain_answers_alike() {
    let pair = Pair::start();
    let genesis = pair.same("getbestblockhash", json!([])).await;
    pair.same("getblockhash", json!([0])).await;
    pair.same("getblockheader", json!([genesis])).await;
    for verbosity in [json!(0), json!(1), json!(2), json!(3), json!(true), json!(false)] {
        pair.same("getblock", json!([genesis, verbosity])).await;
    }
    pair.same("getdifficulty", json!([])).await;
    pair.same_but(
        "getblockchaininfo",
        json!([]),
        &["size_on_disk", "warnings", "verificationprogress"],
    )
    .await;
    pair.same_but("getmempoolinfo", json!([]), &["usage"]).await;
    pair.same("getrawmempool", json!([])).await;
    pair.same("getrawmempool", json!([true])).await;
    pair.same("getpeerinfo", json!([])).await;
    pair.same("getconnectioncount", json!([])).await;
    // What a node is, not what the interface is.
    let except = [
        "subversion",
        "protocolversion",
        "localservices",
        "localservicesnames",
        "localaddresses",
        "warnings",
    ];
    pair.same_but("getnetworkinfo", json!([]), &except).await;
    pair.same_but(
        "getnettotals",
        json!([]),
        &["totalbytesrecv", "totalbytessent", "timemillis"],
    )
    .await;
    pair.same("listbanned", json!([])).await;
}

#[tokio::test]
async fn a_lively_chain_answers_alike() {
    let pair = Pair::start();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    pair.core.generate(103, &alice.address()).unwrap();
    pair.follow().await;
    let coin = |height| coinbase_coin(&pair.core.block(&pair.core.hash_at(height).unwrap()).unwrap());

    // A transaction in the mempool with a child, in both nodes.
    let parent = alice.pay(coin(1), &bob, Amount::from_sat(1_410));
    let change = (
        OutPoint {
            txid: parent.compute_txid(),
            vout: 0,
        },
        parent.output[0].value,
    );
    let child = bob.pay(change, &alice, Amount::from_sat(20_000));
    for tx in [&parent, &child] {
        let hex = json!([serialize_hex(tx)]);
        pair.same("sendrawtransaction", hex.clone()).await;
        // Once more: still accepted.
        pair.same("sendrawtransaction", hex).await;
    }
    pair.same_but("getmempoolinfo", json!([]), &["usage", "unbroadcastcount"])
        .await;
    pair.same_but("getrawmempool", json!([true]), &["time", "unbroadcast"])
        .await;
    for tx in [&parent, &child] {
        let txid = tx.compute_txid().to_string();
        pair.same_but("getmempoolentry", json!([txid]), &["time", "unbroadcast"])
            .await;
        for verbosity in 0..3 {
            pair.same("getrawtransaction", json!([txid, verbosity])).await;
        }
        pair.same("gettxout", json!([txid, 0])).await;
        pair.same("gettxout", json!([txid, 0, false])).await;
        pair.same("gettxout", json!([txid, 7])).await;
    }
    let spent = coin(1).0;
    pair.same("gettxout", json!([spent.txid, spent.vout])).await;
    pair.same("gettxout", json!([spent.txid, spent.vout, false])).await;

    // Outputs of every kind, in a block made by hand.
    let key = PublicKey::from_slice(
        &hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap(),
    );
    let scripts = zoo(key.unwrap());
    let (outpoint, value) = coin(2);
    let each = value / u64::try_from(scripts.len()).unwrap();
    let outputs = scripts
        .into_iter()
        .map(|script_pubkey| TxOut {
            value: each,
            script_pubkey,
        })
        .collect();
    let zoo = alice.spend(&[(outpoint, value)], outputs);
    let mut plan: BlockPlan = pair.core.plan(&bob).unwrap();
    plan.transactions.push(zoo.clone());
    let block = plan.mine();
    pair.same("submitblock", json!([serialize_hex(&block)])).await;
    pair.same("submitblock", json!([serialize_hex(&block)])).await;
    pair.core.generate(2, &bob.address()).unwrap();
    pair.follow().await;
    assert_eq!(pair.core.mempool().unwrap(), Vec::<String>::new());
    pair.same("getrawmempool", json!([])).await;

    for height in [1, 103, 104, 105, 106] {
        let hash = pair.same("getblockhash", json!([height])).await;
        pair.same("getblockheader", json!([hash])).await;
        pair.same("getblockheader", json!([hash, false])).await;
        for verbosity in 0..4 {
            pair.same("getblock", json!([hash, verbosity])).await;
        }
    }
    let hash = block.block_hash().to_string();
    let txid = zoo.compute_txid().to_string();
    for verbosity in 0..3 {
        pair.same("getrawtransaction", json!([txid, verbosity, hash])).await;
        pair.same(
            "getrawtransaction",
            json!([block.txdata[0].compute_txid(), verbosity, hash]),
        )
        .await;
        pair.same(
            "getrawtransaction",
            json!({"txid": txid, "verbose": verbosity, "blockhash": hash}),
        )
        .await;
    }
    for vout in 0..zoo.output.len() {
        pair.same("gettxout", json!([txid, vout])).await;
    }
    pair.same_but(
        "getblockchaininfo",
        json!([]),
        &["size_on_disk", "warnings", "verificationprogress"],
    )
    .await;
}

#[tokio::test]
async fn mistakes_are_answered_alike() {
    let pair = Pair::start();
    let alice = Holder::new(1);
    pair.core.generate(101, &alice.address()).unwrap();
    pair.follow().await;
    let unknown = "00".repeat(32);
    let genesis = pair.same("getblockhash", json!([0])).await;
    let tip = pair.same("getbestblockhash", json!([])).await;
    let coin = coinbase_coin(&pair.core.block(tip.as_str().unwrap()).unwrap());
    let ripe = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let genesis_coinbase = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";
    let premature = serialize_hex(&alice.pay(coin, &alice, Amount::from_sat(1_000)));
    let cheap = serialize_hex(&alice.pay(ripe, &alice, Amount::from_sat(1)));
    let dear = serialize_hex(&alice.pay(ripe, &alice, Amount::from_sat(20_000_000)));
    let nothing = serialize_hex(&alice.pay(
        (OutPoint { vout: 9, ..ripe.0 }, ripe.1),
        &alice,
        Amount::from_sat(1_000),
    ));
    let mut forged = alice.pay(ripe, &alice, Amount::from_sat(1_000));
    forged.output[0].value -= Amount::from_sat(1);
    let burn = vec![TxOut {
        value: Amount::from_sat(5_000),
        script_pubkey: ScriptBuf::from_bytes(vec![0x6a]),
    }];
    let burn = serialize_hex(&alice.spend(&[ripe], burn));
    let confirmed = pair.core.call("getblock", json!([tip, 2])).unwrap()["tx"][0]["hex"].clone();
    let calls = [
        ("getblockhash", json!([-1])),
        ("getblockhash", json!([102])),
        ("getblockhash", json!([1.5])),
        ("getblockhash", json!([99_999_999_999u64])),
        ("getblockhash", json!(["1"])),
        ("getblockhash", json!([null])),
        ("getblockhash", json!({"hight": 1})),
        ("getblockhash", json!({"height": 1, "args": [1]})),
        ("getblock", json!([unknown])),
        ("getblock", json!(["zz"])),
        ("getblock", json!(["zz".repeat(32)])),
        ("getblock", json!([genesis, "1"])),
        ("getblock", json!([1, 1])),
        (
            "getblock",
            json!({"blockhash": genesis, "verbose": true, "verbosity": 1}),
        ),
        ("getblockheader", json!([unknown])),
        ("getblockheader", json!([genesis, 1])),
        ("getrawtransaction", json!([genesis_coinbase])),
        ("getrawtransaction", json!([unknown])),
        ("getrawtransaction", json!([unknown, 1, unknown])),
        ("getrawtransaction", json!([unknown, 1, genesis])),
        ("getrawtransaction", json!(["abc"])),
        ("getmempoolentry", json!([unknown])),
        ("getrawmempool", json!([true, true])),
        ("gettxout", json!([unknown, 0])),
        ("gettxout", json!([unknown, -1])),
        ("gettxout", json!([genesis_coinbase, 0])),
        ("sendrawtransaction", json!(["00"])),
        ("sendrawtransaction", json!(["xyz"])),
        ("sendrawtransaction", json!([premature])),
        ("sendrawtransaction", json!([cheap])),
        ("sendrawtransaction", json!([dear])),
        ("sendrawtransaction", json!([dear, 1])),
        ("sendrawtransaction", json!([dear, "x"])),
        ("sendrawtransaction", json!([dear, -1])),
        ("sendrawtransaction", json!([dear, []])),
        ("sendrawtransaction", json!([nothing])),
        ("sendrawtransaction", json!([burn])),
        ("sendrawtransaction", json!([confirmed])),
        ("submitblock", json!(["00"])),
        ("submitblock", json!(["xyz"])),
        ("generatetoaddress", json!([1, "nowhere"])),
        ("disconnectnode", json!(["127.0.0.1:1"])),
        ("disconnectnode", json!(["", 77])),
        ("disconnectnode", json!(["127.0.0.1:1", 77])),
        ("setban", json!(["nonsense", "add"])),
        ("setban", json!(["192.0.2.1", "remove"])),
        ("setban", json!(["192.0.2.1", "add", 5, true])),
        ("addnode", json!(["192.0.2.1:1", "remove"])),
        ("nosuchmethod", json!([])),
    ];
    for (method, params) in calls {
        pair.same(method, params).await;
    }
    // The reject's first words are the rule's name; the rest says how the script failed.
    let params = json!([serialize_hex(&forged)]);
    let ours = pair.ours("sendrawtransaction", &params).await.unwrap_err();
    let core = pair.core.call("sendrawtransaction", params).unwrap_err();
    assert_eq!(core.code(), Some(i64::from(ours.code)));
    assert!(core.to_string().contains("script-verify-flag-failed"), "{core}");
    assert!(ours.message.contains("script-verify-flag-failed"), "{}", ours.message);
}

#[tokio::test]
async fn bad_blocks_are_refused_for_the_same_reasons() {
    let pair = Pair::start();
    let alice = Holder::new(1);
    pair.core.generate(101, &alice.address()).unwrap();
    pair.follow().await;
    let plan = || pair.core.plan(&alice).unwrap();
    let mut greedy = plan();
    greedy.reward += Amount::from_sat(1);
    let ripe = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let mut twice = plan();
    twice.transactions.push(alice.pay(ripe, &alice, Amount::ZERO));
    twice.transactions.push(alice.pay(ripe, &Holder::new(2), Amount::ZERO));
    let mut orphan = plan();
    orphan.previous = bitcoin::BlockHash::all_zeros();
    let blocks = [
        greedy.mine(),
        twice.mine(),
        orphan.mine(),
        plan().mine_with_wrong_merkle_root(),
    ];
    for block in blocks {
        let answer = pair.same("submitblock", json!([serialize_hex(&block)])).await;
        assert!(answer.is_string(), "{answer}");
    }
    pair.same("getbestblockhash", json!([])).await;
}

#[tokio::test]
async fn the_operator_moves_the_tip_alike() {
    let pair = Pair::start();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    pair.core.generate(103, &alice.address()).unwrap();
    let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let spend = alice.pay(coin, &bob, Amount::from_sat(10_000));
    let mut plan = pair.core.plan(&alice).unwrap();
    plan.transactions.push(spend);
    let one = plan.mine();
    let mut plan = pair.core.plan(&bob).unwrap();
    plan.time += 1;
    let other = plan.mine();
    pair.follow().await;
    for block in [&one, &other] {
        pair.same("submitblock", json!([serialize_hex(block)])).await;
    }
    let (one, other) = (one.block_hash().to_string(), other.block_hash().to_string());
    let agree = async || {
        pair.same("getbestblockhash", json!([])).await;
        let mut tips = Vec::new();
        for answer in [
            pair.core.call("getchaintips", json!([])).unwrap(),
            pair.ours("getchaintips", &json!([])).await.unwrap(),
        ] {
            let mut list: Vec<String> = answer.as_array().unwrap().iter().map(Value::to_string).collect();
            // Core leaves open which of two tips of one height stands first.
            list.sort();
            tips.push(list);
        }
        assert_eq!(tips[0], tips[1]);
        pair.same("getrawmempool", json!([])).await;
        pair.same("getblockcount", json!([])).await;
        tips.remove(0)
    };
    assert!(agree().await.concat().contains("valid-headers"));
    pair.same("preciousblock", json!([other])).await;
    assert!(agree().await.concat().contains("valid-fork"));
    pair.same("preciousblock", json!([one])).await;
    agree().await;
    pair.same("preciousblock", json!([other])).await;
    agree().await;
    pair.same("invalidateblock", json!([other])).await;
    assert!(agree().await.concat().contains("invalid"));
    pair.same("invalidateblock", json!([one])).await;
    agree().await;
    assert_eq!(pair.core.height().unwrap(), 103);
    for params in [
        json!([]),
        json!([0, 0]),
        json!([4, 10]),
        json!([9, -1]),
        json!(["3"]),
        json!([1, 2, 3]),
    ] {
        if params == json!([1, 2, 3]) {
            assert_eq!(pair.ours("verifychain", &params).await.unwrap_err().code, -1);
        } else {
            pair.same("verifychain", params).await;
        }
    }
    // A block that is built on an invalid one is refused, and what Core has not seen is headers-only in neither.
    let deep = pair.core.hash_at(90).unwrap();
    pair.same("invalidateblock", json!([deep])).await;
    agree().await;
    pair.same("reconsiderblock", json!([one])).await;
    agree().await;
    pair.same("reconsiderblock", json!([other])).await;
    agree().await;
    pair.same("reconsiderblock", json!([deep])).await;
    agree().await;
    let genesis = pair.core.hash_at(0).unwrap();
    pair.same("invalidateblock", json!([genesis])).await;
    agree().await;
    let unknown = "00".repeat(32);
    for method in ["invalidateblock", "reconsiderblock", "preciousblock"] {
        for params in [json!([unknown]), json!(["zz"]), json!(["zz".repeat(32)]), json!([1])] {
            pair.same(method, params).await;
        }
    }
}

#[tokio::test]
async fn pruned_nodes_answer_alike() {
    let by_hand = Options {
        extra: vec!["-prune=1".into(), "-fastprune=1".into()],
        ..Options::default()
    };
    let config = ChainConfig {
        prune: Prune::Manual,
        block_file_bytes: 64 << 10,
        ..ChainConfig::default()
    };
    let pair = Pair::start_with(by_hand, config, &[]);
    let info = ["size_on_disk", "warnings", "verificationprogress"];
    pair.same_but("getblockchaininfo", json!([]), &info).await;
    pair.same("pruneblockchain", json!([10])).await;
    pair.core.generate(1000, &Holder::new(1).address()).unwrap();
    pair.follow().await;
    for bad in [
        json!([-1]),
        json!([1001]),
        json!([2_000_000_000]),
        json!(["1"]),
        json!([]),
    ] {
        if bad == json!([]) {
            assert_eq!(pair.ours("pruneblockchain", &bad).await.unwrap_err().code, -1);
        } else {
            pair.same("pruneblockchain", bad).await;
        }
    }
    pair.same("pruneblockchain", json!([0])).await;
    let pruned = |answer: Value| answer.as_i64().unwrap();
    let core = pruned(pair.core.call("pruneblockchain", json!([1000])).unwrap());
    let ours = pruned(pair.ours("pruneblockchain", &json!([1000])).await.unwrap());
    // Where one file ends and the next begins differs a little.
    assert!(core > 400 && ours > 400 && core <= 712 && ours <= 712, "{core} {ours}");
    pair.same_but("getblockchaininfo", json!([]), &[&info[..], &["pruneheight"]].concat())
        .await;
    let height = pair.ours("getblockchaininfo", &json!([])).await.unwrap()["pruneheight"].as_i64();
    assert_eq!(height, Some(ours + 1));
    for height in [1, 400, 713, 1000] {
        let hash = pair.core.hash_at(height).unwrap();
        for verbosity in 0..4 {
            pair.same("getblock", json!([hash, verbosity])).await;
        }
        pair.same("getblockheader", json!([hash])).await;
        let coinbase = "11".repeat(32);
        pair.same("getrawtransaction", json!([coinbase, 1, hash])).await;
    }
    // No peer has this number; one block is here, and one nobody knows.
    let (gone, here, unknown) = (
        pair.core.hash_at(1).unwrap(),
        pair.core.hash_at(1000).unwrap(),
        "11".repeat(32),
    );
    let next = pair.core.plan(&Holder::new(1)).unwrap().mine();
    pair.same("submitheader", json!([serialize_hex(&next.header)])).await;
    let ahead = next.block_hash().to_string();
    for wrong in [
        json!([gone, 99]),
        json!([gone, -1]),
        json!([here, 99]),
        json!([unknown, 99]),
        json!([ahead, 99]),
        json!(["zz", 99]),
        json!([gone, "99"]),
    ] {
        pair.same("getblockfrompeer", wrong).await;
    }
    let whole = Pair::start();
    whole.same("pruneblockchain", json!([10])).await;

    let by_size = Options {
        extra: vec!["-prune=550".into()],
        ..Options::default()
    };
    let config = ChainConfig {
        prune: Prune::Target(550 << 20),
        ..ChainConfig::default()
    };
    let pair = Pair::start_with(by_size, config, &[]);
    pair.same_but("getblockchaininfo", json!([]), &info).await;
}
