//! Solving a signet's challenge for a new block (BIP 325), with the keys that it names.

use bitcoin::consensus::serialize;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, Block, PrivateKey, PublicKey, Script, ScriptBuf, Transaction, Witness};

use super::commit_transactions;
use crate::rules::{
    SIGNET_HEADER, append_push, check_signet_solution, solution_transactions, witness_commitment_index,
};
use crate::{Params, ParsedBlock};

/// Why a block was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignetError {
    /// The network asks for no solution, or the block has no commitment to its witnesses to carry it.
    #[error("this block can carry no solution")]
    NoPlace,
    /// The challenge is of a form that we cannot sign for.
    #[error(
        "the signet's challenge is neither OP_TRUE, a key, a key's hash, a witness key's hash nor a bare multisignature"
    )]
    UnknownForm,
    /// The keys do not suffice.
    #[error("the signet's challenge asks for another key")]
    WrongKey,
}

/// Puts a solution of the network's challenge into the block's commitment and sets the merkle root. Only the nonce may
/// change afterwards.
///
/// # Errors
/// [`SignetError`]; the block is of no use then.
pub fn solve_challenge(params: &Params, block: &mut Block, keys: &[PrivateKey]) -> Result<(), SignetError> {
    let challenge = params.signet_challenge.as_ref().ok_or(SignetError::NoPlace)?;
    let place = block.txdata.first().and_then(witness_commitment_index);
    let place = place.ok_or(SignetError::NoPlace)?;
    let bare = match commitment(block, place) {
        Some(script) => script.to_bytes(),
        None => return Err(SignetError::NoPlace),
    };
    // What is signed holds the header of the solution alone.
    carry(block, place, &bare, &[])?;
    let parsed = ParsedBlock::from_block(block.clone());
    let (_, spending) = solution_transactions(&parsed, challenge.clone()).ok_or(SignetError::NoPlace)?;
    let (script_sig, witness) = Signer {
        secp: Secp256k1::new(),
        spending: &spending,
        challenge,
        keys,
    }
    .sign()?;
    let mut solution = serialize(&script_sig);
    solution.extend(serialize(&witness));
    carry(block, place, &bare, &solution)?;
    check_signet_solution(params, &ParsedBlock::from_block(block.clone())).map_err(|_| SignetError::WrongKey)
}

fn commitment(block: &mut Block, place: usize) -> Option<&mut ScriptBuf> {
    let output = block.txdata.first_mut()?.output.get_mut(place)?;
    Some(&mut output.script_pubkey)
}

/// Puts a solution behind the commitment's `bare` script.
fn carry(block: &mut Block, place: usize, bare: &[u8], solution: &[u8]) -> Result<(), SignetError> {
    let mut script = bare.to_vec();
    append_push(&mut script, &[&SIGNET_HEADER, solution].concat());
    *commitment(block, place).ok_or(SignetError::NoPlace)? = ScriptBuf::from_bytes(script);
    commit_transactions(block);
    Ok(())
}

struct Signer<'a> {
    secp: Secp256k1<All>,
    spending: &'a Transaction,
    challenge: &'a Script,
    keys: &'a [PrivateKey],
}

