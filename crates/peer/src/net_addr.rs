//! Addresses of peers on every network that Bitcoin's peers use (BIP 155): the internet, Tor, I2P and CJDNS.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sha3::{Digest, Sha3_256};

use crate::netgroup::{canonical, is_public};

/// A network with addresses of its own; its names are those that Bitcoin Core gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetClass {
    /// The internet, version 4.
    Ipv4,
    /// The internet, version 6.
    Ipv6,
    /// Onion services of Tor, version 3.
    Onion,
    /// I2P.
    I2p,
    /// CJDNS.
    Cjdns,
}

impl NetClass {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Onion, Self::I2p, Self::Cjdns];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Onion => "onion",
            Self::I2p => "i2p",
            Self::Cjdns => "cjdns",
        }
    }

    /// Hides where its addresses are.
    pub fn hides(self) -> bool {
        matches!(self, Self::Onion | Self::I2p)
    }
}

impl fmt::Display for NetClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NetClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        // An older name that Core takes too.
        let name = if text == "tor" { "onion" } else { text.as_str() };
        let found = Self::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| format!("`{text}` is no network: take ipv4, ipv6, onion, i2p or cjdns"))
    }
}

/// A set of networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetClasses(u8);

impl NetClasses {
    /// Whether the network is among them.
    pub fn contains(self, class: NetClass) -> bool {
        self.0 & (1 << class as u8) != 0
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, class: NetClass) -> Self {
        Self(self.0 | (1 << class as u8))
    }

    /// Those that are among both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<NetClass> for NetClasses {
    fn from_iter<T: IntoIterator<Item = NetClass>>(classes: T) -> Self {
        classes.into_iter().fold(Self::default(), Self::with)
    }
}

/// Where a peer can be reached, without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// IPv4 or IPv6.
    Ip(IpAddr),
    /// A Tor v3 onion service, its public key.
    TorV3([u8; 32]),
    /// An I2P destination, its SHA-256.
    I2p([u8; 32]),
    /// A CJDNS address (`fc00::/8`).
    Cjdns(Ipv6Addr),
}

/// The length of the text before `.onion`.
const ONION_LEN: usize = 56;
/// The length of the text before `.b32.i2p`.
const I2P_LEN: usize = 52;

impl Host {
    /// Its network.
    pub fn class(&self) -> NetClass {
        match self {
            Self::Ip(ip) => match ip.to_canonical() {
                IpAddr::V4(_) => NetClass::Ipv4,
                IpAddr::V6(_) => NetClass::Ipv6,
            },
            Self::TorV3(_) => NetClass::Onion,
            Self::I2p(_) => NetClass::I2p,
            Self::Cjdns(_) => NetClass::Cjdns,
        }
    }

    /// The IP address, when it is one of the internet.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            _ => None,
        }
    }

    /// Whether everyone on its network can reach it.
    pub fn is_public(&self) -> bool {
        self.ip().is_none_or(is_public)
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The id of its network and its bytes, as BIP 155 has them.
    pub fn with_bytes<T>(&self, take: impl FnOnce(u8, &[u8]) -> T) -> T {
        match self {
            Self::Ip(IpAddr::V4(ip)) => take(1, &ip.octets()),
            Self::Ip(IpAddr::V6(ip)) => take(2, &ip.octets()),
            Self::TorV3(key) => take(4, key),
            Self::I2p(hash) => take(5, hash),
            Self::Cjdns(ip) => take(6, &ip.octets()),
        }
    }

    /// The host of these bytes on the network of this id (BIP 155); `Ok(None)` when the network is unknown or gone, or
    /// its addresses must not be written so.
    ///
    /// # Errors
    /// When a known network has addresses of another length.
    pub fn from_bytes(network: u8, bytes: &[u8]) -> Result<Option<Self>, WrongLength> {
        let v6 = || <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).map_err(|_| WrongLength);
        let long = || <[u8; 32]>::try_from(bytes).map_err(|_| WrongLength);
        Ok(match network {
            1 => {
                let octets = <[u8; 4]>::try_from(bytes).map_err(|_| WrongLength)?;
                Some(Self::Ip(IpAddr::from(octets)))
            }
            2 => {
                let ip = v6()?;
                // IPv4 and the old onion range must not hide in IPv6.
                let hidden = ip.to_ipv4_mapped().is_some() || ip.segments()[..3] == [0xfd87, 0xd87e, 0xeb43];
                (!hidden).then_some(Self::Ip(ip.into()))
            }
            4 => Some(Self::TorV3(long()?)),
            5 => Some(Self::I2p(long()?)),
            6 => Some(v6()?).filter(|ip| is_cjdns(*ip)).map(Self::Cjdns),
            _ => None,
        })
    }
}

