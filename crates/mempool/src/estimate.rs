//! Fee estimates: what transactions paid that were in a block soon enough, learned from those that this node saw come
//! and saw mined. The method and its constants are Bitcoin Core's: three horizons of time that fade at their own pace,
//! and three marks of success that an estimate has to reach together.

mod buckets;
mod file;
mod horizon;

use std::collections::HashMap;

use bitcoin::Txid;

use crate::{Entry, FeeRate};
use buckets::bucket_of;
pub use file::EstimateFileError;
use horizon::{Horizon, Scale, Tracked};

/// Shares of transactions that have to be in a block within half the target, the target, and twice the target.
const HALF_SUCCESS: f64 = 0.6;
const SUCCESS: f64 = 0.85;
const DOUBLE_SUCCESS: f64 = 0.95;
/// Blocks after which what an earlier run learned says nothing of how long this one may look ahead.
const OLDEST_HISTORY: u32 = 6 * 1008;

/// The horizons: half a day or less in single blocks, two days in pairs, a week in sixths of days.
const SCALES: [Scale; 3] = [
    Scale {
        periods: 12,
        blocks: 1,
        decay: 0.962,
        enough: 0.5,
    },
    Scale {
        periods: 24,
        blocks: 2,
        decay: 0.9952,
        enough: 0.1,
    },
    Scale {
        periods: 42,
        blocks: 24,
        decay: 0.99931,
        enough: 0.1,
    },
];

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The fee rate, unless too little is known.
    pub rate: Option<FeeRate>,
    /// For how many blocks it holds; less than was asked for where the node has not run for long.
    pub blocks: u32,
}

/// What was learned. See the module.
#[derive(Clone, Debug)]
pub struct Estimator {
    horizons: [Horizon; 3],
    /// Transactions that wait.
    tracked: HashMap<Txid, Tracked>,
    /// The height of the last block.
    best: u32,
    /// The first block with a transaction that we saw come; 0 before it.
    first: u32,
    /// The first and the last block of an earlier run.
    earlier: (u32, u32),
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            horizons: SCALES.each_ref().map(Horizon::new),
            tracked: HashMap::new(),
            best: 0,
            first: 0,
            earlier: (0, 0),
        }
    }
}

impl Estimator {
    /// The most blocks ahead that an answer can be asked for.
    pub const MAX_TARGET: u32 = 1008;

    /// A transaction came that could be in the next block, and pays for itself only.
    pub(crate) fn entered(&mut self, entry: &Entry) {
        if entry.height != self.best || self.tracked.contains_key(&entry.txid) {
            return;
        }
        let tracked = Tracked {
            height: entry.height,
            bucket: bucket_of(rate(entry)),
        };
        self.tracked.insert(entry.txid, tracked);
        self.horizons.iter_mut().for_each(|horizon| horizon.entered(tracked));
    }

    /// A transaction left without a block, or after [`Estimator::block_connected`].
    pub(crate) fn left(&mut self, txid: &Txid) {
        self.forget(txid, false);
    }

    fn forget(&mut self, txid: &Txid, mined: bool) -> Option<Tracked> {
        let tracked = self.tracked.remove(txid)?;
        for (horizon, scale) in self.horizons.iter_mut().zip(&SCALES) {
            horizon.left(scale, tracked, self.best, mined);
        }
        Some(tracked)
    }

