//! Whom we do not talk to: bans set by a person, and discouragement for a day after misbehaviour.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How long a misbehaving address is refused, seconds.
pub const DISCOURAGE_SECS: u64 = 24 * 60 * 60;
/// Most discouraged addresses remembered; the one that ends first makes room.
const MAX_DISCOURAGED: usize = 10_000;

/// An IP network in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    addr: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The network of `addr` with this prefix length; `None` when the prefix is longer than the address.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let addr = match addr.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix.into())?).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix.into())?).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
            }
        };
        Some(Self { addr, prefix })
    }

    /// A single address.
    pub fn host(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Self {
            addr,
            prefix: if addr.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Whether the address lies in the network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.addr.is_ipv4() && Self::new(addr, self.prefix).is_some_and(|other| other == *self)
    }

    /// Whether one of the two networks lies within the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The text is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address or a network such as 192.0.2.0/24: {0}")]
pub struct SubnetError(pub String);

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        match text.split_once('/') {
            None => text.parse().map(Self::host).map_err(|_| wrong()),
            Some((addr, prefix)) => {
                let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
                Self::new(addr, prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)
            }
        }
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom.
    pub subnet: Subnet,
    /// When it was set, seconds since the Unix epoch.
    pub created: u64,
    /// When it ends, seconds since the Unix epoch.
    pub until: u64,
    /// Set by ourselves after misbehaviour, not by a person.
    pub discouraged: bool,
    /// Why.
    pub reason: String,
}

/// Everyone who is refused.
#[derive(Clone, Debug, Default)]
pub struct BanList {
    bans: BTreeMap<Subnet, Ban>,
    discouraged: BTreeMap<IpAddr, Ban>,
}

impl BanList {
    /// Adds or replaces an entry, for example one that was saved.
    pub fn add(&mut self, ban: Ban) {
        if !ban.discouraged {
            self.bans.insert(ban.subnet, ban);
            return;
        }
        if self.discouraged.len() >= MAX_DISCOURAGED
            && let Some(first) = self
                .discouraged
                .iter()
                .min_by_key(|(_, ban)| ban.until)
                .map(|(ip, _)| *ip)
        {
            self.discouraged.remove(&first);
        }
        self.discouraged.insert(ban.subnet.addr, ban);
    }

    /// Refuses one address for a day.
    pub fn discourage(&mut self, addr: IpAddr, now_unix: u64, reason: &str) {
        self.add(Ban {
            subnet: Subnet::host(addr),
            created: now_unix,
            until: now_unix.saturating_add(DISCOURAGE_SECS),
            discouraged: true,
            reason: reason.to_owned(),
        });
    }

    /// Lifts every entry that overlaps the network; returns how many there were.
    pub fn remove(&mut self, subnet: &Subnet) -> usize {
        let before = self.bans.len() + self.discouraged.len();
        self.bans.retain(|other, _| !other.overlaps(subnet));
        self.discouraged.retain(|addr, _| !subnet.contains(*addr));
        before - self.bans.len() - self.discouraged.len()
    }

    /// Whether the address is refused now.
    pub fn refuses(&self, addr: IpAddr, now_unix: u64) -> bool {
        let addr = addr.to_canonical();
        self.discouraged.get(&addr).is_some_and(|ban| ban.until > now_unix)
            || self
                .bans
                .values()
                .any(|ban| ban.until > now_unix && ban.subnet.contains(addr))
    }

    /// All entries that have not ended.
    pub fn list(&mut self, now_unix: u64) -> Vec<Ban> {
        self.bans.retain(|_, ban| ban.until > now_unix);
        self.discouraged.retain(|_, ban| ban.until > now_unix);
        self.bans.values().chain(self.discouraged.values()).cloned().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn networks_parse_print_and_contain() {
        let net: Subnet = "192.0.2.77/24".parse().unwrap();
        assert_eq!(net.to_string(), "192.0.2.0/24");
        assert!(net.contains("192.0.2.1".parse().unwrap()));
        assert!(net.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!net.contains("192.0.3.1".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(
            "0.0.0.0/0"
                .parse::<Subnet>()
                .unwrap()
                .contains("8.8.8.8".parse().unwrap())
        );
        for wrong in ["", "192.0.2.0/33", "::/129", "x/8", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bans_end_and_can_be_lifted() {
        let mut list = BanList::default();
        let bad: IpAddr = "203.0.113.9".parse().unwrap();
        list.discourage(bad, 1000, "bad-txnmrklroot");
        assert!(list.refuses(bad, 1000 + DISCOURAGE_SECS - 1));
        assert!(!list.refuses(bad, 1000 + DISCOURAGE_SECS));
        let subnet = "198.51.100.0/24".parse().unwrap();
        list.add(Ban {
            subnet,
            created: 0,
            until: 5000,
            discouraged: false,
            reason: "spam".into(),
        });
        assert!(list.refuses("198.51.100.200".parse().unwrap(), 4999));
        assert_eq!(list.list(1001).len(), 2);
        assert_eq!(list.remove(&"198.51.100.7/32".parse().unwrap()), 1);
        assert_eq!(list.remove(&"0.0.0.0/0".parse().unwrap()), 1);
        assert!(list.list(1001).is_empty());
    }
}
