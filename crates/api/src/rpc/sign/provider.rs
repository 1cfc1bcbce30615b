//! What somebody who signs brings along: private keys, and what is known of public keys, scripts and taproot trees.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::{Hash, hash160};
use bitcoin::secp256k1::{Parity, Secp256k1};
use bitcoin::taproot::TaprootSpendInfo;
use bitcoin::{PrivateKey, PublicKey, Script, ScriptBuf, XOnlyPublicKey};

/// Where a key comes from.
pub(crate) type Origin = (Fingerprint, DerivationPath);

/// The hash that names a public key.
pub(crate) fn key_id(key: &PublicKey) -> hash160::Hash {
    hash160::Hash::hash(&key.to_bytes())
}

/// The hash that names a script.
pub(crate) fn script_id(script: &Script) -> hash160::Hash {
    hash160::Hash::hash(script.as_bytes())
}

/// A taproot output of which the whole tree is known.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) info: TaprootSpendInfo,
    /// Depth, version and script of each leaf; the last of the tree first, as Core tells them.
    pub(crate) leaves: Vec<(u8, u8, ScriptBuf)>,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provider {
    pub(crate) keys: BTreeMap<hash160::Hash, PrivateKey>,
    pub(crate) public: BTreeMap<hash160::Hash, PublicKey>,
    pub(crate) origins: BTreeMap<hash160::Hash, (PublicKey, Origin)>,
    pub(crate) scripts: BTreeMap<hash160::Hash, ScriptBuf>,
    pub(crate) trees: BTreeMap<XOnlyPublicKey, Tree>,
}

impl Provider {
    /// Adds a private key and what follows from it.
    pub(crate) fn add_key(&mut self, key: PrivateKey) {
        let public = key.public_key(&Secp256k1::signing_only());
        let id = key_id(&public);
        self.public.insert(id, public);
        self.keys.insert(id, key);
    }

    /// Adds a script.
    pub(crate) fn add_script(&mut self, script: ScriptBuf) {
        self.scripts.entry(script_id(&script)).or_insert(script);
    }

    /// The private key of a key of which only its horizontal place is known.
    pub(crate) fn key_of(&self, key: &XOnlyPublicKey) -> Option<PrivateKey> {
        both(key).find_map(|id| self.keys.get(&id).copied())
    }

    /// The origin of a key of which only its horizontal place is known.
    pub(crate) fn origin_of(&self, key: &XOnlyPublicKey) -> Option<&Origin> {
        both(key).find_map(|id| self.origins.get(&id).map(|(_, origin)| origin))
    }

    /// Whether an output is spent by a witness, perhaps one that stands behind a script's hash.
    pub(crate) fn is_segwit(&self, output: &Script) -> bool {
        let inner = || {
            let id = output
                .as_bytes()
                .get(2..22)
                .and_then(|hash| hash160::Hash::from_slice(hash).ok());
            id.and_then(|id| self.scripts.get(&id))
                .is_some_and(|script| script.is_witness_program())
        };
        output.is_witness_program() || (output.is_p2sh() && inner())
    }

    /// The leaves of an output with their control blocks.
    pub(crate) fn leaves_of(&self, output: &XOnlyPublicKey) -> BTreeMap<(ScriptBuf, u8), BTreeSet<Control>> {
        let mut found: BTreeMap<_, BTreeSet<Control>> = BTreeMap::new();
        let scripts = self.trees.get(output).map(|tree| tree.info.script_map());
        for (script, version) in scripts.into_iter().flat_map(|scripts| scripts.keys()) {
            let info = self.trees.get(output).map(|tree| &tree.info);
            if let Some(block) = info.and_then(|info| info.control_block(&(script.clone(), *version))) {
                let key = (script.clone(), version.to_consensus());
                found.entry(key).or_default().insert(Control::of(block.serialize()));
            }
        }
        found
    }
}

/// The names of both public keys with a horizontal place.
fn both(key: &XOnlyPublicKey) -> impl Iterator<Item = hash160::Hash> {
    [Parity::Even, Parity::Odd]
        .map(|parity| key_id(&PublicKey::new(key.public_key(parity))))
        .into_iter()
}

/// A control block; the shortest counts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Control(usize, pub(crate) Vec<u8>);

impl Control {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(bytes.len(), bytes)
    }
}
