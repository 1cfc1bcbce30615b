//! Transactions, scripts, addresses and messages made and read by hand, and what miners ask: a real bitcoind and our
//! node answer alike.

#![allow(clippy::unwrap_used)]

mod lab;

use std::time::Duration;

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use lab::pair::Pair;
use serde_json::{Value, json};

/// The generator of secp256k1 and twice it, in both forms.
const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const OTHER: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
const LONG: &str = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

#[tokio::test]
async fn transactions_made_by_hand_are_alike() {
    let pair = Pair::start();
    let (alice, bob) = (Holder::new(1).address(), Holder::new(2).address());
    let txid = "ab".repeat(32);
    let input = json!({ "txid": txid, "vout": 1 });
    let made = [
        json!([[], {}]),
        json!([[], []]),
        json!([[input], { alice.clone(): 0.1 }]),
        json!([[input], [{ alice.clone(): "1.00000001" }, { "data": "00010203" }, { bob.clone(): 0 }]]),
        json!([[input], { alice.clone(): 1 }, 500]),
        json!([[input], { alice.clone(): 1 }, 500, false]),
        json!([[input], { alice.clone(): 1 }, 0, false]),
        json!([[input], { alice.clone(): 1 }, 0, true, 3]),
        json!([[{ "txid": txid, "vout": 0, "sequence": 7 }, input], { alice.clone(): 1 }, 4294967295u32]),
    ];
    for params in made {
        let hex = pair.same("createrawtransaction", params).await;
        for form in [json!([hex]), json!([hex, true]), json!([hex, false])] {
            pair.same("decoderawtransaction", form).await;
        }
    }
    for params in [
        json!([[{ "vout": 1 }], {}]),
        json!([[{ "txid": "zz", "vout": 1 }], {}]),
        json!([[{ "txid": txid }], {}]),
        json!([[{ "txid": txid, "vout": -1 }], {}]),
        json!([[{ "txid": txid, "vout": 1, "sequence": -1 }], {}]),
        json!([[{ "txid": txid, "vout": 1, "sequence": 4294967296u64 }], {}]),
        json!([[input], { "nowhere": 1 }]),
        json!([[input], { alice.clone(): -1 }]),
        json!([[input], { alice.clone(): "x" }]),
        json!([[input], [{ alice.clone(): 1 }, { alice.clone(): 2 }]]),
        json!([[input], [{ "data": "00" }, { "data": "01" }]]),
        json!([[input], { "data": "xyz" }]),
        json!([[input], { "data": "" }]),
        json!([[input], [{ alice.clone(): 1, bob.clone(): 2 }]]),
        json!([[input], [7]]),
        json!([[], {}, -1]),
        json!([[], {}, 4294967296u64]),
        json!([[], {}, 0, true, 4]),
        json!([[], {}, 0, true, 0]),
        json!([[{ "txid": txid, "vout": 1, "sequence": 4294967295u32 }], {}, 0, true]),
    ] {
        pair.same("createrawtransaction", params).await;
    }
    let funded = Holder::new(1).pay(
        (
            bitcoin::OutPoint::new(txid.parse().unwrap(), 0),
            Amount::from_sat(90_000),
        ),
        &Holder::new(2),
        Amount::from_sat(1_000),
    );
    let hex = serialize_hex(&funded);
    for params in [
        json!([hex]),
        json!([hex, true]),
        json!([hex, false]),
        json!(["00"]),
        json!(["xyz"]),
        json!([""]),
        json!([format!("{hex}00")]),
    ] {
        pair.same("decoderawtransaction", params).await;
    }
}

