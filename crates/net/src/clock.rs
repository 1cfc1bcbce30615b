//! The wall clock, read once, and monotonic time from there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_peer::Now;

/// Gives the instants that machines see.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    base: Now,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            started: Instant::now(),
            base: Now::default() + wall,
        }
    }

    /// The present instant; never goes back.
    pub fn now(&self) -> Now {
        self.base + self.started.elapsed()
    }

    /// The instant as the runtime's timers count it.
    pub(crate) fn deadline(&self, at: Now) -> tokio::time::Instant {
        // A century is as good as never and cannot overflow the runtime's clock.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        (self.started + at.since(self.base).min(CENTURY)).into()
    }
}
