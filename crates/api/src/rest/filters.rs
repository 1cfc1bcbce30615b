//! Compact block filters (BIP 158) and their headers (BIP 157), with the index of filters.

use bitcoin::BlockHash;
use bitcoin::VarInt;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use dunlin_chain::Status;
use dunlin_chain::indexes::{FilterIndex, IndexKind, Indexes};
use serde_json::{Value, json};

use super::blocks::active_from;
use super::{Answer, Ask, Refusal, bad_request, hash, not_found, unreadable};
use crate::rpc::index::PATIENCE;

/// The number of the basic filter on the wire.
const BASIC: u8 = 0;

fn index_of<'a>(indexes: &'a Indexes, kind: &str) -> Result<&'a FilterIndex, Refusal> {
    if kind != "basic" {
        return Err(bad_request(format!("Unknown filtertype {kind}")));
    }
    let off = || bad_request(format!("Index is not enabled for filtertype {kind}"));
    indexes.filter().ok_or_else(off)
}

fn missing(connected: bool, ready: bool) -> Refusal {
    not_found(match (connected, ready) {
        (false, _) => "Filter not found. Block was not connected to active chain.",
        (true, false) => "Filter not found. Block filters are still in the process of being indexed.",
        (true, true) => "Filter not found. This error is unexpected and indicates index corruption.",
    })
}

pub(super) fn filter(ask: &Ask) -> Answer {
    let [kind, name] = *ask.param.split('/').collect::<Vec<_>>() else {
        let text = "Invalid URI format. Expected /rest/blockfilter/<filtertype>/<blockhash>";
        return Err(bad_request(text));
    };
    let block: BlockHash = hash(name)?;
    let indexes = ask.bitcoin.indexes();
    let index = index_of(&indexes, kind)?;
    let view = ask.view();
    let entry = view
        .entry(&block)
        .ok_or_else(|| not_found(format!("{name} not found")))?;
    let ready = indexes.wait_synced(&view, IndexKind::Filter, PATIENCE);
    let found = index.filter(entry.height, &block).map_err(unreadable)?;
    let filter = found.ok_or_else(|| missing(entry.status == Status::Valid, ready))?;
    ask.reply(
        || {
            let mut bytes = vec![BASIC];
            bytes.extend(block.to_byte_array());
            bytes.extend(serialize(&VarInt::from(filter.len())));
            bytes.extend(&filter);
            bytes
        },
        || Ok(json!({ "filter": hex::encode(&filter) })),
    )
}

pub(super) fn headers(ask: &Ask) -> Answer {
    let path: Vec<&str> = ask.param.split('/').collect();
    let (kind, count, name) = match *path {
        [kind, count, name] => (kind, Some(count), name),
        [kind, name] => (kind, None, name),
        _ => {
            return Err(bad_request(
                "Invalid URI format. Expected /rest/blockfilterheaders/<filtertype>/<blockhash>.<ext>?count=<count>",
            ));
        }
    };
    let count = ask.header_count(count)?;
    let block: BlockHash = hash(name)?;
    let indexes = ask.bitcoin.indexes();
    let index = index_of(&indexes, kind)?;
    let view = ask.view();
    let entries = active_from(&view, &block, count);
    let ready = indexes.wait_synced(&view, IndexKind::Filter, PATIENCE);
    let mut headers = Vec::with_capacity(entries.len());
    for entry in &entries {
        let found = index.headers(entry.height, &entry.hash).map_err(unreadable)?;
        headers.push(found.ok_or_else(|| missing(true, ready))?.header);
    }
    ask.reply(
        || headers.iter().flat_map(|header| header.to_byte_array()).collect(),
        || Ok(headers.iter().map(|header| Value::from(header.to_string())).collect()),
    )
}
