//! Output descriptors (BIP 380 to 386, paths of BIP 389) as Core's scans take them: which scripts one stands for, and the
//! descriptor that Core tells of each.

use std::str::FromStr;

use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::hashes::{Hash, hash160};
use bitcoin::key::TweakedPublicKey;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{Address, PublicKey, ScriptBuf, XOnlyPublicKey};
use dunlin_chain::Network;
use miniscript::descriptor::{DescriptorPublicKey, KeyMap, Wildcard};
use miniscript::{DefiniteDescriptorKey, Descriptor, ForEachKey, TranslatePk, Translator};

use super::script::{descriptor_checksum, descriptor_of, with_checksum};

/// A script, and the descriptor of it alone with its checksum.
pub(crate) type Known = (ScriptBuf, String);

/// A descriptor that was understood.
pub(crate) struct Parsed {
    forms: Vec<Form>,
    network: Network,
    /// How many paths it has (BIP 389); one but for those in angle brackets.
    paths: usize,
    /// The private keys that stand in it.
    secrets: KeyMap,
}

enum Form {
    /// The script as it stands.
    Script(ScriptBuf),
    /// Whatever its key and script make of it.
    Derived(Box<Descriptor<DescriptorPublicKey>>),
    /// The key of this `tr()` is the output's own.
    Raw(Box<Descriptor<DescriptorPublicKey>>),
}

/// Reads a descriptor; one with several paths is several.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn parse(text: &str, network: Network) -> Result<Parsed, String> {
    let body = match text.split_once('#') {
        None => text,
        Some((body, sum)) if sum == descriptor_checksum(body) => body,
        Some((body, sum)) => {
            let right = descriptor_checksum(body);
            return Err(format!(
                "Provided checksum '{sum}' does not match computed checksum '{right}'"
            ));
        }
    };
    let within = |name: &str| {
        let rest = body.strip_prefix(name)?.strip_prefix('(')?;
        rest.strip_suffix(')')
    };
    let mut secrets = KeyMap::new();
    let mut read = |text: &str| {
        let (made, found) = read(text, network)?;
        secrets.extend(found);
        Ok::<_, String>(made)
    };
    let forms = if let Some(hex) = within("raw") {
        let bytes = hex::decode(hex).map_err(|_| "Raw script is not hex".to_owned())?;
        vec![Form::Script(ScriptBuf::from_bytes(bytes))]
    } else if let Some(address) = within("addr") {
        let address = Address::from_str(address)
            .ok()
            .and_then(|address| address.require_network(network.to_bitcoin()).ok())
            .ok_or_else(|| "Address is not valid".to_owned())?;
        vec![Form::Script(address.script_pubkey())]
    } else if let Some(key) = within("rawtr") {
        let made = read(&format!("tr({key})"))?;
        made.into_iter().map(|form| Form::Raw(Box::new(form))).collect()
    } else if let Some(key) = within("combo") {
        // An uncompressed key has no form with a witness.
        let witness = read(&format!("wpkh({key})")).is_ok();
        let names = ["pk({})", "pkh({})", "wpkh({})", "sh(wpkh({}))"];
        let names = names.iter().take(if witness { 4 } else { 2 });
        let made = names.map(|name| read(&name.replace("{}", key)));
        let made: Result<Vec<_>, _> = made.collect();
        made?
            .into_iter()
            .flatten()
            .map(|form| Form::Derived(Box::new(form)))
            .collect()
    } else {
        let made = read(body)?;
        made.into_iter().map(|form| Form::Derived(Box::new(form))).collect()
    };
    let paths = if body.contains('<') { forms.len() } else { 1 };
    Ok(Parsed {
        forms,
        network,
        paths,
        secrets,
    })
}