/// A network's addresses have another length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength;

fn is_cjdns(ip: Ipv6Addr) -> bool {
    ip.octets()[0] == 0xfc
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::TorV3(key) => write!(f, "{}.onion", base32(&onion_bytes(key))),
            Self::I2p(hash) => write!(f, "{}.b32.i2p", base32(hash)),
            Self::Cjdns(ip) => write!(f, "{ip}"),
        }
    }
}

/// The text names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a .onion (version 3) or .b32.i2p name")]
pub struct HostError(pub String);

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError(text.to_owned());
        let name = text.to_ascii_lowercase();
        if let Some(name) = name.strip_suffix(".onion") {
            let bytes = Some(name).filter(|name| name.len() == ONION_LEN).and_then(from_base32);
            let key = bytes.as_ref().and_then(|bytes| bytes.first_chunk::<32>());
            return key
                .filter(|key| bytes.as_deref() == Some(&onion_bytes(key)[..]))
                .map(|key| Self::TorV3(*key))
                .ok_or_else(wrong);
        }
        if let Some(name) = name.strip_suffix(".b32.i2p") {
            let bytes = Some(name).filter(|name| name.len() == I2P_LEN).and_then(from_base32);
            return bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self::I2p)
                .ok_or_else(wrong);
        }
        name.parse::<IpAddr>().map(Self::from).map_err(|_| wrong())
    }
}

/// A peer's address: its host and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetAddr {
    /// Its host.
    pub host: Host,
    /// Its port; always 0 on I2P, which has none (SAM 3.1).
    pub port: u16,
}

impl NetAddr {
    /// The host's address where no port is named.
    pub fn at_default_port(host: Host, port: u16) -> Self {
        let port = if host.class() == NetClass::I2p { 0 } else { port };
        Self { host, port }
    }

    /// The socket address, when the host is one of the internet.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// The same address as one of CJDNS when it lies in its range. Only who is on that network can tell: to others the
    /// range is private.
    #[must_use]
    pub fn on_cjdns(self) -> Self {
        match self.host {
            Host::Ip(IpAddr::V6(ip)) if is_cjdns(ip) => Self {
                host: Host::Cjdns(ip),
                port: self.port,
            },
            _ => self,
        }
    }
}

impl From<SocketAddr> for NetAddr {
    fn from(addr: SocketAddr) -> Self {
        let addr = canonical(addr);
        Self {
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        }
    }
}

impl TryFrom<NetAddr> for SocketAddr {
    type Error = NetAddr;

    fn try_from(addr: NetAddr) -> Result<Self, NetAddr> {
        addr.socket_addr().ok_or(addr)
    }
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            Host::Cjdns(ip) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for NetAddr {
    type Err = HostError;

    /// `192.0.2.1:8333`, `[2001:db8::1]:8333`, `NAME.onion:8333` or `NAME.b32.i2p:0`.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError(text.to_owned());
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(addr.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host: Host = host.parse()?;
        match host {
            // Without its brackets an IPv6 address ends in what looks like a port.
            Host::Ip(_) | Host::Cjdns(_) => Err(wrong()),
            _ => Ok(Self {
                host,
                port: port.parse().map_err(|_| wrong())?,
            }),
        }
    }
}

/// What an onion address spells: the key, a checksum and the version (Tor's rend-spec-v3, section 6).
fn onion_bytes(key: &[u8; 32]) -> [u8; 35] {
    const VERSION: u8 = 3;
    let mut hash = Sha3_256::new();
    hash.update(b".onion checksum");
    hash.update(key);
    hash.update([VERSION]);
    let [a, b, ..] = <[u8; 32]>::from(hash.finalize());
    let mut bytes = [0; 35];
    bytes[..32].copy_from_slice(key);
    bytes[32..].copy_from_slice(&[a, b, VERSION]);
    bytes
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648, lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0u32, 0);
    let mut put = |five: u32| text.push(char::from(ALPHABET[(five & 31) as usize]));
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    text
}

