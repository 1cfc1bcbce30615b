//! A UDP announce against a tracker that answers what it likes, with the right transaction or a wrong one.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use dunlin_peer::Now;
use dunlin_torrent::tracker::udp::{Exchange, Step};
use dunlin_torrent::tracker::{Announce, Event};
use dunlin_torrent::{InfoHash, PeerId};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    ipv6: bool,
    transaction: u32,
    max_tries: u32,
    url_data: String,
    left: u64,
    answers: Vec<Answer>,
}

#[derive(Arbitrary, Debug)]
enum Answer {
    /// Fits the latest datagram.
    Fitting { action: u8, body: Vec<u8> },
    /// Anything.
    Stray(Vec<u8>),
    /// Time passes.
    Silence { secs: u16 },
}

fuzz_target!(|input: Input| {
    let announce = Announce {
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: input.left,
        event: Some(Event::Completed),
        num_want: u32::MAX,
        key: 3,
        tracker_id: None,
    };
    let mut exchange = Exchange::new(announce, input.url_data, input.ipv6, input.transaction, input.max_tries);
    let mut now = Now::from_unix_secs(1_800_000_000);
    let mut latest = [0; 4];
    for answer in input.answers {
        let mut sent = 0;
        let wait = loop {
            match exchange.poll(now) {
                Step::Send(datagram) => {
                    sent += 1;
                    assert!(sent == 1, "one datagram, then patience");
                    let at = if datagram.len() == 16 || datagram.len() >= 98 {
                        12
                    } else {
                        unreachable!()
                    };
                    latest.copy_from_slice(&datagram[at..at + 4]);
                }
                Step::Wait(until) => break until,
                Step::GiveUp => return,
            }
        };
        assert!(wait > now);
        match answer {
            Answer::Fitting { action, body } => {
                let mut datagram = vec![0, 0, 0, action % 5];
                datagram.extend(latest);
                datagram.extend(body);
                match exchange.receive(now, &datagram) {
                    Some(Ok(response)) => {
                        assert!(response.peers.len() <= 2000);
                        assert!((30..=86_400).contains(&response.interval.as_secs()));
                        return;
                    }
                    Some(Err(_)) => return,
                    None => {}
                }
            }
            Answer::Stray(datagram) => {
                if let Some(result) = exchange.receive(now, &datagram) {
                    assert_eq!(datagram[4..8], latest, "{result:?} from somebody else");
                    return;
                }
            }
            Answer::Silence { secs } => now = now + Duration::from_secs(secs.into()),
        }
    }
});
