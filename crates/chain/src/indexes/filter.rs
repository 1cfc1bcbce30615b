//! Compact block filters (BIP 158, basic) and the chain of their headers (BIP 157).
//!
//! Both spaces have height (four bytes, big-endian) and block hash as their key, so that filters of blocks that have
//! left the chain stay. Space 2: filter header, filter hash. Space 3: the filter.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::bip158::{FilterHash, FilterHeader, GcsFilterWriter};
use bitcoin::hashes::Hash;
use dunlin_store::{Space, StoreError, Table};

use super::changes::Changes;
use super::frame::{Content, Joined, Point, place_key};
use crate::TxParts;

/// The basic filter's parameters of Golomb-Rice coding: bits of a remainder, and the inverse rate of false positives.
const P: u8 = 19;
const M: u64 = 784_931;

const HEADERS: Space = Space(2);
const FILTERS: Space = Space(3);

pub(crate) struct Writer {
    header: FilterHeader,
}

impl Default for Writer {
    /// Before the genesis block the filter header is zero.
    fn default() -> Self {
        Self {
            header: FilterHeader::all_zeros(),
        }
    }
}

impl Content for Writer {
    fn load(&mut self, table: &dyn Table, at: Option<Point>) -> Result<(), StoreError> {
        self.header = match at {
            None => FilterHeader::all_zeros(),
            Some(at) => headers(table, at.height, &at.hash)?
                .map(|found| found.header)
                .ok_or_else(|| StoreError::corrupt(format!("the filter header of block {}", at.hash)))?,
        };
        Ok(())
    }

    fn join(&mut self, joined: &Joined<'_>, changes: &mut Changes) -> Result<(), StoreError> {
        let content = basic_filter(joined);
        let hash = FilterHash::hash(&content);
        self.header = hash.filter_header(&self.header);
        let key = place_key(joined.height, &joined.block.hash);
        let mut value = [0; 64];
        value[..32].copy_from_slice(self.header.as_byte_array());
        value[32..].copy_from_slice(hash.as_byte_array());
        changes.put_for_good(HEADERS, key, value);
        changes.put_for_good(FILTERS, key, content);
        Ok(())
    }
}

/// The filter over all output scripts but empty ones and those that begin with `OP_RETURN`, and over the scripts of
/// all coins spent but empty ones.
fn basic_filter(joined: &Joined<'_>) -> Vec<u8> {
    let hash = joined.block.hash.to_byte_array();
    let key = |at: usize| {
        hash[at..at + 8]
            .iter()
            .rev()
            .fold(0, |key, byte| (key << 8) | u64::from(*byte))
    };
    let mut content = Vec::new();
    let mut writer = GcsFilterWriter::new(&mut content, key(0), key(8), M, P);
    for tx in joined.block.transactions() {
        for output in tx.outputs().filter(|output| !output.script_pubkey.is_op_return()) {
            writer.add_element(output.script_pubkey.as_bytes());
        }
    }
    for coin in joined.undo.spent.iter().flatten() {
        writer.add_element(coin.output.script_pubkey.as_bytes());
    }
    let written = writer.finish();
    // Writing to memory cannot fail.
    debug_assert!(written.is_ok());
    content
}

/// What the filter chain says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterHeaders {
    /// The filter header.
    pub header: FilterHeader,
    /// The hash of the filter.
    pub hash: FilterHash,
}

fn headers(table: &dyn Table, height: u32, hash: &BlockHash) -> Result<Option<FilterHeaders>, StoreError> {
    let Some(bytes) = table.get(HEADERS, &place_key(height, hash))? else {
        return Ok(None);
    };
    match bytes.as_chunks::<32>().0 {
        [header, hash] => Ok(Some(FilterHeaders {
            header: FilterHeader::from_byte_array(*header),
            hash: FilterHash::from_byte_array(*hash),
        })),
        _ => Err(StoreError::corrupt(format!("the filter header of block {hash}"))),
    }
}

/// Reading the index of filters.
#[derive(Clone)]
pub struct FilterIndex {
    pub(crate) table: Arc<dyn Table>,
}

impl FilterIndex {
    /// The filter of a block at its height; `None` when it was never indexed.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn filter(&self, height: u32, hash: &BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.table.get(FILTERS, &place_key(height, hash))
    }

    /// The filter's header and hash; `None` when the block was never indexed.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn headers(&self, height: u32, hash: &BlockHash) -> Result<Option<FilterHeaders>, StoreError> {
        headers(&*self.table, height, hash)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{BlockUndo, Coin, ParsedBlock};
    use bitcoin::{Amount, ScriptBuf, TxOut};

    /// BIP 158's own vectors, as Bitcoin Core ships them: height, block hash, block, scripts spent, previous header,
    /// filter, header, note.
    #[test]
    fn the_vectors_of_bip_158() {
        let text = include_str!("../../tests/data/blockfilters.json");
        let rows: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        let mut seen = 0;
        for row in rows.iter().filter(|row| row.as_array().unwrap().len() > 1) {
            let text = |n: usize| row[n].as_str().unwrap();
            let block = ParsedBlock::parse(hex::decode(text(2)).unwrap().into()).unwrap();
            assert_eq!(block.hash.to_string(), text(1));
            let mut scripts = row[3].as_array().unwrap().iter().map(|script| Coin {
                output: TxOut {
                    value: Amount::ZERO,
                    script_pubkey: ScriptBuf::from_hex(script.as_str().unwrap()).unwrap(),
                },
                height: 0,
                coinbase: false,
            });
            let undo = BlockUndo {
                spent: block
                    .transactions()
                    .skip(1)
                    .map(|tx| scripts.by_ref().take(tx.inputs().len()).collect())
                    .collect(),
            };
            let mut writer = Writer {
                header: text(4).parse().unwrap(),
            };
            let joined = Joined {
                block: &block,
                height: 0,
                undo: &undo,
            };
            assert_eq!(hex::encode(basic_filter(&joined)), text(5), "{}", row[7]);
            writer.join(&joined, &mut Changes::default()).unwrap();
            assert_eq!(writer.header.to_string(), text(6));
            seen += 1;
        }
        assert!(seen >= 9, "{seen}");
    }
}