/// `None` when a sign is foreign or the last one holds bits that spell nothing.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for sign in text.bytes() {
        let five = ALPHABET.iter().position(|known| *known == sign)?;
        held = (held << 5) | u32::try_from(five).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0 && bits < 5).then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The addresses of BIP 155's test vectors in Bitcoin Core (`net_tests.cpp`, `cnetaddr_basic`).
    const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
    const ONION_KEY: [u8; 32] = [
        0x79, 0xbc, 0xc6, 0x25, 0x18, 0x4b, 0x05, 0x19, 0x49, 0x75, 0xc2, 0x8b, 0x66, 0xb6, 0x6b, 0x04, 0x69, 0xf7,
        0xf6, 0x55, 0x6f, 0xb1, 0xac, 0x31, 0x89, 0xa7, 0x9b, 0x40, 0xdd, 0xa3, 0x2f, 0x1f,
    ];
    const I2P: &str = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p";

    #[test]
    fn every_network_has_its_form() {
        let onion: NetAddr = format!("{ONION}:8333").parse().unwrap();
        assert_eq!(onion.host, Host::TorV3(ONION_KEY));
        assert_eq!(onion.to_string(), format!("{ONION}:8333"));
        let i2p: NetAddr = format!("{I2P}:0").parse().unwrap();
        assert_eq!((i2p.host.class(), i2p.to_string()), (NetClass::I2p, format!("{I2P}:0")));
        let upper: Host = ONION.to_ascii_uppercase().parse().unwrap();
        assert_eq!(upper, onion.host);
        let mapped: NetAddr = "[::ffff:1.2.3.4]:8333".parse().unwrap();
        assert_eq!(mapped.to_string(), "1.2.3.4:8333");
        let v6: NetAddr = "[fc00::7]:8333".parse().unwrap();
        assert_eq!(v6.host.class(), NetClass::Ipv6);
        assert_eq!(v6.on_cjdns().host.class(), NetClass::Cjdns);
        assert_eq!(v6.on_cjdns().to_string(), v6.to_string());
        assert_eq!(onion.on_cjdns(), onion);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let flipped = ONION.replacen('p', "q", 1);
        for wrong in [
            "",
            "example.org:8333",
            "1.2.3.4",
            "2001:db8::1:8333",
            ONION,
            &format!("{flipped}:8333"),
            "expyuzz4wqqyqhjn.onion:8333",
            &format!("{ONION}:x"),
            ".b32.i2p:0",
            &format!("{}:0", I2P.replacen('u', "1", 1)),
        ] {
            assert!(wrong.parse::<NetAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_say_the_same_as_text() {
        let hosts = ["1.2.3.4", "2a01:4f8::1", ONION, I2P].map(|text| text.parse::<Host>().unwrap());
        for host in hosts {
            let again = host.with_bytes(Host::from_bytes);
            assert_eq!(again, Ok(Some(host)));
        }
        assert_eq!(Host::from_bytes(4, &[0; 31]), Err(WrongLength));
        assert_eq!(Host::from_bytes(3, &[0; 10]), Ok(None), "Tor's version 2 is gone");
        assert_eq!(Host::from_bytes(6, &[0x20; 16]), Ok(None));
    }

    #[test]
    fn sets_of_networks_hold_what_was_put_in() {
        let set: NetClasses = [NetClass::Ipv4, NetClass::Onion].into_iter().collect();
        let held: Vec<_> = NetClass::ALL.into_iter().filter(|class| set.contains(*class)).collect();
        assert_eq!(held, [NetClass::Ipv4, NetClass::Onion]);
        assert!(NetClass::ALL.iter().all(|class| class.name().parse() == Ok(*class)));
        assert!("unroutable".parse::<NetClass>().is_err());
    }
}
