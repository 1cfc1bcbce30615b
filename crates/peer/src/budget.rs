//! A token bucket: so much a second, so much at once.

use std::time::Duration;

use crate::Now;

const MICROS_PER_SEC: u128 = 1_000_000;

/// Allows `rate` units a second on average and `burst` units at once. Integers only, so equal inputs give equal runs.
///
/// A budget starts full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    rate: u64,
    burst: u64,
    tokens: u64,
    /// Fraction of a token earned so far, in millionths.
    fraction: u64,
    last: Option<Now>,
}

impl Budget {
    /// A full budget that refills by `rate` units a second up to `burst`.
    pub fn new(rate: u64, burst: u64) -> Self {
        Self {
            rate,
            burst,
            tokens: burst,
            fraction: 0,
            last: None,
        }
    }

    /// Units a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The most that can be taken at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Changes both figures; what is already saved stays, as far as the new burst holds it.
    pub fn set(&mut self, now: Now, rate: u64, burst: u64) {
        self.refill(now);
        self.rate = rate;
        self.burst = burst;
        self.tokens = self.tokens.min(burst);
    }

    /// Takes `count` units, or nothing when there are fewer. More than the burst is never granted.
    pub fn take(&mut self, now: Now, count: u64) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(count) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Takes as much of `count` as there is and says how much that was.
    pub fn take_up_to(&mut self, now: Now, count: u64) -> u64 {
        self.refill(now);
        let taken = self.tokens.min(count);
        self.tokens -= taken;
        taken
    }

    /// Gives back units that were taken and not used, or grants extra ones.
    pub fn grant(&mut self, count: u64) {
        self.tokens = self.tokens.saturating_add(count).min(self.burst);
    }

    /// Units that can be taken at `now`.
    pub fn available(&mut self, now: Now) -> u64 {
        self.refill(now);
        self.tokens
    }

    /// How long until `count` units can be taken; zero when they can be taken now, `None` when they never can
    /// (more than the burst, or a rate of zero).
    pub fn wait(&mut self, now: Now, count: u64) -> Option<Duration> {
        self.refill(now);
        let missing = count.saturating_sub(self.tokens);
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        if count > self.burst || self.rate == 0 {
            return None;
        }
        let needed = u128::from(missing) * MICROS_PER_SEC - u128::from(self.fraction);
        let micros = needed.div_ceil(u128::from(self.rate));
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    fn refill(&mut self, now: Now) {
        let last = self.last.unwrap_or(now);
        self.last = Some(last.max(now));
        let elapsed = now.as_micros().saturating_sub(last.as_micros());
        let earned = u128::from(elapsed) * u128::from(self.rate) + u128::from(self.fraction);
        let whole = u64::try_from(earned / MICROS_PER_SEC).unwrap_or(u64::MAX);
        self.tokens = self.tokens.saturating_add(whole).min(self.burst);
        self.fraction = if self.tokens == self.burst {
            0
        } else {
            // A remainder of a division by a million fits.
            (earned % MICROS_PER_SEC) as u64
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Now {
        Now::from_micros(1_000_000_000 + micros)
    }

    #[test]
    fn starts_full_and_refills_at_its_rate() {
        let mut budget = Budget::new(10, 20);
        assert!(budget.take(at(0), 20));
        assert!(!budget.take(at(0), 1));
        assert!(!budget.take(at(99_999), 1));
        assert!(budget.take(at(100_000), 1));
        assert_eq!(budget.available(at(60_000_000)), 20);
        assert!(!budget.take(at(60_000_000), 21));
    }

    #[test]
    fn slow_polling_and_fast_polling_earn_the_same() {
        let mut fast = Budget::new(3, 1_000);
        let mut slow = fast.clone();
        fast.take_up_to(at(0), 1_000);
        slow.take_up_to(at(0), 1_000);
        for step in 0..10_000 {
            fast.available(at(step * 777));
        }
        assert_eq!(fast.available(at(7_770_000)), slow.available(at(7_770_000)));
        assert_eq!(slow.available(at(7_770_000)), 23);
    }

    #[test]
    fn wait_says_exactly_when() {
        let mut budget = Budget::new(7, 10);
        assert_eq!(budget.wait(at(0), 10), Some(Duration::ZERO));
        assert_eq!(budget.take_up_to(at(0), 99), 10);
        let wait = budget.wait(at(0), 3).unwrap();
        let then = at(u64::try_from(wait.as_micros()).unwrap());
        assert!(!budget.clone().take(Now::from_micros(then.as_micros() - 1), 3));
        assert!(budget.take(then, 3));
        assert_eq!(budget.wait(then, 11), None);
        assert_eq!(Budget::new(0, 5).wait(at(0), 6), None);
    }

    #[test]
    fn time_that_goes_back_and_huge_numbers_do_no_harm() {
        let mut budget = Budget::new(u64::MAX, u64::MAX);
        assert!(budget.take(at(5_000), u64::MAX));
        assert!(!budget.take(at(0), 1));
        assert!(budget.take(Now::from_micros(u64::MAX), u64::MAX));
        let mut small = Budget::new(1, 1);
        assert!(small.take(at(1_000_000), 1));
        assert!(!small.take(at(0), 1));
        assert!(!small.take(at(1_000_000), 1));
    }
}
