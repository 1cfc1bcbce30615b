//! Tests of the rules by forms; beside a real bitcoind they stand in `crates/api/tests/policy_against_core.rs`.
#![allow(clippy::unwrap_used)]

use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, ScriptHash, WPubkeyHash, WScriptHash};

use super::*;

fn low() -> Vec<u8> {
    // r = s = 1.
    vec![0x30, 6, 2, 1, 1, 2, 1, 1, 1]
}

fn high() -> Vec<u8> {
    // s is the group's order less one.
    let order = hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140");
    [vec![0x30, 38, 2, 1, 1, 2, 33, 0], order, vec![1]].concat()
}

fn hex(text: &str) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(text).unwrap()
}

fn key() -> Vec<u8> {
    [vec![2], vec![7; 32]].concat()
}

/// The shortest push of up to 75 bytes.
fn push(bytes: &[u8]) -> Vec<u8> {
    [vec![bytes.len() as u8], bytes.to_vec()].concat()
}

fn bare(script_sig: Vec<u8>, script: Vec<u8>) -> Result<(), Broken> {
    check_input(
        Script::from_bytes(&script_sig),
        &Witness::new(),
        Script::from_bytes(&script),
    )
}

fn witness(items: &[Vec<u8>], script: ScriptBuf) -> Result<(), Broken> {
    check_input(Script::new(), &Witness::from_slice(items), &script)
}

fn p2wsh(stack: &[Vec<u8>], script: Vec<u8>) -> Result<(), Broken> {
    let items = [stack, &[script]].concat();
    witness(&items, ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()))
}

fn p2sh(stack: Vec<u8>, redeem: &[u8]) -> Result<(), Broken> {
    let script = ScriptBuf::new_p2sh(&ScriptHash::all_zeros()).into_bytes();
    bare([stack, push(redeem)].concat(), script)
}

fn tapscript(stack: &[Vec<u8>], script: Vec<u8>, leaf: u8) -> Result<(), Broken> {
    let control = [vec![leaf], vec![1; 32]].concat();
    let output = ScriptBuf::from_bytes([vec![0x51, 32], vec![1; 32]].concat());
    witness(&[stack, &[script, control]].concat(), output)
}

#[test]
fn signatures_and_keys_of_usual_forms() {
    let p2pkh = || ScriptBuf::new_p2pkh(&PubkeyHash::all_zeros()).into_bytes();
    let both = |signature: &[u8], key: &[u8]| [push(signature), push(key)].concat();
    assert_eq!(bare(both(&low(), &key()), p2pkh()), Ok(()));
    assert_eq!(bare(both(&high(), &key()), p2pkh()), Err(Broken::HighS));
    let with_type = |hash_type| [&low()[..8], &[hash_type]].concat();
    assert_eq!(bare(both(&with_type(0x83), &key()), p2pkh()), Ok(()));
    for hash_type in [0, 4, 0x80] {
        assert_eq!(
            bare(both(&with_type(hash_type), &key()), p2pkh()),
            Err(Broken::HashType)
        );
    }
    let hybrid = [vec![6], vec![7; 64]].concat();
    assert_eq!(bare(both(&low(), &hybrid), p2pkh()), Err(Broken::PubkeyType));
    let more = [push(&[9, 9]), both(&low(), &key())].concat();
    assert_eq!(bare(more, p2pkh()), Err(Broken::CleanStack));
    let longer = [vec![OP_PUSHDATA1, 9], low(), push(&key())].concat();
    assert_eq!(bare(longer, p2pkh()), Err(Broken::MinimalData));

    let p2wpkh = || ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros());
    let uncompressed = [vec![4], vec![7; 64]].concat();
    assert_eq!(witness(&[low(), key()], p2wpkh()), Ok(()));
    assert_eq!(witness(&[high(), key()], p2wpkh()), Err(Broken::HighS));
    assert_eq!(
        witness(&[low(), uncompressed.clone()], p2wpkh()),
        Err(Broken::WitnessPubkeyType)
    );
    assert_eq!(bare(both(&low(), &uncompressed), p2pkh()), Ok(()));
    let direct = |key: &[u8]| [push(key), vec![OP_CHECKSIG]].concat();
    assert_eq!(p2wsh(&[low()], direct(&uncompressed)), Err(Broken::WitnessPubkeyType));
    assert_eq!(p2sh(push(&low()), &direct(&uncompressed)), Ok(()));
    assert_eq!(
        p2sh([push(&[5, 5]), push(&low())].concat(), &direct(&key())),
        Err(Broken::CleanStack)
    );
}

