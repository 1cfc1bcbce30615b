//! Core's own test vectors against our rules and the kernel as we call it. The kernel takes consensus flags only, so a
//! case that expects a policy flag to fail a script can not be run: those are counted, and the counts are pinned.

#![allow(clippy::unwrap_used)]

mod asm;

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::key::UntweakedPublicKey;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::SighashCache;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use dunlin_chain::rules::check_tx;
use dunlin_chain::script::{
    Flags, VERIFY_ALL, VERIFY_CHECKLOCKTIMEVERIFY, VERIFY_CHECKSEQUENCEVERIFY, VERIFY_DERSIG, VERIFY_NONE,
    VERIFY_NULLDUMMY, VERIFY_P2SH, VERIFY_TAPROOT, VERIFY_WITNESS, verify_tx,
};
use serde_json::Value;

/// The consensus flags that `names` lists, and whether it lists others too.
fn flags(names: &str) -> (Flags, bool) {
    let mut flags = VERIFY_NONE;
    let mut policy = false;
    for name in names.split(',') {
        flags |= match name {
            "" | "NONE" => VERIFY_NONE,
            "P2SH" => VERIFY_P2SH,
            "DERSIG" => VERIFY_DERSIG,
            "NULLDUMMY" => VERIFY_NULLDUMMY,
            "CHECKLOCKTIMEVERIFY" => VERIFY_CHECKLOCKTIMEVERIFY,
            "CHECKSEQUENCEVERIFY" => VERIFY_CHECKSEQUENCEVERIFY,
            "WITNESS" => VERIFY_WITNESS,
            "TAPROOT" => VERIFY_TAPROOT,
            _ => {
                policy = true;
                VERIFY_NONE
            }
        };
    }
    (flags, policy)
}

/// Flags that the kernel takes together: the witness rules need pay-to-script-hash.
fn trimmed(flags: Flags) -> Flags {
    if flags & VERIFY_P2SH == 0 {
        flags & !VERIFY_WITNESS
    } else {
        flags
    }
}

/// The cases of a file, without the comments between them.
fn cases(text: &str) -> Vec<Vec<Value>> {
    let all: Vec<Vec<Value>> = serde_json::from_str(text).unwrap();
    all.into_iter().filter(|case| case.len() > 1).collect()
}

/// A transaction of tx_valid.json or tx_invalid.json with the outputs that it spends.
fn transaction(case: &[Value]) -> (Transaction, Vec<TxOut>) {
    let mut coins = HashMap::new();
    for input in case[0].as_array().unwrap() {
        let index = input[1].as_i64().unwrap() as u32;
        let outpoint = OutPoint::new(input[0].as_str().unwrap().parse().unwrap(), index);
        let script = asm::parse(input[2].as_str().unwrap()).unwrap();
        let value = Amount::from_sat(input.get(3).map_or(0, |value| value.as_u64().unwrap()));
        coins.insert(
            outpoint,
            TxOut {
                value,
                script_pubkey: ScriptBuf::from_bytes(script),
            },
        );
    }
    let tx: Transaction = deserialize(&hex::decode(case[1].as_str().unwrap()).unwrap()).unwrap();
    let spent = tx
        .input
        .iter()
        .filter_map(|input| coins.get(&input.previous_output).cloned())
        .collect();
    (tx, spent)
}

#[test]
fn valid_transactions_pass_and_their_excluded_flags_matter() {
    let (mut passed, mut maximal) = (0, 0);
    for case in cases(include_str!("../data/tx_valid.json")) {
        let (tx, spent) = transaction(&case);
        check_tx(&tx).unwrap_or_else(|reject| panic!("{reject}: {case:?}"));
        let (excluded, _) = flags(case[2].as_str().unwrap());
        let with = trimmed(VERIFY_ALL & !excluded);
        assert_eq!(verify_tx(&tx, &spent, with), Ok(()), "{case:?}");
        passed += 1;
        for bit in 0..32 {
            let flag = 1 << bit;
            // Fewer flags never make a valid transaction invalid.
            assert_eq!(
                verify_tx(&tx, &spent, trimmed(with & !flag)),
                Ok(()),
                "without {flag:x}: {case:?}"
            );
            if excluded & flag != 0 {
                assert!(verify_tx(&tx, &spent, with | flag).is_err(), "with {flag:x}: {case:?}");
                maximal += 1;
            }
        }
    }
    println!("tx_valid: {passed} run, none skipped; {maximal} excluded flags shown to matter");
    assert_eq!((passed, maximal), (121, MAXIMAL_FLAGS));
}

