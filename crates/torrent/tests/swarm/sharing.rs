//! Everybody gets everything, quickly and fairly.

use std::time::Duration;

use dunlin_torrent::Magnet;
use dunlin_torrent::command::{Command, Event, Source};
use dunlin_torrent::status::State;
use dunlin_torrent::wire::Message;

use crate::bed::{Bed, Torrent};

const MIB: usize = 1 << 20;

#[test]
fn one_seed_and_five_leechers_all_complete() {
    let torrent = Torrent::new(24 * MIB + 12_345, 64 << 10, 1);
    let mut bed = Bed::new();
    let seed = bed.seed(2 << 20, &torrent);
    let leechers: Vec<_> = (0..5).map(|_| bed.leech(2 << 20, &torrent)).collect();
    let time = bed.run_until_all_complete(&leechers, Duration::from_secs(300));
    for &node in &leechers {
        bed.assert_content(node, &torrent);
        let status = bed.status(node);
        assert_eq!(status.state, State::Seeding);
        assert_eq!(status.done_bytes, torrent.content.len() as u64);
        assert!(
            status.wasted < torrent.content.len() as u64 / 20,
            "wasted {}",
            status.wasted
        );
    }
    // The seed alone would take a minute for five copies; together they share the work.
    assert!(time < Duration::from_secs(40), "{time:?}");
    let copies = bed.status(seed).uploaded as f64 / torrent.content.len() as f64;
    assert!(copies < 2.5, "the seed sent {copies} copies");
    // Seeds among themselves part.
    bed.run_for(Duration::from_secs(5));
    assert_eq!(bed.links_of(seed), 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let torrent = Torrent::new(3 * MIB, 32 << 10, 2);
        let mut bed = Bed::new();
        bed.seed(1 << 20, &torrent);
        let leechers: Vec<_> = (0..4).map(|_| bed.leech(1 << 20, &torrent)).collect();
        let time = bed.run_until_all_complete(&leechers, Duration::from_secs(100));
        use sha1::Digest;
        (time, bed.trace.clone().finalize())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_magnet_link_is_enough() {
    // Enough pieces for an info dictionary of several metadata pieces.
    let torrent = Torrent::new(48 * MIB, 16 << 10, 3);
    assert!(torrent.meta.raw_info.len() > 3 * 16_384);
    let mut bed = Bed::new();
    let seed = bed.seed(20 << 20, &torrent);
    let seed_addr = bed.nodes[seed].addr;
    let leecher = bed.node(20 << 20);
    let magnet: Magnet = format!("magnet:?xt=urn:btih:{}&dn=name&x.pe={seed_addr}", torrent.info_hash())
        .parse()
        .unwrap();
    bed.add(leecher, Source::Magnet(magnet), |_| {});
    assert_eq!(bed.status(leecher).state, State::Metadata);
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
    bed.assert_content(leecher, &torrent);
    let received = bed.nodes[leecher].events.iter().any(
        |event| matches!(event, Event::MetadataReceived { metainfo, .. } if metainfo.raw_info == torrent.meta.raw_info),
    );
    assert!(received);
    assert_eq!(bed.status(leecher).name, "content");

    // After a restart the info dictionary is there without any peer.
    bed.command(leecher, Command::Stop);
    bed.run_for(Duration::from_secs(2));
    bed.kill(seed);
    bed.kill(leecher);
    bed.restart(leecher);
    bed.run_for(Duration::from_secs(2));
    assert_eq!(bed.status(leecher).state, State::Seeding);
}

#[test]
fn magnet_peers_pass_the_metadata_on() {
    let torrent = Torrent::new(2 * MIB, 16 << 10, 4);
    let mut bed = Bed::new();
    let seed = bed.seed(4 << 20, &torrent);
    let mut chain = vec![seed];
    // Each knows only the one before it, and none of them has more than the link.
    for _ in 0..3 {
        let node = bed.node(4 << 20);
        let before = bed.nodes[*chain.last().unwrap()].addr;
        bed.add(node, Source::Magnet(Magnet::new(torrent.info_hash())), |add| {
            add.peers.push(before)
        });
        chain.push(node);
    }
    bed.run_until_all_complete(&chain[1..], Duration::from_secs(120));
    for &node in &chain[1..] {
        bed.assert_content(node, &torrent);
    }
}

#[test]
fn a_seed_that_leaves_after_little_more_than_one_copy_leaves_a_whole_copy_behind() {
    let torrent = Torrent::new(64 * MIB, 16 << 10, 5);
    let mut bed = Bed::new();
    let seed = bed.seed(2 << 20, &torrent);
    let leechers: Vec<_> = (0..5).map(|_| bed.node(1 << 20)).collect();
    for &node in &leechers {
        // Few pieces under way at once, as with a torrent many times this size: two who fetch the same rare piece at
        // the same time cannot know it.
        bed.reconfigure(node, |config| config.limits.pipeline = 3);
        bed.add(node, torrent.source(), |_| {});
    }
    let enough = torrent.content.len() as u64 * 105 / 100;
    bed.run_until(Duration::from_secs(300), |bed| bed.status(seed).uploaded >= enough);
    bed.kill(seed);
    assert!(
        leechers.iter().all(|&node| !bed.completed(node)),
        "nobody has everything yet"
    );
    bed.run_until_all_complete(&leechers, Duration::from_secs(300));
    for &node in &leechers {
        bed.assert_content(node, &torrent);
    }
}

#[test]
fn the_end_game_does_not_wait_for_the_slowest() {
    let torrent = Torrent::new(4 * MIB, 64 << 10, 6);
    let mut bed = Bed::new();
    bed.seed(4 << 20, &torrent);
    // It holds the requests that it got for many minutes.
    bed.seed(2 << 10, &torrent);
    let leecher = bed.leech(1 << 20, &torrent);
    let time = bed.run_until_all_complete(&[leecher], Duration::from_secs(120));
    bed.assert_content(leecher, &torrent);
    assert!(time < Duration::from_secs(15), "{time:?}");
    assert!(bed.nodes[leecher].sent.get("Cancel").copied().unwrap_or(0) > 0);
}

#[test]
fn who_gives_nothing_gets_less() {
    let torrent = Torrent::new(48 * MIB, 64 << 10, 7);
    let mut bed = Bed::new();
    // Each has another half of the torrent, so that there is always something to trade and uplinks are what is scarce.
    let honest: Vec<_> = (0..8).map(|_| bed.node(512 << 10)).collect();
    let rider = bed.node(512 << 10);
    // It never unchokes anybody and grants no allowed-fast pieces either.
    bed.nodes[rider].mangle = Some(Box::new(|msg| {
        !matches!(msg, Message::Unchoke | Message::AllowedFast(_))
    }));
    for (&node, number) in honest.iter().chain([&rider]).zip(0u32..) {
        bed.reconfigure(node, |config| config.limits.unchoke_slots = 4);
        let half =
            |piece: u32| piece % 8 == number || (piece.wrapping_mul(2_654_435_761) >> (number + 8)).is_multiple_of(2);
        bed.place_pieces(node, &torrent, half);
        bed.add(node, torrent.source(), |_| {});
    }
    // In the first rounds nobody knows yet who gives.
    bed.run_for(Duration::from_secs(30));
    let early: Vec<u64> = (0..=rider).map(|node| bed.status(node).downloaded).collect();
    bed.run_until(Duration::from_secs(900), |bed| {
        honest.iter().any(|&node| bed.completed(node))
    });
    let since = |node: usize| bed.status(node).downloaded - early[node];
    let mean = honest.iter().map(|&node| since(node)).sum::<u64>() / honest.len() as u64;
    let got = since(rider);
    assert!(
        got * 10 < mean * 7,
        "the free rider got {got}, the others {mean} on average"
    );
    assert_eq!(bed.status(rider).uploaded, 0);
    // It is not starved for ever: once there are seeds it gets its turn.
    bed.run_until_all_complete(&[rider], Duration::from_secs(900));
    bed.assert_content(rider, &torrent);
}

#[test]
fn sequential_fetching_runs_from_the_front() {
    let torrent = Torrent::new(8 * MIB, 64 << 10, 8);
    let mut bed = Bed::new();
    bed.seed(1 << 20, &torrent);
    let leecher = bed.node(1 << 20);
    bed.add(leecher, torrent.source(), |add| add.sequential = true);
    bed.run_until(Duration::from_secs(60), |bed| bed.status(leecher).pieces_done >= 40);
    let status = bed.status(leecher);
    let front = status.pieces.iter().take_while(|&&byte| byte == 0xff).count() * 8;
    assert!(
        front + 8 >= status.pieces_done as usize,
        "{front} of {} from the front",
        status.pieces_done
    );
}

#[test]
fn a_disk_that_cannot_keep_up_pauses_the_links() {
    let torrent = Torrent::new(16 * MIB, 256 << 10, 9);
    let mut bed = Bed::new();
    bed.seed(200 << 20, &torrent);
    let leecher = bed.node(1 << 20);
    bed.reconfigure(leecher, |config| config.limits.dirty_bytes = 1 << 20);
    bed.nodes[leecher].disk_time = Duration::from_millis(200);
    bed.add(leecher, torrent.source(), |_| {});
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
    bed.assert_content(leecher, &torrent);
    assert!(bed.nodes[leecher].pauses > 0);
}