/// Reads what is no form of Core's own. Private keys count as the public ones that they make, and come beside.
fn read(body: &str, network: Network) -> Result<(Vec<Descriptor<DescriptorPublicKey>>, KeyMap), String> {
    let wrong = |error: miniscript::Error| error.to_string();
    let (found, secrets) = Descriptor::parse_descriptor(&Secp256k1::signing_only(), body).map_err(wrong)?;
    let main = network == Network::Mainnet;
    let ours = found.for_each_key(|key| match key {
        DescriptorPublicKey::Single(_) => true,
        DescriptorPublicKey::XPub(key) => key.xkey.network.is_mainnet() == main,
        DescriptorPublicKey::MultiXPub(key) => key.xkey.network.is_mainnet() == main,
    });
    if !ours {
        return Err("a key is another network's".to_owned());
    }
    Ok((found.into_single_descriptors().map_err(wrong)?, secrets))
}

impl Parsed {
    /// One for each of its paths, where it has several.
    pub(crate) fn paths(self) -> Vec<Self> {
        if self.paths == 1 {
            return vec![self];
        }
        let alone = |form| Self {
            forms: vec![form],
            network: self.network,
            paths: 1,
            secrets: self.secrets.clone(),
        };
        self.forms.into_iter().map(alone).collect()
    }

    /// What is derived in it, at an index; none when only a private key could tell.
    pub(crate) fn definites(&self, index: u32) -> Option<Vec<Descriptor<DefiniteDescriptorKey>>> {
        let derived = self.forms.iter().filter_map(|form| match form {
            Form::Script(_) => None,
            Form::Derived(made) | Form::Raw(made) => Some(made),
        });
        derived.map(|made| definite(made, index)).collect()
    }

    /// The private keys that stand in it, by the public ones that they make.
    pub(crate) fn secrets(&self) -> &KeyMap {
        &self.secrets
    }

    /// `body`, of which this was read, with public keys in the place of private ones.
    pub(crate) fn public(&self, body: &str) -> String {
        let found = Descriptor::parse_descriptor(&Secp256k1::signing_only(), body);
        match found {
            Ok((found, private)) if !private.is_empty() => {
                let text = format!("{found:#}");
                // Steps are marked in the way in which they were.
                if body.contains("h/") || body.contains("h]") || body.contains("h)") {
                    text.replace('\'', "h")
                } else {
                    text
                }
            }
            _ => body.to_owned(),
        }
    }

    /// The text of each of its paths.
    pub(crate) fn path_texts(&self, body: &str) -> Vec<String> {
        (0..self.paths).map(|path| path_of(body, path)).collect()
    }

    /// Whether it stands for another script at each index.
    pub(crate) fn is_ranged(&self) -> bool {
        self.forms.iter().any(|form| match form {
            Form::Script(_) => false,
            Form::Derived(made) | Form::Raw(made) => made.has_wildcard(),
        })
    }

    /// Its scripts at an index; `None` when only a private key could tell.
    pub(crate) fn at(&self, index: u32) -> Option<Vec<Known>> {
        let secp = Secp256k1::new();
        self.forms
            .iter()
            .map(|form| match form {
                Form::Script(script) => Some((script.clone(), descriptor_of(script, self.network))),
                Form::Derived(made) => {
                    let definite = definite(made, index)?;
                    let script = definite.derived_descriptor(&secp).ok()?.script_pubkey();
                    Some((script, with_checksum(&sorted(&named(&secp, &definite)?))))
                }
                Form::Raw(made) => {
                    let definite = definite(made, index)?;
                    let Descriptor::Tr(tr) = definite.derived_descriptor(&secp).ok()? else {
                        return None;
                    };
                    let key = XOnlyPublicKey::from(*tr.internal_key());
                    let script = ScriptBuf::new_p2tr_tweaked(TweakedPublicKey::dangerous_assume_tweaked(key));
                    let name = named(&secp, &definite)?;
                    Some((script, with_checksum(&format!("raw{name}"))))
                }
            })
            .collect()
    }
}

