//! Transactions made and read by hand: `createrawtransaction`, `decoderawtransaction`, `decodescript`.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use dunlin_chain::Network;
use serde_json::Value;

use super::address::address;
use super::error::{DESERIALIZATION_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};
use super::params::{amount, int, mismatch, parse_hash};
use super::wrap::wrapping;
use super::{script, tx};

/// Versions that pass for standard.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMETER, text)
}

/// A transaction from the arguments of `createrawtransaction`: inputs, outputs, locktime, replaceable, version.
pub(crate) fn construct(call: &Call) -> Result<Transaction, RpcError> {
    let network = call.shared.node.network;
    let locktime: i64 = call.int_or(2, 0)?;
    let locktime = u32::try_from(locktime).map_err(|_| invalid("Invalid parameter, locktime out of range"))?;
    let replaceable = call.given(3).then(|| call.bool_or(3, true)).transpose()?;
    let version: u32 = call.int_or(4, 2)?;
    if !VERSIONS.contains(&version) {
        let (low, high) = VERSIONS.into_inner();
        return Err(invalid(format!(
            "Invalid parameter, version out of range({low}~{high})"
        )));
    }
    let sequence = match (replaceable.unwrap_or(true), locktime) {
        (true, _) => Sequence::ENABLE_RBF_NO_LOCKTIME,
        (false, 0) => Sequence::MAX,
        (false, _) => Sequence::ENABLE_LOCKTIME_NO_RBF,
    };
    let inputs = match call.given(0) {
        true => call
            .list(0)?
            .iter()
            .map(|value| input(value, sequence))
            .collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    let tx = Transaction {
        // At most three.
        version: Version::non_standard(version as i32),
        lock_time: LockTime::from_consensus(locktime),
        input: inputs,
        output: outputs(call.arg(1), network)?,
    };
    if replaceable == Some(true) && !tx.input.is_empty() && !tx.is_explicitly_rbf() {
        let text = "Invalid parameter combination: Sequence number(s) contradict replaceable option";
        return Err(invalid(text));
    }
    Ok(tx)
}

fn input(value: &Value, sequence: Sequence) -> Result<TxIn, RpcError> {
    let Value::Object(map) = value else {
        return Err(RpcError::new(TYPE_ERROR, mismatch(value, "object")));
    };
    let txid = match map.get("txid") {
        Some(Value::String(text)) => parse_hash::<Txid>(text, "txid")?,
        other => {
            return Err(RpcError::new(
                TYPE_ERROR,
                mismatch(other.unwrap_or(&Value::Null), "string"),
            ));
        }
    };
    let vout = map.get("vout").filter(|vout| vout.is_number());
    let vout: i32 = int(vout.ok_or_else(|| invalid("Invalid parameter, missing vout key"))?)?;
    let vout = u32::try_from(vout).map_err(|_| invalid("Invalid parameter, vout cannot be negative"))?;
    let sequence = match map.get("sequence") {
        Some(number @ Value::Number(_)) => {
            let number: i64 = int(number)?;
            let out = |_| invalid("Invalid parameter, sequence number is out of range");
            Sequence(u32::try_from(number).map_err(out)?)
        }
        _ => sequence,
    };
    Ok(TxIn {
        previous_output: OutPoint { txid, vout },
        script_sig: ScriptBuf::new(),
        sequence,
        witness: Witness::new(),
    })
}

/// Outputs from an object of addresses and amounts, or from a list of such with one each; `data` makes one that holds
/// data.
fn outputs(value: &Value, network: Network) -> Result<Vec<TxOut>, RpcError> {
    let pairs: Vec<(&String, &Value)> = match value {
        Value::Null => return Err(invalid("Invalid parameter, output argument must be non-null")),
        Value::Object(map) => map.iter().collect(),
        Value::Array(list) => {
            let mut pairs = Vec::new();
            for item in list {
                let Value::Object(map) = item else {
                    return Err(invalid("Invalid parameter, key-value pair not an object as expected"));
                };
                if map.len() != 1 {
                    let text = "Invalid parameter, key-value pair must contain exactly one key";
                    return Err(invalid(text));
                }
                pairs.extend(map);
            }
            pairs
        }
        other => return Err(RpcError::new(TYPE_ERROR, mismatch(other, "array"))),
    };
    let mut seen = BTreeSet::new();
    let mut outputs = Vec::new();
    for (name, value) in pairs {
        if name == "data" {
            if !seen.insert(ScriptBuf::new()) {
                return Err(invalid("Invalid parameter, duplicate key: data"));
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let not_hex = || invalid(format!("Data must be hexadecimal string (not '{text}')"));
            let data = hex::decode(&text)
                .ok()
                .filter(|data| !data.is_empty())
                .ok_or_else(not_hex)?;
            let data = PushBytesBuf::try_from(data).map_err(|_| not_hex())?;
            outputs.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::new_op_return(data),
            });
            continue;
        }
        let satoshi = amount(value)?;
        let unknown = || RpcError::new(INVALID_ADDRESS_OR_KEY, format!("Invalid Bitcoin address: {name}"));
        let script_pubkey = address(name, network).ok_or_else(unknown)?.script_pubkey();
        if !seen.insert(script_pubkey.clone()) {
            return Err(invalid(format!("Invalid parameter, duplicated address: {name}")));
        }
        outputs.push(TxOut {
            value: Amount::from_sat(satoshi),
            script_pubkey,
        });
    }
    Ok(outputs)
}

