//! A byte that a disk changed on its own, anywhere in a data directory: the chain opens or says in one line what is
//! wrong, and then and later it never gives a wrong answer. `DUNLIN_FLIPS` says how many bytes, one at a time.
#![allow(clippy::unwrap_used)]

mod flips;
mod regtest;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint};
use dunlin_chain::{BlockError, Chain, ChainConfig, CoinsSummary, Network, Params, StoreError};
use flips::{Dice, copy, files, one_line};
use regtest::*;

/// Flips without another wish.
const FLIPS: usize = 100;

/// 110 blocks, two that lose and three that win, all with spends; then three more that take the winners off again, and
/// one that spends a coin twice.
struct Story {
    stored: Vec<Made>,
    later: Vec<Made>,
    broken: Made,
}

fn story() -> Story {
    let mut stored = blocks(genesis(), 1, 110);
    let on = stored[109].place;
    let coins: Vec<OutPoint> = stored.iter().map(Made::reward).collect();
    let branch = |on, salt: u64, coins: &[OutPoint], length: usize| {
        let txs = coins
            .iter()
            .map(|coin| spend(&[*coin], &vec![(salt * 5, open_script()); 20]))
            .collect();
        let mut row = vec![block(on, salt, txs, 0)];
        row.extend(blocks(row[0].place, salt, length - 1));
        row
    };
    stored.extend(branch(on, 2, &coins[..5], 2));
    let winners = branch(on, 3, &coins[3..8], 3);
    let later = branch(winners[0].place, 4, &coins[8..10], 4);
    let txid = winners[0].block.txids[1];
    let child = OutPoint { txid, vout: 7 };
    let twice = vec![
        spend(&[child], &[(1, open_script())]),
        spend(&[child], &[(2, open_script())]),
    ];
    let broken = block(later[3].place, 5, twice, 0);
    stored.extend(winners);
    Story { stored, later, broken }
}

fn open(dir: &Path) -> Result<Chain, String> {
    let config = ChainConfig {
        cache_bytes: 4000,
        script_threads: 1,
        ..ChainConfig::default()
    };
    Chain::open_dir(Params::new(Network::Regtest), dir, config).map_err(|error| error.to_string())
}

/// How far a damaged directory was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// Everything went as if nothing had happened.
    Unnoticed,
    /// Something was named when it was needed.
    Named,
    /// It does not open.
    Closed,
}

/// Something was said.
fn named(text: &str) -> End {
    one_line(text);
    End::Named
}

/// Opens the directory and does with it all that a chain is for.
fn use_it(dir: &Path, story: &Story, known: &HashMap<BlockHash, CoinsSummary>) -> End {
    let mut chain = match open(dir) {
        Ok(chain) => chain,
        Err(text) => {
            one_line(&text);
            return End::Closed;
        }
    };
    let mut end = End::Unnoticed;
    match chain.summarize_coins() {
        Ok(coins) => assert_eq!(known.get(&coins.tip), Some(&coins), "the coins are those of no block"),
        Err(error) => end = named(&error.to_string()),
    }
    for made in &story.stored {
        match chain.view().block_bytes(&made.place.hash) {
            Ok(Some(bytes)) => assert_eq!(bytes, made.block.raw, "a block is another"),
            Ok(None) => end = End::Named,
            Err(error) => end = named(&error.to_string()),
        }
    }
    // What is missing comes again from a peer; then the chain goes on, over a reorganisation.
    for made in story.stored.iter().chain(&story.later) {
        match chain.accept_block(NOW, Arc::clone(&made.block)) {
            Ok(outcome) => assert_eq!(outcome.rejected, [], "an honest block was refused"),
            Err(BlockError::Store(error)) => {
                one_line(&error.to_string());
                return End::Named;
            }
            Err(other) => panic!("an honest block was refused: {other}"),
        }
    }
    match chain.accept_block(NOW, Arc::clone(&story.broken.block)) {
        Ok(_) if chain.view().tip().hash == story.broken.place.hash => panic!("a coin was spent twice"),
        // It waits behind a block that cannot be taken off.
        Ok(_) => end = End::Named,
        Err(BlockError::Invalid(reject)) => assert_eq!(reject.reason, "bad-txns-inputs-missingorspent"),
        Err(other) => end = named(&other.to_string()),
    }
    match chain.summarize_coins() {
        Ok(coins) => assert_eq!(known.get(&coins.tip), Some(&coins), "the coins are those of no block"),
        Err(error) => end = named(&error.to_string()),
    }
    end
}

#[test]
fn a_changed_byte_is_named_or_harmless() {
    let flips = std::env::var("DUNLIN_FLIPS").map_or(FLIPS, |text| text.parse().unwrap());
    let story = story();
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    fs::create_dir_all(&whole).unwrap();
    let mut known = HashMap::new();
    let mut truth = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let genesis = truth.summarize_coins().unwrap();
    known.insert(genesis.tip, genesis);
    let mut chain = open(&whole).unwrap();
    for made in story.stored.iter().chain(&story.later) {
        truth.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        let coins = truth.summarize_coins().unwrap();
        known.insert(coins.tip, coins);
    }
    for made in &story.stored {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain.close().unwrap();
    let undisturbed = home.path().join("undisturbed");
    copy(&whole, &undisturbed);
    assert_eq!(use_it(&undisturbed, &story, &known), End::Unnoticed);

    let paths = files(&whole);
    let mut ends: HashMap<End, usize> = HashMap::new();
    let mut dice = Dice(1);
    let names = paths.iter().map(|path| path.strip_prefix(&whole).unwrap());
    for name in names.cycle().take(flips) {
        let damaged = home.path().join("damaged");
        copy(&whole, &damaged);
        let what = dice.flip(&damaged, &damaged.join(name));
        let used = std::panic::catch_unwind(|| use_it(&damaged, &story, &known));
        let end = used.unwrap_or_else(|_| panic!("{what}"));
        *ends.entry(end).or_default() += 1;
        fs::remove_dir_all(&damaged).unwrap();
    }
    println!("{flips} changed bytes in {} files: {ends:?}", paths.len());
}

/// What a store says of damage, whatever it is.
#[test]
fn damage_is_named_in_one_line() {
    one_line(&StoreError::corrupt("the record at byte 5 of blk00000.dat").to_string());
}
