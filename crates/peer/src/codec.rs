//! Bytes to messages and back, one codec for each link.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A link's framing: stateful (a handshake comes first, a cipher counts), bounded, without I/O.
pub trait Codec {
    /// What travels on the link.
    type Msg;

    /// Takes the next whole message off the front of `input`, or `None` when more bytes are needed.
    ///
    /// Bulk payload is split off `input` without a copy. A codec never reserves memory for a length that a peer
    /// merely claims; it refuses a claim beyond the protocol's bound as soon as it is read.
    ///
    /// # Errors
    /// [`CodecError`] says what was wrong; the link is closed.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Self::Msg>, CodecError>;

    /// How many bytes the message at the front of `input` still needs after a `decode` that gave none; 0 when that is
    /// not known. With it a long message gets a buffer of its own length.
    fn missing(&self, _input: &BytesMut) -> usize {
        0
    }

    /// Appends the message's bytes; bulk payload by reference.
    fn encode(&mut self, msg: &Self::Msg, out: &mut SendBuf);

    /// Appends what the framing itself has to say, such as its part of a key exchange and the messages that waited for
    /// it. Called after each `decode`.
    fn respond(&mut self, _out: &mut SendBuf) {}
}

/// The bytes of a peer broke the framing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

impl CodecError {
    /// An error that says `what` was wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Bytes to send: small writes gather in one buffer, large payload is held by reference, all goes out vectored.
#[derive(Debug, Default)]
pub struct SendBuf {
    full: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

/// Payload at least this long is queued by reference instead of copied.
const BY_REFERENCE: usize = 1024;

impl SendBuf {
    /// Copies `bytes` to the end.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Puts `bytes` at the end, without a copy when they are long.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < BY_REFERENCE {
            return self.put_slice(&bytes);
        }
        if !self.tail.is_empty() {
            self.full.push_back(self.tail.split().freeze());
        }
        self.len += bytes.len();
        self.full.push_back(bytes);
    }

    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `slices` with what comes next, for a vectored write; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let chunks = self.full.iter().map(|bytes| &bytes[..]).chain(tail);
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(chunks) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `count` bytes, which were sent.
    ///
    /// # Panics
    /// When `count` is more than [`SendBuf::len`].
    pub fn consume(&mut self, mut count: usize) {
        assert!(count <= self.len, "consumed more than was queued");
        self.len -= count;
        while let Some(front) = self.full.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.full.pop_front();
        }
        self.tail.advance(count);
    }

    /// Everything in one piece; for tests and for the simulator's byte counts.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for chunk in &self.full {
            all.extend_from_slice(chunk);
        }
        all.extend_from_slice(&self.tail);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_mixed_puts_and_partial_sends() {
        let big = Bytes::from(vec![7u8; 4000]);
        let mut buf = SendBuf::default();
        buf.put_slice(b"head");
        buf.put_bytes(big.clone());
        buf.put_bytes(Bytes::from_static(b"tail"));
        let mut want = b"head".to_vec();
        want.extend_from_slice(&big);
        want.extend_from_slice(b"tail");
        assert_eq!(buf.to_vec(), want);

        let mut got = Vec::new();
        while !buf.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2];
            let filled = buf.slices(&mut slices);
            let joined: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            let sent = joined.len().min(1500);
            got.extend_from_slice(&joined[..sent]);
            buf.consume(sent);
        }
        assert_eq!(got, want);
    }
}