    /// A block came with these transactions of the pool. Blocks below the highest one say nothing.
    pub(crate) fn block_connected<'a>(&mut self, height: u32, entries: impl Iterator<Item = &'a Entry>) {
        if height <= self.best {
            return;
        }
        self.best = height;
        if self.first == 0 && self.earlier.1 == 0 && self.tracked.is_empty() {
            // Nothing is known that could fade: the usual case during the first sync.
            return;
        }
        for (horizon, scale) in self.horizons.iter_mut().zip(&SCALES) {
            horizon.block(scale, height);
        }
        for entry in entries {
            let Some(tracked) = self.forget(&entry.txid, true) else {
                continue;
            };
            let blocks = height.saturating_sub(tracked.height);
            if blocks == 0 {
                continue;
            }
            for (horizon, scale) in self.horizons.iter_mut().zip(&SCALES) {
                horizon.mined(scale, blocks, rate(entry));
            }
            if self.first == 0 {
                self.first = height;
            }
        }
    }

    /// What to pay to be in a block within `target` blocks. A conservative answer looks back further and is slower to
    /// follow falling fees.
    pub fn estimate(&self, target: u32, conservative: bool) -> Estimate {
        // What a transaction has to pay to be in the very next block cannot be told.
        let blocks = target.max(2).min(self.longest_target());
        if blocks <= 1 || target > Self::MAX_TARGET {
            return Estimate { rate: None, blocks };
        }
        let half = self.combined(blocks / 2, HALF_SUCCESS, true);
        let whole = self.combined(blocks, SUCCESS, true);
        let double = self.combined(2 * blocks, DOUBLE_SUCCESS, !conservative);
        let mut best = [half, whole, double].into_iter().flatten().reduce(f64::max);
        if conservative || best.is_none() {
            best = best.into_iter().chain(self.cautious(2 * blocks)).reduce(f64::max);
        }
        let rate = best.map(|rate| FeeRate::from_sat_per_kvb(rate.round() as u64));
        Estimate { rate, blocks }
    }

    /// Half of the blocks that were watched, so that there was time to fail, too.
    fn longest_target(&self) -> u32 {
        let now = if self.first == 0 { 0 } else { self.best - self.first };
        let (first, last) = self.earlier;
        let recent = first != 0 && self.best.saturating_sub(last) <= OLDEST_HISTORY;
        let before = if recent { last.saturating_sub(first) } else { 0 };
        (now.max(before) / 2).min(Self::MAX_TARGET)
    }

    /// The answer of one horizon.
    fn of(&self, which: usize, target: u32, success: f64) -> Option<f64> {
        let (horizon, scale) = (self.horizons.get(which)?, SCALES.get(which)?);
        horizon.rate(scale, target, success, self.best)
    }

    /// The answer of the shortest horizon that reaches as far; with `shorter`, a lower one that a shorter horizon gives
    /// for as far as it reaches counts, too.
    fn combined(&self, target: u32, success: f64, shorter: bool) -> Option<f64> {
        let reach = SCALES.each_ref().map(reach);
        let which = reach.iter().position(|reach| target <= *reach)?;
        let mut answer = self.of(which, target, success);
        if shorter {
            for (shorter, reach) in reach.iter().enumerate().take(which).rev() {
                answer = answer
                    .into_iter()
                    .chain(self.of(shorter, *reach, success))
                    .reduce(f64::min);
            }
        }
        answer
    }

    /// The highest answer of the longer horizons.
    fn cautious(&self, target: u32) -> Option<f64> {
        let longer = |short: usize| {
            let reach = SCALES.get(short).map_or(0, reach);
            (target <= reach)
                .then(|| self.of(short + 1, target, DOUBLE_SUCCESS))
                .flatten()
        };
        longer(0).into_iter().chain(longer(1)).reduce(f64::max)
    }
}

/// The longest target of a horizon, in blocks.
fn reach(scale: &Scale) -> u32 {
    u32::try_from(scale.periods)
        .unwrap_or(u32::MAX)
        .saturating_mul(scale.blocks)
}

