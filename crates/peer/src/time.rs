//! Time as an argument: a machine never reads a clock.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// An instant: microseconds since the Unix epoch that never go back.
///
/// The driver reads the wall clock once at its start and adds monotonic time to it, so differences are always
/// meaningful and [`Now::unix_secs`] is fit for protocol fields. The simulator hands out virtual instants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(u64);

impl Now {
    /// An instant from microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// An instant from whole seconds since the Unix epoch.
    pub const fn from_unix_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time from `earlier` to `self`; zero when `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    /// Saturates at the end of time.
    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// By how much every clock of this process is set off, for tests of chains without worth (`setmocktime`). Clocks add it;
/// a machine never reads it.
pub mod offset {
    use std::sync::atomic::{AtomicI64, Ordering};

    static MICROS: AtomicI64 = AtomicI64::new(0);

    /// The offset in microseconds.
    pub fn micros() -> i64 {
        MICROS.load(Ordering::Relaxed)
    }

    /// Sets the offset in microseconds.
    pub fn set(micros: i64) {
        MICROS.store(micros, Ordering::Relaxed);
    }

    /// The instant that a clock shows which reads `micros` since the Unix epoch.
    pub fn apply(read: u64) -> u64 {
        read.saturating_add_signed(micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_saturates_and_add_saturates() {
        let early = Now::from_unix_secs(5);
        let late = early + Duration::from_millis(1_500);
        assert_eq!(late.since(early), Duration::from_millis(1_500));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(
            Now::from_micros(u64::MAX) + Duration::from_secs(1),
            Now::from_micros(u64::MAX)
        );
        assert_eq!(late.unix_secs(), 6);
    }
}
