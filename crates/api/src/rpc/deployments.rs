//! `getdeploymentinfo`: since when which rules hold.
//!
//! The deployments that Core lists are buried at fixed heights, but for one: regtest's `testdummy`, which blocks vote
//! on by BIP 9 and which changes no rule.

use bitcoin::BlockHash;
use dunlin_chain::script::{self, Flags};
use dunlin_chain::{Entry, Network, View};
use serde_json::{Map, Value, json};

use super::chain::block_not_found;
use super::method::{Answer, Call};

/// `testdummy` on regtest: its bit, and in periods of how many blocks how many must vote.
const BIT: u32 = 28;
const PERIOD: u32 = 144;
const THRESHOLD: u32 = 108;
/// It never times out.
const TIMEOUT: i64 = i64::MAX;

/// Core's names of the script flags, in their order.
const FLAG_NAMES: [(Flags, &str); 7] = [
    (script::VERIFY_CHECKLOCKTIMEVERIFY, "CHECKLOCKTIMEVERIFY"),
    (script::VERIFY_CHECKSEQUENCEVERIFY, "CHECKSEQUENCEVERIFY"),
    (script::VERIFY_DERSIG, "DERSIG"),
    (script::VERIFY_NULLDUMMY, "NULLDUMMY"),
    (script::VERIFY_P2SH, "P2SH"),
    (script::VERIFY_TAPROOT, "TAPROOT"),
    (script::VERIFY_WITNESS, "WITNESS"),
];

pub(crate) fn getdeploymentinfo(call: &Call) -> Answer {
    let view = call.view()?;
    let entry = if call.given(0) {
        let hash: BlockHash = call.hash(0, "blockhash")?;
        view.entry(&hash).ok_or_else(block_not_found)?
    } else {
        view.tip()
    };
    let params = view.params();
    let flags = script::block_flags(params, entry.height, &entry.hash);
    let names: Vec<&str> = FLAG_NAMES
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    let mut deployments = Map::new();
    for (name, height) in [
        ("bip34", params.bip34_height),
        ("bip66", params.bip66_height),
        ("bip65", params.bip65_height),
        ("csv", params.csv_height),
        ("segwit", params.segwit_height),
    ] {
        let active = entry.height.saturating_add(1) >= height;
        let row = json!({ "type": "buried", "active": active, "height": height });
        deployments.insert(name.to_owned(), row);
    }
    if params.network == Network::Regtest {
        deployments.insert("testdummy".to_owned(), test_dummy(&view, &entry));
    }
    Ok(json!({
        "hash": entry.hash.to_string(),
        "height": entry.height,
        "script_flags": names,
        "deployments": deployments,
    }))
}

/// The state of a vote over one period (BIP 9).
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Defined,
    Started,
    LockedIn,
    Active,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Started => "started",
            Self::LockedIn => "locked_in",
            Self::Active => "active",
        }
    }
}

/// Whether each block of the chain that ends with `entry` votes, from `from` to `to`.
fn votes(view: &View, entry: &Entry, from: u32, to: u32) -> Vec<bool> {
    let vote = |height| {
        let block = view.ancestor(&entry.hash, height).and_then(|hash| view.entry(&hash))?;
        let version = block.header.version.to_consensus() as u32;
        Some(version & 0xe000_0000 == 0x2000_0000 && version & (1 << BIT) != 0)
    };
    (from..=to).filter_map(vote).collect()
}

/// The state in each period of the chain that ends with `entry`, up to the one that the block after it is in.
fn states(view: &View, entry: &Entry) -> Vec<State> {
    let mut states = vec![State::Defined];
    for period in 1..=entry.height.saturating_add(1) / PERIOD {
        let next = match states.last() {
            Some(State::Started) => {
                let (from, to) = ((period - 1) * PERIOD, period * PERIOD - 1);
                let count = votes(view, entry, from, to).into_iter().filter(|vote| *vote).count();
                if count >= THRESHOLD as usize {
                    State::LockedIn
                } else {
                    State::Started
                }
            }
            Some(State::LockedIn | State::Active) => State::Active,
            _ => State::Started,
        };
        states.push(next);
    }
    states
}

fn test_dummy(view: &View, entry: &Entry) -> Value {
    let states = states(view, entry);
    let state_at = |height: u32| {
        let period = (height / PERIOD) as usize;
        states.get(period).copied().unwrap_or(State::Defined)
    };
    let since_of = |state: State| {
        let period = states.iter().position(|other| *other == state).unwrap_or(0);
        u32::try_from(period).unwrap_or(u32::MAX).saturating_mul(PERIOD)
    };
    let (current, next) = (state_at(entry.height), state_at(entry.height.saturating_add(1)));
    let counted = matches!(current, State::Started | State::LockedIn);
    let mut bip9 = Map::new();
    if counted {
        bip9.insert("bit".into(), BIT.into());
    }
    bip9.insert("start_time".into(), 0.into());
    bip9.insert("timeout".into(), TIMEOUT.into());
    bip9.insert("min_activation_height".into(), 0.into());
    bip9.insert("status".into(), current.name().into());
    bip9.insert("since".into(), since_of(current).into());
    bip9.insert("status_next".into(), next.name().into());
    if counted {
        let votes = votes(view, entry, entry.height / PERIOD * PERIOD, entry.height);
        let (elapsed, count) = (votes.len(), votes.iter().filter(|vote| **vote).count());
        let mut statistics = Map::new();
        statistics.insert("period".into(), PERIOD.into());
        statistics.insert("elapsed".into(), elapsed.into());
        statistics.insert("count".into(), count.into());
        if current == State::Started {
            let possible = (PERIOD - THRESHOLD) as usize >= elapsed.saturating_sub(count);
            statistics.insert("threshold".into(), THRESHOLD.into());
            statistics.insert("possible".into(), possible.into());
        }
        bip9.insert("statistics".into(), statistics.into());
        let signs: String = votes.iter().map(|vote| if *vote { '#' } else { '-' }).collect();
        bip9.insert("signalling".into(), signs.into());
    }
    let mut row = Map::new();
    row.insert("type".into(), "bip9".into());
    if next == State::Active {
        row.insert("height".into(), since_of(State::Active).into());
    }
    row.insert("active".into(), (next == State::Active).into());
    row.insert("bip9".into(), bip9.into());
    Value::Object(row)
}
