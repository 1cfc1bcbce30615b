//! Transactions as JSON, in the shape of Core's `getrawtransaction` and `getblock`.

use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::{deserialize, serialize, serialize_hex};
use bitcoin::hex::FromHex;
use bitcoin::{Transaction, TxOut, Witness};
use dunlin_chain::Network;
use serde_json::{Map, Value, json};

use super::json::{btc, btc_u};
use super::script;

/// The longest script that can be run.
const MAX_SCRIPT: usize = 10_000;

/// An output that a transaction spends, with where it came from.
pub(crate) struct Spent {
    /// The output.
    pub(crate) output: TxOut,
    /// The height of the block that made it.
    pub(crate) height: u32,
    /// Whether a coinbase made it.
    pub(crate) coinbase: bool,
}

/// A transaction without its place in the chain. With the outputs that it spends the fee is shown too, and with
/// `show_prevouts` those outputs themselves.
pub(crate) fn to_json(
    tx: &Transaction,
    network: Network,
    spent: Option<&[Spent]>,
    show_prevouts: bool,
) -> Map<String, Value> {
    let txid = tx.compute_txid().to_string();
    // Without inputs there are no witnesses either.
    let (hash, size, weight) = match tx.input.is_empty() {
        true => (txid.clone(), tx.base_size(), 4 * tx.base_size() as u64),
        false => (tx.compute_wtxid().to_string(), tx.total_size(), tx.weight().to_wu()),
    };
    let mut map = Map::new();
    map.insert("txid".into(), txid.into());
    map.insert("hash".into(), hash.into());
    map.insert("version".into(), u32::from_le_bytes(tx.version.0.to_le_bytes()).into());
    map.insert("size".into(), size.into());
    map.insert("vsize".into(), weight.div_ceil(4).into());
    map.insert("weight".into(), weight.into());
    map.insert("locktime".into(), tx.lock_time.to_consensus_u32().into());
    let spent = spent.filter(|spent| spent.len() == tx.input.len());
    map.insert("vin".into(), inputs(tx, network, spent.filter(|_| show_prevouts)));
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .enumerate()
        .map(|(n, output)| {
            json!({
                "value": btc_u(output.value.to_sat()),
                "n": n,
                "scriptPubKey": script::script_pub_key(&output.script_pubkey, network),
            })
        })
        .collect();
    map.insert("vout".into(), outputs.into());
    if let Some(fee) = spent.and_then(|spent| fee(tx, spent)) {
        map.insert("fee".into(), btc(fee));
    }
    map
}

fn inputs(tx: &Transaction, network: Network, prevouts: Option<&[Spent]>) -> Value {
    let coinbase = tx.is_coinbase();
    let input = |(index, input): (usize, &bitcoin::TxIn)| {
        let mut map = Map::new();
        if coinbase {
            map.insert("coinbase".into(), hex::encode(input.script_sig.as_bytes()).into());
        } else {
            map.insert("txid".into(), input.previous_output.txid.to_string().into());
            map.insert("vout".into(), input.previous_output.vout.into());
            let script_sig =
                json!({ "asm": script::asm(&input.script_sig, true), "hex": hex::encode(input.script_sig.as_bytes()) });
            map.insert("scriptSig".into(), script_sig);
        }
        if !input.witness.is_empty() {
            map.insert("txinwitness".into(), witness(&input.witness));
        }
        if let Some(spent) = prevouts.and_then(|spent| spent.get(index)) {
            let prevout = json!({
                "generated": spent.coinbase,
                "height": spent.height,
                "value": btc_u(spent.output.value.to_sat()),
                "scriptPubKey": script::script_pub_key(&spent.output.script_pubkey, network),
            });
            map.insert("prevout".into(), prevout);
        }
        map.insert("sequence".into(), input.sequence.to_consensus_u32().into());
        Value::Object(map)
    };
    tx.input.iter().enumerate().map(input).collect::<Vec<_>>().into()
}

