//! What Core's mempool asks of scripts by flags, in spends of every usual form with one fault each: both must refuse it,
//! and in the same words.

#![allow(clippy::unwrap_used)]

mod lab;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::opcodes::all::*;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WScriptHash, Witness};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use lab::pair::Pair;
use serde_json::{Value, json};

const VALUE: Amount = Amount::from_sat(2_000_000);

/// Where the script stands that is satisfied.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Bare,
    P2sh,
    P2wsh,
    P2shP2wsh,
    /// A leaf of this version.
    Leaf(u8),
}

/// What a signature looks like.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Good,
    HighS,
    OddType,
}

/// A coin, and what is put on the stack for it: bytes, or a signature.
struct Case {
    name: &'static str,
    place: Place,
    script: ScriptBuf,
    stack: Vec<Item>,
    /// Core lets it in.
    good: bool,
    /// The input script's pushes are longer than needed.
    wasteful: bool,
}

#[derive(Clone)]
enum Item {
    Bytes(Vec<u8>),
    Signature(Sign),
}

struct Maker {
    secp: Secp256k1<All>,
    key: SecretKey,
}

impl Maker {
    fn compressed(&self) -> Vec<u8> {
        self.key.public_key(&self.secp).serialize().to_vec()
    }

    fn uncompressed(&self) -> Vec<u8> {
        self.key.public_key(&self.secp).serialize_uncompressed().to_vec()
    }

    /// The odd form that names the parity of y beside its value.
    fn hybrid(&self) -> Vec<u8> {
        let mut key = self.uncompressed();
        key[0] = 6 + (key[64] & 1);
        key
    }

    fn sign(&self, digest: [u8; 32], sign: Sign) -> Vec<u8> {
        let mut signature = self.secp.sign_ecdsa(&Message::from_digest(digest), &self.key);
        let mut hash_type = 1;
        match sign {
            Sign::Good => {}
            Sign::OddType => hash_type = 4,
            Sign::HighS => {
                let compact = signature.serialize_compact();
                let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
                let negated = [&compact[..32], &s.secret_bytes()[..]].concat();
                signature = bitcoin::secp256k1::ecdsa::Signature::from_compact(&negated).unwrap();
            }
        }
        [&signature.serialize_der()[..], &[hash_type]].concat()
    }

    fn output(&self, case: &Case) -> ScriptBuf {
        match case.place {
            Place::Bare => case.script.clone(),
            Place::P2sh => case.script.to_p2sh(),
            Place::P2wsh => case.script.to_p2wsh(),
            Place::P2shP2wsh => case.script.to_p2wsh().to_p2sh(),
            Place::Leaf(_) => {
                let spend = self.taproot(case);
                ScriptBuf::new_p2tr_tweaked(spend.output_key())
            }
        }
    }

    fn taproot(&self, case: &Case) -> bitcoin::taproot::TaprootSpendInfo {
        let Place::Leaf(version) = case.place else {
            unreachable!()
        };
        let internal = Keypair::from_secret_key(&self.secp, &self.key).x_only_public_key().0;
        let leaf = LeafVersion::from_consensus(version).unwrap();
        let tree = TaprootBuilder::new()
            .add_leaf_with_ver(0, case.script.clone(), leaf)
            .unwrap();
        tree.finalize(&self.secp, internal).unwrap()
    }

