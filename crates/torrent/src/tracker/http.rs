//! HTTP trackers (BEP 3): the request's URL and the answer, with compact peers (BEP 23) and IPv6 peers (BEP 7).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::{Announce, DEFAULT_INTERVAL, Event, MAX_PEERS, Response, TrackerError};
use super::{clean_text, interval, read_compact_v4, read_compact_v6};
use crate::bencode::{Document, Limits, Value};

/// The URL to fetch for an announce to the tracker at `base`. The answer goes to [`parse`].
///
/// # Errors
/// [`TrackerError::BadUrl`] when `base` is no HTTP URL.
pub fn url(base: &str, announce: &Announce) -> Result<String, TrackerError> {
    let lower = base.get(..8).unwrap_or(base).to_ascii_lowercase();
    let known = lower.starts_with("http://") || lower.starts_with("https://");
    if !known || base.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(TrackerError::BadUrl(
            base.chars().filter(|c| !c.is_control()).take(200).collect(),
        ));
    }
    let base = base.split('#').next().unwrap_or(base);
    let joint = match base.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some((_, query)) if query.ends_with('&') => "",
        Some(_) => "&",
    };
    let mut url = format!("{base}{joint}info_hash=");
    percent_encode(&announce.info_hash.0, &mut url);
    url.push_str("&peer_id=");
    percent_encode(&announce.peer_id.0, &mut url);
    // An unknown amount is said as "one byte missing": zero would make us a seed, and trackers refuse huge numbers.
    let left = if announce.left == u64::MAX { 1 } else { announce.left };
    // Writing to a string cannot fail.
    let _ = write!(
        url,
        "&port={}&uploaded={}&downloaded={}&left={left}&compact=1&numwant={}&key={:08x}",
        announce.port, announce.uploaded, announce.downloaded, announce.num_want, announce.key
    );
    if let Some(event) = announce.event {
        url.push_str(match event {
            Event::Started => "&event=started",
            Event::Stopped => "&event=stopped",
            Event::Completed => "&event=completed",
        });
    }
    if let Some(id) = &announce.tracker_id {
        url.push_str("&trackerid=");
        percent_encode(id, &mut url);
    }
    Ok(url)
}

