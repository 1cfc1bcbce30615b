//! Messages and their payloads.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::{deserialize_partial, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;

use super::address::PeerAddr;
use super::compact::{BlockTxn, BlockTxnRequest, CompactBlock};
use super::feature::Feature;
use super::filters::{FilterAnswer, FilterQuery, FilterRequest};
use super::payload::{Malformed, Reader, keep, put_compact};
use super::spent::{SpentCoins, SpentRequest};
use super::version::Version;

/// Most entries of `inv`, `getdata` and `notfound`.
pub const MAX_INV: usize = 50_000;
/// Most headers of one `headers` message.
pub const MAX_HEADERS: usize = 2_000;
/// Most entries of `addr` and `addrv2`.
pub const MAX_ADDR: usize = 1_000;
/// Most hashes of a block locator.
pub const MAX_LOCATOR: usize = 101;

/// A question for what follows the best common block: `getheaders` and `getblocks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Hashes from the asker's tip back to genesis, ever sparser.
    pub hashes: Vec<BlockHash>,
    /// Stop after this block; all zeros for as many as fit.
    pub stop: BlockHash,
}

/// What travels on a link of the Bitcoin network.
#[derive(Clone, Debug)]
pub enum Message {
    /// Nothing that travels: said first on a link that we dialled, it asks for the encrypted transport (BIP 324).
    Encrypt,
    /// Nothing that travels: the encrypted transport stands. Its session id is the same on both sides.
    Encrypted([u8; 32]),
    /// `version`.
    Version(Box<Version>),
    /// `verack`: the version was accepted.
    Verack,
    /// `wtxidrelay` (BIP 339): announce transactions by wtxid.
    WtxidRelay,
    /// `sendaddrv2` (BIP 155): send addresses in the new form.
    SendAddrV2,
    /// `feature` (BIP 434): something beside the protocol's version that the sender can do.
    Feature(Feature),
    /// `sendheaders` (BIP 130): announce blocks by their headers.
    SendHeaders,
    /// `feefilter` (BIP 133): announce nothing below this many satoshi per 1000 virtual bytes.
    FeeFilter(i64),
    /// `ping` (BIP 31).
    Ping(u64),
    /// `pong` (BIP 31).
    Pong(u64),
    /// `getaddr`.
    GetAddr,
    /// `addr`; hosts beyond IP are left out when encoding.
    Addr(Vec<PeerAddr>),
    /// `addrv2` (BIP 155); networks we do not know are left out when decoding.
    AddrV2(Vec<PeerAddr>),
    /// `inv`.
    Inv(Vec<Inventory>),
    /// `getdata`.
    GetData(Vec<Inventory>),
    /// `notfound`.
    NotFound(Vec<Inventory>),
    /// `getheaders`.
    GetHeaders(Locator),
    /// `getblocks`.
    GetBlocks(Locator),
    /// `headers`.
    Headers(Vec<Header>),
    /// `tx`.
    Tx {
        /// The transaction.
        tx: Arc<Transaction>,
        /// Whether to send its witness; always true on receipt.
        witness: bool,
    },
    /// `block`: its bytes as they are, held by reference; whoever needs the block parses it where that keeps no link
    /// waiting.
    RawBlock(Bytes),
    /// `sendcmpct` (BIP 152).
    SendCmpct {
        /// 1 to announce blocks by compact blocks, 0 not to; anything else is a fault.
        announce: u8,
        /// The form of compact blocks that the sender understands.
        version: u64,
    },
    /// `cmpctblock` (BIP 152).
    CompactBlock(Arc<CompactBlock>),
    /// `getblocktxn` (BIP 152).
    GetBlockTxn(BlockTxnRequest),
    /// `blocktxn` (BIP 152).
    BlockTxn(BlockTxn),
    /// `mempool` (BIP 35).
    Mempool,
    /// `getbspent` (BIP 455).
    GetSpent(SpentRequest),
    /// `bspent` (BIP 455), as received.
    Spent(SpentCoins),
    /// `bspent`, as sent: the payload of [`SpentCoins::encode`].
    RawSpent(Bytes),
    /// `getcfilters`, `getcfheaders` or `getcfcheckpt` (BIP 157).
    GetFilters(FilterRequest),
    /// `cfilter`, `cfheaders` or `cfcheckpt` (BIP 157); we never ask, so none is read.
    Filters(FilterAnswer),
    /// A message that this version does not handle.
    Unknown {
        /// Its command.
        command: String,
        /// Length of its payload.
        len: usize,
    },
    /// A known message whose payload breaks its format; the envelope was sound.
    Malformed {
        /// Its command.
        command: &'static str,
        /// What was wrong.
        reason: &'static str,
    },
}

