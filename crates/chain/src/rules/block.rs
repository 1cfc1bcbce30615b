//! Block rules: the merkle root, size and weight, the coinbase's place, amount and height (BIP 34), lock times
//! (BIP 113), the witness commitment (BIP 141), and the count of signature operations that needs no coins.

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_RETURN};
use bitcoin::{Amount, VarInt, Wtxid};

use super::merkle::merkle_root;
use super::{check_header, check_signet_solution, check_tx, is_final};
use crate::{Params, ParsedBlock, Reject, TxParts};

/// Largest weight of a block (BIP 141).
pub const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// Largest cost of the signature operations of a block (BIP 141).
pub const MAX_BLOCK_SIGOPS_COST: u64 = 80_000;
/// A byte outside of the witness weighs as much as four inside.
pub(super) const WITNESS_SCALE_FACTOR: u64 = 4;
/// How the script of the output that commits to the witnesses begins: OP_RETURN, a push of 36 bytes, and the tag.
pub const WITNESS_COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// Length of that header with the 32 bytes of the commitment.
const WITNESS_COMMITMENT_LENGTH: usize = 38;

/// What can be said of a block without its context.
///
/// No failure here should be remembered against the block's hash: the body may have been swapped in a way that the
/// merkle root does not show, and the checks are cheap to repeat.
pub fn check_block(params: &Params, block: &ParsedBlock) -> Result<(), Reject> {
    check_header(params, block.header())?;
    check_signet_solution(params, block)?;
    check_body(block)
}

/// [`check_block`] of a block that is still to be solved.
pub(crate) fn check_body(block: &ParsedBlock) -> Result<(), Reject> {
    check_merkle(block)?;

    let transactions = block.len() as u64;
    let too_long = transactions == 0
        || transactions.saturating_mul(WITNESS_SCALE_FACTOR) > MAX_BLOCK_WEIGHT
        || base_size(block).saturating_mul(WITNESS_SCALE_FACTOR) > MAX_BLOCK_WEIGHT;
    if too_long {
        return Err(Reject::consensus("bad-blk-length", "size limits failed"));
    }
    if !block.transaction(0).is_some_and(|tx| tx.is_coinbase()) {
        return Err(Reject::consensus("bad-cb-missing", "first tx is not coinbase"));
    }
    if block.transactions().skip(1).any(|tx| tx.is_coinbase()) {
        return Err(Reject::consensus("bad-cb-multiple", "more than one coinbase"));
    }
    for tx in block.transactions() {
        check_tx(&tx).map_err(|reject| reject.in_block(format_args!("transaction {}", tx.txid())))?;
    }
    // Without the coins only the old count is possible; the full cost is checked as the block is connected.
    let sigops: u64 = block.transactions().map(|tx| tx.legacy_sigops()).sum();
    if sigops.saturating_mul(WITNESS_SCALE_FACTOR) > MAX_BLOCK_SIGOPS_COST {
        return Err(Reject::consensus("bad-blk-sigops", "out-of-bounds SigOpCount"));
    }
    Ok(())
}

fn check_merkle(block: &ParsedBlock) -> Result<(), Reject> {
    let merkle = merkle_root(block.txids.iter().map(|txid| txid.to_raw_hash()));
    if merkle.root != block.header().merkle_root.to_raw_hash() {
        return Err(Reject::mutated("bad-txnmrklroot", "hashMerkleRoot mismatch"));
    }
    if merkle.mutated {
        return Err(Reject::mutated("bad-txns-duplicate", "duplicate transaction"));
    }
    Ok(())
}

/// The rules for a block that passed [`check_block`], as the block of `height` whose parent has `parent_median` as its
/// median time past.
pub fn contextual_check_block(
    params: &Params,
    block: &ParsedBlock,
    height: u32,
    parent_median: u32,
) -> Result<(), Reject> {
    let cutoff = if height >= params.csv_height {
        parent_median
    } else {
        block.header().time
    };
    if !block.transactions().all(|tx| is_final(&tx, height, cutoff)) {
        return Err(Reject::consensus("bad-txns-nonfinal", "non-final transaction"));
    }
    if height >= params.bip34_height {
        let prefix = bip34_prefix(height);
        let starts = |script: &[u8]| script.starts_with(&prefix);
        let coinbase = block.transaction(0);
        let input = coinbase.as_ref().and_then(|tx| tx.inputs().next());
        if !input.is_some_and(|input| starts(input.script_sig.as_bytes())) {
            return Err(Reject::consensus("bad-cb-height", "block height mismatch in coinbase"));
        }
    }
    check_witness_commitment(block, height >= params.segwit_height)?;
    // Only now: before the commitment is checked, a swapped body could be heavier than the real one.
    if weight(block) > MAX_BLOCK_WEIGHT {
        return Err(Reject::consensus("bad-blk-weight", "weight limit failed"));
    }
    Ok(())
}

