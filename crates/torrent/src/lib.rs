//! The BitTorrent peer: metainfo, wire, swarm, picker, choker, disk, trackers.
//!
//! The formats ([`bencode`], [`metainfo`], [`magnet`], [`wire`], [`tracker`]) are pure: bytes in, typed values
//! out, every length a claim until proven. Only [`disk`], [`resume`] and [`create`] touch files.

mod allowed_fast;
mod announce;
pub mod bencode;
pub mod bitfield;
mod blame;
mod choker;
pub mod command;
pub mod create;
pub mod dht;
mod discovery;
pub mod disk;
pub mod id;
pub mod ip_filter;
mod layers;
pub mod lsd;
pub mod magnet;
mod merkle;
mod metadata;
pub mod metainfo;
mod paths;
mod peer_link;
mod picker;
mod rates;
mod replace;
pub mod resume;
pub mod session;
mod shared;
pub mod status;
mod swarm;
mod torrent;
pub mod tracker;
pub mod utp;
pub mod wire;

pub use bitfield::Bitfield;
pub use id::{InfoHash, InfoHashV2, PeerId};
pub use magnet::Magnet;
pub use metainfo::Metainfo;
pub use session::Session;
