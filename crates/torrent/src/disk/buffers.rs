//! Memory that blocks are read into for peers, used again once they are sent: fresh memory would have to be cleared and
//! got from the system anew each time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::wire::MAX_BLOCK_LEN;

/// Bytes of a buffer that is used again.
const WHOLE: usize = MAX_BLOCK_LEN as usize;
/// Fewer bytes get memory of just their size: they may wait long, and would keep a whole buffer.
const LEAST: usize = WHOLE / 2;
/// Buffers kept for later.
const KEPT: usize = 32;

/// The free buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that is in use; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer for `len` bytes, with any bytes in it.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let bytes = if !(LEAST..=WHOLE).contains(&len) {
            vec![0; len]
        } else {
            let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
            free.unwrap_or_else(|| vec![0; WHOLE])
        };
        Buffer {
            bytes,
            len,
            home: self.clone(),
        }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::from_owner(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT && self.bytes.len() == WHOLE {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_free_again_when_all_of_its_bytes_are_dropped() {
        let buffers = Buffers::default();
        let free = || buffers.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut buffer = buffers.take(LEAST);
        buffer.as_mut()[..4].copy_from_slice(b"abcd");
        let mut bytes = Bytes::from(buffer);
        let head = bytes.split_to(2);
        assert_eq!((&head[..], &bytes[..2], free()), (&b"ab"[..], &b"cd"[..], 0));
        drop(bytes);
        assert_eq!(free(), 0);
        drop(head);
        assert_eq!(free(), 1);
        assert_eq!(buffers.take(9).as_ref().len(), 9);
        assert_eq!(free(), 1, "few bytes have memory of their own");
        assert_eq!(buffers.take(LEAST + 1).as_ref().len(), LEAST + 1);
        assert_eq!(free(), 1);
    }
}
