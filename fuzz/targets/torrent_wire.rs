//! The peer wire of BitTorrent: the first byte says how the stream is cut into pieces, the rest follows a handshake.
//! Pieces change nothing, and every message that was decoded is the same after encoding and decoding it.
#![no_main]

use dunlin_fuzz::{decode, take};
use dunlin_peer::{Codec as _, SendBuf};
use dunlin_torrent::wire::{Codec, ExtHandshake, ExtensionIds, Handshake, Message, Reserved};
use dunlin_torrent::{InfoHash, PeerId};
use libfuzzer_sys::fuzz_target;

/// More than the longest message: a bitfield of two million pieces, an extension message, a block.
const MOST: usize = 300 * 1024;

fn bytes_of(codec: &mut Codec, message: &Message) -> Vec<u8> {
    let mut out = SendBuf::default();
    codec.encode(message, &mut out);
    out.to_vec()
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let seed = take(&mut data);
    let shake = Message::Handshake(Handshake {
        reserved: Reserved::OURS,
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
    });
    let ids = Message::ExtHandshake(ExtHandshake {
        ids: ExtensionIds::OURS,
        ..ExtHandshake::default()
    });
    // The very first bytes, before any handshake.
    decode(&mut Codec::new(), data, seed, MOST);

    let mut stream = bytes_of(&mut Codec::new(), &shake);
    stream.extend_from_slice(data);
    let (whole, error) = decode(&mut Codec::new(), &stream, 0, usize::MAX);
    let (messages, other) = decode(&mut Codec::new(), &stream, seed.max(1), MOST);
    assert_eq!(messages, whole);
    assert_eq!(other, error);

    // An encoder that believes to speak with one of us.
    let mut encoder = Codec::new();
    let mut hello = bytes_of(&mut Codec::new(), &shake);
    hello.extend(bytes_of(&mut Codec::new(), &ids));
    decode(&mut encoder, &hello, 0, MOST);
    let mut decoder = Codec::new();
    decode(&mut decoder, &bytes_of(&mut Codec::new(), &shake), 0, MOST);
    for message in messages.iter().skip(1) {
        let bytes = bytes_of(&mut encoder, message);
        let (again, error) = decode(&mut decoder, &bytes, 0, MOST);
        assert_eq!(error, None, "{message:?}");
        match message {
            Message::Unknown { .. } => assert!(again.is_empty()),
            _ => assert_eq!(again, std::slice::from_ref(message)),
        }
    }
});