fn witness(witness: &Witness) -> Value {
    witness.iter().map(hex::encode).collect::<Vec<_>>().into()
}

fn fee(tx: &Transaction, spent: &[Spent]) -> Option<i64> {
    let sum = |mut values: Box<dyn Iterator<Item = u64> + '_>| values.try_fold(0u64, u64::checked_add);
    let inputs = sum(Box::new(spent.iter().map(|spent| spent.output.value.to_sat())))?;
    let outputs = sum(Box::new(tx.output.iter().map(|output| output.value.to_sat())))?;
    i64::try_from(inputs.checked_sub(outputs)?).ok()
}

/// The serialization with witnesses, in hex.
pub(crate) fn to_hex(tx: &Transaction) -> String {
    serialize_hex(tx)
}

/// A transaction from hex, exactly.
pub(crate) fn from_hex(text: &str) -> Option<Transaction> {
    let bytes = Vec::<u8>::from_hex(text).ok()?;
    deserialize::<Transaction>(&bytes).ok()
}

/// The serialization in hex, of a transaction without inputs in the old form: the new one begins just so.
pub(crate) fn to_wire_hex(tx: &Transaction) -> String {
    if !tx.input.is_empty() {
        return to_hex(tx);
    }
    let mut bytes = serialize(&tx.version);
    bytes.extend(serialize(&tx.input));
    bytes.extend(serialize(&tx.output));
    bytes.extend(serialize(&tx.lock_time));
    hex::encode(bytes)
}

/// A transaction from hex in the form with witnesses, in the old one, or in the one of both that makes more sense.
pub(crate) fn from_hex_as(text: &str, old: bool, with_witness: bool) -> Option<Transaction> {
    let bytes = Vec::<u8>::from_hex(text).ok()?;
    let sane = |tx: &Transaction| {
        let coinbase = tx.is_coinbase();
        let mut scripts = tx
            .output
            .iter()
            .map(|output| &output.script_pubkey)
            .chain(tx.input.iter().filter(|_| !coinbase).map(|input| &input.script_sig));
        scripts.all(|script| script.len() <= MAX_SCRIPT && script::has_valid_ops(script))
    };
    // Without inputs and outputs both forms are the same; with inputs that are none there can be no witness.
    let new = || {
        let new = deserialize::<Transaction>(&bytes)
            .ok()
            .filter(|tx| !tx.input.is_empty());
        new.or_else(|| old_form(&bytes).filter(|tx| tx.input.is_empty() && tx.output.is_empty()))
    };
    let new = with_witness.then(new).flatten();
    if new.as_ref().is_some_and(sane) {
        return new;
    }
    let old = old.then(|| old_form(&bytes)).flatten();
    if old.as_ref().is_some_and(sane) {
        return old;
    }
    new.or(old)
}

/// A transaction in the form without witnesses, exactly.
pub(crate) fn old_form(mut bytes: &[u8]) -> Option<Transaction> {
    let from = &mut bytes;
    let tx = Transaction {
        version: Decodable::consensus_decode(from).ok()?,
        input: Decodable::consensus_decode(from).ok()?,
        output: Decodable::consensus_decode(from).ok()?,
        lock_time: Decodable::consensus_decode(from).ok()?,
    };
    from.is_empty().then_some(tx)
}

/// What is special about a block's first transaction.
pub(crate) fn coinbase_summary(tx: &Transaction) -> Value {
    let mut map = Map::new();
    map.insert("version".into(), u32::from_le_bytes(tx.version.0.to_le_bytes()).into());
    map.insert("locktime".into(), tx.lock_time.to_consensus_u32().into());
    if let Some(input) = tx.input.first() {
        map.insert("sequence".into(), input.sequence.to_consensus_u32().into());
        map.insert("coinbase".into(), hex::encode(input.script_sig.as_bytes()).into());
        if let Some(item) = input.witness.iter().next() {
            map.insert("witness".into(), hex::encode(item).into());
        }
    }
    Value::Object(map)
}
