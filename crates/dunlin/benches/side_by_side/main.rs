//! Dunlin and a real client on the same work, in turn, in one run: ratios, never times alone.
//!
//! `make bench` runs everything; `make bench ARGS=sync`, `relay` or `torrent` one part, and
//! `make bench ARGS="sync --rows full --rounds 1"` one row of it, `--torrent-rows leech` one of the torrent engine's.
//! Every figure is the median of some rounds, in which all sides take turns so that a machine that slows down slows all.

mod chain;
mod cost;
mod node;
mod relay;
mod torrent;

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Parser, ValueEnum};

use cost::Sample;

/// Measure Dunlin against real peers on the same work in the same run
#[derive(Parser)]
struct Args {
    /// Which parts to run [default: all]
    parts: Vec<Part>,
    /// Which rows of the parts sync and relay to run [default: all]
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(row_names()))]
    rows: Vec<String>,
    /// Which rows of the torrent part to run [default: all]
    #[arg(long, value_delimiter = ',')]
    torrent_rows: Vec<torrent::Row>,
    /// Rounds of each measurement [default: 3, those that take minutes 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Run one side only
    #[arg(long)]
    only: Option<Side>,
    /// The program under test [default: the one built with this]
    #[arg(long, default_value = env!("CARGO_BIN_EXE_dunlin"), hide_default_value = true)]
    program: String,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Sync,
    Relay,
    Torrent,
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Side {
    Dunlin,
    Other,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Dunlin, Self::Other];
}

/// The rows of all parts that have some.
fn row_names() -> impl Iterator<Item = PossibleValue> {
    let of_chain = chain::Row::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value);
    let of_relay = relay::Row::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value);
    of_chain.chain(of_relay)
}

impl Args {
    /// The rows of a part that are wanted.
    fn rows_of<T: ValueEnum>(&self, all: &'static [T]) -> impl Iterator<Item = &'static T> {
        all.iter().filter(|row| {
            let name = row.to_possible_value();
            self.rows.is_empty() || name.is_some_and(|name| self.rows.iter().any(|wanted| wanted == name.get_name()))
        })
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    println!("median (least to most) of the rounds; ratio = dunlin / other, below 1 is better");
    if wanted(Part::Sync) {
        chain::run(&args)?;
    }
    if wanted(Part::Relay) {
        relay::run(&args)?;
    }
    if wanted(Part::Torrent) {
        torrent::run(&args)?;
    }
    Ok(())
}

/// Rounds in which both sides do a piece of work in turn.
struct Rounds {
    dunlin: Vec<Sample>,
    other: Vec<Sample>,
}

impl Rounds {
    /// Runs `work` for each side that is wanted.
    fn run(args: &Args, default_rounds: usize, mut work: impl FnMut(Side) -> Result<Sample>) -> Result<Self> {
        let (mut dunlin, mut other) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds.unwrap_or(default_rounds) {
            for side in Side::BOTH
                .into_iter()
                .filter(|&side| args.only.is_none_or(|only| only == side))
            {
                let samples = if side == Side::Dunlin { &mut dunlin } else { &mut other };
                samples.push(work(side)?);
            }
        }
        Ok(Self { dunlin, other })
    }

    /// Prints the figures of both sides and their ratios.
    fn report(&self, work: &str, other_name: &str) {
        println!("\n{work}");
        println!("  {:<22} {:>26} {:>26} {:>7}", "", "dunlin", other_name, "ratio");
        let names = self.dunlin.first().or(self.other.first()).into_iter().flatten();
        for (index, &(name, _)) in names.enumerate() {
            let (ours, theirs) = (Spread::of(&self.dunlin, index), Spread::of(&self.other, index));
            let ratio = match (&ours, &theirs) {
                (Some(ours), Some(theirs)) if theirs.median > 0.0 => format!("{:.2}", ours.median / theirs.median),
                _ => String::new(),
            };
            let show = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| spread.to_string());
            println!("  {name:<22} {:>26} {:>26} {ratio:>7}", show(ours), show(theirs));
        }
    }
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// Of one figure over the rounds; none without rounds.
    fn of(samples: &[Sample], figure: usize) -> Option<Self> {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample[figure].1).collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            least: *values.first()?,
            median: values[values.len() / 2],
            most: *values.last()?,
        })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.least == self.most {
            return write!(f, "{:.2}", self.median);
        }
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}