impl Message {
    /// The command of the envelope.
    pub fn command(&self) -> &str {
        match self {
            Self::Encrypt | Self::Encrypted(_) => "",
            Self::Version(_) => "version",
            Self::Verack => "verack",
            Self::WtxidRelay => "wtxidrelay",
            Self::SendAddrV2 => "sendaddrv2",
            Self::Feature(_) => "feature",
            Self::SendHeaders => "sendheaders",
            Self::FeeFilter(_) => "feefilter",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::GetAddr => "getaddr",
            Self::Addr(_) => "addr",
            Self::AddrV2(_) => "addrv2",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::GetHeaders(_) => "getheaders",
            Self::GetBlocks(_) => "getblocks",
            Self::Headers(_) => "headers",
            Self::Tx { .. } => "tx",
            Self::RawBlock(_) => "block",
            Self::SendCmpct { .. } => "sendcmpct",
            Self::CompactBlock(_) => "cmpctblock",
            Self::GetBlockTxn(_) => "getblocktxn",
            Self::BlockTxn(_) => "blocktxn",
            Self::Mempool => "mempool",
            Self::GetSpent(_) => "getbspent",
            Self::Spent(_) | Self::RawSpent(_) => "bspent",
            Self::GetFilters(ask) => ask.command(),
            Self::Filters(answer) => answer.command(),
            Self::Unknown { command, .. } => command,
            Self::Malformed { command, .. } => command,
        }
    }

    /// Reads the payload of `command`. Never fails: what breaks its format becomes [`Message::Malformed`].
    pub(super) fn decode(command: &str, payload: Bytes) -> Self {
        let Some(command) = KNOWN.iter().find(|known| **known == command) else {
            return Self::Unknown {
                command: command.to_owned(),
                len: payload.len(),
            };
        };
        Self::decode_known(command, payload).unwrap_or_else(|Malformed(reason)| Self::Malformed { command, reason })
    }

    fn decode_known(command: &'static str, payload: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&payload);
        let reader = &mut reader;
        // Bytes after the last field are ignored, as Core does: they leave room for extensions.
        Ok(match command {
            "version" => Self::Version(Box::new(Version::decode(reader)?)),
            "verack" => Self::Verack,
            "wtxidrelay" => Self::WtxidRelay,
            "sendaddrv2" => Self::SendAddrV2,
            "sendheaders" => Self::SendHeaders,
            "feefilter" => Self::FeeFilter(reader.i64()?),
            // A ping without a nonce is of a version before BIP 31, which expects no answer.
            "ping" if reader.is_empty() => Self::Unknown {
                command: command.to_owned(),
                len: 0,
            },
            "ping" => Self::Ping(reader.u64()?),
            // A short pong cancels the ping, as one with nonce zero does.
            "pong" => Self::Pong(reader.u64().unwrap_or(0)),
            "getaddr" => Self::GetAddr,
            "addr" => Self::Addr(list(reader, MAX_ADDR, 30, "addr message size", |r| {
                PeerAddr::decode_v1(r).map(Some)
            })?),
            "addrv2" => Self::AddrV2(list(reader, MAX_ADDR, 9, "addrv2 message size", PeerAddr::decode_v2)?),
            "inv" => Self::Inv(inventory(reader, "inv message size")?),
            "getdata" => Self::GetData(inventory(reader, "getdata message size")?),
            "notfound" => Self::NotFound(inventory(reader, "notfound message size")?),
            "getheaders" => Self::GetHeaders(locator(reader)?),
            "getblocks" => Self::GetBlocks(locator(reader)?),
            "headers" => Self::Headers(list(reader, MAX_HEADERS, 81, "headers message size", header)?),
            "tx" => {
                let (tx, _) =
                    deserialize_partial::<Transaction>(reader.rest()).map_err(|_| Malformed("transaction"))?;
                Self::Tx {
                    tx: Arc::new(tx),
                    witness: true,
                }
            }
            "block" => Self::RawBlock(keep(payload.clone())),
            "sendcmpct" => Self::SendCmpct {
                announce: reader.u8()?,
                version: reader.u64()?,
            },
            "cmpctblock" => Self::CompactBlock(Arc::new(CompactBlock::decode(reader)?)),
            "getblocktxn" => Self::GetBlockTxn(BlockTxnRequest::decode(reader)?),
            "blocktxn" => Self::BlockTxn(BlockTxn::decode(reader)?),
            "mempool" => Self::Mempool,
            "feature" => Self::Feature(Feature::decode(reader)?),
            "getbspent" => Self::GetSpent(SpentRequest::decode(reader)?),
            "bspent" => Self::Spent(SpentCoins::decode(reader)?),
            "getcfilters" => Self::GetFilters(FilterRequest::decode(FilterQuery::Filters, reader)?),
            "getcfheaders" => Self::GetFilters(FilterRequest::decode(FilterQuery::Headers, reader)?),
            "getcfcheckpt" => Self::GetFilters(FilterRequest::decode(FilterQuery::Checkpoints, reader)?),
            _ => Self::Unknown {
                command: command.to_owned(),
                len: payload.len(),
            },
        })
    }

