//! Tests of the signet rule with the first blocks of the public signet and with challenges of our own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::{Block, VarInt};

use super::*;
use crate::build::{Base, assemble, commit_transactions, commit_witnesses};
use crate::rules::{check_block, contextual_check_block};
use crate::{Network, RejectKind};

fn public_blocks() -> Vec<Arc<ParsedBlock>> {
    include_str!("../../tests/data/signet_blocks.txt")
        .lines()
        .map(|line| ParsedBlock::parse(hex::decode(line).unwrap().into()).unwrap())
        .collect()
}

#[test]
fn blocks_of_the_public_signet_pass_every_rule() {
    let params = Params::new(Network::Signet);
    let mut parent = params.genesis.header;
    let blocks = public_blocks();
    assert_eq!(blocks.len(), 3);
    for (block, height) in blocks.iter().zip(1..) {
        assert_eq!(block.header().prev_blockhash, parent.block_hash());
        check_block(&params, block).unwrap();
        contextual_check_block(&params, block, height, params.genesis.header.time).unwrap();
        parent = *block.header();
    }
}

#[test]
fn any_other_key_set_refuses_them() {
    let mut params = Params::new(Network::Signet);
    let mut challenge = params.signet_challenge.unwrap().to_bytes();
    // Two of two instead of one of two.
    challenge[0] = 0x52;
    params.signet_challenge = Some(ScriptBuf::from_bytes(challenge));
    let reject = check_block(&params, &public_blocks()[0]).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("bad-signet-blksig", RejectKind::Consensus)
    );
}

#[test]
fn the_solution_commits_to_the_header_fields_and_the_transactions() {
    let params = Params::new(Network::Signet);
    let real = public_blocks()[0].block().clone();
    let solved = |block: Block| check_signet_solution(&params, &ParsedBlock::from_block(block)).is_ok();
    assert!(solved(real.clone()));
    let mut other = real.clone();
    other.header.nonce += 1;
    assert!(solved(other), "the nonce is free");
    let mut other = real.clone();
    other.header.time += 1;
    assert!(!solved(other));
    let mut other = real.clone();
    other.txdata[0].output[0].value = Amount::ZERO;
    assert!(!solved(other));
    let mut other = real;
    other.txdata[0].output.remove(1);
    assert!(!solved(other), "without a commitment there is no solution");
}

/// A block whose commitment carries `extra` after the usual script.
fn with_extra(params: &Params, extra: &[u8]) -> Arc<ParsedBlock> {
    let base = Base {
        height: 1,
        parent: params.genesis_hash,
        bits: params.genesis.header.bits,
        time: params.genesis.header.time + 1,
    };
    let mut block = assemble(params, &base, vec![], Amount::ZERO, ScriptBuf::new(), b"");
    commit_witnesses(&mut block);
    let script = &mut block.txdata[0].output[1].script_pubkey;
    *script = ScriptBuf::from_bytes([script.as_bytes(), extra].concat());
    commit_transactions(&mut block);
    ParsedBlock::from_block(block)
}

/// A push of the header and a solution of one script and one witness stack, `trailing` bytes too many.
fn solution(script_sig: &[u8], witness: &[&[u8]], trailing: usize) -> Vec<u8> {
    let mut bytes = SIGNET_HEADER.to_vec();
    bytes.extend(serialize(&script_sig.to_vec()));
    bytes.extend(serialize(&VarInt(witness.len() as u64)));
    for item in witness {
        bytes.extend(serialize(&item.to_vec()));
    }
    bytes.extend(vec![0; trailing]);
    let mut script = Vec::new();
    append_push(&mut script, &bytes);
    script
}

#[test]
fn a_trivial_challenge_needs_no_solution() {
    let mut params = Params::new(Network::Signet);
    params.signet_challenge = Some(ScriptBuf::from_bytes(vec![0x51]));
    let judge = |extra: &[u8]| check_signet_solution(&params, &with_extra(&params, extra)).is_ok();
    assert!(judge(&[]));
    assert!(judge(&solution(&[], &[], 0)));
    assert!(!judge(&solution(&[], &[], 1)), "bytes after the solution");
    assert!(!judge(&solution(&[0x6a], &[], 0)), "a script that fails");
    assert!(
        !judge(&[5, 0xec, 0xc7, 0xda, 0xa2, 9]),
        "a solution that does not parse"
    );
    assert!(judge(&[4, 0xec, 0xc7, 0xda, 0xa2]), "the bare header is no solution");
    assert!(!judge(&solution(&[], &[&[1]], 0)), "a witness where none belongs");
}

#[test]
fn a_witness_challenge_is_solved_by_a_witness() {
    use bitcoin::hashes::{Hash, sha256};
    let mut params = Params::new(Network::Signet);
    // Anybody who knows the number 7 may sign: SHA256 <hash> EQUAL.
    let script = [&[0xa8, 0x20][..], sha256::Hash::hash(&[7]).as_byte_array(), &[0x87]].concat();
    let program = ScriptBuf::from_bytes(script.clone()).to_p2wsh();
    params.signet_challenge = Some(program);
    let judge = |item: &[u8]| {
        let block = with_extra(&params, &solution(&[], &[item, &script], 0));
        check_signet_solution(&params, &block).is_ok()
    };
    assert!(judge(&[7]));
    assert!(!judge(&[8]));
    assert!(check_signet_solution(&params, &with_extra(&params, &[])).is_err());
}

#[test]
fn networks_without_a_challenge_pass() {
    let params = Params::new(Network::Regtest);
    assert_eq!(check_signet_solution(&params, &public_blocks()[0]), Ok(()));
}

#[test]
fn only_the_first_solution_is_cut_out() {
    let mut script = vec![0x6a];
    append_push(&mut script, &[1; 36]);
    let head = script.clone();
    append_push(&mut script, &[0xec, 0xc7, 0xda, 0xa2, 5, 6]);
    append_push(&mut script, &[0xec, 0xc7, 0xda, 0xa2, 8]);
    let (without, found) = take_solution(&script).unwrap();
    assert_eq!(found, [5, 6]);
    let expected = [
        head,
        vec![4, 0xec, 0xc7, 0xda, 0xa2],
        vec![5, 0xec, 0xc7, 0xda, 0xa2, 8],
    ]
    .concat();
    assert_eq!(without, expected);
    assert_eq!(take_solution(&[0x6a, 0x05, 1]), None);
}
