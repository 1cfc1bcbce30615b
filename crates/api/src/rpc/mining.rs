//! Making blocks: `generatetoaddress`, `generatetodescriptor`, `generateblock`.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Block, ScriptBuf, Txid};
use dunlin_chain::ParsedBlock;
use dunlin_chain::build::{Base, assemble, solve_within};
use serde_json::{Value, json};

use super::address::address;
use super::descriptors::{Parsed, parse};
use super::error::{
    DESERIALIZATION_ERROR, INTERNAL_ERROR, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC_ERROR, RpcError, TYPE_ERROR,
    VERIFY_ERROR,
};
use super::method::{Answer, Call};
use super::params::{mismatch, parse_hash};
use super::{tx, unix_now, with_pool};
use crate::backend::{BitcoinBackend, SubmitBlockError};

/// Nonces tried in all when the caller does not say.
const DEFAULT_MAX_TRIES: u64 = 1_000_000;
/// Nonces tried for a block whose transactions the caller names.
const MAX_NONCES: u32 = 1_000_000;
/// Nonces tried before looking whether to stop.
const SLICE: u32 = 100_000;
/// How often a template is asked for before giving up.
const TEMPLATE_ATTEMPTS: u32 = 100;
/// The time between two such attempts.
const TEMPLATE_PAUSE: Duration = Duration::from_millis(20);

/// The script that pays to an address of this network.
pub(crate) fn script_of_address(text: &str, network: dunlin_chain::Network) -> Option<ScriptBuf> {
    Some(address(text, network)?.script_pubkey())
}

pub(crate) async fn generatetoaddress(call: Call) -> Answer {
    let limits = Limits::asked(&call)?;
    let network = call.bitcoin()?.view().params().network;
    let script = script_of_address(call.str(1)?, network)
        .ok_or_else(|| RpcError::new(INVALID_ADDRESS_OR_KEY, "Error: Invalid address"))?;
    generate(call, limits, script).await
}

pub(crate) async fn generatetodescriptor(call: Call) -> Answer {
    let limits = Limits::asked(&call)?;
    let network = call.bitcoin()?.view().params().network;
    let parsed = parse(call.str(1)?, network).map_err(|text| RpcError::new(INVALID_ADDRESS_OR_KEY, text))?;
    let script = script_of_descriptor(parsed)?;
    generate(call, limits, script).await
}

/// The one script that a coinbase pays for a descriptor.
fn script_of_descriptor(parsed: Parsed) -> Result<ScriptBuf, RpcError> {
    let refused = |text: &str| RpcError::new(INVALID_PARAMETER, text);
    let mut paths = parsed.paths();
    let Some(path) = paths.pop().filter(|_| paths.is_empty()) else {
        return Err(refused("Multipath descriptor not accepted"));
    };
    if path.is_ranged() {
        let text = "Ranged descriptor not accepted. Maybe pass through deriveaddresses first?";
        return Err(refused(text));
    }
    let private = || RpcError::new(INVALID_ADDRESS_OR_KEY, "Cannot derive script without private keys");
    let mut scripts = path.at(0).ok_or_else(private)?;
    // Of what combo stands for: that of the witness key where there is one, else that of the key's hash.
    let place = match scripts.len() {
        0 => return Err(private()),
        1 => 0,
        4 => 2,
        _ => 1,
    };
    Ok(scripts.swap_remove(place).0)
}

/// How many blocks to find, and after how many tries in all to give up.
struct Limits {
    blocks: usize,
    tries: u64,
}

impl Limits {
    fn asked(call: &Call) -> Result<Self, RpcError> {
        let blocks = usize::try_from(call.int::<i32>(0)?).unwrap_or(0);
        let tries = call.int_or::<i32>(2, i32::try_from(DEFAULT_MAX_TRIES).unwrap_or(i32::MAX))?;
        let tries = u64::try_from(tries).unwrap_or(u64::MAX);
        Ok(Self { blocks, tries })
    }
}

