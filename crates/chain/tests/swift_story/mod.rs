//! A chain with spends, hints for it, and going through it with a SwiftSync.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use bitcoin::OutPoint;
use dunlin_chain::swiftsync::{Hints, HintsWriter, SwiftSync};
use dunlin_chain::{
    AssumeValid, BlockError, BlockOutcome, BlockUndo, Chain, ChainConfig, ChainStore, CoinsSummary, HeaderReject,
    Network, OpenError, Params, StoreError,
};
use dunlin_store::CrashDisk;

use super::regtest::*;

/// The hinted height.
pub const TARGET: usize = 112;
/// Two weeks of work, so that the scripts of the hinted block need no check.
pub const ABOVE: usize = 2020;

/// Some coins are spent below the hinted height, some above it, some in the block that makes them; some cannot be.
pub static STORY: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let mut made = blocks(genesis(), 1, 101);
    let data = bitcoin::ScriptBuf::new_op_return([7; 20]);
    for number in 0..16usize {
        let at = made.last().unwrap().place;
        let first = spend(
            &[made[number].reward()],
            &[
                (1_000 + number as u64, open_script()),
                (0, data.clone()),
                (7_000_000, closed_script()),
                (5, open_script()),
            ],
        );
        let output = |tx: &bitcoin::Transaction, vout| OutPoint {
            txid: tx.compute_txid(),
            vout,
        };
        let child = spend(&[output(&first, 0)], &[(500, closed_script()), (1, open_script())]);
        let mut inputs = vec![output(&child, 1)];
        if number > 0 {
            let before = made.last().unwrap().block.txids[1];
            inputs.push(OutPoint { txid: before, vout: 3 });
        }
        let last = spend(&inputs, &[(1, open_script())]);
        made.push(block(at, 5, vec![first, child, last], 0));
    }
    let at = made.last().unwrap().place;
    made.extend(blocks(at, 6, TARGET + ABOVE - made.len()));
    made
});

/// The coins of the first `height` blocks.
pub fn coins_at(height: usize) -> CoinsSummary {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut chain, &STORY[..height]);
    chain.summarize_coins().unwrap()
}

/// The hints for the target, made by a chain that is `height` blocks long.
pub fn hints_from(height: usize) -> Vec<u8> {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut chain, &STORY[..height]);
    let frozen = chain.freeze_coins().unwrap();
    let mut file = Cursor::new(Vec::new());
    let mut told = Vec::new();
    let made = frozen
        .write_hints(TARGET as u32, &mut file, &mut |done, all| told.push((done, all)))
        .unwrap();
    assert_eq!(made.base.hash, STORY[TARGET - 1].place.hash);
    assert_eq!(made.coins, coins_at(TARGET).count);
    assert_eq!(told.last(), Some(&(TARGET as u32, TARGET as u32)));
    file.into_inner()
}

pub static HINTS: LazyLock<Vec<u8>> = LazyLock::new(|| hints_from(TARGET + 10));

/// What the first blocks spent.
pub static SPENT: LazyLock<Vec<Arc<BlockUndo>>> = LazyLock::new(|| {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    connect(&mut chain, &STORY[..TARGET + 10]);
    let view = chain.view();
    let spent = |one: &Made| Arc::new(view.undo(&one.place.hash).unwrap().unwrap());
    STORY[..TARGET + 10].iter().map(spent).collect()
});

pub fn connect(chain: &mut Chain, made: &[Made]) -> Vec<BlockOutcome> {
    made.iter()
        .map(|one| chain.accept_block(NOW, one.block.clone()).unwrap())
        .collect()
}

/// As [`connect`], with what the blocks spent, for the full form.
pub fn connect_with(chain: &mut Chain, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let block = (STORY[number].block.clone(), SPENT.get(number).cloned());
        chain.accept_blocks(NOW, &[block]).pop().unwrap().unwrap();
    }
}

pub fn headers(chain: &mut Chain, made: &[Made]) {
    let headers: Vec<_> = made.iter().map(|one| *one.block.header()).collect();
    chain.accept_headers(NOW, &headers).unwrap();
}

pub fn config(hints: &[u8]) -> ChainConfig {
    ChainConfig {
        assume_valid: AssumeValid::Block(STORY.last().unwrap().place.hash),
        swiftsync: Some(SwiftSync {
            hints: Arc::new(Hints::parse(hints.to_vec()).unwrap()),
            secret: [7; 32],
        }),
        ..ChainConfig::default()
    }
}

pub fn open(store: &ChainStore, config: ChainConfig) -> Chain {
    Chain::open(Params::new(Network::Regtest), store.clone(), config).unwrap()
}

/// A chain that has all headers and is to be synced with hints.
pub fn begun(hints: &[u8]) -> Chain {
    let mut chain = open(&ChainStore::in_memory(), config(hints));
    headers(&mut chain, &STORY);
    chain
}

/// Hints in which one block's are changed.
pub fn changed(height: u32, change: impl Fn(&mut Vec<u32>)) -> Vec<u8> {
    let hints = Hints::parse(HINTS.clone()).unwrap();
    let mut writer = HintsWriter::new(Vec::new(), hints.height()).unwrap();
    for at in 1..=hints.height() {
        let mut unspent = hints.unspent(at).unwrap();
        if at == height {
            change(&mut unspent);
        }
        writer.push(&unspent).unwrap();
    }
    writer.finish().unwrap()
}

fn of_store(error: BlockError) -> StoreError {
    match error {
        BlockError::Store(error) => error,
        other => panic!("{other}"),
    }
}

/// Goes on from whatever is on the disk to ten blocks above the hinted height.
pub fn play(disk: &CrashDisk, config: &ChainConfig) -> Result<Chain, StoreError> {
    let opened = Chain::open(
        Params::new(Network::Regtest),
        ChainStore::on_crash_disk(disk),
        config.clone(),
    );
    let mut chain = opened.map_err(|error| match error {
        OpenError::Store(error) => error,
        other => panic!("{other}"),
    })?;
    let known = chain.view().best_header().height as usize;
    let missing: Vec<_> = STORY[known..].iter().map(|one| *one.block.header()).collect();
    match chain.accept_headers(NOW, &missing) {
        Err(HeaderReject::Store(error)) => return Err(error),
        other => drop(other.unwrap()),
    }
    let view = chain.view();
    for round in 0.. {
        let missing = view.missing_blocks(1, |_| false);
        let Some((height, _)) = missing.first().filter(|(height, _)| *height as usize <= TARGET + 10) else {
            break;
        };
        let made = &STORY[*height as usize - 1];
        let spent = SPENT.get(*height as usize - 1).cloned();
        let mut results = chain.accept_blocks(NOW, &[(made.block.clone(), spent)]);
        results.pop().unwrap().map_err(of_store)?;
        if round % 25 == 24 {
            chain.flush()?;
        }
    }
    chain.advance()?;
    chain.flush()?;
    Ok(chain)
}
