//! The updater's, the signer's and the finalizer's part of a PSBT (BIPs 174 and 371): from its fields to what is known of
//! spending, and back.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash, TaprootBuilder};
use bitcoin::{PublicKey, ScriptBuf, Transaction, TxOut, XOnlyPublicKey};

use crate::psbt::fields::{self, Fields, input, output};
use crate::psbt::{Input, Output, Psbt};
use crate::rpc::sign::creator::{ALL, Creator, DEFAULT, Spend};
use crate::rpc::sign::provider::{Control, Origin, Provider, Tree, key_id};
use crate::rpc::sign::{Known, Missing};

/// Why an input was not signed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// The output that it spends is not told.
    NoUtxo,
    /// Another type of signature is asked for than the PSBT says.
    Sighash,
    /// More is needed.
    Incomplete,
}

/// A PSBT's transaction, with all outputs that it spends where all are told.
pub(super) struct Whole {
    tx: Transaction,
    spent: Option<Vec<TxOut>>,
}

impl Whole {
    /// None when the inputs' lock times contradict each other.
    pub(super) fn of(psbt: &Psbt) -> Option<Self> {
        Some(Self {
            tx: psbt.unsigned_tx()?,
            spent: psbt.spent().into_iter().collect(),
        })
    }

    fn spend<'a>(&'a self, index: usize, output: &'a TxOut, sighash: u8) -> Spend<'a> {
        Spend {
            tx: &self.tx,
            index,
            output,
            spent: self.spent.as_deref(),
            sighash,
        }
    }

    /// Whether the final script and witness of an input are good.
    pub(super) fn verifies(&self, input: &Input, index: usize) -> bool {
        self.verifies_with(input, index, self.spent.as_deref())
    }

    fn verifies_with(&self, input: &Input, index: usize, spent: Option<&[TxOut]>) -> bool {
        input.utxo().is_some_and(|output| {
            let spend = Spend {
                spent,
                ..self.spend(index, &output, ALL)
            };
            spend.verifies(&input.script_sig(), &input.script_witness())
        })
    }
}

/// How an input is signed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// The type of signature, where one is asked for.
    pub(super) sighash: Option<u8>,
    /// Whether to put the final script and witness together; `false` leaves the parts.
    pub(super) finalize: bool,
    /// Whether to make signatures up, for their size alone.
    pub(super) dummy: bool,
}

/// Signs an input with what the provider and the PSBT know, and says what is missing.
pub(super) fn sign(
    input: &mut Input,
    whole: &Whole,
    index: usize,
    provider: &Provider,
    how: How,
) -> (Result<(), Unsigned>, Missing) {
    let fail = |why| (Err(why), Missing::default());
    // As in Core, the size of an input of taproot that is signed already is not told: a made-up signature knows nothing
    // of other outputs.
    let spent = whole.spent.as_deref().filter(|_| !how.dummy);
    if whole.verifies_with(input, index, spent) {
        return (Ok(()), Missing::default());
    }
    let by_witness = input.non_witness_utxo().is_none();
    let Some(utxo) = input.utxo() else {
        return fail(Unsigned::NoUtxo);
    };
    let taproot = utxo.script_pubkey.is_p2tr();
    let sighash = how.sighash.unwrap_or(if taproot { DEFAULT } else { ALL });
    if input.sighash().is_some_and(|said| said != u32::from(sighash)) {
        return fail(Unsigned::Sighash);
    }
    if sighash != DEFAULT && (taproot || sighash != ALL) {
        let kind = u32::from(sighash).to_le_bytes().to_vec();
        input.fields.set(input::SIGHASH, &[], kind);
    }
    if !all_of_type(&input.fields, sighash) {
        return fail(Unsigned::Sighash);
    }
    let mut known = of_input(input);
    let creator = match how.dummy {
        true => Creator::Dummy,
        false => Creator::Real(whole.spend(index, &utxo, sighash)),
    };
    let complete = known.produce(provider, &creator, &utxo.script_pubkey);
    // A transaction's id proves what it says; an output by itself only a signature over it does.
    if by_witness && !known.witness {
        return fail(Unsigned::Incomplete);
    }
    if !how.finalize {
        known.complete = false;
    }
    into_input(&known, input);
    if known.witness {
        input.set_witness_utxo(&utxo);
    }
    (if complete { Ok(()) } else { Err(Unsigned::Incomplete) }, known.missing)
}

