//! Peers that lie, flood and break the rules.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{DisconnectCause, LinkId};
use dunlin_torrent::command::{Event, Source};
use dunlin_torrent::wire::{Block, ExtHandshake, ExtensionIds, Handshake, Message, Metadata, Reserved};
use dunlin_torrent::{Magnet, PeerId};

use crate::bed::{Bed, NodeId, Torrent};

const MIB: usize = 1 << 20;

fn banned(bed: &Bed, node: NodeId) -> Vec<SocketAddr> {
    bed.nodes[node]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::PeerBanned { addr, .. } => Some(*addr),
            _ => None,
        })
        .collect()
}

fn corrupt(msg: &mut Message, which: impl Fn(u32, u32) -> bool) {
    if let Message::Piece { piece, begin, data } = msg
        && which(*piece, *begin)
    {
        let mut bytes = data.to_vec();
        bytes[7] ^= 0x40;
        *data = Bytes::from(bytes);
    }
}

#[test]
fn a_seed_that_sends_only_rubbish_is_banned_and_the_rest_goes_on() {
    let torrent = Torrent::new(8 * MIB, 64 << 10, 31);
    let mut bed = Bed::new();
    let honest = bed.seed(1 << 20, &torrent);
    let liar = bed.seed(4 << 20, &torrent);
    bed.nodes[liar].mangle = Some(Box::new(|msg| {
        corrupt(msg, |_, _| true);
        true
    }));
    let leechers = [bed.leech(1 << 20, &torrent), bed.leech(1 << 20, &torrent)];
    bed.run_until_all_complete(&leechers, Duration::from_secs(200));
    for node in leechers {
        bed.assert_content(node, &torrent);
        let banned = banned(&bed, node);
        assert!(
            banned.iter().any(|addr| addr.ip() == bed.nodes[liar].addr.ip()),
            "{banned:?}"
        );
        assert!(
            banned.iter().all(|addr| addr.ip() != bed.nodes[honest].addr.ip()),
            "{banned:?}"
        );
        assert!(
            bed.nodes[node]
                .events
                .iter()
                .any(|event| matches!(event, Event::PieceFailed { .. }))
        );
    }
    assert_eq!(bed.links_of(liar), 0);
}

#[test]
fn one_bad_block_among_many_senders_is_traced_to_its_sender() {
    // Large pieces, so that every piece is put together from several peers.
    let torrent = Torrent::new(16 * MIB, MIB, 32);
    let mut bed = Bed::new();
    let honest: Vec<_> = (0..4).map(|_| bed.seed(300 << 10, &torrent)).collect();
    let liar = bed.seed(300 << 10, &torrent);
    bed.nodes[liar].mangle = Some(Box::new(|msg| {
        corrupt(msg, |piece, begin| piece % 2 == 0 && begin / 16_384 % 3 == 0);
        true
    }));
    let leecher = bed.node(1 << 20);
    bed.reconfigure(leecher, |config| config.limits.pipeline = 16);
    bed.add(leecher, torrent.source(), |_| {});
    bed.run_until_all_complete(&[leecher], Duration::from_secs(400));
    bed.assert_content(leecher, &torrent);
    let mixed = bed.nodes[leecher]
        .events
        .iter()
        .any(|event| matches!(event, Event::PieceFailed { from, .. } if from.len() > 1));
    assert!(mixed, "some bad piece came from several peers");
    let banned = banned(&bed, leecher);
    assert_eq!(banned.len(), 1, "{banned:?}");
    assert_eq!(banned[0].ip(), bed.nodes[liar].addr.ip());
    assert!(honest.iter().all(|&node| banned[0].ip() != bed.nodes[node].addr.ip()));
}

#[test]
fn metadata_lies_do_not_stop_a_magnet_link() {
    let torrent = Torrent::new(4 * MIB, 16 << 10, 33);
    let mut bed = Bed::new();
    let honest = bed.seed(1 << 20, &torrent);
    let (wrong, huge) = (bed.seed(1 << 20, &torrent), bed.seed(1 << 20, &torrent));
    bed.nodes[wrong].mangle = Some(Box::new(|msg| {
        if let Message::Metadata(Metadata::Data { data, .. }) = msg {
            *data = Bytes::from(vec![b'x'; data.len()]);
        }
        true
    }));
    bed.nodes[huge].mangle = Some(Box::new(|msg| {
        if let Message::ExtHandshake(handshake) = msg {
            handshake.metadata_size = Some(u32::MAX);
        }
        true
    }));
    let peers: Vec<SocketAddr> = [wrong, huge, honest].iter().map(|&node| bed.nodes[node].addr).collect();
    let leecher = bed.node(1 << 20);
    bed.add(leecher, Source::Magnet(Magnet::new(torrent.info_hash())), |add| {
        add.peers = peers
    });
    bed.run_until_all_complete(&[leecher], Duration::from_secs(120));
    bed.assert_content(leecher, &torrent);
    assert!(
        banned(&bed, leecher)
            .iter()
            .all(|addr| addr.ip() == bed.nodes[wrong].addr.ip())
    );
}