#[test]
fn invalid_transactions_fail_in_the_rules_or_in_their_scripts() {
    let (mut by_rules, mut by_scripts, mut skipped) = (0, 0, 0);
    for case in cases(include_str!("../data/tx_invalid.json")) {
        let (tx, spent) = transaction(&case);
        let names = case[2].as_str().unwrap();
        if names == "BADTX" {
            assert!(check_tx(&tx).is_err(), "{case:?}");
            by_rules += 1;
            continue;
        }
        assert_eq!(check_tx(&tx), Ok(()), "{case:?}");
        let (with, policy) = flags(names);
        if policy {
            skipped += 1;
            continue;
        }
        assert!(verify_tx(&tx, &spent, with).is_err(), "{case:?}");
        // More flags never make an invalid transaction valid.
        assert!(verify_tx(&tx, &spent, VERIFY_ALL).is_err(), "{case:?}");
        by_scripts += 1;
    }
    println!("tx_invalid: {by_rules} fail by rules, {by_scripts} by scripts, {skipped} skipped for policy flags");
    assert_eq!((by_rules, by_scripts, skipped), INVALID_COUNTS);
}

/// The pair of transactions that Core's script tests are run in.
fn spend(script_sig: Vec<u8>, script_pubkey: Vec<u8>, witness: &[Vec<u8>], value: Amount) -> (Transaction, TxOut) {
    let tx = |previous_output, script_sig, witness, output| Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness,
        }],
        output: vec![output],
    };
    let credited = TxOut {
        value,
        script_pubkey: ScriptBuf::from_bytes(script_pubkey),
    };
    let zeros = ScriptBuf::from_bytes(vec![0, 0]);
    let crediting = tx(OutPoint::null(), zeros, Witness::new(), credited.clone());
    let spending = tx(
        OutPoint::new(crediting.compute_txid(), 0),
        ScriptBuf::from_bytes(script_sig),
        Witness::from_slice(witness),
        TxOut {
            value,
            script_pubkey: ScriptBuf::new(),
        },
    );
    (spending, credited)
}

/// The elements of a witness. A template asks for a taproot tree of one leaf to be built around its script; then the
/// output's key is returned, too.
fn built(items: &[&str]) -> (Vec<Vec<u8>>, Option<[u8; 32]>) {
    let Some(leaf) = items.iter().find_map(|item| item.strip_prefix("#SCRIPT#")) else {
        return (items.iter().map(|item| hex::decode(item).unwrap()).collect(), None);
    };
    let leaf = ScriptBuf::from_bytes(asm::parse(leaf).unwrap());
    // The point that nobody knows the key of (BIP 341).
    let nobody = hex::decode("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0").unwrap();
    let tree = TaprootBuilder::new()
        .add_leaf(0, leaf.clone())
        .unwrap()
        .finalize(&Secp256k1::new(), UntweakedPublicKey::from_slice(&nobody).unwrap())
        .unwrap();
    let control = tree.control_block(&(leaf.clone(), LeafVersion::TapScript)).unwrap();
    let items = items
        .iter()
        .map(|item| match *item {
            "#CONTROLBLOCK#" => control.serialize(),
            item if item.starts_with("#SCRIPT#") => leaf.to_bytes(),
            item => hex::decode(item).unwrap(),
        })
        .collect();
    (items, Some(tree.output_key().to_x_only_public_key().serialize()))
}

