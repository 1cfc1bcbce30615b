//! Scripts of no usual form, as the miniscripts that they are.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, hash160, ripemd160, sha256};
use bitcoin::taproot::{LeafVersion, TapLeafHash};
use bitcoin::{PublicKey, Script, XOnlyPublicKey, ecdsa, relative, taproot};
use miniscript::miniscript::satisfy::Preimage32;
use miniscript::{ExtParams, Miniscript, Satisfier, Segwitv0, Tap, hash256};

use super::creator::{Creator, Version};
use super::provider::Provider;
use super::{Known, Step};

/// What a satisfier asks, answered and gathered.
struct Source<'a, 'b> {
    known: RefCell<&'a mut Known>,
    provider: &'a Provider,
    creator: &'a Creator<'b>,
    script: &'a Script,
}

impl Source<'_, '_> {
    fn sign(&self, key: &PublicKey) -> Option<ecdsa::Signature> {
        let mut known = self.known.borrow_mut();
        let made = known.sign(self.provider, self.creator, key, self.script, Version::WitnessV0)?;
        match self.creator {
            // Zeros are no signature to the library; one of usual size stands in for them.
            Creator::Dummy => ecdsa::Signature::from_slice(&stand_in()).ok(),
            Creator::Real(_) => ecdsa::Signature::from_slice(&made).ok(),
        }
    }

    fn key(&self, id: &hash160::Hash) -> Option<PublicKey> {
        let mut known = self.known.borrow_mut();
        let found = known.public_key(self.provider, id);
        if found.is_none() {
            known.missing.keys.push(*id);
        }
        found
    }

    fn preimage(&self, of: impl Fn(&Known) -> &BTreeMap<Vec<u8>, Vec<u8>>, hash: &[u8]) -> Option<Preimage32> {
        of(&self.known.borrow()).get(hash)?.as_slice().try_into().ok()
    }
}

/// A signature of 71 bytes with its type that decodes.
fn stand_in() -> Vec<u8> {
    let mut bytes = vec![0x30, 68, 2, 32];
    bytes.extend([1; 32]);
    bytes.extend([2, 32]);
    bytes.extend([1; 32]);
    bytes.push(super::creator::ALL);
    bytes
}

/// What both kinds of scripts ask alike.
macro_rules! common {
    () => {
        fn lookup_sha256(&self, hash: &sha256::Hash) -> Option<Preimage32> {
            self.preimage(|known| &known.preimages.sha256, &hash.to_byte_array())
        }

        fn lookup_hash256(&self, hash: &hash256::Hash) -> Option<Preimage32> {
            self.preimage(|known| &known.preimages.hash256, &hash.to_byte_array())
        }

        fn lookup_ripemd160(&self, hash: &ripemd160::Hash) -> Option<Preimage32> {
            self.preimage(|known| &known.preimages.ripemd160, &hash.to_byte_array())
        }

        fn lookup_hash160(&self, hash: &hash160::Hash) -> Option<Preimage32> {
            self.preimage(|known| &known.preimages.hash160, &hash.to_byte_array())
        }

        fn check_older(&self, time: relative::LockTime) -> bool {
            self.creator.allows_older(time)
        }

        fn check_after(&self, time: LockTime) -> bool {
            self.creator.allows_after(time)
        }
    };
}

impl Satisfier<PublicKey> for Source<'_, '_> {
    fn lookup_ecdsa_sig(&self, key: &PublicKey) -> Option<ecdsa::Signature> {
        self.sign(key)
    }

    fn lookup_raw_pkh_pk(&self, id: &hash160::Hash) -> Option<PublicKey> {
        self.key(id)
    }

    fn lookup_raw_pkh_ecdsa_sig(&self, id: &hash160::Hash) -> Option<(PublicKey, ecdsa::Signature)> {
        let key = self.key(id)?;
        Some((key, self.sign(&key)?))
    }

    common!();
}

impl Satisfier<XOnlyPublicKey> for Source<'_, '_> {
    fn lookup_tap_leaf_script_sig(&self, key: &XOnlyPublicKey, leaf: &TapLeafHash) -> Option<taproot::Signature> {
        let mut known = self.known.borrow_mut();
        let made = known.sign_leaf(self.provider, self.creator, key, *leaf)?;
        taproot::Signature::from_slice(&made).ok()
    }

    fn lookup_raw_pkh_x_only_pk(&self, id: &hash160::Hash) -> Option<XOnlyPublicKey> {
        self.key(id).map(|key| XOnlyPublicKey::from(key.inner))
    }

    fn lookup_raw_pkh_tap_leaf_script_sig(
        &self,
        (id, leaf): &(hash160::Hash, TapLeafHash),
    ) -> Option<(XOnlyPublicKey, taproot::Signature)> {
        let key = XOnlyPublicKey::from(self.key(id)?.inner);
        Some((key, self.lookup_tap_leaf_script_sig(&key, leaf)?))
    }

    common!();
}

impl Known {
    /// The items that satisfy a witness script.
    pub(super) fn satisfy_segwit(&mut self, provider: &Provider, creator: &Creator<'_>, script: &Script) -> Step {
        let allowed = ExtParams::sane().raw_pkh();
        let Ok(parsed) = Miniscript::<PublicKey, Segwitv0>::parse_with_ext(script, &allowed) else {
            return Step::unsolved();
        };
        let source = Source {
            known: RefCell::new(self),
            provider,
            creator,
            script,
        };
        parsed.satisfy(&source).map_or_else(|_| Step::unsolved(), Step::of)
    }

    /// The items that satisfy a script of BIP 342.
    pub(super) fn satisfy_leaf(&mut self, provider: &Provider, creator: &Creator<'_>, script: &Script) -> Step {
        let allowed = ExtParams::sane().raw_pkh();
        let Ok(parsed) = Miniscript::<XOnlyPublicKey, Tap>::parse_with_ext(script, &allowed) else {
            return Step::unsolved();
        };
        // Every key signs, also where fewer suffice: whoever combines signatures later may need each.
        let leaf = TapLeafHash::from_script(script, LeafVersion::TapScript);
        for key in parsed.iter_pk() {
            self.sign_leaf(provider, creator, &key, leaf);
        }
        let source = Source {
            known: RefCell::new(self),
            provider,
            creator,
            script,
        };
        parsed.satisfy(&source).map_or_else(|_| Step::unsolved(), Step::of)
    }
}
