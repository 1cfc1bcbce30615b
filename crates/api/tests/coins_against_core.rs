//! What is told from all unspent outputs, without an index, compared with a real bitcoind field by field.

#![allow(clippy::unwrap_used)]

mod lab;

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Address, Amount, NetworkKind, PrivateKey, ScriptBuf, TxOut};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use lab::pair::Pair;
use serde_json::{Value, json};

/// Keys in every form that a descriptor takes.
struct Keys {
    secp: Secp256k1<All>,
    private: Xpriv,
}

impl Keys {
    fn new() -> Self {
        Self {
            secp: Secp256k1::new(),
            private: Xpriv::new_master(NetworkKind::Test, &[7; 32]).unwrap(),
        }
    }

    fn xpub(&self) -> Xpub {
        Xpub::from_priv(&self.secp, &self.private)
    }

    fn public(&self, number: u8) -> PublicKey {
        SecretKey::from_slice(&[number; 32]).unwrap().public_key(&self.secp)
    }

    fn x_only(&self, number: u8) -> String {
        self.public(number).x_only_public_key().0.to_string()
    }

    fn wif(&self, number: u8) -> String {
        let key = SecretKey::from_slice(&[number; 32]).unwrap();
        PrivateKey::new(key, NetworkKind::Test).to_wif()
    }
}

/// Descriptors that both sides understand; each has a coin at some index below 4.
fn descriptors(keys: &Keys) -> Vec<String> {
    let (a, b) = (keys.public(1), keys.public(2));
    let (xpub, xprv) = (keys.xpub(), keys.private);
    let long = a.serialize_uncompressed();
    let address = Address::from_script(
        &ScriptBuf::new_p2sh(&ScriptBuf::from_bytes(vec![0x51]).script_hash()),
        bitcoin::Network::Regtest,
    );
    vec![
        "raw(51)".to_owned(),
        "raw(6a0b6e6f74207370656e7421)".to_owned(),
        format!("raw(21{b}ac)"),
        format!("addr({})", address.unwrap()),
        format!("pk({a})"),
        format!("pkh({b})"),
        format!("pkh({})", hex::encode(long)),
        format!("pkh([deadbeef/1/2h/3']{b})"),
        format!("wpkh({})", keys.wif(3)),
        format!("sh(wpkh({a}))"),
        format!("combo({})", keys.public(4)),
        format!("combo({})", hex::encode(keys.public(5).serialize_uncompressed())),
        format!("multi(1,{a},{b})"),
        format!("sh(multi(2,{a},{b}))"),
        format!("wsh(sortedmulti(1,{b},{a}))"),
        format!("sh(wsh(multi(1,{a},{b})))"),
        format!("wsh(and_v(v:pk({a}),after(2)))"),
        format!("tr({})", keys.x_only(6)),
        format!("tr({a})"),
        format!(
            "tr({},{{pk({}),pk({})}})",
            keys.x_only(1),
            keys.x_only(2),
            keys.x_only(3)
        ),
        format!("rawtr({})", keys.x_only(7)),
        format!("wpkh({xpub}/0/*)"),
        format!("pkh([0a0b0c0d/44h]{xpub}/1/*)"),
        format!("tr({xprv}/86h/0h/*)"),
        format!("wpkh({xpub}/<2;3>/*)"),
        format!("sh(sortedmulti(1,{xpub}/5/*,{a}))"),
    ]
}

/// The scripts of a descriptor at some indexes, from bitcoind.
fn scripts(pair: &Pair, descriptor: &str) -> Vec<ScriptBuf> {
    let text = descriptor.split_once('(').unwrap().1.trim_end_matches(')');
    match descriptor.split('(').next().unwrap() {
        "raw" => return vec![ScriptBuf::from_bytes(hex::decode(text).unwrap())],
        "pk" => return vec![ScriptBuf::new_p2pk(&text.parse().unwrap())],
        "multi" => {
            let keys: Vec<&str> = text.split(',').skip(1).collect();
            let mut script = vec![0x51];
            for key in &keys {
                script.push(33);
                script.extend(hex::decode(key).unwrap());
            }
            script.extend([0x52, 0xae]);
            return vec![ScriptBuf::from_bytes(script)];
        }
        "combo" => {
            let key: bitcoin::PublicKey = text.parse().unwrap();
            return vec![ScriptBuf::new_p2pk(&key), ScriptBuf::new_p2pkh(&key.pubkey_hash())];
        }
        _ => {}
    }
    let info = pair.core.call("getdescriptorinfo", json!([descriptor])).unwrap();
    // The canonical form is without private keys; the checksum of what was given is told apart.
    let sealed = format!("{descriptor}#{}", info["checksum"].as_str().unwrap());
    let params = match info["isrange"].as_bool().unwrap() {
        true => json!([sealed, [2, 3]]),
        false => json!([sealed]),
    };
    let found = pair.core.call("deriveaddresses", params).unwrap();
    let lists = match found[0].is_array() {
        true => found.as_array().unwrap().clone(),
        false => vec![found],
    };
    let addresses = lists.iter().flat_map(|list| list.as_array().unwrap());
    addresses
        .map(|address| {
            let address: Address<_> = address.as_str().unwrap().parse().unwrap();
            address.assume_checked().script_pubkey()
        })
        .collect()
}

