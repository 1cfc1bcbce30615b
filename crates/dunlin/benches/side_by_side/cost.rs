//! What a process has cost so far, as Linux counts it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The clock ticks of `/proc/PID/stat`: 100 a second on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;
const MIB: f64 = (1 << 20) as f64;

/// Named numbers of one round.
pub(crate) type Sample = Vec<(&'static str, f64)>;

/// The cost of a piece of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) wall: Duration,
    /// User and system time of all threads.
    pub(crate) cpu: Duration,
    /// The most memory that was resident at once, bytes.
    pub(crate) peak_memory: u64,
    /// Bytes handed to the disk.
    pub(crate) written: u64,
}

impl Cost {
    /// The figures for a report.
    pub(crate) fn sample(&self) -> Sample {
        vec![
            ("wall, s", self.wall.as_secs_f64()),
            ("CPU, s", self.cpu.as_secs_f64()),
            ("peak memory, MiB", self.peak_memory as f64 / MIB),
            ("written, MiB", self.written as f64 / MIB),
        ]
    }
}

/// A piece of work under way in another process.
#[derive(Clone, Copy)]
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
            written: written(self.pid)?,
        })
    }

    /// Runs `work` and returns the cost at its end, with the most memory of its own, in bytes, that the process was seen
    /// to have meanwhile: pages of files that it maps are not its own.
    pub(crate) fn read_while_watched(&self, work: impl FnOnce() -> Result<()>) -> Result<(Cost, u64)> {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !ended.load(Ordering::Relaxed) {
                    most = most.max(own_memory(self.pid).unwrap_or(0));
                    std::thread::sleep(Duration::from_millis(5));
                }
                most
            });
            let outcome = work().and_then(|()| self.read());
            ended.store(true, Ordering::Relaxed);
            let most = watch
                .join()
                .map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
            Ok((outcome?, most))
        })
    }

    /// Runs `stop`, which ends the process, and returns the last cost that was seen before its end.
    pub(crate) fn read_while(&self, stop: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let mut last = self.read()?;
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    if let Ok(cost) = self.read() {
                        last = cost;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let outcome = stop();
            ended.store(true, Ordering::Relaxed);
            let watched = watch.join();
            outcome.and(watched.map_err(|_| anyhow::anyhow!("the watching thread panicked")))
        })?;
        Ok(last)
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
    Ok(number(pid, "status", "VmHWM:")? << 10)
}

/// Bytes that are resident now.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    Ok(number(pid, "status", "VmRSS:")? << 10)
}

/// Memory that the process has and that no file backs, bytes.
pub(crate) fn own_memory(pid: u32) -> Result<u64> {
    Ok(number(pid, "status", "RssAnon:")? << 10)
}

fn written(pid: u32) -> Result<u64> {
    number(pid, "io", "write_bytes:")
}

/// The number that follows `name` in a file of `/proc/PID`.
fn number(pid: u32, file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).context("the process runs")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("{file} has {name}"))?.parse()?)
}
