//! How much may be on its way: LEDBAT (RFC 6817) keeps the queueing delay that we cause near a target.

use std::time::Duration;

use dunlin_peer::Now;

/// The queueing delay that is aimed at, in microseconds.
const TARGET: i64 = 100_000;
/// Most bytes that the window grows by in one round trip.
const GAIN: i64 = 3_000;
/// The shortest delay is looked for among this many minutes.
const HISTORY: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Most bytes on their way.
const MAX_WINDOW: usize = 1 << 20;
/// Bounds of the retransmission timeout.
const MIN_RTO: Duration = Duration::from_millis(500);
const MAX_RTO: Duration = Duration::from_secs(30);

/// One direction's window and timers.
#[derive(Debug)]
pub(super) struct Congestion {
    mss: usize,
    window: usize,
    slow_start: bool,
    /// The shortest delay of each of the last minutes, by the wrapped clocks of both sides.
    base: Vec<u32>,
    minute: Option<Now>,
    srtt: Option<(Duration, Duration)>,
    pub(super) rto: Duration,
}

impl Congestion {
    pub(super) fn new(mss: usize) -> Self {
        Self {
            mss,
            window: 4 * mss,
            slow_start: true,
            base: Vec::new(),
            minute: None,
            srtt: None,
            rto: Duration::from_secs(1),
        }
    }

    /// Bytes that may be on their way.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// The time that a packet took to and fro; only of packets sent once.
    pub(super) fn round_trip(&mut self, sample: Duration) {
        let (srtt, var) = match self.srtt {
            None => (sample, sample / 2),
            Some((srtt, var)) => ((srtt * 7 + sample) / 8, (var * 3 + srtt.abs_diff(sample)) / 4),
        };
        self.srtt = Some((srtt, var));
        self.rto = (srtt + var * 4).clamp(MIN_RTO, MAX_RTO);
    }

    /// How long a round trip takes, when one was measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt.map(|(srtt, _)| srtt)
    }

    /// `acked` bytes came over, `flight` were on their way; the other side measured `delay` for one of our packets.
    pub(super) fn acked(&mut self, now: Now, acked: usize, flight: usize, delay: u32) {
        let queued = i64::from(self.queueing(now, delay));
        // A window that is not used must not grow.
        if flight + self.mss < self.window && queued < TARGET {
            return;
        }
        if self.slow_start {
            if queued < TARGET / 2 {
                self.window = (self.window + acked).min(MAX_WINDOW);
                return;
            }
            self.slow_start = false;
        }
        let off = (TARGET - queued).clamp(-TARGET, TARGET);
        // All factors are bounded: a few thousand, a hundred thousand, a mebibyte.
        let window = self.window.max(1) as i64;
        let change = GAIN * off / TARGET * (acked.min(MAX_WINDOW) as i64) / window;
        let next = (window + change).clamp(2 * self.mss as i64, MAX_WINDOW as i64);
        self.window = next as usize;
    }

    /// A packet was lost.
    pub(super) fn lost(&mut self) {
        self.slow_start = false;
        self.window = (self.window / 2).max(2 * self.mss);
    }

    /// Nothing came over for a whole timeout.
    pub(super) fn timed_out(&mut self) {
        self.slow_start = true;
        self.window = self.mss;
        self.rto = (self.rto * 2).min(MAX_RTO);
    }

    /// By how much `delay` is longer than the shortest one.
    fn queueing(&mut self, now: Now, delay: u32) -> u32 {
        if self.minute.is_none_or(|minute| now.since(minute) >= MINUTE) {
            self.minute = Some(now);
            if self.base.len() >= HISTORY {
                self.base.remove(0);
            }
            self.base.push(delay);
        }
        let shorter = |one: u32, other: u32| (one.wrapping_sub(other) as i32) < 0;
        if let Some(last) = self.base.last_mut()
            && shorter(delay, *last)
        {
            *last = delay;
        }
        let base = self
            .base
            .iter()
            .copied()
            .reduce(|a, b| if shorter(a, b) { a } else { b });
        base.map_or(0, |base| delay.wrapping_sub(base)).min(i32::MAX as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_while_nothing_queues_and_shrinks_when_something_does() {
        let mut congestion = Congestion::new(1000);
        let now = Now::from_unix_secs(1);
        for _ in 0..100 {
            let flight = congestion.window();
            congestion.acked(now, 1000, flight, u32::MAX - 5);
        }
        let grown = congestion.window();
        assert!(grown > 50_000, "{grown}");
        // The clock has wrapped, and 300 ms are queued.
        for _ in 0..2000 {
            let flight = congestion.window();
            congestion.acked(now, 1000, flight, 300_000);
        }
        assert!(congestion.window() < grown / 2, "{}", congestion.window());
        congestion.lost();
        congestion.timed_out();
        assert_eq!(congestion.window(), 1000);
    }
}