    fn spend(&self, case: &Case, coin: OutPoint) -> Transaction {
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: VALUE - Amount::from_sat(5_000),
                script_pubkey: ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros())),
            }],
        };
        let digest = |sign: Sign| -> [u8; 32] {
            let mut cache = SighashCache::new(&tx);
            match case.place {
                Place::Bare | Place::P2sh => {
                    let hash_type = if matches!(sign, Sign::OddType) { 4 } else { 1 };
                    *cache
                        .legacy_signature_hash(0, &case.script, hash_type)
                        .unwrap()
                        .as_ref()
                }
                _ => *cache
                    .p2wsh_signature_hash(0, &case.script, VALUE, EcdsaSighashType::All)
                    .unwrap()
                    .as_ref(),
            }
        };
        let stack: Vec<Vec<u8>> = case
            .stack
            .iter()
            .map(|item| match item {
                Item::Bytes(bytes) => bytes.clone(),
                Item::Signature(sign) => self.sign(digest(*sign), *sign),
            })
            .collect();
        let push = |script: Builder, bytes: &[u8]| script.push_slice(PushBytesBuf::try_from(bytes.to_vec()).unwrap());
        let pushes = |items: &[Vec<u8>]| {
            if case.wasteful {
                let long = items
                    .iter()
                    .flat_map(|item| [&[0x4c, item.len() as u8], &item[..]].concat());
                return ScriptBuf::from_bytes(long.collect());
            }
            items
                .iter()
                .fold(Builder::new(), |script, item| match item.as_slice() {
                    [number @ 1..=16] => script.push_int(i64::from(*number)),
                    bytes => push(script, bytes),
                })
                .into_script()
        };
        let with_script = [stack.clone(), vec![case.script.to_bytes()]].concat();
        match case.place {
            Place::Bare => tx.input[0].script_sig = pushes(&stack),
            Place::P2sh => tx.input[0].script_sig = pushes(&with_script),
            Place::P2wsh | Place::P2shP2wsh => {
                tx.input[0].witness = Witness::from_slice(&with_script);
                if case.place == Place::P2shP2wsh {
                    tx.input[0].script_sig = push(Builder::new(), case.script.to_p2wsh().as_bytes()).into_script();
                }
            }
            Place::Leaf(version) => {
                let leaf = (case.script.clone(), LeafVersion::from_consensus(version).unwrap());
                let control = self.taproot(case).control_block(&leaf).unwrap().serialize();
                tx.input[0].witness = Witness::from_slice(&[with_script, vec![control]].concat());
            }
        }
        tx
    }
}