/// What a transaction pays by itself, in satoshi per 1000 virtual bytes.
fn rate(entry: &Entry) -> f64 {
    FeeRate::of(entry.fee, entry.vsize).sat_per_kvb() as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, Transaction};

    use super::*;

    /// A market: so many transactions come for each block, at rates spread around a level; a block takes the dearest.
    struct Market {
        estimator: Estimator,
        waiting: Vec<Entry>,
        height: u32,
        count: u32,
        dice: u64,
    }

    impl Market {
        fn new() -> Self {
            let mut market = Self {
                estimator: Estimator::default(),
                waiting: Vec::new(),
                height: 100,
                count: 0,
                dice: 1,
            };
            market.estimator.block_connected(100, [].iter());
            market
        }

        fn entry(&mut self, rate: u64) -> Entry {
            self.count += 1;
            let tx = Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(self.count),
                input: vec![],
                output: vec![],
            };
            let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
            let mut entry = Entry::new(Arc::new(tx), txid, wtxid, Amount::ZERO, 0);
            entry.vsize = 1000;
            entry.fee = Amount::from_sat(rate);
            entry.height = self.height;
            entry
        }

        /// `count` transactions around `level`, then a block with room for 40.
        fn step(&mut self, count: u32, level: u64) {
            for _ in 0..count {
                self.dice = self
                    .dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let rate = level / 2 + (self.dice >> 33) % (level * 3 / 2);
                let entry = self.entry(rate);
                self.estimator.entered(&entry);
                self.waiting.push(entry);
            }
            self.waiting.sort_by_key(|entry| std::cmp::Reverse(entry.fee));
            let mined: Vec<Entry> = self.waiting.drain(..self.waiting.len().min(40)).collect();
            self.height += 1;
            self.estimator.block_connected(self.height, mined.iter());
        }

        fn rate(&self, target: u32, conservative: bool) -> u64 {
            let estimate = self.estimator.estimate(target, conservative);
            assert_eq!(estimate.blocks, target.max(2));
            estimate.rate.unwrap().sat_per_kvb()
        }
    }

    #[test]
    fn nothing_is_said_before_anything_is_known() {
        let estimator = Estimator::default();
        assert_eq!(estimator.estimate(6, true), Estimate { rate: None, blocks: 0 });
        let mut market = Market::new();
        market.step(30, 10_000);
        assert_eq!(market.estimator.estimate(6, true).rate, None);
    }

    #[test]
    fn who_waits_longer_pays_less() {
        let mut market = Market::new();
        for block in 0..400 {
            // More than fits for a while, then less, so that patience is rewarded.
            market.step(if block % 12 < 6 { 55 } else { 22 }, 10_000);
        }
        let rates: Vec<u64> = [1, 2, 4, 8, 24].map(|target| market.rate(target, false)).to_vec();
        assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
        assert!(rates[0] > rates[4], "{rates:?}");
        assert!(rates.iter().all(|rate| (4_000..=20_000).contains(rate)), "{rates:?}");
        assert!(market.rate(8, true) >= market.rate(8, false));
    }

    #[test]
    fn a_rise_is_followed_at_once_and_a_fall_soon() {
        let mut market = Market::new();
        (0..300).for_each(|_| market.step(35, 5_000));
        let calm = market.rate(2, false);
        (0..30).for_each(|_| market.step(60, 100_000));
        let spike = market.rate(2, false);
        assert!(spike > 8 * calm, "{calm} then {spike}");
        market.waiting.clear();
        market.estimator.tracked.clear();
        (0..150).for_each(|_| market.step(35, 5_000));
        let after = market.rate(2, false);
        assert!(after < spike / 4, "{spike} then {after}");
    }

    #[test]
    fn what_was_learned_outlives_a_restart() {
        let mut market = Market::new();
        (0..100).for_each(|_| market.step(45, 10_000));
        let bytes = market.estimator.encode(1000);
        let again = Estimator::decode(&bytes, 2000).unwrap();
        assert_eq!(again.encode(1000), bytes);
        assert_eq!(again.longest_target(), market.estimator.longest_target());
        let (before, after) = (
            market.rate(6, true),
            again.estimate(6, true).rate.unwrap().sat_per_kvb(),
        );
        assert!(after.abs_diff(before) <= before / 5, "{before} then {after}");
        let hour = 60 * 60;
        assert!(matches!(
            Estimator::decode(&bytes, 1001 + 60 * hour),
            Err(EstimateFileError::TooOld)
        ));
        for cut in [0, 7, 30, bytes.len() - 1] {
            assert!(matches!(
                Estimator::decode(&bytes[..cut], 2000),
                Err(EstimateFileError::Damaged)
            ));
        }
        let mut flipped = bytes;
        flipped[5000] ^= 1;
        assert!(matches!(
            Estimator::decode(&flipped, 2000),
            Err(EstimateFileError::Damaged)
        ));
    }
}
