//! A link: one connection to one other peer.

use std::fmt;
use std::net::SocketAddr;

/// Names one connection for as long as its driver lives; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who opened the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The other side dialled us.
    Inbound,
    /// We dialled the other side.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// A machine's own number for a dial that it asked for; the driver gives it back with the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialToken(pub u64);

/// What a machine learns of a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<Addr = SocketAddr> {
    /// The link's name in every later input and output.
    pub id: LinkId,
    /// The other side's address as the transport sees it.
    pub addr: Addr,
    /// Where it came in on our side; `None` where that is not known.
    pub bind: Option<SocketAddr>,
    /// Who opened it.
    pub direction: Direction,
    /// The token of our dial; `None` on inbound links.
    pub token: Option<DialToken>,
}
