//! Why a reactor could not start.

use std::io;
use std::net::SocketAddr;

/// A reactor could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address cannot be listened on: in use, not ours, or not permitted; `source` tells which.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its runtime could not be made.
    #[error("cannot start the network thread: {0}")]
    Start(io::Error),
}

impl NetError {
    /// The address that another program listens on already, when that is the trouble.
    pub fn in_use(&self) -> Option<SocketAddr> {
        match self {
            Self::Listen { addr, source } if source.kind() == io::ErrorKind::AddrInUse => Some(*addr),
            _ => None,
        }
    }
}
