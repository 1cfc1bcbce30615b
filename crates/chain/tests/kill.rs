//! A real process on a real directory, killed with SIGKILL at instants that nobody chose.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_chain::{Chain, ChainConfig, Network, Params};
use regtest::*;

/// Tells the child which directory to work in.
const DIR: &str = "DUNLIN_KILL_TEST_DIR";
const LENGTH: usize = 1500;

/// The same blocks in parent and child: spends, so that coins come and go.
fn story() -> Vec<Made> {
    let mut made = blocks(genesis(), 1, 110);
    while made.len() < LENGTH {
        let index = made.len();
        let on = made[index - 1].place;
        let tx = spend(&[made[index - 110].reward()], &[(7, open_script()), (8, open_script())]);
        made.push(block(on, 1, vec![tx], 0));
    }
    made
}

fn open(dir: &Path) -> Chain {
    // A cache so small that it is flushed every few blocks.
    let config = ChainConfig {
        cache_bytes: 4000,
        script_threads: 1,
        ..ChainConfig::default()
    };
    Chain::open_dir(Params::new(Network::Regtest), dir, config).unwrap()
}

/// The child's part: goes on from where the chain is and says how far it came.
fn work(dir: &Path) {
    let mut chain = open(dir);
    let from = usize::try_from(chain.view().tip().height).unwrap();
    println!("\nat {from}");
    for made in &story()[from..] {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        println!("\nat {}", made.place.height);
    }
}

#[test]
fn a_killed_process_goes_on_from_where_it_was() {
    if let Some(dir) = std::env::var_os(DIR) {
        return work(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let story = story();
    let mut reached = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_killed_process_goes_on_from_where_it_was",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heights = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("at ")?.parse::<u32>().ok());
        // It is up; now it dies somewhere in its work.
        let first = heights.next().unwrap();
        std::thread::sleep(Duration::from_millis(round * 7 % 40));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = heights.last().unwrap_or(first);
        assert!(first >= reached, "round {round}: began at {first}, had said {reached}");
        reached = last;
    }
    assert!(reached > 0);
    println!("killed twelve times, {reached} blocks");

    let mut chain = open(dir.path());
    let tip = chain.view().tip();
    assert!(
        tip.height >= reached,
        "what was said to be done is done: {} of {reached}",
        tip.height
    );
    let mut fresh = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    for made in &story[..usize::try_from(tip.height).unwrap()] {
        fresh.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    assert_eq!(chain.summarize_coins().unwrap(), fresh.summarize_coins().unwrap());
    for made in &story[usize::try_from(tip.height).unwrap()..] {
        fresh.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    assert_eq!(chain.summarize_coins().unwrap(), fresh.summarize_coins().unwrap());
}
