//! Blocks: what parses is the same bytes again when it is put together anew, and coins that somebody says it spent are
//! one for each input or refused.
#![no_main]

use bytes::Bytes;
use dunlin_chain::{BlockUndo, Coin, ParsedBlock};
use libfuzzer_sys::fuzz_target;

fn coin(number: usize) -> Coin {
    Coin {
        output: bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(number as u64),
            script_pubkey: vec![0x51; number % 3].into(),
        },
        height: number as u32 % 7,
        coinbase: number % 2 == 0,
    }
}

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
    let inputs: usize = parsed.block().txdata.iter().skip(1).map(|tx| tx.input.len()).sum();
    for count in [inputs.saturating_sub(1), inputs, inputs + 1] {
        if let Ok(undo) = BlockUndo::claimed(&parsed, 5, (0..count).map(coin)) {
            assert_eq!((count, undo.spent.iter().flatten().count()), (inputs, inputs));
        }
    }
});
