//! How signatures come to be: with private keys over a transaction, or made up where only their size matters.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::taproot::{TapLeafHash, TapNodeHash};
use bitcoin::{
    EcdsaSighashType, PublicKey, Script, ScriptBuf, Sequence, TapSighashType, Transaction, TxOut, Witness,
    XOnlyPublicKey,
};
use dunlin_chain::script::{VERIFY_ALL, verify_input};

use super::provider::{Provider, key_id};

/// `SIGHASH_DEFAULT` of BIP 341.
pub(crate) const DEFAULT: u8 = 0;
/// `SIGHASH_ALL`.
pub(crate) const ALL: u8 = 1;

/// Which digest a signature signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// That of 2009.
    Base,
    /// That of BIP 143.
    WitnessV0,
}

/// How a taproot key is tweaked before it signs.
pub(crate) enum Tweak {
    /// As the key of the output itself.
    None,
    /// As the internal key of an output with this root.
    Root(Option<TapNodeHash>),
}

/// One input of a transaction that is to be signed.
pub(crate) struct Spend<'a> {
    pub(crate) tx: &'a Transaction,
    pub(crate) index: usize,
    pub(crate) output: &'a TxOut,
    /// All outputs that the transaction spends, where all are known.
    pub(crate) spent: Option<&'a [TxOut]>,
    pub(crate) sighash: u8,
}

/// Where signatures come from.
pub(crate) enum Creator<'a> {
    /// From keys, over a transaction.
    Real(Spend<'a>),
    /// From nowhere: they have the size of a real one, and pass for good.
    Dummy,
}

impl Creator<'_> {
    /// A signature with its type; none without the private key.
    pub(crate) fn ecdsa(
        &self,
        provider: &Provider,
        key: &PublicKey,
        code: &Script,
        version: Version,
    ) -> Option<Vec<u8>> {
        let Self::Real(spend) = self else {
            return Some(dummy_ecdsa());
        };
        let private = provider.keys.get(&key_id(key))?;
        if version == Version::WitnessV0 && !private.compressed {
            return None;
        }
        let kind = if spend.sighash == DEFAULT { ALL } else { spend.sighash };
        let digest = spend.digest(code, version, kind)?;
        let signature = Secp256k1::signing_only().sign_ecdsa_low_r(&digest, &private.inner);
        let mut bytes = signature.serialize_der().to_vec();
        bytes.push(kind);
        Some(bytes)
    }

    /// A BIP 340 signature, with its type unless that is the default.
    pub(crate) fn schnorr(
        &self,
        provider: &Provider,
        key: &XOnlyPublicKey,
        leaf: Option<TapLeafHash>,
        tweak: &Tweak,
    ) -> Option<Vec<u8>> {
        let Self::Real(spend) = self else {
            return Some(vec![0; 64]);
        };
        let private = provider.key_of(key)?;
        let spent = spend.spent?;
        let kind = TapSighashType::from_consensus_u8(spend.sighash).ok()?;
        let mut cache = SighashCache::new(spend.tx);
        let leaf = leaf.map(|leaf| (leaf, u32::MAX));
        let digest = cache
            .taproot_signature_hash(spend.index, &Prevouts::All(spent), None, leaf, kind)
            .ok()?;
        let secp = Secp256k1::new();
        let pair = Keypair::from_secret_key(&secp, &private.inner);
        let pair = match tweak {
            Tweak::None => pair,
            Tweak::Root(root) => pair.tap_tweak(&secp, *root).to_keypair(),
        };
        // No extra randomness, as in Core: the same call gives the same signature.
        let message = Message::from_digest(digest.to_byte_array());
        let mut bytes = secp
            .sign_schnorr_with_aux_rand(&message, &pair, &[0; 32])
            .serialize()
            .to_vec();
        if spend.sighash != DEFAULT {
            bytes.push(spend.sighash);
        }
        Some(bytes)
    }

    /// Whether the output can be spent so.
    pub(crate) fn verifies(&self, script_sig: &ScriptBuf, witness: &Witness) -> bool {
        match self {
            Self::Dummy => true,
            Self::Real(spend) => spend.verifies(script_sig, witness),
        }
    }

    /// Whether the transaction's lock time has reached `time`.
    pub(crate) fn allows_after(&self, time: LockTime) -> bool {
        let Self::Real(spend) = self else { return true };
        let is_on = spend
            .tx
            .input
            .get(spend.index)
            .is_some_and(|input| input.sequence != Sequence::MAX);
        is_on && time.is_implied_by(spend.tx.lock_time)
    }

    /// Whether the input's sequence has reached `time`.
    pub(crate) fn allows_older(&self, time: bitcoin::relative::LockTime) -> bool {
        let Self::Real(spend) = self else { return true };
        let sequence = spend.tx.input.get(spend.index).map(|input| input.sequence);
        let ours = sequence.and_then(|sequence| sequence.to_relative_lock_time());
        spend.tx.version.0 >= 2 && ours.is_some_and(|ours| time.is_implied_by(ours))
    }
}

impl Spend<'_> {
    /// What a signature for this input signs.
    pub(crate) fn digest(&self, code: &Script, version: Version, kind: u8) -> Option<Message> {
        let mut cache = SighashCache::new(self.tx);
        let digest = match version {
            Version::Base => {
                let digest = cache.legacy_signature_hash(self.index, code, kind.into()).ok()?;
                digest.to_byte_array()
            }
            Version::WitnessV0 => {
                let kind = EcdsaSighashType::from_standard(kind.into()).ok()?;
                let digest = cache
                    .p2wsh_signature_hash(self.index, code, self.output.value, kind)
                    .ok()?;
                digest.to_byte_array()
            }
        };
        Some(Message::from_digest(digest))
    }

    /// Whether the input may spend its output with this script and witness.
    pub(crate) fn verifies(&self, script_sig: &ScriptBuf, witness: &Witness) -> bool {
        let mut tx = self.tx.clone();
        if let Some(input) = tx.input.get_mut(self.index) {
            input.script_sig = script_sig.clone();
            input.witness = witness.clone();
        }
        verify_input(&tx, self.index, self.output, self.spent, VERIFY_ALL).is_ok()
    }

    /// Whether a signature with its type is one of `key`.
    pub(crate) fn is_signed_by(&self, signature: &[u8], key: &PublicKey, code: &Script, version: Version) -> bool {
        let Some((&kind, der)) = signature.split_last() else {
            return false;
        };
        let Ok(signature) = bitcoin::secp256k1::ecdsa::Signature::from_der(der) else {
            return false;
        };
        let digest = self.digest(code, version, kind);
        digest.is_some_and(|digest| {
            Secp256k1::verification_only()
                .verify_ecdsa(&digest, &signature, &key.inner)
                .is_ok()
        })
    }
}

/// Zeros in the form of a signature of usual size, with its type.
fn dummy_ecdsa() -> Vec<u8> {
    let mut bytes = vec![0; 71];
    bytes[..5].copy_from_slice(&[0x30, 68, 2, 32, 1]);
    bytes[36..39].copy_from_slice(&[2, 32, 1]);
    bytes[70] = ALL;
    bytes
}
