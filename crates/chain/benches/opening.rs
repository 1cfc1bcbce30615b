//! The processor's time that it takes to open a chain of half a million headers:
//! `cargo bench --profile release -p dunlin-chain --bench opening`.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bitcoin::block::Header;
use dunlin_chain::build::BLOCK_VERSION;
use dunlin_chain::{Chain, ChainConfig, Network, Params};

const HEADERS: usize = 500_000;
const ROUNDS: usize = 7;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let params = Params::new(Network::Regtest);
    let open = || Chain::open_dir(params.clone(), folder.path(), ChainConfig::default()).unwrap();
    let mut chain = open();
    let mut last = params.genesis.header;
    for _ in 0..HEADERS / 2_000 {
        let batch: Vec<Header> = (0..2_000).map(|_| next(&mut last)).collect();
        chain.accept_headers(u64::from(last.time), &batch).unwrap();
    }
    chain.close().unwrap();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = cpu_time();
            let chain = open();
            let time = cpu_time() - begun;
            assert_eq!(chain.view().header_count(), HEADERS + 1);
            time
        })
        .collect();
    times.sort_unstable();
    println!(
        "{HEADERS} headers open in {:.0?}, at worst {:.0?}",
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
