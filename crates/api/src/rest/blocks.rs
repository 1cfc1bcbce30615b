//! Headers, blocks and what they spent.

use bitcoin::BlockHash;
use bitcoin::VarInt;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use dunlin_chain::{Entry, View};
use serde_json::{Value, json};

use super::{Answer, Ask, Refusal, bad_request, hash, not_found, unreadable, whole};
use crate::rpc::chain::{block_json, header_json};
use crate::rpc::json::btc_u;
use crate::rpc::script;

/// A block and those that follow it in the active chain, at most `count`; none for one that is not part of it.
pub(super) fn active_from(view: &View, block: &BlockHash, count: usize) -> Vec<Entry> {
    let Some(first) = view.entry(block).filter(|entry| view.contains_in_active(&entry.hash)) else {
        return Vec::new();
    };
    (first.height..)
        .map_while(|height| view.entry_at(height))
        .take(count)
        .collect()
}

pub(super) fn headers(ask: &Ask) -> Answer {
    let path: Vec<&str> = ask.param.split('/').collect();
    let (block, count) = match *path {
        [count, block] => (block, Some(count)),
        [block] => (block, None),
        _ => {
            let text = "Invalid URI format. Expected /rest/headers/<hash>.<ext>?count=<count>";
            return Err(bad_request(text));
        }
    };
    let count = ask.header_count(count)?;
    let view = ask.view();
    let entries = active_from(&view, &hash(block)?, count);
    ask.reply(
        || entries.iter().flat_map(|entry| serialize(&entry.header)).collect(),
        || {
            let headers = entries.iter().map(|entry| Value::Object(header_json(&view, entry)));
            Ok(headers.collect())
        },
    )
}

pub(super) fn hash_by_height(ask: &Ask) -> Answer {
    let height = whole::<i32>(&ask.param).and_then(|height| u32::try_from(height).ok());
    let height = height.ok_or_else(|| {
        let safe = |c: &char| c.is_ascii_alphanumeric() || "!*'();:@&=+$,/?#[]-_.~%".contains(*c);
        let shown: String = ask.param.chars().filter(safe).collect();
        bad_request(format!("Invalid height: {shown}"))
    })?;
    let block = ask.view().hash_at(height);
    let block = block.ok_or_else(|| not_found("Block height out of range"))?;
    match ask.format {
        // In hex it reads as people write it, not as it lies on the wire.
        super::Format::Hex => Ok(super::Content("text/plain", format!("{block}\n").into_bytes())),
        _ => ask.reply(
            || block.to_byte_array().to_vec(),
            || Ok(json!({ "blockhash": block.to_string() })),
        ),
    }
}

/// How a block is shown in JSON.
enum Shown {
    /// With this verbosity of `getblock`.
    Json(i32),
    /// Not at all: a part of it, from the first number on, as many bytes as the second says.
    Part(usize, usize),
}

pub(super) fn block(ask: &Ask) -> Answer {
    show(ask, Shown::Json(3))
}

pub(super) fn block_without_details(ask: &Ask) -> Answer {
    show(ask, Shown::Json(1))
}

pub(super) fn block_part(ask: &Ask) -> Answer {
    let number = |name: &str| {
        let value = ask.query(name).as_deref().and_then(whole::<usize>);
        value.ok_or_else(|| bad_request(format!("Block part {name} missing or invalid")))
    };
    show(ask, Shown::Part(number("offset")?, number("size")?))
}

/// The block whose hash is asked for.
fn known_block(ask: &Ask) -> Result<(BlockHash, Entry), Refusal> {
    let name = &ask.param;
    let block: BlockHash = hash(name)?;
    let entry = ask.view().entry(&block);
    Ok((block, entry.ok_or_else(|| not_found(format!("{name} not found")))?))
}

fn show(ask: &Ask, shown: Shown) -> Answer {
    let (name, view) = (&ask.param, ask.view());
    let (block, entry) = known_block(ask)?;
    let pruned = || not_found(format!("{name} not available (pruned data)"));
    if !entry.have_data {
        return Err(match entry.pruned {
            true => pruned(),
            false => not_found(format!("{name} not available (not fully downloaded)")),
        });
    }
    let raw = view.block_bytes(&block).map_err(unreadable)?.ok_or_else(pruned)?;
    match shown {
        Shown::Json(verbosity) => ask.reply(
            || raw.to_vec(),
            || Ok(Value::Object(block_json(&view, &entry, raw.clone(), verbosity)?)),
        ),
        Shown::Part(offset, size) => {
            let end = offset.checked_add(size).filter(|_| size > 0);
            let part = end
                .and_then(|end| raw.get(offset..end))
                .ok_or_else(|| bad_request(format!("Bad block part offset/size {offset}/{size} for {name}")))?;
            ask.reply(
                || part.to_vec(),
                || Err(bad_request("JSON output is not supported for this request type")),
            )
        }
    }
}

/// The outputs that each transaction of a block spends, an empty list for the coinbase.
pub(super) fn spent_outputs(ask: &Ask) -> Answer {
    if ask.param.contains('/') {
        return Err(bad_request(
            "Invalid URI format. Expected /rest/spenttxouts/<hash>.<ext>",
        ));
    }
    let (name, view) = (&ask.param, ask.view());
    let (block, entry) = known_block(ask)?;
    let missing = || not_found(format!("{name} undo not available"));
    let undo = match entry.height {
        0 => Vec::new(),
        _ => {
            let undo = view.undo(&block).map_err(|_| missing())?;
            undo.ok_or_else(missing)?.spent
        }
    };
    let network = view.params().network;
    ask.reply(
        || {
            let mut bytes = serialize(&VarInt::from(undo.len().saturating_add(1)));
            bytes.push(0);
            for coins in &undo {
                bytes.extend(serialize(&VarInt::from(coins.len())));
                bytes.extend(coins.iter().flat_map(|coin| serialize(&coin.output)));
            }
            bytes
        },
        || {
            let spent = undo.iter().map(|coins| {
                let outputs = coins.iter().map(|coin| {
                    json!({
                        "value": btc_u(coin.output.value.to_sat()),
                        "scriptPubKey": script::script_pub_key(&coin.output.script_pubkey, network),
                    })
                });
                outputs.collect::<Value>()
            });
            Ok(std::iter::once(Value::Array(Vec::new())).chain(spent).collect())
        },
    )
}
