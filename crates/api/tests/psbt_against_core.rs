//! Partially signed transactions, and signing without a wallet: a real bitcoind and our node make, read, sign and refuse
//! them alike, byte for byte.

#![allow(clippy::unwrap_used)]

mod lab;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::key::TweakedPublicKey;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, NetworkKind, PrivateKey, ScriptBuf, TxOut, XOnlyPublicKey};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use lab::pair::Pair;
use miniscript::{Descriptor, DescriptorPublicKey};
use serde_json::{Value, json};

fn key(number: u8) -> PrivateKey {
    let secret = SecretKey::from_slice(&[number; 32]).unwrap();
    PrivateKey::new(secret, NetworkKind::Test)
}

fn public(number: u8) -> String {
    key(number).public_key(&Secp256k1::new()).to_string()
}

fn wif(number: u8) -> String {
    key(number).to_wif()
}

/// Descriptors of every kind that can be solved, with the names of keys replaced by `name`.
fn descriptors(name: impl Fn(u8) -> String) -> Vec<String> {
    let (a, b, c) = (name(11), name(12), name(13));
    vec![
        format!("pk({a})"),
        format!("pkh({a})"),
        format!("wpkh({a})"),
        format!("sh(wpkh({a}))"),
        format!("multi(1,{a},{b})"),
        format!("sh(multi(2,{a},{b}))"),
        format!("wsh(multi(2,{a},{b},{c}))"),
        format!("sh(wsh(sortedmulti(2,{a},{b})))"),
        format!("wsh(and_v(v:pk({a}),or_d(pk({b}),older(10))))"),
        format!("wsh(pkh({a}))"),
        format!("tr({a})"),
        format!("tr({a},pk({b}))"),
        format!("tr(50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0,{{pk({b}),multi_a(1,{b},{c})}})"),
        format!("rawtr({a})"),
    ]
}

/// The scripts that the descriptors stand for.
fn scripts() -> Vec<ScriptBuf> {
    let script = |text: String| match text.starts_with("rawtr") {
        true => {
            let key = XOnlyPublicKey::from(key(11).public_key(&Secp256k1::new()).inner);
            ScriptBuf::new_p2tr_tweaked(TweakedPublicKey::dangerous_assume_tweaked(key))
        }
        false => {
            let parsed: Descriptor<DescriptorPublicKey> = text.parse().unwrap();
            parsed.at_derivation_index(0).unwrap().script_pubkey()
        }
    };
    descriptors(public).into_iter().map(script).collect()
}

/// Gives both nodes, in their memory pools, one coin for each kind of descriptor; its outpoints.
async fn funded(pair: &Pair) -> Vec<(String, u64)> {
    let alice = Holder::new(1);
    pair.core.generate(101, &alice.address()).unwrap();
    pair.follow().await;
    let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let outputs = scripts().into_iter().map(|script_pubkey| TxOut {
        value: Amount::from_sat(1_000_000),
        script_pubkey,
    });
    let tx = alice.spend(&[coin], outputs.collect());
    let hex = serialize_hex(&tx);
    let txid = pair.same("sendrawtransaction", json!([hex, 0])).await;
    let txid = txid.as_str().unwrap().to_owned();
    (0..tx.output.len() as u64).map(|vout| (txid.clone(), vout)).collect()
}

fn input((txid, vout): &(String, u64)) -> Value {
    json!({ "txid": txid, "vout": vout, "sequence": 4294967293u32 })
}

