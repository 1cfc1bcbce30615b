//! uTP packets: what decodes is the same after encoding and decoding it, unless an extension was dropped.
#![no_main]

use bytes::Bytes;
use dunlin_torrent::utp::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(packet) = Packet::decode(Bytes::copy_from_slice(data)) {
        assert!(packet.payload.len() < data.len());
        assert_eq!(Packet::decode(packet.encode()), Some(packet));
    }
});
