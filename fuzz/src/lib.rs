//! What several fuzz targets share: a stream in pieces, and the worlds of the sequence targets.

pub mod regtest;
pub mod torrents;

use bytes::BytesMut;
use dunlin_peer::{Codec, CodecError};

/// Takes one byte off the front; zero when there is none.
pub fn take(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else {
        return 0;
    };
    *data = rest;
    first
}

/// What a codec makes of `stream` when it arrives in pieces whose lengths are drawn from `seed`, and how it ended.
/// The codec must never hold back more than `most` bytes that it was given.
pub fn decode<C: Codec>(codec: &mut C, stream: &[u8], seed: u8, most: usize) -> (Vec<C::Msg>, Option<CodecError>) {
    let mut messages = Vec::new();
    let mut input = BytesMut::new();
    let mut rest = stream;
    let mut state = u32::from(seed);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // A seed of zero lets everything arrive at once.
        let piece = if seed == 0 {
            rest.len()
        } else {
            (state >> 24) as usize % 97 + 1
        };
        let (now, later) = rest.split_at(piece.min(rest.len()));
        rest = later;
        input.extend_from_slice(now);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(input.len() <= most, "{} bytes held back", input.len());
    }
    (messages, None)
}
