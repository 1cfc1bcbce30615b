//! A node of the DHT among strangers that send what they like, answer its questions with what they like, or are silent.
#![no_main]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::Arbitrary;
use dunlin_peer::Now;
use dunlin_torrent::InfoHash;
use dunlin_torrent::dht::{Announce, Config, Dht, Saved};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes from one of a few addresses.
    Datagram {
        from: u8,
        bytes: Vec<u8>,
    },
    /// The oldest question gets an answer: the question's transaction and these bytes for the rest.
    Answer {
        body: Vec<u8>,
    },
    /// Time passes.
    Wait {
        secs: u16,
    },
    /// The program asks for something.
    FindPeers {
        info_hash: u8,
        announce: bool,
    },
    Get {
        target: u8,
    },
    Put {
        value: u8,
    },
}

fn addr(n: u8) -> SocketAddr {
    if n.is_multiple_of(4) {
        SocketAddr::from(([0x2001, 0, 0, 0, 0, 0, 0, u16::from(n)], 6881))
    } else {
        SocketAddr::from(([8, n, 8, 8], 6881))
    }
}

/// The transaction of a message of ours: two bytes after `1:t2:`.
fn transaction(message: &[u8]) -> Option<[u8; 2]> {
    let at = message.windows(5).rposition(|window| window == b"1:t2:")?;
    message.get(at + 5..at + 7)?.try_into().ok()
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = Now::from_unix_secs(1_800_000_000);
    let mut dht = Dht::new(&Config::default(), [1; 32], now);
    dht.meet(now, &[addr(1), addr(2), addr(4)]);
    let mut asked: VecDeque<(SocketAddr, [u8; 2])> = VecDeque::new();
    for step in steps {
        match step {
            Step::Datagram { from, bytes } => {
                drop(Saved::decode(&bytes));
                dht.receive(now, addr(from), &bytes);
            }
            Step::Answer { body } => {
                if let Some((to, number)) = asked.pop_front() {
                    let mut bytes = b"d1:r".to_vec();
                    bytes.extend(body);
                    bytes.extend(b"1:t2:");
                    bytes.extend(number);
                    bytes.extend(b"1:y1:re");
                    dht.receive(now, to, &bytes);
                }
            }
            Step::Wait { secs } => now = now + Duration::from_secs(secs.into()),
            Step::FindPeers { info_hash, announce } => {
                let announce = if announce { Announce::Port(1) } else { Announce::No };
                dht.find_peers(now, InfoHash([info_hash; 20]), announce);
            }
            Step::Get { target } => dht.get_mutable(now, 1, &[target; 32], b"salt"),
            Step::Put { value } => drop(dht.put(now, 2, vec![b'i', value % 10 + b'0', b'e'])),
        }
        dht.timeout(now);
        while let Some((to, bytes)) = dht.poll_datagram() {
            assert!(bytes.len() < 2_500, "a datagram of {} bytes", bytes.len());
            if let Some(number) = transaction(&bytes) {
                asked.push_back((to, number));
                asked.truncate(1_000);
            }
        }
        while dht.poll_event().is_some() {}
    }
});
