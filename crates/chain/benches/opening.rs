//! The processor's time that it takes to open a chain of many headers, and one whose blocks are stored, too:
//! `cargo bench --profile release -p dunlin-chain --bench opening`.
#![allow(clippy::unwrap_used)]

#[path = "../tests/regtest/mod.rs"]
mod regtest;

use std::time::Duration;

use bitcoin::block::Header;
use dunlin_chain::build::BLOCK_VERSION;
use dunlin_chain::{Chain, ChainConfig, Network, Params};

const HEADERS: usize = 500_000;
const BLOCKS: usize = 200_000;
/// Made or handed over at once.
const PIECE: usize = 2_000;
const ROUNDS: usize = 7;

fn main() {
    let params = Params::new(Network::Regtest);
    measure("headers", HEADERS, |chain| {
        let mut last = params.genesis.header;
        for _ in 0..HEADERS / PIECE {
            let batch: Vec<Header> = (0..PIECE).map(|_| next(&mut last)).collect();
            chain.accept_headers(u64::from(last.time), &batch).unwrap();
        }
    });
    measure("blocks", BLOCKS, |chain| {
        let mut at = regtest::genesis();
        for _ in 0..BLOCKS / PIECE {
            for made in regtest::blocks(at, 1, PIECE) {
                chain.accept_block(regtest::NOW, made.block).unwrap();
                at = made.place;
            }
        }
        assert_eq!(chain.view().tip().hash, at.hash);
    });
}

/// Fills a chain, closes it, and opens it some times.
fn measure(what: &str, count: usize, fill: impl FnOnce(&mut Chain)) {
    let folder = tempfile::tempdir().unwrap();
    let open = || Chain::open_dir(Params::new(Network::Regtest), folder.path(), ChainConfig::default()).unwrap();
    let mut chain = open();
    fill(&mut chain);
    chain.close().unwrap();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = cpu_time();
            let chain = open();
            let time = cpu_time() - begun;
            assert_eq!(chain.view().header_count(), count + 1);
            time
        })
        .collect();
    times.sort_unstable();
    println!(
        "{count} {what} open in {:.0?}, at worst {:.0?}",
        times[0],
        times[ROUNDS - 1]
    );
}

/// The next solved header of regtest.
fn next(last: &mut Header) -> Header {
    *last = Header {
        prev_blockhash: last.block_hash(),
        time: last.time + 1,
        nonce: 0,
        version: BLOCK_VERSION,
        ..*last
    };
    while last.validate_pow(last.target()).is_err() {
        last.nonce += 1;
    }
    *last
}

/// What this thread has had of the processor.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
