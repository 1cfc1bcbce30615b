//! Waiting for something to become true, with a limit and a reason.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `check` gives a value and returns it; after `limit` fails and says `what` did not happen.
///
/// # Errors
/// When the limit passes first.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if Instant::now() >= end {
            anyhow::bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `check` is true.
///
/// # Errors
/// When `limit` passes first; the message says `what` did not happen.
pub fn wait_until(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> anyhow::Result<()> {
    wait_for(what, limit, || check().then_some(()))
}

/// Looks until two values are equal; a failure shows the last values seen.
///
/// # Errors
/// When `limit` passes first.
pub fn wait_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut left: impl FnMut() -> T,
    mut right: impl FnMut() -> T,
) -> anyhow::Result<()> {
    let mut seen = None;
    let outcome = wait_until(what, limit, || {
        let pair = (left(), right());
        let equal = pair.0 == pair.1;
        seen = Some(pair);
        equal
    });
    outcome.map_err(|error| match seen {
        Some((left, right)) => anyhow::anyhow!("{error}: {left:?} is not {right:?}"),
        None => error,
    })
}
