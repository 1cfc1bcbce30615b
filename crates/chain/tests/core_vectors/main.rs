//! Core's own test vectors against our rules and the kernel as we call it. The kernel takes consensus flags only, so a
//! case that expects a policy flag to fail a script can not be run: those are counted, and the counts are pinned.

#![allow(clippy::unwrap_used)]

mod asm;

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
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

#[test]
fn script_pairs_end_as_core_says() {
    let (mut ok, mut failed, mut skipped_policy, mut skipped_taproot) = (0, 0, 0, 0);
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
        if items.iter().any(|item| item.as_str().unwrap().contains('#')) {
            // A template that asks for a taproot tree to be built around it; BIP 341's own vectors are used instead.
            skipped_taproot += 1;
            continue;
        }
        let items: Vec<Vec<u8>> = items
            .iter()
            .map(|item| hex::decode(item.as_str().unwrap()).unwrap())
            .collect();
        let (with, policy) = flags(texts[2]);
        let (spending, credited) = spend(
            asm::parse(texts[0]).unwrap(),
            asm::parse(texts[1]).unwrap(),
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
        "script_tests: {ok} pass, {failed} fail as they should, {skipped_policy} skipped for policy flags, \
         {skipped_taproot} skipped as taproot templates"
    );
    assert_eq!((ok, failed, skipped_policy, skipped_taproot), SCRIPT_COUNTS);
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

/// Counts of what is run; a change means that vectors were lost or added.
const MAXIMAL_FLAGS: usize = 10;
const INVALID_COUNTS: (usize, usize, usize) = (9, 70, 14);
const SCRIPT_COUNTS: (usize, usize, usize, usize) = (672, 84, 461, 5);
