//! How fast a peer gives blocks, and how much it may owe us for that.
//!
//! A peer is asked for what it gives in a few seconds: a fast one far away is never idle for want of requests, and a slow
//! one never sits on many blocks that others wait for.

use std::time::Duration;

use dunlin_peer::Now;

/// What a peer may owe before anything came from it.
pub(crate) const FIRST_ROOM: usize = 16;
/// What it may owe in any case, and at most.
const MIN_ROOM: usize = 2;
pub(crate) const MAX_ROOM: usize = 128;
/// A peer may owe what it gives in this time.
const HORIZON: Duration = Duration::from_secs(4);
/// Over how long a sample goes.
const SAMPLE: Duration = Duration::from_secs(1);
/// Shorter times than this measure the network's packets, not the peer.
const LEAST: Duration = Duration::from_millis(20);

/// What is known of one peer's speed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// Bytes a second, once anything came.
    per_second: Option<u64>,
    /// Since when it has owed us something without a sample being taken, and the bytes that came since.
    sample: Option<(Now, u64)>,
}

impl Rate {
    /// The peer, which owed nothing, does from now on.
    pub(crate) fn begins(&mut self, now: Now) {
        self.sample = Some((now, 0));
    }

    /// A block that was asked for came; `owes` says whether there are more.
    pub(crate) fn came(&mut self, now: Now, bytes: usize, owes: bool) {
        let Some((since, sum)) = self.sample else { return };
        let (elapsed, sum) = (now.since(since), sum.saturating_add(bytes as u64));
        self.sample = Some((since, sum));
        if elapsed >= SAMPLE || !owes {
            let millis = u64::try_from(elapsed.max(LEAST).as_millis()).unwrap_or(u64::MAX);
            let latest = sum.saturating_mul(1_000) / millis;
            self.per_second = Some(match self.per_second {
                None => latest,
                Some(usual) => (usual / 4).saturating_mul(3).saturating_add(latest / 4),
            });
            self.sample = owes.then_some((now, 0));
        }
    }

    /// How many blocks of this size the peer may owe us.
    pub(crate) fn room(&self, block: usize) -> usize {
        let Some(per_second) = self.per_second else {
            return FIRST_ROOM;
        };
        let bytes = per_second.saturating_mul(HORIZON.as_secs());
        let blocks = bytes / block.max(1) as u64;
        usize::try_from(blocks).unwrap_or(MAX_ROOM).clamp(MIN_ROOM, MAX_ROOM)
    }

    /// How long it would take, in seconds, until it had given `blocks` blocks of this size.
    pub(crate) fn wait(&self, blocks: usize, block: usize) -> u64 {
        let bytes = (blocks as u64).saturating_mul(block as u64);
        self.per_second.map_or(1, |rate| bytes / rate.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 1_000_000;

    fn at(millis: u64) -> Now {
        Now::from_micros(1_000_000_000 + millis * 1_000)
    }

    /// What a peer may owe after giving a block each `millis` for a while.
    fn room(millis: u64, block: usize) -> usize {
        let mut rate = Rate::default();
        assert_eq!(rate.room(block), FIRST_ROOM);
        rate.begins(at(0));
        for n in 1..60.max(3_000 / millis) {
            rate.came(at(n * millis), block, true);
        }
        rate.room(block)
    }

    #[test]
    fn who_gives_fast_may_owe_much_and_who_is_slow_little() {
        assert_eq!(room(5_000, BLOCK), MIN_ROOM);
        assert_eq!(room(500, BLOCK), 8);
        assert_eq!(room(1, BLOCK), MAX_ROOM);
        assert_eq!(room(100, 300), 40);
    }

    #[test]
    fn idle_times_do_not_count() {
        let mut rate = Rate::default();
        for hour in 0..10 {
            let start = hour * 3_600_000;
            rate.begins(at(start));
            rate.came(at(start + 250), BLOCK, false);
        }
        assert_eq!(rate.room(BLOCK), 16);
        assert_eq!(rate.wait(8, BLOCK), 2);
    }
}