/// The last output of the coinbase that has the form of a witness commitment.
pub fn witness_commitment_index(coinbase: &impl TxParts) -> Option<usize> {
    coinbase.outputs().rposition(|output| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= WITNESS_COMMITMENT_LENGTH && script.starts_with(&WITNESS_COMMITMENT_HEADER)
    })
}

/// The merkle root over the witness transaction ids of a block that is not empty, the coinbase's taken as zero.
pub fn witness_root(wtxids: impl IntoIterator<Item = Wtxid>) -> sha256d::Hash {
    let rest = wtxids.into_iter().skip(1).map(|wtxid| wtxid.to_raw_hash());
    merkle_root(std::iter::once(sha256d::Hash::all_zeros()).chain(rest)).root
}

fn check_witness_commitment(block: &ParsedBlock, segwit: bool) -> Result<(), Reject> {
    let coinbase = block.transaction(0).filter(|_| segwit);
    let commitment = coinbase.as_ref().and_then(|coinbase| {
        let output = coinbase.outputs().nth(witness_commitment_index(coinbase)?)?;
        let committed = output.script_pubkey.as_bytes().get(6..WITNESS_COMMITMENT_LENGTH)?;
        Some((coinbase, committed))
    });
    let Some((coinbase, committed)) = commitment else {
        if block.transactions().any(|tx| tx.has_witness()) {
            return Err(Reject::mutated("unexpected-witness", "unexpected witness data found"));
        }
        return Ok(());
    };
    let witness = coinbase.inputs().next().map(|input| input.witness);
    let reserved = witness
        .filter(|witness| witness.len() == 1)
        .and_then(|witness| witness.last());
    let Some(reserved) = reserved.filter(|value| value.len() == 32) else {
        return Err(Reject::mutated(
            "bad-witness-nonce-size",
            "invalid witness reserved value size",
        ));
    };
    // Two equal neighbours can not hide here: the same list passed the check of the transaction tree.
    let mut bytes = block.witness_root().to_byte_array().to_vec();
    bytes.extend_from_slice(reserved);
    if sha256d::Hash::hash(&bytes).as_byte_array() != committed {
        return Err(Reject::mutated(
            "bad-witness-merkle-match",
            "witness merkle commitment mismatch",
        ));
    }
    Ok(())
}

/// Was the body of this block swapped or damaged on its way? Cheap enough to ask of everything that a peer sends, and
/// independent of whether the header is known. `segwit` tells whether the block's height is under BIP 141.
pub fn is_mutated(block: &ParsedBlock, segwit: bool) -> bool {
    if check_merkle(block).is_err() {
        return true;
    }
    if !block.transaction(0).is_some_and(|tx| tx.is_coinbase()) {
        // An inner node of the tree is 64 bytes long and can pose as a transaction.
        return block.transactions().any(|tx| tx.base_size() == 64);
    }
    check_witness_commitment(block, segwit).is_err()
}

/// The coinbase may not create more than the subsidy and the fees.
pub fn check_coinbase_amount(coinbase: &impl TxParts, fees: Amount, subsidy: Amount) -> Result<(), Reject> {
    let limit = fees.to_sat().saturating_add(subsidy.to_sat());
    let paid = coinbase
        .outputs()
        .fold(0_u64, |sum, output| sum.saturating_add(output.value));
    if paid > limit {
        let detail = format!("coinbase pays too much (actual={paid} vs limit={limit})");
        return Err(Reject::consensus("bad-cb-amount", detail));
    }
    Ok(())
}

/// What the script of a coinbase at `height` must begin with (BIP 34): the height as the shortest push of a number.
pub fn bip34_prefix(height: u32) -> Vec<u8> {
    match height {
        0 => vec![0],
        1..=16 => vec![OP_PUSHNUM_1.to_u8() + (height as u8 - 1)],
        _ => {
            let mut number: Vec<u8> = height.to_le_bytes().to_vec();
            while number.last() == Some(&0) {
                number.pop();
            }
            // The top bit is the sign; a number that uses it gets one more byte.
            if number.last().is_some_and(|byte| byte & 0x80 != 0) {
                number.push(0);
            }
            let mut script = vec![number.len() as u8];
            script.extend_from_slice(&number);
            script
        }
    }
}

/// Size without witnesses, in bytes.
fn base_size(block: &ParsedBlock) -> u64 {
    overhead(block) + block.transactions().map(|tx| tx.base_size() as u64).sum::<u64>()
}

/// BIP 141 weight: three times the size without witnesses and once the size with.
fn weight(block: &ParsedBlock) -> u64 {
    base_size(block) * (WITNESS_SCALE_FACTOR - 1) + block.raw.len() as u64
}

fn overhead(block: &ParsedBlock) -> u64 {
    80 + VarInt::from(block.len()).size() as u64
}

// The commitment header spells OP_RETURN; a change of either must be noticed.
const _: () = assert!(WITNESS_COMMITMENT_HEADER[0] == OP_RETURN.to_u8());

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
