//! What the watcher reads: each thing as it happens, in plain words, with the time.

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Story {
    start: Instant,
    stop: Arc<AtomicBool>,
    colour: bool,
}

impl Story {
    pub(super) fn new(stop: Arc<AtomicBool>) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            start: Instant::now(),
            stop,
            colour,
        }
    }

    /// The watcher asked to leave.
    pub(super) fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Opens an act.
    pub(super) fn title(&self, text: impl Display) {
        if self.colour {
            println!("\n\x1b[1m{text}\x1b[0m")
        } else {
            println!("\n{text}")
        }
    }

    /// Tells one thing.
    pub(super) fn say(&self, text: impl Display) {
        println!("{:>7.2} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// Waits until `test` holds, then tells `what` and how long it took.
    pub(super) fn until(
        &self,
        what: &str,
        limit: Duration,
        mut test: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.progress(what, limit, || Ok(if test()? { 1.0 } else { 0.0 }))
    }

    /// Waits until `share` reaches 1 with a bar on a terminal, then tells `what` and how long it took.
    pub(super) fn progress(
        &self,
        what: &str,
        limit: Duration,
        mut share: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let style = ProgressStyle::with_template("           {bar:32} {percent} %");
        let bar = ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        loop {
            let done = share()?;
            if done >= 1.0 {
                break;
            }
            if self.interrupted() {
                bail!("interrupted");
            }
            if start.elapsed() > limit {
                bar.finish_and_clear();
                bail!("after {} s still not so: {what}", limit.as_secs());
            }
            bar.set_position((done * 1000.0) as u64);
            std::thread::sleep(LOOK_EVERY);
        }
        bar.finish_and_clear();
        self.say(format!("{what} ({:.2} s)", start.elapsed().as_secs_f64()));
        Ok(())
    }
}
