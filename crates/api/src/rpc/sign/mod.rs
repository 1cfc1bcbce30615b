//! Spending an output: which signatures and scripts it asks for, gathered from what is known, made where keys are there,
//! and put together. Keys sign by the library, scripts are judged by Core's interpreter.

pub(crate) mod creator;
mod extract;
pub(crate) mod from_descriptor;
pub(crate) mod provider;
mod satisfy;
mod taproot;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, hash160};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::taproot::TapLeafHash;
use bitcoin::{PublicKey, Script, ScriptBuf, Witness, XOnlyPublicKey};

use creator::{Creator, Version};
use provider::{Control, Origin, Provider, Tree, key_id};

use super::script::{Kind, classify};

/// Everything known about spending one output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Whether it can be spent as `script_sig` and `script_witness` say.
    pub(crate) complete: bool,
    /// Whether it is spent by a witness.
    pub(crate) witness: bool,
    pub(crate) script_sig: ScriptBuf,
    pub(crate) script_witness: Witness,
    pub(crate) redeem_script: Option<ScriptBuf>,
    pub(crate) witness_script: Option<ScriptBuf>,
    pub(crate) signatures: BTreeMap<hash160::Hash, (PublicKey, Vec<u8>)>,
    pub(crate) origins: BTreeMap<hash160::Hash, (PublicKey, Origin)>,
    pub(crate) tap: Tap,
    pub(crate) preimages: Preimages,
    pub(crate) missing: Missing,
}

/// What is known of a taproot output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap {
    pub(crate) internal_key: Option<XOnlyPublicKey>,
    pub(crate) merkle_root: Option<[u8; 32]>,
    pub(crate) leaves: BTreeMap<(ScriptBuf, u8), BTreeSet<Control>>,
    pub(crate) key_sig: Option<Vec<u8>>,
    pub(crate) script_sigs: BTreeMap<(XOnlyPublicKey, TapLeafHash), Vec<u8>>,
    pub(crate) origins: BTreeMap<XOnlyPublicKey, (BTreeSet<TapLeafHash>, Origin)>,
    /// The whole tree, where a descriptor tells it.
    pub(crate) tree: Option<Tree>,
}

/// Preimages by the hashes that scripts ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preimages {
    pub(crate) ripemd160: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) sha256: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) hash160: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) hash256: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is asked for and not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) keys: Vec<hash160::Hash>,
    pub(crate) signatures: Vec<hash160::Hash>,
    pub(crate) redeem_script: Option<hash160::Hash>,
    pub(crate) witness_script: Option<[u8; 32]>,
}

/// How far one script was satisfied.
struct Step {
    solved: bool,
    stack: Vec<Vec<u8>>,
}

impl Step {
    fn of(stack: Vec<Vec<u8>>) -> Self {
        Self { solved: true, stack }
    }

    fn unsolved() -> Self {
        Self {
            solved: false,
            stack: Vec::new(),
        }
    }
}