pub(crate) fn createrawtransaction(call: &Call) -> Answer {
    Ok(tx::to_wire_hex(&construct(call)?).into())
}

pub(crate) fn decoderawtransaction(call: &Call) -> Answer {
    let forms = match call.arg(1) {
        Value::Null => (true, true),
        _ => {
            let witness = call.bool_or(1, true)?;
            (!witness, witness)
        }
    };
    let failed = || RpcError::new(DESERIALIZATION_ERROR, "TX decode failed");
    let tx = tx::from_hex_as(call.str(0)?, forms.0, forms.1).ok_or_else(failed)?;
    let map = tx::to_json(&tx, call.shared.node.network, None, false);
    Ok(Value::Object(map))
}

pub(crate) fn decodescript(call: &Call) -> Answer {
    let network = call.shared.node.network;
    let text = call.str(0)?;
    let not_hex = || invalid(format!("argument must be hexadecimal string (not '{text}')"));
    let script = ScriptBuf::from_bytes(match text {
        "" => Vec::new(),
        text => hex::decode(text).map_err(|_| not_hex())?,
    });
    let without_hex = |script: &ScriptBuf| {
        let mut shown = script::script_pub_key(script, network);
        if let Value::Object(map) = &mut shown {
            map.shift_remove("hex");
        }
        shown
    };
    let Value::Object(mut map) = without_hex(&script) else {
        return Ok(Value::Null);
    };
    let kind = wrapping(&script);
    let show_address = |script: &ScriptBuf| -> Value {
        let address = Address::from_script(script, network.to_bitcoin());
        address.map_or(Value::Null, |address| address.to_string().into())
    };
    if kind.in_p2sh {
        map.insert("p2sh".into(), show_address(&script.to_p2sh()));
        if let Some(inner) = kind.in_segwit {
            let Value::Object(mut shown) = script::script_pub_key(&inner, network) else {
                return Ok(Value::Null);
            };
            if let Some(descriptor) = kind.descriptor {
                shown.insert("desc".into(), descriptor.into());
            }
            shown.insert("p2sh-segwit".into(), show_address(&inner.to_p2sh()));
            map.insert("segwit".into(), Value::Object(shown));
        }
    }
    Ok(Value::Object(map))
}

/// The script that pays to a key's hash in a witness.
pub(crate) fn p2wpkh(key: &[u8]) -> Option<ScriptBuf> {
    let key = PublicKey::from_slice(key).ok()?;
    Some(ScriptBuf::new_p2wpkh(&key.wpubkey_hash().ok()?))
}

/// The script with which P2PKH of this hash is wrapped in a witness.
pub(crate) fn p2wpkh_of_hash(hash: &[u8]) -> Option<ScriptBuf> {
    let hash = PushBytesBuf::try_from(hash.to_vec()).ok()?;
    Some(Builder::new().push_int(0).push_slice(hash).into_script())
}