#[tokio::test]
async fn scripts_and_addresses_read_alike() {
    let pair = Pair::start();
    let hash = "751e76e8199196d454941c45d1b3a323f1433bd6";
    for script in [
        String::new(),
        format!("21{KEY}ac"),
        format!("41{LONG}ac"),
        format!("76a914{hash}88ac"),
        format!("a914{hash}87"),
        format!("0014{hash}"),
        format!("0020{}", "07".repeat(32)),
        format!("5120{}", &KEY[2..]),
        "51024e73".to_owned(),
        format!("5121{KEY}21{OTHER}52ae"),
        format!("5121{KEY}41{LONG}52ae"),
        "6a0401020304".to_owned(),
        "6a".to_owned(),
        "50".to_owned(),
        "ba".to_owned(),
        "bb".to_owned(),
        "4c".to_owned(),
    ] {
        pair.same("decodescript", json!([script])).await;
    }
    pair.same("decodescript", json!(["xyz"])).await;

    let holder = Holder::new(1).address();
    for text in [
        holder.as_str(),
        "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r",
        "2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br",
        "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry",
        "bcrt1pfeesnyr2tx",
        "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8s",
        "nowhere",
        "",
        "0OIl",
    ] {
        pair.same("validateaddress", json!([text])).await;
    }
    let wrong = bcrt_with_a_slip(&holder);
    let ours = pair.ours("validateaddress", &json!([wrong])).await.unwrap();
    assert_eq!(ours["isvalid"], false);

    for params in [
        json!([1, [KEY]]),
        json!([2, [KEY, OTHER]]),
        json!([2, [KEY, OTHER], "legacy"]),
        json!([2, [KEY, OTHER], "p2sh-segwit"]),
        json!([2, [KEY, OTHER], "bech32"]),
        json!([1, [KEY, LONG], "bech32"]),
        json!([1, [LONG]]),
        json!([15, vec![KEY; 15], "bech32"]),
        json!([16, vec![KEY; 16]]),
        json!([1, vec![KEY; 21]]),
        json!([0, [KEY]]),
        json!([-1, [KEY]]),
        json!([3, [KEY, OTHER]]),
        json!([1, []]),
        json!([1, [KEY], "bech32m"]),
        json!([1, [KEY], "other"]),
        json!([1, ["zz"]]),
        json!([1, ["00"]]),
        json!([1, ["05".repeat(33)]]),
        json!([1, [7]]),
    ] {
        pair.same("createmultisig", params).await;
    }
}

#[tokio::test]
async fn descriptors_are_read_alike() {
    let pair = Pair::start();
    let xpub = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B";
    let wif = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA";
    let bodies = [
        (format!("pkh({KEY})"), false),
        (format!("wpkh({KEY})"), false),
        (format!("sh(wpkh({KEY}))"), false),
        (format!("tr({KEY})"), false),
        (format!("pk({KEY})"), false),
        (format!("combo({KEY})"), false),
        (format!("wsh(multi(1,{KEY},{OTHER}))"), false),
        (format!("wpkh({xpub}/0/*)"), true),
        (format!("wsh(sortedmulti(2,{xpub}/1/*,{xpub}/2/*))"), true),
        (format!("pkh([d34db33f/44'/0'/0']{xpub}/1/*)"), true),
        (format!("wpkh({xpub}/<0;1>/*)"), true),
        (format!("wpkh({xpub}/0'/*)"), true),
        (format!("wpkh({wif})"), false),
        (format!("raw(76a914{}88ac)", "07".repeat(20)), false),
        ("raw(6a)".to_owned(), false),
        (format!("addr({})", Holder::new(1).address()), false),
    ];
    for (body, ranged) in bodies {
        let info = pair.same("getdescriptorinfo", json!([body])).await;
        let sealed = format!("{body}#{}", info["checksum"].as_str().unwrap());
        pair.same("getdescriptorinfo", json!([sealed])).await;
        pair.same("deriveaddresses", json!([sealed])).await;
        pair.same("deriveaddresses", json!([sealed, [2, 4]])).await;
        if ranged {
            pair.same("deriveaddresses", json!([sealed, 3])).await;
            pair.same("deriveaddresses", json!([sealed, [4, 2]])).await;
        }
        pair.same("deriveaddresses", json!([body, 2])).await;
    }
}

/// The address with its last letter changed.
fn bcrt_with_a_slip(address: &str) -> String {
    let (head, last) = address.split_at(address.len() - 1);
    format!("{head}{}", if last == "q" { "p" } else { "q" })
}

#[tokio::test]
async fn messages_are_signed_and_checked_alike() {
    let pair = Pair::start();
    let wif = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA";
    let address = "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r";
    for message in ["", "a message", "zwölf Boxkämpfer"] {
        let signature = pair.same("signmessagewithprivkey", json!([wif, message])).await;
        let good = pair.same("verifymessage", json!([address, signature, message])).await;
        assert_eq!(good, true);
        assert_eq!(
            pair.same("verifymessage", json!([address, signature, "other"])).await,
            false
        );
    }
    let signature = pair.same("signmessagewithprivkey", json!([wif, "x"])).await;
    for params in [
        json!(["nowhere", signature, "x"]),
        json!(["2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br", signature, "x"]),
        json!([address, "!", "x"]),
        json!([address, "AAAA", "x"]),
        json!([address, "A".repeat(88), "x"]),
    ] {
        pair.same("verifymessage", params).await;
    }
    for key in [
        "",
        "nokey",
        "5HpHagT65TZzG1PH3CSu63k8DbpvD8s5ip4nEB3kEsreAnchuDf",
        "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn",
    ] {
        pair.same("signmessagewithprivkey", json!([key, "x"])).await;
    }
}

