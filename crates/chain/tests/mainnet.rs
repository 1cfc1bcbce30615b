//! Real blocks and headers of the main chain, from packages that ship them as test data.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, Transaction, TxOut};
use dunlin_chain::rules::{self, check_block, contextual_check_block};
use dunlin_chain::script::{block_flags, verify_tx};
use dunlin_chain::{Chain, HeaderReject, Network, Params, ParsedBlock};

/// The package `bitcoin-test-data` ships this one.
const HEIGHT: u32 = 702_861;

#[test]
fn the_first_headers_of_the_main_chain_follow_the_rules_and_no_flipped_bit_does() {
    let raw = include_bytes!("data/mainnet_headers.bin");
    let headers: Vec<Header> = raw
        .as_chunks::<80>()
        .0
        .iter()
        .map(|raw| deserialize(raw).unwrap())
        .collect();
    assert_eq!(headers.len(), 1111);
    let mut chain = Chain::in_memory(Params::new(Network::Mainnet)).unwrap();
    let now = u64::from(headers[1110].time);
    let accepted = chain.accept_headers(now, &headers).unwrap();
    assert_eq!(accepted.new, 1111);
    let best = chain.view().best_header();
    assert_eq!(best.height, 1111);
    assert_eq!(
        best.hash.to_string(),
        "00000000ca59764b4ff11d88ea67e641dba94a17520ebd10f1631b21a18d5805"
    );
    // Each block of difficulty 1 is 2^32 + 2^16 + 1 tries.
    let work = format!("{:x}", best.chain_work);
    assert_eq!(u128::from_str_radix(&work, 16).unwrap(), 1112 * 0x1_0001_0001);

    for (index, raw) in raw.as_chunks::<80>().0.iter().enumerate().step_by(37) {
        let mut broken = *raw;
        broken[index % 80] ^= 1 << (index % 8);
        let header: Header = deserialize(&broken).unwrap();
        let refused = chain.accept_headers(now, &[header]).unwrap_err();
        assert!(matches!(refused, HeaderReject::Invalid { .. }), "{refused}");
    }
}

#[test]
fn a_block_of_the_main_chain_follows_every_rule_that_needs_no_other_block() {
    let params = Params::new(Network::Mainnet);
    let raw = bitcoin_test_data::blocks::mainnet_702861();
    let block = ParsedBlock::parse(raw.to_vec().into()).unwrap();
    assert_eq!(
        block.hash.to_string(),
        "000000000000000000000c835b2adcaedc20fdf6ee440009c249452c726dafae"
    );
    let median = block.header().time - 3600;
    check_block(&params, &block).unwrap();
    contextual_check_block(&params, &block, HEIGHT, median).unwrap();
    assert!(!rules::is_mutated(&block, true));
    let reason = |height| {
        contextual_check_block(&params, &block, height, median)
            .unwrap_err()
            .reason
    };
    assert_eq!(reason(HEIGHT + 1), "bad-cb-height");
    assert_eq!(reason(HEIGHT - 10), "bad-txns-nonfinal");

    // What is spent within the block is known: there the signatures are real ones of the main chain.
    let block = block.block();
    let flags = block_flags(&params, HEIGHT, &block.block_hash());
    let mut outputs: HashMap<OutPoint, TxOut> = HashMap::new();
    let mut verified = 0;
    for tx in &block.txdata {
        let spent: Option<Vec<TxOut>> = tx
            .input
            .iter()
            .map(|input| outputs.get(&input.previous_output).cloned())
            .collect();
        if let Some(spent) = spent {
            assert_eq!(verify_tx(tx, &spent, flags), Ok(()));
            let mut dearer: Transaction = tx.clone();
            dearer.output[0].value += bitcoin::Amount::ONE_SAT;
            assert!(verify_tx(&dearer, &spent, flags).is_err());
            verified += 1;
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            outputs.insert(OutPoint { txid, vout }, output.clone());
        }
    }
    println!(
        "{} transactions, {verified} with all that they spend",
        block.txdata.len()
    );
    assert!(verified > 50, "{verified} transactions spend only what the block makes");

    // Any damage shows.
    for place in (80..raw.len()).step_by(raw.len() / 150) {
        let mut damaged = raw.to_vec();
        damaged[place] ^= 4;
        let Ok(damaged) = ParsedBlock::parse(damaged.into()) else {
            continue;
        };
        let first = check_block(&params, &damaged);
        let refused = first
            .and_then(|()| contextual_check_block(&params, &damaged, HEIGHT, median))
            .unwrap_err();
        assert!(!refused.kind.is_permanent_for_block(), "byte {place}: {refused}");
    }
}