/// Whether the signatures that are there are of this type.
fn all_of_type(fields: &Fields, sighash: u8) -> bool {
    let schnorr = fields.all(input::TAP_KEY_SIG).chain(fields.all(input::TAP_SCRIPT_SIG));
    let mut schnorr = schnorr.map(|(_, signature)| signature);
    if sighash == DEFAULT {
        return schnorr.all(|signature| signature.len() == 64);
    }
    let mut ecdsa = fields.all(input::PARTIAL_SIG).map(|(_, signature)| signature);
    schnorr.all(|signature| signature.len() == 65 && signature.last() == Some(&sighash))
        && ecdsa.all(|signature| signature.last() == Some(&sighash))
}

/// Finalizes every input that can be; returns the transaction when all are.
pub(super) fn finalize(psbt: &mut Psbt) -> Option<Transaction> {
    let whole = Whole::of(psbt)?;
    let mut complete = true;
    for (index, input) in psbt.inputs.iter_mut().enumerate() {
        let sighash = input.sighash().map(|kind| u8::try_from(kind).unwrap_or(u8::MAX));
        let how = How {
            sighash,
            finalize: true,
            dummy: false,
        };
        let (done, _) = sign(input, &whole, index, &Provider::default(), how);
        complete &= done.is_ok();
    }
    let mut tx = complete.then_some(whole.tx)?;
    for (txin, input) in tx.input.iter_mut().zip(&psbt.inputs) {
        txin.script_sig = input.script_sig();
        txin.witness = input.script_witness();
    }
    Some(tx)
}

/// Adds to an output what the provider knows of its script.
pub(super) fn update_output(out: &mut Output, whole: &Whole, provider: &Provider) {
    let mut known = of_output(out);
    let output = TxOut {
        value: bitcoin::Amount::from_sat(out.amount.cast_unsigned()),
        script_pubkey: out.script.clone(),
    };
    // No input spends it: signatures are thrown away, and only what is gathered on the way counts. Without the outputs
    // that are spent no key of taproot signs, so that its leaves are looked at, too.
    let spend = Spend {
        spent: None,
        ..whole.spend(0, &output, ALL)
    };
    known.produce(provider, &Creator::Real(spend), &out.script);
    into_output(&known, out);
}

/// Forgets whole transactions where every input is of a kind whose signature covers all amounts.
pub(super) fn drop_needless_transactions(psbt: &mut Psbt) {
    let needless = psbt.inputs.iter().all(|input| {
        let version = input
            .witness_utxo()
            .and_then(|output| output.script_pubkey.witness_version());
        let later = version.is_some_and(|version| version.to_num() > 0);
        later && input.sighash().is_none_or(|kind| kind & 0x80 == 0)
    });
    if needless {
        for input in &mut psbt.inputs {
            input.fields.clear(input::NON_WITNESS_UTXO);
        }
    }
}

fn script(fields: &Fields, kind: u8) -> Option<ScriptBuf> {
    fields.get(kind).map(|bytes| ScriptBuf::from_bytes(bytes.to_vec()))
}

fn origin_from(bytes: &[u8]) -> Origin {
    let (fingerprint, steps) = fields::origin_parts(bytes);
    let steps: Vec<ChildNumber> = steps.into_iter().map(ChildNumber::from).collect();
    (Fingerprint::from(fingerprint), DerivationPath::from(steps))
}

fn origin_bytes((fingerprint, path): &Origin) -> Vec<u8> {
    let mut bytes = fingerprint.to_bytes().to_vec();
    for step in path {
        bytes.extend(u32::from(*step).to_le_bytes());
    }
    bytes
}

