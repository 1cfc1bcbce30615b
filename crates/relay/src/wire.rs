//! The wire: the two transports, the messages and their bounds.

mod address;
pub(crate) mod codec;
mod compact;
mod encrypted;
mod feature;
mod filters;
pub(crate) mod message;
mod payload;
mod plain;
mod spent;
pub(crate) mod version;

pub use address::PeerAddr;
pub use codec::Codec;
pub use compact::{BlockTxn, BlockTxnRequest, COMPACT_VERSION, CompactBlock, ShortIds};
pub(crate) use feature::FEATURE_VERSION;
pub use feature::Feature;
pub use filters::{BASIC_FILTER, FilterAnswer, FilterQuery, FilterRequest};
pub use message::{Locator, MAX_ADDR, MAX_HEADERS, MAX_INV, MAX_LOCATOR, Message};
pub use payload::Malformed;
pub use plain::{HEADER_LEN, MAX_PAYLOAD};
pub use spent::{SPENT_COINS_FEATURE, SpentCoins, SpentRequest};
pub use version::{MAX_USER_AGENT, MIN_PEER_VERSION, PROTOCOL_VERSION, Version, services};