/// A leecher, and a puppet that has shaken hands with it and claims to have everything.
fn puppet_bed(torrent: &Torrent) -> (Bed, NodeId, NodeId, LinkId) {
    let mut bed = Bed::new();
    let node = bed.leech(10 << 20, torrent);
    bed.run_for(Duration::from_secs(1));
    let puppet = bed.puppet();
    let link = bed.puppet_dials(puppet, node);
    let handshake = Handshake {
        reserved: Reserved::OURS,
        info_hash: torrent.info_hash(),
        peer_id: PeerId(*b"-XX0001-puppetpuppet"),
    };
    bed.puppet_says(puppet, link, Message::Handshake(handshake));
    bed.run_for(Duration::from_secs(1));
    assert!(bed.is_open(link));
    (bed, node, puppet, link)
}

fn ended_with(bed: &Bed, node: NodeId, text: &str) -> bool {
    bed.nodes[node].ended.iter().any(|cause| match cause {
        DisconnectCause::Ours(reason) => reason.fault && reason.text.contains(text),
        DisconnectCause::Codec(error) => error.contains(text),
        _ => false,
    })
}

#[test]
fn broken_rules_end_the_link_with_a_named_reason() {
    let torrent = Torrent::new(2 * MIB, 64 << 10, 34);
    let pieces = torrent.meta.piece_count();
    let block = |piece, begin, len| Block { piece, begin, len };
    let bad: Vec<(&str, Vec<Message>)> = vec![
        ("does not exist", vec![Message::Have(pieces)]),
        ("does not exist", vec![Message::Have(u32::MAX)]),
        ("wrong size", vec![Message::Bitfield(Bytes::from_static(&[0xff; 3]))]),
        ("wrong size", vec![Message::Bitfield(Bytes::from_static(&[0xff; 5000]))]),
        ("second bitfield", vec![Message::HaveAll, Message::HaveNone]),
        ("do not exist", vec![Message::Request(block(pieces, 0, 16_384))]),
        ("do not exist", vec![Message::Request(block(0, u32::MAX, 16_384))]),
        ("request for", vec![Message::Request(block(0, 0, 1 << 20))]),
        (
            "nobody asked for",
            vec![
                Message::Piece {
                    piece: 0,
                    begin: 0,
                    data: Bytes::from_static(&[0; 16_384])
                };
                40
            ],
        ),
    ];
    for (text, messages) in bad {
        let (mut bed, node, puppet, link) = puppet_bed(&torrent);
        for msg in messages {
            bed.puppet_says(puppet, link, msg);
        }
        bed.run_for(Duration::from_secs(3));
        assert!(ended_with(&bed, node, text), "{text}: {:?}", bed.nodes[node].ended);
        assert!(!bed.is_open(link));
    }
}

#[test]
fn odd_but_harmless_messages_are_survived() {
    let torrent = Torrent::new(2 * MIB, 64 << 10, 35);
    let (mut bed, node, puppet, link) = puppet_bed(&torrent);
    let block = Block {
        piece: 0,
        begin: 0,
        len: 16_384,
    };
    let ext = ExtHandshake {
        ids: ExtensionIds::OURS,
        request_queue: Some(0),
        metadata_size: Some(u32::MAX),
        port: Some(1),
        ..ExtHandshake::default()
    };
    let odd = [
        Message::ExtHandshake(ext.clone()),
        Message::ExtHandshake(ext),
        Message::Metadata(Metadata::Request { piece: u32::MAX }),
        Message::Metadata(Metadata::Data {
            piece: 9,
            total_size: 1,
            data: Bytes::new(),
        }),
        Message::Metadata(Metadata::Reject { piece: 9 }),
        Message::Port(6881),
        Message::Suggest(u32::MAX),
        Message::AllowedFast(u32::MAX),
        Message::AllowedFast(1),
        Message::Reject(block),
        Message::Cancel(block),
        Message::Request(block),
        Message::DontHave(u32::MAX),
        Message::Choke,
        Message::Unchoke,
        Message::Unchoke,
        Message::Interested,
        Message::NotInterested,
        Message::KeepAlive,
        Message::HaveAll,
        Message::DontHave(3),
        Message::DontHave(3),
        Message::Have(3),
    ];
    for msg in odd {
        bed.puppet_says(puppet, link, msg);
    }
    bed.run_for(Duration::from_secs(3));
    assert!(bed.is_open(link), "{:?}", bed.nodes[node].ended);
    let rejected = bed.nodes[puppet]
        .inbox
        .iter()
        .any(|(_, msg)| *msg == Message::Reject(block));
    assert!(rejected, "with the fast extension every request is answered");
    assert!(bed.status(node).availability.iter().all(|&count| count == 1));
}

