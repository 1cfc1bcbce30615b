//! `signrawtransactionwithkey` and `combinerawtransaction`: transactions signed without a PSBT.

use std::collections::BTreeMap;

use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use serde_json::{Map, Value, json};

use super::chain::store_error;
use super::coins_at_tip::unspent;
use super::error::{
    DESERIALIZATION_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError, TYPE_ERROR, VERIFY_ERROR,
};
use super::message::private_key;
use super::method::{Answer, Call};
use super::params::{MAX_MONEY, amount, int, parse_hash, text, type_name};
use super::script::{Kind, asm, classify};
use super::sign::Known;
use super::sign::creator::{ALL, Creator, DEFAULT, Spend};
use super::sign::provider::Provider;
use super::tx;

/// What is written when nobody told what an output is worth.
const UNTOLD: Amount = Amount::from_sat(MAX_MONEY);
/// `SIGHASH_SINGLE`, and the bit of `SIGHASH_ANYONECANPAY`.
const SINGLE: u8 = 3;
const ANYONE_CAN_PAY: u8 = 0x80;

/// The type of signature that an argument names, where given.
pub(crate) fn sighash(call: &Call, position: usize) -> Result<Option<u8>, RpcError> {
    let Some(name) = call.opt_str(position)? else {
        return Ok(None);
    };
    match name {
        "DEFAULT" => Ok(Some(DEFAULT)),
        _ => {
            let known = [1, 2, SINGLE]
                .into_iter()
                .flat_map(|kind| [kind, kind | ANYONE_CAN_PAY]);
            let mut known = known.filter(|kind| super::script::sighash_type(*kind) == Some(name));
            let unknown = || {
                let text = format!("'{name}' is not a valid sighash parameter.");
                RpcError::new(INVALID_PARAMETER, text)
            };
            known.next().map(Some).ok_or_else(unknown)
        }
    }
}

pub(crate) fn signrawtransactionwithkey(call: &Call) -> Answer {
    let failed = || {
        let text = "TX decode failed. Make sure the tx has at least one input.";
        RpcError::new(DESERIALIZATION_ERROR, text)
    };
    let mut tx = tx::from_hex_as(call.str(0)?, false, true).ok_or_else(failed)?;
    let mut provider = Provider::default();
    for key in call.list(1)? {
        let invalid = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Invalid private key");
        provider.add_key(private_key(text(key)?, call.shared.node.network).ok_or_else(invalid)?);
    }
    let bitcoin = call.bitcoin()?;
    let mut coins: BTreeMap<OutPoint, TxOut> = BTreeMap::new();
    for input in &tx.input {
        if let Some(output) = unspent(&*bitcoin, &input.previous_output).map_err(store_error)? {
            coins.insert(input.previous_output, output);
        }
    }
    if call.given(2) {
        for told in call.list(2)? {
            learn_output(told, &mut coins, &mut provider)?;
        }
    }
    let kind = sighash(call, 3)?.unwrap_or(DEFAULT);
    let errors = sign(&mut tx, &coins, &provider, kind)?;
    let mut map = Map::new();
    map.insert("hex".into(), tx::to_hex(&tx).into());
    map.insert("complete".into(), errors.is_empty().into());
    if !errors.is_empty() {
        map.insert("errors".into(), errors.into());
    }
    Ok(Value::Object(map))
}

/// Signs what can be signed; returns what is wrong with the inputs that are not.
fn sign(
    tx: &mut Transaction,
    coins: &BTreeMap<OutPoint, TxOut>,
    provider: &Provider,
    sighash: u8,
) -> Result<Vec<Value>, RpcError> {
    let before = tx.clone();
    let spent: Option<Vec<TxOut>> = before
        .input
        .iter()
        .map(|input| coins.get(&input.previous_output).cloned())
        .collect();
    let outputs = before.output.len();
    let mut errors = Vec::new();
    for (index, input) in tx.input.iter_mut().enumerate() {
        let Some(output) = coins.get(&input.previous_output) else {
            errors.push(error_json(input, "Input not found or already spent"));
            continue;
        };
        let mut known = Known::from_input(&before, index, output);
        let spend = Spend {
            tx: &before,
            index,
            output,
            spent: spent.as_deref(),
            sighash,
        };
        let creator = Creator::Real(spend);
        // A signature over the output of this number needs that there is one.
        if sighash & !ANYONE_CAN_PAY != SINGLE || index < outputs {
            known.produce(provider, &creator, &output.script_pubkey);
        }
        input.script_sig = known.script_sig.clone();
        input.witness = known.script_witness.clone();
        if output.value == UNTOLD && !input.witness.is_empty() {
            let script: String = hex::encode(&output.script_pubkey).chars().take(30).collect();
            let (whole, rest) = (UNTOLD.to_sat() / 100_000_000, UNTOLD.to_sat() % 100_000_000);
            let output = format!("CTxOut(nValue={whole}.{rest:08}, scriptPubKey={script})");
            return Err(RpcError::new(TYPE_ERROR, format!("Missing amount for {output}")));
        }
        if !known.complete && !creator.verifies(&input.script_sig, &input.witness) {
            errors.push(error_json(input, failure(&output.script_pubkey, input)));
        }
    }
    Ok(errors)
}

