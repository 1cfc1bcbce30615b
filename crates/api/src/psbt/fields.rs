//! The key-value maps of a PSBT: which fields there are (BIPs 174, 370, 371, 373), what each may hold, and the order in
//! which they are written.

use std::collections::BTreeMap;

use bitcoin::Transaction;
use bitcoin::hashes::{Hash, hash160};

use super::Malformed;
use super::reader::{Reader, put_bytes, put_size};
use super::values::{check_key, only_in_v2, value};

/// Key types of the global map.
pub(crate) mod global {
    pub(crate) const UNSIGNED_TX: u8 = 0x00;
    pub(crate) const XPUB: u8 = 0x01;
    pub(crate) const TX_VERSION: u8 = 0x02;
    pub(crate) const FALLBACK_LOCKTIME: u8 = 0x03;
    pub(crate) const INPUT_COUNT: u8 = 0x04;
    pub(crate) const OUTPUT_COUNT: u8 = 0x05;
    pub(crate) const TX_MODIFIABLE: u8 = 0x06;
    pub(crate) const VERSION: u8 = 0xfb;
}

/// Key types of an input's map.
pub(crate) mod input {
    pub(crate) const NON_WITNESS_UTXO: u8 = 0x00;
    pub(crate) const WITNESS_UTXO: u8 = 0x01;
    pub(crate) const PARTIAL_SIG: u8 = 0x02;
    pub(crate) const SIGHASH: u8 = 0x03;
    pub(crate) const REDEEM_SCRIPT: u8 = 0x04;
    pub(crate) const WITNESS_SCRIPT: u8 = 0x05;
    pub(crate) const BIP32_DERIVATION: u8 = 0x06;
    pub(crate) const SCRIPT_SIG: u8 = 0x07;
    pub(crate) const SCRIPT_WITNESS: u8 = 0x08;
    pub(crate) const RIPEMD160: u8 = 0x0a;
    pub(crate) const SHA256: u8 = 0x0b;
    pub(crate) const HASH160: u8 = 0x0c;
    pub(crate) const HASH256: u8 = 0x0d;
    pub(crate) const PREVIOUS_TXID: u8 = 0x0e;
    pub(crate) const OUTPUT_INDEX: u8 = 0x0f;
    pub(crate) const SEQUENCE: u8 = 0x10;
    pub(crate) const TIME_LOCKTIME: u8 = 0x11;
    pub(crate) const HEIGHT_LOCKTIME: u8 = 0x12;
    pub(crate) const TAP_KEY_SIG: u8 = 0x13;
    pub(crate) const TAP_SCRIPT_SIG: u8 = 0x14;
    pub(crate) const TAP_LEAF_SCRIPT: u8 = 0x15;
    pub(crate) const TAP_BIP32_DERIVATION: u8 = 0x16;
    pub(crate) const TAP_INTERNAL_KEY: u8 = 0x17;
    pub(crate) const TAP_MERKLE_ROOT: u8 = 0x18;
    pub(crate) const MUSIG2_PARTICIPANTS: u8 = 0x1a;
    pub(crate) const MUSIG2_PUB_NONCE: u8 = 0x1b;
    pub(crate) const MUSIG2_PARTIAL_SIG: u8 = 0x1c;
}

/// Key types of an output's map.
pub(crate) mod output {
    pub(crate) const REDEEM_SCRIPT: u8 = 0x00;
    pub(crate) const WITNESS_SCRIPT: u8 = 0x01;
    pub(crate) const BIP32_DERIVATION: u8 = 0x02;
    pub(crate) const AMOUNT: u8 = 0x03;
    pub(crate) const SCRIPT: u8 = 0x04;
    pub(crate) const TAP_INTERNAL_KEY: u8 = 0x05;
    pub(crate) const TAP_TREE: u8 = 0x06;
    pub(crate) const TAP_BIP32_DERIVATION: u8 = 0x07;
    pub(crate) const MUSIG2_PARTICIPANTS: u8 = 0x08;
}

/// The key type of what others defined for themselves, in every map.
pub(crate) const PROPRIETARY: u8 = 0xfc;

