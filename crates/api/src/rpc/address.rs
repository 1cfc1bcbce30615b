//! Addresses: what one says, and those of several keys.

use std::str::FromStr;

use bitcoin::address::{AddressType, NetworkUnchecked};
use bitcoin::script::Builder;
use bitcoin::{Address, PublicKey, ScriptBuf, WitnessProgram, opcodes};
use dunlin_chain::Network;
use serde_json::{Map, Value, json};

use super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError, TYPE_ERROR};
use super::method::{Answer, Call};
use super::params::mismatch;
use super::script::with_checksum;

/// The most keys of one multisig script.
const MAX_MULTISIG_KEYS: usize = 20;
/// The longest script that P2SH can spend.
const MAX_REDEEM_SCRIPT: usize = 520;

/// An address of this network.
pub(crate) fn address(text: &str, network: Network) -> Option<Address> {
    let address = Address::<NetworkUnchecked>::from_str(text).ok()?;
    address.require_network(network.to_bitcoin()).ok()
}

/// The letters before the separator of this network's segwit addresses.
fn human_part(network: Network) -> &'static str {
    match network {
        Network::Mainnet => "bc",
        Network::Regtest => "bcrt",
        Network::Testnet3 | Network::Testnet4 | Network::Signet => "tb",
    }
}

/// Why a text is no address here, in Core's words. Where a segwit address is wrong is not looked for.
fn fault(text: &str, network: Network) -> String {
    let human = human_part(network);
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with(human) {
        let main = network.to_bitcoin() == bitcoin::Network::Bitcoin;
        let own: [u8; 2] = if main { [0, 5] } else { [111, 196] };
        let known = bitcoin::base58::decode_check(text).ok();
        return match known {
            Some(data) if data.first().is_some_and(|prefix| own.contains(prefix)) => {
                "Invalid length for Base58 address (P2PKH or P2SH)"
            }
            Some(_) => "Invalid or unsupported Base58-encoded address.",
            None if bitcoin::base58::decode(text).is_ok() => {
                "Invalid checksum or length of Base58 address (P2PKH or P2SH)"
            }
            None => "Invalid or unsupported Segwit (Bech32) or Base58 encoding.",
        }
        .to_owned();
    }
    match lower.rsplit_once('1') {
        None | Some(("", _)) => "Missing separator".to_owned(),
        Some((prefix, _)) if prefix != human && Address::<NetworkUnchecked>::from_str(text).is_ok() => {
            format!("Invalid or unsupported prefix for Segwit (Bech32) address (expected {human}, got {prefix}).")
        }
        Some(_) => "Invalid Bech32 checksum".to_owned(),
    }
}

pub(crate) fn validateaddress(call: &Call) -> Answer {
    let network = call.shared.node.network;
    let text = call.str(0)?;
    let Some(address) = address(text, network) else {
        return Ok(json!({ "isvalid": false, "error_locations": [], "error": fault(text, network) }));
    };
    let script = address.script_pubkey();
    let mut map = Map::new();
    map.insert("isvalid".into(), true.into());
    map.insert("address".into(), address.to_string().into());
    map.insert("scriptPubKey".into(), hex::encode(script.as_bytes()).into());
    let is_script = match address.address_type() {
        Some(AddressType::P2pkh | AddressType::P2wpkh) => Some(false),
        Some(_) => Some(true),
        None => None,
    };
    if let Some(is_script) = is_script {
        map.insert("isscript".into(), is_script.into());
    }
    let program = address.witness_program();
    map.insert("iswitness".into(), program.is_some().into());
    // An anchor is a program that says no more.
    let plain = |program: &WitnessProgram| !program.is_p2a();
    if let Some(program) = program.filter(plain) {
        map.insert("witness_version".into(), program.version().to_num().into());
        let bytes = hex::encode(program.program().as_bytes());
        map.insert("witness_program".into(), bytes.into());
    }
    Ok(Value::Object(map))
}

