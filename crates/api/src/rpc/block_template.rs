//! `getblocktemplate` (BIPs 22, 23, 145): what to mine, at once or when something changes, and what speaks against a
//! proposed block.
//!
//! A template is kept until the tip moves, or until the memory pool has changed and it is some seconds old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{BlockHash, Target, Txid};
use dunlin_chain::build::{BLOCK_VERSION, Base};
use dunlin_chain::rules::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT};
use dunlin_chain::{Network, ParsedBlock, Status, View};
use dunlin_mempool::RESERVED_SIGOPS;
use serde_json::{Map, Value, json};

use super::chain::block_from_hex;
use super::error::{
    CLIENT_IN_INITIAL_DOWNLOAD, INTERNAL_ERROR, INVALID_PARAMETER, NOT_CONNECTED, RpcError, TYPE_ERROR,
};
use super::method::{Answer, Call};
use super::params::{mismatch, parse_hash};
use super::{tx, unix_now, with_pool};
use crate::backend::{BitcoinBackend, ChainOp, Operated};
use crate::templates::BlockTemplate;

/// A template is not made anew for changes of the pool before it is so old.
const KEPT: Duration = Duration::from_secs(5);
/// Who waits for a change first hears of the pool's after so long, and then after each [`POOL_AGAIN`].
const POOL_FIRST: Duration = Duration::from_secs(60);
/// See [`POOL_FIRST`].
const POOL_AGAIN: Duration = Duration::from_secs(10);
/// The largest block in bytes.
const MAX_BLOCK_BYTES: u64 = 4_000_000;

/// A template that was made, and when.
#[derive(Clone)]
struct Kept {
    template: Arc<BlockTemplate>,
    made: Instant,
}

/// How large the last template was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastTemplate {
    /// Its weight, with what is set aside for header and coinbase.
    pub(crate) weight: u64,
    /// Its transactions, without the coinbase.
    pub(crate) transactions: usize,
}

/// The templates of one server.
#[derive(Default)]
pub(crate) struct Templates(Mutex<Option<Kept>>);

impl Templates {
    /// How large the last one was, if any was made.
    pub(crate) fn last(&self) -> Option<LastTemplate> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|kept| LastTemplate {
            weight: kept
                .template
                .chosen
                .weight
                .saturating_add(dunlin_mempool::RESERVED_WEIGHT),
            transactions: kept.template.chosen.txs.len(),
        })
    }

    fn current(&self, bitcoin: &dyn BitcoinBackend) -> Result<Arc<BlockTemplate>, RpcError> {
        let tip = bitcoin.view().tip().hash;
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { template, made }) = &*slot {
            let unchanged = || with_pool(bitcoin, |pool| pool.sequence()) == template.sequence;
            if template.base.parent == tip && (made.elapsed() <= KEPT || unchanged()) {
                return Ok(Arc::clone(template));
            }
        }
        let template = BlockTemplate::make(bitcoin, MAX_BLOCK_WEIGHT, RESERVED_SIGOPS)
            .map(Arc::new)
            .map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))?;
        *slot = Some(Kept {
            template: Arc::clone(&template),
            made: Instant::now(),
        });
        Ok(template)
    }
}

/// What a miner asks for.
enum Asked {
    Template {
        rules: Vec<String>,
        long_poll: Option<String>,
    },
    /// What would be said of this block (BIP 23).
    Verdict(Arc<ParsedBlock>),
}

fn asked(call: &Call) -> Result<Asked, RpcError> {
    let invalid = |text: &str| RpcError::new(INVALID_PARAMETER, text);
    let none = Map::new();
    let request = match call.arg(0) {
        Value::Object(map) => map,
        _ => &none,
    };
    match request.get("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == "template" => {}
        Some(Value::String(mode)) if mode == "proposal" => {
            let data = request.get("data").and_then(Value::as_str);
            let data = data.ok_or_else(|| RpcError::new(TYPE_ERROR, "Missing data String key for proposal"))?;
            return Ok(Asked::Verdict(block_from_hex(data)?));
        }
        Some(_) => return Err(invalid("Invalid mode")),
    }
    let mut rules = Vec::new();
    if let Some(Value::Array(list)) = request.get("rules") {
        for rule in list {
            let rule = rule
                .as_str()
                .ok_or_else(|| RpcError::new(TYPE_ERROR, mismatch(rule, "string")))?;
            rules.push(rule.to_owned());
        }
    }
    let long_poll = request.get("longpollid").and_then(Value::as_str).map(str::to_owned);
    Ok(Asked::Template { rules, long_poll })
}

/// What would be said of a block that is not solved yet: null when nothing.
async fn verdict(bitcoin: &dyn BitcoinBackend, block: Arc<ParsedBlock>) -> Answer {
    if let Some(known) = bitcoin.view().entry(&block.hash) {
        return Ok(match known.status {
            Status::Valid => "duplicate".into(),
            Status::Invalid => "duplicate-invalid".into(),
            Status::HeaderOnly | Status::Stored => "duplicate-inconclusive".into(),
        });
    }
    match bitcoin.operate(ChainOp::Propose(block)).await? {
        Operated::Proposed(Ok(())) => Ok(Value::Null),
        Operated::Proposed(Err(reject)) => Ok(reject.reason.into()),
        _ => Err(RpcError::new(INTERNAL_ERROR, "the proposal was not judged")),
    }
}

