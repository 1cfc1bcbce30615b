//! The engine beside Bitcoin Core's: the same seeded blocks, valid and broken, on forks and out of order, go into both.
//! For every one the verdict, Core's reason and the tip must be the same, and what connected blocks spent.
//!
//! `DUNLIN_DIFFERENTIAL=first..last` runs other seeds than the few of every day.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Instant;

use world::dice::Dice;
use world::pair::Counts;
use world::story::Story;
use world::ways::{self, EDGES};

/// Things that happen in one story.
const STEPS: usize = 600;

fn run(seed: u64) -> Counts {
    // Every fourth story begins at the genesis block, where heights are pushed in their own ways.
    let length = if seed % 4 == 3 { 0 } else { 130 };
    let mut story = Story::new(Dice::seeded(seed), seed, length);
    for _ in 0..STEPS {
        story.step();
    }
    story.pair.compare_all_spent();
    story.pair.counts
}

/// The seeds to run.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("DUNLIN_DIFFERENTIAL") else {
        return 0..8;
    };
    let (first, last) = text.split_once("..").expect("DUNLIN_DIFFERENTIAL is first..last");
    first.parse().unwrap()..last.parse().unwrap()
}

#[test]
fn every_verdict_and_every_tip_are_those_of_bitcoin_core() {
    let begin = Instant::now();
    let mut counts = Counts::default();
    for seed in seeds() {
        let story = std::panic::catch_unwind(|| run(seed));
        counts.add(&story.unwrap_or_else(|_| panic!("seed {seed} disagrees")));
        if seed % 100 == 99 {
            println!(
                "seed {seed}, {:?}: {} blocks, {} transactions, {} broken, {} reorganisations, {} spent outputs",
                begin.elapsed(),
                counts.blocks,
                counts.transactions,
                counts.broken(),
                counts.reorganisations,
                counts.spent
            );
        }
    }
    println!("{counts:#?}");
    let names: Vec<&str> = ways::all().iter().map(|way| way.name).collect();
    assert!(names.len() >= 40, "{} ways", names.len());
    for name in names {
        let refused = counts.refused.get(name).copied().unwrap_or(0);
        assert!(refused >= 2, "`{name}` was hardly tried");
    }
    for edge in EDGES {
        assert!(counts.taken.contains_key(edge.name), "`{}` was never tried", edge.name);
    }
    assert!(
        counts.reorganisations > 200,
        "{} reorganisations",
        counts.reorganisations
    );
}
