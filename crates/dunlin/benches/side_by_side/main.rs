//! Dunlin and a real client on the same work, in turn, in one run: ratios, never times alone.
//!
//! `make bench` runs everything; `make bench ARGS=sync` or `ARGS=torrent` one part. Every figure is the median of
//! [`ROUNDS`] rounds, in which both sides take turns so that a machine that slows down slows both.

mod cost;
mod sync;
mod torrent;

use anyhow::Result;

use cost::Cost;

/// Rounds of each measurement.
const ROUNDS: usize = 3;

/// The program under test.
const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");

fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    println!("median of {ROUNDS} rounds (least to most); ratio = dunlin / other, below 1 is better");
    if wanted("sync") {
        sync::run()?;
    }
    if wanted("torrent") {
        torrent::run()?;
    }
    Ok(())
}

/// One number of a cost.
type Figure = fn(&Cost) -> f64;

/// Prints the figures of both sides and their ratios.
fn report(work: &str, ours: &[Cost], other_name: &str, theirs: &[Cost]) {
    println!("\n{work}");
    println!("  {:<22} {:>24} {:>24} {:>7}", "", "dunlin", other_name, "ratio");
    let figures: [(&str, Figure); 3] = [
        ("wall, s", |cost| cost.wall.as_secs_f64()),
        ("CPU, s", |cost| cost.cpu.as_secs_f64()),
        ("peak memory, MiB", |cost| cost.peak_memory as f64 / f64::from(1 << 20)),
    ];
    for (name, figure) in figures {
        let (ours, theirs) = (spread(ours, figure), spread(theirs, figure));
        let show = |(least, median, most): (f64, f64, f64)| format!("{median:.2} ({least:.2} to {most:.2})");
        println!(
            "  {name:<22} {:>24} {:>24} {:>7.2}",
            show(ours),
            show(theirs),
            ours.1 / theirs.1
        );
    }
}

/// Least, median, most.
fn spread(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<f64> = costs.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
