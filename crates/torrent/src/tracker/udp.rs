//! UDP trackers (BEP 15), with BEP 41's URL data.
//!
//! [`Exchange`] is the pure state machine of one announce: connect, announce, repeat with growing patience. The
//! caller owns the socket and the clock.

use std::time::Duration;

use dunlin_peer::Now;

use super::{Announce, Event, MAX_PEERS, Response, TrackerError};
use super::{clean_text, interval, read_compact_v4, read_compact_v6};

const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;

/// A connection id lives one minute with the client.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// The first wait; the n-th is 2^n as long.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// BEP 15's number of tries after the first: up to n = 8.
pub const MAX_TRIES: u32 = 9;

/// Host and port of a `udp://` URL, and its path with query for BEP 41.
///
/// # Errors
/// [`TrackerError::BadUrl`] when it is none, or names no port.
pub fn parse_url(url: &str) -> Result<(String, u16, String), TrackerError> {
    let bad = || TrackerError::BadUrl(url.chars().filter(|c| !c.is_control()).take(200).collect());
    let scheme = url.get(..6).ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("udp://") || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad());
    }
    let rest = url[6..].split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port.parse().ok().filter(|&port: &u16| port != 0).ok_or_else(bad)?;
    if host.is_empty() || host.contains('@') {
        return Err(bad());
    }
    Ok((host.to_owned(), port, path.to_owned()))
}

/// What the caller of an [`Exchange`] does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this datagram, then ask again.
    Send(Vec<u8>),
    /// Wait for a datagram, at the longest until this instant.
    Wait(Now),
    /// Nobody answers.
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Connecting,
    Announcing { connection: u64, since: Now },
}

/// One announce over UDP.
#[derive(Debug)]
pub struct Exchange {
    announce: Announce,
    url_data: String,
    ipv6: bool,
    transaction: u32,
    state: State,
    /// Datagrams sent without an answer since the last progress.
    tries: u32,
    max_tries: u32,
    /// The end of the present wait; `None` when something is to be sent.
    deadline: Option<Now>,
}

impl Exchange {
    /// An announce with BEP 41's `url_data` (path and query of the tracker's URL, as [`parse_url`] gives it), over
    /// IPv6 or not. `transaction` is a random number; `max_tries` up to [`MAX_TRIES`] datagrams are sent per step.
    pub fn new(announce: Announce, url_data: String, ipv6: bool, transaction: u32, max_tries: u32) -> Self {
        Self {
            announce,
            url_data,
            ipv6,
            transaction,
            state: State::Connecting,
            tries: 0,
            max_tries: max_tries.clamp(1, MAX_TRIES),
            deadline: None,
        }
    }

    /// What to do at `now`.
    pub fn poll(&mut self, now: Now) -> Step {
        if let Some(deadline) = self.deadline.filter(|&deadline| now < deadline) {
            return Step::Wait(deadline);
        }
        if self.tries >= self.max_tries {
            return Step::GiveUp;
        }
        // BEP 15: a connection id that has grown old is asked for anew.
        if let State::Announcing { since, .. } = self.state
            && now.since(since) >= CONNECTION_LIFE
        {
            self.state = State::Connecting;
        }
        // Each datagram has its own transaction id, so that a late answer to an old one is not taken for a new one.
        self.transaction = self.transaction.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        self.deadline = Some(now + FIRST_WAIT * (1u32 << self.tries.min(8)));
        self.tries += 1;
        Step::Send(match self.state {
            State::Connecting => encode_connect(self.transaction),
            State::Announcing { connection, .. } => {
                encode_announce(connection, self.transaction, &self.announce, &self.url_data)
            }
        })
    }

