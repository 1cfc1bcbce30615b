//! The messages of compact block relay (BIP 152, version 2): a block as short ids, the question for what the receiver
//! lacks, and the answer.

use std::sync::Arc;

use bitcoin::bip152::ShortId;
use bitcoin::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::{deserialize, deserialize_partial, serialize};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{BlockHash, Transaction, Wtxid};
use dunlin_chain::ParsedBlock;

use super::payload::{Malformed, Reader, put_compact};

/// The version that we speak: short ids are made of witness transaction ids.
pub const COMPACT_VERSION: u64 = 2;
/// Places in a block are numbers of 16 bits.
const MAX_TXS: usize = 65_535;
/// A transaction takes at least this many bytes.
const MIN_TX: usize = 10;

/// Makes the short ids of one compact block.
#[derive(Clone, Copy, Debug)]
pub struct ShortIds {
    keys: (u64, u64),
}

impl ShortIds {
    /// The 48 bits that stand for a transaction.
    pub fn of(&self, wtxid: &Wtxid) -> u64 {
        let (k0, k1) = self.keys;
        siphash24::Hash::hash_to_u64_with_keys(k0, k1, wtxid.as_ref()) & 0xffff_ffff_ffff
    }
}

/// `cmpctblock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    /// The block's header.
    pub header: Header,
    /// Makes the short ids differ from sender to sender.
    pub nonce: u64,
    /// The short ids of all transactions that are not prefilled, in block order.
    pub short_ids: Vec<u64>,
    /// Transactions in whole with their places in the block, ascending.
    pub prefilled: Vec<(u16, Arc<Transaction>)>,
}

impl CompactBlock {
    /// The compact form with the coinbase in whole; `None` for a block that has none or too many transactions.
    pub fn of(block: &ParsedBlock, nonce: u64) -> Option<Self> {
        if block.len() > MAX_TXS {
            return None;
        }
        let coinbase: Transaction = deserialize(&block.raw_tx(0)?).ok()?;
        let ids = short_ids(block.header(), nonce);
        Some(Self {
            header: *block.header(),
            nonce,
            short_ids: block.wtxids.iter().skip(1).map(|wtxid| ids.of(wtxid)).collect(),
            prefilled: vec![(0, Arc::new(coinbase))],
        })
    }

    /// How many transactions the block has.
    pub fn tx_count(&self) -> usize {
        self.short_ids.len() + self.prefilled.len()
    }

    /// What turns transactions into the short ids of this block.
    pub fn ids(&self) -> ShortIds {
        short_ids(&self.header, self.nonce)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&serialize(&self.header));
        out.extend_from_slice(&self.nonce.to_le_bytes());
        put_compact(out, self.short_ids.len() as u64);
        for id in &self.short_ids {
            out.extend_from_slice(&id.to_le_bytes()[..6]);
        }
        put_compact(out, self.prefilled.len() as u64);
        let mut next = 0;
        for (place, tx) in &self.prefilled {
            next = put_place(out, *place, next);
            out.extend_from_slice(&serialize(&**tx));
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let header = reader.array::<80>()?;
        let header = Header::consensus_decode(&mut &header[..]).map_err(|_| Malformed("header"))?;
        let nonce = reader.u64()?;
        let count = reader.count(MAX_TXS, 6, "compact block size")?;
        let mut short_ids = Vec::with_capacity(count);
        for _ in 0..count {
            let [a, b, c, d, e, f] = reader.array()?;
            short_ids.push(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        }
        let count = reader.count(MAX_TXS - count, 1 + MIN_TX, "compact block size")?;
        let (mut prefilled, mut next) = (Vec::with_capacity(count), 0);
        for _ in 0..count {
            let place = take_place(reader, &mut next)?;
            prefilled.push((place, transaction(reader)?));
        }
        Ok(Self {
            header,
            nonce,
            short_ids,
            prefilled,
        })
    }
}

fn short_ids(header: &Header, nonce: u64) -> ShortIds {
    ShortIds {
        keys: ShortId::calculate_siphash_keys(header, nonce),
    }
}

/// `getblocktxn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTxnRequest {
    /// The block.
    pub hash: BlockHash,
    /// Places of the transactions asked for, ascending.
    pub places: Vec<u16>,
}

impl BlockTxnRequest {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.hash.as_byte_array());
        put_compact(out, self.places.len() as u64);
        let mut next = 0;
        for place in &self.places {
            next = put_place(out, *place, next);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let hash = BlockHash::from_byte_array(reader.array()?);
        let count = reader.count(MAX_TXS, 1, "getblocktxn size")?;
        let (mut places, mut next) = (Vec::with_capacity(count), 0);
        for _ in 0..count {
            places.push(take_place(reader, &mut next)?);
        }
        Ok(Self { hash, places })
    }
}

/// `blocktxn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTxn {
    /// The block.
    pub hash: BlockHash,
    /// The transactions, in the order in which they were asked for.
    pub txs: Vec<Arc<Transaction>>,
}

impl BlockTxn {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.hash.as_byte_array());
        put_compact(out, self.txs.len() as u64);
        for tx in &self.txs {
            out.extend_from_slice(&serialize(&**tx));
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let hash = BlockHash::from_byte_array(reader.array()?);
        let count = reader.count(MAX_TXS, MIN_TX, "blocktxn size")?;
        let mut txs = Vec::with_capacity(count);
        for _ in 0..count {
            txs.push(transaction(reader)?);
        }
        Ok(Self { hash, txs })
    }
}

/// Places travel as the distance from the one that could come next.
fn put_place(out: &mut Vec<u8>, place: u16, next: u32) -> u32 {
    put_compact(out, u64::from(u32::from(place).saturating_sub(next)));
    u32::from(place) + 1
}

fn take_place(reader: &mut Reader<'_>, next: &mut u32) -> Result<u16, Malformed> {
    let place = u64::from(*next).saturating_add(reader.compact_size()?);
    let place = u16::try_from(place).map_err(|_| Malformed("indexes overflowed 16 bits"))?;
    *next = u32::from(place) + 1;
    Ok(place)
}

fn transaction(reader: &mut Reader<'_>) -> Result<Arc<Transaction>, Malformed> {
    let (tx, used) = deserialize_partial::<Transaction>(reader.rest()).map_err(|_| Malformed("transaction"))?;
    reader.take(used)?;
    Ok(Arc::new(tx))
}