fn public_key(value: &Value) -> Result<PublicKey, RpcError> {
    let text = value
        .as_str()
        .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(value, "string")))?;
    let wrong = |how: &str| RpcError::new(INVALID_ADDRESS_OR_KEY, format!("Pubkey \"{text}\" must {how}"));
    let bytes = hex::decode(text).map_err(|_| wrong("be a hex string"))?;
    if ![33, 65].contains(&bytes.len()) {
        return Err(wrong("have a length of either 33 or 65 bytes"));
    }
    PublicKey::from_slice(&bytes).map_err(|_| wrong("be cryptographically valid."))
}

/// The script that `required` of these keys can spend.
fn multisig_script(required: i32, keys: &[PublicKey]) -> Result<ScriptBuf, RpcError> {
    let invalid = |text: String| Err(RpcError::new(INVALID_PARAMETER, text));
    let least = match usize::try_from(required) {
        Ok(least) if least > 0 => least,
        _ => return invalid("a multisignature address must require at least one key to redeem".to_owned()),
    };
    if keys.len() < least {
        return invalid(format!(
            "not enough keys supplied (got {} keys, but need at least {required} to redeem)",
            keys.len()
        ));
    }
    if keys.len() > MAX_MULTISIG_KEYS {
        return invalid(format!(
            "Number of keys involved in the multisignature address creation > {MAX_MULTISIG_KEYS}\nReduce the number"
        ));
    }
    let mut builder = Builder::new().push_int(required.into());
    for key in keys {
        builder = builder.push_key(key);
    }
    // At most twenty.
    let script = builder
        .push_int(keys.len() as i64)
        .push_opcode(opcodes::all::OP_CHECKMULTISIG)
        .into_script();
    if script.len() > MAX_REDEEM_SCRIPT {
        return invalid(format!(
            "redeemScript exceeds size limit: {} > {MAX_REDEEM_SCRIPT}",
            script.len()
        ));
    }
    Ok(script)
}

pub(crate) fn createmultisig(call: &Call) -> Answer {
    let required: i32 = call.int(0)?;
    let keys: Vec<PublicKey> = call.list(1)?.iter().map(public_key).collect::<Result<_, _>>()?;
    let kind = call.opt_str(2)?.unwrap_or("legacy");
    let wrong_kind = |text: String| Err(RpcError::new(INVALID_ADDRESS_OR_KEY, text));
    match kind {
        "legacy" | "p2sh-segwit" | "bech32" => {}
        "bech32m" => return wrong_kind("createmultisig cannot create bech32m multisig addresses".to_owned()),
        other => return wrong_kind(format!("Unknown address type '{other}'")),
    }
    let script = multisig_script(required, &keys)?;
    let names: Vec<String> = keys.iter().map(PublicKey::to_string).collect();
    let inner = format!("multi({required},{})", names.join(","));
    // Witness scripts take compressed keys only.
    let possible = if keys.iter().all(|key| key.compressed) {
        kind
    } else {
        "legacy"
    };
    let (output, descriptor) = match possible {
        "bech32" => (script.to_p2wsh(), format!("wsh({inner})")),
        "p2sh-segwit" => (script.to_p2wsh().to_p2sh(), format!("sh(wsh({inner}))")),
        _ => (script.to_p2sh(), format!("sh({inner})")),
    };
    let network = call.shared.node.network.to_bitcoin();
    let address = Address::from_script(&output, network).map(|address| address.to_string());
    let mut map = Map::new();
    map.insert("address".into(), address.unwrap_or_default().into());
    map.insert("redeemScript".into(), hex::encode(script.as_bytes()).into());
    map.insert("descriptor".into(), with_checksum(&descriptor).into());
    if possible != kind {
        let text = "Unable to make chosen address type, please ensure no uncompressed public keys are present.";
        map.insert("warnings".into(), json!([text]));
    }
    Ok(Value::Object(map))
}
