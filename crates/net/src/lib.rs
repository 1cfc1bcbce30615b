//! The only crate with sockets: listens, dials, frames, limits; drives the machines.
//!
//! [`spawn`] puts a [`Machine`](dunlin_peer::Machine) on a thread of its own and gives back a [`Handle`]. One thread,
//! no locks: the machine, the codecs and all links of a reactor live on it; what is slow leaves as a job and comes
//! back through a [`Completer`]. Beside it stand what jobs need: a [`Pool`] of named threads, bounded blocking
//! [`http`] requests and [`udp`] exchanges for trackers.

mod buffers;
mod clock;
mod config;
mod datagrams;
mod dial;
mod driver;
mod error;
mod files;
mod handle;
pub mod http;
mod link;
mod listen;
mod pool;
mod proxies;
mod reactor;
mod registry;
mod sam;
mod socks5;
mod tor_control;
pub mod udp;

pub use clock::Clock;
pub use config::ReactorConfig;
pub use error::NetError;
pub use files::raise_file_limit;
pub use handle::{Completer, Handle};
pub use pool::Pool;
pub use proxies::Proxies;
pub use reactor::spawn;
pub use registry::{LinkStats, Totals};
pub use sam::SamConfig;
pub use tor_control::{OnionService, TorConfig};
