//! The flock tells its whole story by itself, in time, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

use dunlin_testkit::dunlin::run;
use std::path::Path;
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");

/// What a watcher must have read, in this order.
const STORY: [&str; 11] = [
    "4 equal peers start",
    "connected in a ring with chords",
    "all 4 agree on block 110",
    "A signed transaction floods to all and is mined",
    "it is in every mempool",
    "all 4 agree on block 111",
    "all 4 have it",
    "SIGKILL",
    "all 3 agree on block 112",
    "all 3 have it",
    "all 4 agree on block 112",
];

#[test]
fn four_peers_mine_flood_share_and_survive() {
    let output = run(Path::new(DUNLIN), ["flock", "4", "--exit"], Duration::from_secs(180)).unwrap();
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    let mut rest = output.stdout.as_str();
    for act in STORY {
        let place = rest
            .find(act)
            .unwrap_or_else(|| panic!("no {act:?} after what came before in:\n{}", output.stdout));
        rest = &rest[place + act.len()..];
    }
    // Each peer but the seeder says that it fetched the file and that its sum is right, for both files.
    assert_eq!(output.stdout.matches("its SHA-256 is right").count(), 3 + 2);
}