/// RFC 3986: everything but unreserved characters as `%XX`.
fn percent_encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Reads a tracker's answer.
///
/// # Errors
/// [`TrackerError::Refused`] with the tracker's own words, or [`TrackerError::Malformed`].
pub fn parse(body: &[u8]) -> Result<Response, TrackerError> {
    let (doc, _) =
        Document::parse_prefix(body, Limits::NETWORK).map_err(|error| TrackerError::Malformed(error.to_string()))?;
    let root = doc.root();
    if !root.is_dict() {
        return Err(TrackerError::Malformed("not a dictionary".into()));
    }
    let bytes = |key: &[u8]| root.get(key).and_then(|value: Value<'_, '_>| value.as_bytes());
    let number = |key: &[u8]| root.get(key).and_then(|value| value.as_u64());
    let count = |key: &[u8]| number(key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    if let Some(reason) = bytes(b"failure reason") {
        return Err(TrackerError::Refused(clean_text(reason)));
    }
    let mut peers: Vec<SocketAddr> = Vec::new();
    match root.get(b"peers") {
        Some(value) if value.is_list() => {
            peers.extend(
                value
                    .items()
                    .into_iter()
                    .flatten()
                    .filter_map(dict_peer)
                    .take(MAX_PEERS),
            );
        }
        Some(value) => peers.extend(read_compact_v4(value.as_bytes().unwrap_or_default(), MAX_PEERS)),
        None => {}
    }
    peers.extend(read_compact_v6(
        bytes(b"peers6").unwrap_or_default(),
        MAX_PEERS.saturating_sub(peers.len()),
    ));
    Ok(Response {
        interval: number(b"interval").map_or(DEFAULT_INTERVAL, interval),
        min_interval: number(b"min interval").map(interval),
        seeders: count(b"complete"),
        leechers: count(b"incomplete"),
        peers,
        warning: bytes(b"warning message").map(clean_text),
        tracker_id: bytes(b"tracker id").filter(|id| id.len() <= 256).map(<[u8]>::to_vec),
    })
}

/// A peer as BEP 3 first had it: a dictionary. Host names are not looked up; trackers see addresses.
fn dict_peer(peer: Value<'_, '_>) -> Option<SocketAddr> {
    let ip: IpAddr = peer.get(b"ip")?.as_str()?.parse().ok()?;
    let port = peer.get(b"port")?.as_u64().and_then(|port| u16::try_from(port).ok())?;
    (port != 0 && !ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{InfoHash, PeerId};

    fn announce() -> Announce {
        Announce {
            info_hash: InfoHash(*b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a"),
            peer_id: PeerId::new(b"-DN0100-", *b"abc ef/hi~kl"),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: Some(Event::Started),
            num_want: 50,
            key: 0xbeef,
            tracker_id: None,
        }
    }

    #[test]
    fn binary_values_are_percent_encoded() {
        let url = url("http://tracker.example:80/announce", &announce()).unwrap();
        assert_eq!(
            url,
            "http://tracker.example:80/announce?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
             &peer_id=-DN0100-abc%20ef%2Fhi~kl&port=6881&uploaded=1&downloaded=2&left=3&compact=1&numwant=50\
             &key=0000beef&event=started"
        );
    }

    #[test]
    fn a_query_that_is_there_is_kept() {
        let mut announce = announce();
        announce.event = None;
        announce.left = u64::MAX;
        announce.tracker_id = Some(b"a&b".to_vec());
        let got = url("https://t.example/a?pass=key#frag", &announce).unwrap();
        assert!(got.starts_with("https://t.example/a?pass=key&info_hash=%12"), "{got}");
        assert!(
            got.contains("&left=1&") && got.ends_with("&trackerid=a%26b") && !got.contains("event"),
            "{got}"
        );
        assert!(
            url("http://t/a?", &announce)
                .unwrap()
                .starts_with("http://t/a?info_hash=")
        );
        for bad in [
            "udp://t:1/a",
            "file:///etc/passwd",
            "http://t/a b",
            "http://t/\r\nHost: x",
            "",
        ] {
            assert!(matches!(url(bad, &announce), Err(TrackerError::BadUrl(_))), "{bad}");
        }
    }

    #[test]
    fn compact_and_ipv6_peers() {
        let mut body = b"d8:completei5e10:incompletei7e8:intervali900e12:min intervali1e5:peers18:".to_vec();
        body.extend([127, 0, 0, 1, 0x1a, 0xe1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
        body.extend(b"6:peers618:");
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe1]);
        body.extend(b"15:warning message4:slowe");
        let response = parse(&body).unwrap();
        assert_eq!(
            response.peers,
            ["127.0.0.1:6881".parse().unwrap(), "[::1]:6881".parse().unwrap()]
        );
        assert_eq!((response.seeders, response.leechers), (Some(5), Some(7)));
        assert_eq!(response.interval, Duration::from_secs(900));
        assert_eq!(
            response.min_interval,
            Some(Duration::from_secs(30)),
            "too eager a tracker is slowed"
        );
        assert_eq!(response.warning.as_deref(), Some("slow"));
    }

    #[test]
    fn dictionary_peers_failures_and_rubbish() {
        let body = b"d8:intervali99999999e5:peersld2:ip9:127.0.0.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881ee\
            d2:ip11:example.com4:porti1eed2:ip3:::14:porti70000eeee";
        let response = parse(body).unwrap();
        assert_eq!(response.peers, ["127.0.0.1:6881".parse().unwrap()]);
        assert_eq!(response.interval, Duration::from_secs(86_400));
        let refused = parse(b"d14:failure reason9:not\nfounde").unwrap_err();
        assert_eq!(refused, TrackerError::Refused("notfound".into()));
        assert!(matches!(parse(b"<html>"), Err(TrackerError::Malformed(_))));
        assert!(matches!(parse(b"le"), Err(TrackerError::Malformed(_))));
        assert!(parse(b"de").unwrap().peers.is_empty());
    }
}
