//! Hints files (BIP 456): whatever can be read is written again byte for byte, and nothing damaged brings the reader
//! down.
#![no_main]

use dunlin_chain::swiftsync::{Hints, HintsWriter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(hints) = Hints::parse(data.to_vec()) else {
        return;
    };
    let blocks: Result<Vec<Vec<u32>>, _> = (1..=hints.height()).map(|height| hints.unspent(height)).collect();
    let Ok(blocks) = blocks else { return };
    let mut writer = HintsWriter::new(Vec::new(), hints.height()).expect("memory takes everything");
    for block in &blocks {
        writer.push(block).expect("what was read ascends");
    }
    assert_eq!(writer.finish().expect("there are as many blocks"), data);
});