#[tokio::test]
async fn miners_are_answered_alike() {
    let pair = Pair::start();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    let info = ["warnings", "currentblockweight", "currentblocktx"];
    pair.same_but("getmininginfo", json!([]), &info).await;
    pair.same("getnetworkhashps", json!([])).await;
    pair.core.generate(103, &alice.address()).unwrap();
    pair.follow().await;
    for params in [
        json!([]),
        json!([1]),
        json!([50]),
        json!([500]),
        json!([-1]),
        json!([10, 50]),
        json!([10, 0]),
        json!([0]),
        json!([-2]),
        json!([10, 104]),
        json!([10, -2]),
    ] {
        pair.same("getnetworkhashps", params).await;
    }
    pair.same_but("getmininginfo", json!([]), &info).await;

    let coin = |height| coinbase_coin(&pair.core.block(&pair.core.hash_at(height).unwrap()).unwrap());
    let parent = alice.pay(coin(1), &bob, Amount::from_sat(1_410));
    let made = (bitcoin::OutPoint::new(parent.compute_txid(), 0), parent.output[0].value);
    let child = bob.pay(made, &alice, Amount::from_sat(20_000));
    for tx in [&parent, &child] {
        pair.same("sendrawtransaction", json!([serialize_hex(tx)])).await;
    }
    let segwit = json!([{ "rules": ["segwit"] }]);
    // Regtest's own vote changes no rule, and a clock may tick between two calls.
    let except = ["longpollid", "version", "vbavailable", "curtime"];
    let template = pair.same_but("getblocktemplate", segwit.clone(), &except).await;
    assert_eq!(template["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(template["transactions"][1]["depends"], json!([1]));
    for params in [
        json!([{}]),
        json!([{ "rules": [] }]),
        json!([{ "mode": "other" }]),
        json!([{ "mode": 7 }]),
        json!([{ "mode": "proposal" }]),
        json!([{ "mode": "proposal", "data": "00" }]),
    ] {
        pair.same("getblocktemplate", params).await;
    }

    // Who waits hears of the next block at once.
    let id = pair.ours("getblocktemplate", &segwit).await.unwrap()["longpollid"].clone();
    let asked = json!([{ "rules": ["segwit"], "longpollid": id }]);
    let (height, nothing) = (json!([104, 5_000]), json!([]));
    let (waited, new, reached, ()) = tokio::join!(
        pair.ours("getblocktemplate", &asked),
        pair.ours("waitfornewblock", &nothing),
        pair.ours("waitforblockheight", &height),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            pair.core.generate(1, &bob.address()).unwrap();
            pair.follow().await;
        }
    );
    let tip = pair.same("getbestblockhash", json!([])).await;
    assert_eq!(waited.unwrap()["previousblockhash"], tip);
    assert_eq!(new.unwrap(), json!({ "hash": tip, "height": 104 }));
    assert_eq!(reached.unwrap()["height"], 104);
    pair.same("waitforblock", json!([tip, 100])).await;
    pair.same("waitforblock", json!(["11".repeat(32), 100])).await;
    pair.same("waitforblockheight", json!([1000, 100])).await;
    pair.same("waitfornewblock", json!([100])).await;
    pair.same("waitfornewblock", json!([-1])).await;

    // A block with just what is named.
    let spend = serialize_hex(&alice.pay(coin(2), &bob, Amount::from_sat(7_000)));
    let unsent = pair
        .ours("generateblock", &json!([bob.address(), [spend], false]))
        .await
        .unwrap();
    assert_eq!(
        pair.core.call("submitblock", json!([unsent["hex"]])).unwrap(),
        Value::Null
    );
    pair.follow().await;
    assert_eq!(pair.same("getbestblockhash", json!([])).await, unsent["hash"]);
    for params in [
        json!(["nowhere", []]),
        json!([bob.address(), ["11".repeat(32)]]),
        json!([bob.address(), ["zz"]]),
    ] {
        pair.same("generateblock", params).await;
    }
    let made = pair.ours("generateblock", &json!([bob.address(), []])).await.unwrap();
    assert_eq!(pair.ours("getbestblockhash", &json!([])).await.unwrap(), made["hash"]);
}

#[tokio::test]
async fn proposals_are_judged_alike() {
    let pair = Pair::start();
    let (alice, bob) = (Holder::new(1), Holder::new(2));
    pair.core.generate(102, &alice.address()).unwrap();
    pair.follow().await;
    let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let young = coinbase_coin(&pair.core.block(&pair.core.hash_at(50).unwrap()).unwrap());
    let paid = alice.pay(coin, &bob, Amount::from_sat(1_000));
    let plan = || pair.core.plan(&alice).unwrap();
    let with = |txs: Vec<bitcoin::Transaction>| {
        let mut plan = plan();
        plan.transactions = txs;
        plan.mine()
    };
    let mut forged = paid.clone();
    forged.output[0].value -= Amount::from_sat(1);
    let mut unsolved = with(vec![paid.clone()]);
    while unsolved.header.validate_pow(unsolved.header.target()).is_ok() {
        unsolved.header.nonce += 1;
    }
    let mut greedy = plan();
    greedy.reward += Amount::from_sat(1);
    let mut late = plan();
    late.time = late.time.saturating_add(3 * 60 * 60);
    let mut early = plan();
    early.time = 1_300_000_000;
    let mut higher = plan();
    higher.height += 1;
    let mut elsewhere = plan();
    elsewhere.previous = pair.core.hash_at(100).unwrap().parse().unwrap();
    let mut other_target = unsolved.clone();
    other_target.header.bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe);
    let mut without = with(vec![paid.clone()]);
    without.txdata[0].output.pop();
    without.header.merkle_root = without.compute_merkle_root().unwrap();
    let known = pair.core.block(&pair.core.hash_at(102).unwrap()).unwrap();
    let blocks = [
        unsolved,
        with(vec![]),
        with(vec![forged]),
        with(vec![alice.pay(young, &bob, Amount::from_sat(1_000))]),
        with(vec![paid.clone(), paid]),
        plan().mine_with_wrong_merkle_root(),
        greedy.mine(),
        late.mine(),
        early.mine(),
        higher.mine(),
        elsewhere.mine(),
        other_target,
        without,
        known,
    ];
    let mut answers = std::collections::BTreeSet::new();
    for block in &blocks {
        let params = json!([{ "mode": "proposal", "data": serialize_hex(block) }]);
        let core = pair.core.call("getblocktemplate", params.clone()).unwrap();
        let ours = pair.ours("getblocktemplate", &params).await.unwrap();
        let text = |answer: &Value| answer.as_str().map(str::to_owned);
        // The kernel does not tell how a script fails.
        let core = text(&core).map(|text| match text.strip_prefix("block-script-verify-flag-failed") {
            Some(_) => "block-script-verify-flag-failed".to_owned(),
            None => text,
        });
        assert_eq!(core, text(&ours));
        answers.insert(core);
    }
    assert!(answers.len() >= 12, "{answers:?}");
    // Nothing of them stays.
    assert_eq!(pair.same("getblockcount", json!([])).await, 102);
    pair.same("getchaintips", json!([])).await;
}

