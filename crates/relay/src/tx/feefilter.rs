//! Telling peers below which fee rate a transaction is not worth announcing to us (BIP 133).

use std::time::Duration;

use dunlin_peer::{LinkId, Now};
use rand::Rng;

use crate::node::Node;
use crate::peer::Peer;
use crate::wire::Message;

/// From this version on peers understand `feefilter`.
const FEEFILTER_VERSION: u32 = 70_013;
const MEAN_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Nothing pays this much: all the money there can be.
const EVERYTHING: i64 = 21_000_000 * 100_000_000;
/// What is told is rounded to steps of a tenth, so that it does not give the mempool's fill away.
const STEP: f64 = 1.1;
const HIGHEST_STEP: f64 = 1e7;

/// When [`tick`] has something to do for this peer.
pub(crate) fn next(peer: &Peer) -> Now {
    peer.tx.next_fee
}

/// Tells the peer our fee filter when it is time and the filter changed.
pub(crate) fn tick(node: &mut Node, link: LinkId, downloading: bool) {
    let (now, blocks_only) = (node.now, node.config.blocks_only);
    let Some(peer) = node.ready(link) else { return };
    let leaving = !downloading && peer.tx.fee_sent == EVERYTHING;
    if peer.version < FEEFILTER_VERSION || !peer.relays_txs() || blocks_only {
        // Never.
        peer.tx.next_fee = Now::from_micros(u64::MAX);
        return;
    }
    if peer.tx.next_fee > now && !leaving {
        return;
    }
    let (floor, least) = {
        let info = node.pool().info();
        (sats(info.min_relay_feerate), sats(info.min_feerate))
    };
    let filter = if downloading {
        EVERYTHING
    } else if least <= floor {
        // A pool with room asks for no more than its lowest rate, and that is no secret.
        floor
    } else {
        round(node, least).max(floor)
    };
    let next = now + node.exponential(MEAN_INTERVAL);
    let Some(peer) = node.ready(link) else { return };
    peer.tx.next_fee = next;
    if peer.tx.fee_sent != filter {
        peer.tx.fee_sent = filter;
        node.send(link, Message::FeeFilter(filter));
    }
}

fn sats(rate: u64) -> i64 {
    i64::try_from(rate).unwrap_or(EVERYTHING).min(EVERYTHING)
}

/// A step near the rate: the next above it, or, two times of three, the one below that.
fn round(node: &mut Node, rate: i64) -> i64 {
    let mut below = 0.0;
    let mut step = 50.0;
    while step < rate as f64 && step < HIGHEST_STEP {
        below = step;
        step *= STEP;
    }
    // A step is at most ten million, so the conversion is exact enough and cannot overflow.
    if node.rng.random_range(0..3) == 0 {
        step as i64
    } else {
        below as i64
    }
}
