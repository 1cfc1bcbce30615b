//! How long transactions of each fee rate took until they were in a block, over one horizon of time.

use super::buckets::{BUCKETS, bucket_of};

/// Where in a block's past a transaction came, and what it pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracked {
    /// The height of the tip when it came.
    pub(super) height: u32,
    /// Its bucket of fee rates.
    pub(super) bucket: usize,
}

/// What distinguishes the horizons.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Periods that are told apart.
    pub(super) periods: usize,
    /// Blocks in a period.
    pub(super) blocks: u32,
    /// What remains of the past with each block.
    pub(super) decay: f64,
    /// Transactions that a range of buckets must have for each block, on average.
    pub(super) enough: f64,
}

/// See the module. All sums fade with each block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Horizon {
    /// Transactions in blocks, by bucket.
    pub(super) mined: Vec<f64>,
    /// The sum of their fee rates, by bucket.
    pub(super) rates: Vec<f64>,
    /// Those in a block within each count of periods, by period and bucket.
    pub(super) within: Vec<Vec<f64>>,
    /// Those that left without a block after each count of periods, by period and bucket.
    pub(super) failed: Vec<Vec<f64>>,
    /// Those that wait, by the height at which they came, modulo the longest wait told apart, and bucket.
    waiting: Vec<Vec<u32>>,
    /// Those that wait even longer, by bucket.
    old: Vec<u32>,
}

impl Horizon {
    pub(super) fn new(scale: &Scale) -> Self {
        Self {
            mined: vec![0.0; BUCKETS],
            rates: vec![0.0; BUCKETS],
            within: vec![vec![0.0; BUCKETS]; scale.periods],
            failed: vec![vec![0.0; BUCKETS]; scale.periods],
            waiting: vec![vec![0; BUCKETS]; scale.periods * scale.blocks as usize],
            old: vec![0; BUCKETS],
        }
    }

    fn slot(&self, height: u32) -> usize {
        height as usize % self.waiting.len().max(1)
    }

    pub(super) fn entered(&mut self, tracked: Tracked) {
        let slot = self.slot(tracked.height);
        if let Some(count) = cell(&mut self.waiting, slot, tracked.bucket) {
            *count = count.saturating_add(1);
        }
    }

    /// A transaction waits no more. `best` is the height of the last block that was looked at.
    pub(super) fn left(&mut self, scale: &Scale, tracked: Tracked, best: u32, mined: bool) {
        let age = if best == 0 {
            0
        } else {
            best.saturating_sub(tracked.height)
        };
        let slot = self.slot(tracked.height);
        let count = if age as usize >= self.waiting.len() {
            self.old.get_mut(tracked.bucket)
        } else {
            cell(&mut self.waiting, slot, tracked.bucket)
        };
        if let Some(count) = count {
            *count = count.saturating_sub(1);
        }
        if !mined {
            for row in self.failed.iter_mut().take((age / scale.blocks) as usize) {
                if let Some(sum) = row.get_mut(tracked.bucket) {
                    *sum += 1.0;
                }
            }
        }
    }

    /// A block came: the past fades, and what came at the oldest height told apart is old now.
    pub(super) fn block(&mut self, scale: &Scale, height: u32) {
        let slot = self.slot(height);
        if let Some(row) = self.waiting.get_mut(slot) {
            for (old, count) in self.old.iter_mut().zip(row) {
                *old = old.saturating_add(std::mem::take(count));
            }
        }
        let rows = self.within.iter_mut().chain(&mut self.failed);
        for sum in rows.chain([&mut self.mined, &mut self.rates]).flatten() {
            *sum *= scale.decay;
        }
    }

    /// A transaction of `rate` was in the block after `blocks` blocks, at least one.
    pub(super) fn mined(&mut self, scale: &Scale, blocks: u32, rate: f64) {
        let periods = blocks.div_ceil(scale.blocks) as usize;
        let bucket = bucket_of(rate);
        for row in self.within.iter_mut().skip(periods.saturating_sub(1)) {
            if let Some(sum) = row.get_mut(bucket) {
                *sum += 1.0;
            }
        }
        if let (Some(mined), Some(rates)) = (self.mined.get_mut(bucket), self.rates.get_mut(bucket)) {
            *mined += 1.0;
            *rates += rate;
        }
    }

    /// The fee rate, in satoshi per 1000 virtual bytes, of the cheapest range of buckets whose transactions were in a
    /// block within `target` blocks with a probability of `success`. Ranges are looked at from the dearest down, each
    /// as wide as it takes to have enough transactions. `best` is the height of the last block.
    pub(super) fn rate(&self, scale: &Scale, target: u32, success: f64, best: u32) -> Option<f64> {
        let period = (target.div_ceil(scale.blocks) as usize).checked_sub(1)?;
        let (within, failed) = (self.within.get(period)?, self.failed.get(period)?);
        let (mut near, mut answer) = (BUCKETS, None);
        let (mut confirmed, mut all, mut part) = (0.0, 0.0, 0.0);
        for bucket in (0..BUCKETS).rev() {
            let at = |row: &[f64]| row.get(bucket).copied().unwrap_or_default();
            confirmed += at(within);
            part += at(&self.mined);
            all += at(&self.mined) + at(failed) + f64::from(self.waiting_since(bucket, target, best));
            if part < scale.enough / (1.0 - scale.decay) {
                continue;
            }
            part = 0.0;
            if confirmed / all < success {
                // Cheaper ones may still pull the range over the mark.
                continue;
            }
            answer = Some((bucket, near));
            near = bucket;
            (confirmed, all) = (0.0, 0.0);
        }
        let (low, high) = answer?;
        self.median(low, high)
    }

    /// Transactions of a bucket that wait since `target` blocks or longer.
    fn waiting_since(&self, bucket: usize, target: u32, best: u32) -> u32 {
        let spans = target..u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let rows = spans.filter_map(|span| self.waiting.get(self.slot(best.checked_sub(span)?))?.get(bucket));
        rows.fold(self.old.get(bucket).copied().unwrap_or_default(), |sum, count| {
            sum.saturating_add(*count)
        })
    }

    /// The mean rate of the bucket that has the median transaction of `low..high`.
    fn median(&self, low: usize, high: usize) -> Option<f64> {
        let counts = self.mined.get(low..high)?;
        let mut half = counts.iter().sum::<f64>() / 2.0;
        if half == 0.0 {
            return None;
        }
        for (count, rates) in counts.iter().zip(self.rates.get(low..high)?) {
            if *count >= half {
                return Some(rates / count);
            }
            half -= count;
        }
        None
    }
}

fn cell(rows: &mut [Vec<u32>], row: usize, bucket: usize) -> Option<&mut u32> {
    rows.get_mut(row)?.get_mut(bucket)
}
