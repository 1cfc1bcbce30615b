//! Which addresses belong together, and which can be reached from anywhere.
//!
//! Whoever owns one address usually owns its neighbours, so choices among peers are spread over *network groups*:
//! an autonomous system where a map
//! names it, else an IPv4 /16 or an IPv6 /32, with tunnelled IPv4 addresses counted as IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{AsMap, Host, NetClass};

/// The network group of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetGroup(u8, [u8; 4]);

/// Addresses of one autonomous system.
const SYSTEM: u8 = 1;

impl NetGroup {
    /// The group of `host`: the autonomous system that announces it, where the map knows that; else its range. Names on
    /// Tor, I2P and CJDNS cost nothing, so each of those networks has sixteen groups only.
    pub fn of(host: impl Into<Host>, map: Option<&AsMap>) -> Self {
        match host.into() {
            Host::Ip(ip) => {
                let announced = embedded_v4(ip).map_or_else(IpAddr::V6, IpAddr::V4);
                let system = map.filter(|_| is_public(ip)).and_then(|map| map.system(announced));
                system.map_or_else(|| Self::of_range(ip), |system| Self(SYSTEM, system.to_be_bytes()))
            }
            Host::TorV3(key) => Self::of_name(NetClass::Onion, key[0]),
            Host::I2p(hash) => Self::of_name(NetClass::I2p, hash[0]),
            // The first byte is the same for all.
            Host::Cjdns(ip) => Self::of_name(NetClass::Cjdns, ip.octets()[1]),
        }
    }

    fn of_range(ip: IpAddr) -> Self {
        match embedded_v4(ip) {
            Ok(v4) => {
                let [a, b, ..] = v4.octets();
                Self(4, [a, b, 0, 0])
            }
            Err(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self(6, [a, b, c, d])
            }
        }
    }

    fn of_name(class: NetClass, first: u8) -> Self {
        Self(16 + class as u8, [first >> 4, 0, 0, 0])
    }

    /// The group as bytes, to be hashed with a secret.
    pub fn to_bytes(self) -> [u8; 5] {
        let [a, b, c, d] = self.1;
        [self.0, a, b, c, d]
    }
}

/// The IPv4 address that `ip` is or stands for: mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), 6to4
/// (`2002::/16`) and Teredo (`2001::/32`, where it is stored inverted).
fn embedded_v4(ip: IpAddr) -> Result<Ipv4Addr, Ipv6Addr> {
    let v6 = match ip {
        IpAddr::V4(v4) => return Ok(v4),
        IpAddr::V6(v6) => v6,
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Ok(v4);
    }
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ok(from(high, low)),
        [0x2002, high, low, ..] => Ok(from(high, low)),
        [0x2001, 0, .., high, low] => Ok(from(!high, !low)),
        _ => Err(v6),
    }
}

/// The same address with IPv4-mapped IPv6 written as IPv4, so that one peer has one name.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether `ip` can be reached over the public internet, as far as the special-purpose registries of RFC 6890 tell.
/// An address that tunnels to IPv4 is as public as the IPv4 address it stands for.
pub fn is_public(ip: IpAddr) -> bool {
    match embedded_v4(ip) {
        Ok(v4) => is_public_v4(v4),
        Err(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || a >= 224 // multicast, reserved, broadcast
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // RFC 6598: carrier NAT
        || (a == 192 && b == 0 && c == 0) // RFC 6890: protocol assignments
        || (a == 198 && (b == 18 || b == 19))) // RFC 2544: benchmarks
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let global_unicast = segments[0] & 0xe000 == 0x2000;
    let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8;
    let documentation_2 = segments[0] == 0x3fff && segments[1] & 0xf000 == 0;
    let orchid = segments[0] == 0x2001 && matches!(segments[1] & 0xfff0, 0x0010 | 0x0020);
    let benchmark = segments[0] == 0x2001 && segments[1] == 2 && segments[2] == 0;
    global_unicast && !documentation && !documentation_2 && !orchid && !benchmark
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_group_and_tunnels_count_as_ipv4() {
        let group = |text: &str| NetGroup::of(text.parse::<IpAddr>().unwrap(), None);
        assert_eq!(group("8.8.8.8"), group("8.8.200.1"));
        assert_ne!(group("8.8.8.8"), group("8.9.8.8"));
        assert_eq!(group("::ffff:8.8.1.1"), group("8.8.8.8"));
        assert_eq!(group("2002:0808:0101::1"), group("8.8.8.8"));
        assert_eq!(group("64:ff9b::808:101"), group("8.8.8.8"));
        assert_eq!(group("2001:0:1::f7f7:fefe"), group("8.8.8.8"));
        assert_eq!(group("2a01:4f8:1::1"), group("2a01:4f8:ffff::2"));
        assert_ne!(group("2a01:4f8::1"), group("2a01:4f9::1"));
    }

    #[test]
    fn special_ranges_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.5.5",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "2001:10::1",
            "2001:20::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2a01:4f8::1",
            "2606:4700::1111",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn one_peer_has_one_name() {
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:8333".parse().unwrap();
        assert_eq!(canonical(mapped), "1.2.3.4:8333".parse().unwrap());
    }
}
