//! What a process has cost so far, as Linux counts it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The clock ticks of `/proc/PID/stat`: 100 a second on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// The cost of a piece of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) wall: Duration,
    /// User and system time of all threads.
    pub(crate) cpu: Duration,
    /// The most memory that was resident at once, bytes.
    pub(crate) peak_memory: u64,
}

/// A piece of work under way in another process.
pub(crate) struct Meter {
    pid: u32,
    start: Instant,
    cpu: Duration,
}

impl Meter {
    /// Counts from now on.
    pub(crate) fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            start: Instant::now(),
            cpu: cpu(pid)?,
        })
    }

    /// Counts from `start` on, for a process that came to life then.
    pub(crate) fn from_birth(pid: u32, start: Instant) -> Self {
        Self {
            pid,
            start,
            cpu: Duration::ZERO,
        }
    }

    /// The cost up to now.
    pub(crate) fn read(&self) -> Result<Cost> {
        let wall = self.start.elapsed();
        Ok(Cost {
            wall,
            cpu: cpu(self.pid)?.saturating_sub(self.cpu),
            peak_memory: peak_memory(self.pid)?,
        })
    }
}

/// User and system time: fields 14 and 15 of `/proc/PID/stat`, counted after the name in parentheses.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process runs")?;
    let (_, fields) = stat.rsplit_once(')').context("stat has a name")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process runs")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .context("status has a peak")?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .context("the peak has a number")?
        .parse()?;
    Ok(kib << 10)
}