    /// Takes a datagram that came from the tracker's address. `None` when the exchange goes on: it was an answer to
    /// `connect` (poll again) or nothing of ours.
    pub fn receive(&mut self, now: Now, datagram: &[u8]) -> Option<Result<Response, TrackerError>> {
        let (action, rest) = datagram.split_first_chunk::<4>()?;
        let (transaction, body) = rest.split_first_chunk::<4>()?;
        if self.deadline.is_none() || u32::from_be_bytes(*transaction) != self.transaction {
            return None;
        }
        match (u32::from_be_bytes(*action), self.state) {
            (CONNECT, State::Connecting) => {
                let connection = u64::from_be_bytes(*body.first_chunk()?);
                self.state = State::Announcing { connection, since: now };
                self.tries = 0;
                self.deadline = None;
                None
            }
            (ANNOUNCE, State::Announcing { .. }) => Some(decode_announce(body, self.ipv6)),
            (ERROR, _) => Some(Err(TrackerError::Refused(clean_text(body)))),
            _ => None,
        }
    }
}

fn encode_connect(transaction: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.extend(MAGIC.to_be_bytes());
    out.extend(CONNECT.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out
}

fn encode_announce(connection: u64, transaction: u32, announce: &Announce, url_data: &str) -> Vec<u8> {
    let event: u32 = match announce.event {
        None => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    };
    // Unknown is said as BEP 3's trackers take it: the largest number that a signed field holds.
    let left = announce.left.min(i64::MAX as u64);
    let want = i32::try_from(announce.num_want).unwrap_or(i32::MAX);
    let mut out = Vec::with_capacity(100 + url_data.len());
    out.extend(connection.to_be_bytes());
    out.extend(ANNOUNCE.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out.extend(announce.info_hash.0);
    out.extend(announce.peer_id.0);
    out.extend(announce.downloaded.to_be_bytes());
    out.extend(left.to_be_bytes());
    out.extend(announce.uploaded.to_be_bytes());
    out.extend(event.to_be_bytes());
    out.extend([0; 4]); // our address: as the tracker sees it
    out.extend(announce.key.to_be_bytes());
    out.extend(want.to_be_bytes());
    out.extend(announce.port.to_be_bytes());
    for chunk in url_data.as_bytes().chunks(255) {
        out.push(2); // BEP 41: URLData
        out.push(chunk.len() as u8);
        out.extend(chunk);
    }
    out
}

fn decode_announce(body: &[u8], ipv6: bool) -> Result<Response, TrackerError> {
    let short = || TrackerError::Malformed("announce answer is too short".into());
    let (head, peers) = body.split_first_chunk::<12>().ok_or_else(short)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    Ok(Response {
        interval: interval(u32::from_be_bytes([a, b, c, d]).into()),
        min_interval: None,
        leechers: Some(u32::from_be_bytes([e, f, g, h])),
        seeders: Some(u32::from_be_bytes([i, j, k, l])),
        peers: if ipv6 {
            read_compact_v6(peers, MAX_PEERS).collect()
        } else {
            read_compact_v4(peers, MAX_PEERS).collect()
        },
        warning: None,
        tracker_id: None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{InfoHash, PeerId};

    fn exchange(max_tries: u32) -> Exchange {
        let announce = Announce {
            info_hash: InfoHash([0xaa; 20]),
            peer_id: PeerId([0xbb; 20]),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: Some(Event::Started),
            num_want: 80,
            key: 0x0102_0304,
            tracker_id: None,
        };
        Exchange::new(announce, "/announce?x=1".into(), false, 7, max_tries)
    }

    fn sent(exchange: &mut Exchange, now: Now) -> Vec<u8> {
        match exchange.poll(now) {
            Step::Send(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn connect_answer(request: &[u8]) -> Vec<u8> {
        let mut answer = vec![0; 4];
        answer.extend(&request[12..16]);
        answer.extend(0x1122_3344_5566_7788u64.to_be_bytes());
        answer
    }

    #[test]
    fn connect_then_announce() {
        let now = Now::from_unix_secs(100);
        let mut exchange = exchange(3);
        let connect = sent(&mut exchange, now);
        assert_eq!(connect[..12], [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0]);
        assert_eq!(exchange.poll(now), Step::Wait(now + Duration::from_secs(15)));
        let mut stray = connect_answer(&connect);
        stray[7] ^= 1;
        assert!(exchange.receive(now, &stray).is_none());
        assert_eq!(
            exchange.poll(now),
            Step::Wait(now + Duration::from_secs(15)),
            "a stray datagram changes nothing"
        );
        assert!(exchange.receive(now, &connect_answer(&connect)).is_none());

        let announce = sent(&mut exchange, now);
        assert_eq!(announce.len(), 98 + 2 + 13);
        assert_eq!(
            announce[..12],
            [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 1]
        );
        assert_eq!(announce[16..36], [0xaa; 20]);
        assert_eq!(announce[36..56], [0xbb; 20]);
        assert_eq!(
            announce[56..80],
            [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(
            announce[80..98],
            [0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 80, 0x1a, 0xe1]
        );
        assert_eq!(announce[98..], *b"\x02\x0d/announce?x=1");

        let mut answer = 1u32.to_be_bytes().to_vec();
        answer.extend(&announce[12..16]);
        answer.extend([0, 0, 7, 8, 0, 0, 0, 4, 0, 0, 0, 5, 127, 0, 0, 1, 0x1a, 0xe1, 9]);
        let response = exchange.receive(now, &answer).unwrap().unwrap();
        assert_eq!(response.interval, Duration::from_secs(1800));
        assert_eq!((response.leechers, response.seeders), (Some(4), Some(5)));
        assert_eq!(response.peers, ["127.0.0.1:6881".parse().unwrap()]);
    }

    #[test]
    fn patience_doubles_and_ends() {
        let mut exchange = exchange(3);
        let mut now = Now::from_unix_secs(0);
        for wait in [15, 30, 60] {
            sent(&mut exchange, now);
            assert_eq!(exchange.poll(now), Step::Wait(now + Duration::from_secs(wait)));
            now = now + Duration::from_secs(wait);
        }
        assert_eq!(exchange.poll(now), Step::GiveUp);
    }

    #[test]
    fn an_old_connection_id_is_renewed() {
        let mut exchange = exchange(9);
        let mut now = Now::from_unix_secs(0);
        let connect = sent(&mut exchange, now);
        exchange.receive(now, &connect_answer(&connect));
        for (wait, len) in [(15, 113), (30, 113), (60, 113), (120, 16)] {
            assert_eq!(sent(&mut exchange, now).len(), len);
            now = now + Duration::from_secs(wait);
        }
    }

    #[test]
    fn refusals_and_short_answers() {
        let now = Now::from_unix_secs(0);
        let mut one = exchange(1);
        let connect = sent(&mut one, now);
        let mut answer = 3u32.to_be_bytes().to_vec();
        answer.extend(&connect[12..16]);
        answer.extend(b"go away");
        assert_eq!(
            one.receive(now, &answer),
            Some(Err(TrackerError::Refused("go away".into())))
        );
        for len in 0..8 {
            assert_eq!(one.receive(now, &answer[..len]), None);
        }
        let mut two = exchange(1);
        let connect = sent(&mut two, now);
        two.receive(now, &connect_answer(&connect));
        let announce = sent(&mut two, now);
        let mut answer = 1u32.to_be_bytes().to_vec();
        answer.extend(&announce[12..16]);
        answer.extend([0; 11]);
        assert!(matches!(
            two.receive(now, &answer),
            Some(Err(TrackerError::Malformed(_)))
        ));
    }

    #[test]
    fn urls_give_host_port_and_data() {
        let ok = |url: &str| parse_url(url).unwrap();
        assert_eq!(
            ok("udp://t.example:80/announce?a=b#f"),
            ("t.example".into(), 80, "/announce?a=b".into())
        );
        assert_eq!(ok("UDP://[::1]:6969"), ("::1".into(), 6969, String::new()));
        for bad in [
            "udp://t.example/announce",
            "udp://:80",
            "udp://t:0",
            "udp://t:99999",
            "http://t:80",
            "",
            "udp://é",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