#[tokio::test]
async fn psbts_are_made_and_signed_alike() {
    let pair = Pair::start();
    let coins = funded(&pair).await;
    let bob = Holder::new(2).address();
    let (secret, known) = (descriptors(wif), descriptors(public));
    for version in [0, 2] {
        for (number, coin) in coins.iter().enumerate() {
            let made = json!([[input(coin)], { bob.clone(): 0.009 }, 0, true, 2, version]);
            let blank = pair.same("createpsbt", made).await;
            everything(&pair, &blank).await;
            let bare = pair.same("utxoupdatepsbt", json!([blank])).await;
            everything(&pair, &bare).await;
            let updated = pair.same("utxoupdatepsbt", json!([blank, [known[number]]])).await;
            everything(&pair, &updated).await;
            let signed = pair
                .same(
                    "descriptorprocesspsbt",
                    json!([blank, [secret[number]], "DEFAULT", true, false]),
                )
                .await;
            everything(&pair, &signed["psbt"]).await;
            let whole = pair
                .same("descriptorprocesspsbt", json!([updated, [secret[number]]]))
                .await;
            everything(&pair, &whole["psbt"]).await;
            if let Some(hex) = whole["hex"].as_str() {
                let answer = pair.same("testmempoolaccept", json!([[hex]])).await;
                assert_eq!(answer[0]["allowed"], true, "{}", known[number]);
            }
            for kind in ["ALL", "NONE|ANYONECANPAY", "SINGLE", "DEFAULT", "other"] {
                let params = json!([updated, [secret[number]], kind, false]);
                let signed = pair.same("descriptorprocesspsbt", params).await;
                if let Some(psbt) = signed.get("psbt") {
                    everything(&pair, psbt).await;
                    // Another type than the one that is noted.
                    pair.same("descriptorprocesspsbt", json!([psbt, [secret[number]], "NONE"]))
                        .await;
                }
            }
        }
        let inputs: Vec<Value> = coins.iter().map(input).collect();
        let all = pair
            .same(
                "createpsbt",
                json!([inputs, [{ bob.clone(): 0.1 }, { "data": "aa" }], 77, true, 2, version]),
            )
            .await;
        let updated = pair.same("utxoupdatepsbt", json!([all, known])).await;
        everything(&pair, &updated).await;
        // One signer after another, then their signatures together.
        let mut parts = vec![all.clone()];
        for number in [11, 12, 13] {
            let own = descriptors(|other| if other == number { wif(other) } else { public(other) });
            let signed = pair
                .same("descriptorprocesspsbt", json!([all, own, "DEFAULT", true, false]))
                .await;
            everything(&pair, &signed["psbt"]).await;
            parts.push(signed["psbt"].clone());
        }
        let combined = pair.same("combinepsbt", json!([parts])).await;
        everything(&pair, &combined).await;
        let done = pair.same("finalizepsbt", json!([combined])).await;
        assert_eq!(done["complete"], true, "{done}");
        let answer = pair.same("testmempoolaccept", json!([[done["hex"]]])).await;
        assert_eq!(answer[0]["allowed"], true);
    }
}

/// What reads a PSBT says the same on both sides.
async fn everything(pair: &Pair, psbt: &Value) {
    pair.same("decodepsbt", json!([psbt])).await;
    pair.same("analyzepsbt", json!([psbt])).await;
    pair.same("finalizepsbt", json!([psbt])).await;
    pair.same("finalizepsbt", json!([psbt, false])).await;
    pair.same("combinepsbt", json!([[psbt, psbt]])).await;
}

#[tokio::test]
async fn keys_with_paths_are_told_alike() {
    let pair = Pair::start();
    pair.core.generate(101, &Holder::new(1).address()).unwrap();
    pair.follow().await;
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(NetworkKind::Test, &[5; 32]).unwrap();
    let xpub = Xpub::from_priv(&secp, &master);
    let outputs = ["wpkh", "sh(wpkh", "wsh(pkh", "tr"].map(|kind| {
        let close = if kind.contains('(') { ")" } else { "" };
        (
            format!("{kind}({xpub}/1/*){close}"),
            format!("{kind}({master}/1/*){close}"),
        )
    });
    let mut paid = Vec::new();
    for (known, _) in &outputs {
        let sum = pair.same("getdescriptorinfo", json!([known])).await["checksum"].clone();
        let sealed = format!("{known}#{}", sum.as_str().unwrap());
        let addresses = pair.same("deriveaddresses", json!([sealed, [3, 3]])).await;
        paid.push(addresses[0].as_str().unwrap().to_owned());
    }
    let outs: Vec<Value> = paid.iter().map(|address| json!({ address.clone(): 0.01 })).collect();
    let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let made = json!([[{ "txid": coin.0.txid.to_string(), "vout": 0 }], outs]);
    let blank = pair.same("createpsbt", made).await;
    let (known, secret): (Vec<_>, Vec<_>) = outputs.into_iter().unzip();
    let updated = pair.same("utxoupdatepsbt", json!([blank, known])).await;
    everything(&pair, &updated).await;
    let ranged: Vec<Value> = secret
        .iter()
        .map(|text| json!({ "desc": text, "range": [2, 4] }))
        .collect();
    let processed = pair.same("descriptorprocesspsbt", json!([blank, ranged])).await;
    everything(&pair, &processed["psbt"]).await;
    for wrong in [
        json!([7]),
        json!([{ "range": 3 }]),
        json!([{ "desc": known[0], "range": -1 }]),
    ] {
        pair.same("utxoupdatepsbt", json!([blank, wrong])).await;
    }
}

