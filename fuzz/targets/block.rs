//! Blocks: what parses is the same bytes again when it is put together anew.
#![no_main]

use bytes::Bytes;
use dunlin_chain::ParsedBlock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(parsed) = ParsedBlock::parse(Bytes::copy_from_slice(data)) else {
        return;
    };
    let made = ParsedBlock::from_block(parsed.block().clone());
    assert_eq!(made.raw, data);
    assert_eq!(made.hash, parsed.hash);
    assert_eq!(made.txids, parsed.txids);
    assert_eq!(made.wtxids, parsed.wtxids);
    for (index, tx) in parsed.block().txdata.iter().enumerate() {
        assert_eq!(parsed.txids[index], tx.compute_txid());
        assert_eq!(parsed.wtxids[index], tx.compute_wtxid());
        let raw = parsed.raw_tx(index).expect("a transaction of the block");
        assert_eq!(raw, bitcoin::consensus::serialize(tx));
    }
});