fn add_origins(known: &mut Known, fields: &Fields, kind: u8, tap_kind: u8) {
    for (key, value) in fields.all(kind) {
        if let Ok(key) = PublicKey::from_slice(key) {
            known.origins.insert(key_id(&key), (key, origin_from(value)));
        }
    }
    for (key, value) in fields.all(tap_kind) {
        if let (Ok(key), Ok((hashes, origin))) = (XOnlyPublicKey::from_slice(key), fields::tap_origin_parts(value)) {
            let leaves: BTreeSet<_> = hashes.into_iter().map(TapLeafHash::from_byte_array).collect();
            known.tap.origins.insert(key, (leaves, origin_from(origin)));
        }
    }
}

fn put_origins(known: &Known, fields: &mut Fields, kind: u8, tap_kind: u8) {
    for (key, origin) in known.origins.values() {
        fields.offer(kind, &key.to_bytes(), origin_bytes(origin));
    }
    for (key, (leaves, origin)) in &known.tap.origins {
        let hashes = leaves.iter().map(|leaf| leaf.to_byte_array()).collect();
        fields.offer(
            tap_kind,
            &key.serialize(),
            fields::tap_origin(hashes, &origin_bytes(origin)),
        );
    }
}

fn pairs(fields: &Fields, kind: u8) -> BTreeMap<Vec<u8>, Vec<u8>> {
    fields
        .all(kind)
        .map(|(hash, preimage)| (hash.to_vec(), preimage.to_vec()))
        .collect()
}

fn of_input(input: &Input) -> Known {
    let fields = &input.fields;
    let mut known = Known::default();
    if input.is_final() {
        known.script_sig = input.script_sig();
        known.script_witness = input.script_witness();
        known.complete = true;
        return known;
    }
    for (key, signature) in fields.all(input::PARTIAL_SIG) {
        if let Ok(key) = PublicKey::from_slice(key) {
            known.signatures.insert(key_id(&key), (key, signature.to_vec()));
        }
    }
    known.redeem_script = script(fields, input::REDEEM_SCRIPT);
    known.witness_script = script(fields, input::WITNESS_SCRIPT);
    add_origins(&mut known, fields, input::BIP32_DERIVATION, input::TAP_BIP32_DERIVATION);
    let tap = &mut known.tap;
    tap.key_sig = fields.get(input::TAP_KEY_SIG).map(<[u8]>::to_vec);
    for (key, signature) in fields.all(input::TAP_SCRIPT_SIG) {
        let (key, leaf) = key.split_at(key.len().min(32));
        if let (Ok(key), Ok(leaf)) = (XOnlyPublicKey::from_slice(key), TapLeafHash::from_slice(leaf)) {
            tap.script_sigs.insert((key, leaf), signature.to_vec());
        }
    }
    let internal = fields.get(input::TAP_INTERNAL_KEY);
    tap.internal_key = internal.and_then(|key| XOnlyPublicKey::from_slice(key).ok());
    tap.merkle_root = fields.get(input::TAP_MERKLE_ROOT).and_then(|root| root.try_into().ok());
    for (control, leaf) in fields.all(input::TAP_LEAF_SCRIPT) {
        if let Some((version, script)) = leaf.split_last() {
            let leaf = (ScriptBuf::from_bytes(script.to_vec()), *version);
            tap.leaves
                .entry(leaf)
                .or_default()
                .insert(Control::of(control.to_vec()));
        }
    }
    known.preimages.ripemd160 = pairs(fields, input::RIPEMD160);
    known.preimages.sha256 = pairs(fields, input::SHA256);
    known.preimages.hash160 = pairs(fields, input::HASH160);
    known.preimages.hash256 = pairs(fields, input::HASH256);
    known
}

