//! The rolling minimum fee rate: it rises above what was evicted from a full pool, and falls with time once blocks make
//! room again.

use crate::FeeRate;

/// Seconds in which the floor falls by half.
const HALF_LIFE: f64 = 12.0 * 60.0 * 60.0;

/// The floor of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// Satoshi per 1000 virtual bytes.
    rate: f64,
    updated: u64,
    /// A block arrived since the floor was last raised; before that it does not fall.
    block_since: bool,
    step: FeeRate,
}

impl Floor {
    pub(crate) fn new(step: FeeRate) -> Self {
        Self {
            rate: 0.0,
            updated: 0,
            block_since: false,
            step,
        }
    }

    /// A chunk of this rate was evicted for lack of room.
    pub(crate) fn evicted(&mut self, rate: FeeRate) {
        let rate = rate.saturating_add(self.step).sat_per_kvb() as f64;
        if rate > self.rate {
            self.rate = rate;
            self.block_since = false;
        }
    }

    /// A block was connected at `now`, in Unix seconds.
    pub(crate) fn block(&mut self, now: u64) {
        self.updated = now;
        self.block_since = true;
    }

    /// The floor at `now`. It falls faster while less than half, or a quarter, of the room is used.
    pub(crate) fn at(&self, now: u64, usage: u64, room: u64) -> FeeRate {
        let rate = self.decayed(now, usage, room);
        if rate == 0.0 {
            return FeeRate::default();
        }
        let rate = FeeRate::from_sat_per_kvb(rate.round() as u64);
        if self.block_since { rate.max(self.step) } else { rate }
    }

    /// Writes the fall until `now` down, so that later calls go on from there.
    pub(crate) fn settle(&mut self, now: u64, usage: u64, room: u64) {
        if self.block_since && now > self.updated.saturating_add(10) {
            self.rate = self.decayed(now, usage, room);
            self.updated = now;
        }
    }

    fn decayed(&self, now: u64, usage: u64, room: u64) -> f64 {
        if !self.block_since || self.rate == 0.0 || now <= self.updated.saturating_add(10) {
            return self.rate;
        }
        let half_life = if usage < room / 4 {
            HALF_LIFE / 4.0
        } else if usage < room / 2 {
            HALF_LIFE / 2.0
        } else {
            HALF_LIFE
        };
        let rate = self.rate / 2_f64.powf((now - self.updated) as f64 / half_life);
        if rate < self.step.sat_per_kvb() as f64 / 2.0 {
            0.0
        } else {
            rate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(floor: &Floor, now: u64, usage: u64) -> u64 {
        floor.at(now, usage, 1000).sat_per_kvb()
    }

    #[test]
    fn rises_with_evictions_and_falls_after_a_block() {
        let mut floor = Floor::new(FeeRate::from_sat_per_kvb(100));
        assert_eq!(at(&floor, 0, 1000), 0);
        floor.evicted(FeeRate::from_sat_per_kvb(900));
        floor.evicted(FeeRate::from_sat_per_kvb(300));
        assert_eq!(at(&floor, 100 * HOUR, 1000), 1000, "without a block it stays");
        floor.block(100 * HOUR);
        assert_eq!(at(&floor, 100 * HOUR + 10, 1000), 1000);
        assert_eq!(at(&floor, 112 * HOUR, 1000), 500);
        assert_eq!(at(&floor, 106 * HOUR, 400), 500, "faster when half empty");
        assert_eq!(at(&floor, 103 * HOUR, 200), 500, "and faster still");
        floor.settle(112 * HOUR, 1000, 1000);
        assert_eq!(at(&floor, 124 * HOUR, 1000), 250);
        assert_eq!(
            at(&floor, 145 * HOUR, 1000),
            100,
            "never between the step and half of it"
        );
        assert_eq!(at(&floor, 154 * HOUR, 1000), 0, "below half a step it is gone");
    }
}
