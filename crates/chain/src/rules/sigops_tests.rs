//! Tests of the signature operation count.
#![allow(clippy::unwrap_used)]

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, PubkeyHash, ScriptBuf, ScriptHash, Sequence, Transaction, TxIn, TxOut, WPubkeyHash, WScriptHash,
    Witness,
};

use super::*;
use crate::script::{VERIFY_ALL, VERIFY_NONE};

const CHECKSIG: u8 = 0xac;
const CHECKMULTISIG: u8 = 0xae;

fn count(script: &[u8], accurate: bool) -> u64 {
    script_sigops(Script::from_bytes(script), accurate)
}

fn push(data: &[u8]) -> Vec<u8> {
    let mut script = vec![0x4c, data.len() as u8];
    script.extend(data);
    script
}

fn spend(script_sig: Vec<u8>, witness: &[&[u8]]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0),
            script_sig: ScriptBuf::from_bytes(script_sig),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(witness),
        }],
        output: vec![],
    }
}

fn coin(script_pubkey: ScriptBuf) -> [TxOut; 1] {
    [TxOut {
        value: Amount::ZERO,
        script_pubkey,
    }]
}

#[test]
fn single_scripts() {
    assert_eq!(count(&[], false), 0);
    assert_eq!(count(&[CHECKSIG, 0xad], false), 2);
    assert_eq!(
        count(&[0x52, CHECKMULTISIG], false),
        20,
        "the count before it is not read"
    );
    assert_eq!(count(&[0x52, CHECKMULTISIG], true), 2);
    assert_eq!(count(&[0x60, 0xaf], true), 16);
    assert_eq!(
        count(&[0x01, 0x11, CHECKMULTISIG], true),
        20,
        "a pushed number does not count as one"
    );
    assert_eq!(count(&[0x00, CHECKMULTISIG], true), 20);
    assert_eq!(count(&[CHECKMULTISIG], true), 20);
    assert_eq!(
        count(&[0x52, 0x61, CHECKMULTISIG], true),
        20,
        "only the operation directly before"
    );
    assert_eq!(count(&[0x01, CHECKSIG], false), 0, "pushed bytes are no operations");
    assert_eq!(
        count(&[CHECKSIG, 0x05, CHECKSIG], false),
        1,
        "counting ends at a broken push"
    );
    assert_eq!(
        count(&[CHECKSIG, 0xff, CHECKSIG], false),
        2,
        "unknown operations are passed over"
    );
}

#[test]
fn legacy_counts_both_sides() {
    let mut tx = spend(vec![CHECKSIG], &[]);
    tx.output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(vec![CHECKMULTISIG, CHECKSIG]),
    });
    assert_eq!(legacy_sigops(&tx), 22);
    assert_eq!(transaction_sigop_cost(&tx, &coin(ScriptBuf::new()), VERIFY_ALL), 88);
}

#[test]
fn redeem_scripts_count_accurately_if_the_input_only_pushes() {
    let redeem = [0x51, CHECKSIG, 0x53, CHECKMULTISIG];
    let p2sh = ScriptBuf::new_p2sh(&ScriptHash::from_byte_array([7; 20]));
    let cost = |script_sig: Vec<u8>, flags| transaction_sigop_cost(&spend(script_sig, &[]), &coin(p2sh.clone()), flags);
    assert_eq!(cost(push(&redeem), VERIFY_ALL), 16);
    assert_eq!(cost(push(&redeem), VERIFY_NONE), 0, "before BIP 16");
    assert_eq!(
        cost([push(&redeem), vec![0x61]].concat(), VERIFY_ALL),
        0,
        "NOP is no push"
    );
    assert_eq!(
        cost([push(&redeem), vec![0x51]].concat(), VERIFY_ALL),
        0,
        "a number is the last push"
    );
    assert_eq!(
        cost([push(&redeem), vec![0x50], push(&redeem)].concat(), VERIFY_ALL),
        16,
        "RESERVED counts as a push"
    );
    assert_eq!(
        cost([push(&redeem), vec![0x05]].concat(), VERIFY_ALL),
        0,
        "a broken push"
    );
    assert_eq!(cost(vec![], VERIFY_ALL), 0);
    let other = ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array([7; 20]));
    assert_eq!(p2sh_sigops(&spend(push(&redeem), &[]), &coin(other)), 0);
}

#[test]
fn witness_programs_count_once_per_operation() {
    let script: &[u8] = &[0x52, CHECKMULTISIG, CHECKSIG];
    let wsh = ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([7; 32]));
    let wpkh = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]));
    let cost = |tx: Transaction, script: &ScriptBuf, flags| transaction_sigop_cost(&tx, &coin(script.clone()), flags);
    assert_eq!(cost(spend(vec![], &[&[1], script]), &wsh, VERIFY_ALL), 3);
    assert_eq!(cost(spend(vec![], &[]), &wsh, VERIFY_ALL), 0);
    assert_eq!(cost(spend(vec![], &[&[1], script]), &wpkh, VERIFY_ALL), 1);
    assert_eq!(cost(spend(vec![], &[]), &wpkh, VERIFY_ALL), 1, "even without a witness");
    assert_eq!(cost(spend(vec![], &[&[1], script]), &wsh, VERIFY_P2SH), 0);

    // Nested: the redeem script is the program.
    let p2sh = ScriptBuf::new_p2sh(&ScriptHash::from_byte_array([7; 20]));
    assert_eq!(cost(spend(push(wsh.as_bytes()), &[&[1], script]), &p2sh, VERIFY_ALL), 3);
    assert_eq!(cost(spend(push(wpkh.as_bytes()), &[]), &p2sh, VERIFY_ALL), 1);
    assert_eq!(
        cost(
            spend([push(wsh.as_bytes()), vec![0x61]].concat(), &[script]),
            &p2sh,
            VERIFY_ALL
        ),
        0
    );

    // Taproot and programs of the future count nothing here.
    for version in [0x51, 0x52, 0x60] {
        let program = ScriptBuf::from_bytes([vec![version, 32], vec![7; 32]].concat());
        assert_eq!(cost(spend(vec![], &[script]), &program, VERIFY_ALL), 0);
    }
    let odd = ScriptBuf::from_bytes([vec![0x00, 31], vec![7; 31]].concat());
    assert_eq!(
        cost(spend(vec![], &[script]), &odd, VERIFY_ALL),
        0,
        "version 0 of another length"
    );
}

#[test]
fn a_coinbase_has_only_the_old_count() {
    let mut tx = spend(vec![CHECKSIG], &[]);
    tx.input[0].previous_output = OutPoint::null();
    assert_eq!(transaction_sigop_cost(&tx, &[] as &[TxOut], VERIFY_ALL), 4);
    assert_eq!(p2sh_sigops(&tx, &[] as &[TxOut]), 0);
}
