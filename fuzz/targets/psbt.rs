//! Partially signed transactions: what decodes is written in one form only, which decodes to the same.
#![no_main]

use dunlin_api::psbt::Psbt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((psbt, rest)) = Psbt::read(data) else { return };
    assert!(rest.len() < data.len());
    let written = psbt.write();
    let (again, rest) = Psbt::read(&written).expect("what we write decodes");
    assert!(rest.is_empty());
    assert_eq!(again.write(), written);
});