#[test]
fn script_pairs_end_as_core_says() {
    let (mut ok, mut failed, mut skipped_policy, mut taproot) = (0, 0, 0, 0);
    for case in cases(include_str!("../data/script_tests.json")) {
        if case.len() < 4 {
            continue;
        }
        let (witness, rest) = match case[0].as_array() {
            Some(items) => (items.as_slice(), &case[1..]),
            None => (&[][..], &case[..]),
        };
        let texts: Vec<&str> = rest.iter().take(4).map(|value| value.as_str().unwrap()).collect();
        let (value, items) = witness
            .split_last()
            .map_or((0.0, &[][..]), |(value, rest)| (value.as_f64().unwrap(), rest));
        let items: Vec<&str> = items.iter().map(|item| item.as_str().unwrap()).collect();
        let (items, output) = built(&items);
        let mut texts: Vec<String> = texts.into_iter().map(String::from).collect();
        if let Some(output) = output {
            texts[1] = texts[1].replace("#TAPROOTOUTPUT#", &format!("0x{}", hex::encode(output)));
            taproot += 1;
        }
        let (with, policy) = flags(&texts[2]);
        let (spending, credited) = spend(
            asm::parse(&texts[0]).unwrap(),
            asm::parse(&texts[1]).unwrap(),
            &items,
            Amount::from_btc(value).unwrap(),
        );
        let result = verify_tx(&spending, &[credited], trimmed(with));
        if texts[3] == "OK" {
            // Policy flags only ever refuse more, so the case holds without them.
            assert_eq!(result, Ok(()), "{case:?}");
            ok += 1;
        } else if policy {
            skipped_policy += 1;
        } else {
            assert!(result.is_err(), "{case:?}");
            failed += 1;
        }
    }
    println!(
        "script_tests: {ok} pass, {failed} fail as they should, {skipped_policy} skipped for policy flags; \
         {taproot} are taproot templates"
    );
    assert_eq!((ok, failed, skipped_policy, taproot), SCRIPT_COUNTS);
}

#[test]
fn the_signed_transaction_of_bip341_verifies_and_no_flipped_witness_does() {
    let vectors: Value = serde_json::from_str(include_str!("../data/bip341_wallet_vectors.json")).unwrap();
    let case = &vectors["keyPathSpending"][0];
    let raw = hex::decode(case["auxiliary"]["fullySignedTx"].as_str().unwrap()).unwrap();
    let tx: Transaction = deserialize(&raw).unwrap();
    let spent: Vec<TxOut> = case["given"]["utxosSpent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|utxo| TxOut {
            value: Amount::from_sat(utxo["amountSats"].as_u64().unwrap()),
            script_pubkey: ScriptBuf::from_hex(utxo["scriptPubKey"].as_str().unwrap()).unwrap(),
        })
        .collect();
    assert_eq!(spent.len(), 9);
    assert_eq!(verify_tx(&tx, &spent, VERIFY_ALL), Ok(()));
    for input in 0..tx.input.len() {
        let mut broken = tx.clone();
        if tx.input[input].witness.is_empty() {
            broken.input[input].script_sig = ScriptBuf::new();
        } else {
            let mut stack = tx.input[input].witness.to_vec();
            stack[0][10] ^= 1;
            broken.input[input].witness = Witness::from_slice(&stack);
        }
        assert!(verify_tx(&broken, &spent, VERIFY_ALL).is_err(), "input {input}");
    }
    // Taproot signatures commit to every amount spent.
    let mut dearer = spent.clone();
    dearer[0].value += Amount::from_sat(1);
    assert!(verify_tx(&tx, &dearer, VERIFY_ALL).is_err());
}

/// Core hashes these transactions for a legacy signature. What is signed is computed within the kernel and by the library
/// that our tests sign with: the latter is checked here. The transactions themselves must pass our rules and come out of
/// our decoder as they went in.
#[test]
fn legacy_signature_hashes_are_cores() {
    let mut run = 0;
    for case in cases(include_str!("../data/sighash.json")) {
        let raw = hex::decode(case[0].as_str().unwrap()).unwrap();
        let tx: Transaction = deserialize(&raw).unwrap();
        assert_eq!(check_tx(&tx), Ok(()), "{case:?}");
        let script = hex::decode(case[1].as_str().unwrap()).unwrap();
        let kind = case[3].as_i64().unwrap() as i32 as u32;
        let index = usize::try_from(case[2].as_u64().unwrap()).unwrap();
        // OP_CODESEPARATOR is no part of what is signed.
        let script = ScriptBuf::from_bytes(asm::without(&script, 0xab));
        let hash = SighashCache::new(&tx)
            .legacy_signature_hash(index, &script, kind)
            .unwrap();
        let mut shown = hash.to_byte_array();
        shown.reverse();
        assert_eq!(hex::encode(shown), case[4].as_str().unwrap(), "{case:?}");
        run += 1;
    }
    assert_eq!(run, SIGHASHES);
}

/// Counts of what is run; a change means that vectors were lost or added.
const MAXIMAL_FLAGS: usize = 10;
const INVALID_COUNTS: (usize, usize, usize) = (9, 70, 14);
const SCRIPT_COUNTS: (usize, usize, usize, usize) = (675, 86, 461, 5);
const SIGHASHES: usize = 500;
