//! `getrawtransaction`: from the memory pool, from a block that is named, or from the block that the index names.

use bitcoin::{BlockHash, Transaction, Txid};
use dunlin_chain::indexes::{IndexKind, Indexes};
use dunlin_chain::{Entry, View};
use serde_json::{Map, Value};

use super::chain::{confirmations, spent_outputs, store_error, stored_block};
use super::error::{INVALID_ADDRESS_OR_KEY, MISC_ERROR, RpcError};
use super::index::PATIENCE;
use super::method::{Answer, Call};
use super::{tx, with_pool};

pub(crate) fn getrawtransaction(call: &Call) -> Answer {
    let view = call.view()?;
    let txid: Txid = call.hash(0, "parameter 1")?;
    if view.params().genesis.header.merkle_root.to_raw_hash() == txid.to_raw_hash() {
        let text = "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved";
        return Err(RpcError::new(INVALID_ADDRESS_OR_KEY, text));
    }
    let verbosity = call.verbosity(1, 0)?;
    if call.given(2) {
        let hash: BlockHash = call.hash(2, "parameter 3")?;
        let unknown = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Block hash not found");
        let entry = view.entry(&hash).ok_or_else(unknown)?;
        if !entry.have_data {
            return Err(RpcError::new(MISC_ERROR, "Block not available"));
        }
        return of_block(&view, &entry, &txid, verbosity, true);
    }
    if let Some(tx) = with_pool(&*call.bitcoin()?, |pool| pool.get(&txid)) {
        if verbosity <= 0 {
            return Ok(tx::to_hex(&tx).into());
        }
        let mut map = tx::to_json(&tx, view.params().network, None, false);
        map.insert("hex".into(), tx::to_hex(&tx).into());
        return Ok(Value::Object(map));
    }
    let indexes = call.bitcoin()?.indexes();
    let Some(index) = indexes.tx() else {
        let text = "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction queries";
        return Err(missing(text));
    };
    let ready = indexes.wait_synced(&view, IndexKind::Tx, PATIENCE);
    let Some(place) = index.place(&txid).map_err(store_error)? else {
        return Err(missing(if ready {
            "No such mempool or blockchain transaction"
        } else {
            "No such mempool transaction. Blockchain transactions are still in the process of being indexed"
        }));
    };
    let unknown = || RpcError::new(MISC_ERROR, format!("The header of block {} is not known", place.block));
    let entry = view.entry(&place.block).ok_or_else(unknown)?;
    if !entry.have_data {
        let text = format!(
            "Block not available (pruned data): the transaction is number {} of block {} at height {}",
            place.position, entry.hash, entry.height
        );
        return Err(RpcError::new(MISC_ERROR, text));
    }
    of_block(&view, &entry, &txid, verbosity, false)
}

/// A transaction of any stored block, where the index is on and knows it.
pub(crate) fn indexed(view: &View, indexes: &Indexes, txid: &Txid) -> Result<Option<Transaction>, RpcError> {
    let place = indexes
        .tx()
        .map(|index| index.place(txid).map_err(store_error))
        .transpose()?
        .flatten();
    let Some(entry) = place
        .and_then(|place| view.entry(&place.block))
        .filter(|entry| entry.have_data)
    else {
        return Ok(None);
    };
    let block = stored_block(view, &entry)?;
    let index = block.txids.iter().position(|candidate| candidate == txid);
    Ok(index.and_then(|index| block.block().txdata.get(index)).cloned())
}

fn missing(text: &str) -> RpcError {
    let text = format!("{text}. Use gettransaction for wallet transactions.");
    RpcError::new(INVALID_ADDRESS_OR_KEY, text)
}

/// A transaction of a stored block; `named` says that the caller named the block.
fn of_block(view: &View, entry: &Entry, txid: &Txid, verbosity: i32, named: bool) -> Answer {
    let block = stored_block(view, entry)?;
    let index = block.txids.iter().position(|candidate| candidate == txid);
    let (index, tx) = index
        .and_then(|index| Some((index, block.block().txdata.get(index)?)))
        .ok_or_else(|| missing("No such transaction found in the provided block"))?;
    if verbosity <= 0 {
        return Ok(tx::to_hex(tx).into());
    }
    let spent = if verbosity >= 2 {
        spent_outputs(view, entry)?
    } else {
        None
    };
    let spent = index.checked_sub(1).and_then(|index| spent.as_ref()?.get(index));
    let active = view.contains_in_active(&entry.hash);
    let mut map = Map::new();
    if named {
        map.insert("in_active_chain".into(), active.into());
    }
    map.extend(tx::to_json(
        tx,
        view.params().network,
        spent.map(Vec::as_slice),
        verbosity >= 2,
    ));
    map.insert("hex".into(), tx::to_hex(tx).into());
    map.insert("blockhash".into(), entry.hash.to_string().into());
    map.insert("confirmations".into(), confirmations(view, entry).max(0).into());
    if active {
        map.insert("time".into(), entry.header.time.into());
        map.insert("blocktime".into(), entry.header.time.into());
    }
    Ok(Value::Object(map))
}
