//! Merging runs: which, and how.
//!
//! Runs differ in size by orders of magnitude. A run belongs to the tier of its size; when a tier has [`FAN`] runs they
//! and all newer ones become one, which belongs to the next tier or grows into it. So a record is written once for
//! each tier, and a look-up meets fewer than [`FAN`] runs of each.

use std::ops::Range;
use std::sync::Arc;

use super::run::{Cursor, Run};
use crate::StoreError;

/// Runs of one tier that are merged together, and how much larger the runs of the next tier are.
pub(super) const FAN: usize = 16;
/// Runs up to this many bytes are of the lowest tier.
const SMALLEST: u64 = 64 << 10;

fn tier(bytes: u64) -> u32 {
    let mut tier = 0;
    let mut limit = SMALLEST;
    while bytes > limit {
        limit = limit.saturating_mul(FAN as u64);
        tier += 1;
    }
    tier
}

/// Which of the runs (their sizes, the oldest first) should be merged now: a range up to the newest.
pub(super) fn choose(sizes: &[u64]) -> Option<Range<usize>> {
    let highest = sizes.iter().map(|bytes| tier(*bytes)).max()?;
    (0..=highest).find_map(|level| {
        let newer = sizes.iter().rev().take_while(|bytes| tier(**bytes) <= level);
        let (count, members) = newer.fold((0, 0), |(count, members), bytes| {
            (count + 1, members + usize::from(tier(*bytes) == level))
        });
        (members >= FAN).then(|| sizes.len() - count..sizes.len())
    })
}

/// The records of several runs in key order; of several records with the same key only the newest.
pub(super) struct Merged {
    /// The newest run first.
    cursors: Vec<Cursor>,
    current: Option<usize>,
}

impl Merged {
    /// Stands on the first record of `runs` that is not below `from`; the runs are given the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when a run cannot be read.
    pub(super) fn new(runs: &[Arc<Run>], from: &[u8]) -> Result<Self, StoreError> {
        let cursors = runs.iter().rev().map(|run| Cursor::new(Arc::clone(run), from));
        let mut merged = Self {
            cursors: cursors.collect::<Result<_, _>>()?,
            current: None,
        };
        merged.find();
        Ok(merged)
    }

    fn find(&mut self) {
        let mut least: Option<(usize, &[u8])> = None;
        for (index, cursor) in self.cursors.iter().enumerate() {
            if let Some((key, _)) = cursor.record()
                && least.is_none_or(|(_, least)| key < least)
            {
                least = Some((index, key));
            }
        }
        self.current = least.map(|(index, _)| index);
    }

    /// The current record: its key, and its value unless it was removed; `None` behind the last.
    pub(super) fn record(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.cursors.get(self.current?)?.record()
    }

    /// Goes on to the next key.
    ///
    /// # Errors
    /// [`StoreError`] when a run cannot be read.
    pub(super) fn advance(&mut self) -> Result<(), StoreError> {
        let Some(current) = self.current else { return Ok(()) };
        // Newer cursors stand on greater keys; older ones may stand on this one.
        let (newer, older) = self.cursors.split_at_mut(current + 1);
        let Some(here) = newer.last_mut() else { return Ok(()) };
        if let Some((key, _)) = here.record() {
            for cursor in older {
                if cursor.record().is_some_and(|(other, _)| other == key) {
                    cursor.advance()?;
                }
            }
        }
        here.advance()?;
        self.find();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_are_merged_once_for_each_tier() {
        let mut sizes: Vec<u64> = Vec::new();
        let (mut flushed, mut written, mut most) = (0u64, 0u64, 0);
        for round in 0..5000u64 {
            let size = (1 << 20) + round * 7919 % (1 << 18);
            flushed += size;
            sizes.push(size);
            while let Some(range) = choose(&sizes) {
                let sum = sizes[range.clone()].iter().sum();
                written += sum;
                sizes.splice(range, [sum]);
            }
            most = most.max(sizes.len());
        }
        assert!(written < flushed * 5, "{} times", written / flushed);
        assert!(most < 5 * FAN, "{most} runs");
    }

    #[test]
    fn small_runs_between_large_ones_go_with_them() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[1 << 30; FAN - 1]), None);
        let mut sizes = vec![1 << 30; FAN];
        sizes.insert(3, 1000);
        sizes.push(1000);
        sizes.insert(0, 1 << 40);
        assert_eq!(choose(&sizes), Some(1..FAN + 3));
        let mut sizes = vec![9; FAN + 1];
        sizes[0] = 1 << 30;
        assert_eq!(choose(&sizes), Some(1..FAN + 1));
    }
}