pub(crate) async fn getblocktemplate(call: Call) -> Answer {
    let asked = asked(&call)?;
    let bitcoin = call.bitcoin()?;
    let (rules, long_poll) = match asked {
        Asked::Template { rules, long_poll } => (rules, long_poll),
        Asked::Verdict(block) => return verdict(&*bitcoin, block).await,
    };
    let view = bitcoin.view();
    let network = view.params().network;
    if network == Network::Mainnet {
        if bitcoin.peers().await?.is_empty() {
            return Err(RpcError::new(NOT_CONNECTED, "Dunlin is not connected!"));
        }
        if view.is_initial_download(unix_now()) {
            let text = "Dunlin is in initial sync and waiting for blocks...";
            return Err(RpcError::new(CLIENT_IN_INITIAL_DOWNLOAD, text));
        }
    }
    if let Some(id) = &long_poll {
        wait_for_change(&call, &*bitcoin, id).await?;
    }
    let has = |rule: &str| rules.iter().any(|known| known == rule);
    if network == Network::Signet && !has("signet") {
        let text = "getblocktemplate must be called with the signet rule set (call with {\"rules\": [\"segwit\", \"signet\"]})";
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    if !has("segwit") {
        let text = "getblocktemplate must be called with the segwit rule set (call with {\"rules\": [\"segwit\"]})";
        return Err(RpcError::new(INVALID_PARAMETER, text));
    }
    let shared = Arc::clone(&call.shared);
    let work = move || {
        shared
            .templates
            .current(&*bitcoin)
            .map(|template| show(&bitcoin.view(), &template))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| RpcError::new(INTERNAL_ERROR, err.to_string()))?
}

/// Waits until the tip is another than the one that a `longpollid` names, or until the pool has changed since then.
async fn wait_for_change(call: &Call, bitcoin: &dyn BitcoinBackend, id: &str) -> Result<(), RpcError> {
    let (tip, sequence) = id.split_at_checked(64).unwrap_or((id, ""));
    let tip: BlockHash = parse_hash(tip, "longpollid")?;
    let sequence: Option<u64> = sequence.parse().ok();
    let view = bitcoin.view();
    let mut changes = bitcoin.tip_changed();
    let mut patience = POOL_FIRST;
    while view.tip().hash == tip {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            () = tokio::time::sleep(patience) => {
                if Some(with_pool(bitcoin, |pool| pool.sequence())) != sequence {
                    break;
                }
                patience = POOL_AGAIN;
            }
            () = call.shared.node.stop.wait() => return Err(RpcError::new(NOT_CONNECTED, "Shutting down")),
        }
    }
    Ok(())
}

fn show(view: &View, template: &BlockTemplate) -> Value {
    let base = Base::on_tip(view, unix_now());
    let mut places: HashMap<Txid, usize> = HashMap::new();
    let mut transactions: Vec<Value> = Vec::new();
    for (index, chosen) in template.chosen.txs.iter().enumerate() {
        let inputs = chosen.tx.input.iter();
        let depends: Vec<usize> = inputs
            .filter_map(|input| places.get(&input.previous_output.txid).copied())
            .collect();
        // The coinbase stands before them.
        places.insert(chosen.txid, index + 1);
        transactions.push(json!({
            "data": tx::to_hex(&chosen.tx),
            "txid": chosen.txid.to_string(),
            "hash": chosen.wtxid.to_string(),
            "depends": depends,
            "fee": chosen.fee.to_sat(),
            "sigops": chosen.sigops,
            "weight": chosen.weight,
        }));
    }
    let signet = view
        .params()
        .signet_challenge
        .as_ref()
        .filter(|_| view.params().network == Network::Signet);
    let mut rules = vec!["csv", "!segwit", "taproot"];
    if signet.is_some() {
        rules.push("!signet");
    }
    let mut map = Map::new();
    map.insert("capabilities".into(), json!(["proposal"]));
    map.insert("version".into(), BLOCK_VERSION.to_consensus().into());
    map.insert("rules".into(), rules.into());
    map.insert("vbavailable".into(), json!({}));
    map.insert("vbrequired".into(), 0.into());
    map.insert("previousblockhash".into(), template.base.parent.to_string().into());
    map.insert("transactions".into(), transactions.into());
    map.insert("coinbaseaux".into(), json!({}));
    map.insert("coinbasevalue".into(), template.value.into());
    map.insert(
        "longpollid".into(),
        format!("{}{}", template.base.parent, template.sequence).into(),
    );
    map.insert(
        "target".into(),
        hex::encode(Target::from_compact(base.bits).to_be_bytes()).into(),
    );
    // At the epoch the clock asks for nothing, so what is left is what the rules ask for.
    map.insert("mintime".into(), Base::on_tip(view, 0).time.into());
    map.insert("mutable".into(), json!(["time", "transactions", "prevblock"]));
    map.insert("noncerange".into(), "00000000ffffffff".into());
    map.insert("sigoplimit".into(), MAX_BLOCK_SIGOPS_COST.into());
    map.insert("sizelimit".into(), MAX_BLOCK_BYTES.into());
    map.insert("weightlimit".into(), MAX_BLOCK_WEIGHT.into());
    map.insert("curtime".into(), base.time.into());
    map.insert("bits".into(), format!("{:08x}", base.bits.to_consensus()).into());
    map.insert("height".into(), base.height.into());
    if let Some(challenge) = signet {
        map.insert("signet_challenge".into(), hex::encode(challenge).into());
    }
    if let Some(commitment) = &template.commitment {
        map.insert(
            "default_witness_commitment".into(),
            hex::encode(commitment.as_bytes()).into(),
        );
    }
    Value::Object(map)
}