/// Finds blocks and hands them in.
async fn generate(call: Call, limits: Limits, script: ScriptBuf) -> Answer {
    let Limits { blocks, mut tries } = limits;
    let bitcoin = call.bitcoin()?;
    let mut hashes: Vec<Value> = Vec::new();
    while hashes.len() < blocks && !call.shared.node.stop.is_triggered() {
        let (block, left) = mine(&call, Arc::clone(&bitcoin), script.clone(), tries).await?;
        tries = left;
        let Some(block) = block else { break };
        let hash = block.hash;
        match bitcoin.submit_block(block).await {
            Ok(_) => hashes.push(hash.to_string().into()),
            Err(SubmitBlockError::Backend(error)) => return Err(error.into()),
            Err(SubmitBlockError::Block(error)) => {
                return Err(RpcError::new(
                    INTERNAL_ERROR,
                    format!("ProcessNewBlock, block not accepted: {error}"),
                ));
            }
        }
    }
    Ok(hashes.into())
}

pub(crate) async fn generateblock(call: Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let (output, network) = (call.str(0)?, view.params().network);
    let script = match parse(output, network) {
        Ok(parsed) => script_of_descriptor(parsed)?,
        Err(_) => script_of_address(output, network)
            .ok_or_else(|| RpcError::new(INVALID_ADDRESS_OR_KEY, "Error: Invalid address or descriptor"))?,
    };
    let mut txs = Vec::new();
    for value in call.list(1)? {
        let text = value
            .as_str()
            .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(value, "string")))?;
        txs.push(match parse_hash::<Txid>(text, "txid") {
            Ok(txid) => with_pool(&*bitcoin, |pool| pool.get(&txid))
                .map(|tx| (*tx).clone())
                .ok_or_else(|| RpcError::new(INVALID_ADDRESS_OR_KEY, format!("Transaction {text} not in mempool.")))?,
            Err(_) => tx::from_hex(text).ok_or_else(|| {
                let text = format!("Transaction decode failed for {text}. Make sure the tx has at least one input.");
                RpcError::new(DESERIALIZATION_ERROR, text)
            })?,
        });
    }
    let mut block = assemble(
        view.params(),
        &Base::on_tip(&view, unix_now()),
        txs,
        Amount::ZERO,
        script,
        b"",
    );
    let solve = move || solve_within(&mut block, MAX_NONCES).then_some(block);
    let solved = tokio::task::spawn_blocking(solve)
        .await
        .map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))?;
    let block = solved.ok_or_else(|| RpcError::new(MISC_ERROR, "Failed to make block."))?;
    let hash = block.block_hash().to_string();
    if !call.bool_or(2, true)? {
        let bytes = bitcoin::consensus::encode::serialize_hex(&block);
        return Ok(json!({ "hash": hash, "hex": bytes }));
    }
    match bitcoin.submit_block(ParsedBlock::from_block(block)).await {
        Ok(_) => Ok(json!({ "hash": hash })),
        Err(SubmitBlockError::Backend(error)) => Err(error.into()),
        Err(SubmitBlockError::Block(error)) => Err(RpcError::new(
            VERIFY_ERROR,
            format!("TestBlockValidity failed: {error}"),
        )),
    }
}

/// An unsolved block. The pool may be a moment behind a chain that just moved.
fn template(bitcoin: &dyn BitcoinBackend, script: &ScriptBuf) -> Result<Block, RpcError> {
    let view = bitcoin.view();
    let mut attempts = 0;
    loop {
        match with_pool(bitcoin, |pool| pool.block_template(&view, unix_now(), script.clone())) {
            Ok(block) => return Ok(block),
            Err(_) if attempts < TEMPLATE_ATTEMPTS => attempts += 1,
            Err(error) => return Err(RpcError::new(INTERNAL_ERROR, error.to_string())),
        }
        std::thread::sleep(TEMPLATE_PAUSE);
    }
}

/// A solved block on the present tip, unless the tries run out or the node stops; and the tries left.
async fn mine(
    call: &Call,
    bitcoin: Arc<dyn BitcoinBackend>,
    script: ScriptBuf,
    mut tries: u64,
) -> Result<(Option<Arc<ParsedBlock>>, u64), RpcError> {
    let stop = call.shared.node.stop.clone();
    let work = move || -> Result<(Option<Arc<ParsedBlock>>, u64), RpcError> {
        let mut block = template(&*bitcoin, &script)?;
        while tries > 0 && !stop.is_triggered() {
            let start = block.header.nonce;
            let slice = u32::try_from(tries).unwrap_or(SLICE).min(SLICE);
            let found = solve_within(&mut block, slice - 1);
            tries -= u64::from(block.header.nonce.wrapping_sub(start))
                .clamp(1, u64::from(slice))
                .min(tries);
            if found {
                return Ok((Some(ParsedBlock::from_block(block)), tries));
            }
        }
        Ok((None, tries))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))?
}
