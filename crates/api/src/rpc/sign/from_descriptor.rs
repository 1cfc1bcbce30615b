//! What a descriptor tells somebody who signs.

use bitcoin::bip32::ChildNumber;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::taproot::LeafVersion;
use bitcoin::{ScriptBuf, XOnlyPublicKey};
use dunlin_chain::Network;
use miniscript::descriptor::{DescriptorSecretKey, ShInner, Wildcard};
use miniscript::{DefiniteDescriptorKey, Descriptor, ForEachKey};
use serde_json::Value;

use super::provider::{Provider, Tree, key_id};
use crate::rpc::RpcError;
use crate::rpc::descriptors::{Parsed, origin};
use crate::rpc::scan::{named_descriptor, needs_private};

impl Provider {
    /// From descriptors as methods take them; with private keys where `private`.
    pub(crate) fn from_descriptors(objects: &[Value], network: Network, private: bool) -> Result<Self, RpcError> {
        let secp = Secp256k1::new();
        let mut provider = Self::default();
        for object in objects {
            let (text, parsed, range) = named_descriptor(object, network)?;
            for index in range {
                let definites = parsed.definites(index).ok_or_else(|| needs_private(text))?;
                for definite in &definites {
                    provider.learn(&secp, definite);
                }
                if private {
                    provider.learn_private(&secp, &parsed, index);
                }
            }
        }
        Ok(provider)
    }

    fn learn(&mut self, secp: &Secp256k1<All>, definite: &Descriptor<DefiniteDescriptorKey>) {
        definite.for_each_key(|key| {
            if let Some((public, origin)) = origin(secp, key) {
                let id = key_id(&public);
                self.public.insert(id, public);
                self.origins.entry(id).or_insert((public, origin));
            }
            true
        });
        let Ok(derived) = definite.derived_descriptor(secp) else {
            return;
        };
        match &derived {
            Descriptor::Wsh(wsh) => self.add_script(wsh.inner_script()),
            Descriptor::Sh(sh) => match sh.as_inner() {
                ShInner::Wsh(wsh) => {
                    self.add_script(wsh.inner_script());
                    self.add_script(wsh.script_pubkey());
                }
                ShInner::Wpkh(wpkh) => self.add_script(wpkh.script_pubkey()),
                ShInner::Ms(_) | ShInner::SortedMulti(_) => self.add_script(sh.inner_script()),
            },
            Descriptor::Tr(tr) => {
                let info = tr.spend_info();
                let leaves = tr.iter_scripts().map(|(depth, script)| {
                    let version = LeafVersion::TapScript.to_consensus();
                    (depth, version, script.encode())
                });
                let mut leaves: Vec<(u8, u8, ScriptBuf)> = leaves.collect();
                leaves.reverse();
                let output = XOnlyPublicKey::from(info.output_key());
                let info = (*info).clone();
                self.trees.entry(output).or_insert(Tree { info, leaves });
            }
            Descriptor::Bare(_) | Descriptor::Pkh(_) | Descriptor::Wpkh(_) => {}
        }
    }

    fn learn_private(&mut self, secp: &Secp256k1<All>, parsed: &Parsed, index: u32) {
        let secrets = parsed.secrets().values().cloned();
        for secret in secrets.flat_map(DescriptorSecretKey::into_single_keys) {
            match secret {
                DescriptorSecretKey::Single(single) => self.add_key(single.key),
                DescriptorSecretKey::XPrv(key) => {
                    let step = match key.wildcard {
                        Wildcard::None => None,
                        Wildcard::Unhardened => ChildNumber::from_normal_idx(index).ok(),
                        Wildcard::Hardened => ChildNumber::from_hardened_idx(index).ok(),
                    };
                    let path = key.derivation_path.into_iter().copied().chain(step);
                    if let Ok(made) = key.xkey.derive_priv(secp, &path.collect::<Vec<_>>()) {
                        self.add_key(made.to_priv());
                    }
                }
                // Split into single ones above.
                DescriptorSecretKey::MultiXPrv(_) => {}
            }
        }
    }
}
