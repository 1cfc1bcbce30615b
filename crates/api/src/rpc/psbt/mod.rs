//! The methods about partially signed transactions (BIPs 174, 370, 371).

mod analyze;
mod json;
mod sign;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bitcoin::consensus::encode::serialize;
use bitcoin::{ScriptBuf, Transaction};
use dunlin_chain::indexes::IndexKind;
use rand::seq::SliceRandom;
use serde_json::{Map, Value};

use super::chain::store_error;
use super::coins_at_tip::unspent;
use super::error::{DESERIALIZATION_ERROR, INVALID_PARAMETER, RpcError, VERIFY_ERROR};
use super::index::PATIENCE;
use super::method::{Answer, Call};
use super::sign::provider::Provider;
use super::{create_tx, raw_tx, tx, with_pool};
use crate::psbt::fields::input;
use crate::psbt::{Input, Psbt};
use sign::{How, Unsigned, Whole};

/// Core's base64: four characters at a time, as many equals signs as it takes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMETER, text)
}

fn decode(text: &str) -> Result<Psbt, RpcError> {
    let failed = |why: &str| RpcError::new(DESERIALIZATION_ERROR, format!("TX decode failed {why}"));
    let bytes = BASE64.decode(text).map_err(|_| failed("invalid base64"))?;
    // Core's streams say of themselves that they are such.
    let (psbt, rest) = Psbt::read(&bytes).map_err(|error| failed(&format!("{error}: iostream error")))?;
    match rest.is_empty() {
        true => Ok(psbt),
        false => Err(failed("extra data after PSBT")),
    }
}

fn encode(psbt: &Psbt) -> Value {
    BASE64.encode(psbt.write()).into()
}

/// The PSBTs of a list.
fn decode_all(list: &[Value]) -> Result<Vec<Psbt>, RpcError> {
    list.iter().map(|text| decode(super::params::text(text)?)).collect()
}

fn version_wanted(call: &Call, position: usize) -> Result<u32, RpcError> {
    match call.int_or(position, 2)? {
        version @ (0 | 2) => Ok(version),
        _ => Err(invalid("The PSBT version can only be 2 or 0")),
    }
}

pub(crate) fn createpsbt(call: &Call) -> Answer {
    let tx = create_tx::construct(call)?;
    Ok(encode(&Psbt::of(&tx, version_wanted(call, 5)?)))
}

pub(crate) fn converttopsbt(call: &Call) -> Answer {
    let forms = match call.given(2) {
        false => (true, true),
        true => {
            let witness = call.bool_or(2, true)?;
            (!witness, witness)
        }
    };
    let failed = |text: &str| RpcError::new(DESERIALIZATION_ERROR, text);
    let mut tx = tx::from_hex_as(call.str(0)?, forms.0, forms.1).ok_or_else(|| failed("TX decode failed"))?;
    let discard = call.bool_or(1, false)?;
    for input in &mut tx.input {
        if !discard && (!input.script_sig.is_empty() || !input.witness.is_empty()) {
            return Err(failed("Inputs must not have scriptSigs and scriptWitnesses"));
        }
        input.script_sig = ScriptBuf::new();
        input.witness.clear();
    }
    Ok(encode(&Psbt::of(&tx, version_wanted(call, 3)?)))
}

pub(crate) fn decodepsbt(call: &Call) -> Answer {
    Ok(json::show(&decode(call.str(0)?)?, call.shared.node.network))
}

pub(crate) fn analyzepsbt(call: &Call) -> Answer {
    Ok(analyze::analyze(decode(call.str(0)?)?))
}

pub(crate) fn combinepsbt(call: &Call) -> Answer {
    let list = call.list(0)?;
    if list.is_empty() {
        return Err(invalid("Parameter 'txs' cannot be empty"));
    }
    let mut all = decode_all(list)?.into_iter();
    let mut whole = all.next().ok_or_else(|| invalid("Parameter 'txs' cannot be empty"))?;
    match all.all(|other| whole.merge(&other)) {
        true => Ok(encode(&whole)),
        false => Err(invalid("PSBTs not compatible (different transactions)")),
    }
}

pub(crate) fn finalizepsbt(call: &Call) -> Answer {
    let mut psbt = decode(call.str(0)?)?;
    let extract = call.bool_or(1, true)?;
    let tx = sign::finalize(&mut psbt);
    let mut map = Map::new();
    match tx.as_ref().filter(|_| extract) {
        Some(tx) => map.insert("hex".into(), tx::to_wire_hex(tx).into()),
        None => map.insert("psbt".into(), encode(&psbt)),
    };
    map.insert("complete".into(), tx.is_some().into());
    Ok(Value::Object(map))
}

