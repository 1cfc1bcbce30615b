//! `decodepsbt`: a PSBT as Core shows it.

use bitcoin::{ScriptBuf, base58};
use dunlin_chain::Network;
use serde_json::{Map, Value, json};

use crate::psbt::fields::{self, Fields, Place, global, input, output};
use crate::psbt::{Input, Output, Psbt};
use crate::rpc::json::btc;
use crate::rpc::params::MAX_MONEY;
use crate::rpc::{script, tx};

/// The whole answer.
pub(super) fn show(psbt: &Psbt, network: Network) -> Value {
    let mut map = Map::new();
    if psbt.version < 2
        && let Some(tx) = psbt.unsigned_tx()
    {
        map.insert("tx".into(), Value::Object(tx::to_json(&tx, network, None, false)));
    }
    let mut xpubs: Vec<_> = psbt.fields.all(global::XPUB).collect();
    xpubs.sort_by_key(|(xpub, origin)| fields::xpub_order(xpub, origin));
    let xpubs = xpubs.into_iter().map(|(xpub, origin)| {
        let mut shown = Map::new();
        shown.insert("xpub".into(), base58::encode_check(xpub).into());
        put_origin(&mut shown, origin);
        Value::Object(shown)
    });
    map.insert("global_xpubs".into(), xpubs.collect());
    if psbt.version >= 2 {
        map.insert("tx_version".into(), psbt.tx_version.into());
        if let Some(time) = psbt.fallback_locktime {
            map.insert("fallback_locktime".into(), time.into());
        }
        map.insert("input_count".into(), psbt.inputs.len().into());
        map.insert("output_count".into(), psbt.outputs.len().into());
        if let Some(flags) = psbt.modifiable {
            map.insert("inputs_modifiable".into(), (flags & 1 != 0).into());
            map.insert("outputs_modifiable".into(), (flags & 2 != 0).into());
            map.insert("has_sighash_single".into(), (flags & 4 != 0).into());
        }
    }
    map.insert("psbt_version".into(), psbt.version.into());
    map.insert("proprietary".into(), proprietary(&psbt.fields));
    map.insert("unknown".into(), by_hex(psbt.fields.unknown(Place::Global)));
    let inputs = psbt.inputs.iter().map(|input| show_input(input, psbt.version, network));
    map.insert("inputs".into(), inputs.collect());
    let outputs = psbt
        .outputs
        .iter()
        .map(|output| show_output(output, psbt.version, network));
    map.insert("outputs".into(), outputs.collect());
    if let Some(fee) = fee(psbt) {
        map.insert("fee".into(), btc(fee));
    }
    Value::Object(map)
}

/// What the inputs hold more than the outputs, where all is told and can be.
fn fee(psbt: &Psbt) -> Option<i64> {
    let sum = |sum: i64, value: i64| {
        let in_range = |value: &i64| (0..=MAX_MONEY.cast_signed()).contains(value);
        sum.checked_add(Some(value).filter(in_range)?).filter(in_range)
    };
    let mut spent = psbt.spent().into_iter();
    let held = spent.try_fold(0, |held, output| sum(held, output?.value.to_sat().cast_signed()))?;
    let paid = psbt
        .outputs
        .iter()
        .try_fold(0, |paid, output| sum(paid, output.amount))?;
    Some(held - paid)
}

fn put_origin(map: &mut Map<String, Value>, origin: &[u8]) {
    let (fingerprint, steps) = fields::origin_parts(origin);
    let steps = steps.into_iter().map(|step| {
        let hardened = if step >> 31 == 1 { "h" } else { "" };
        format!("/{}{hardened}", step & 0x7fff_ffff)
    });
    map.insert("master_fingerprint".into(), hex::encode(fingerprint).into());
    map.insert("path".into(), format!("m{}", steps.collect::<String>()).into());
}

fn by_hex<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Value {
    let shown: Map<String, Value> = fields
        .map(|(key, value)| (hex::encode(key), hex::encode(value).into()))
        .collect();
    Value::Object(shown)
}

fn proprietary(fields: &Fields) -> Value {
    let shown = fields.proprietary().filter_map(|(key, value)| {
        let (identifier, subtype) = fields::proprietary_parts(key).ok()?;
        Some(json!({
            "identifier": hex::encode(identifier),
            "subtype": subtype,
            "key": hex::encode(key),
            "value": hex::encode(value),
        }))
    });
    shown.collect()
}

/// A script without what only an output has.
fn bare_script(bytes: &[u8], network: Network) -> Value {
    let mut shown = script::script_pub_key(&ScriptBuf::from_bytes(bytes.to_vec()), network);
    if let Value::Object(map) = &mut shown {
        map.shift_remove("desc");
        map.shift_remove("address");
    }
    shown
}

