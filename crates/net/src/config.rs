//! What a reactor is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Proxies, SamConfig};

/// Addresses and limits of one reactor.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// The thread's name; Linux shows its first 15 bytes.
    pub name: String,
    /// Where to listen; port 0 takes a free one (see [`Handle::local_addrs`](crate::Handle::local_addrs)).
    pub listen: Vec<SocketAddr>,
    /// Whether datagrams travel too: from a UDP socket at each address listened on, of the same port.
    pub datagrams: bool,
    /// Groups whose multicast datagrams come in, too, on the interface that is listened on, or the usual one.
    pub groups: Vec<SocketAddr>,
    /// Inbound links beyond this are closed as soon as they are accepted, before the machine hears of them. A machine
    /// that evicts by merit keeps its own, lower limit: it needs the newcomer at the door to choose whom to drop.
    pub max_inbound: usize,
    /// What dials go through.
    pub proxies: Proxies,
    /// Takes part in I2P.
    pub i2p: Option<SamConfig>,
    /// Dials under way at once; further ones wait their turn.
    pub max_dialing: usize,
    /// How long a dial may take.
    pub dial_timeout: Duration,
    /// A machine that has queued more than this many bytes on a link gets `Writable` as soon as no more than a quarter
    /// of it waits in the send queue.
    pub send_mark: usize,
    /// Bytes in a link's send queue above which nothing is read from the link.
    pub read_mark: usize,
    /// Bytes in a link's send queue above which the link is dropped.
    pub send_cap: usize,
    /// A link that takes nothing of what is queued for this long is dropped.
    pub send_timeout: Duration,
    /// How long a closing link may go on sending what is queued.
    pub close_timeout: Duration,
}

impl ReactorConfig {
    /// Usual limits, no listener.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen: Vec::new(),
            datagrams: false,
            groups: Vec::new(),
            max_inbound: 128,
            proxies: Proxies::default(),
            i2p: None,
            max_dialing: 64,
            dial_timeout: Duration::from_secs(10),
            send_mark: 1 << 20,
            read_mark: 4 << 20,
            send_cap: 48 << 20,
            send_timeout: Duration::from_secs(120),
            close_timeout: Duration::from_secs(5),
        }
    }

    /// Adds an address to listen on.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen.push(addr);
        self
    }

    /// Lets datagrams travel, too.
    pub fn with_datagrams(mut self) -> Self {
        self.datagrams = true;
        self
    }
}