#[test]
fn who_does_not_shake_hands_or_falls_silent_is_dropped() {
    let torrent = Torrent::new(MIB, 64 << 10, 36);
    let mut bed = Bed::new();
    let node = bed.leech(1 << 20, &torrent);
    bed.run_for(Duration::from_secs(1));
    let puppet = bed.puppet();
    let mute = bed.puppet_dials(puppet, node);
    let other = bed.puppet_dials(puppet, node);
    bed.puppet_sends_bytes(other, b"GET / HTTP/1.1\r\n\r\n");
    bed.run_for(Duration::from_secs(1));
    assert!(!bed.is_open(other), "not our protocol");
    assert!(bed.is_open(mute));
    bed.run_for(Duration::from_secs(12));
    assert!(!bed.is_open(mute), "no handshake in time");

    let (mut bed, node, puppet, link) = puppet_bed(&torrent);
    bed.run_for(Duration::from_secs(150));
    assert!(bed.is_open(link));
    let alive = bed.nodes[puppet]
        .inbox
        .iter()
        .any(|(_, msg)| *msg == Message::KeepAlive);
    assert!(alive, "we keep the link alive");
    bed.run_for(Duration::from_secs(60));
    assert!(!bed.is_open(link), "silent for three minutes");
    assert_eq!(bed.status(node).peers.len(), 0);
}

#[test]
fn a_peer_that_takes_requests_and_sends_nothing_is_snubbed_and_others_serve() {
    let torrent = Torrent::new(2 * MIB, 64 << 10, 37);
    let (mut bed, node, puppet, link) = puppet_bed(&torrent);
    bed.puppet_says(puppet, link, Message::HaveAll);
    bed.puppet_says(puppet, link, Message::Unchoke);
    bed.run_for(Duration::from_secs(5));
    let asked = bed.nodes[puppet]
        .inbox
        .iter()
        .filter(|(_, msg)| matches!(msg, Message::Request(_)))
        .count();
    assert_eq!(asked, 64, "a fresh peer is asked for a mebibyte");
    // Keep-alives keep the link, nothing else comes.
    for _ in 0..3 {
        bed.run_for(Duration::from_secs(25));
        bed.puppet_says(puppet, link, Message::KeepAlive);
    }
    assert!(bed.status(node).peers[0].flags.snubbed);
    assert!(bed.status(node).peers[0].requests <= 1);
    bed.seed(1 << 20, &torrent);
    bed.run_until_all_complete(&[node], Duration::from_secs(120));
    bed.assert_content(node, &torrent);
}

#[test]
fn a_flood_of_requests_is_bounded_by_our_queue() {
    let torrent = Torrent::new(4 * MIB, 64 << 10, 38);
    let mut bed = Bed::new();
    let seed = bed.seed(64 << 10, &torrent);
    bed.run_for(Duration::from_secs(1));
    let puppet = bed.puppet();
    let link = bed.puppet_dials(puppet, seed);
    let handshake = Handshake {
        reserved: Reserved::OURS,
        info_hash: torrent.info_hash(),
        peer_id: PeerId(*b"-XX0001-puppetpuppet"),
    };
    bed.puppet_says(puppet, link, Message::Handshake(handshake));
    bed.puppet_says(puppet, link, Message::HaveNone);
    bed.puppet_says(puppet, link, Message::Interested);
    bed.run_for(Duration::from_secs(2));
    for round in 0..4_000u32 {
        let block = Block {
            piece: round % 64,
            begin: 0,
            len: 16_384,
        };
        bed.puppet_says(puppet, link, Message::Request(block));
    }
    bed.run_for(Duration::from_secs(4));
    let refused = bed.nodes[seed].sent.get("Reject").copied().unwrap_or(0);
    assert!(refused > 1_000, "{refused} requests were refused");
}
