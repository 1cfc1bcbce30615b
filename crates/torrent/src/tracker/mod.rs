//! Trackers: what is asked, what comes back; [`http`] (BEP 3, 7, 23) and [`udp`] (BEP 15, 41) put it into bytes.

#[cfg(test)]
mod fuzz;
pub mod http;
pub mod udp;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use crate::{InfoHash, PeerId};

/// Peers taken from one answer.
const MAX_PEERS: usize = 2000;
/// What a tracker that names no interval is asked again after (BEP 3 trackers commonly say this).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1800);
/// A tracker is never asked more often than this, whatever it says.
const LEAST_INTERVAL: Duration = Duration::from_secs(30);
/// And at least this often.
const MOST_INTERVAL: Duration = Duration::from_secs(86_400);

/// Why a peer announces outside the regular interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first announce.
    Started,
    /// The last.
    Stopped,
    /// The download just finished.
    Completed,
}

/// One announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who we are.
    pub peer_id: PeerId,
    /// Where we listen.
    pub port: u16,
    /// Bytes sent to peers since `started`.
    pub uploaded: u64,
    /// Bytes received from peers since `started`.
    pub downloaded: u64,
    /// Bytes still missing; `u64::MAX` when unknown (a magnet before its metadata).
    pub left: u64,
    /// Why now.
    pub event: Option<Event>,
    /// How many peers are wanted.
    pub num_want: u32,
    /// The same number in each announce of one run, so that the tracker knows us after a change of address.
    pub key: u32,
    /// What the tracker gave as `tracker id` last time (HTTP only).
    pub tracker_id: Option<Vec<u8>>,
}

/// An announce and whom to send it to: the work that the engine hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The tracker's URL (`http`, `https` or `udp`).
    pub url: String,
    /// What to say.
    pub announce: Announce,
}

/// A tracker's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// When to ask again; kept within 30 seconds and a day.
    pub interval: Duration,
    /// Not to be asked earlier than this.
    pub min_interval: Option<Duration>,
    /// Peers with the whole torrent, as the tracker counts.
    pub seeders: Option<u32>,
    /// Peers without.
    pub leechers: Option<u32>,
    /// Some of them.
    pub peers: Vec<SocketAddr>,
    /// A warning for the user.
    pub warning: Option<String>,
    /// To be given back in the next announce.
    pub tracker_id: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackerError {
    /// The tracker refuses, in its own words.
    #[error("tracker refused: {0}")]
    Refused(String),
    /// The answer is not what the protocol says.
    #[error("tracker sent a malformed answer: {0}")]
    Malformed(String),
    /// The tracker's URL is of no use.
    #[error("bad tracker address: {0}")]
    BadUrl(String),
    /// No answer in all tries.
    #[error("tracker did not answer")]
    Timeout,
    /// The way to the tracker failed; text from the transport.
    #[error("tracker unreachable: {0}")]
    Transport(String),
}

/// An interval in seconds as a tracker says it, within our bounds.
fn interval(secs: u64) -> Duration {
    Duration::from_secs(secs).clamp(LEAST_INTERVAL, MOST_INTERVAL)
}

/// A tracker's text for people: no control characters, bounded.
fn clean_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect()
}

/// Reads a six-byte address (BEP 23); `None` for port 0 and the unspecified address, which lead nowhere.
pub(crate) fn v4_from(bytes: &[u8; 6]) -> Option<SocketAddr> {
    let [a, b, c, d, high, low] = *bytes;
    let addr = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]));
    (addr.port() != 0 && !addr.ip().is_unspecified()).then_some(addr.into())
}

/// Reads an eighteen-byte address (BEP 7); `None` for port 0 and the unspecified address, which lead nowhere.
pub(crate) fn v6_from(bytes: &[u8; 18]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(*port.first_chunk()?);
    let addr = SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, 0);
    (port != 0 && !addr.ip().is_unspecified()).then_some(addr.into())
}

/// All addresses of a run of six bytes each, at most `max`.
pub(crate) fn read_compact_v4(bytes: &[u8], max: usize) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks().0.iter().take(max).filter_map(v4_from)
}

/// All addresses of a run of eighteen bytes each, at most `max`.
pub(crate) fn read_compact_v6(bytes: &[u8], max: usize) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks().0.iter().take(max).filter_map(v6_from)
}

/// Six bytes.
pub(crate) fn compact_v4(addr: &SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = addr.ip().octets();
    let [high, low] = addr.port().to_be_bytes();
    [a, b, c, d, high, low]
}

/// Eighteen bytes.
pub(crate) fn compact_v6(addr: &SocketAddrV6) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&addr.ip().octets());
    bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}
