//! What to pay: `estimatesmartfee`.

use dunlin_chain::Network;
use dunlin_mempool::{Estimator, FeeRate};
use serde_json::json;

use super::error::{INVALID_PARAMETER, RpcError};
use super::json::btc_u;
use super::method::{Answer, Call};
use super::{unix_now, with_pool};

/// The answer on regtest, where nobody pays for a place in a block and programs want an answer all the same: 0.0018
/// BTC per 1000 virtual bytes.
const REGTEST_RATE: FeeRate = FeeRate::from_sat_per_kvb(180_000);

pub(crate) fn estimatesmartfee(call: &Call) -> Answer {
    let most = Estimator::MAX_TARGET;
    let target: i32 = call.int(0)?;
    let target = u32::try_from(target)
        .ok()
        .filter(|target| (1..=most).contains(target))
        .ok_or_else(|| {
            let text = format!("Invalid conf_target, must be between 1 and {most}");
            RpcError::new(INVALID_PARAMETER, text)
        })?;
    let conservative = match call.opt_str(1)?.unwrap_or("economical").to_lowercase().as_str() {
        "conservative" => true,
        "economical" | "unset" => false,
        _ => {
            let text = "Invalid estimate_mode parameter, must be one of: \"unset\", \"economical\", \"conservative\"";
            return Err(RpcError::new(INVALID_PARAMETER, text));
        }
    };
    let bitcoin = call.bitcoin()?;
    let (estimate, least) = with_pool(&*bitcoin, |pool| {
        (
            pool.estimator().estimate(target, conservative),
            pool.min_feerate(unix_now()),
        )
    });
    if let Some(rate) = estimate.rate {
        return Ok(json!({ "feerate": btc_u(rate.max(least).sat_per_kvb()), "blocks": estimate.blocks }));
    }
    if bitcoin.view().params().network == Network::Regtest {
        return Ok(json!({ "feerate": btc_u(REGTEST_RATE.max(least).sat_per_kvb()), "blocks": target.max(2) }));
    }
    Ok(json!({ "errors": ["Insufficient data or no feerate found"], "blocks": estimate.blocks }))
}
