//! What is going to happen, in order of time and, within one instant, of being asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dunlin_peer::Now;

/// A priority queue whose payloads stay where they are while their keys are sorted.
pub(crate) struct Queue<T> {
    keys: BinaryHeap<Reverse<(Now, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            keys: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at: Now, item: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(item);
                slot
            }
            None => {
                self.slots.push(Some(item));
                self.slots.len() - 1
            }
        };
        self.keys.push(Reverse((at, self.sequence, slot)));
        self.sequence += 1;
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Now> {
        self.keys.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Now, T)> {
        let Reverse((at, _, slot)) = self.keys.pop()?;
        self.free.push(slot);
        self.slots[slot].take().map(|item| (at, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_orders_and_then_sequence() {
        let mut queue = Queue::default();
        for (at, item) in [(5, 'd'), (1, 'a'), (5, 'e'), (2, 'b'), (2, 'c')] {
            queue.push(Now::from_micros(at), item);
        }
        assert_eq!(queue.next_at(), Some(Now::from_micros(1)));
        let mut order = String::new();
        while let Some((_, item)) = queue.pop() {
            order.push(item);
            if item == 'b' {
                queue.push(Now::from_micros(2), 'x');
            }
        }
        assert_eq!(order, "abcxde");
    }
}
