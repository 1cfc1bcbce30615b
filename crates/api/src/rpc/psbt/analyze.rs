//! `analyzepsbt`: what each input still needs, who is next, and what the transaction will come to.

use serde_json::{Map, Value};

use super::sign::{How, Whole, sign};
use crate::psbt::Psbt;
use crate::rpc::json::btc;
use crate::rpc::params::MAX_MONEY;
use crate::rpc::script::is_unspendable;
use crate::rpc::sign::Missing;
use crate::rpc::sign::provider::Provider;

/// Virtual bytes that each signature operation counts as, at least.
const BYTES_PER_SIGOP: u64 = 20;

/// Who acts next, in the order of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Creator,
    Updater,
    Signer,
    Finalizer,
    Extractor,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Creator => "creator",
            Self::Updater => "updater",
            Self::Signer => "signer",
            Self::Finalizer => "finalizer",
            Self::Extractor => "extractor",
        }
    }
}

fn invalid(text: &str) -> Value {
    let mut map = Map::new();
    map.insert("next".into(), Role::Creator.name().into());
    map.insert("error".into(), text.into());
    Value::Object(map)
}

fn sum(values: impl Iterator<Item = i64>) -> Option<i64> {
    let in_range = |value: &i64| (0..=MAX_MONEY.cast_signed()).contains(value);
    values
        .map(|value| Some(value).filter(in_range))
        .try_fold(0i64, |sum, value| sum.checked_add(value?).filter(in_range))
}

/// The answer for a PSBT.
pub(super) fn analyze(mut psbt: Psbt) -> Value {
    let Some(whole) = Whole::of(&psbt) else {
        return invalid("PSBT cannot be made into a valid transaction");
    };
    let nobody = Provider::default();
    let (mut inputs, mut next) = (Vec::new(), Role::Extractor);
    let mut spent = Some(Vec::new());
    for (index, input) in psbt.inputs.iter_mut().enumerate() {
        let utxo = input.utxo();
        if let Some(output) = &utxo {
            let so_far = spent
                .iter()
                .flatten()
                .copied()
                .chain([output.value.to_sat().cast_signed()]);
            if sum(so_far).is_none() {
                return invalid(&format!("PSBT is not valid. Input {index} has invalid value"));
            }
            if is_unspendable(&output.script_pubkey) {
                return invalid(&format!("PSBT is not valid. Input {index} spends unspendable output"));
            }
        }
        match (&mut spent, &utxo) {
            (Some(values), Some(output)) => values.push(output.value.to_sat().cast_signed()),
            _ => spent = None,
        }
        let mut role = if utxo.is_some() { Role::Extractor } else { Role::Updater };
        let is_final = whole.verifies(input, index);
        let mut missing = Missing::default();
        if !is_final {
            let how = How {
                finalize: true,
                ..How::default()
            };
            let (done, lacks) = sign(input, &whole, index, &nobody, how);
            let only_signatures = lacks.keys.is_empty()
                && lacks.redeem_script.is_none()
                && lacks.witness_script.is_none()
                && !lacks.signatures.is_empty();
            role = match done {
                Ok(()) => Role::Finalizer,
                Err(_) if only_signatures => Role::Signer,
                Err(_) => Role::Updater,
            };
            // What a complete input could have besides is not missing.
            missing = if done.is_err() { lacks } else { missing };
        }
        next = next.min(role);
        inputs.push(input_json(utxo.is_some(), is_final, role, &missing));
    }
    let mut map = Map::new();
    if !inputs.is_empty() {
        map.insert("inputs".into(), inputs.into());
    }
    if let Some(spent) = spent {
        let Some(paid) = sum(psbt.outputs.iter().map(|output| output.amount)) else {
            return invalid("PSBT is not valid. Output amount invalid");
        };
        // Both are in the range of money.
        let fee = sum(spent.into_iter()).unwrap_or(0) - paid;
        if let Some(size) = estimated_size(&mut psbt, &whole, &nobody) {
            map.insert("estimated_vsize".into(), size.into());
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            let rate = fee.saturating_mul(1_000).checked_div_euclid(size).unwrap_or(0);
            map.insert("estimated_feerate".into(), btc(rate));
        }
        map.insert("fee".into(), btc(fee));
    }
    map.insert("next".into(), next.name().into());
    Value::Object(map)
}

/// The virtual size when every input is signed, where what is known suffices for that.
fn estimated_size(psbt: &mut Psbt, whole: &Whole, nobody: &Provider) -> Option<u64> {
    let mut tx = psbt.unsigned_tx()?;
    for (index, input) in psbt.inputs.iter_mut().enumerate() {
        let how = How {
            finalize: true,
            dummy: true,
            ..How::default()
        };
        sign(input, whole, index, nobody, how).0.ok()?;
        let txin = tx.input.get_mut(index)?;
        txin.script_sig = input.script_sig();
        txin.witness = input.script_witness();
    }
    let spent = psbt.spent();
    let output_of = |outpoint: &bitcoin::OutPoint| {
        let index = tx.input.iter().position(|input| input.previous_output == *outpoint)?;
        spent.get(index)?.clone()
    };
    let cost = u64::try_from(tx.total_sigop_cost(output_of)).ok()?;
    Some(tx.weight().to_wu().max(cost * BYTES_PER_SIGOP).div_ceil(4))
}

fn input_json(has_utxo: bool, is_final: bool, role: Role, missing: &Missing) -> Value {
    let mut map = Map::new();
    map.insert("has_utxo".into(), has_utxo.into());
    map.insert("is_final".into(), (is_final && has_utxo).into());
    map.insert("next".into(), role.name().into());
    let list = |hashes: &[bitcoin::hashes::hash160::Hash]| -> Value {
        hashes.iter().map(ToString::to_string).collect::<Vec<_>>().into()
    };
    let mut lacks = Map::new();
    if !missing.keys.is_empty() {
        lacks.insert("pubkeys".into(), list(&missing.keys));
    }
    if let Some(hash) = missing.redeem_script {
        lacks.insert("redeemscript".into(), hash.to_string().into());
    }
    if let Some(hash) = missing.witness_script {
        lacks.insert("witnessscript".into(), hex::encode(hash).into());
    }
    if !missing.signatures.is_empty() {
        lacks.insert("signatures".into(), list(&missing.signatures));
    }
    if !lacks.is_empty() {
        map.insert("missing".into(), Value::Object(lacks));
    }
    Value::Object(map)
}
