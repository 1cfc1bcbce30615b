//! A block parsed once and shared from the wire to the disk.

use std::ops::Range;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, encode, serialize};
use bitcoin::{Block, BlockHash, Transaction, Txid, VarInt, Wtxid};
use bytes::Bytes;

/// No valid block has more bytes than this (its weight would pass 4,000,000).
pub const MAX_BLOCK_BYTES: usize = 4_000_000;

/// The smallest transaction that decodes: version, two counts, one input, one output, lock time.
const MIN_TRANSACTION_BYTES: u64 = 60;

/// The bytes are no block.
#[derive(Debug, thiserror::Error)]
pub enum BlockDecodeError {
    /// More bytes than any valid block has.
    #[error("a block of {0} bytes is larger than any valid block")]
    TooLarge(usize),
    /// A transaction count that the bytes cannot hold.
    #[error("a block of {bytes} bytes claims {count} transactions")]
    TooMany {
        /// What it claims.
        count: u64,
        /// How long it is.
        bytes: usize,
    },
    /// A transaction without inputs, written as if it had witnesses; Core refuses to read it, too.
    #[error("a transaction without inputs is written as one with witnesses")]
    NoInputs,
    /// Bytes are left over after the last transaction.
    #[error("{0} bytes follow the last transaction")]
    Trailing(usize),
    /// The encoding is broken.
    #[error("{0}")]
    Encoding(#[from] encode::Error),
}

/// A block with what everybody asks of it computed once. It is always handed around in an [`Arc`].
#[derive(Debug)]
pub struct ParsedBlock {
    /// The block in wire encoding, witnesses included.
    pub raw: Bytes,
    /// The block as a structure.
    pub block: Block,
    /// The header's hash.
    pub hash: BlockHash,
    /// The transactions' ids, in block order.
    pub txids: Vec<Txid>,
    /// The transactions' ids over their witnesses too, in block order; the coinbase has its own here, not zero.
    pub wtxids: Vec<Wtxid>,
    /// Where each transaction lies in [`ParsedBlock::raw`].
    pub spans: Vec<Range<usize>>,
}

impl ParsedBlock {
    /// Parses a block in wire encoding. Nothing is allocated beyond a small multiple of `raw`'s length.
    ///
    /// # Errors
    /// [`BlockDecodeError`] when the bytes are not exactly one block.
    pub fn parse(raw: Bytes) -> Result<Arc<Self>, BlockDecodeError> {
        if raw.len() > MAX_BLOCK_BYTES {
            return Err(BlockDecodeError::TooLarge(raw.len()));
        }
        let mut rest: &[u8] = &raw;
        let header = Header::consensus_decode(&mut rest)?;
        let count = VarInt::consensus_decode(&mut rest)?.0;
        if count > raw.len() as u64 / MIN_TRANSACTION_BYTES {
            return Err(BlockDecodeError::TooMany {
                count,
                bytes: raw.len(),
            });
        }
        let mut txdata = Vec::new();
        let mut spans = Vec::new();
        for _ in 0..count {
            let start = raw.len() - rest.len();
            let tx = Transaction::consensus_decode(&mut rest)?;
            // Only the form with witnesses decodes to no inputs at all, and its ids would depend on who computes them.
            if tx.input.is_empty() {
                return Err(BlockDecodeError::NoInputs);
            }
            txdata.push(tx);
            spans.push(start..raw.len() - rest.len());
        }
        if !rest.is_empty() {
            return Err(BlockDecodeError::Trailing(rest.len()));
        }
        Ok(Self::assemble(raw, Block { header, txdata }, spans))
    }

    /// Wraps a block that we made ourselves.
    pub fn from_block(block: Block) -> Arc<Self> {
        let mut raw = serialize(&block.header);
        raw.extend(serialize(&VarInt(block.txdata.len() as u64)));
        let mut spans = Vec::with_capacity(block.txdata.len());
        for tx in &block.txdata {
            let start = raw.len();
            raw.extend(serialize(tx));
            spans.push(start..raw.len());
        }
        Self::assemble(raw.into(), block, spans)
    }

    fn assemble(raw: Bytes, block: Block, spans: Vec<Range<usize>>) -> Arc<Self> {
        let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let wtxids = block
            .txdata
            .iter()
            .zip(&txids)
            .map(|(tx, txid)| {
                if tx.input.iter().all(|input| input.witness.is_empty()) {
                    // Without witnesses both ids are the hash of the same bytes.
                    Wtxid::from_raw_hash(txid.to_raw_hash())
                } else {
                    tx.compute_wtxid()
                }
            })
            .collect();
        Arc::new(Self {
            raw,
            hash: block.block_hash(),
            block,
            txids,
            wtxids,
            spans,
        })
    }

    /// The block's header.
    pub fn header(&self) -> &Header {
        &self.block.header
    }

    /// The parent's hash.
    pub fn prev(&self) -> BlockHash {
        self.block.header.prev_blockhash
    }

    /// The wire encoding of the transaction at `index`, without a copy.
    pub fn raw_tx(&self, index: usize) -> Option<Bytes> {
        self.spans.get(index).map(|span| self.raw.slice(span.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Network, Params};

    #[test]
    fn parsing_and_wrapping_agree() {
        for network in Network::ALL {
            let genesis = Params::new(network).genesis;
            let wrapped = ParsedBlock::from_block(genesis.clone());
            assert_eq!(wrapped.raw, serialize(&genesis));
            let parsed = ParsedBlock::parse(wrapped.raw.clone()).unwrap();
            assert_eq!(parsed.block, genesis);
            assert_eq!(parsed.hash, wrapped.hash);
            assert_eq!(parsed.spans, wrapped.spans);
            assert_eq!(parsed.txids, [genesis.txdata[0].compute_txid()]);
            assert_eq!(parsed.wtxids, [genesis.txdata[0].compute_wtxid()]);
            assert_eq!(parsed.raw_tx(0).unwrap(), serialize(&genesis.txdata[0]));
            assert_eq!(parsed.raw_tx(1), None);
        }
    }

    #[test]
    fn damaged_encodings_are_errors() {
        let raw = ParsedBlock::from_block(Params::new(Network::Mainnet).genesis)
            .raw
            .clone();
        for len in 0..raw.len() {
            assert!(ParsedBlock::parse(raw.slice(..len)).is_err(), "cut to {len} bytes");
        }
        let mut longer = raw.to_vec();
        longer.push(0);
        assert!(matches!(
            ParsedBlock::parse(longer.into()),
            Err(BlockDecodeError::Trailing(1))
        ));

        let mut bare = raw[..80].to_vec();
        bare.extend([1]); // one transaction ...
        bare.extend([2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // ... of marker and flag, no inputs, no outputs
        assert!(matches!(
            ParsedBlock::parse(bare.into()),
            Err(BlockDecodeError::NoInputs)
        ));

        let mut greedy = raw[..80].to_vec();
        greedy.extend([0xff; 9]);
        assert!(matches!(
            ParsedBlock::parse(greedy.into()),
            Err(BlockDecodeError::TooMany { .. })
        ));
        let huge = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
        assert!(matches!(ParsedBlock::parse(huge), Err(BlockDecodeError::TooLarge(_))));
    }
}
