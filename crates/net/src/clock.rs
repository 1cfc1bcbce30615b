//! The wall clock, read once, and monotonic time from there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_peer::{Now, time_offset};

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

    /// The present instant; never goes back, unless the process's time offset does.
    pub fn now(&self) -> Now {
        let read = self.base + self.started.elapsed();
        Now::from_micros(time_offset::apply(read.as_micros()))
    }

    /// The instant as the runtime's timers count it.
    pub(crate) fn deadline(&self, at: Now) -> tokio::time::Instant {
        // A century is as good as never and cannot overflow the runtime's clock.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        let read = Now::from_micros(at.as_micros().saturating_sub_signed(time_offset::micros()));
        (self.started + read.since(self.base).min(CENTURY)).into()
    }
}
