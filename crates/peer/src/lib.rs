//! The vocabulary of a peer: time, links, the [`Machine`] trait, wire codecs, the outbox, the address book, budgets.
//!
//! Nothing here opens a socket, reads a clock or touches a disk. Every protocol of Dunlin is a [`Machine`]: the
//! reactor of `dunlin-net` drives it over TCP, the simulator of `dunlin-sim` drives the very same code from a seed.

mod address_book;
mod as_map;
mod budget;
mod codec;
mod link;
mod machine;
mod net_addr;
mod netgroup;
mod outbox;
mod time;

pub use address_book::{
    AddressBook, AddressBookError, AddressEntry, BUCKET_SIZE, NEW_BUCKETS, NEW_BUCKETS_PER_SOURCE, Reach,
    TRIED_BUCKETS, TRIED_BUCKETS_PER_GROUP,
};
pub use as_map::{AsMap, AsMapError, MAX_AS_MAP};
pub use budget::Budget;
pub use codec::{Codec, CodecError, SendBuf};
pub use link::{DialToken, Direction, Link, LinkId};
pub use machine::{Address, CloseReason, DisconnectCause, Input, Machine, Output};
pub use net_addr::{Host, HostError, NetAddr, NetClass, NetClasses, WrongLength};
pub use netgroup::{NetGroup, canonical, is_public};
pub use outbox::Outbox;
pub use time::{Now, offset as time_offset};
