//! A chain with reorganisations, burnt coins and unclaimed rewards, indexed by a real bitcoind and by our node: what
//! is told from the indexes, and of whole blocks, is compared field by field.

#![allow(clippy::unwrap_used)]

mod lab;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use dunlin_chain::ChainConfig;
use dunlin_chain::indexes::IndexKind;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::Options;
use lab::pair::Pair;
use serde_json::{Value, json};

fn pair() -> Pair {
    let extra = ["-txindex", "-blockfilterindex", "-coinstatsindex", "-txospenderindex"];
    let options = Options {
        extra: extra.map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let indexes = [IndexKind::Tx, IndexKind::Spender, IndexKind::Filter, IndexKind::Stats];
    Pair::start_with(options, ChainConfig::default(), &indexes)
}

/// What happened, by the names that the questions ask by.
struct Story {
    /// Spends two coins to three outputs, one of them burnt; its first output is spent in the same block.
    first: Transaction,
    second: Transaction,
    /// In the memory pool.
    waiting: Transaction,
    /// In a block that has left the chain, and in none that is in it.
    lost: Transaction,
    stale: String,
}

/// 120 blocks, some transactions, a coinbase that takes less than it may, a reorganisation.
async fn tell(pair: &Pair) -> Story {
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    pair.core.generate(120, &alice.address()).unwrap();
    pair.follow().await;
    let coin = |height| coinbase_coin(&pair.core.block(&pair.core.hash_at(height).unwrap()).unwrap());
    let output = |value, script_pubkey| TxOut {
        value: Amount::from_sat(value),
        script_pubkey,
    };
    let burnt = ScriptBuf::from_bytes(vec![0x6a, 2, 7, 7]);
    let outputs = vec![
        output(3_000_000_000, bob.script()),
        output(12_345, burnt),
        output(4_000_000_000, alice.script()),
    ];
    let first = alice.spend(&[coin(1), coin(2)], outputs);
    let made = |vout: u32| {
        (
            OutPoint {
                txid: first.compute_txid(),
                vout,
            },
            first.output[vout as usize].value,
        )
    };
    let second = bob.pay(made(0), &alice, Amount::from_sat(5_000));
    let mut plan = pair.core.plan(&bob).unwrap();
    plan.transactions = vec![
        first.clone(),
        second.clone(),
        alice.pay(coin(3), &bob, Amount::from_sat(77_000)),
    ];
    plan.reward = Amount::from_sat(4_999_999_000);
    let block = plan.mine();
    pair.same("submitblock", json!([serialize_hex(&block)])).await;
    pair.core.generate(10, &bob.address()).unwrap();
    pair.follow().await;

    // A block that is overtaken by two others.
    let lost = alice.pay(coin(4), &bob, Amount::from_sat(1_000));
    let mut plan = pair.core.plan(&alice).unwrap();
    plan.transactions = vec![lost.clone()];
    let mut rival = pair.core.plan(&bob).unwrap();
    rival.transactions = vec![alice.pay(coin(4), &alice, Amount::from_sat(2_000))];
    let (stale, rival) = (plan.mine(), rival.mine());
    pair.same("submitblock", json!([serialize_hex(&stale)])).await;
    let submitted = pair.core.call("submitblock", json!([serialize_hex(&rival)])).unwrap();
    assert_eq!(submitted, json!("inconclusive"));
    pair.core.call("invalidateblock", json!([stale.block_hash()])).unwrap();
    pair.core.generate(20, &alice.address()).unwrap();
    pair.core.call("reconsiderblock", json!([stale.block_hash()])).unwrap();
    pair.follow_any().await;
    pair.same("getbestblockhash", json!([])).await;

    let waiting = alice.pay(made(2), &bob, Amount::from_sat(9_000));
    pair.same("sendrawtransaction", json!([serialize_hex(&waiting)])).await;
    Story {
        first,
        second,
        waiting,
        lost,
        stale: stale.block_hash().to_string(),
    }
}

#[tokio::test]
async fn indexes_answer_alike() {
    let pair = pair();
    let story = tell(&pair).await;
    pair.core.wait_indexed().unwrap();
    let (mut transactions, mut outputs) = (Vec::new(), Vec::new());
    for height in 0..=pair.core.height().unwrap() {
        let hash = pair.core.hash_at(height).unwrap();
        pair.same("getblockfilter", json!([hash])).await;
        pair.same("gettxoutsetinfo", json!(["muhash", height])).await;
        pair.same("gettxoutsetinfo", json!(["none", hash])).await;
        let block = pair.core.block(&hash).unwrap();
        if height > 100 {
            transactions.extend(block.txdata.iter().map(Transaction::compute_txid));
        }
        let spent = block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
        outputs.extend(spent.map(|input| input.previous_output));
    }
    pair.same("getblockfilter", json!([story.stale, "basic"])).await;
    pair.same("getblockfilter", json!([story.stale, "fancy"])).await;
    pair.same("gettxoutsetinfo", json!(["muhash", story.stale])).await;
    pair.same("gettxoutsetinfo", json!(["muhash"])).await;
    for wrong in [
        json!(["sha1"]),
        json!(["hash_serialized_3", 5]),
        json!(["muhash", 5, false]),
        json!(["muhash", -5]),
        json!(["none", 99_999]),
        json!(["none", "00".repeat(32)]),
    ] {
        pair.same("gettxoutsetinfo", wrong).await;
    }
    pair.same("getblockfilter", json!(["00".repeat(32)])).await;

    transactions.extend([&story.waiting, &story.lost].map(Transaction::compute_txid));
    for txid in transactions {
        for verbosity in 0..3 {
            pair.same("getrawtransaction", json!([txid, verbosity])).await;
        }
    }
    pair.same("getrawtransaction", json!(["11".repeat(32)])).await;
    pair.same(
        "getrawtransaction",
        json!([story.second.compute_txid(), 1, story.stale]),
    )
    .await;

    assert!(outputs.len() >= 5);
    outputs.extend(story.waiting.input.iter().map(|input| input.previous_output));
    outputs.extend((0..4).map(|vout| OutPoint {
        txid: story.second.compute_txid(),
        vout,
    }));
    let asked = |outpoint: &OutPoint| json!({"txid": outpoint.txid.to_string(), "vout": outpoint.vout});
    let all: Vec<Value> = outputs.iter().map(asked).collect();
    for options in [
        json!({}),
        json!({"mempool_only": true}),
        json!({"return_spending_tx": true}),
        json!({"mempool_only": false, "return_spending_tx": false}),
    ] {
        pair.same("gettxspendingprevout", json!([all, options])).await;
    }
    for wrong in [
        json!([[]]),
        json!([["x"]]),
        json!([[{"txid": "00".repeat(32)}]]),
        json!([[{"txid": "00".repeat(32), "vout": -1}]]),
        json!([[{"txid": "00", "vout": 0}]]),
        json!([[{"txid": 7, "vout": 0}]]),
        json!([[{"txid": "00".repeat(32), "vout": 0, "more": 1}]]),
        json!([[all[0]], {"mempool_only": 1}]),
        json!([[all[0]], {"other": true}]),
    ] {
        pair.same("gettxspendingprevout", wrong).await;
    }
    pair.same("getindexinfo", json!([])).await;
    pair.same("getindexinfo", json!(["txindex"])).await;
    pair.same("getindexinfo", json!(["nothing"])).await;
}

#[tokio::test]
async fn questions_about_blocks_are_answered_alike() {
    let pair = pair();
    let story = tell(&pair).await;
    pair.core.wait_indexed().unwrap();
    let tip = pair.core.height().unwrap();
    for height in [0, 1, 2, 100, 120, 121, 125, 132, tip] {
        pair.same("getblockstats", json!([height])).await;
        let hash = pair.core.hash_at(height).unwrap();
        pair.same("getdeploymentinfo", json!([hash])).await;
        pair.same("getchaintxstats", json!([0, hash])).await;
        pair.same("getchaintxstats", json!([height / 2, hash])).await;
        pair.same(
            "getblockstats",
            json!([hash, ["txs", "avgfee", "feerate_percentiles", "total_out"]]),
        )
        .await;
    }
    pair.same("getblockstats", json!([story.stale])).await;
    pair.same("getdeploymentinfo", json!([])).await;
    pair.same("getdeploymentinfo", json!([story.stale])).await;
    pair.same("getchaintxstats", json!([])).await;
    pair.same("getchaintxstats", json!([tip - 1])).await;
    for wrong in [
        json!([-1]),
        json!([tip + 1]),
        json!(["00".repeat(32)]),
        json!(["zz"]),
        json!([true]),
        json!([1, ["nonsense"]]),
        json!([1, [1]]),
        json!([1.5]),
    ] {
        pair.same("getblockstats", wrong).await;
    }
    for wrong in [
        json!([-1]),
        json!([tip]),
        json!([1, story.stale]),
        json!([1, "00".repeat(32)]),
    ] {
        pair.same("getchaintxstats", wrong).await;
    }
    pair.same("getdeploymentinfo", json!(["00".repeat(32)])).await;

    let (first, second) = (story.first.compute_txid(), story.second.compute_txid());
    let hash = pair.core.hash_at(121).unwrap();
    for params in [
        json!([[first]]),
        json!([[second]]),
        json!([[first, second]]),
        json!([[first, second], hash]),
        json!([[second], hash]),
    ] {
        let proof = pair.same("gettxoutproof", params).await;
        let text = proof.as_str().unwrap();
        pair.same("verifytxoutproof", json!([text])).await;
        pair.same("verifytxoutproof", json!([format!("{text}00")])).await;
        // Broken in the tree, in the header, and at the end.
        for at in [2, 100, 170, text.len() - 3] {
            let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
            let broken = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            pair.same("verifytxoutproof", json!([broken])).await;
        }
        pair.same("verifytxoutproof", json!([text[..text.len() - 2]])).await;
    }
    for wrong in [
        json!([[]]),
        json!([["00"]]),
        json!([[1]]),
        json!([[first, first]]),
        json!([[first], story.stale]),
        json!([["11".repeat(32)]]),
        json!([[first], "00".repeat(32)]),
        json!([[story.waiting.compute_txid()]]),
    ] {
        pair.same("gettxoutproof", wrong).await;
    }
    pair.same("verifytxoutproof", json!(["xyz"])).await;
    pair.same("verifytxoutproof", json!([""])).await;
}
