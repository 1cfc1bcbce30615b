//! Blocks in a stream, as block files hold them: the network's magic, the length (four bytes, little-endian), the
//! bytes. What lies between is skipped, as Core does: the search goes on at the next magic.
//!
//! Core may XOR its files with eight bytes from `xor.dat`, each byte with the one at its offset modulo eight.

use std::io::{self, Read};

use bytes::Bytes;

use crate::MAX_BLOCK_BYTES;

/// What a file's bytes are XOR-ed with.
pub(crate) type Key = [u8; 8];

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Bytes before a block: magic and length.
const FRAME: usize = 8;

/// No block is shorter than its header.
const MIN_BLOCK_BYTES: usize = 80;

/// What looks like a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where its magic begins.
    pub(crate) offset: u64,
    /// What follows the length.
    pub(crate) bytes: Bytes,
}

/// Finds blocks in a stream. At most one block and two chunks are in memory.
pub(crate) struct BlockStream<R> {
    input: R,
    magic: [u8; 4],
    key: Key,
    buffer: Vec<u8>,
    /// Where in the stream the buffer begins.
    base: u64,
    /// Where in the buffer the search goes on.
    at: usize,
    /// Where in the buffer the magic of the last frame begins.
    last: usize,
    ended: bool,
}

impl<R: Read> BlockStream<R> {
    pub(crate) fn new(input: R, magic: [u8; 4], key: Key) -> Self {
        Self {
            input,
            magic,
            key,
            buffer: Vec::new(),
            base: 0,
            at: 0,
            last: 0,
            ended: false,
        }
    }

    /// How far the search has come.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// How far the stream was read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// Those of the input.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if !self.find_magic()? {
                return Ok(None);
            }
            self.last = self.at;
            let body = self.at + FRAME;
            if !self.reaches(body)? {
                return Ok(None);
            }
            let mut len = [0; 4];
            len.copy_from_slice(&self.buffer[self.at + 4..body]);
            let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
            if !(MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&len) || !self.reaches(body + len)? {
                self.at += 1;
                continue;
            }
            self.at = body + len;
            return Ok(Some(Frame {
                offset: self.base + self.last as u64,
                bytes: Bytes::copy_from_slice(&self.buffer[body..body + len]),
            }));
        }
    }

    /// The last frame was no block: goes on right behind where its magic began.
    pub(crate) fn reject(&mut self) {
        self.at = self.last + 1;
    }

    /// Moves to the next magic; `false` when there is none.
    fn find_magic(&mut self) -> io::Result<bool> {
        loop {
            if self.at > CHUNK {
                self.buffer.drain(..self.at);
                self.base += self.at as u64;
                self.at = 0;
            }
            let rest = &self.buffer[self.at..];
            if let Some(found) = rest.windows(4).position(|bytes| bytes == self.magic) {
                self.at += found;
                return Ok(true);
            }
            // The magic may begin in the last three bytes.
            self.at = self.at.max(self.buffer.len().saturating_sub(3));
            if !self.reaches(self.buffer.len() + 1)? {
                return Ok(false);
            }
        }
    }

    /// Reads until the buffer has `len` bytes; `false` when the stream ends before.
    fn reaches(&mut self, len: usize) -> io::Result<bool> {
        while self.buffer.len() < len && !self.ended {
            let old = self.buffer.len();
            self.buffer.resize(old + CHUNK, 0);
            let read = self.input.read(&mut self.buffer[old..]);
            let count = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(old);
                    continue;
                }
                Err(error) => {
                    self.buffer.truncate(old);
                    return Err(error);
                }
                Ok(count) => count,
            };
            self.buffer.truncate(old + count);
            self.ended = count == 0;
            unmask(&mut self.buffer[old..], self.base + old as u64, self.key);
        }
        Ok(self.buffer.len() >= len)
    }
}

/// Takes the key off bytes that lie at `offset`; the key of zeros changes nothing.
pub(crate) fn unmask(bytes: &mut [u8], offset: u64, key: Key) {
    if key == Key::default() {
        return;
    }
    for (byte, at) in bytes.iter_mut().zip(offset..) {
        *byte ^= key[(at % 8) as usize];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"magi";

    fn framed(body: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &(body.len() as u32).to_le_bytes(), body].concat()
    }

    fn all(bytes: &[u8], key: Key) -> Vec<(u64, Vec<u8>)> {
        let mut stream = BlockStream::new(bytes, MAGIC, key);
        std::iter::from_fn(|| stream.next().unwrap())
            .map(|frame| (frame.offset, frame.bytes.to_vec()))
            .collect()
    }

    #[test]
    fn frames_are_found_between_anything() {
        let (a, b) = (vec![1; 80], vec![2; 3_000_000]);
        let zeros = vec![0; 3 * CHUNK];
        let bytes = [
            &b"mag"[..],
            &framed(&a),
            b"magimagi",
            &framed(&b),
            &framed(&[9; 79]),
            &zeros,
            &framed(&a),
            b"mag",
        ]
        .concat();
        let found = all(&bytes, Key::default());
        let bodies: Vec<&[u8]> = found.iter().map(|(_, body)| &body[..]).collect();
        assert_eq!(bodies, [&a[..], &b, &a]);
        for (offset, body) in &found {
            assert_eq!(&bytes[*offset as usize + 8..][..body.len()], &body[..]);
        }

        let key = [1, 2, 3, 4, 5, 6, 7, 0xff];
        let mut masked = bytes.clone();
        unmask(&mut masked, 0, key);
        assert_ne!(masked, bytes);
        assert_eq!(all(&masked, key), found);
        assert_eq!(all(&masked, Key::default()), []);
    }

    #[test]
    fn a_length_that_lies_hides_nothing_behind_it() {
        let inner = framed(&[7; 100]);
        // It claims more than the file has, or holds another frame and is rejected by who reads it.
        let short = [&MAGIC[..], &4_000_000u32.to_le_bytes(), &inner].concat();
        assert_eq!(all(&short, Key::default()), [(8, vec![7; 100])]);
        let outer = framed(&[&[0; 50][..], &inner].concat());
        let mut stream = BlockStream::new(&outer[..], MAGIC, Key::default());
        assert_eq!(stream.next().unwrap().unwrap().offset, 0);
        stream.reject();
        assert_eq!(stream.next().unwrap().unwrap().offset, 58);
        assert_eq!(stream.next().unwrap(), None);
    }

    #[test]
    fn cut_files_end_quietly() {
        let whole = framed(&[7; 100]);
        for len in 0..whole.len() {
            assert_eq!(all(&whole[..len], Key::default()), []);
        }
    }
}
