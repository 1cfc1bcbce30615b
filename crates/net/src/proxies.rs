//! Which way to an address leads: straight, through a proxy, or through I2P's router.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::{NetAddr, NetClass};
use tokio::net::TcpStream;

use crate::sam::Session;
use crate::socks5;

/// Building a way through Tor takes its time.
pub(crate) const PROXIED: Duration = Duration::from_secs(60);
/// I2P's even more.
pub(crate) const SEARCHED: Duration = Duration::from_secs(3 * 60);

/// SOCKS5 proxies, one for each network at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    by_class: [Option<SocketAddr>; 5],
}

impl Proxies {
    /// Everything goes through this proxy, but for I2P, whose router is one itself.
    pub fn all(proxy: SocketAddr) -> Self {
        let mut proxies = Self::default();
        for class in NetClass::ALL.into_iter().filter(|class| *class != NetClass::I2p) {
            proxies.set(class, Some(proxy));
        }
        proxies
    }

    /// Addresses of one network go through this proxy, or straight.
    pub fn set(&mut self, class: NetClass, proxy: Option<SocketAddr>) {
        self.by_class[class as usize] = proxy;
    }

    /// The proxy for a network.
    pub fn of(&self, class: NetClass) -> Option<SocketAddr> {
        self.by_class[class as usize]
    }
}

/// How long a dial of this network may take, where a straight one may take `straight`.
pub(crate) fn patience(proxies: &Proxies, class: NetClass, straight: Duration) -> Duration {
    match (class, proxies.of(class)) {
        (NetClass::I2p, _) => SEARCHED,
        (_, Some(_)) => PROXIED,
        (_, None) => straight,
    }
}

pub(crate) async fn connect(proxies: &Proxies, i2p: Option<&Session>, to: NetAddr) -> io::Result<TcpStream> {
    let class = to.host.class();
    match (class, proxies.of(class), i2p) {
        (NetClass::I2p, _, Some(session)) => session.connect(to).await,
        (NetClass::Ipv4 | NetClass::Ipv6 | NetClass::Onion | NetClass::Cjdns, Some(proxy), _) => {
            let login = format!("{:016x}", rand::random::<u64>());
            socks5::connect(proxy, to, &login).await
        }
        (NetClass::Cjdns, None, _) => match to.host {
            dunlin_peer::Host::Cjdns(ip) => TcpStream::connect((ip, to.port)).await,
            _ => Err(no_way(class)),
        },
        (NetClass::Ipv4 | NetClass::Ipv6, None, _) => match to.socket_addr() {
            Some(addr) => TcpStream::connect(addr).await,
            None => Err(no_way(class)),
        },
        (NetClass::Onion, None, _) | (NetClass::I2p, _, None) => Err(no_way(class)),
    }
}

fn no_way(class: NetClass) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("no way leads to the network {class}"),
    )
}
