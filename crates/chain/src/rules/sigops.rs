//! Counting signature operations: legacy, pay-to-script-hash (BIP 16) and witness (BIP 141).
//!
//! The count is part of consensus, so it works on raw bytes and stops where Core's reader stops, whatever the script
//! means.

use bitcoin::Script;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_PUSHNUM_1, OP_PUSHNUM_16,
};

use super::ops::Ops;
use crate::script::{Flags, Spent, VERIFY_P2SH, VERIFY_WITNESS};
use crate::{Stack, TxParts};

/// What a legacy or pay-to-script-hash operation weighs against the limit of a block.
const WITNESS_SCALE_FACTOR: u64 = 4;
/// Keys that a multisig without a readable count is charged for.
const MAX_PUBKEYS_PER_MULTISIG: u64 = 20;

/// Operations in one script. `accurate` charges a multisig for the keys that the number before it names; otherwise
/// always for 20.
pub fn script_sigops(script: &Script, accurate: bool) -> u64 {
    let mut count = 0;
    let mut previous = 0xff;
    for op in Ops::new(script.as_bytes()) {
        let Some(op) = op else { break };
        if op.code == OP_CHECKSIG.to_u8() || op.code == OP_CHECKSIGVERIFY.to_u8() {
            count += 1;
        } else if op.code == OP_CHECKMULTISIG.to_u8() || op.code == OP_CHECKMULTISIGVERIFY.to_u8() {
            let named = (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&previous);
            count += if accurate && named {
                u64::from(previous - OP_PUSHNUM_1.to_u8()) + 1
            } else {
                MAX_PUBKEYS_PER_MULTISIG
            };
        }
        previous = op.code;
    }
    count
}

/// Operations in all input and output scripts, counted the old way.
pub fn legacy_sigops(tx: &(impl TxParts + ?Sized)) -> u64 {
    let inputs: u64 = tx.inputs().map(|input| script_sigops(input.script_sig, false)).sum();
    let outputs: u64 = tx
        .outputs()
        .map(|output| script_sigops(output.script_pubkey, false))
        .sum();
    inputs + outputs
}

/// Operations in the redeem scripts of the pay-to-script-hash coins that `tx` spends; `spent` is in input order.
pub fn p2sh_sigops(tx: &impl TxParts, spent: &[impl Spent]) -> u64 {
    if tx.is_coinbase() {
        return 0;
    }
    let pairs = tx.inputs().zip(spent);
    pairs
        .filter(|(_, coin)| coin.script().is_p2sh())
        .map(|(input, _)| last_push(input.script_sig).map_or(0, |redeem| script_sigops(redeem, true)))
        .sum()
}

/// The bytes that the last operation of a push-only script leaves on the stack, as the count sees them: an operation
/// that pushes a number counts as an empty push. `None` when the script is malformed or does more than push.
fn last_push(script_sig: &Script) -> Option<&Script> {
    let mut last: &[u8] = &[];
    for op in Ops::new(script_sig.as_bytes()) {
        let op = op?;
        if op.code > OP_PUSHNUM_16.to_u8() {
            return None;
        }
        last = op.push;
    }
    Some(Script::from_bytes(last))
}

/// Operations that the witness of one input brings, for native and nested version 0 programs.
pub fn witness_sigops(script_sig: &Script, script_pubkey: &Script, witness: Stack<'_>) -> u64 {
    if script_pubkey.is_witness_program() {
        return program_sigops(script_pubkey, witness);
    }
    if script_pubkey.is_p2sh()
        && let Some(redeem) = last_push(script_sig)
        && redeem.is_witness_program()
    {
        return program_sigops(redeem, witness);
    }
    0
}

fn program_sigops(program: &Script, witness: Stack<'_>) -> u64 {
    if program.is_p2wpkh() {
        1
    } else if program.is_p2wsh() {
        witness
            .last()
            .map_or(0, |script| script_sigops(Script::from_bytes(script), true))
    } else {
        0
    }
}

/// The cost of a transaction against [`MAX_BLOCK_SIGOPS_COST`](super::MAX_BLOCK_SIGOPS_COST) under the script flags
/// of its block; `spent` holds the outputs that it spends, in input order, and is empty for a coinbase.
pub fn transaction_sigop_cost(tx: &impl TxParts, spent: &[impl Spent], flags: Flags) -> u64 {
    let mut cost = tx.legacy_sigops() * WITNESS_SCALE_FACTOR;
    if tx.is_coinbase() {
        return cost;
    }
    if flags & VERIFY_P2SH != 0 {
        cost += p2sh_sigops(tx, spent) * WITNESS_SCALE_FACTOR;
    }
    if flags & VERIFY_WITNESS != 0 {
        let pairs = tx.inputs().zip(spent);
        cost += pairs
            .map(|(input, coin)| witness_sigops(input.script_sig, coin.script(), input.witness))
            .sum::<u64>();
    }
    cost
}

#[cfg(test)]
#[path = "sigops_tests.rs"]
mod tests;