fn cases(maker: &Maker) -> Vec<Case> {
    let (compressed, uncompressed, hybrid) = (maker.compressed(), maker.uncompressed(), maker.hybrid());
    let slice = |bytes: &[u8]| PushBytesBuf::try_from(bytes.to_vec()).unwrap();
    let p2pk = |key: &[u8]| {
        Builder::new()
            .push_slice(slice(key))
            .push_opcode(OP_CHECKSIG)
            .into_script()
    };
    let p2pkh = |key: &[u8]| ScriptBuf::new_p2pkh(&bitcoin::hashes::Hash::hash(key));
    let multisig = |keys: &[&[u8]]| {
        let script = keys
            .iter()
            .fold(Builder::new().push_int(1), |script, key| script.push_slice(slice(key)));
        script
            .push_int(keys.len() as i64)
            .push_opcode(OP_CHECKMULTISIG)
            .into_script()
    };
    let bytes = |list: &[u8]| ScriptBuf::from_bytes(list.to_vec());
    let mut cases = Vec::new();
    let mut add = |name, place, script: &ScriptBuf, stack: &[Item], good| {
        cases.push(Case {
            name,
            place,
            script: script.clone(),
            stack: stack.to_vec(),
            good,
            wasteful: false,
        });
    };
    let (good, high, odd) = (
        Item::Signature(Sign::Good),
        Item::Signature(Sign::HighS),
        Item::Signature(Sign::OddType),
    );
    let key = |key: &[u8]| Item::Bytes(key.to_vec());
    let (empty, nine) = (Item::Bytes(vec![]), Item::Bytes(vec![9]));
    for place in [Place::Bare, Place::P2sh, Place::P2wsh, Place::P2shP2wsh] {
        let witness = !matches!(place, Place::Bare | Place::P2sh);
        add("key", place, &p2pk(&compressed), std::slice::from_ref(&good), true);
        add(
            "key, high S",
            place,
            &p2pk(&compressed),
            std::slice::from_ref(&high),
            false,
        );
        add(
            "key, odd type",
            place,
            &p2pk(&compressed),
            std::slice::from_ref(&odd),
            false,
        );
        add(
            "uncompressed key",
            place,
            &p2pk(&uncompressed),
            std::slice::from_ref(&good),
            !witness,
        );
        add("hybrid key", place, &p2pk(&hybrid), std::slice::from_ref(&good), false);
        add(
            "key, more on the stack",
            place,
            &p2pk(&compressed),
            &[nine.clone(), good.clone()],
            false,
        );
        add(
            "hash",
            place,
            &p2pkh(&compressed),
            &[good.clone(), key(&compressed)],
            true,
        );
        add(
            "hash, high S",
            place,
            &p2pkh(&compressed),
            &[high.clone(), key(&compressed)],
            false,
        );
        add(
            "hash, odd type",
            place,
            &p2pkh(&compressed),
            &[odd.clone(), key(&compressed)],
            false,
        );
        add(
            "hash, uncompressed",
            place,
            &p2pkh(&uncompressed),
            &[good.clone(), key(&uncompressed)],
            !witness,
        );
        add(
            "hash, hybrid",
            place,
            &p2pkh(&hybrid),
            &[good.clone(), key(&hybrid)],
            false,
        );
        let more = [nine.clone(), good.clone(), key(&compressed)];
        add("hash, more on the stack", place, &p2pkh(&compressed), &more, false);
        let two = multisig(&[&uncompressed, &compressed]);
        add("multisig", place, &two, &[empty.clone(), good.clone()], true);
        add("multisig, high S", place, &two, &[empty.clone(), high.clone()], false);
        add("multisig, odd type", place, &two, &[empty.clone(), odd.clone()], false);
        add(
            "multisig, more",
            place,
            &two,
            &[nine.clone(), empty.clone(), good.clone()],
            false,
        );
        let last = multisig(&[&compressed, &hybrid]);
        add(
            "multisig, hybrid compared",
            place,
            &last,
            &[empty.clone(), good.clone()],
            false,
        );
        let first = multisig(&[&hybrid, &compressed]);
        add(
            "multisig, hybrid left out",
            place,
            &first,
            &[empty.clone(), good.clone()],
            true,
        );
        if place != Place::Bare {
            add(
                "wrong signature",
                place,
                &p2pk(&compressed),
                &[Item::Bytes(vec![0x30, 6, 2, 1, 1, 2, 1, 1, 1])],
                false,
            );
            add("upgradable nop", place, &bytes(&[0xb3, 0x51]), &[], false);
            add("nop", place, &bytes(&[0x61, 0x51]), &[], true);
            add(
                "upgradable nop elsewhere",
                place,
                &bytes(&[0x00, 0x63, 0xb3, 0x68, 0x51]),
                &[],
                true,
            );
            add("long push", place, &bytes(&[0x4c, 1, 0x20, 0x75, 0x51]), &[], false);
            add(
                "long push elsewhere",
                place,
                &bytes(&[0x00, 0x63, 1, 5, 0x75, 0x68, 0x51]),
                &[],
                true,
            );
            add("separator", place, &bytes(&[0xab, 0x51]), &[], witness);
            add(
                "separator elsewhere",
                place,
                &bytes(&[0x00, 0x63, 0xab, 0x68, 0x51]),
                &[],
                witness,
            );
            let branch = bytes(&[0x63, 0x51, 0x67, 0x51, 0x68]);
            add("branch", place, &branch, &[Item::Bytes(vec![1])], true);
            add("branch by two", place, &branch, &[Item::Bytes(vec![2])], !witness);
        }
    }
    let program = Builder::new().push_int(1).push_slice([7; 32]).into_script();
    add("nested taproot", Place::P2sh, &program, &[], false);
    for version in [0xc0, 0xc2] {
        let leaf = Place::Leaf(version);
        let tapscript = version == 0xc0;
        add("leaf", leaf, &bytes(&[0x51]), &[], tapscript);
        add("leaf, success", leaf, &bytes(&[0x50]), &[], false);
        add(
            "leaf, hidden success",
            leaf,
            &bytes(&[0x00, 0x63, 0xfe, 0x68, 0x51]),
            &[],
            false,
        );
        add("leaf, nop", leaf, &bytes(&[0xb9, 0x51]), &[], false);
        add("leaf, long push", leaf, &bytes(&[1, 5]), &[], false);
        add(
            "leaf, future key",
            leaf,
            &p2pk(&compressed),
            &[Item::Bytes(vec![1; 64])],
            false,
        );
    }
    for (place, script, stack) in [
        (Place::Bare, p2pkh(&compressed), vec![good.clone(), key(&compressed)]),
        (Place::P2sh, p2pk(&compressed), vec![good]),
    ] {
        cases.push(Case {
            name: "long pushes",
            place,
            script,
            stack,
            good: false,
            wasteful: true,
        });
    }
    cases
}

