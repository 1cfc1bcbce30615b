//! Garbage, floods and lies: bounded, and without harm to others.
#![allow(clippy::unwrap_used)]

mod bed;

use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Txid, Wtxid};
use dunlin_peer::Codec as _;
use dunlin_peer::Host;
use dunlin_relay::{Locator, Message, PeerAddr, Version};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);

fn bed() -> Bed {
    let blocks = money::chain_of(20, START - 60, &[]);
    let mut bed = Bed::new();
    let n = bed.member();
    bed.preload(n, &blocks);
    bed
}

/// A good peer still gets its block through.
fn still_works(bed: &mut Bed) {
    let good = bed.hand_at(0, "99.1.2.3:4".parse().unwrap());
    let block = money::next_block(&bed.members[0], bed.now, Vec::new());
    let hash = block.block_hash();
    bed.say(good, Message::Headers(vec![block.header]));
    bed.run(SECOND);
    bed.say(
        good,
        Message::RawBlock(dunlin_chain::ParsedBlock::from_block(block).raw.clone()),
    );
    bed.run(SECOND);
    assert_eq!(bed.members[0].tip(), hash);
}

fn random_message(rng: &mut ChaCha8Rng, bed: &Bed) -> Message {
    let known: Vec<BlockHash> = (0..20)
        .filter_map(|height| bed.members[0].view().hash_at(height))
        .collect();
    let mut hash = [0; 32];
    rng.fill_bytes(&mut hash);
    let block = if rng.random_bool(0.5) {
        known[rng.random_range(0..known.len())]
    } else {
        BlockHash::from_byte_array(hash)
    };
    let item = |rng: &mut ChaCha8Rng| match rng.random_range(0..7) {
        0 => Inventory::Block(block),
        1 => Inventory::WitnessBlock(block),
        2 => Inventory::WTx(Wtxid::from_byte_array(hash)),
        3 => Inventory::Transaction(Txid::from_byte_array(hash)),
        4 => Inventory::CompactBlock(block),
        5 => Inventory::WitnessTransaction(Txid::from_byte_array(hash)),
        _ => Inventory::Unknown { inv_type: 99, hash },
    };
    let items: Vec<Inventory> = (0..rng.random_range(0..20)).map(|_| item(rng)).collect();
    let locator = Locator {
        hashes: vec![block; rng.random_range(0..5)],
        stop: block,
    };
    let address = PeerAddr {
        time: rng.random(),
        services: rng.random(),
        host: Host::Ip(rng.random::<[u8; 4]>().into()),
        port: rng.random(),
    };
    let entry = bed.members[0]
        .view()
        .entry(&known[rng.random_range(0..known.len())])
        .unwrap();
    let genesis = bed.members[0].view().params().genesis.clone();
    match rng.random_range(0..20) {
        0 => Message::Version(Box::new(Version {
            version: rng.random(),
            services: rng.random(),
            timestamp: rng.random(),
            receiver: "1.2.3.4:5".parse().unwrap(),
            receiver_services: 0,
            nonce: rng.random(),
            user_agent: String::new(),
            start_height: rng.random(),
            relay: rng.random(),
        })),
        1 => Message::Verack,
        2 => Message::SendHeaders,
        3 => Message::FeeFilter(rng.random()),
        4 => Message::Ping(rng.random()),
        5 => Message::Pong(rng.random()),
        6 => Message::GetAddr,
        7 => Message::Addr(vec![address; rng.random_range(0..20)]),
        8 => Message::AddrV2(vec![address; rng.random_range(0..20)]),
        9 => Message::Inv(items),
        10 => Message::GetData(items),
        11 => Message::NotFound(items),
        12 => Message::GetHeaders(locator),
        13 => Message::GetBlocks(locator),
        14 => Message::Headers(vec![entry.header]),
        15 => Message::Headers(Vec::new()),
        16 => Message::Tx {
            tx: Arc::new(genesis.txdata[0].clone()),
            witness: true,
        },
        17 => Message::RawBlock(dunlin_chain::ParsedBlock::from_block(genesis).raw.clone()),
        18 => Message::Mempool,
        _ => Message::GetAddr,
    }
}

