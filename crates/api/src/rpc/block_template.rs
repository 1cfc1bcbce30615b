//! `getblocktemplate` (BIPs 22, 23, 145): what to mine, at once or when something changes.
//!
//! A template is kept until the tip moves, or until the memory pool has changed and it is some seconds old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{BlockHash, ScriptBuf, Target, Txid};
use dunlin_chain::build::{BLOCK_VERSION, Base, assemble};
use dunlin_chain::rules::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_COMMITMENT_HEADER};
use dunlin_chain::{Network, View};
use dunlin_mempool::Template;
use serde_json::{Map, Value, json};

use super::error::{
    CLIENT_IN_INITIAL_DOWNLOAD, INTERNAL_ERROR, INVALID_PARAMETER, NOT_CONNECTED, RpcError, TYPE_ERROR,
};
use super::method::{Answer, Call};
use super::params::{mismatch, parse_hash};
use super::{tx, unix_now, with_pool};
use crate::backend::BitcoinBackend;

/// A template is not made anew for changes of the pool before it is so old.
const KEPT: Duration = Duration::from_secs(5);
/// Who waits for a change first hears of the pool's after so long, and then after each [`POOL_AGAIN`].
const POOL_FIRST: Duration = Duration::from_secs(60);
/// See [`POOL_FIRST`].
const POOL_AGAIN: Duration = Duration::from_secs(10);
/// How often a template is asked for while the pool follows a chain that just moved.
const ATTEMPTS: u32 = 100;
/// The time between two such attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// The largest block in bytes.
const MAX_BLOCK_BYTES: u64 = 4_000_000;

/// A template that was made.
#[derive(Clone)]
struct Kept {
    tip: BlockHash,
    /// The pool's change counter when it was made.
    sequence: u64,
    made: Instant,
    chosen: Arc<Template>,
    /// The script of the commitment to the witnesses.
    commitment: Option<ScriptBuf>,
    /// What a coinbase may take.
    value: u64,
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
            weight: kept.chosen.weight.saturating_add(dunlin_mempool::RESERVED_WEIGHT),
            transactions: kept.chosen.txs.len(),
        })
    }

    fn current(&self, bitcoin: &dyn BitcoinBackend) -> Result<Kept, RpcError> {
        let view = bitcoin.view();
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*slot {
            let unchanged = || with_pool(bitcoin, |pool| pool.sequence()) == kept.sequence;
            if kept.tip == view.tip().hash && (kept.made.elapsed() <= KEPT || unchanged()) {
                return Ok(kept.clone());
            }
        }
        let kept = make(bitcoin, &view)?;
        *slot = Some(kept.clone());
        Ok(kept)
    }
}

/// Chooses anew. The pool may be a moment behind a chain that just moved.
fn make(bitcoin: &dyn BitcoinBackend, view: &View) -> Result<Kept, RpcError> {
    for _ in 0..ATTEMPTS {
        let before = view.generation();
        let base = Base::on_tip(view, unix_now());
        let (chosen, sequence) = with_pool(bitcoin, |pool| (pool.template(MAX_BLOCK_WEIGHT), pool.sequence()));
        if view.generation() != before {
            std::thread::sleep(PAUSE);
            continue;
        }
        let txs = chosen.txs.iter().map(|chosen| (*chosen.tx).clone()).collect();
        let block = assemble(view.params(), &base, txs, chosen.fees, ScriptBuf::new(), b"");
        let outputs = block
            .txdata
            .first()
            .map(|coinbase| coinbase.output.as_slice())
            .unwrap_or_default();
        let commits = |script: &&ScriptBuf| script.as_bytes().starts_with(&WITNESS_COMMITMENT_HEADER);
        return Ok(Kept {
            tip: base.parent,
            sequence,
            made: Instant::now(),
            chosen: Arc::new(chosen),
            commitment: outputs
                .iter()
                .map(|output| &output.script_pubkey)
                .find(commits)
                .cloned(),
            value: outputs.first().map_or(0, |output| output.value.to_sat()),
        });
    }
    Err(RpcError::new(
        INTERNAL_ERROR,
        "The chain moves too fast to make a block template",
    ))
}

/// What a miner asks for.
struct Asked {
    rules: Vec<String>,
    long_poll: Option<String>,
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
    Ok(Asked { rules, long_poll })
}

pub(crate) async fn getblocktemplate(call: Call) -> Answer {
    let asked = asked(&call)?;
    let bitcoin = call.bitcoin()?;
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
    if let Some(id) = &asked.long_poll {
        wait_for_change(&call, &*bitcoin, id).await?;
    }
    let has = |rule: &str| asked.rules.iter().any(|known| known == rule);
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
            .map(|kept| show(&bitcoin.view(), &kept))
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

fn show(view: &View, kept: &Kept) -> Value {
    let base = Base::on_tip(view, unix_now());
    let mut places: HashMap<Txid, usize> = HashMap::new();
    let mut transactions: Vec<Value> = Vec::new();
    for (index, chosen) in kept.chosen.txs.iter().enumerate() {
        let inputs = chosen.tx.input.iter();
        let depends: Vec<usize> = inputs
            .filter_map(|input| places.get(&input.previous_output.txid).copied())
            .collect();
        let txid = chosen.tx.compute_txid();
        // The coinbase stands before them.
        places.insert(txid, index + 1);
        transactions.push(json!({
            "data": tx::to_hex(&chosen.tx),
            "txid": txid.to_string(),
            "hash": chosen.tx.compute_wtxid().to_string(),
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
    map.insert("capabilities".into(), json!([]));
    map.insert("version".into(), BLOCK_VERSION.to_consensus().into());
    map.insert("rules".into(), rules.into());
    map.insert("vbavailable".into(), json!({}));
    map.insert("vbrequired".into(), 0.into());
    map.insert("previousblockhash".into(), kept.tip.to_string().into());
    map.insert("transactions".into(), transactions.into());
    map.insert("coinbaseaux".into(), json!({}));
    map.insert("coinbasevalue".into(), kept.value.into());
    map.insert("longpollid".into(), format!("{}{}", kept.tip, kept.sequence).into());
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
    if let Some(commitment) = &kept.commitment {
        map.insert(
            "default_witness_commitment".into(),
            hex::encode(commitment.as_bytes()).into(),
        );
    }
    Value::Object(map)
}
