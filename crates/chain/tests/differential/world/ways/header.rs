//! Broken headers.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, CompactTarget};

use super::When::{Header, Solved};
use super::{Way, way};

pub const WAYS: &[Way] = &[
    way("a time that is not after the median", Header, |_, state, block| {
        block.header.time = state.median();
        Some(())
    }),
    way("a time of nothing", Header, |_, _, block| {
        block.header.time = 0;
        Some(())
    }),
    way("a time three hours ahead", Header, |_, _, block| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        block.header.time = u32::try_from(now + 3 * 60 * 60).unwrap();
        Some(())
    }),
    way("the last time there is", Header, |_, _, block| {
        block.header.time = u32::MAX;
        Some(())
    }),
    way("another difficulty", Header, |_, _, block| bits(block, 0x207f_fffe)),
    way("a target beyond the limit", Header, |_, _, block| {
        bits(block, 0x2100_ffff)
    }),
    way("a negative target", Header, |_, _, block| bits(block, 0x20ff_ffff)),
    way("a target of zero", Header, |_, _, block| bits(block, 0x2000_0000)),
    way("a target that overflows", Header, |_, _, block| {
        bits(block, 0xff12_3456)
    }),
    way("version 1", Header, |_, _, block| version(block, 1)),
    way("version 2", Header, |_, _, block| version(block, 2)),
    way("version 3", Header, |_, _, block| version(block, 3)),
    way("version 0", Header, |_, _, block| version(block, 0)),
    way("a negative version", Header, |_, _, block| version(block, -1)),
    way("the most negative version", Header, |_, _, block| {
        version(block, i32::MIN)
    }),
    way("a parent that nobody knows", Header, |_, _, block| {
        block.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
        Some(())
    }),
    way("a merkle root of nothing", Header, |_, _, block| {
        block.header.merkle_root = bitcoin::TxMerkleNode::all_zeros();
        Some(())
    }),
    way("no proof of work", Solved, |_, _, block| {
        for _ in 0..1000 {
            if !block.header.target().is_met_by(block.block_hash()) {
                return Some(());
            }
            block.header.nonce = block.header.nonce.wrapping_add(1);
        }
        None
    }),
];

fn bits(block: &mut Block, bits: u32) -> Option<()> {
    block.header.bits = CompactTarget::from_consensus(bits);
    Some(())
}

fn version(block: &mut Block, version: i32) -> Option<()> {
    block.header.version = Version::from_consensus(version);
    Some(())
}
