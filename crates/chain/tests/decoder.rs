//! Our one-pass reading of a block against the `bitcoin` crate's decoder: the same bytes are blocks for both, and both
//! read the same in them.
#![allow(clippy::unwrap_used)]

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, deserialize, serialize};
use bitcoin::{Block, Transaction, VarInt};
use dunlin_chain::rules::legacy_sigops;
use dunlin_chain::{MAX_BLOCK_BYTES, ParsedBlock, TxParts};

/// The block that `raw` holds, if the `bitcoin` crate can read it and it keeps to our own bounds.
fn reference(raw: &[u8]) -> Option<Block> {
    if raw.len() > MAX_BLOCK_BYTES {
        return None;
    }
    let mut rest = raw;
    let header = Header::consensus_decode(&mut rest).ok()?;
    let count = VarInt::consensus_decode(&mut rest).ok()?.0;
    if count > raw.len() as u64 / 60 {
        return None;
    }
    let mut txdata = Vec::new();
    for _ in 0..count {
        let tx = Transaction::consensus_decode(&mut rest).ok()?;
        if tx.input.is_empty() {
            return None;
        }
        txdata.push(tx);
    }
    rest.is_empty().then_some(Block { header, txdata })
}

/// Compares both readings; says whether it is a block.
fn compare(raw: &[u8]) -> bool {
    let ours = ParsedBlock::parse(raw.to_vec().into());
    let Some(block) = reference(raw) else {
        assert!(ours.is_err(), "read although broken: {}", hex::encode(raw));
        return false;
    };
    let ours = ours.unwrap_or_else(|error| panic!("{error}: {}", hex::encode(raw)));
    assert_eq!(ours.hash, block.block_hash());
    assert_eq!(ours.header(), &block.header);
    assert_eq!(ours.len(), block.txdata.len());
    assert_eq!(ours.block(), &block);
    for (index, (tx, read)) in block.txdata.iter().zip(ours.transactions()).enumerate() {
        assert_eq!(ours.txids[index], tx.compute_txid());
        assert_eq!(ours.wtxids[index], tx.compute_wtxid());
        assert_eq!(ours.raw_tx(index).unwrap(), serialize(tx));
        assert_eq!(read.raw(), serialize(tx));
        assert_eq!(read.txid(), tx.compute_txid());
        assert_eq!(TxParts::version(&read), tx.version.0);
        assert_eq!(TxParts::lock_time(&read), tx.lock_time.to_consensus_u32());
        assert_eq!(TxParts::base_size(&read), tx.base_size());
        assert_eq!(TxParts::is_coinbase(&read), tx.is_coinbase());
        assert_eq!(read.has_witness(), TxParts::has_witness(tx));
        assert_eq!(read.inputs().len(), tx.input.len());
        assert!(
            read.previous_outputs()
                .eq(tx.input.iter().map(|input| input.previous_output))
        );
        for (input, expected) in read.inputs().zip(&tx.input) {
            assert_eq!(input.previous_output, expected.previous_output);
            assert_eq!(input.script_sig, expected.script_sig.as_script());
            assert_eq!(input.sequence, expected.sequence.0);
            assert_eq!(input.witness.len(), expected.witness.len());
            assert_eq!(input.witness.is_empty(), expected.witness.is_empty());
            assert_eq!(input.witness.last(), expected.witness.last());
        }
        assert_eq!(read.legacy_sigops(), legacy_sigops(tx));
        assert_eq!(read.outputs().len(), tx.output.len());
        for (output, expected) in read.outputs().zip(&tx.output) {
            assert_eq!(output.value, expected.value.to_sat());
            assert_eq!(output.script_pubkey, expected.script_pubkey.as_script());
        }
    }
    true
}

/// Real blocks, and blocks of the transactions of Core's vectors, a few in each.
fn blocks() -> Vec<Vec<u8>> {
    let mut blocks: Vec<Vec<u8>> = include_str!("data/signet_blocks.txt")
        .lines()
        .map(|line| hex::decode(line).unwrap())
        .collect();
    let header = blocks[0][..80].to_vec();
    let mut txs: Vec<Transaction> = Vec::new();
    for data in [include_str!("data/tx_valid.json"), include_str!("data/tx_invalid.json")] {
        let cases: Vec<serde_json::Value> = serde_json::from_str(data).unwrap();
        let raw = cases.iter().filter_map(|case| case[1].as_str());
        txs.extend(raw.filter_map(|raw| deserialize(&hex::decode(raw).unwrap()).ok()));
    }
    assert!(txs.len() > 200 && txs.iter().any(|tx| !tx.input.is_empty() && TxParts::has_witness(tx)));
    for some in txs.chunks(3) {
        let mut raw = header.clone();
        raw.push(some.len() as u8);
        raw.extend(some.iter().flat_map(serialize));
        blocks.push(raw);
    }
    blocks
}

#[test]
fn sound_blocks_are_read_alike() {
    let read = blocks().iter().filter(|raw| compare(raw)).count();
    assert!(read > 50, "{read}");
}

/// Numbers that look random; the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[test]
fn damaged_blocks_are_refused_alike() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut sound, mut broken) = (0, 0);
    for original in blocks() {
        for _ in 0..600 {
            let mut raw = original.clone();
            for _ in 0..=numbers.below(3) {
                // Most of what can go wrong lies behind the header; counts and lengths are what matters there.
                let at = 80 + numbers.below(raw.len() - 80);
                let until = at + numbers.below((raw.len() - at).min(40));
                match numbers.below(7) {
                    0 => raw[at] ^= 1 << numbers.below(8),
                    1 => raw[at] = [0, 1, 2, 0xfc, 0xfd, 0xfe, 0xff][numbers.below(7)],
                    2 => drop(raw.drain(at..until)),
                    3 => {
                        let again = raw[at..until].to_vec();
                        raw.splice(at..at, again);
                    }
                    // A length in a longer form than it needs.
                    4 => drop(raw.splice(at..=at, [0xfd, original[at.min(original.len() - 1)], 0])),
                    // The form with witnesses for a transaction that has none, or only part of it.
                    5 => drop(raw.splice(at..at, [0, 1])),
                    _ => raw.truncate(at.max(82)),
                }
                if raw.len() < 82 {
                    break;
                }
            }
            if compare(&raw) {
                sound += 1;
            } else {
                broken += 1;
            }
        }
    }
    assert!(sound > 5_000 && broken > 5_000, "{sound} sound, {broken} broken");
}
