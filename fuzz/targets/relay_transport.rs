//! The encrypted transport (BIP 324). The input is a cutting seed and a mode; then either a stream as a stranger sends
//! it to a listener or to a dialler, or packets of a peer that completed the handshake: a byte for its kind, a length of
//! two bytes, the contents.
#![no_main]

use bytes::BytesMut;
use dunlin_fuzz::{decode, take};
use dunlin_peer::{Codec as _, SendBuf};
use dunlin_relay::{Codec, MAX_PAYLOAD, Message};
use libfuzzer_sys::fuzz_target;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Most bytes of a packet after its length: flags, command, payload, tag.
const MOST: usize = 1 + 13 + MAX_PAYLOAD + 16 + 3;

fn codec(seed: u8) -> Codec {
    Codec::encrypting(MAGIC, [seed; 32])
}

fn said(codec: &mut Codec, message: Option<&Message>) -> Vec<u8> {
    let mut out = SendBuf::default();
    match message {
        Some(message) => codec.encode(message, &mut out),
        None => codec.respond(&mut out),
    }
    out.to_vec()
}

fn hear(codec: &mut Codec, bytes: &[u8]) -> Vec<Message> {
    let mut input = BytesMut::from(bytes);
    let mut heard = Vec::new();
    while let Ok(Some(message)) = codec.decode(&mut input) {
        heard.push(message);
    }
    heard
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let seed = take(&mut data);
    match take(&mut data) % 3 {
        0 => {
            let (whole, error) = decode(&mut codec(1), data, 0, usize::MAX);
            let (messages, other) = decode(&mut codec(1), data, seed.max(1), MOST);
            assert_eq!((messages.len(), other), (whole.len(), error));
        }
        1 => {
            let mut dialler = codec(2);
            said(&mut dialler, Some(&Message::Encrypt));
            let (messages, _) = decode(&mut dialler, data, seed.max(1), MOST);
            assert!(messages.is_empty(), "nobody can guess the keys");
        }
        _ => {
            let (mut dialler, mut listener) = (codec(3), codec(4));
            let hello = said(&mut dialler, Some(&Message::Encrypt));
            hear(&mut listener, &hello);
            let answer = said(&mut listener, None);
            assert_eq!(hear(&mut dialler, &answer).len(), 1);
            let rest = said(&mut dialler, None);
            assert_eq!(hear(&mut listener, &rest).len(), 1);
            // A whole packet is heard as it was said; with any byte changed the link ends.
            let nonce = u64::from(seed);
            let packet = said(&mut dialler, Some(&Message::Ping(nonce)));
            assert!(matches!(hear(&mut listener, &packet)[..], [Message::Ping(n)] if n == nonce));
            let mut packet = said(&mut dialler, Some(&Message::Ping(nonce)));
            let place = usize::from(take(&mut data)) % packet.len();
            let change = take(&mut data);
            packet[place] ^= change;
            assert_eq!(hear(&mut listener, &packet).is_empty(), change != 0);
        }
    }
});
