//! Random bytes against both trackers' decoders.

use dunlin_peer::Now;
use rand::{Rng, SeedableRng};

use super::udp::{Exchange, Step};
use super::{Announce, http};
use crate::{InfoHash, PeerId};

#[test]
fn random_answers_never_panic() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(6);
    let good = [
        &b"d8:completei5e8:intervali900e5:peersld2:ip9:127.0.0.14:porti1eee6:peers66:abcdefe"[..],
        b"d14:failure reason4:nope8:intervali900e5:peers12:abcdefghijkl10:tracker id2:iie",
    ];
    let announce = Announce {
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([0; 20]),
        port: 1,
        uploaded: 0,
        downloaded: 0,
        left: u64::MAX,
        event: None,
        num_want: u32::MAX,
        key: 0,
        tracker_id: None,
    };
    for _ in 0..50_000 {
        let mut bytes = good[rng.random_range(0..2)].to_vec();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = b"dlei0123456789:-\xff"[rng.random_range(0..17)];
        }
        let _ = http::parse(&bytes);

        let mut exchange = Exchange::new(announce.clone(), "/x".repeat(200), rng.random(), rng.random(), 9);
        let mut now = Now::from_unix_secs(rng.random_range(0..1 << 40));
        for _ in 0..6 {
            match exchange.poll(now) {
                Step::Send(sent) => {
                    let at = if sent.len() == 16 { 12 } else { 12.min(sent.len() - 4) };
                    let mut answer = rng.random_range(0..4u32).to_be_bytes().to_vec();
                    answer.extend(&sent[at..at + 4]);
                    answer.extend((0..rng.random_range(0..60)).map(|_| rng.random::<u8>()));
                    let _ = exchange.receive(now, &answer);
                    answer.truncate(rng.random_range(0..answer.len()));
                    let _ = exchange.receive(now, &answer);
                }
                Step::Wait(until) => now = until,
                Step::GiveUp => break,
            }
        }
    }
}
