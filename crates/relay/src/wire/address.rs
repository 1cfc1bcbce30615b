//! Entries of `addr` and `addrv2` (BIP 155) messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::payload::{Malformed, Reader, put_compact};
use super::version::{put_v1_addr, v1_addr};

/// Longest address of any network, BIP 155.
const MAX_ADDRV2_LEN: usize = 512;

/// Where a peer can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// IPv4 or IPv6.
    Ip(IpAddr),
    /// A Tor v3 onion service, its public key.
    TorV3([u8; 32]),
    /// An I2P destination, its hash.
    I2p([u8; 32]),
    /// A CJDNS address (`fc00::/8`).
    Cjdns(Ipv6Addr),
}

/// An address that a peer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// When it was last heard of, seconds since the Unix epoch.
    pub time: u32,
    /// What it offers, see [`services`](super::version::services).
    pub services: u64,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl PeerAddr {
    /// The socket address, when the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            _ => None,
        }
    }

    /// An `addr` entry; `None` for hosts that the old form cannot carry.
    pub(super) fn encode_v1(&self, out: &mut Vec<u8>) -> Option<()> {
        let addr = self.socket_addr()?;
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.services.to_le_bytes());
        put_v1_addr(out, addr);
        Some(())
    }

    pub(super) fn decode_v1(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let time = reader.u32()?;
        let services = reader.u64()?;
        let addr = v1_addr(reader)?;
        Ok(Self {
            time,
            services,
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        })
    }

    pub(super) fn encode_v2(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_le_bytes());
        put_compact(out, self.services);
        let (network, bytes): (u8, &[u8]) = match &self.host {
            Host::Ip(IpAddr::V4(ip)) => (1, &ip.octets()),
            Host::Ip(IpAddr::V6(ip)) => (2, &ip.octets()),
            Host::TorV3(key) => (4, key),
            Host::I2p(hash) => (5, hash),
            Host::Cjdns(ip) => (6, &ip.octets()),
        };
        out.push(network);
        put_compact(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
        out.extend_from_slice(&self.port.to_be_bytes());
    }

    /// `None` for a network that we do not know, as BIP 155 asks; a known network with a wrong length is malformed.
    pub(super) fn decode_v2(reader: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let time = reader.u32()?;
        let services = reader.compact_u64()?;
        let network = reader.u8()?;
        let bytes = reader.var_bytes(MAX_ADDRV2_LEN, "addrv2 address too long")?;
        let port = reader.u16_be()?;
        let wrong = Malformed("addrv2 address of a wrong length");
        let host = match network {
            1 => Some(Host::Ip(
                Ipv4Addr::from(<[u8; 4]>::try_from(bytes).map_err(|_| wrong)?).into(),
            )),
            2 => {
                let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(|_| wrong)?);
                // IPv4 and the old onion range must not hide in IPv6.
                let hidden = ip.to_ipv4_mapped().is_some() || ip.segments()[..3] == [0xfd87, 0xd87e, 0xeb43];
                (!hidden).then_some(Host::Ip(ip.into()))
            }
            4 => Some(Host::TorV3(bytes.try_into().map_err(|_| wrong)?)),
            5 => Some(Host::I2p(bytes.try_into().map_err(|_| wrong)?)),
            6 => {
                let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(|_| wrong)?);
                (ip.octets()[0] == 0xfc).then_some(Host::Cjdns(ip))
            }
            _ => None,
        };
        Ok(host.map(|host| Self {
            time,
            services,
            host,
            port,
        }))
    }
}
