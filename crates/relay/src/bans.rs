//! Whom we do not talk to: bans set by a person, and discouragement for a day after misbehaviour.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dunlin_peer::Host;

/// How long a misbehaving address is refused, seconds.
pub const DISCOURAGE_SECS: u64 = 24 * 60 * 60;
/// Most discouraged addresses remembered; the one that ends first makes room.
const MAX_DISCOURAGED: usize = 10_000;

/// An IP network in CIDR form, or one host of another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    host: Host,
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
        Some(Self {
            host: Host::Ip(addr),
            prefix,
        })
    }

    /// A single host.
    pub fn host(host: impl Into<Host>) -> Self {
        let host = host.into();
        let bits = host.with_bytes(|_, bytes| bytes.len() * 8);
        // Names of hidden networks have 256 bits, of which nobody owns a part.
        let prefix = u8::try_from(bits).unwrap_or(u8::MAX);
        Self { host, prefix }
    }

    /// Whether the host lies in the network.
    pub fn contains(&self, host: &Host) -> bool {
        match (self.host, host.ip()) {
            (Host::Ip(ours), Some(ip)) => {
                let ip = ip.to_canonical();
                ip.is_ipv4() == ours.is_ipv4() && Self::new(ip, self.prefix).is_some_and(|other| other == *self)
            }
            (ours, _) => ours == *host,
        }
    }

    /// Whether one of the two networks lies within the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(&other.host) || other.contains(&self.host)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Ip(ip) => write!(f, "{ip}/{}", self.prefix),
            host => write!(f, "{host}"),
        }
    }
}

/// The text is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address, or a network such as 192.0.2.0/24: {0}")]
pub struct SubnetError(pub String);

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        match text.split_once('/') {
            None => text.parse::<Host>().map(Self::host).map_err(|_| wrong()),
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
    discouraged: BTreeMap<Host, Ban>,
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
                .map(|(host, _)| *host)
        {
            self.discouraged.remove(&first);
        }
        self.discouraged.insert(ban.subnet.host, ban);
    }

    /// Refuses one address for a day.
    pub fn discourage(&mut self, host: Host, now_unix: u64, reason: &str) {
        self.add(Ban {
            subnet: Subnet::host(host),
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
        self.discouraged.retain(|host, _| !subnet.contains(host));
        before - self.bans.len() - self.discouraged.len()
    }

    /// Whether the host is refused now.
    pub fn refuses(&self, host: &Host, now_unix: u64) -> bool {
        let holds = |ban: &Ban| ban.until > now_unix;
        self.discouraged.get(host).is_some_and(holds)
            || self.bans.values().any(|ban| holds(ban) && ban.subnet.contains(host))
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
        assert!(net.contains(&"192.0.2.1".parse().unwrap()));
        assert!(net.contains(&"::ffff:192.0.2.1".parse().unwrap()));
        assert!(!net.contains(&"192.0.3.1".parse().unwrap()));
        assert!(!net.contains(&"::1".parse().unwrap()));
        assert!(
            "0.0.0.0/0"
                .parse::<Subnet>()
                .unwrap()
                .contains(&"8.8.8.8".parse().unwrap())
        );
        for wrong in ["", "192.0.2.0/33", "::/129", "x/8", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn hidden_hosts_are_banned_one_by_one() {
        let name = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
        let one: Subnet = name.parse().unwrap();
        assert_eq!(one.to_string(), name);
        assert!(one.contains(&name.parse().unwrap()) && !one.contains(&Host::TorV3([0; 32])));
        let everything: Subnet = "::/0".parse().unwrap();
        assert!(!everything.contains(&name.parse().unwrap()));
    }

    #[test]
    fn bans_end_and_can_be_lifted() {
        let mut list = BanList::default();
        let bad: Host = "203.0.113.9".parse().unwrap();
        list.discourage(bad, 1000, "bad-txnmrklroot");
        assert!(list.refuses(&bad, 1000 + DISCOURAGE_SECS - 1));
        assert!(!list.refuses(&bad, 1000 + DISCOURAGE_SECS));
        let subnet = "198.51.100.0/24".parse().unwrap();
        list.add(Ban {
            subnet,
            created: 0,
            until: 5000,
            discouraged: false,
            reason: "spam".into(),
        });
        assert!(list.refuses(&"198.51.100.200".parse().unwrap(), 4999));
        assert_eq!(list.list(1001).len(), 2);
        assert_eq!(list.remove(&"198.51.100.7/32".parse().unwrap()), 1);
        assert_eq!(list.remove(&"0.0.0.0/0".parse().unwrap()), 1);
        assert!(list.list(1001).is_empty());
    }
}
