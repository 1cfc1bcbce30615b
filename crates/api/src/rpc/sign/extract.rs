//! What an input that is signed in part tells: its scripts, and the signatures of a multisig.

use bitcoin::{PublicKey, Script, ScriptBuf, Transaction, TxOut};

use super::Known;
use super::creator::{ALL, Spend, Version};
use super::provider::key_id;
use crate::rpc::script::{Kind, classify, steps};

impl Known {
    /// What input `index` of a transaction tells about spending `output`.
    pub(crate) fn from_input(tx: &Transaction, index: usize, output: &TxOut) -> Self {
        let Some(input) = tx.input.get(index) else {
            return Self::default();
        };
        let spend = Spend {
            tx,
            index,
            output,
            spent: None,
            sighash: ALL,
        };
        let mut known = Self {
            script_sig: input.script_sig.clone(),
            script_witness: input.witness.clone(),
            complete: spend.verifies(&input.script_sig, &input.witness),
            ..Self::default()
        };
        if known.complete {
            return known;
        }
        let mut stack = Self::stack_of(&input.script_sig);
        let mut witness: Vec<Vec<u8>> = input.witness.iter().map(<[u8]>::to_vec).collect();
        let (mut script, mut version) = (output.script_pubkey.clone(), Version::Base);
        if classify(&script) == Kind::ScriptHash
            && let Some(redeem) = stack.pop_if(|last| !last.is_empty())
        {
            script = ScriptBuf::from_bytes(redeem);
            known.redeem_script = Some(script.clone());
        }
        if classify(&script) == Kind::WitnessV0ScriptHash
            && let Some(inner) = witness.pop_if(|last| !last.is_empty())
        {
            script = ScriptBuf::from_bytes(inner);
            known.witness_script = Some(script.clone());
            (stack, version) = (witness, Version::WitnessV0);
        }
        if let Kind::Multisig(_, keys) = classify(&script) {
            let keys: Vec<PublicKey> = keys
                .into_iter()
                .filter_map(|key| PublicKey::from_slice(key).ok())
                .collect();
            // Signatures stand in the order of their keys.
            let mut next = 0;
            for signature in &stack {
                let mut rest = keys.iter().enumerate().skip(next);
                if let Some((at, key)) = rest.find(|(_, key)| spend.is_signed_by(signature, key, &script, version)) {
                    known.signatures.insert(key_id(key), (*key, signature.clone()));
                    next = at + 1;
                }
            }
        }
        known
    }

    /// What a script of pushes leaves on the stack.
    pub(crate) fn stack_of(script: &Script) -> Vec<Vec<u8>> {
        let mut stack = Vec::new();
        for step in steps(script.as_bytes()) {
            let Ok(step) = step else { break };
            match step.opcode {
                0..=0x4e => stack.push(step.data.to_vec()),
                0x4f => stack.push(vec![0x81]),
                0x51..=0x60 => stack.push(vec![step.opcode - 0x50]),
                _ => break,
            }
        }
        stack
    }
}
