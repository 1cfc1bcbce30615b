//! Encrypted BitTorrent links (MSE). The input is a cutting seed and a mode; then a stream as a stranger sends it to a
//! listener or to a dialler, or what a peer says after its handshake, in cuts, behind real keys.
#![no_main]

use bytes::BytesMut;
use dunlin_fuzz::{decode, take};
use dunlin_peer::{Codec as _, SendBuf};
use dunlin_torrent::InfoHash;
use dunlin_torrent::wire::{Codec, Encryption, Message, TorrentKeys};
use libfuzzer_sys::fuzz_target;

/// More than the longest message after the handshake; during it far less is held.
const MOST: usize = 300 * 1024;
const TORRENT: InfoHash = InfoHash([1; 20]);

fn codec(encryption: Encryption, seed: u8) -> Codec {
    let keys = TorrentKeys::default();
    keys.insert(TORRENT);
    Codec::encrypting(encryption, keys, [seed; 32])
}

fn said(codec: &mut Codec, message: Option<&Message>) -> Vec<u8> {
    let mut out = SendBuf::default();
    match message {
        Some(message) => codec.encode(message, &mut out),
        None => codec.respond(&mut out),
    }
    out.to_vec()
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let seed = take(&mut data);
    let mode = take(&mut data);
    let encryption = if mode & 0x80 == 0 {
        Encryption::Prefer
    } else {
        Encryption::Require
    };
    match mode % 3 {
        0 => {
            let (whole, error) = decode(&mut codec(encryption, 1), data, 0, usize::MAX);
            let (messages, other) = decode(&mut codec(encryption, 1), data, seed.max(1), MOST);
            assert_eq!((messages, other), (whole, error));
        }
        1 => {
            let mut dialler = codec(encryption, 2);
            said(&mut dialler, Some(&Message::Encrypt(TORRENT)));
            let (messages, _) = decode(&mut dialler, data, seed.max(1), 96 + 512 + 512 + 64);
            assert!(messages.is_empty(), "nobody can guess the keys");
        }
        _ => {
            let (mut dialler, mut listener) = (codec(encryption, 3), codec(encryption, 4));
            let mut input = BytesMut::from(&said(&mut dialler, Some(&Message::Encrypt(TORRENT)))[..]);
            assert_eq!(listener.decode(&mut input), Ok(None));
            let mut answer = BytesMut::from(&said(&mut listener, None)[..]);
            assert_eq!(dialler.decode(&mut answer), Ok(None));
            let mut stream = said(&mut dialler, None);
            stream.extend_from_slice(data);
            // The rest of its padding stands before the stream.
            input.extend_from_slice(&stream);
            let (_, error) = decode(&mut listener, &input, seed.max(1), MOST);
            let refused = error.is_some_and(|error| error.to_string().contains("encrypted handshake"));
            assert!(!refused, "the keys agree");
        }
    }
});
