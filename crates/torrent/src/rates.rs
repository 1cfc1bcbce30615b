//! Bytes per second, smoothed over a few seconds, from time as an argument.

use std::time::Duration;

use dunlin_peer::Now;

use crate::wire::BLOCK_LEN;

/// Length of one measuring slot.
const SLOT: Duration = Duration::from_millis(500);
/// Slots that the rate looks back on.
const SLOTS: usize = 8;

/// A limit of bytes a second: what was not used for a second at most may be used later.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    rate: Option<u64>,
    left: i64,
    filled: Now,
}

impl Bucket {
    /// With a rate; `None` is no limit.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            ..Self::default()
        }
    }

    /// The rate.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Bytes that may be used now.
    pub(crate) fn left(&mut self, now: Now) -> u64 {
        let Some(rate) = self.rate else { return u64::MAX };
        let most = i64::try_from(rate.max(u64::from(BLOCK_LEN))).unwrap_or(i64::MAX);
        let gained = u128::from(rate) * u128::from(micros(now.since(self.filled))) / 1_000_000;
        // Small rates gain nothing in a short time: such a time is not thrown away.
        if gained > 0 {
            self.filled = now;
            self.left = self
                .left
                .saturating_add(i64::try_from(gained).unwrap_or(i64::MAX))
                .min(most);
        }
        u64::try_from(self.left).unwrap_or(0)
    }

    /// Uses bytes, also more than are left: they are missing later.
    pub(crate) fn take(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

/// Counts bytes and gives their rate over the last four seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    total: u64,
    slots: [u64; SLOTS],
    /// Number of the newest slot, counted from the epoch.
    newest: u64,
    /// When the first byte of the present run of activity came.
    since: Option<Now>,
}

impl Meter {
    /// Counts `bytes` at `now`.
    pub(crate) fn add(&mut self, now: Now, bytes: u64) {
        self.roll(now);
        self.since.get_or_insert(now);
        self.total = self.total.saturating_add(bytes);
        let slot = &mut self.slots[slot_index(self.newest)];
        *slot = slot.saturating_add(bytes);
    }

    /// Every byte counted so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes per second over the window that ends at `now`.
    pub(crate) fn rate(&self, now: Now) -> u64 {
        let mut copy = self.clone();
        copy.roll(now);
        let Some(since) = copy.since else { return 0 };
        let bytes = copy.slots.iter().fold(0u64, |sum, &slot| sum.saturating_add(slot));
        // The newest slot is only partly over; a run younger than the window is measured over its own length.
        let slot_micros = micros(SLOT);
        let window = (SLOTS as u64 - 1) * slot_micros + now.as_micros() % slot_micros;
        let span = micros(now.since(since)).clamp(slot_micros, window.max(slot_micros));
        let rate = u128::from(bytes) * 1_000_000 / u128::from(span);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Empties the slots that time has passed over.
    fn roll(&mut self, now: Now) {
        let slot = now.as_micros() / micros(SLOT);
        if slot <= self.newest {
            return;
        }
        let passed = slot - self.newest;
        if passed >= SLOTS as u64 {
            self.slots = [0; SLOTS];
            self.since = None;
        } else {
            for number in self.newest + 1..=slot {
                self.slots[slot_index(number)] = 0;
            }
        }
        self.newest = slot;
    }
}

fn slot_index(number: u64) -> usize {
    // Below SLOTS by the remainder, so it fits and indexes.
    (number % SLOTS as u64) as usize
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_reads_as_its_rate_and_silence_as_zero() {
        let start = Now::from_unix_secs(1_000);
        let mut meter = Meter::default();
        for tenth in 0..100u64 {
            meter.add(start + Duration::from_millis(tenth * 100), 1_000);
        }
        let rate = meter.rate(start + Duration::from_secs(10));
        assert!((9_000..=11_500).contains(&rate), "{rate}");
        assert_eq!(meter.rate(start + Duration::from_secs(20)), 0);
        assert_eq!(meter.total(), 100_000);
    }

    #[test]
    fn a_young_stream_is_not_diluted_by_the_empty_past() {
        let start = Now::from_unix_secs(1_000);
        let mut meter = Meter::default();
        meter.add(start, 500_000);
        meter.add(start + Duration::from_millis(900), 500_000);
        let rate = meter.rate(start + Duration::from_secs(1));
        assert!((900_000..=1_100_000).contains(&rate), "{rate}");
    }
}
