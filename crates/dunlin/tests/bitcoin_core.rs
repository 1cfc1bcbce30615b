//! Against a real bitcoind, both directions: sync, transactions, blocks, a reorganisation, and blocks that no honest
//! peer would send.

#![allow(clippy::unwrap_used)]

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Block, OutPoint, Transaction};
use dunlin_testkit::bitcoin_peer::BitcoinPeer;
use dunlin_testkit::coins::{BlockPlan, Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(60);
const FEE: Amount = Amount::from_sat(10_000);

/// Waits until both have the same tip, and checks its height.
fn agree(core: &Bitcoind, dunlin: &Dunlin, height: u64) {
    wait_equal(
        "both have the same tip",
        LIMIT,
        || core.best_hash().unwrap(),
        || dunlin.best_hash().unwrap(),
    )
    .unwrap();
    assert_eq!(core.height().unwrap(), height);
    assert_eq!(dunlin.height().unwrap(), height);
}

fn wait_both_connected(core: &Bitcoind, dunlin: &Dunlin) {
    core.wait_connected(LIMIT).unwrap();
    wait_until("dunlin has a peer", LIMIT, || !dunlin.peers().unwrap().is_empty()).unwrap();
}

fn coin_of(core: &Bitcoind, height: u64) -> (OutPoint, Amount) {
    coinbase_coin(&core.block(&core.hash_at(height).unwrap()).unwrap())
}

fn send(rpc: impl Fn(&str, Value) -> Value, transaction: &Transaction) -> String {
    rpc("sendrawtransaction", json!([serialize_hex(transaction)]))
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn we_sync_500_blocks_from_core() {
    let core = Bitcoind::start(Options::default()).unwrap();
    core.generate(500, &Holder::new(1).address()).unwrap();
    let dunlin = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
    agree(&core, &dunlin, 500);
    for height in [0, 1, 250, 499] {
        let hash = core.hash_at(height).unwrap();
        assert_eq!(dunlin.call("getblockhash", json!([height])).unwrap(), json!(hash));
        assert_eq!(
            dunlin.call("getblock", json!([hash, 0])).unwrap(),
            core.call("getblock", json!([hash, 0])).unwrap(),
            "block {height} byte for byte"
        );
    }
    let [ours, theirs] = [dunlin.rpc(), core.rpc()].map(|rpc| rpc.call("getblockchaininfo", json!([])).unwrap());
    for key in [
        "chain",
        "blocks",
        "headers",
        "bestblockhash",
        "chainwork",
        "mediantime",
        "initialblockdownload",
    ] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
}

#[test]
fn core_syncs_500_blocks_from_us() {
    let dunlin = Dunlin::start(DUNLIN, &[]).unwrap();
    let miner = Holder::new(1);
    dunlin.call("generatetoaddress", json!([500, miner.address()])).unwrap();
    let core = Bitcoind::start(Options {
        connect: vec![dunlin.doors().p2p],
        ..Options::default()
    })
    .unwrap();
    agree(&core, &dunlin, 500);
    // Core counts the coins itself: every subsidy is there and none is larger than it may be.
    let coins = core.call("gettxoutsetinfo", json!([])).unwrap();
    let subsidies: u64 = (1..=500)
        .map(|height| dunlin_testkit::coins::subsidy(height).to_sat())
        .sum();
    let amount = Amount::from_btc(coins["total_amount"].as_f64().unwrap()).unwrap();
    assert_eq!(amount.to_sat(), subsidies);
}

/// Transactions and blocks cross in both directions over one connection.
fn exchange(core: &Bitcoind, dunlin: &Dunlin) {
    let (miner, friend) = (Holder::new(1), Holder::new(2));
    core.generate(110, &miner.address()).unwrap();
    agree(core, dunlin, 110);

    let from_core = send(
        |method, params| core.call(method, params).unwrap(),
        &miner.pay(coin_of(core, 1), &friend, FEE),
    );
    wait_until("Core's transaction is with us", LIMIT, || {
        dunlin.mempool().unwrap().contains(&from_core)
    })
    .unwrap();
    let from_us = send(
        |method, params| dunlin.call(method, params).unwrap(),
        &miner.pay(coin_of(core, 2), &friend, FEE * 2),
    );
    wait_until("our transaction is with Core", LIMIT, || {
        core.mempool().unwrap().contains(&from_us)
    })
    .unwrap();

    dunlin.call("generatetoaddress", json!([1, miner.address()])).unwrap();
    agree(core, dunlin, 111);
    let block = core.block(&core.best_hash().unwrap()).unwrap();
    let mined: Vec<String> = block.txdata[1..]
        .iter()
        .map(|transaction| transaction.compute_txid().to_string())
        .collect();
    assert_eq!(mined.len(), 2);
    assert!(mined.contains(&from_core) && mined.contains(&from_us));
    assert_eq!(
        block.txdata[0].output[0].value,
        dunlin_testkit::coins::subsidy(111) + FEE * 3
    );
    for mempool in [core.mempool().unwrap(), dunlin.mempool().unwrap()] {
        assert!(mempool.is_empty(), "{mempool:?}");
    }
    for transaction in [&from_core, &from_us] {
        let [ours, theirs] =
            [dunlin.rpc(), core.rpc()].map(|rpc| rpc.call("gettxout", json!([transaction, 0])).unwrap());
        assert_eq!(ours["value"], theirs["value"]);
        assert_eq!(ours["scriptPubKey"]["hex"], theirs["scriptPubKey"]["hex"]);
    }

    core.generate(1, &miner.address()).unwrap();
    agree(core, dunlin, 112);
}

#[test]
fn transactions_and_blocks_cross_when_we_dial() {
    let core = Bitcoind::start(Options::default()).unwrap();
    let dunlin = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
    wait_both_connected(&core, &dunlin);
    exchange(&core, &dunlin);
}

#[test]
fn transactions_and_blocks_cross_when_core_dials() {
    let dunlin = Dunlin::start(DUNLIN, &[]).unwrap();
    // As Core is started by everybody, with the encrypted transport.
    let core = Bitcoind::start(Options {
        v2transport: true,
        connect: vec![dunlin.doors().p2p],
        ..Options::default()
    })
    .unwrap();
    wait_both_connected(&core, &dunlin);
    exchange(&core, &dunlin);
}

#[test]
fn a_reorganisation_of_ten_blocks_is_followed() {
    let core = Bitcoind::start(Options::default()).unwrap();
    let (miner, other) = (Holder::new(1), Holder::new(2));
    core.generate(110, &miner.address()).unwrap();
    let dunlin = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
    agree(&core, &dunlin, 110);

    // One payment is mined on the branch that will be left, and a coin of that branch is spent by nobody.
    let payment = miner.pay(coin_of(&core, 1), &other, FEE);
    let txid = send(|method, params| core.call(method, params).unwrap(), &payment);
    core.generate(10, &miner.address()).unwrap();
    agree(&core, &dunlin, 120);
    let left: Vec<String> = (111..=120).map(|height| core.hash_at(height).unwrap()).collect();
    let lost_coin = coin_of(&core, 115).0;
    let known = |outpoint: &OutPoint| {
        let answer = dunlin
            .call("gettxout", json!([outpoint.txid.to_string(), outpoint.vout, false]))
            .unwrap();
        !answer.is_null()
    };
    assert!(known(&lost_coin));

    core.call("invalidateblock", json!([left[0]])).unwrap();
    core.generate(11, &other.address()).unwrap();
    agree(&core, &dunlin, 121);
    for (height, hash) in (111..).zip(&left) {
        let now = dunlin.call("getblockhash", json!([height])).unwrap();
        assert_ne!(now, json!(hash), "block {height} was left");
        assert_eq!(now, json!(core.hash_at(height).unwrap()));
    }
    assert!(!known(&lost_coin), "a coin of the branch that was left is gone");
    assert!(
        known(&OutPoint::new(txid.parse().unwrap(), 0)),
        "the payment was mined again"
    );
    assert!(dunlin.mempool().unwrap().is_empty());
    let [ours, theirs] = [dunlin.rpc(), core.rpc()].map(|rpc| rpc.call("getblockchaininfo", json!([])).unwrap());
    assert_eq!(ours["chainwork"], theirs["chainwork"]);
}

/// A block with one flaw, and what Core calls it.
struct Flawed {
    name: &'static str,
    make: fn(BlockPlan, &Holder, &[(OutPoint, Amount)]) -> Block,
    core_says: &'static str,
}

const FLAWS: [Flawed; 4] = [
    Flawed {
        name: "bad merkle root",
        make: |plan, _, _| plan.mine_with_wrong_merkle_root(),
        core_says: "bad-txnmrklroot",
    },
    Flawed {
        name: "double spend",
        make: |mut plan, miner, coins| {
            let friends = [Holder::new(3), Holder::new(4)];
            plan.transactions
                .extend(friends.iter().map(|friend| miner.pay(coins[0], friend, FEE)));
            plan.mine()
        },
        core_says: "bad-txns-inputs-missingorspent",
    },
    Flawed {
        name: "excess subsidy",
        make: |mut plan, miner, coins| {
            plan.transactions.push(miner.pay(coins[0], &Holder::new(3), FEE));
            plan.reward += FEE + Amount::from_sat(1);
            plan.mine()
        },
        core_says: "bad-cb-amount",
    },
    Flawed {
        name: "bad signature",
        make: |mut plan, miner, coins| {
            let mut transaction = miner.pay(coins[0], &Holder::new(3), FEE);
            // The signature covers the outputs: with one satoshi less it fits no more.
            transaction.output[0].value -= Amount::from_sat(1);
            plan.transactions.push(transaction);
            plan.mine()
        },
        core_says: "block-script-verify-flag-failed",
    },
];

#[test]
fn an_invalid_block_is_rejected_by_name_and_its_sender_disconnected() {
    let core = Bitcoind::start(Options::default()).unwrap();
    let miner = Holder::new(1);
    core.generate(110, &miner.address()).unwrap();
    let dunlin = Dunlin::start(DUNLIN, &["--add-peer", &core.p2p().to_string()]).unwrap();
    agree(&core, &dunlin, 110);
    let tip = dunlin.best_hash().unwrap();
    let coins = [coin_of(&core, 1), coin_of(&core, 2)];

    for (index, flaw) in (1..).zip(&FLAWS) {
        // Copies are handed to Core and to us by RPC: both must use the same name for the flaw. Each its own, because
        // a block travels in its compact form before anybody has judged all of it.
        let mut plan = core.plan(&miner).unwrap();
        let submitted = serialize_hex(&(flaw.make)(plan.clone(), &miner, &coins));
        let reason = core
            .call("submitblock", json!([submitted]))
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned();
        assert!(reason.starts_with(flaw.core_says), "{}: Core says {reason}", flaw.name);
        // Core adds in brackets where a script failed; its kernel library, which we ask, does not say that.
        let reason = reason.split(" (").next().unwrap().to_owned();
        plan.time += 1;
        let submitted = serialize_hex(&(flaw.make)(plan.clone(), &miner, &coins));
        let ours = dunlin.call("submitblock", json!([submitted])).unwrap();
        assert_eq!(ours, json!(reason), "{}", flaw.name);

        // Another copy comes from a peer, at an address of its own so that nobody else suffers.
        plan.time += 1;
        let block = (flaw.make)(plan, &miner, &coins);
        let hash = block.block_hash();
        let from = Ipv4Addr::new(127, 0, 0, 10 + index);
        let liar = BitcoinPeer::dial(from, dunlin.doors().p2p, vec![block], 111).unwrap();
        wait_until("the block was fetched", LIMIT, || liar.seen().served.contains(&hash)).unwrap_or_else(|error| {
            panic!("{}: {error}; it saw {:?}", flaw.name, liar.seen());
        });
        wait_until("its sender is disconnected", LIMIT, || liar.seen().closed == 1)
            .unwrap_or_else(|error| panic!("{}: {error}", flaw.name));
        let address = liar.address().to_string();
        wait_until("the log names the reason and the sender", LIMIT, || {
            dunlin
                .log()
                .lines()
                .any(|line| line.contains(&address) && line.contains(&reason))
        })
        .unwrap_or_else(|error| panic!("{}: {error}", flaw.name));
        let peers = dunlin.peers().unwrap();
        assert!(
            peers.iter().all(|peer| peer["addr"] != json!(address)),
            "{}: {peers:?}",
            flaw.name
        );
        assert_eq!(dunlin.best_hash().unwrap(), tip, "{}", flaw.name);
    }

    // The honest peer is still there, and the same coins can be spent in a good block.
    let good = miner.pay(coins[0], &Holder::new(3), FEE);
    send(|method, params| core.call(method, params).unwrap(), &good);
    core.generate(1, &miner.address()).unwrap();
    agree(&core, &dunlin, 111);
}
