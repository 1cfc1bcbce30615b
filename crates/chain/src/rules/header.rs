//! Header rules: proof of work, the difficulty schedule with its test network exceptions (BIP 94 for testnet4), the
//! median time past, and the versions that old soft forks made obsolete (BIPs 34, 66, 65).

use bitcoin::CompactTarget;
use bitcoin::block::Header;

use super::target::{derive_target, retarget};
use crate::{Params, Reject, RejectKind};

/// A block's time may be this far ahead of the clock, in seconds.
pub const MAX_FUTURE_BLOCK_TIME: u64 = 2 * 60 * 60;
/// BIP 94: the first block of a period may be this much earlier than the block before it, in seconds.
pub const MAX_TIMEWARP: u32 = 600;
/// Blocks in the median time past.
pub const MEDIAN_TIME_SPAN: u32 = 11;

/// A chain of headers, seen from its last block: what the rules for the next header need to know.
pub trait HeaderChain {
    /// Height of the last block.
    fn height(&self) -> u32;

    /// The header of this chain at `height`, which is never above [`height`](Self::height).
    fn header_at(&self, height: u32) -> Header;

    /// The headers from the last block down to the genesis block. Worth overriding where walking parents is cheaper
    /// than looking up heights.
    fn back(&self) -> impl Iterator<Item = Header> + '_ {
        (0..=self.height()).rev().map(|height| self.header_at(height))
    }
}

/// A slice with the genesis block first; the slice must not be empty.
impl HeaderChain for [Header] {
    fn height(&self) -> u32 {
        u32::try_from(self.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn header_at(&self, height: u32) -> Header {
        self[height as usize]
    }
}

/// What can be said of a header alone: its hash meets the target that it names, and that target is within the
/// network's limit.
pub fn check_header(params: &Params, header: &Header) -> Result<(), Reject> {
    let meets =
        derive_target(header.bits, params.pow_limit).is_some_and(|target| target.is_met_by(header.block_hash()));
    if meets {
        Ok(())
    } else {
        Err(Reject::header("high-hash", "proof of work failed"))
    }
}

/// The rules for `header` as the successor of the last block of `chain`. `now_unix` is the clock in seconds.
pub fn contextual_check_header<C: HeaderChain + ?Sized>(
    params: &Params,
    header: &Header,
    chain: &C,
    now_unix: u64,
) -> Result<(), Reject> {
    let height = chain.height().saturating_add(1);
    let required = next_work_required(params, chain, header.time);
    if header.bits != required {
        return Err(Reject::header(
            "bad-diffbits",
            format!(
                "incorrect proof of work: {:08x}, not {:08x}",
                header.bits.to_consensus(),
                required.to_consensus()
            ),
        ));
    }
    let median = median_time_past(chain);
    if header.time <= median {
        return Err(Reject::header(
            "time-too-old",
            format!(
                "block's timestamp is too early: {} is not after the median {median}",
                header.time
            ),
        ));
    }
    if params.enforce_bip94 && height.is_multiple_of(params.retarget_interval()) {
        let previous = chain.header_at(chain.height()).time;
        if i64::from(header.time) < i64::from(previous) - i64::from(MAX_TIMEWARP) {
            return Err(Reject::header(
                "time-timewarp-attack",
                "block's timestamp is too early on diff adjustment block",
            ));
        }
    }
    if u64::from(header.time) > now_unix.saturating_add(MAX_FUTURE_BLOCK_TIME) {
        return Err(Reject::new(
            RejectKind::TimeFuture,
            "time-too-new",
            format!("block timestamp {} is too far ahead of {now_unix}", header.time),
        ));
    }
    let version = header.version.to_consensus();
    let outdated = version < 2 && height >= params.bip34_height
        || version < 3 && height >= params.bip66_height
        || version < 4 && height >= params.bip65_height;
    if outdated {
        return Err(Reject::header(
            format!("bad-version(0x{version:08x})"),
            format!("rejected nVersion=0x{version:08x} block"),
        ));
    }
    Ok(())
}

/// The compact target that the successor of `chain`'s last block must name, if its time is `time`.
pub fn next_work_required<C: HeaderChain + ?Sized>(params: &Params, chain: &C, time: u32) -> CompactTarget {
    let interval = params.retarget_interval();
    let height = chain.height();
    let last = chain.header_at(height);
    let easiest = params.pow_limit.to_compact_lossy();

    if !height.saturating_add(1).is_multiple_of(interval) {
        if !params.allow_min_difficulty_blocks {
            return last.bits;
        }
        // Twenty minutes without a block: the next may, and must, be mined at the easiest target.
        if u64::from(time) > u64::from(last.time) + 2 * u64::from(params.target_spacing) {
            return easiest;
        }
        // Otherwise the difficulty in force: that of the last block which did not use the exception, looking back at
        // most to the start of the period.
        let mut at = height;
        for header in chain.back() {
            if at.is_multiple_of(interval) || header.bits != easiest {
                return header.bits;
            }
            at = at.saturating_sub(1);
        }
        return last.bits;
    }

    if params.no_retargeting {
        return last.bits;
    }
    // The period counts 2015 intervals, not 2016: a mistake of the first release that became the rule.
    let first = chain.header_at((height + 1).saturating_sub(interval));
    // BIP 94 scales the first block's target, which can not have used the minimum difficulty exception.
    let old = if params.enforce_bip94 { first.bits } else { last.bits };
    retarget(
        old,
        i64::from(last.time) - i64::from(first.time),
        params.target_timespan,
        params.pow_limit,
    )
}

/// Could `new` follow `old` at `height` in any valid chain? Lets a chain of headers be judged before its times are
/// trusted: one adjustment changes a target by at most a factor of four. Always true where the network allows
/// minimum difficulty blocks.
pub fn permitted_difficulty_transition(params: &Params, height: u32, old: CompactTarget, new: CompactTarget) -> bool {
    if params.allow_min_difficulty_blocks {
        return true;
    }
    if !height.is_multiple_of(params.retarget_interval()) {
        return old == new;
    }
    let span = params.target_timespan;
    let bound = |timespan| bitcoin::Target::from_compact(retarget(old, timespan, span, params.pow_limit));
    let observed = bitcoin::Target::from_compact(new);
    observed <= bound(i64::from(span) * 4) && observed >= bound(i64::from(span / 4))
}

/// The median time of the last eleven blocks of `chain`.
pub fn median_time_past<C: HeaderChain + ?Sized>(chain: &C) -> u32 {
    median(chain.back().take(MEDIAN_TIME_SPAN as usize).map(|header| header.time))
}

/// The median time past of the block at `height` of `chain`.
pub fn median_time_past_at<C: HeaderChain + ?Sized>(chain: &C, height: u32) -> u32 {
    let first = height.saturating_sub(MEDIAN_TIME_SPAN - 1);
    median((first..=height).map(|at| chain.header_at(at).time))
}

fn median(times: impl Iterator<Item = u32>) -> u32 {
    let mut sorted = [0; MEDIAN_TIME_SPAN as usize];
    let mut len = 0;
    for (place, time) in sorted.iter_mut().zip(times) {
        *place = time;
        len += 1;
    }
    sorted[..len].sort_unstable();
    sorted[len / 2]
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
