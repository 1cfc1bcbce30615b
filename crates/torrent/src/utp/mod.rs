//! uTP (BEP 29): links over datagrams that give way to everybody else's traffic (LEDBAT, RFC 6817).
//!
//! [`Transport`] stands between a machine and its driver: the machine sees links like any other.

mod congestion;
mod connection;
mod packet;
mod transport;

pub use packet::{Kind, Packet};
pub use transport::Transport;
pub(crate) use transport::{dial_token, is_utp};
