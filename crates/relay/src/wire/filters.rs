//! The messages of BIP 157: questions for compact block filters, and their answers.

use bitcoin::BlockHash;
use bitcoin::bip158::{FilterHash, FilterHeader};
use bitcoin::hashes::Hash;

use super::payload::{Malformed, Reader, put_compact};

/// The basic filter (BIP 158), the only kind that there is.
pub const BASIC_FILTER: u8 = 0;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterQuery {
    /// Filters: `getcfilters`.
    Filters,
    /// The hashes of filters and the filter header before them: `getcfheaders`.
    Headers,
    /// The filter header of every thousandth block: `getcfcheckpt`.
    Checkpoints,
}

/// A question for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterRequest {
    /// What is asked for.
    pub query: FilterQuery,
    /// Which kind of filter, see [`BASIC_FILTER`].
    pub kind: u8,
    /// The height of the first block asked for; 0 for checkpoints.
    pub start: u32,
    /// The last block asked for.
    pub stop: BlockHash,
}

impl FilterRequest {
    pub(crate) fn command(&self) -> &'static str {
        match self.query {
            FilterQuery::Filters => "getcfilters",
            FilterQuery::Headers => "getcfheaders",
            FilterQuery::Checkpoints => "getcfcheckpt",
        }
    }

    pub(crate) fn decode(query: FilterQuery, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            query,
            kind: reader.u8()?,
            start: match query {
                FilterQuery::Checkpoints => 0,
                FilterQuery::Filters | FilterQuery::Headers => reader.u32()?,
            },
            stop: BlockHash::from_byte_array(reader.array()?),
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        if self.query != FilterQuery::Checkpoints {
            out.extend_from_slice(&self.start.to_le_bytes());
        }
        out.extend_from_slice(self.stop.as_byte_array());
    }
}

/// An answer about basic filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterAnswer {
    /// `cfilter`.
    Filter {
        /// The filter's block.
        block: BlockHash,
        /// The filter.
        filter: Vec<u8>,
    },
    /// `cfheaders`.
    Headers {
        /// The last block.
        stop: BlockHash,
        /// The filter header before the first block; zero before the genesis block.
        previous: FilterHeader,
        /// The filters' hashes.
        hashes: Vec<FilterHash>,
    },
    /// `cfcheckpt`.
    Checkpoints {
        /// The block up to which they go.
        stop: BlockHash,
        /// The filter headers at the heights 1000, 2000 and so on.
        headers: Vec<FilterHeader>,
    },
}

impl FilterAnswer {
    pub(crate) fn command(&self) -> &'static str {
        match self {
            Self::Filter { .. } => "cfilter",
            Self::Headers { .. } => "cfheaders",
            Self::Checkpoints { .. } => "cfcheckpt",
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(BASIC_FILTER);
        match self {
            Self::Filter { block, filter } => {
                out.extend_from_slice(block.as_byte_array());
                put_compact(out, filter.len() as u64);
                out.extend_from_slice(filter);
            }
            Self::Headers { stop, previous, hashes } => {
                out.extend_from_slice(stop.as_byte_array());
                out.extend_from_slice(previous.as_byte_array());
                put_compact(out, hashes.len() as u64);
                hashes
                    .iter()
                    .for_each(|hash| out.extend_from_slice(hash.as_byte_array()));
            }
            Self::Checkpoints { stop, headers } => {
                out.extend_from_slice(stop.as_byte_array());
                put_compact(out, headers.len() as u64);
                headers
                    .iter()
                    .for_each(|header| out.extend_from_slice(header.as_byte_array()));
            }
        }
    }
}