impl Known {
    /// Takes what another source knows of the same spending, one of them being enough where it is complete.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.complete {
            return;
        }
        if other.complete {
            *self = other;
            return;
        }
        self.redeem_script = self.redeem_script.take().or(other.redeem_script);
        self.witness_script = self.witness_script.take().or(other.witness_script);
        for (id, signature) in other.signatures {
            self.signatures.entry(id).or_insert(signature);
        }
    }

    /// Makes and gathers what the output needs. Returns whether it can be spent.
    pub(crate) fn produce(&mut self, provider: &Provider, creator: &Creator<'_>, output: &Script) -> bool {
        if self.complete {
            return true;
        }
        let mut step = self.step(provider, creator, output, Version::Base);
        let mut redeem: Option<ScriptBuf> = None;
        if step.solved && classify(output) == Kind::ScriptHash {
            let script = ScriptBuf::from_bytes(step.stack.pop().unwrap_or_default());
            self.redeem_script = Some(script.clone());
            step = self.step(provider, creator, &script, Version::Base);
            step.solved &= classify(&script) != Kind::ScriptHash;
            redeem = Some(script);
        }
        let kind = classify(redeem.as_deref().unwrap_or(output));
        match kind {
            Kind::WitnessV0KeyHash if step.solved => {
                let hash = step.stack.pop().unwrap_or_default();
                let code = p2pkh_of(&hash);
                step = self.step(provider, creator, &code, Version::WitnessV0);
                self.script_witness = Witness::from_slice(&step.stack);
                self.witness = true;
                step.stack.clear();
            }
            Kind::WitnessV0ScriptHash if step.solved => {
                let script = ScriptBuf::from_bytes(step.stack.pop().unwrap_or_default());
                self.witness_script = Some(script.clone());
                step = self.witness_step(provider, creator, &script);
                step.stack.push(script.into_bytes());
                self.script_witness = Witness::from_slice(&step.stack);
                self.witness = true;
                step.stack.clear();
            }
            Kind::Taproot(_) if redeem.is_none() => {
                self.witness = true;
                if step.solved {
                    self.script_witness = Witness::from_slice(&step.stack);
                }
                step.stack.clear();
            }
            _ => {}
        }
        if !self.witness {
            self.script_witness.clear();
        }
        if let Some(script) = redeem {
            step.stack.push(script.into_bytes());
        }
        self.script_sig = push_all(&step.stack);
        self.complete = step.solved && creator.verifies(&self.script_sig, &self.script_witness);
        self.complete
    }

    /// The items that satisfy one script; that of a script's hash is the script.
    fn step(&mut self, provider: &Provider, creator: &Creator<'_>, script: &Script, version: Version) -> Step {
        match classify(script) {
            Kind::NonStandard | Kind::NullData | Kind::WitnessUnknown => Step::unsolved(),
            Kind::Anchor => Step::of(Vec::new()),
            Kind::PubKey(key) => {
                let signature = PublicKey::from_slice(key).ok();
                let signature = signature.and_then(|key| self.sign(provider, creator, &key, script, version));
                signature.map_or_else(Step::unsolved, |signature| Step::of(vec![signature]))
            }
            Kind::PubKeyHash => {
                let Some(id) = script
                    .as_bytes()
                    .get(3..23)
                    .and_then(|hash| hash160::Hash::from_slice(hash).ok())
                else {
                    return Step::unsolved();
                };
                let Some(key) = self.public_key(provider, &id) else {
                    self.missing.keys.push(id);
                    return Step::unsolved();
                };
                let signature = self.sign(provider, creator, &key, script, version);
                signature.map_or_else(Step::unsolved, |signature| Step::of(vec![signature, key.to_bytes()]))
            }
            Kind::ScriptHash => {
                let id = script
                    .as_bytes()
                    .get(2..22)
                    .and_then(|hash| hash160::Hash::from_slice(hash).ok());
                let found = id.and_then(|id| self.script(provider, &id));
                match found {
                    Some(script) => Step::of(vec![script.into_bytes()]),
                    None => {
                        self.missing.redeem_script = id;
                        Step::unsolved()
                    }
                }
            }
            Kind::Multisig(required, keys) => {
                let keys: Vec<Vec<u8>> = keys.into_iter().map(<[u8]>::to_vec).collect();
                let required = usize::from(required);
                // The interpreter takes one item more than it needs.
                let mut stack = vec![Vec::new()];
                for key in keys {
                    let Ok(key) = PublicKey::from_slice(&key) else { continue };
                    // All that can be made are made: whoever combines them later may need each.
                    if let Some(signature) = self.sign(provider, creator, &key, script, version)
                        && stack.len() <= required
                    {
                        stack.push(signature);
                    }
                }
                let solved = stack.len() == required + 1;
                // Places are held for those to come, by Core's count of them.
                let mut held = 0;
                while held + stack.len() <= required {
                    stack.push(Vec::new());
                    held += 1;
                }
                Step { solved, stack }
            }
            Kind::WitnessV0KeyHash => Step::of(vec![script.as_bytes().get(2..).unwrap_or_default().to_vec()]),
            Kind::WitnessV0ScriptHash => {
                let hash = script.as_bytes().get(2..34).unwrap_or_default();
                let id = hash160_of_sha256(hash);
                match self.script(provider, &id) {
                    Some(script) => Step::of(vec![script.into_bytes()]),
                    None => {
                        self.missing.witness_script = hash.try_into().ok();
                        Step::unsolved()
                    }
                }
            }
            Kind::Taproot(key) => match XOnlyPublicKey::from_slice(key) {
                Ok(key) => self.taproot(provider, creator, &key),
                Err(_) => Step::unsolved(),
            },
        }
    }

    /// The items for a script of BIP 141: of a usual form, or else as the miniscript that it is.
    fn witness_step(&mut self, provider: &Provider, creator: &Creator<'_>, script: &Script) -> Step {
        let mut step = self.step(provider, creator, script, Version::WitnessV0);
        let nested = matches!(
            classify(script),
            Kind::ScriptHash | Kind::WitnessV0KeyHash | Kind::WitnessV0ScriptHash
        );
        step.solved &= !nested;
        if !step.solved && step.stack.is_empty() {
            step = self.satisfy_segwit(provider, creator, script);
        }
        step
    }

    /// The signature of a key: the one that is known, or a new one.
    fn sign(
        &mut self,
        provider: &Provider,
        creator: &Creator<'_>,
        key: &PublicKey,
        code: &Script,
        version: Version,
    ) -> Option<Vec<u8>> {
        let id = key_id(key);
        if let Some((_, signature)) = self.signatures.get(&id) {
            return Some(signature.clone());
        }
        if let Some((_, origin)) = provider.origins.get(&id) {
            self.origins.entry(id).or_insert_with(|| (*key, origin.clone()));
        }
        let made = creator.ecdsa(provider, key, code, version);
        match &made {
            Some(signature) => drop(self.signatures.insert(id, (*key, signature.clone()))),
            None => self.missing.signatures.push(id),
        }
        made
    }

    /// The public key of this name.
    fn public_key(&self, provider: &Provider, id: &hash160::Hash) -> Option<PublicKey> {
        let signer = self.signatures.get(id).map(|(key, _)| *key);
        let known = signer.or_else(|| self.origins.get(id).map(|(key, _)| *key));
        let of_tap = || {
            let mut keys = self.tap.origins.keys();
            let found = keys.find(|key| hash160::Hash::hash(&key.serialize()) == *id)?;
            Some(PublicKey::new(found.public_key(bitcoin::secp256k1::Parity::Even)))
        };
        known.or_else(of_tap).or_else(|| provider.public.get(id).copied())
    }

    /// The script of this name.
    fn script(&self, provider: &Provider, id: &hash160::Hash) -> Option<ScriptBuf> {
        let known = [&self.redeem_script, &self.witness_script];
        let ours = || {
            let mut known = known.into_iter().flatten();
            known.find(|script| provider::script_id(script) == *id).cloned()
        };
        provider.scripts.get(id).cloned().or_else(ours)
    }
}

/// The name of a script whose single hash is known.
fn hash160_of_sha256(sha256: &[u8]) -> hash160::Hash {
    let hash = bitcoin::hashes::ripemd160::Hash::hash(sha256);
    hash160::Hash::from_byte_array(hash.to_byte_array())
}

/// The script for whose digest a key in a witness signs.
fn p2pkh_of(hash: &[u8]) -> ScriptBuf {
    let hash = hash.try_into().map(bitcoin::PubkeyHash::from_byte_array);
    hash.map_or_else(|_| ScriptBuf::new(), |hash| ScriptBuf::new_p2pkh(&hash))
}

/// A script that pushes these items.
fn push_all(items: &[Vec<u8>]) -> ScriptBuf {
    let mut builder = Builder::new();
    for item in items {
        builder = match item.as_slice() {
            [] => builder.push_int(0),
            [small @ 1..=16] => builder.push_int(i64::from(*small)),
            [0x81] => builder.push_int(-1),
            // An item is a signature, a key or a script, far shorter than 4 GiB.
            long => builder.push_slice(PushBytesBuf::try_from(long.to_vec()).unwrap_or_default()),
        };
    }
    builder.into_script()
}
