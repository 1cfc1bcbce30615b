//! What the chain keeps on disk: coins, undo records and index records. Whatever is read is the same after writing and
//! reading it again, and nothing damaged brings the reader down.
#![no_main]

use dunlin_chain::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => fuzzing::coin(data),
        1 => fuzzing::undo(data),
        _ => fuzzing::index_record(data),
    }
});