/// Adds a field unless it is empty.
fn put(map: &mut Map<String, Value>, name: &str, value: Value) {
    let empty = match &value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        _ => false,
    };
    if !empty {
        map.insert(name.into(), value);
    }
}

fn hex_of(value: Option<&[u8]>) -> Value {
    value.map_or(Value::Null, |bytes| hex::encode(bytes).into())
}

fn origins(fields: &Fields, kind: u8) -> Value {
    let shown = fields.all(kind).map(|(key, origin)| {
        let mut map = Map::new();
        map.insert("pubkey".into(), hex::encode(key).into());
        put_origin(&mut map, origin);
        Value::Object(map)
    });
    shown.collect()
}

fn tap_origins(fields: &Fields, kind: u8) -> Value {
    let shown = fields.all(kind).filter_map(|(key, value)| {
        let (hashes, origin) = fields::tap_origin_parts(value).ok()?;
        let mut map = Map::new();
        map.insert("pubkey".into(), hex::encode(key).into());
        put_origin(&mut map, origin);
        map.insert(
            "leaf_hashes".into(),
            hashes.into_iter().map(hex::encode).collect::<Vec<_>>().into(),
        );
        Some(Value::Object(map))
    });
    shown.collect()
}

fn participants(fields: &Fields, kind: u8) -> Value {
    let shown = fields.all(kind).map(|(whole, parts)| {
        let parts: Vec<String> = parts.chunks(33).map(hex::encode).collect();
        json!({ "aggregate_pubkey": hex::encode(whole), "participant_pubkeys": parts })
    });
    shown.collect()
}

/// Nonces or signatures of parts of a key.
fn of_participants(fields: &Fields, kind: u8, name: &str) -> Value {
    let shown = fields.sorted_input(kind).into_iter().map(|(key, value)| {
        let part = |range: std::ops::Range<usize>| hex::encode(key.get(range).unwrap_or_default());
        let mut map = Map::new();
        map.insert("participant_pubkey".into(), part(0..33).into());
        map.insert("aggregate_pubkey".into(), part(33..66).into());
        if key.len() > 66 {
            map.insert("leaf_hash".into(), part(66..98).into());
        }
        map.insert(name.into(), hex::encode(value).into());
        Value::Object(map)
    });
    shown.collect()
}

fn show_input(input: &Input, version: u32, network: Network) -> Value {
    let fields = &input.fields;
    let mut map = Map::new();
    if let Some(output) = input.witness_utxo() {
        let shown = json!({
            "amount": btc(output.value.to_sat().cast_signed()),
            "scriptPubKey": script::script_pub_key(&output.script_pubkey, network),
        });
        map.insert("witness_utxo".into(), shown);
    }
    if let Some(tx) = input.non_witness_utxo() {
        let shown = Value::Object(tx::to_json(&tx, network, None, false));
        map.insert("non_witness_utxo".into(), shown);
    }
    let signatures = fields.sorted_input(input::PARTIAL_SIG).into_iter();
    put(&mut map, "partial_signatures", by_hex(signatures));
    if let Some(kind) = input.sighash() {
        // Of what is written there, the lowest byte counts.
        let name = script::sighash_type((kind & 0xff) as u8).unwrap_or_default();
        map.insert("sighash".into(), name.into());
    }
    for (name, kind) in [
        ("redeem_script", input::REDEEM_SCRIPT),
        ("witness_script", input::WITNESS_SCRIPT),
    ] {
        let shown = fields
            .get(kind)
            .map_or(Value::Null, |bytes| bare_script(bytes, network));
        put(&mut map, name, shown);
    }
    put(&mut map, "bip32_derivs", origins(fields, input::BIP32_DERIVATION));
    if let Some(bytes) = fields.get(input::SCRIPT_SIG) {
        let asm = script::asm(&ScriptBuf::from_bytes(bytes.to_vec()), true);
        map.insert(
            "final_scriptSig".into(),
            json!({ "asm": asm, "hex": hex::encode(bytes) }),
        );
    }
    let witness: Vec<Value> = input
        .script_witness()
        .iter()
        .map(|item| hex::encode(item).into())
        .collect();
    put(&mut map, "final_scriptwitness", witness.into());
    for (name, kind) in [
        ("ripemd160_preimages", input::RIPEMD160),
        ("sha256_preimages", input::SHA256),
        ("hash160_preimages", input::HASH160),
        ("hash256_preimages", input::HASH256),
    ] {
        put(&mut map, name, by_hex(fields.all(kind)));
    }
    if version >= 2 {
        map.insert("previous_txid".into(), input.previous.txid.to_string().into());
        map.insert("previous_vout".into(), input.previous.vout.into());
        for (name, value) in [
            ("sequence", input.sequence),
            ("time_locktime", input.time_locktime),
            ("height_locktime", input.height_locktime),
        ] {
            put(&mut map, name, value.map_or(Value::Null, Value::from));
        }
    }
    put(&mut map, "taproot_key_path_sig", hex_of(fields.get(input::TAP_KEY_SIG)));
    let signatures = fields.all(input::TAP_SCRIPT_SIG).map(|(key, signature)| {
        let (key, leaf) = key.split_at(key.len().min(32));
        json!({ "pubkey": hex::encode(key), "leaf_hash": hex::encode(leaf), "sig": hex::encode(signature) })
    });
    put(&mut map, "taproot_script_path_sigs", signatures.collect());
    put(&mut map, "taproot_scripts", leaf_scripts(fields));
    put(
        &mut map,
        "taproot_bip32_derivs",
        tap_origins(fields, input::TAP_BIP32_DERIVATION),
    );
    put(
        &mut map,
        "taproot_internal_key",
        hex_of(fields.get(input::TAP_INTERNAL_KEY)),
    );
    put(
        &mut map,
        "taproot_merkle_root",
        hex_of(fields.get(input::TAP_MERKLE_ROOT)),
    );
    put(
        &mut map,
        "musig2_participant_pubkeys",
        participants(fields, input::MUSIG2_PARTICIPANTS),
    );
    let nonces = of_participants(fields, input::MUSIG2_PUB_NONCE, "pubnonce");
    put(&mut map, "musig2_pubnonces", nonces);
    let signatures = of_participants(fields, input::MUSIG2_PARTIAL_SIG, "partial_sig");
    put(&mut map, "musig2_partial_sigs", signatures);
    put(&mut map, "proprietary", proprietary(fields));
    put(&mut map, "unknown", by_hex(fields.unknown(Place::Input)));
    Value::Object(map)
}