#[test]
fn random_sequences_of_messages_do_no_harm() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut bed = bed();
    for round in 0..60 {
        let hand = bed.hands.len();
        let addr = format!("70.{}.{}.1:5000", round / 200, round % 200).parse().unwrap();
        if round % 3 == 0 {
            // Without a proper handshake.
            bed.hand_at(0, addr);
        } else {
            assert_eq!(bed.hand_at(0, addr), hand);
        }
        for _ in 0..200 {
            let msg = random_message(&mut rng, &bed);
            bed.say(hand, msg);
            if rng.random_bool(0.05) {
                bed.run(Duration::from_millis(rng.random_range(0..3_000)));
            }
            bed.heard(hand);
        }
        bed.run(SECOND);
    }
    still_works(&mut bed);
}

#[test]
fn bytes_that_are_no_messages_close_the_link_without_blaming_the_address() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut bed = bed();
    for _ in 0..20 {
        let hand = bed.hand_at(0, "80.1.1.1:5".parse().unwrap());
        assert!(
            !bed.hands[hand].closed,
            "a peer that tries another transport first is not refused"
        );
        let mut bytes = vec![0; 500];
        rng.fill_bytes(&mut bytes);
        bed.say_bytes(hand, bytes);
        bed.run(SECOND);
        assert!(bed.hands[hand].closed);
    }
    still_works(&mut bed);
}

#[test]
fn malformed_payloads_are_named_and_punished() {
    let mut bed = bed();
    let hand = bed.hand(0);
    let mut out = dunlin_peer::SendBuf::default();
    // A transaction message with the payload of a ping.
    let magic = bed.members[0].view().params().magic;
    dunlin_relay::Codec::new(magic).encode(&Message::Ping(u64::MAX), &mut out);
    let mut bytes = out.to_vec();
    bytes[4..16].copy_from_slice(b"inv\0\0\0\0\0\0\0\0\0");
    bed.say_bytes(hand, bytes);
    bed.run(SECOND);
    assert!(bed.hands[hand].closed);
    let found = bed.misbehaviours(0);
    assert!(found[0].0.starts_with("malformed inv"), "{found:?}");
    assert!(found[0].1);
    still_works(&mut bed);
}

#[test]
fn nothing_is_done_for_a_peer_before_the_handshake_and_then_it_must_come() {
    let mut bed = bed();
    let hand = bed.hands.len();
    bed.hand_at(0, "81.1.1.1:5".parse().unwrap());
    bed.heard(hand);
    bed.say(hand, Message::WtxidRelay);
    bed.run(SECOND);
    assert!(bed.hands[hand].closed, "too late to agree on wtxid relay");
    // Somebody who only opens a link is thrown out after a minute.
    let silent = bed.hands.len();
    bed.hands.push(Default::default());
    bed.connect_silently(silent, 0, "82.1.1.1:5".parse().unwrap());
    bed.say(silent, Message::GetAddr);
    bed.run(55 * SECOND);
    assert!(!bed.hands[silent].closed);
    assert!(bed.heard(silent).is_empty());
    bed.run(10 * SECOND);
    assert!(bed.hands[silent].closed);
}

#[test]
fn a_peer_that_stops_answering_pings_goes_after_twenty_minutes() {
    let mut bed = bed();
    let hand = bed.hand(0);
    bed.run(19 * 60 * SECOND);
    assert!(!bed.hands[hand].closed);
    bed.run(2 * 60 * SECOND);
    assert!(bed.hands[hand].closed);
}

#[test]
fn unsolicited_blocks_far_ahead_or_without_work_are_not_even_judged() {
    let mut bed = bed();
    let hand = bed.hand(0);
    // A branch from the genesis block with less work than the tip, and a block without a known parent.
    let branch = money::chain_of(10, START - 50_000, b"branch");
    for block in branch.iter().rev() {
        bed.say(hand, Message::RawBlock(block.raw.clone()));
    }
    bed.run(SECOND);
    let view = bed.members[0].view();
    assert!(branch.iter().all(|block| view.entry(&block.hash).is_none()));
    assert!(!bed.hands[hand].closed);
    still_works(&mut bed);
}

#[test]
fn asking_without_taking_is_bounded() {
    let mut bed = bed();
    let hand = bed.hand(0);
    let hash = bed.members[0].view().hash_at(3).unwrap();
    for _ in 0..10 {
        bed.say(hand, Message::GetData(vec![Inventory::WitnessBlock(hash); 50_000]));
    }
    bed.run(SECOND);
    // A batch is some thousands of these small blocks, and the bed never reports that the link has drained.
    assert!(bed.hands[hand].closed);
    assert!(bed.heard(hand).len() < 10_000);
    still_works(&mut bed);
}
