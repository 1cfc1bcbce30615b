//! A block parsed once and shared from the wire to the disk.

use std::sync::{Arc, OnceLock};

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Block, BlockHash, Txid, Wtxid};
use bytes::Bytes;

use crate::rules::{check_block, witness_commitment_index, witness_root};
use crate::tx_parts::TxRef;
use crate::wire::{self, HEADER_BYTES, Spans};
use crate::{Params, Reject};

/// No valid block has more bytes than this (its weight would pass 4,000,000).
pub const MAX_BLOCK_BYTES: usize = 4_000_000;

/// The smallest transaction with an output: version, two counts, one input, one output, lock time.
const MIN_TRANSACTION_BYTES: u64 = 60;

/// The bytes are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A transaction is written as one with witnesses and has none.
    #[error("a transaction is written as one with witnesses and has none")]
    NoWitnesses,
    /// A transaction is written in a form that nobody defined.
    #[error("a transaction has the unknown flag {0}")]
    UnknownFlag(u8),
    /// A count or length takes more bytes than it needs.
    #[error("a length is not written in its shortest form")]
    NotMinimal,
    /// The bytes end before the block does.
    #[error("the block is cut off")]
    Ends,
    /// Bytes are left over after the last transaction.
    #[error("{0} bytes follow the last transaction")]
    Trailing(usize),
}

/// A block with what everybody asks of it computed once. It is always handed around in an [`Arc`].
#[derive(Debug)]
pub struct ParsedBlock {
    /// The block in wire encoding, witnesses included.
    pub raw: Bytes,
    /// The header's hash.
    pub hash: BlockHash,
    /// The transactions' ids, in block order.
    pub txids: Vec<Txid>,
    /// The transactions' ids over their witnesses too, in block order; the coinbase has its own here, not zero.
    pub wtxids: Vec<Wtxid>,
    header: Header,
    /// Where everything lies in [`ParsedBlock::raw`].
    spans: Spans,
    /// The block as a structure, once somebody asked for it.
    block: OnceLock<Block>,
    /// What [`check_block`] says, once somebody asked for it.
    verdict: OnceLock<Result<(), Reject>>,
    /// The root over `wtxids`, once somebody asked for it.
    witness_root: OnceLock<sha256d::Hash>,
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
        let spans = Spans::read(&raw, raw.len() as u64 / MIN_TRANSACTION_BYTES)?;
        // Only the form with witnesses decodes to no inputs at all, and its ids would depend on who computes them.
        if spans.txs.iter().any(|tx| tx.inputs.is_empty()) {
            return Err(BlockDecodeError::NoInputs);
        }
        let header = raw.get(..HEADER_BYTES).unwrap_or_default();
        let header = deserialize(header).map_err(|_| BlockDecodeError::Ends)?;
        Ok(Arc::new(Self::assemble(raw, header, spans)))
    }

    /// Wraps a block that we made ourselves, be it valid or not.
    pub fn from_block(block: Block) -> Arc<Self> {
        let raw: Bytes = serialize(&block).into();
        let spans = Spans::read(&raw, u64::MAX).expect("what was just encoded is a block");
        let parsed = Self::assemble(raw, block.header, spans);
        Arc::new(Self {
            block: block.into(),
            ..parsed
        })
    }

    fn assemble(raw: Bytes, header: Header, spans: Spans) -> Self {
        let mut txids = Vec::with_capacity(spans.txs.len());
        let mut wtxids = Vec::with_capacity(spans.txs.len());
        for span in &spans.txs {
            let bytes = wire::at(&raw, &span.bytes);
            let (Some((version, _)), Some((_, lock_time))) =
                (bytes.split_first_chunk::<4>(), bytes.split_last_chunk::<4>())
            else {
                unreachable!("a transaction has a version and a lock time");
            };
            // The id is that of the form without marker, flag and witnesses (BIP 144).
            let body = wire::at(&raw, &span.body);
            let txid = sha256d_of(&[version, body, lock_time]);
            // Without witnesses both ids are the hash of the same bytes.
            let wtxid = if span.witness { sha256d_of(&[bytes]) } else { txid };
            txids.push(Txid::from_raw_hash(txid));
            wtxids.push(Wtxid::from_raw_hash(wtxid));
        }
        Self {
            hash: header.block_hash(),
            raw,
            txids,
            wtxids,
            header,
            spans,
            block: OnceLock::new(),
            verdict: OnceLock::new(),
            witness_root: OnceLock::new(),
        }
    }

    /// The block as a structure. It is made on the first call, which takes as much time and memory as everything else
    /// about a block; [`ParsedBlock::transactions`] costs nothing.
    pub fn block(&self) -> &Block {
        self.block
            .get_or_init(|| deserialize(&self.raw).expect("every form that was read here is known there"))
    }

    /// What can be said of the block without its context, see [`check_block`]. It is found out on the first call, which
    /// may come from another thread than the one that needs it. Every call must give the same parameters.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, params: &Params) -> Result<(), Reject> {
        let check = || {
            check_block(params, self)?;
            // Whoever connects the block will ask for the root; here there may be others to work it out.
            if self
                .transaction(0)
                .is_some_and(|tx| witness_commitment_index(&tx).is_some())
            {
                self.witness_root();
            }
            Ok(())
        };
        self.verdict.get_or_init(check).clone()
    }

    /// The merkle root over the transactions with their witnesses (BIP 141), which the coinbase commits to. It is worked
    /// out on the first call.
    pub fn witness_root(&self) -> sha256d::Hash {
        *self
            .witness_root
            .get_or_init(|| witness_root(self.wtxids.iter().copied()))
    }

    /// The block's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The parent's hash.
    pub fn prev(&self) -> BlockHash {
        self.header.prev_blockhash
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.txids.len()
    }

    /// Whether there are none, as in no valid block.
    pub fn is_empty(&self) -> bool {
        self.txids.is_empty()
    }

    /// The transaction at `index`, as it lies in the block's bytes.
    pub fn transaction(&self, index: usize) -> Option<TxRef<'_>> {
        let span = self.spans.txs.get(index)?;
        Some(TxRef {
            raw: &self.raw,
            span,
            inputs: &self.spans.inputs[span.inputs.start as usize..span.inputs.end as usize],
            outputs: &self.spans.outputs[span.outputs.start as usize..span.outputs.end as usize],
            txid: self.txids.get(index)?,
        })
    }

    /// All transactions in order, as they lie in the block's bytes.
    pub fn transactions(&self) -> impl DoubleEndedIterator<Item = TxRef<'_>> + ExactSizeIterator {
        (0..self.txids.len()).map(|index| self.transaction(index).expect("each id is that of a transaction"))
    }

    /// The wire encoding of the transaction at `index`, without a copy.
    pub fn raw_tx(&self, index: usize) -> Option<Bytes> {
        let place = &self.spans.txs.get(index)?.bytes;
        Some(self.raw.slice(place.start as usize..place.end as usize))
    }
}

/// The double SHA-256 over `parts` one after the other.
fn sha256d_of(parts: &[&[u8]]) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    for part in parts {
        engine.input(part);
    }
    sha256d::Hash::from_engine(engine)
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
            assert_eq!(parsed.block(), &genesis);
            assert_eq!(parsed.hash, wrapped.hash);
            assert_eq!(parsed.spans, wrapped.spans);
            assert_eq!(parsed.header(), &genesis.header);
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