/// Leaves with all their control blocks.
fn leaf_scripts(fields: &Fields) -> Value {
    let mut shown: Vec<Value> = Vec::new();
    let mut last: Option<&[u8]> = None;
    for (control, leaf) in fields.sorted_input(input::TAP_LEAF_SCRIPT) {
        let control = Value::from(hex::encode(control));
        let blocks = shown.last_mut().filter(|_| last == Some(leaf));
        match blocks
            .and_then(|leaf| leaf.get_mut("control_blocks"))
            .and_then(Value::as_array_mut)
        {
            Some(blocks) => blocks.push(control),
            None => {
                // No leaf is without its version.
                let (version, script) = leaf.split_last().unwrap_or((&0, &[]));
                shown.push(json!({ "script": hex::encode(script), "leaf_ver": version, "control_blocks": [control] }));
            }
        }
        last = Some(leaf);
    }
    shown.into()
}

fn show_output(output: &Output, version: u32, network: Network) -> Value {
    let fields = &output.fields;
    let mut map = Map::new();
    for (name, kind) in [
        ("redeem_script", output::REDEEM_SCRIPT),
        ("witness_script", output::WITNESS_SCRIPT),
    ] {
        let shown = fields
            .get(kind)
            .map_or(Value::Null, |bytes| bare_script(bytes, network));
        put(&mut map, name, shown);
    }
    put(&mut map, "bip32_derivs", origins(fields, output::BIP32_DERIVATION));
    if version >= 2 {
        map.insert("amount".into(), btc(output.amount));
        map.insert("script".into(), script::script_pub_key(&output.script, network));
    }
    put(
        &mut map,
        "taproot_internal_key",
        hex_of(fields.get(output::TAP_INTERNAL_KEY)),
    );
    let tree = fields
        .get(output::TAP_TREE)
        .and_then(|value| fields::tree_leaves(value).ok());
    let tree = tree
        .into_iter()
        .flatten()
        .map(|(depth, version, script)| json!({ "depth": depth, "leaf_ver": version, "script": hex::encode(script) }));
    put(&mut map, "taproot_tree", tree.collect());
    put(
        &mut map,
        "taproot_bip32_derivs",
        tap_origins(fields, output::TAP_BIP32_DERIVATION),
    );
    put(
        &mut map,
        "musig2_participant_pubkeys",
        participants(fields, output::MUSIG2_PARTICIPANTS),
    );
    put(&mut map, "proprietary", proprietary(fields));
    put(&mut map, "unknown", by_hex(fields.unknown(Place::Output)));
    Value::Object(map)
}
