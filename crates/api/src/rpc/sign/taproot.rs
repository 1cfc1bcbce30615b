//! Taproot outputs (BIPs 341 and 342): by their key, or by the smallest of the scripts that can be satisfied.

use std::collections::BTreeSet;

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{Witness, XOnlyPublicKey};

use super::creator::{Creator, Tweak};
use super::provider::Provider;
use super::{Known, Step};

impl Known {
    pub(super) fn taproot(&mut self, provider: &Provider, creator: &Creator<'_>, output: &XOnlyPublicKey) -> Step {
        if let Some(tree) = provider.trees.get(output) {
            self.tap.internal_key.get_or_insert(tree.info.internal_key());
            if let Some(root) = tree.info.merkle_root() {
                self.tap.merkle_root.get_or_insert(root.to_byte_array());
            }
            for (leaf, blocks) in provider.leaves_of(output) {
                self.tap.leaves.entry(leaf).or_default().extend(blocks);
            }
            self.tap.tree = Some(tree.clone());
        }
        for key in self.tap.internal_key.into_iter().chain([*output]) {
            if let Some(origin) = provider.origin_of(&key) {
                self.tap
                    .origins
                    .entry(key)
                    .or_insert_with(|| (BTreeSet::new(), origin.clone()));
            }
        }
        if self.tap.key_sig.is_none() {
            let root = self.tap.merkle_root.map(TapNodeHash::from_byte_array);
            let inner = self.tap.internal_key;
            let by_internal = inner.and_then(|key| creator.schnorr(provider, &key, None, &Tweak::Root(root)));
            self.tap.key_sig = by_internal.or_else(|| creator.schnorr(provider, output, None, &Tweak::None));
        }
        if let Some(signature) = &self.tap.key_sig {
            return Step::of(vec![signature.clone()]);
        }
        let mut best: Option<(usize, Vec<Vec<u8>>)> = None;
        for ((script, version), blocks) in self.tap.leaves.clone() {
            let (Ok(LeafVersion::TapScript), Some(block)) = (LeafVersion::from_consensus(version), blocks.first())
            else {
                continue;
            };
            let mut step = self.satisfy_leaf(provider, creator, &script);
            if !step.solved {
                continue;
            }
            step.stack.push(script.into_bytes());
            step.stack.push(block.1.clone());
            let size = serialize(&Witness::from_slice(&step.stack)).len();
            if best.as_ref().is_none_or(|(least, _)| size < *least) {
                best = Some((size, step.stack));
            }
        }
        best.map_or_else(Step::unsolved, |(_, stack)| Step::of(stack))
    }

    /// The signature of a key in a leaf: the one that is known, or a new one.
    pub(super) fn sign_leaf(
        &mut self,
        provider: &Provider,
        creator: &Creator<'_>,
        key: &XOnlyPublicKey,
        leaf: TapLeafHash,
    ) -> Option<Vec<u8>> {
        if let Some(origin) = provider.origin_of(key) {
            let (leaves, _) = self
                .tap
                .origins
                .entry(*key)
                .or_insert_with(|| (BTreeSet::new(), origin.clone()));
            leaves.insert(leaf);
        }
        if let Some(signature) = self.tap.script_sigs.get(&(*key, leaf)) {
            return Some(signature.clone());
        }
        let made = creator.schnorr(provider, key, Some(leaf), &Tweak::None)?;
        self.tap.script_sigs.insert((*key, leaf), made.clone());
        Some(made)
    }
}