#[test]
fn multisignatures() {
    let script = |keys: &[Vec<u8>]| {
        let keys: Vec<u8> = keys.iter().flat_map(|key| push(key)).collect();
        [vec![0x51], keys, vec![0x52, 0xae]].concat()
    };
    let hybrid = [vec![6], vec![7; 64]].concat();
    let signed = || [vec![0], push(&low())].concat();
    assert_eq!(bare(signed(), script(&[key(), key()])), Ok(()));
    assert_eq!(
        bare(signed(), script(&[key(), hybrid.clone()])),
        Err(Broken::PubkeyType)
    );
    assert_eq!(
        bare(signed(), script(&[hybrid, key()])),
        Ok(()),
        "it may not be looked at"
    );
    assert_eq!(
        bare([vec![0], push(&high())].concat(), script(&[key(), key()])),
        Err(Broken::HighS)
    );
    assert_eq!(
        bare([vec![0, 0], push(&low())].concat(), script(&[key(), key()])),
        Err(Broken::CleanStack)
    );
}

#[test]
fn what_every_run_comes_by() {
    assert_eq!(p2sh(vec![], &[0xb0, 0x51]), Err(Broken::UpgradableNops));
    assert_eq!(p2sh(vec![], &[0x61, 0x51]), Ok(()), "OP_NOP is no upgrade");
    assert_eq!(
        p2sh(vec![0x51], &[0x63, 0xb0, 0x68, 0x51]),
        Ok(()),
        "a branch may not run"
    );
    assert_eq!(
        p2sh(vec![0x51], &[0x63, 0xab, 0x68, 0x51]),
        Err(Broken::OpCodeSeparator)
    );
    assert_eq!(p2wsh(&[], vec![0xab, 0x51]), Ok(()));
    assert_eq!(p2wsh(&[], vec![1, 5]), Err(Broken::MinimalData));
    assert_eq!(
        p2wsh(&[vec![2]], vec![0x63, 0x51, 0x67, 0x51, 0x68]),
        Err(Broken::MinimalIf)
    );
    assert_eq!(p2wsh(&[vec![1]], vec![0x63, 0x51, 0x67, 0x51, 0x68]), Ok(()));
    let redeem = ScriptBuf::from_bytes([vec![0x51, 32], vec![1; 32]].concat());
    assert_eq!(p2sh(vec![], redeem.as_bytes()), Err(Broken::UpgradableWitnessProgram));
}

#[test]
fn tapscripts() {
    let direct = |key: Vec<u8>| [push(&key), vec![OP_CHECKSIG]].concat();
    assert_eq!(tapscript(&[vec![1; 64]], direct(vec![1; 32]), 0xc1), Ok(()));
    assert_eq!(
        tapscript(&[vec![1; 64]], direct(key()), 0xc0),
        Err(Broken::UpgradablePubkeyType)
    );
    assert_eq!(tapscript(&[], vec![0x51], 0xc2), Err(Broken::UpgradableTaprootVersion));
    assert_eq!(
        tapscript(&[], vec![0x00, 0x63, 0xfe, 0x68], 0xc0),
        Err(Broken::OpSuccess)
    );
    assert_eq!(tapscript(&[], vec![0xb9, 0x51], 0xc0), Err(Broken::UpgradableNops));
    assert_eq!(
        witness(
            &[vec![0; 64]],
            ScriptBuf::from_bytes([vec![0x51, 32], vec![1; 32]].concat())
        ),
        Ok(())
    );
}

#[test]
fn shortest_pushes() {
    let minimal = |code: u8, length: usize| is_minimal(code, &vec![0x20; length]);
    assert!(minimal(75, 75) && !minimal(OP_PUSHDATA1, 75) && minimal(OP_PUSHDATA1, 76));
    assert!(!minimal(OP_PUSHDATA2, 255) && minimal(OP_PUSHDATA2, 256) && !minimal(OP_PUSHDATA4, 65_535));
    assert!(is_minimal(0, &[]) && !is_minimal(OP_PUSHDATA1, &[]));
    assert!(!is_minimal(1, &[16]) && is_minimal(1, &[17]) && !is_minimal(1, &[0x81]) && is_minimal(1, &[0]));
}