fn field(key: &str, value: &str) -> String {
    format!("{:02x}{key}{:02x}{value}", key.len() / 2, value.len() / 2)
}

#[tokio::test]
async fn what_is_no_psbt_is_refused_alike() {
    let pair = Pair::start();
    let txid = "ab".repeat(32);
    let address = Holder::new(1).address();
    let inputs = json!([{ "txid": txid, "vout": 1 }]);
    let zero = pair
        .same("createpsbt", json!([inputs, { address.clone(): 1 }, 0, true, 2, 0]))
        .await;
    let two = pair.same("createpsbt", json!([inputs, { address.clone(): 1 }])).await;
    pair.same("createpsbt", json!([inputs, { address.clone(): 1 }, 0, true, 2, 1]))
        .await;
    pair.same("createpsbt", json!([inputs, { address.clone(): 1 }, 0, true, 9]))
        .await;
    everything(&pair, &zero).await;
    everything(&pair, &two).await;
    for text in ["", "cHNidP8=", "cHNidP8", "!!!!", "AAAA", "cHNidP8A"] {
        pair.same("decodepsbt", json!([text])).await;
    }
    for params in [json!([[]]), json!([[zero, two]]), json!([[zero, "x"]]), json!([[7]])] {
        pair.same("combinepsbt", params).await;
    }
    for params in [json!([[]]), json!([[zero]]), json!([[zero, zero]]), json!([[two, two]])] {
        pair.same("joinpsbts", params).await;
    }
    let other = json!([[{ "txid": "cd".repeat(32), "vout": 0 }], {}, 5, true, 3, 0]);
    let other = pair.same("createpsbt", other).await;
    // The order of what is joined is left to chance.
    let joined = pair.ours("joinpsbts", &json!([[zero, other]])).await.unwrap();
    let shown = pair.same("decodepsbt", json!([joined])).await;
    assert_eq!(
        (&shown["tx"]["version"], &shown["tx"]["locktime"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(shown["tx"]["vin"].as_array().unwrap().len(), 2);

    // Fields added to an input, an output, or to all: of every type, right, wrong, twice and empty.
    let point = public(11);
    let long = "04".to_owned() + &"11".repeat(64);
    let values = [
        String::new(),
        "00".to_owned(),
        "11".repeat(4),
        "22".repeat(8),
        "33".repeat(32),
        "44".repeat(64),
        point.clone(),
    ];
    let mut fields = vec![
        field("fc0361626301", "77"),
        field("30aa", "88"),
        field("fdfc0001", "00"),
    ];
    for kind in (0..=0x1d).chain([0xfb, 0xfc]) {
        let keys = [
            String::new(),
            point.clone(),
            long.clone(),
            "55".repeat(20),
            "66".repeat(32),
            "77".repeat(64),
        ];
        for key in keys {
            for value in &values {
                fields.push(field(&format!("{kind:02x}{key}"), value));
            }
        }
    }
    let xpub = Xpub::from_priv(
        &Secp256k1::new(),
        &Xpriv::new_master(NetworkKind::Test, &[5; 32]).unwrap(),
    );
    fields.push(field(&format!("01{}", hex::encode(xpub.encode())), "0102030405000080"));
    fields.push(field(
        &format!("16{}", &point[2..]),
        &format!("01{}01020304", "66".repeat(32)),
    ));
    fields.push(field("06", "00c00151"));
    fields.push(field("06", "01c0015101c00152"));
    fields.push(field("03", "83000000"));
    let batch = pair.core.height().unwrap();
    assert_eq!(batch, 0);
    for psbt in [&zero, &two] {
        let bytes = hex::encode(STANDARD.decode(psbt.as_str().unwrap()).unwrap());
        let places: Vec<usize> = separators(&bytes, psbt == &zero);
        for place in places {
            for added in &fields {
                let made = format!("{}{added}{}", &bytes[..place], &bytes[place..]);
                let text = STANDARD.encode(hex::decode(made).unwrap());
                pair.same("decodepsbt", json!([text])).await;
            }
        }
    }
}

/// Where the separators of the three maps stand in the hex of these two PSBTs.
fn separators(hex: &str, zero: bool) -> Vec<usize> {
    let end = hex.len();
    match zero {
        // Input and output have nothing in them.
        true => vec![end - 6, end - 4, end - 2],
        false => {
            let input = hex.find("010e20").unwrap();
            let output = hex.find("010308").unwrap();
            vec![input - 2, output - 2, end - 2]
        }
    }
}

#[tokio::test]
async fn transactions_are_signed_with_keys_alike() {
    let pair = Pair::start();
    let coins = funded(&pair).await;
    let bob = Holder::new(2).address();
    let inputs: Vec<Value> = coins.iter().map(input).collect();
    let all = pair
        .same("createrawtransaction", json!([inputs, { bob.clone(): 0.1 }]))
        .await;
    for keys in [
        json!([]),
        json!([wif(11)]),
        json!([wif(11), wif(12), wif(13)]),
        json!(["x"]),
    ] {
        pair.same("signrawtransactionwithkey", json!([all, keys])).await;
    }
    for kind in ["ALL", "SINGLE|ANYONECANPAY", "DEFAULT", "NONE", "some"] {
        pair.same("signrawtransactionwithkey", json!([all, [wif(11)], [], kind]))
            .await;
    }
    // Scripts behind hashes are told by the caller.
    let psbt = pair.same("converttopsbt", json!([all, false, true, 0])).await;
    let psbt = pair.same("utxoupdatepsbt", json!([psbt, descriptors(public)])).await;
    let shown = pair.same("decodepsbt", json!([psbt])).await;
    let mut told = Vec::new();
    let inputs = shown["inputs"].as_array().unwrap().iter();
    for (vout, (input, script)) in inputs.zip(scripts()).enumerate() {
        let script = hex::encode(script);
        let mut one = json!({ "txid": coins[0].0, "vout": vout, "scriptPubKey": script, "amount": 0.01 });
        for (ours, theirs) in [("redeem_script", "redeemScript"), ("witness_script", "witnessScript")] {
            if let Some(hex) = input.get(ours).and_then(|script| script.get("hex")) {
                one[theirs] = hex.clone();
            }
        }
        told.push(one);
    }
    let mut partly = Vec::new();
    for number in [11, 12, 13] {
        let signed = pair
            .same("signrawtransactionwithkey", json!([all, [wif(number)], told]))
            .await;
        partly.push(signed["hex"].clone());
    }
    pair.same("combinerawtransaction", json!([partly])).await;
    pair.same("signrawtransactionwithkey", json!([all, [wif(11), wif(12)], told]))
        .await;
    for params in [json!([[]]), json!([[all]]), json!([[all, "zz"]]), json!([[all, 7]])] {
        pair.same("combinerawtransaction", params).await;
    }
    let one = json!({ "txid": coins[6].0, "vout": 6, "scriptPubKey": "0014aa" });
    for wrong in [
        json!([7]),
        json!([{}]),
        json!([{ "txid": coins[6].0, "vout": "x", "scriptPubKey": "00" }]),
        json!([{ "txid": "zz", "vout": 6, "scriptPubKey": "00" }]),
        json!([{ "txid": coins[6].0, "vout": -1, "scriptPubKey": "00" }]),
        json!([{ "txid": coins[6].0, "vout": 6, "scriptPubKey": "zz" }]),
        json!([one]),
    ] {
        pair.same("signrawtransactionwithkey", json!([all, [wif(11)], wrong]))
            .await;
    }
    let script = told.iter().find(|one| one.get("witnessScript").is_some()).unwrap();
    for (name, value) in [
        ("witnessScript", json!("51")),
        ("witnessScript", Value::Null),
        ("redeemScript", json!("51")),
        ("amount", json!(-1)),
    ] {
        let mut wrong = script.clone();
        wrong[name] = value;
        pair.same("signrawtransactionwithkey", json!([all, [wif(11)], [wrong]]))
            .await;
    }
    // Nobody says what a witness's output is worth.
    let unknown = pair
        .same(
            "createrawtransaction",
            json!([[{ "txid": "ab".repeat(32), "vout": 0 }], { bob: 1 }]),
        )
        .await;
    let key = key(11).public_key(&Secp256k1::new());
    let script = hex::encode(ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap()));
    let mut told = json!({ "txid": "ab".repeat(32), "vout": 0, "scriptPubKey": script });
    pair.same("signrawtransactionwithkey", json!([unknown, [wif(11)], [told]]))
        .await;
    told["amount"] = json!(2);
    pair.same("signrawtransactionwithkey", json!([unknown, [wif(11)], [told]]))
        .await;
    pair.same("signrawtransactionwithkey", json!(["00", []])).await;
    pair.same("converttopsbt", json!([partly[0]])).await;
    pair.same("converttopsbt", json!([partly[0], true])).await;
    pair.same("converttopsbt", json!([partly[0], true, false])).await;
    pair.same("converttopsbt", json!([all, false, true, 1])).await;
}
