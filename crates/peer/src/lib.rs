//! The vocabulary of a peer: time, links, the [`Machine`] trait, wire codecs, the outbox.
//!
//! Nothing here opens a socket, reads a clock or touches a disk. Every protocol of Dunlin is a [`Machine`]: the
//! reactor of `dunlin-net` drives it over TCP, the simulator of `dunlin-sim` drives the very same code from a seed.

mod codec;
mod link;
mod machine;
mod outbox;
mod time;

pub use codec::{Codec, CodecError, SendBuf};
pub use link::{DialToken, Direction, Link, LinkId};
pub use machine::{CloseReason, DisconnectCause, Input, Machine, Output};
pub use outbox::Outbox;
pub use time::Now;
