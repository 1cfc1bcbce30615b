//! Transactions, and unspent outputs in the form of BIP 64.

use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Transaction, TxOut, Txid};
use dunlin_chain::indexes::IndexKind;
use serde_json::{Value, json};

use super::{Answer, Ask, Format, Refusal, bad_request, hash, not_found, unreadable, whole};
use crate::rpc::index::PATIENCE;
use crate::rpc::json::btc_u;
use crate::rpc::{script, tx as tx_json, with_pool};

/// The most outputs that one request asks for.
const MAX_OUTPOINTS: usize = 15;
/// The height of an output that is in no block yet.
const MEMPOOL_HEIGHT: u32 = 0x7fff_ffff;

pub(super) fn tx(ask: &Ask) -> Answer {
    let txid: Txid = hash(&ask.param)?;
    let (tx, block) = find_tx(ask, &txid)?;
    ask.reply(
        || serialize(&tx),
        || {
            let mut map = tx_json::to_json(&tx, ask.view().params().network, None, false);
            if let Some(block) = block {
                map.insert("blockhash".into(), block.to_string().into());
            }
            map.insert("hex".into(), tx_json::to_hex(&tx).into());
            Ok(Value::Object(map))
        },
    )
}

/// A transaction of the memory pool, or with the index of transactions of any block.
fn find_tx(ask: &Ask, txid: &Txid) -> Result<(Transaction, Option<BlockHash>), Refusal> {
    let view = ask.view();
    let indexes = ask.bitcoin.indexes();
    if indexes.tx().is_some() {
        indexes.wait_synced(&view, IndexKind::Tx, PATIENCE);
    }
    if let Some(tx) = with_pool(&*ask.bitcoin, |pool| pool.get(txid)) {
        return Ok(((*tx).clone(), None));
    }
    let unknown = || not_found(format!("{} not found", ask.param));
    let index = indexes.tx().ok_or_else(unknown)?;
    let place = index.place(txid).map_err(unreadable)?.ok_or_else(unknown)?;
    let raw = view
        .block_bytes(&place.block)
        .map_err(unreadable)?
        .ok_or_else(unknown)?;
    let block = dunlin_chain::ParsedBlock::parse(raw).map_err(|_| unknown())?;
    let at = block.txids.iter().position(|candidate| candidate == txid);
    let tx = at.and_then(|at| block.block().txdata.get(at)).ok_or_else(unknown)?;
    Ok((tx.clone(), Some(place.block)))
}

/// What `getutxos` is asked for.
struct Wanted {
    with_mempool: bool,
    outpoints: Vec<OutPoint>,
}

fn wanted(ask: &Ask) -> Result<Wanted, Refusal> {
    let empty = || bad_request("Error: empty request");
    let unclear = || bad_request("Parse error");
    let path: Vec<&str> = match ask.param.get(1..).unwrap_or_default() {
        "" => Vec::new(),
        path => path.split('/').collect(),
    };
    if ask.body.is_empty() && path.is_empty() {
        return Err(empty());
    }
    let mut wanted = Wanted {
        with_mempool: path.first() == Some(&"checkmempool"),
        outpoints: Vec::new(),
    };
    for place in path.iter().skip(usize::from(wanted.with_mempool)) {
        let (txid, vout) = place.split_once('-').ok_or_else(unclear)?;
        wanted.outpoints.push(OutPoint {
            txid: hash(txid).map_err(|_| unclear())?,
            vout: whole(vout).ok_or_else(unclear)?,
        });
    }
    if !path.is_empty() && wanted.outpoints.is_empty() {
        return Err(empty());
    }
    let body = match ask.format {
        // What is no hex counts as nothing.
        Format::Hex => hex::decode(ask.body.trim_ascii()).unwrap_or_default(),
        Format::Binary => ask.body.to_vec(),
        Format::Json if path.is_empty() => return Err(empty()),
        Format::Json | Format::Unknown => Vec::new(),
    };
    if let Some((with_mempool, mut rest)) = body.split_first() {
        if !path.is_empty() {
            let text = "Combination of URI scheme inputs and raw post data is not allowed";
            return Err(bad_request(text));
        }
        wanted.with_mempool = *with_mempool != 0;
        let VarInt(count) = VarInt::consensus_decode(&mut rest).map_err(|_| unclear())?;
        for _ in 0..count {
            let outpoint = OutPoint::consensus_decode(&mut rest).map_err(|_| unclear())?;
            wanted.outpoints.push(outpoint);
        }
    }
    if ask.format != Format::Unknown && wanted.outpoints.len() > MAX_OUTPOINTS {
        return Err(bad_request(format!(
            "Error: max outpoints exceeded (max: {MAX_OUTPOINTS}, tried: {})",
            wanted.outpoints.len()
        )));
    }
    Ok(wanted)
}

/// What the memory pool says of an output.
enum InPool {
    Made(TxOut),
    Spent,
    Unknown,
}

pub(super) fn unspent(ask: &Ask) -> Answer {
    let Wanted {
        with_mempool,
        outpoints,
    } = wanted(ask)?;
    let view = ask.view();
    let in_pool: Vec<InPool> = match with_mempool {
        false => outpoints.iter().map(|_| InPool::Unknown).collect(),
        true => with_pool(&*ask.bitcoin, |pool| {
            let look = |outpoint: &OutPoint| match (pool.spender(outpoint), pool.get(&outpoint.txid)) {
                (Some(_), _) => InPool::Spent,
                (None, None) => InPool::Unknown,
                (None, Some(tx)) => {
                    let output = usize::try_from(outpoint.vout).ok().and_then(|vout| tx.output.get(vout));
                    output.map_or(InPool::Spent, |output| InPool::Made(output.clone()))
                }
            };
            outpoints.iter().map(look).collect()
        }),
    };
    let (tip, coins) = view.coins(&outpoints).map_err(unreadable)?;
    let found: Vec<Option<(u32, TxOut)>> = in_pool
        .into_iter()
        .zip(coins)
        .map(|(in_pool, coin)| match in_pool {
            InPool::Made(output) => Some((MEMPOOL_HEIGHT, output)),
            InPool::Spent => None,
            InPool::Unknown => coin.map(|coin| (coin.height, coin.output)),
        })
        .collect();
    let network = view.params().network;
    ask.reply(
        || {
            let mut bitmap = vec![0u8; found.len().div_ceil(8)];
            for (index, _) in found.iter().enumerate().filter(|(_, coin)| coin.is_some()) {
                bitmap[index / 8] |= 1 << (index % 8);
            }
            let mut bytes = serialize(&tip.height);
            bytes.extend(tip.hash.to_byte_array());
            bytes.extend(serialize(&bitmap));
            bytes.extend(serialize(&VarInt::from(found.iter().flatten().count())));
            for (height, output) in found.iter().flatten() {
                // The first number once was the version of the transaction that made the output.
                bytes.extend(serialize(&(0u32, *height, output.clone())));
            }
            bytes
        },
        || {
            let bitmap: String = found
                .iter()
                .map(|coin| if coin.is_some() { '1' } else { '0' })
                .collect();
            let coins = found.iter().flatten().map(|(height, output)| {
                json!({
                    "height": height,
                    "value": btc_u(output.value.to_sat()),
                    "scriptPubKey": script::script_pub_key(&output.script_pubkey, network),
                })
            });
            Ok(json!({
                "chainHeight": tip.height,
                "chaintipHash": tip.hash.to_string(),
                "bitmap": bitmap,
                "utxos": coins.collect::<Vec<_>>(),
            }))
        },
    )
}