/// What a final input needs no more, in the order in which it is written before.
const UNTIL_FINAL: [u8; 20] = [
    input::PARTIAL_SIG,
    input::SIGHASH,
    input::REDEEM_SCRIPT,
    input::WITNESS_SCRIPT,
    input::BIP32_DERIVATION,
    input::RIPEMD160,
    input::SHA256,
    input::HASH160,
    input::HASH256,
    input::TAP_KEY_SIG,
    input::TAP_SCRIPT_SIG,
    input::TAP_LEAF_SCRIPT,
    input::TAP_BIP32_DERIVATION,
    input::TAP_INTERNAL_KEY,
    input::TAP_MERKLE_ROOT,
    input::MUSIG2_PARTICIPANTS,
    input::MUSIG2_PUB_NONCE,
    input::MUSIG2_PARTIAL_SIG,
    input::SCRIPT_SIG,
    input::SCRIPT_WITNESS,
];

/// One map: keys with their type in front, and values. What is left out when it is empty is never in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<Vec<u8>, Vec<u8>>);

/// Which map a field stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Global,
    Input,
    Output,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    fn of(self) -> &'static str {
        match self {
            Self::Global => "the global map",
            Self::Input => "an input map",
            Self::Output => "an output map",
        }
    }

    /// Whether fields of this type have a meaning here.
    fn knows(self, kind: u8) -> bool {
        match self {
            Self::Global => matches!(kind, 0x00..=0x06 | 0xfb),
            Self::Input => matches!(kind, 0x00..=0x08 | 0x0a..=0x18 | 0x1a..=0x1c),
            Self::Output => kind <= 0x08,
        }
    }
}

impl Fields {
    /// The value of the field that has only its type as a key.
    pub(crate) fn get(&self, kind: u8) -> Option<&[u8]> {
        self.0.get(&[kind][..]).map(Vec::as_slice)
    }