    /// The payload, but for the bulk of a block, which comes second.
    pub(super) fn encode(&self) -> (Vec<u8>, Bytes) {
        let mut out = Vec::new();
        let mut bulk = Bytes::new();
        match self {
            Self::Version(version) => version.encode(&mut out),
            Self::FeeFilter(rate) => out.extend_from_slice(&rate.to_le_bytes()),
            Self::Ping(nonce) | Self::Pong(nonce) => out.extend_from_slice(&nonce.to_le_bytes()),
            Self::Addr(entries) => {
                let mut body = Vec::with_capacity(entries.len() * 30);
                let count = entries.iter().filter_map(|entry| entry.encode_v1(&mut body)).count();
                put_compact(&mut out, count as u64);
                out.append(&mut body);
            }
            Self::AddrV2(entries) => {
                put_compact(&mut out, entries.len() as u64);
                entries.iter().for_each(|entry| entry.encode_v2(&mut out));
            }
            Self::Inv(items) | Self::GetData(items) | Self::NotFound(items) => {
                put_compact(&mut out, items.len() as u64);
                items.iter().for_each(|item| put_inventory(&mut out, item));
            }
            Self::GetHeaders(locator) | Self::GetBlocks(locator) => {
                out.extend_from_slice(&super::version::PROTOCOL_VERSION.to_le_bytes());
                put_compact(&mut out, locator.hashes.len() as u64);
                locator
                    .hashes
                    .iter()
                    .for_each(|hash| out.extend_from_slice(hash.as_byte_array()));
                out.extend_from_slice(locator.stop.as_byte_array());
            }
            Self::Headers(headers) => {
                put_compact(&mut out, headers.len() as u64);
                for header in headers {
                    out.extend_from_slice(&serialize(header));
                    out.push(0);
                }
            }
            Self::Tx { tx, witness: true } => out = serialize(&**tx),
            Self::Tx { tx, witness: false } => out = serialize(&without_witness(tx)),
            Self::SendCmpct { announce, version } => {
                out.push(*announce);
                out.extend_from_slice(&version.to_le_bytes());
            }
            Self::CompactBlock(block) => block.encode(&mut out),
            Self::GetBlockTxn(request) => request.encode(&mut out),
            Self::BlockTxn(answer) => answer.encode(&mut out),
            Self::Feature(feature) => feature.encode(&mut out),
            Self::GetSpent(ask) => ask.encode(&mut out),
            Self::Spent(answer) => out = answer.encode(),
            Self::RawSpent(bytes) => bulk = bytes.clone(),
            Self::GetFilters(ask) => ask.encode(&mut out),
            Self::Filters(answer) => answer.encode(&mut out),
            Self::RawBlock(bytes) => bulk = bytes.clone(),
            Self::Encrypt
            | Self::Encrypted(_)
            | Self::Verack
            | Self::WtxidRelay
            | Self::SendAddrV2
            | Self::SendHeaders
            | Self::GetAddr
            | Self::Mempool
            | Self::Unknown { .. }
            | Self::Malformed { .. } => {}
        }
        (out, bulk)
    }
}

/// Every command that has a payload decoder.
const KNOWN: [&str; 30] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "sendheaders",
    "feefilter",
    "ping",
    "pong",
    "getaddr",
    "addr",
    "addrv2",
    "inv",
    "getdata",
    "notfound",
    "getheaders",
    "getblocks",
    "headers",
    "tx",
    "block",
    "sendcmpct",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "mempool",
    "feature",
    "getbspent",
    "bspent",
    "getcfilters",
    "getcfheaders",
    "getcfcheckpt",
];

fn without_witness(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    tx.input.iter_mut().for_each(|input| input.witness.clear());
    tx
}

fn list<T>(
    reader: &mut Reader<'_>,
    max: usize,
    entry_len: usize,
    what: &'static str,
    mut entry: impl FnMut(&mut Reader<'_>) -> Result<Option<T>, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = reader.count(max, entry_len, what)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.extend(entry(reader)?);
    }
    Ok(entries)
}

fn header(reader: &mut Reader<'_>) -> Result<Option<Header>, Malformed> {
    let bytes = reader.array::<80>()?;
    // The transaction count after each header is zero in practice and carries no meaning.
    reader.compact_size()?;
    Header::consensus_decode(&mut &bytes[..])
        .map(Some)
        .map_err(|_| Malformed("header"))
}

fn inventory(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<Inventory>, Malformed> {
    list(reader, MAX_INV, 36, what, |reader| {
        let bytes = reader.array::<36>()?;
        Inventory::consensus_decode(&mut &bytes[..])
            .map(Some)
            .map_err(|_| Malformed("inventory"))
    })
}

fn put_inventory(out: &mut Vec<u8>, item: &Inventory) {
    out.extend_from_slice(&serialize(item));
}

fn locator(reader: &mut Reader<'_>) -> Result<Locator, Malformed> {
    reader.u32()?;
    let hashes = list(reader, MAX_LOCATOR, 32, "locator size", |r| {
        Ok(Some(BlockHash::from_byte_array(r.array()?)))
    })?;
    Ok(Locator {
        hashes,
        stop: BlockHash::from_byte_array(reader.array()?),
    })
}
