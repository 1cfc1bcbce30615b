//! `getmininginfo` and `getnetworkhashps`: how hard blocks are.

use bitcoin::{Target, Work};
use dunlin_chain::build::Base;
use dunlin_chain::{Entry, Network, View};
use serde_json::{Map, Value, json};

use super::chain::{bits, target};
use super::error::{INVALID_PARAMETER, RpcError};
use super::json::{btc_u, difficulty, float};
use super::method::{Answer, Call};
use super::{unix_now, with_pool};

/// Over how many blocks the hash rate is told when nothing else is said.
const DEFAULT_BLOCKS: i32 = 120;

/// Work as a float: each 32 bits by themselves, the lowest first, as Core adds them.
fn work_as_float(work: Work) -> f64 {
    let bytes = work.to_le_bytes();
    let (words, _) = bytes.as_chunks::<4>();
    let mut factor = 1.0;
    words.iter().fold(0.0, |sum, word| {
        let sum = sum + factor * f64::from(u32::from_le_bytes(*word));
        factor *= 4_294_967_296.0;
        sum
    })
}

/// Hashes a second over `count` blocks up to `last`; over those since the last retarget for -1.
fn hash_rate(view: &View, count: i32, height: i32) -> Result<Value, RpcError> {
    let invalid = |text: &str| RpcError::new(INVALID_PARAMETER, text);
    if count < -1 || count == 0 {
        return Err(invalid("Invalid nblocks. Must be a positive number or -1."));
    }
    let tip = view.tip();
    let last = match u32::try_from(height) {
        Ok(height) => view
            .entry_at(height)
            .ok_or_else(|| invalid("Block does not exist at specified height"))?,
        Err(_) if height == -1 => tip,
        Err(_) => return Err(invalid("Block does not exist at specified height")),
    };
    if last.height == 0 {
        return Ok(0.into());
    }
    let count = match u32::try_from(count) {
        Ok(count) => count.min(last.height),
        Err(_) => (last.height % view.params().retarget_interval())
            .saturating_add(1)
            .min(last.height),
    };
    let (mut first, mut earliest, mut latest) = (last.clone(), last.header.time, last.header.time);
    for _ in 0..count {
        let Some(before) = view.entry(&first.header.prev_blockhash) else {
            break;
        };
        earliest = earliest.min(before.header.time);
        latest = latest.max(before.header.time);
        first = before;
    }
    if earliest == latest {
        return Ok(0.into());
    }
    let work = work_between(&first, &last);
    Ok(float(work_as_float(work) / f64::from(latest - earliest)))
}

fn work_between(first: &Entry, last: &Entry) -> Work {
    last.chain_work - first.chain_work
}

pub(crate) fn getnetworkhashps(call: &Call) -> Answer {
    hash_rate(&call.view()?, call.int_or(0, DEFAULT_BLOCKS)?, call.int_or(1, -1)?)
}

pub(crate) fn getmininginfo(call: &Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let view = bitcoin.view();
    let tip = view.tip();
    let (pooled, least) = with_pool(&*bitcoin, |pool| (pool.len(), pool.config().block_min_feerate));
    let mut map = Map::new();
    map.insert("blocks".into(), tip.height.into());
    if let Some(last) = call.shared.templates.last() {
        map.insert("currentblockweight".into(), last.weight.into());
        map.insert("currentblocktx".into(), last.transactions.into());
    }
    map.insert("bits".into(), format!("{:08x}", bits(&tip.header)).into());
    map.insert("difficulty".into(), float(difficulty(bits(&tip.header))));
    map.insert("target".into(), target(&tip.header).into());
    map.insert("networkhashps".into(), hash_rate(&view, DEFAULT_BLOCKS, -1)?);
    map.insert("pooledtx".into(), pooled.into());
    map.insert("blockmintxfee".into(), btc_u(least.sat_per_kvb()));
    map.insert("chain".into(), view.params().network.chain_name().into());
    let next = Base::on_tip(&view, unix_now());
    map.insert(
        "next".into(),
        json!({
            "height": next.height,
            "bits": format!("{:08x}", next.bits.to_consensus()),
            "difficulty": float(difficulty(next.bits.to_consensus())),
            "target": hex::encode(Target::from_compact(next.bits).to_be_bytes()),
        }),
    );
    if view.params().network == Network::Signet
        && let Some(challenge) = &view.params().signet_challenge
    {
        map.insert("signet_challenge".into(), hex::encode(challenge).into());
    }
    map.insert("warnings".into(), view.warning().into_iter().collect());
    Ok(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_becomes_a_float() {
        let mut bytes = [0; 32];
        bytes[31] = 2;
        assert_eq!(work_as_float(Work::from_be_bytes(bytes)), 2.0);
        bytes[27] = 1;
        assert_eq!(work_as_float(Work::from_be_bytes(bytes)), 4_294_967_298.0);
    }
}