    /// All fields of a type: what follows it in the key, and the value.
    pub(crate) fn all(&self, kind: u8) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .range(vec![kind]..)
            .take_while(move |(key, _)| key.first() == Some(&kind))
            .map(|(key, value)| (key.get(1..).unwrap_or_default(), value.as_slice()))
    }

    /// Whether there is a field of a type.
    pub(crate) fn has(&self, kind: u8) -> bool {
        self.all(kind).next().is_some()
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, kind: u8, rest: &[u8], value: Vec<u8>) {
        self.0.insert([&[kind], rest].concat(), value);
    }

    /// Sets a field that is not there.
    pub(crate) fn offer(&mut self, kind: u8, rest: &[u8], value: Vec<u8>) {
        self.0.entry([&[kind], rest].concat()).or_insert(value);
    }

    /// Removes all fields of a type.
    pub(crate) fn clear(&mut self, kind: u8) {
        self.0.retain(|key, _| key.first() != Some(&kind));
    }

    /// Takes and removes the field that has only its type as a key.
    pub(super) fn take(&mut self, kind: u8) -> Option<Vec<u8>> {
        self.0.remove(&[kind][..])
    }

    /// Takes over what is missing here; of what has only one value, that is what was here.
    pub(super) fn merge(&mut self, other: &Self, except: Option<u8>) {
        for (key, value) in &other.0 {
            if key.first().copied() != except {
                self.0.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// Takes over fields of another global map whose type has no meaning.
    pub(crate) fn take_unknown(&mut self, other: &Self) {
        for (key, value) in other.unknown(Place::Global) {
            self.0.entry(key.to_vec()).or_insert_with(|| value.to_vec());
        }
    }

    /// Proprietary fields: the whole key and the value.
    pub(crate) fn proprietary(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let range = self.0.range(vec![PROPRIETARY]..vec![PROPRIETARY + 1]);
        range.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Fields whose type has no meaning in this map.
    pub(crate) fn unknown(&self, place: Place) -> impl Iterator<Item = (&[u8], &[u8])> {
        let known = move |kind: &u8| place.knows(*kind) || *kind == PROPRIETARY;
        self.0
            .iter()
            .filter(move |(key, _)| !key.first().is_some_and(known))
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Reads a map of a PSBT of this version up to its separator.
    pub(super) fn read(reader: &mut Reader<'_>, place: Place, version: u32) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        // What is empty counts as left out, but its key may not come again.
        let mut empty: Vec<Vec<u8>> = Vec::new();
        while !reader.is_empty() {
            let key = reader.bytes()?;
            if key.is_empty() {
                return Ok(fields);
            }
            if fields.0.contains_key(key) || empty.iter().any(|seen| seen == key) {
                let (place, key) = (place.name(), hex::encode(key));
                return Err(Malformed(format!(
                    "Duplicate Key, {place} key \"{key}\" already provided"
                )));
            }
            let kind = Reader(key).size()?;
            let known = u8::try_from(kind).ok().filter(|kind| place.knows(*kind));
            let value = match known {
                Some(kind) => {
                    check_key(place, kind, key)?;
                    if let Some(name) = only_in_v2(place, kind).filter(|_| version < 2) {
                        return Err(Malformed(format!("{name} is not allowed in PSBTv0")));
                    }
                    value(place, kind, key, reader)?
                }
                None => {
                    if kind == u64::from(PROPRIETARY) {
                        proprietary_parts(key)?;
                    }
                    Some(reader.bytes()?.to_vec())
                }
            };
            match value {
                Some(value) => drop(fields.0.insert(key.to_vec(), value)),
                None => empty.push(key.to_vec()),
            }
        }
        Err(Malformed(format!("Separator is missing at the end of {}", place.of())))
    }

    /// Writes what the global map has besides the transaction.
    pub(super) fn write_xpubs(&self, into: &mut Vec<u8>) {
        let mut found: Vec<_> = self.all(global::XPUB).collect();
        found.sort_by_key(|(xpub, origin)| xpub_order(xpub, origin));
        for (xpub, origin) in found {
            put(into, global::XPUB, xpub, origin);
        }
    }

    /// Writes what only others understand, in the order of Core.
    pub(super) fn write_foreign_global(&self, into: &mut Vec<u8>) {
        write_raw(into, self.proprietary().chain(self.unknown(Place::Global)));
    }

    /// Writes the fields of an input; `transaction` are those that say what it spends.
    pub(super) fn write_input(&self, into: &mut Vec<u8>, transaction: &[u8]) {
        if let Some(tx) = self.get(input::NON_WITNESS_UTXO) {
            put(into, input::NON_WITNESS_UTXO, &[], &without_witness(tx));
        }
        self.write_sorted(into, input::WITNESS_UTXO);
        let is_final = self.has(input::SCRIPT_SIG) || self.has(input::SCRIPT_WITNESS);
        for kind in UNTIL_FINAL {
            if !is_final || matches!(kind, input::SCRIPT_SIG | input::SCRIPT_WITNESS) {
                self.write_sorted(into, kind);
            }
        }
        into.extend(transaction);
        write_raw(into, self.proprietary().chain(self.unknown(Place::Input)));
        into.push(0);
    }

    /// Writes the fields of an output; `transaction` are those that say what it pays.
    pub(super) fn write_output(&self, into: &mut Vec<u8>, transaction: &[u8]) {
        for kind in [output::REDEEM_SCRIPT, output::WITNESS_SCRIPT, output::BIP32_DERIVATION] {
            self.write_sorted(into, kind);
        }
        into.extend(transaction);
        write_raw(into, self.proprietary());
        for kind in output::TAP_INTERNAL_KEY..=output::MUSIG2_PARTICIPANTS {
            self.write_sorted(into, kind);
        }
        write_raw(into, self.unknown(Place::Output));
        into.push(0);
    }

    /// The fields of a type in the order of Core, which for some is not that of their keys.
    pub(crate) fn sorted_input(&self, kind: u8) -> Vec<(&[u8], &[u8])> {
        let mut found: Vec<_> = self.all(kind).collect();
        match kind {
            input::PARTIAL_SIG => found.sort_by_key(|(key, _)| hash160::Hash::hash(key)),
            input::TAP_LEAF_SCRIPT => found.sort_by_key(|(control, leaf)| {
                // By the script, then by its version, which stands behind it.
                let leaf = leaf.split_last().map(|(version, script)| (script, version));
                (leaf, control.len(), *control)
            }),
            input::MUSIG2_PUB_NONCE | input::MUSIG2_PARTIAL_SIG => {
                found.sort_by_key(|(key, _)| (key.get(33..).unwrap_or_default(), *key));
            }
            _ => {}
        }
        found
    }

    fn write_sorted(&self, into: &mut Vec<u8>, kind: u8) {
        // Outputs have no type for which the two orders differ.
        for (rest, value) in self.sorted_input(kind) {
            put(into, kind, rest, value);
        }
    }
}

/// Appends one field.
pub(super) fn put(into: &mut Vec<u8>, kind: u8, rest: &[u8], value: &[u8]) {
    put_size(into, rest.len() + 1);
    into.push(kind);
    into.extend(rest);
    put_bytes(into, value);
}

fn write_raw<'a>(into: &mut Vec<u8>, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    for (key, value) in fields {
        put_bytes(into, key);
        put_bytes(into, value);
    }
}

/// The identifier and the subtype in the key of a proprietary field.
pub(crate) fn proprietary_parts(key: &[u8]) -> Result<(&[u8], u64), Malformed> {
    let mut reader = Reader(key.get(1..).unwrap_or_default());
    Ok((reader.bytes()?, reader.size()?))
}

/// Core's order of extended keys: by where they come from, then by themselves.
pub(crate) fn xpub_order(xpub: &[u8], origin: &[u8]) -> impl Ord + use<> {
    let (fingerprint, path) = origin_parts(origin);
    let (head, key) = xpub.split_at(xpub.len().min(45));
    let code = head.get(13..).unwrap_or_default();
    (fingerprint, path.len(), path, [key, code].concat())
}

/// The fingerprint and the steps of a key's origin.
pub(crate) fn origin_parts(origin: &[u8]) -> ([u8; 4], Vec<u32>) {
    let (chunks, _) = origin.as_chunks::<4>();
    let fingerprint = chunks.first().copied().unwrap_or_default();
    let steps = chunks.iter().skip(1).map(|step| u32::from_le_bytes(*step));
    (fingerprint, steps.collect())
}

/// The hashes of leaves and the origin in the value of a taproot key's path.
pub(crate) fn tap_origin_parts(value: &[u8]) -> Result<(Vec<[u8; 32]>, &[u8]), Malformed> {
    let mut reader = Reader(value);
    let count = reader.size()?;
    let mut hashes = Vec::new();
    for _ in 0..count {
        hashes.push(reader.array()?);
    }
    Ok((hashes, reader.0))
}

/// The value of a taproot key's path.
pub(crate) fn tap_origin(mut hashes: Vec<[u8; 32]>, origin: &[u8]) -> Vec<u8> {
    hashes.sort_unstable();
    hashes.dedup();
    let mut value = Vec::new();
    put_size(&mut value, hashes.len());
    value.extend(hashes.concat());
    value.extend(origin);
    value
}

/// A leaf of a taproot tree: its depth, version and script.
pub(crate) type Leaf<'a> = (u8, u8, &'a [u8]);

/// The leaves of a taproot tree.
pub(crate) fn tree_leaves(value: &[u8]) -> Result<Vec<Leaf<'_>>, Malformed> {
    let mut reader = Reader(value);
    let mut leaves = Vec::new();
    while !reader.is_empty() {
        leaves.push((reader.byte()?, reader.byte()?, reader.bytes()?));
    }
    Ok(leaves)
}

/// The value of a taproot tree.
pub(crate) fn tree<'a>(leaves: impl Iterator<Item = (u8, u8, &'a [u8])>) -> Vec<u8> {
    let mut value = Vec::new();
    for (depth, version, script) in leaves {
        value.extend([depth, version]);
        put_bytes(&mut value, script);
    }
    value
}

/// A transaction as it is stored beside an input: without its witness.
fn without_witness(bytes: &[u8]) -> Vec<u8> {
    match bitcoin::consensus::deserialize::<Transaction>(bytes) {
        Ok(mut tx) => {
            for input in &mut tx.input {
                input.witness.clear();
            }
            bitcoin::consensus::serialize(&tx)
        }
        Err(_) => bytes.to_vec(),
    }
}
