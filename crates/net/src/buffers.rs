//! The buffers that busy links read into, used again once nobody holds a part of them any more.
//!
//! Payload stays where it was read until it is written to disk, and the thread that writes it lets go of it. Memory
//! that goes back to the allocator on another thread than it came from is costly to get again, and touching fresh memory
//! more so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::BytesMut;

/// Bytes in a buffer.
pub(crate) const BUFFER: usize = 256 << 10;
/// Buffers remembered at most.
const KEPT: usize = 256;
/// Buffers looked at for one that is free; the oldest come first.
const LOOKS: usize = 8;

/// The buffers of one reactor.
#[derive(Default)]
pub(crate) struct Buffers {
    /// Handles without bytes of their own to buffers whose parts may still be in use.
    kept: RefCell<VecDeque<BytesMut>>,
    /// Whether one was wanted since the last tick.
    wanted: Cell<bool>,
}

impl Buffers {
    /// An empty buffer of [`BUFFER`] bytes.
    pub(crate) fn take(&self) -> BytesMut {
        self.wanted.set(true);
        let mut kept = self.kept.borrow_mut();
        for _ in 0..kept.len().min(LOOKS) {
            let Some(mut buffer) = kept.pop_front() else { break };
            if buffer.try_reclaim(BUFFER) {
                return buffer;
            }
            kept.push_back(buffer);
        }
        BytesMut::with_capacity(BUFFER)
    }

    /// Remembers a buffer that came from [`Buffers::take`] and was read into; what is left in it is forgotten.
    pub(crate) fn give(&self, mut buffer: BytesMut) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT {
            buffer.clear();
            kept.push_back(buffer);
        }
    }

    /// Called now and then: gives all memory back when no link was busy since the last time.
    pub(crate) fn tick(&self) {
        if !self.wanted.replace(false) {
            *self.kept.borrow_mut() = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_its_parts_are_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(&[1; 100]);
        let place = buffer.as_ptr();
        let part = buffer.split_to(60).freeze();
        buffers.give(buffer);
        let other = buffers.take();
        assert_ne!(other.as_ptr(), place, "a part of the first is still held");
        drop(part);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= BUFFER);
    }

    #[test]
    fn memory_goes_back_when_links_are_quiet() {
        let buffers = Buffers::default();
        buffers.give(buffers.take());
        buffers.tick();
        assert_eq!(buffers.kept.borrow().len(), 1);
        buffers.tick();
        assert_eq!(buffers.kept.borrow().len(), 0);
    }
}
