//! Proofs that a block holds transactions, in the form of BIP 37's `merkleblock`.

use std::collections::BTreeSet;

use bitcoin::consensus::{Decodable, encode::serialize_hex};
use bitcoin::{BlockHash, MerkleBlock, OutPoint, Txid};
use dunlin_chain::indexes::IndexKind;
use dunlin_chain::{Entry, View};
use serde_json::Value;

use super::chain::{block_not_found, store_error, stored_block};
use super::error::{INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError, TYPE_ERROR};
use super::index::PATIENCE;
use super::method::{Answer, Call};
use super::params::{mismatch, parse_hash};

/// A transaction in a block has fewer outputs than this: Core's bound, from the weight of the smallest output.
const MAX_OUTPUTS: u32 = 111_111;

pub(crate) fn gettxoutproof(call: &Call) -> Answer {
    let view = call.view()?;
    let list = call.list(0)?;
    if list.is_empty() {
        return Err(RpcError::new(INVALID_PARAMETER, "Parameter 'txids' cannot be empty"));
    }
    let mut txids = BTreeSet::new();
    for value in list {
        let text = value
            .as_str()
            .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(value, "string")))?;
        if !txids.insert(parse_hash::<Txid>(text, "txid")?) {
            let text = format!("Invalid parameter, duplicated txid: {text}");
            return Err(RpcError::new(INVALID_PARAMETER, text));
        }
    }
    let entry = if call.given(1) {
        let hash: BlockHash = call.hash(1, "blockhash")?;
        view.entry(&hash).ok_or_else(block_not_found)?
    } else {
        let not_yet = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Transaction not yet in block");
        find_block(call, &view, &txids)?.ok_or_else(not_yet)?
    };
    let block = stored_block(&view, &entry)?;
    if block.txids.iter().filter(|txid| txids.contains(*txid)).count() != txids.len() {
        let text = "Not all transactions found in specified or retrieved block";
        return Err(RpcError::new(INVALID_ADDRESS_OR_KEY, text));
    }
    let proof =
        MerkleBlock::from_header_txids_with_predicate(block.header(), &block.txids, |txid| txids.contains(txid));
    Ok(serialize_hex(&proof).into())
}

/// The block of one of the transactions: by a coin of it that is unspent, else by the index.
fn find_block(call: &Call, view: &View, txids: &BTreeSet<Txid>) -> Result<Option<Entry>, RpcError> {
    let indexes = call.bitcoin()?.indexes();
    if let (Some(index), Some(first)) = (indexes.tx(), txids.first()) {
        indexes.wait_synced(view, IndexKind::Tx, PATIENCE);
        if let Some(place) = index.place(first).map_err(store_error)? {
            let gone = || RpcError::new(INTERNAL_ERROR, "Transaction index corrupt");
            return view.entry(&place.block).map(Some).ok_or_else(gone);
        }
    }
    for txid in txids {
        for vout in 0..MAX_OUTPUTS {
            let outpoint = OutPoint { txid: *txid, vout };
            if let Some(coin) = view.coin(&outpoint).map_err(store_error)? {
                return Ok(view.entry_at(coin.height));
            }
        }
    }
    Ok(None)
}

pub(crate) fn verifytxoutproof(call: &Call) -> Answer {
    let view = call.view()?;
    let text = call.str(0)?;
    let bytes = hex::decode(text).ok().filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| {
        let text = format!("proof must be hexadecimal string (not '{text}')");
        RpcError::new(INVALID_PARAMETER, text)
    })?;
    let proof = MerkleBlock::consensus_decode(&mut bytes.as_slice()).map_err(|_| {
        let text = "SpanReader::read(): end of data: iostream error";
        RpcError::new(MISC_ERROR, text)
    })?;
    let (mut matches, mut positions) = (Vec::new(), Vec::new());
    if proof.extract_matches(&mut matches, &mut positions).is_err() {
        return Ok(Value::Array(Vec::new()));
    }
    let entry = view
        .entry(&proof.header.block_hash())
        .filter(|entry| view.contains_in_active(&entry.hash))
        .ok_or_else(|| RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found in chain"))?;
    if entry.tx_count != Some(proof.txn.num_transactions()) {
        return Ok(Value::Array(Vec::new()));
    }
    Ok(matches.iter().map(|txid| Value::from(txid.to_string())).collect())
}
