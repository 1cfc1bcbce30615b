//! The Bitcoin peer: wire codec, handshake, header and block sync, flooding, addresses.
//!
//! [`Relay`] is a [`dunlin_peer::Machine`]: it opens no socket, reads no clock and touches no disk. Validation and
//! disk reads leave it as [`Job`]s, which an [`Engine`] carries out on the chain and the mempool. Each subject has a
//! manager of its own; what they share is in one place, and [`Relay`] only hands out the inputs.
//!
//! Spoken: the encrypted transport (BIP 324) and the v1 transport, `sendheaders` (BIP 130), `feefilter` (BIP 133), compact blocks (BIP 152),
//! `addrv2` (BIP 155), `wtxidrelay`
//! (BIP 339), witness blocks and transactions (BIP 144), limited peers (BIP 159).

mod addresses;
mod announce;
mod bans;
mod blocks;
mod compact;
mod config;
mod connections;
mod engine;
mod eviction;
mod filters;
mod handshake;
mod headers;
mod held;
mod importing;
mod interface;
mod known;
mod machine;
mod node;
mod outbound;
mod peer;
mod ping;
mod presync;
mod private;
mod prove;
mod seeds;
mod serve;
mod spent;
mod tx;
mod wire;

pub use bans::{Ban, BanList, DISCOURAGE_SECS, Subnet, SubnetError};
pub use config::Config;
pub use engine::{Engine, parse_block, read_block};
pub use filters::read_filters;
pub use held::Held;
pub use importing::Importing;
pub use interface::{
    AddKind, BlockForm, ChainOp, Command, Done, Event, Job, Operated, PeerInfo, Ticket, TxSource, Which,
};
pub use machine::Relay;
pub use node::offered;
pub use peer::{Kind, Transport};
pub use seeds::{dns_seeds, fixed_seeds};
pub use spent::read_spent;
pub use tx::TxId;
pub use wire::{
    BASIC_FILTER, BlockTxn, BlockTxnRequest, COMPACT_VERSION, Codec, CompactBlock, Feature, FilterAnswer, FilterQuery,
    FilterRequest, HEADER_LEN, Locator, MAX_ADDR, MAX_HEADERS, MAX_INV, MAX_LOCATOR, MAX_PAYLOAD, MAX_USER_AGENT,
    MIN_PEER_VERSION, Malformed, Message, PROTOCOL_VERSION, PeerAddr, SPENT_COINS_FEATURE, ShortIds, SpentCoins,
    SpentRequest, Version, services,
};
