//! Resume files: the input is the dictionary, the checksum is put before it.
#![no_main]

use bitcoin::hashes::{Hash, sha256};
use dunlin_torrent::resume::Resume;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut bytes = b"DUNLRES1".to_vec();
    bytes.extend_from_slice(sha256::Hash::hash(body).as_byte_array());
    bytes.extend_from_slice(body);
    if let Ok(resume) = Resume::decode(&bytes) {
        let again = Resume::decode(&resume.encode()).expect("what we write is read");
        assert_eq!(again, resume);
        if let Ok(Some(metainfo)) = resume.metainfo() {
            assert_eq!(metainfo.info_hash, resume.info_hash);
        }
    }
    // The same bytes without a checksum are refused, however they look.
    let _ = Resume::decode(body);
});
