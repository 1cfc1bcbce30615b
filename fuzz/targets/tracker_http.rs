//! The answers of HTTP trackers, and tracker addresses as torrents name them.
#![no_main]

use dunlin_torrent::tracker::{Announce, Event, http, udp};
use dunlin_torrent::{InfoHash, PeerId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(response) = http::parse(data) {
        assert!((30..=86_400).contains(&response.interval.as_secs()));
        assert!(response.peers.len() <= 2000);
        assert!(response.peers.iter().all(|addr| addr.port() != 0));
    }
    let announce = Announce {
        info_hash: InfoHash([0xfe; 20]),
        peer_id: PeerId(*b"-DN0100-abcdefghijkl"),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: u64::MAX,
        event: Some(Event::Started),
        num_want: 80,
        key: 7,
        tracker_id: Some(data.iter().copied().take(64).collect()),
    };
    let base = String::from_utf8_lossy(data);
    if let Ok(url) = http::url(&base, &announce) {
        assert!(!url.contains(|c: char| c.is_control() || c.is_whitespace()));
    }
    if let Ok((host, port, _)) = udp::parse_url(&base) {
        assert!(!host.is_empty() && port != 0);
    }
});
