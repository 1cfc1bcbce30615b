//! BIP 325: a signet block carries a solution of the network's challenge in its witness commitment.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{Encodable, deserialize, deserialize_partial};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use super::block::witness_commitment_index;
use super::merkle::merkle_root;
use super::ops::Ops;
use crate::script::{self, VERIFY_DERSIG, VERIFY_NULLDUMMY, VERIFY_P2SH, VERIFY_WITNESS};
use crate::{Params, ParsedBlock, Reject};

/// Marks the push of the commitment output that carries the solution.
pub(crate) const SIGNET_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// Checks the solution of a block where the network has a challenge; always passes elsewhere.
pub fn check_signet_solution(params: &Params, block: &ParsedBlock) -> Result<(), Reject> {
    let Some(challenge) = &params.signet_challenge else {
        return Ok(());
    };
    if block.hash == params.genesis_hash {
        return Ok(());
    }
    let solved = solution_transactions(block, challenge.clone()).is_some_and(|(to_spend, spending)| {
        let flags = VERIFY_P2SH | VERIFY_WITNESS | VERIFY_DERSIG | VERIFY_NULLDUMMY;
        script::verify_tx(&spending, &to_spend.output, flags).is_ok()
    });
    if solved {
        Ok(())
    } else {
        Err(Reject::consensus(
            "bad-signet-blksig",
            "signet block signature validation failure",
        ))
    }
}

/// The virtual transaction that locks to the challenge, and the one that spends it with the block's solution. `None`
/// when the block has no commitment or its solution does not parse.
///
/// A signer leaves the solution out, signs the second transaction, and puts the result into the commitment.
pub(crate) fn solution_transactions(block: &ParsedBlock, challenge: ScriptBuf) -> Option<(Transaction, Transaction)> {
    let mut coinbase: Transaction = deserialize(block.transaction(0)?.raw()).ok()?;
    let index = witness_commitment_index(&coinbase)?;
    let commitment = &mut coinbase.output.get_mut(index)?.script_pubkey;

    let mut script_sig = ScriptBuf::new();
    let mut witness = Vec::new();
    // Without a solution the witness and script stay empty, which satisfies a trivial challenge.
    if let Some((without, solution)) = take_solution(commitment.as_bytes()) {
        *commitment = ScriptBuf::from_bytes(without);
        let (script, used) = deserialize_partial::<ScriptBuf>(&solution).ok()?;
        let (stack, rest) = deserialize_partial::<Vec<Vec<u8>>>(solution.get(used..)?).ok()?;
        if used + rest != solution.len() {
            return None;
        }
        script_sig = script;
        witness = stack;
    }

    let rest = block.txids.iter().skip(1).copied();
    let leaves = std::iter::once(coinbase.compute_txid())
        .chain(rest)
        .map(|txid| txid.to_raw_hash());
    let header = block.header();
    let mut data = Vec::with_capacity(72);
    let sink = "writing to memory does not fail";
    header.version.consensus_encode(&mut data).expect(sink);
    header.prev_blockhash.consensus_encode(&mut data).expect(sink);
    data.extend_from_slice(merkle_root(leaves).root.as_byte_array());
    header.time.consensus_encode(&mut data).expect(sink);

    let mut spend_script = vec![0x00];
    append_push(&mut spend_script, &data);
    let to_spend = virtual_transaction(
        TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(spend_script),
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        },
        challenge,
    );
    let spending = virtual_transaction(
        TxIn {
            previous_output: OutPoint::new(to_spend.compute_txid(), 0),
            script_sig,
            sequence: Sequence::ZERO,
            witness: Witness::from_slice(&witness),
        },
        ScriptBuf::from_bytes(vec![OP_RETURN.to_u8()]),
    );
    Some((to_spend, spending))
}

fn virtual_transaction(input: TxIn, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey,
        }],
    }
}

/// Cuts the solution out of a commitment script: the script with the bare header left in its place, and the solution.
/// `None` when no push carries the header and at least one byte.
fn take_solution(commitment: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut without = Vec::with_capacity(commitment.len());
    let mut solution = None;
    for op in Ops::new(commitment) {
        let Some(op) = op else { break };
        match op.push.strip_prefix(&SIGNET_HEADER) {
            _ if op.push.is_empty() => without.push(op.code),
            Some(found) if solution.is_none() && !found.is_empty() => {
                solution = Some(found.to_vec());
                append_push(&mut without, &SIGNET_HEADER);
            }
            _ => append_push(&mut without, op.push),
        }
    }
    solution.map(|solution| (without, solution))
}

/// Appends a push of `data` with the shortest length prefix.
pub(crate) fn append_push(script: &mut Vec<u8>, data: &[u8]) {
    match data.len() {
        length @ 0..=0x4b => script.push(length as u8),
        length @ 0x4c..=0xff => script.extend_from_slice(&[0x4c, length as u8]),
        length @ 0x100..=0xffff => {
            script.push(0x4d);
            script.extend_from_slice(&(length as u16).to_le_bytes());
        }
        length => {
            script.push(0x4e);
            script.extend_from_slice(&(length as u32).to_le_bytes());
        }
    }
    script.extend_from_slice(data);
}

#[cfg(test)]
#[path = "signet_tests.rs"]
mod tests;