/// Pays to all of them, and something to others.
async fn chain(pair: &Pair, descriptors: &[String]) {
    let alice = Holder::new(1);
    pair.core.generate(140, &alice.address()).unwrap();
    let mut plan = pair.core.plan(&alice).unwrap();
    for (height, descriptor) in (1..).zip(descriptors) {
        let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(height).unwrap()).unwrap());
        let outputs = scripts(pair, descriptor).into_iter().zip(1u64..);
        let outputs = outputs.map(|(script_pubkey, value)| TxOut {
            value: Amount::from_sat(value * 1_000 + height),
            script_pubkey,
        });
        plan.transactions.push(alice.spend(&[coin], outputs.collect()));
    }
    let block = plan.mine();
    assert_eq!(
        pair.core.call("submitblock", json!([serialize_hex(&block)])).unwrap(),
        Value::Null
    );
    pair.core.generate(3, &alice.address()).unwrap();
    pair.follow().await;
}

#[tokio::test]
async fn all_coins_come_to_the_same() {
    let pair = Pair::start();
    let same = async |params: Value| pair.same_but("gettxoutsetinfo", params, &["disk_size"]).await;
    same(json!([])).await;
    chain(&pair, &descriptors(&Keys::new())).await;
    let told = same(json!([])).await;
    assert!(told["hash_serialized_3"].is_string() && told["transactions"].as_u64() > Some(100));
    for kind in ["hash_serialized_3", "muhash", "none"] {
        same(json!([kind])).await;
        same(json!({"hash_type": kind, "use_index": false})).await;
    }
    for wrong in [json!(["sha1"]), json!(["muhash", 5]), json!(["hash_serialized_3", 5])] {
        same(wrong).await;
    }
    let ours = pair.ours("gettxoutsetinfo", &json!([])).await.unwrap();
    assert!(ours["disk_size"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_scan_finds_the_same_coins() {
    let pair = Pair::start();
    let keys = Keys::new();
    let descriptors = descriptors(&keys);
    chain(&pair, &descriptors).await;
    for descriptor in &descriptors {
        let found = pair.same("scantxoutset", json!(["start", [descriptor]])).await;
        let burnt = descriptor.starts_with("raw(6a");
        let coins = found["unspents"].as_array().unwrap().len();
        assert_eq!(coins == 0, burnt, "{descriptor}");
        let object = json!({"desc": descriptor, "range": 2});
        pair.same("scantxoutset", json!(["start", [object]])).await;
    }
    let miner = format!("addr({})", Holder::new(1).address());
    let all: Vec<&String> = descriptors.iter().chain([&miner]).collect();
    let found = pair.same("scantxoutset", json!(["start", all])).await;
    assert!(found["unspents"].as_array().unwrap().len() > 100);
    pair.same("scantxoutset", json!(["status"])).await;
    pair.same("scantxoutset", json!(["abort"])).await;
    let xpub = keys.xpub();
    let ranged = |range: Value| json!(["start", [{"desc": format!("wpkh({xpub}/0/*)"), "range": range}]]);
    for params in [
        json!(["begin"]),
        json!(["start"]),
        json!(["start", []]),
        json!(["start", [5]]),
        json!(["start", [{}]]),
        json!(["start", ["raw(5)"]]),
        json!(["start", ["raw(51)#aaaaaaaa"]]),
        json!(["start", ["raw(51)#8lvh9jxk"]]),
        json!(["start", ["addr(nobody)"]]),
        json!(["start", [format!("wpkh({xpub}/0h/*)")]]),
        json!(["start", [format!("wpkh({xpub}/0/*h)")]]),
        ranged(json!([2, 3])),
        ranged(json!([3, 2])),
        ranged(json!(-1)),
        ranged(json!([-1, 2])),
        ranged(json!("2")),
        ranged(json!([0, 1_000_000])),
        ranged(json!([5, 1u64 << 31])),
    ] {
        pair.same("scantxoutset", params).await;
    }
    let path: DerivationPath = "m/0/3".parse().unwrap();
    let child = keys.xpub().derive_pub(&keys.secp, &path).unwrap().public_key;
    let found = pair.same("scantxoutset", ranged(json!([3, 3]))).await;
    assert!(
        found["unspents"][0]["desc"]
            .as_str()
            .unwrap()
            .contains(&child.to_string())
    );
}

#[tokio::test]
async fn one_scan_at_a_time_and_it_can_be_stopped() {
    let pair = Pair::start();
    pair.core.generate(300, &Holder::new(1).address()).unwrap();
    pair.follow().await;
    let xpub = Keys::new().xpub();
    // Long enough to be met on its way.
    let params = json!(["start", [{"desc": format!("combo({xpub}/*)"), "range": 20_000}]]);
    let (first, (second, status, aborted)) = tokio::join!(pair.ours("scantxoutset", &params), async {
        let second = pair.ours("scantxoutset", &params).await;
        let status = pair.ours("scantxoutset", &json!(["status"])).await.unwrap();
        let aborted = pair.ours("scantxoutset", &json!(["abort"])).await.unwrap();
        (second, status, aborted)
    });
    assert_eq!(second.unwrap_err().code, -8);
    assert_eq!((status, aborted), (json!({"progress": 0}), json!(true)));
    let first = first.unwrap();
    assert_eq!(first["success"], json!(false));
    assert!(first["txouts"].as_u64() < Some(300));
    assert_eq!(pair.ours("scantxoutset", &json!(["status"])).await, Ok(Value::Null));
}
