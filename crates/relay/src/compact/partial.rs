//! Rebuilding a block from its compact form and the transactions at hand.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::Encodable;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, VarInt, Wtxid};
use dunlin_chain::ParsedBlock;
use dunlin_chain::rules::is_mutated;

use crate::wire::CompactBlock;

/// Why a compact block does not become a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The sender broke the protocol.
    Invalid,
    /// Short ids coincided, or stand for other transactions than ours: the whole block has to be fetched.
    Collision,
}

/// A block of which some transactions may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    header: Header,
    txs: Vec<Option<Arc<Transaction>>>,
}

/// What is known of one short id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    One(Wtxid),
    /// Two transactions have it: the right one is asked for.
    Several,
}

impl Partial {
    /// Puts the prefilled transactions and those of `at_hand` with the right short ids in their places.
    pub(crate) fn new<'a>(
        compact: &CompactBlock,
        at_hand: impl Iterator<Item = (Wtxid, &'a Arc<Transaction>)>,
    ) -> Result<Self, Unfit> {
        let mut txs = vec![None; compact.tx_count()];
        for (place, tx) in &compact.prefilled {
            let slot = txs.get_mut(usize::from(*place)).ok_or(Unfit::Invalid)?;
            if tx.input.is_empty() && tx.output.is_empty() {
                return Err(Unfit::Invalid);
            }
            *slot = Some(Arc::clone(tx));
        }
        if txs.is_empty() {
            return Err(Unfit::Invalid);
        }
        let open = (0..txs.len()).filter(|place| txs[*place].is_none());
        let mut wanted: Vec<(u64, usize)> = compact.short_ids.iter().copied().zip(open).collect();
        wanted.sort_unstable();
        if wanted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Unfit::Collision);
        }
        let ids = compact.ids();
        let mut found = vec![Found::Nothing; wanted.len()];
        let mut count = 0;
        for (wtxid, tx) in at_hand {
            let id = ids.of(&wtxid);
            let Ok(index) = wanted.binary_search_by_key(&id, |(id, _)| *id) else {
                continue;
            };
            let slot = &mut txs[wanted[index].1];
            match found[index] {
                Found::Nothing => {
                    found[index] = Found::One(wtxid);
                    *slot = Some(Arc::clone(tx));
                    count += 1;
                }
                Found::One(other) if other != wtxid => {
                    found[index] = Found::Several;
                    *slot = None;
                }
                _ => {}
            }
            // A second match for one of them is too unlikely to go through all the rest for.
            if count == wanted.len() {
                break;
            }
        }
        Ok(Self {
            header: compact.header,
            txs,
        })
    }

    /// Places of what is missing, ascending.
    pub(crate) fn missing(&self) -> Vec<u16> {
        let places = self.txs.iter().enumerate().filter(|(_, tx)| tx.is_none());
        // A compact block has no more places than 16 bits can count.
        places.map(|(place, _)| place as u16).collect()
    }

    /// The block, with `rest` in the places that are missing. `segwit` tells whether BIP 141 is in force at its height.
    pub(crate) fn fill(self, rest: Vec<Arc<Transaction>>, segwit: bool) -> Result<Arc<ParsedBlock>, Unfit> {
        let mut rest = rest.into_iter();
        let mut raw = serialize(&self.header);
        raw.extend(serialize(&VarInt::from(self.txs.len())));
        for tx in self.txs {
            let tx = tx.or_else(|| rest.next()).ok_or(Unfit::Invalid)?;
            tx.consensus_encode(&mut raw).expect("a vector takes everything");
        }
        if rest.next().is_some() {
            return Err(Unfit::Invalid);
        }
        let block = ParsedBlock::parse(raw.into()).map_err(|_| Unfit::Collision)?;
        if is_mutated(&block, segwit) {
            return Err(Unfit::Collision);
        }
        Ok(block)
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