fn error_json(input: &TxIn, text: &str) -> Value {
    json!({
        "txid": input.previous_output.txid.to_string(),
        "vout": input.previous_output.vout,
        "witness": input.witness.iter().map(hex::encode).collect::<Vec<_>>(),
        "scriptSig": hex::encode(&input.script_sig),
        "sequence": input.sequence.0,
        "error": text,
    })
}

/// Why an input does not satisfy a script: what the interpreter would say first. It is asked only for yes or no, so the
/// reason is told from what is there.
fn failure(script: &Script, input: &TxIn) -> &'static str {
    const MISSING: &str = "Unable to sign input, invalid stack size (possibly missing key)";
    const MORE: &str = "CHECK(MULTI)SIG failing with non-zero signature (possibly need more signatures)";
    const FALSE: &str = "Script evaluated without error but finished with a false/empty top stack element";
    let stack = Known::stack_of(&input.script_sig);
    let witness: Vec<Vec<u8>> = input.witness.iter().map(<[u8]>::to_vec).collect();
    let plain = |script: &Script, items: &[Vec<u8>]| match classify(script) {
        Kind::Multisig(required, _) if items.len() <= usize::from(required) => MISSING,
        Kind::Multisig(..) if items.iter().all(Vec::is_empty) => FALSE,
        Kind::Multisig(..) => MORE,
        Kind::PubKey(_) | Kind::PubKeyHash if !items.is_empty() => MORE,
        _ => MISSING,
    };
    let program = |kind: &Kind<'_>| match (kind, witness.split_last()) {
        (Kind::WitnessV0KeyHash, Some((_, [_]))) => MORE,
        (Kind::WitnessV0KeyHash, _) => "Witness program hash mismatch",
        (_, None) => "Witness program was passed an empty witness",
        (Kind::Taproot(_), Some(_)) => "Invalid Schnorr signature",
        (_, Some((script, items))) => plain(Script::from_bytes(script), items),
    };
    let is_program = |kind: &Kind<'_>| {
        matches!(
            kind,
            Kind::WitnessV0KeyHash | Kind::WitnessV0ScriptHash | Kind::Taproot(_)
        )
    };
    match (classify(script), stack.split_last()) {
        (kind, _) if is_program(&kind) => program(&kind),
        (Kind::ScriptHash, Some((redeem, items))) => {
            let redeem = Script::from_bytes(redeem);
            let kind = classify(redeem);
            if is_program(&kind) {
                program(&kind)
            } else {
                plain(redeem, items)
            }
        }
        _ => plain(script, &stack),
    }
}