impl Signer<'_> {
    /// The input script and the witness that satisfy the challenge.
    fn sign(&self) -> Result<(ScriptBuf, Witness), SignetError> {
        let challenge = self.challenge;
        if challenge.as_bytes() == [OP_TRUE.to_u8()] {
            return Ok((ScriptBuf::new(), Witness::new()));
        }
        if challenge.is_p2wpkh() {
            let (key, public) = self.key(|public| {
                public
                    .wpubkey_hash()
                    .is_ok_and(|hash| ScriptBuf::new_p2wpkh(&hash) == *challenge)
            })?;
            let signature = self.witness_signature(key)?;
            return Ok((ScriptBuf::new(), Witness::from_slice(&[signature, public.to_bytes()])));
        }
        let pushes = if let Some(wanted) = challenge.p2pk_public_key() {
            let (key, _) = self.key(|public| *public == wanted)?;
            vec![self.signature(key)?]
        } else if challenge.is_p2pkh() {
            let (key, public) = self.key(|public| ScriptBuf::new_p2pkh(&public.pubkey_hash()) == *challenge)?;
            vec![self.signature(key)?, public.to_bytes()]
        } else if challenge.is_multisig() {
            // The operation takes one element more than it needs.
            let mut pushes = vec![Vec::new()];
            pushes.extend(self.multisig()?);
            pushes
        } else {
            return Err(SignetError::UnknownForm);
        };
        let mut script = Builder::new();
        for push in pushes {
            let push = PushBytesBuf::try_from(push).map_err(|_| SignetError::UnknownForm)?;
            script = script.push_slice(push);
        }
        Ok((script.into_script(), Witness::new()))
    }

    /// The signatures of as many of our keys as the challenge asks for, in its order.
    fn multisig(&self) -> Result<Vec<Vec<u8>>, SignetError> {
        let steps: Vec<_> = self.challenge.instructions().filter_map(Result::ok).collect();
        let required = steps.first().and_then(|step| step.script_num()).unwrap_or_default();
        let required = usize::try_from(required).map_err(|_| SignetError::UnknownForm)?;
        let wanted = steps
            .iter()
            .filter_map(|step| PublicKey::from_slice(step.push_bytes()?.as_bytes()).ok());
        let ours = wanted.filter_map(|wanted| self.key(|public| *public == wanted).ok());
        let signatures: Vec<Vec<u8>> = ours
            .take(required)
            .map(|(key, _)| self.signature(key))
            .collect::<Result<_, _>>()?;
        if signatures.len() < required {
            return Err(SignetError::WrongKey);
        }
        Ok(signatures)
    }

    fn key(&self, wanted: impl Fn(&PublicKey) -> bool) -> Result<(&PrivateKey, PublicKey), SignetError> {
        let publics = self.keys.iter().map(|key| (key, key.public_key(&self.secp)));
        publics
            .into_iter()
            .find(|(_, public)| wanted(public))
            .ok_or(SignetError::WrongKey)
    }

    fn signature(&self, key: &PrivateKey) -> Result<Vec<u8>, SignetError> {
        let digest = SighashCache::new(self.spending)
            .legacy_signature_hash(0, self.challenge, EcdsaSighashType::All.to_u32())
            .map_err(|_| SignetError::NoPlace)?;
        Ok(self.signed(&Message::from(digest), key))
    }

    fn witness_signature(&self, key: &PrivateKey) -> Result<Vec<u8>, SignetError> {
        let digest = SighashCache::new(self.spending)
            .p2wpkh_signature_hash(0, self.challenge, Amount::ZERO, EcdsaSighashType::All)
            .map_err(|_| SignetError::NoPlace)?;
        Ok(self.signed(&Message::from(digest), key))
    }

    fn signed(&self, message: &Message, key: &PrivateKey) -> Vec<u8> {
        let signature = self.secp.sign_ecdsa(message, &key.inner);
        bitcoin::ecdsa::Signature::sighash_all(signature).to_vec()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::build::{Base, assemble};
    use bitcoin::NetworkKind;
    use bitcoin::secp256k1::SecretKey;

    fn key(number: u8) -> PrivateKey {
        PrivateKey::new(SecretKey::from_slice(&[number; 32]).unwrap(), NetworkKind::Test)
    }

    fn solved(challenge: ScriptBuf, keys: &[PrivateKey]) -> Result<(), SignetError> {
        let params = Params::signet(challenge);
        let base = Base {
            height: 1,
            parent: params.genesis_hash,
            bits: params.genesis.header.bits,
            time: params.genesis.header.time + 1,
        };
        let mut block = assemble(&params, &base, vec![], Amount::ZERO, ScriptBuf::new(), b"");
        solve_challenge(&params, &mut block, keys)
    }

    #[test]
    fn every_form_is_solved_by_its_keys_only() {
        let secp = Secp256k1::new();
        let public = |number| key(number).public_key(&secp);
        let multisig = |required: i64| {
            let script = Builder::new()
                .push_int(required)
                .push_key(&public(1))
                .push_key(&public(2));
            script
                .push_int(2)
                .push_opcode(bitcoin::opcodes::all::OP_CHECKMULTISIG)
                .into_script()
        };
        let single = [
            ScriptBuf::new_p2pk(&public(1)),
            ScriptBuf::new_p2pkh(&public(1).pubkey_hash()),
            ScriptBuf::new_p2wpkh(&public(1).wpubkey_hash().unwrap()),
            multisig(1),
        ];
        for challenge in single {
            assert_eq!(solved(challenge.clone(), &[key(3), key(1)]), Ok(()), "{challenge}");
            assert_eq!(solved(challenge, &[key(3)]), Err(SignetError::WrongKey));
        }
        assert_eq!(solved(multisig(2), &[key(2), key(1)]), Ok(()));
        assert_eq!(solved(multisig(2), &[key(2)]), Err(SignetError::WrongKey));
        assert_eq!(solved(ScriptBuf::from_bytes(vec![0x51]), &[]), Ok(()));
        let unknown = ScriptBuf::from_bytes(vec![0x52, 0x52, 0x87]);
        assert_eq!(solved(unknown, &[key(1)]), Err(SignetError::UnknownForm));
    }
}