#[tokio::test]
async fn blocks_pay_to_descriptors() {
    let pair = Pair::start();
    let key = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B";
    for params in [
        json!([1, "nonsense"]),
        json!([1, "wpkh()"]),
        json!(["x", "raw(51)"]),
        json!([1, format!("wpkh({key}/*)")]),
        json!([1, format!("wpkh({key}/<0;1>)")]),
    ] {
        let ours = pair.ours("generatetodescriptor", &params).await.unwrap_err();
        let core = pair.core.call("generatetodescriptor", params.clone()).unwrap_err();
        assert_eq!(core.code(), Some(i64::from(ours.code)), "{params}: {core} {ours:?}");
    }
    for descriptor in [
        "raw(51)",
        &format!("wpkh({KEY})"),
        &format!("combo({KEY})"),
        &format!("combo({LONG})"),
    ] {
        let script = |block: bitcoin::Block| block.txdata[0].output[0].script_pubkey.clone();
        let theirs = pair.core.call("generatetodescriptor", json!([1, descriptor])).unwrap();
        let theirs = script(pair.core.block(theirs[0].as_str().unwrap()).unwrap());
        pair.follow().await;
        let ours = pair
            .ours("generatetodescriptor", &json!([1, descriptor]))
            .await
            .unwrap();
        let hex = pair.ours("getblock", &json!([ours[0], 0])).await.unwrap();
        assert_eq!(pair.core.call("submitblock", json!([hex])).unwrap(), Value::Null);
        let ours = script(pair.core.block(ours[0].as_str().unwrap()).unwrap());
        assert_eq!(ours, theirs, "{descriptor}");
    }
    let block = pair.ours("generateblock", &json!(["raw(51)", []])).await.unwrap();
    let block = pair.ours("getblock", &json!([block["hash"], 2])).await.unwrap();
    assert_eq!(block["tx"][0]["vout"][0]["scriptPubKey"]["hex"], "51");
}
