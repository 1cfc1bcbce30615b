//! Making hints from the coins of a validated chain.
//!
//! An output is unspent at a height when it was made at or below it and is either unspent now or was spent above it. So
//! the coins that there are and the undo records above the height tell all; where an output stands in its block, only
//! the block does. Coins lie in the order of their names, hints in that of blocks: the coins are gone through once for
//! each range of heights whose coins fit in memory.

use std::io::Write;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use dunlin_store::StoreError;

use super::HintsWriter;
use crate::snapshot::{FrozenCoins, SnapshotError};
use crate::{Coin, Entry, TxParts};

/// Memory for the names of coins, in coins: 24 bytes each.
const MAX_COINS: usize = 12 << 20;

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintsMade {
    /// The hinted block.
    pub base: Entry,
    /// How many outputs are unspent there.
    pub coins: u64,
}

/// A coin: the height of its block, half of its transaction's id, its index. Nobody can make two ids with the same
/// half.
type Name = (u32, [u8; 16], u32);

fn name(height: u32, txid: &Txid, vout: u32) -> Name {
    let half = txid.as_byte_array().first_chunk::<16>().copied();
    (height, half.unwrap_or_default(), vout)
}

impl FrozenCoins {
    /// Writes the hints for `height`, a block of the validated chain; `tell` hears now and then how many of how many
    /// blocks are written.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was written then is of no use.
    pub fn write_hints(
        &self,
        height: u32,
        output: impl Write,
        tell: &mut dyn FnMut(u32, u32),
    ) -> Result<HintsMade, SnapshotError> {
        let base = self.base_at(height)?;
        let mut writer = HintsWriter::new(output, height)?;
        let mut coins = 0;
        let mut from = 1;
        while from <= height {
            let (to, names) = self.names(from, height)?;
            let mut names = &names[..];
            for at in from..=to {
                let here = names.partition_point(|(of, ..)| *of <= at);
                let (unspent, rest) = names.split_at(here);
                names = rest;
                writer.push(&self.places(at, unspent)?)?;
                coins += unspent.len() as u64;
                tell(at, height);
            }
            from = to.saturating_add(1);
        }
        writer.finish()?;
        Ok(HintsMade { base, coins })
    }

    fn base_at(&self, height: u32) -> Result<Entry, SnapshotError> {
        let tip = self.tip();
        let found = (1..=tip.height)
            .contains(&height)
            .then(|| self.ancestor(height))
            .flatten();
        found.ok_or_else(|| {
            SnapshotError::Refused(format!(
                "hints are made for a height from 1 to that of the tip, {}, and not for {height}",
                tip.height
            ))
        })
    }

    /// What is unspent at `base` of the blocks from `from` on, in order, and the last of those blocks.
    fn names(&self, from: u32, base: u32) -> Result<(u32, Vec<Name>), SnapshotError> {
        let mut found = Found {
            from,
            to: base,
            names: Vec::new(),
        };
        self.each::<StoreError>(&[], &mut |outpoint, coin| {
            found.add(outpoint, &coin);
            Ok(())
        })?;
        for height in base.saturating_add(1)..=self.tip().height {
            let Some(entry) = self.ancestor(height) else { break };
            let (block, undo) = self.read(&entry.hash)?;
            let spent = block.transactions().skip(1).zip(undo.spent);
            for (tx, coins) in spent {
                for (outpoint, coin) in tx.previous_outputs().zip(coins) {
                    found.add(outpoint, &coin);
                }
            }
        }
        found.names.sort_unstable();
        Ok((found.to, found.names))
    }

    /// Where some outputs stand in their block.
    fn places(&self, height: u32, unspent: &[Name]) -> Result<Vec<u32>, SnapshotError> {
        let mut places = Vec::with_capacity(unspent.len());
        if unspent.is_empty() {
            return Ok(places);
        }
        let block = self
            .ancestor(height)
            .map(|entry| self.read_block(&entry.hash))
            .transpose()?;
        let Some(block) = block else { return Ok(places) };
        let outputs = block.transactions().flat_map(|tx| {
            let (txid, count) = (tx.txid(), tx.outputs().len());
            (0u32..).take(count).map(move |vout| name(height, &txid, vout))
        });
        for (place, output) in (0u32..).zip(outputs) {
            if unspent.binary_search(&output).is_ok() {
                places.push(place);
            }
        }
        if places.len() != unspent.len() {
            let what = format!("the block at height {height}, or the coins: they do not fit each other");
            return Err(StoreError::corrupt(what).into());
        }
        Ok(places)
    }
}

/// Coins of some range of heights.
struct Found {
    from: u32,
    to: u32,
    names: Vec<Name>,
}

impl Found {
    fn add(&mut self, outpoint: OutPoint, coin: &Coin) {
        if !(self.from..=self.to).contains(&coin.height) {
            return;
        }
        self.names.push(name(coin.height, &outpoint.txid, outpoint.vout));
        while self.names.len() > MAX_COINS && self.to > self.from {
            self.to = self.from + (self.to - self.from) / 2;
            let to = self.to;
            self.names.retain(|(height, ..)| *height <= to);
        }
    }
}