/// The descriptor at an index; `None` when a step from a public key is hardened.
fn definite(made: &Descriptor<DescriptorPublicKey>, index: u32) -> Option<Descriptor<DefiniteDescriptorKey>> {
    let hardened = made.for_any_key(|key| {
        let wildcard = matches!(key, DescriptorPublicKey::XPub(key) if key.wildcard == Wildcard::Hardened);
        wildcard || key.has_hardened_step()
    });
    if hardened {
        return None;
    }
    made.at_derivation_index(index).ok()
}

/// A text in which each `<a;b>` is replaced by its choice of this number.
fn path_of(body: &str, number: usize) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, tail)) = rest.split_once('<') {
        let (choices, after) = tail.split_once('>').unwrap_or((tail, ""));
        text.push_str(before);
        text.push_str(choices.split(';').nth(number).unwrap_or_default());
        rest = after;
    }
    text.push_str(rest);
    text
}

/// A key, and where it comes from.
pub(crate) fn origin(
    secp: &Secp256k1<All>,
    key: &DefiniteDescriptorKey,
) -> Option<(PublicKey, (Fingerprint, DerivationPath))> {
    let public = key.derive_public_key(secp).ok()?;
    let own = || {
        let hash = hash160::Hash::hash(&public.to_bytes());
        Fingerprint::from(hash.to_byte_array().first_chunk().copied().unwrap_or_default())
    };
    let origin = match key.as_descriptor_public_key() {
        DescriptorPublicKey::Single(single) => match &single.origin {
            Some((fingerprint, path)) => (*fingerprint, path.clone()),
            None => (own(), DerivationPath::default()),
        },
        other => (other.master_fingerprint(), other.full_derivation_path()?),
    };
    Some((public, origin))
}

/// A key as a text tells it together with where it comes from.
struct Names<'a> {
    secp: &'a Secp256k1<All>,
    x_only: bool,
}

impl Translator<DefiniteDescriptorKey, String, ()> for Names<'_> {
    fn pk(&mut self, key: &DefiniteDescriptorKey) -> Result<String, ()> {
        let (public, (fingerprint, path)) = origin(self.secp, key).ok_or(())?;
        let steps: String = path
            .into_iter()
            .map(|step| match step {
                ChildNumber::Normal { index } => format!("/{index}"),
                ChildNumber::Hardened { index } => format!("/{index}h"),
            })
            .collect();
        let hex = if self.x_only {
            XOnlyPublicKey::from(public.inner).to_string()
        } else {
            public.to_string()
        };
        Ok(format!("[{fingerprint}{steps}]{hex}"))
    }

    fn sha256(&mut self, hash: &bitcoin::hashes::sha256::Hash) -> Result<String, ()> {
        Ok(hash.to_string())
    }

    fn hash256(&mut self, hash: &miniscript::hash256::Hash) -> Result<String, ()> {
        Ok(hash.to_string())
    }

    fn ripemd160(&mut self, hash: &bitcoin::hashes::ripemd160::Hash) -> Result<String, ()> {
        Ok(hash.to_string())
    }

    fn hash160(&mut self, hash: &hash160::Hash) -> Result<String, ()> {
        Ok(hash.to_string())
    }
}

/// The descriptor with each key as Core names it once it is found in a script.
fn named(secp: &Secp256k1<All>, definite: &Descriptor<DefiniteDescriptorKey>) -> Option<String> {
    let mut names = Names {
        secp,
        x_only: matches!(definite, Descriptor::Tr(_)),
    };
    let named = definite.translate_pk(&mut names).ok()?;
    Some(format!("{named:#}"))
}

/// A script does not tell that its keys were sorted: it has them in that order.
fn sorted(body: &str) -> String {
    let Some((before, rest)) = body.split_once("sortedmulti(") else {
        return body.to_owned();
    };
    let Some((list, after)) = rest.split_once(')') else {
        return body.to_owned();
    };
    let mut parts = list.split(',');
    let needed = parts.next().unwrap_or_default();
    let mut keys: Vec<&str> = parts.collect();
    keys.sort_by_key(|key| key.rsplit(']').next());
    format!("{before}multi({needed},{}){after}", keys.join(","))
}