#[tokio::test]
async fn scripts_are_refused_in_the_same_words() {
    let pair = Pair::start();
    let miner = Holder::new(1);
    pair.core.generate(101, &miner.address()).unwrap();
    let maker = Maker {
        secp: Secp256k1::new(),
        key: SecretKey::from_slice(&[5; 32]).unwrap(),
    };
    let cases = cases(&maker);
    let coin = coinbase_coin(&pair.core.block(&pair.core.hash_at(1).unwrap()).unwrap());
    let outputs = cases.iter().map(|case| TxOut {
        value: VALUE,
        script_pubkey: maker.output(case),
    });
    let funding = miner.spend(&[coin], outputs.collect());
    let mut plan = pair.core.plan(&miner).unwrap();
    plan.transactions.push(funding.clone());
    let block = serialize_hex(&plan.mine());
    assert_eq!(pair.core.call("submitblock", json!([block])).unwrap(), Value::Null);
    pair.follow().await;

    let mut refused = std::collections::BTreeSet::new();
    for (vout, case) in (0..).zip(&cases) {
        let tx = maker.spend(case, OutPoint::new(funding.compute_txid(), vout));
        let params = json!([[serialize_hex(&tx)]]);
        let core = pair.core.call("testmempoolaccept", params.clone()).unwrap()[0].clone();
        let mut ours = pair.ours("testmempoolaccept", &params).await.unwrap()[0].clone();
        let named = format!("{} in {:?}: {core} {ours}", case.name, case.place);
        assert_eq!(core["allowed"], json!(case.good), "{named}");
        let text = |value: &Value| value["reject-reason"].as_str().unwrap_or_default().to_owned();
        if text(&ours) == "mempool-script-verify-flag-failed" {
            // The kernel does not tell how a script fails by consensus.
            assert!(
                text(&core).starts_with("mempool-script-verify-flag-failed ("),
                "{named}"
            );
            ours = core.clone();
        }
        assert_eq!(core, ours, "{named}");
        refused.insert(text(&core));
    }
    println!("{} cases; {refused:#?}", cases.len());
    assert!(refused.len() >= 14, "{refused:#?}");

    // The key path of a taproot output has nothing to be refused for.
    let pair_key = Keypair::from_secret_key(&maker.secp, &maker.key);
    let script_pubkey = ScriptBuf::new_p2tr(&maker.secp, pair_key.x_only_public_key().0, None);
    let second = coinbase_coin(&pair.core.block(&pair.core.hash_at(2).unwrap()).unwrap());
    let output = TxOut {
        value: VALUE,
        script_pubkey,
    };
    let parent = miner.spend(&[second], vec![output.clone(); 1]);
    let mut plan = pair.core.plan(&miner).unwrap();
    plan.transactions.push(parent.clone());
    let block = serialize_hex(&plan.mine());
    assert_eq!(pair.core.call("submitblock", json!([block])).unwrap(), Value::Null);
    pair.follow().await;
    let mut tx = maker.spend(&cases[0], OutPoint::new(parent.compute_txid(), 0));
    tx.input[0].script_sig = ScriptBuf::new();
    let digest = SighashCache::new(&tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&[output]), TapSighashType::Default)
        .unwrap();
    let tweaked = pair_key.tap_tweak(&maker.secp, None).to_keypair();
    let signature = maker.secp.sign_schnorr_no_aux_rand(&Message::from(digest), &tweaked);
    tx.input[0].witness = Witness::from_slice(&[signature.serialize()]);
    let verdict = pair.same("testmempoolaccept", json!([[serialize_hex(&tx)]])).await;
    assert_eq!(verdict[0]["allowed"], true, "{verdict}");
}
