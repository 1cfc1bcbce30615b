//! Local service discovery (BEP 14): peers in the same house tell each other of their torrents by multicast.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dunlin_peer::{Now, is_public};

use crate::InfoHash;
use crate::shared::Shared;

/// Where to speak and listen.
pub const GROUPS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 192, 152, 143)), 6771),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f)), 6771),
];
/// Time between two announces of a torrent.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Torrents named in one message; a datagram stays below what every network carries.
const MAX_NAMED: usize = 20;
/// Time between two messages of ours.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest message that is read.
const MAX_LEN: usize = 1400;
const METHOD: &str = "BT-SEARCH * HTTP/1.1\r\n";

/// The torrents to be announced.
#[derive(Debug)]
pub(crate) struct Lsd {
    /// What tells our own messages from others'.
    cookie: u64,
    queue: BTreeSet<(Now, InfoHash)>,
    next: Now,
}

impl Lsd {
    pub(crate) fn new(cookie: u64) -> Self {
        Self {
            cookie,
            queue: BTreeSet::new(),
            next: Now::default(),
        }
    }

    /// Announces a torrent soon, and again and again.
    pub(crate) fn insert(&mut self, now: Now, info_hash: InfoHash) {
        self.queue.insert((now, info_hash));
    }

    /// Sends one message when it is time to. `wanted` says of a torrent whether it is to be announced; `None` when it is
    /// gone.
    pub(crate) fn announce(&mut self, now: Now, shared: &mut Shared, wanted: impl Fn(InfoHash) -> Option<bool>) {
        let Some(port) = shared.config.listen_port.filter(|_| now >= self.next) else {
            return;
        };
        let mut named = Vec::new();
        while named.len() < MAX_NAMED
            && let Some(&(due, info_hash)) = self.queue.first().filter(|(due, _)| *due <= now)
        {
            self.queue.remove(&(due, info_hash));
            let Some(wanted) = wanted(info_hash) else { continue };
            self.queue.insert((now + INTERVAL, info_hash));
            if wanted {
                named.push(info_hash);
            }
        }
        if named.is_empty() {
            return;
        }
        self.next = now + PAUSE;
        for group in GROUPS {
            let text = self.message(group, port, &named);
            shared.out.datagram(group, text.into_bytes().into());
        }
    }

    fn message(&self, group: SocketAddr, port: u16, named: &[InfoHash]) -> String {
        let mut text = format!("{METHOD}Host: {group}\r\nPort: {port}\r\n");
        for info_hash in named {
            // Writing to a string cannot fail.
            let _ = write!(text, "Infohash: {info_hash}\r\n");
        }
        let _ = write!(text, "cookie: {:016x}\r\n\r\n\r\n", self.cookie);
        text
    }

    /// Reads a message: where the peer is and which torrents it has. `None` for our own, and for one from outside of
    /// the house, which multicast does not bring.
    pub(crate) fn read(&self, from: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Vec<InfoHash>)> {
        if bytes.len() > MAX_LEN || is_public(from.ip()) {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix(METHOD)?;
        let mut port = None;
        let mut named = Vec::new();
        for line in text.split("\r\n") {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "port" => port = value.parse().ok().filter(|port| *port != 0),
                "infohash" => named.extend(value.parse::<InfoHash>()),
                "cookie" if u64::from_str_radix(value, 16) == Ok(self.cookie) => return None,
                _ => {}
            }
        }
        Some((SocketAddr::new(from.ip(), port?), named))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::Config;

    #[test]
    fn what_one_says_the_other_reads_and_strangers_are_ignored() {
        let mut config = Config::new([1; 32]);
        config.listen_port = Some(6881);
        let mut shared = Shared::new(config);
        let (mut one, other) = (Lsd::new(1), Lsd::new(2));
        let now = Now::from_unix_secs(10);
        for n in 0..30 {
            one.insert(now, InfoHash([n; 20]));
        }
        let said = |one: &mut Lsd, now, shared: &mut Shared| {
            one.announce(now, shared, |hash| (hash.0[0] != 3).then_some(hash.0[0] != 4));
            std::iter::from_fn(|| shared.out.pop()).collect::<Vec<_>>()
        };
        let first = said(&mut one, now, &mut shared);
        let [dunlin_peer::Output::Datagram { to, bytes }, _] = &first[..] else {
            panic!("{first:?}");
        };
        assert_eq!(*to, GROUPS[0]);
        assert!(bytes.len() <= MAX_LEN);
        let from = "192.168.1.7:5000".parse().unwrap();
        let (peer, named) = other.read(from, bytes).unwrap();
        assert_eq!(peer, "192.168.1.7:6881".parse().unwrap());
        assert_eq!(named.len(), MAX_NAMED);
        assert!(!named.contains(&InfoHash([3; 20])) && !named.contains(&InfoHash([4; 20])));
        assert!(one.read(from, bytes).is_none(), "our own words");
        assert!(other.read("8.8.8.8:5000".parse().unwrap(), bytes).is_none());
        assert!(said(&mut one, now, &mut shared).is_empty(), "not twice in a second");
        assert_eq!(said(&mut one, now + PAUSE, &mut shared).len(), 2);
        assert!(said(&mut one, now + PAUSE * 2, &mut shared).is_empty());
        assert_eq!(said(&mut one, now + INTERVAL, &mut shared).len(), 2);

        let real = b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6889\r\n\
                     Infohash: C12FE1C06BBA254A9DC9F519B335AA7C1367A88A\r\ncookie: 1234abcd\r\n\r\n\r\n";
        assert_eq!(other.read(from, real).unwrap().1.len(), 1);
        for bad in [
            &b""[..],
            b"BT-SEARCH",
            b"BT-SEARCH * HTTP/1.1\r\nPort: 0\r\n",
            b"\xff\xfe",
            &[b'B'; 5000],
        ] {
            assert!(other.read(from, bad).is_none());
        }
    }
}