pub(crate) fn joinpsbts(call: &Call) -> Answer {
    let list = call.list(0)?;
    if list.len() <= 1 {
        return Err(invalid("At least two PSBTs are required to join PSBTs."));
    }
    let mut all = Vec::new();
    for text in list {
        let psbt = decode(super::params::text(text)?)?;
        if psbt.version != 0 {
            return Err(invalid("joinpsbts only operates on version 0 PSBTs"));
        }
        all.push(psbt);
    }
    let lock_times = all.iter().map(|psbt| psbt.fallback_locktime.unwrap_or(0));
    let blank = Transaction {
        version: bitcoin::transaction::Version(1),
        lock_time: bitcoin::absolute::LockTime::from_consensus(lock_times.min().unwrap_or(0)),
        input: Vec::new(),
        output: Vec::new(),
    };
    let mut joined = Psbt::of(&blank, 0);
    for psbt in &all {
        joined.tx_version = joined.tx_version.max(psbt.tx_version);
        for input in &psbt.inputs {
            if !joined.join_input(input) {
                let (txid, vout) = (input.previous.txid, input.previous.vout);
                return Err(invalid(format!("Input {txid}:{vout} exists in multiple PSBTs")));
            }
        }
        joined.outputs.extend(psbt.outputs.iter().cloned());
        joined.fields.take_unknown(&psbt.fields);
    }
    let mut chance = rand::rng();
    joined.inputs.shuffle(&mut chance);
    joined.outputs.shuffle(&mut chance);
    Ok(encode(&joined))
}

pub(crate) fn utxoupdatepsbt(call: &Call) -> Answer {
    let descriptors = if call.given(1) { call.list(1)? } else { &[] };
    let provider = Provider::from_descriptors(descriptors, call.shared.node.network, false)?;
    Ok(encode(&process(call, &provider, How::default())?))
}

pub(crate) fn descriptorprocesspsbt(call: &Call) -> Answer {
    let mut provider = Provider::from_descriptors(call.list(1)?, call.shared.node.network, true)?;
    let sighash = super::sign_tx::sighash(call, 2)?;
    if !call.bool_or(3, true)? {
        provider.origins.clear();
    }
    let how = How {
        sighash,
        finalize: call.bool_or(4, true)?,
        dummy: false,
    };
    let mut psbt = process(call, &provider, how)?;
    let complete = psbt.inputs.iter().all(Input::is_final);
    let mut map = Map::new();
    map.insert("psbt".into(), encode(&psbt));
    map.insert("complete".into(), complete.into());
    if complete && let Some(tx) = sign::finalize(&mut psbt) {
        map.insert("hex".into(), tx::to_wire_hex(&tx).into());
    }
    Ok(Value::Object(map))
}

/// Adds to a PSBT what the node knows of the outputs spent and what a provider knows of their scripts, and signs.
fn process(call: &Call, provider: &Provider, how: How) -> Result<Psbt, RpcError> {
    let mut psbt = decode(call.str(0)?)?;
    let bitcoin = call.bitcoin()?;
    let (view, indexes) = (bitcoin.view(), bitcoin.indexes());
    if indexes.tx().is_some() {
        indexes.wait_synced(&view, IndexKind::Tx, PATIENCE);
    }
    for input in &mut psbt.inputs {
        if input.non_witness_utxo().is_some() {
            continue;
        }
        let txid = input.previous.txid;
        let pooled = || with_pool(&*bitcoin, |pool| pool.get(&txid)).map(|tx| (*tx).clone());
        if let Some(tx) = raw_tx::indexed(&view, &indexes, &txid)?.or_else(pooled) {
            // One that lacks the output would make no PSBT.
            if crate::psbt::output_of(&tx, &input.previous).is_some() {
                input.fields.set(input::NON_WITNESS_UTXO, &[], serialize(&tx));
            }
        } else if let Some(output) = unspent(&*bitcoin, &input.previous).map_err(store_error)?
            && provider.is_segwit(&output.script_pubkey)
        {
            input.set_witness_utxo(&output);
        }
    }
    let invalid_tx = || RpcError::new(VERIFY_ERROR, "The transaction cannot be valid");
    let whole = Whole::of(&psbt).ok_or_else(invalid_tx)?;
    for (index, input) in psbt.inputs.iter_mut().enumerate() {
        if input.is_final() {
            continue;
        }
        if sign::sign(input, &whole, index, provider, how).0 == Err(Unsigned::Sighash) {
            let text = "Specified sighash value does not match value stored in PSBT";
            return Err(RpcError::new(DESERIALIZATION_ERROR, text));
        }
    }
    for output in &mut psbt.outputs {
        sign::update_output(output, &whole, provider);
    }
    sign::drop_needless_transactions(&mut psbt);
    Ok(psbt)
}
