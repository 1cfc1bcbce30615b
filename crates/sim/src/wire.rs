//! How long bytes take: latency, bandwidth, and loss as TCP shows it.

use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::Conditions;

/// The payload of one TCP segment on an Ethernet path.
const SEGMENT: usize = 1448;
/// The shortest retransmission timeout (Linux's).
const MIN_RTO: Duration = Duration::from_millis(200);
/// A segment lost this many times in a row resets the link.
const MAX_LOSSES: u32 = 7;
/// With this many segments behind it a lost one is noticed after a round trip instead of a timeout.
const FAST_RETRANSMIT: usize = 3;

/// One direction of a link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// When what was sent so far has left the sender.
    free_at: Now,
    /// When what was sent so far has arrived; nothing overtakes.
    last_arrival: Now,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives(Now),
    /// Lost so often that the link is reset then.
    Resets(Now),
}

impl Way {
    /// Sends `length` bytes at `now` over a path of the given latency.
    pub(crate) fn send(
        &mut self,
        now: Now,
        length: usize,
        latency: Duration,
        conditions: &Conditions,
        rng: &mut ChaCha8Rng,
    ) -> Fate {
        let start = self.free_at.max(now);
        self.free_at = start + transmission(length, conditions.bandwidth);
        let jitter = rng.random_range(0..=micros(conditions.jitter));
        let mut arrival = self.free_at + latency + Duration::from_micros(jitter);
        if conditions.loss > 0 {
            match retransmissions(length, latency, conditions.loss, rng) {
                Ok(delay) => arrival = arrival + delay,
                Err(delay) => return Fate::Resets(arrival + delay),
            }
        }
        self.last_arrival = arrival.max(self.last_arrival);
        Fate::Arrives(self.last_arrival)
    }

    /// When everything sent so far has left the sender.
    pub(crate) fn drained_at(&self, now: Now) -> Now {
        self.free_at.max(now)
    }
}

pub(crate) fn transmission(length: usize, bandwidth: u64) -> Duration {
    let micros = (length as u128 * 1_000_000) / u128::from(bandwidth.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The delay that losses add to a message, or (`Err`) the time after which TCP gives up.
fn retransmissions(length: usize, latency: Duration, loss: u32, rng: &mut ChaCha8Rng) -> Result<Duration, Duration> {
    let segments = length.div_ceil(SEGMENT).max(1);
    let round_trip = latency * 2;
    let mut total = Duration::ZERO;
    for segment in 0..segments {
        let mut timeout = MIN_RTO.max(round_trip * 2);
        let mut losses = 0;
        while rng.random_range(0..1_000_000) < loss {
            losses += 1;
            if losses == 1 && segments - segment > FAST_RETRANSMIT {
                total += round_trip;
                continue;
            }
            total += timeout;
            timeout *= 2;
            if losses == MAX_LOSSES {
                return Err(total);
            }
        }
    }
    Ok(total)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LATENCY: Duration = Duration::from_millis(50);

    fn still() -> Conditions {
        Conditions {
            jitter: Duration::ZERO,
            bandwidth: 1_000_000,
            ..Conditions::default()
        }
    }

    #[test]
    fn bandwidth_queues_and_latency_adds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut way = Way::default();
        let start = Now::from_unix_secs(100);
        let mut send = |length| way.send(start, length, LATENCY, &still(), &mut rng);
        assert_eq!(send(500_000), Fate::Arrives(start + Duration::from_millis(550)));
        assert_eq!(send(250_000), Fate::Arrives(start + Duration::from_millis(800)));
        assert_eq!(way.drained_at(start), start + Duration::from_millis(750));
    }

    #[test]
    fn jitter_never_lets_messages_overtake() {
        let conditions = Conditions {
            jitter: Duration::from_secs(1),
            ..still()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut way = Way::default();
        let mut last = Now::default();
        for step in 0..1000 {
            let now = Now::from_micros(step * 1000);
            let Fate::Arrives(at) = way.send(now, 10, LATENCY, &conditions, &mut rng) else {
                panic!("no loss, no reset");
            };
            assert!(at >= last && at >= now + LATENCY);
            last = at;
        }
    }

    #[test]
    fn loss_delays_and_heavy_loss_resets() {
        let run = |loss| {
            let conditions = Conditions { loss, ..still() };
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let (mut late, mut resets) = (0, 0);
            for _ in 0..2000 {
                match Way::default().send(Now::default(), 100, LATENCY, &conditions, &mut rng) {
                    Fate::Arrives(at) if at > Now::default() + Duration::from_millis(51) => late += 1,
                    Fate::Arrives(_) => {}
                    Fate::Resets(_) => resets += 1,
                }
            }
            (late, resets)
        };
        assert_eq!(run(0), (0, 0));
        let (late, resets) = run(10_000);
        assert!((5..60).contains(&late) && resets == 0, "{late} {resets}");
        let (late, resets) = run(600_000);
        assert!(late > 900 && (20..200).contains(&resets), "{late} {resets}");
    }
}