/// Takes in an output that the caller tells, with the scripts that spend it.
fn learn_output(told: &Value, coins: &mut BTreeMap<OutPoint, TxOut>, provider: &mut Provider) -> Result<(), RpcError> {
    let malformed = |text: &str| RpcError::new(DESERIALIZATION_ERROR, text);
    let invalid = |text: &str| RpcError::new(INVALID_PARAMETER, text);
    let Value::Object(map) = told else {
        return Err(malformed("expected object with {\"txid'\",\"vout\",\"scriptPubKey\"}"));
    };
    let script_hex = field(map, "scriptPubKey", "string")?;
    let txid = field(map, "txid", "string")?;
    let vout = field(map, "vout", "number")?;
    let txid = parse_hash::<Txid>(text(txid)?, "txid")?;
    let vout: i32 = int(vout)?;
    let vout = u32::try_from(vout).map_err(|_| malformed("vout cannot be negative"))?;
    let script = script_from(script_hex, "scriptPubKey")?;
    let outpoint = OutPoint { txid, vout };
    if let Some(known) = coins.get(&outpoint).filter(|known| known.script_pubkey != script) {
        let (ours, theirs) = (asm(&known.script_pubkey, false), asm(&script, false));
        return Err(malformed(&format!(
            "Previous output scriptPubKey mismatch:\n{ours}\nvs:\n{theirs}"
        )));
    }
    let value = map
        .get("amount")
        .map_or(Ok(UNTOLD), |told| amount(told).map(Amount::from_sat))?;
    let output = TxOut {
        value,
        script_pubkey: script.clone(),
    };
    coins.insert(outpoint, output);
    if !script.is_p2sh() && !script.is_p2wsh() {
        return Ok(());
    }
    for name in ["redeemScript", "witnessScript"] {
        if map.get(name).is_some_and(|value| !value.is_null()) {
            field(map, name, "string")?;
        }
    }
    let given = |name: &str| map.get(name).filter(|value| !value.is_null());
    let (redeem, witness) = (given("redeemScript"), given("witnessScript"));
    let inner = match (witness, redeem) {
        (Some(script), _) => script_from(script, "witnessScript")?,
        (None, Some(script)) => script_from(script, "redeemScript")?,
        (None, None) => return Err(invalid("Missing redeemScript/witnessScript")),
    };
    let wrapped = inner.to_p2wsh();
    provider.add_script(inner.clone());
    provider.add_script(wrapped.clone());
    if let (Some(witness), Some(redeem)) = (witness, redeem)
        && witness != redeem
        && script_from(redeem, "redeemScript")? != wrapped
    {
        return Err(invalid("redeemScript does not correspond to witnessScript"));
    }
    let fits = match script.is_p2sh() {
        true => script == inner.to_p2sh() || script == wrapped.to_p2sh(),
        false => script == wrapped,
    };
    match fits {
        true => Ok(()),
        false => Err(invalid("redeemScript/witnessScript does not match scriptPubKey")),
    }
}

/// A field of an object, of this JSON type.
fn field<'a>(map: &'a Map<String, Value>, name: &str, expected: &str) -> Result<&'a Value, RpcError> {
    let value = map.get(name).filter(|value| !value.is_null());
    let value = value.ok_or_else(|| RpcError::new(TYPE_ERROR, format!("Missing {name}")))?;
    match type_name(value) {
        found if found == expected => Ok(value),
        found => {
            let text = format!("JSON value of type {found} for field {name} is not of expected type {expected}");
            Err(RpcError::new(TYPE_ERROR, text))
        }
    }
}

fn script_from(value: &Value, name: &str) -> Result<ScriptBuf, RpcError> {
    let hex = text(value)?;
    let not_hex = || {
        let text = format!("{name} must be hexadecimal string (not '{hex}')");
        RpcError::new(INVALID_PARAMETER, text)
    };
    let bytes = Some(hex)
        .filter(|hex| !hex.is_empty())
        .and_then(|hex| hex::decode(hex).ok());
    bytes.map(ScriptBuf::from_bytes).ok_or_else(not_hex)
}

pub(crate) fn combinerawtransaction(call: &Call) -> Answer {
    let list = call.list(0)?;
    if list.len() < 2 {
        let text = "Missing transactions. At least two transactions required.";
        return Err(RpcError::new(DESERIALIZATION_ERROR, text));
    }
    let mut variants = Vec::new();
    for (index, hex) in list.iter().enumerate() {
        let failed = || {
            let text = format!("TX decode failed for tx {index}. Make sure the tx has at least one input.");
            RpcError::new(DESERIALIZATION_ERROR, text)
        };
        variants.push(tx::from_hex_as(text(hex)?, false, true).ok_or_else(failed)?);
    }
    let bare = |tx: &Transaction| {
        let mut tx = tx.clone();
        for input in &mut tx.input {
            input.script_sig = ScriptBuf::new();
        }
        tx.compute_txid()
    };
    let Some(first) = variants.first() else {
        return Ok(Value::Null);
    };
    if let Some(other) = variants.iter().position(|tx| bare(tx) != bare(first)) {
        let text = format!("Transaction number {} not compatible with first transaction", other + 1);
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    let bitcoin = call.bitcoin()?;
    let mut merged = first.clone();
    for (index, input) in merged.input.iter_mut().enumerate() {
        let output = unspent(&*bitcoin, &input.previous_output).map_err(store_error)?;
        let output = output.ok_or_else(|| RpcError::new(VERIFY_ERROR, "Input not found or already spent"))?;
        let mut known = Known::default();
        for variant in &variants {
            known.merge(Known::from_input(variant, index, &output));
        }
        let spend = Spend {
            tx: first,
            index,
            output: &output,
            spent: None,
            sighash: ALL,
        };
        known.produce(&Provider::default(), &Creator::Real(spend), &output.script_pubkey);
        input.script_sig = known.script_sig;
        input.witness = known.script_witness;
    }
    Ok(tx::to_hex(&merged).into())
}
