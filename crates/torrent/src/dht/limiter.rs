//! How much we do for strangers: so that a forged source address cannot make us flood somebody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dunlin_peer::Now;

/// The time over which queries of one address are counted.
const WINDOW: Duration = Duration::from_secs(5);
/// Queries of one address answered in a window.
const QUERIES: u32 = 50;
/// Addresses counted at once.
const MAX_SOURCES: usize = 10_000;
/// Bytes of answers a second.
const RATE: u64 = 128 << 10;
/// Bytes of answers at once.
const BURST: u64 = 256 << 10;

/// Counts queries by address, and bytes of answers.
#[derive(Debug)]
pub(crate) struct Limiter {
    window: Now,
    counts: BTreeMap<IpAddr, u32>,
    tokens: u64,
    filled: Now,
}

impl Limiter {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            window: now,
            counts: BTreeMap::new(),
            tokens: BURST,
            filled: now,
        }
    }

    /// Whether a query from this address is looked at.
    pub(crate) fn admits(&mut self, now: Now, from: IpAddr) -> bool {
        if now.since(self.window) >= WINDOW {
            self.window = now;
            self.counts.clear();
        }
        if self.counts.len() >= MAX_SOURCES && !self.counts.contains_key(&from) {
            return false;
        }
        let count = self.counts.entry(from).or_default();
        *count = count.saturating_add(1);
        *count <= QUERIES
    }

    /// Whether an answer of so many bytes may go out; it counts as sent then.
    pub(crate) fn spends(&mut self, now: Now, bytes: usize) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(RATE) / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.filled = now;
        }
        match self.tokens.checked_sub(bytes as u64) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_and_all_together_are_bounded() {
        let start = Now::from_unix_secs(0);
        let mut limiter = Limiter::new(start);
        let ip = |n: u32| IpAddr::V4(n.into());
        let admitted = (0..1000).filter(|_| limiter.admits(start, ip(1))).count();
        assert_eq!(admitted, QUERIES as usize);
        assert!(limiter.admits(start, ip(2)));
        assert!(limiter.admits(start + WINDOW, ip(1)));
        let sources = (0..20_000).filter(|n| limiter.admits(start + WINDOW, ip(*n))).count();
        assert_eq!(sources, MAX_SOURCES);

        let sent = (0..1000).filter(|_| limiter.spends(start, 1024)).count();
        assert_eq!(sent as u64, BURST / 1024);
        let later = start + Duration::from_millis(500);
        let sent = (0..1000).filter(|_| limiter.spends(later, 1024)).count();
        assert_eq!(sent as u64, RATE / 2 / 1024);
    }
}
