//! A real process on a real directory, killed with SIGKILL at instants that nobody chose: while it opens, connects,
//! reorganises and flushes. `DUNLIN_KILLS` says how often; a few dozen times without it.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, OutPoint};
use dunlin_chain::{Chain, ChainConfig, CoinsSummary, Network, Params};
use regtest::*;

/// Tells the child which directory to work in.
const DIR: &str = "DUNLIN_KILL_TEST_DIR";
/// Turns of the story: in each a branch is given up for another.
const TURNS: usize = 150;
/// Kills without another wish.
const KILLS: usize = 30;

/// The same blocks in parent and child. In each turn a branch of two blocks loses to one of three, and both spend the
/// same coins in their own ways.
fn story() -> Vec<Made> {
    let mut trunk = blocks(genesis(), 1, 110);
    let mut coins: Vec<OutPoint> = trunk.iter().map(Made::reward).collect();
    let mut made = trunk.clone();
    for turn in 0..TURNS {
        let coin = coins[turn];
        let on = trunk[trunk.len() - 1].place;
        let branch = |salt: u64, length: usize| {
            let tx = spend(&[coin], &vec![(salt * 5, open_script()); 20]);
            let txid = tx.compute_txid();
            let mut row = vec![block(on, salt, vec![tx], 0)];
            let children: Vec<_> = (0..7)
                .map(|vout| spend(&[OutPoint { txid, vout }], &[(1, open_script())]))
                .collect();
            row.push(block(row[0].place, salt, children, 0));
            row.extend(blocks(row[1].place, salt, length - 2));
            row
        };
        made.extend(branch(2, 2));
        let better = branch(3, 3);
        coins.extend(better.iter().map(Made::reward));
        made.extend(better.clone());
        trunk.extend(better);
    }
    made
}

fn open(dir: &Path) -> Chain {
    // A cache so small that it is flushed every few blocks.
    let config = ChainConfig {
        cache_bytes: 20_000,
        script_threads: 1,
        ..ChainConfig::default()
    };
    Chain::open_dir(Params::new(Network::Regtest), dir, config).unwrap()
}

/// The child's part: goes on from where the chain is and says how far it came.
fn work(dir: &Path) {
    println!("\nup");
    let mut chain = open(dir);
    let story = story();
    let known = |made: &Made| {
        chain
            .view()
            .entry(&made.place.hash)
            .is_some_and(|entry| entry.have_data)
    };
    let from = story.iter().position(|made| !known(made)).unwrap_or(story.len());
    println!("\nat {from}");
    for (index, made) in story.iter().enumerate().skip(from) {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        println!("\nat {}", index + 1);
    }
}

/// The coins of every block that ever is the tip, counted by a chain that was never disturbed, and the end.
fn truth(story: &[Made]) -> (HashMap<BlockHash, CoinsSummary>, CoinsSummary) {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let mut known = HashMap::new();
    let start = chain.summarize_coins().unwrap();
    known.insert(start.tip, start);
    for made in story {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        let coins = chain.summarize_coins().unwrap();
        known.insert(coins.tip, coins);
    }
    let end = chain.summarize_coins().unwrap();
    (known, end)
}

#[test]
fn a_killed_process_goes_on_from_where_it_was() {
    if let Some(dir) = std::env::var_os(DIR) {
        return work(Path::new(&dir));
    }
    let kills = std::env::var("DUNLIN_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let story = story();
    let (known, end) = truth(&story);
    let mut dir = tempfile::tempdir().unwrap();
    let (mut reached, mut ends, mut blocks) = (0, 0, 0);
    for round in 0..kills {
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
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        // Every fifth dies while it opens, the others somewhere in their work.
        let sign = if round % 5 == 4 { "up" } else { "at " };
        let heard = lines.find(|line| line.starts_with(sign)).unwrap();
        let chance = RandomState::new().hash_one(round);
        std::thread::sleep(Duration::from_micros(chance % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let at = |line: &str| line.strip_prefix("at ")?.parse::<usize>().ok();
        let first = at(&heard);
        let last = lines.filter_map(|line| at(&line)).last().or(first);
        if let Some(first) = first {
            assert!(first >= reached, "round {round}: began at {first}, had said {reached}");
        }
        blocks += last.unwrap_or(reached) - reached;
        reached = last.unwrap_or(reached);

        // What is found once was true, and nothing is missing that was said to be done.
        let mut chain = open(dir.path());
        let coins = chain.summarize_coins().unwrap();
        assert_eq!(known.get(&coins.tip), Some(&coins), "round {round}: never was a state");
        for made in &story[..reached] {
            let entry = chain.view().entry(&made.place.hash);
            assert!(
                entry.is_some_and(|entry| entry.have_data),
                "round {round}: a block is gone"
            );
        }
        if reached == story.len() || round == kills - 1 {
            for made in &story {
                chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
            }
            assert_eq!(chain.summarize_coins().unwrap(), end, "round {round}");
            chain.close().unwrap();
            assert_eq!(open(dir.path()).summarize_coins().unwrap(), end);
            dir = tempfile::tempdir().unwrap();
            (reached, ends) = (0, ends + 1);
        }
    }
    println!("killed {kills} times, {blocks} blocks, {ends} times to the end");
    assert!(blocks > 0);
}
