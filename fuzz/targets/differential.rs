//! The differential test's generator, driven by the fuzzer: valid and broken blocks, branches, blocks out of order and
//! mutated copies go to our engine and to Bitcoin Core's, which must agree about every one.
#![no_main]
#![allow(clippy::unwrap_used)]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/chain/tests/differential/world/mod.rs"]
mod world;

use world::dice::Dice;
use world::story::Story;

/// Things that happen in one run.
const MOST_STEPS: usize = 60;

fuzz_target!(|data: &[u8]| {
    // Coinbases must ripen before there is anything to spend; a start without them has its own rules about heights.
    let (length, data) = match data.split_first() {
        Some((0, rest)) => (0, rest),
        Some((_, rest)) => (105, rest),
        None => return,
    };
    let mut story = Story::new(Dice::fuzzed(&[]), 1, length);
    story.choose(Dice::fuzzed(data));
    for _ in 0..MOST_STEPS {
        if story.is_out() {
            break;
        }
        story.step();
    }
    story.pair.compare_all_spent();
});