fn into_input(known: &Known, input: &mut Input) {
    let fields = &mut input.fields;
    if known.complete {
        for kind in [
            input::PARTIAL_SIG,
            input::BIP32_DERIVATION,
            input::REDEEM_SCRIPT,
            input::WITNESS_SCRIPT,
        ] {
            fields.clear(kind);
        }
        if !known.script_sig.is_empty() {
            fields.set(input::SCRIPT_SIG, &[], known.script_sig.to_bytes());
        }
        if !known.script_witness.is_empty() {
            fields.set(input::SCRIPT_WITNESS, &[], serialize(&known.script_witness));
        }
        return;
    }
    for (key, signature) in known.signatures.values() {
        fields.offer(input::PARTIAL_SIG, &key.to_bytes(), signature.clone());
    }
    put_scripts(known, fields, input::REDEEM_SCRIPT, input::WITNESS_SCRIPT);
    put_origins(known, fields, input::BIP32_DERIVATION, input::TAP_BIP32_DERIVATION);
    let tap = &known.tap;
    if let Some(signature) = &tap.key_sig {
        fields.set(input::TAP_KEY_SIG, &[], signature.clone());
    }
    for ((key, leaf), signature) in &tap.script_sigs {
        let name = [key.serialize(), leaf.to_byte_array()].concat();
        fields.offer(input::TAP_SCRIPT_SIG, &name, signature.clone());
    }
    if let Some(key) = &tap.internal_key {
        fields.set(input::TAP_INTERNAL_KEY, &[], key.serialize().to_vec());
    }
    if let Some(root) = tap.merkle_root {
        fields.set(input::TAP_MERKLE_ROOT, &[], root.to_vec());
    }
    for ((script, version), blocks) in &tap.leaves {
        for block in blocks {
            let leaf = [script.as_bytes(), &[*version]].concat();
            fields.offer(input::TAP_LEAF_SCRIPT, &block.1, leaf);
        }
    }
}

fn put_scripts(known: &Known, fields: &mut Fields, redeem: u8, witness: u8) {
    for (kind, script) in [(redeem, &known.redeem_script), (witness, &known.witness_script)] {
        if let Some(script) = script.as_ref().filter(|script| !script.is_empty()) {
            fields.offer(kind, &[], script.to_bytes());
        }
    }
}

fn of_output(out: &Output) -> Known {
    let fields = &out.fields;
    let mut known = Known {
        redeem_script: script(fields, output::REDEEM_SCRIPT),
        witness_script: script(fields, output::WITNESS_SCRIPT),
        ..Known::default()
    };
    add_origins(
        &mut known,
        fields,
        output::BIP32_DERIVATION,
        output::TAP_BIP32_DERIVATION,
    );
    let internal = fields.get(output::TAP_INTERNAL_KEY);
    let internal = internal.and_then(|key| XOnlyPublicKey::from_slice(key).ok());
    let tree = fields
        .get(output::TAP_TREE)
        .and_then(|value| fields::tree_leaves(value).ok());
    if let (Some(key), Some(leaves)) = (internal, tree) {
        let leaves = leaves
            .into_iter()
            .map(|(depth, version, script)| (depth, version, ScriptBuf::from_bytes(script.to_vec())));
        let leaves: Vec<_> = leaves.collect();
        if let Some(info) = spend_info(&key, &leaves) {
            known.tap.internal_key = Some(key);
            known.tap.merkle_root = info.merkle_root().map(TapNodeHash::to_byte_array);
            let leaves = leaves.into_iter().rev().collect();
            known.tap.tree = Some(Tree { info, leaves });
        }
    }
    known
}

fn spend_info(key: &XOnlyPublicKey, leaves: &[(u8, u8, ScriptBuf)]) -> Option<bitcoin::taproot::TaprootSpendInfo> {
    let mut builder = TaprootBuilder::new();
    for (depth, version, script) in leaves {
        let version = LeafVersion::from_consensus(*version).ok()?;
        builder = builder.add_leaf_with_ver(*depth, script.clone(), version).ok()?;
    }
    builder.finalize(&bitcoin::secp256k1::Secp256k1::new(), *key).ok()
}

fn into_output(known: &Known, out: &mut Output) {
    let fields = &mut out.fields;
    put_scripts(known, fields, output::REDEEM_SCRIPT, output::WITNESS_SCRIPT);
    put_origins(known, fields, output::BIP32_DERIVATION, output::TAP_BIP32_DERIVATION);
    if let Some(key) = &known.tap.internal_key {
        fields.set(output::TAP_INTERNAL_KEY, &[], key.serialize().to_vec());
    }
    if let Some(tree) = known.tap.tree.as_ref().filter(|tree| !tree.leaves.is_empty()) {
        let leaves = tree.leaves.iter();
        let leaves = leaves.map(|(depth, version, script)| (*depth, *version, script.as_bytes()));
        fields.set(output::TAP_TREE, &[], fields::tree(leaves));
    }
}
