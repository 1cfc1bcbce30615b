//! Handshake, header and block sync, reorganisations, lost and stalling peers.
#![allow(clippy::unwrap_used)]

mod bed;

use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::ParsedBlock;
use dunlin_relay::{Command, Event, Kind, Message};

const HOUR: Duration = Duration::from_secs(3600);

/// Ends shortly before the bed starts, so that nobody is in the initial download after it.
fn chain(count: u32) -> Vec<Arc<ParsedBlock>> {
    money::chain_of(count, START - 60, &[])
}

#[test]
fn two_peers_shake_hands_and_know_each_other() {
    let mut bed = Bed::new();
    let (a, b) = (bed.member(), bed.member());
    bed.join(a, b);
    bed.run(Duration::from_secs(5));
    bed.command(a, Command::Peers { ticket: 7 });
    let peers = bed.members[a].events.iter().find_map(|event| match event {
        Event::Peers { ticket: 7, peers } => Some(peers.clone()),
        _ => None,
    });
    let peers = peers.unwrap();
    assert_eq!(peers.len(), 1);
    assert!(peers[0].ready && peers[0].kind == Kind::Manual && peers[0].wtxid_relay && peers[0].relay_tx);
    assert!(peers[0].user_agent.starts_with("/Dunlin:"));
    assert_eq!(peers[0].ping, Some(2 * bed::LATENCY));
    assert!(
        bed.members[b]
            .events
            .iter()
            .any(|event| matches!(event, Event::PeerReady { .. }))
    );
}

#[test]
fn three_hundred_blocks_come_from_whoever_was_dialled() {
    let blocks = chain(300);
    let mut bed = Bed::new();
    let (full, empty) = (bed.member(), bed.member());
    bed.preload(full, &blocks);
    bed.join(empty, full);
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() == 300));
    assert_eq!(bed.members[empty].tip(), blocks[299].hash);
    assert_eq!(bed.messages["block"], 300, "each block is sent once");
}

#[test]
fn three_hundred_blocks_come_from_whoever_dialled() {
    let blocks = chain(300);
    let mut bed = Bed::new();
    let (full, empty) = (bed.member(), bed.member());
    bed.preload(full, &blocks);
    bed.join(full, empty);
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() == 300));
}

#[test]
fn a_long_chain_needs_several_headers_messages_and_a_moving_window() {
    let blocks = chain(4_100);
    let mut bed = Bed::new();
    let full: Vec<usize> = (0..3).map(|_| bed.member()).collect();
    for n in &full {
        bed.preload(*n, &blocks);
    }
    let empty = bed.member();
    for n in &full {
        bed.join(empty, *n);
    }
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() == 4_100));
    assert!(
        bed.messages["block"] < 4_110,
        "{} blocks for 4100",
        bed.messages["block"]
    );
}

#[test]
fn losing_a_source_in_the_middle_does_not_stop_the_sync() {
    let blocks = chain(600);
    let mut bed = Bed::new();
    let full: Vec<usize> = (0..3).map(|_| bed.member()).collect();
    for n in &full {
        bed.preload(*n, &blocks);
    }
    let empty = bed.member();
    for n in &full {
        bed.join(empty, *n);
    }
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() > 100));
    bed.kill(full[0]);
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() > 300));
    bed.kill(full[1]);
    assert!(bed.run_until(HOUR, |bed| bed.members[empty].height() == 600));
}

#[test]
fn new_blocks_cross_a_ring() {
    let mut bed = Bed::new();
    let ring: Vec<usize> = (0..7).map(|_| bed.member()).collect();
    for n in 0..7 {
        bed.join(ring[n], ring[(n + 1) % 7]);
    }
    bed.run(Duration::from_secs(5));
    for n in [0, 3, 6, 1, 2] {
        let block = bed.mine(ring[n]);
        assert!(
            bed.run_until(Duration::from_secs(5), |bed| bed.agree(block.hash)),
            "block of {n}"
        );
    }
    assert!((0..7).all(|n| bed.members[n].height() == 5));
    assert!((0..7).all(|n| bed.misbehaviours(n).is_empty()));
}

#[test]
fn the_longer_branch_wins_and_transactions_come_back() {
    let base = chain(110);
    let mut bed = Bed::new();
    let (a, b) = (bed.member(), bed.member());
    bed.preload(a, &base);
    bed.preload(b, &base);
    // Each goes its own way: five blocks, one with a transaction, against ten.
    let (from, value) = money::reward(&base[0]);
    let tx = money::Wallet::new(1).spend(from, value, 1, money::FEE);
    let txid = tx.compute_txid();
    let with_tx = money::next_block(&bed.members[a], bed.now, vec![tx]);
    bed.submit(a, with_tx);
    for _ in 0..4 {
        bed.mine(a);
    }
    for _ in 0..10 {
        bed.mine(b);
    }
    assert_eq!((bed.members[a].height(), bed.members[b].height()), (115, 120));
    bed.join(a, b);
    let tip = bed.members[b].tip();
    assert!(bed.run_until(HOUR, |bed| bed.members[a].tip() == tip));
    let reorg = bed.members[a]
        .events
        .iter()
        .any(|event| matches!(event, Event::TipChanged { disconnected, .. } if *disconnected > 0));
    assert!(reorg);
    assert!(
        bed.members[a].engine.pool.read().unwrap().contains(&txid),
        "the lost block gave it back"
    );
    // And on: a further block of b is announced and followed.
    let block = bed.mine(b);
    assert!(bed.run_until(Duration::from_secs(5), |bed| bed.agree(block.hash)));
}

#[test]
fn a_peer_that_owes_blocks_and_does_not_send_them_is_gone_around() {
    let blocks = chain(200);
    let headers: Vec<_> = blocks.iter().map(|block| *block.header()).collect();
    let mut bed = Bed::new();
    let (full, empty) = (bed.member(), bed.member());
    bed.preload(full, &blocks);
    let liar = bed.hand(empty);
    bed.say(liar, Message::Headers(headers));
    bed.run(Duration::from_secs(1));
    let asked = bed.heard(liar).into_iter().filter_map(|msg| match msg {
        Message::GetData(items) => Some(items.len()),
        _ => None,
    });
    assert_eq!(asked.sum::<usize>(), 16, "as many as one peer may owe us");
    bed.join(empty, full);
    assert!(bed.run_until(Duration::from_secs(30), |bed| bed.members[empty].height() == 200));
}

#[test]
fn a_peer_that_keeps_the_window_from_moving_is_replaced() {
    let blocks = chain(1_300);
    let headers: Vec<_> = blocks.iter().map(|block| *block.header()).collect();
    let mut bed = Bed::new();
    let (full, empty) = (bed.member(), bed.member());
    bed.preload(full, &blocks);
    let liar = bed.hand(empty);
    bed.say(liar, Message::Headers(headers));
    bed.run(Duration::from_millis(100));
    bed.join(empty, full);
    assert!(bed.run_until(Duration::from_secs(120), |bed| bed.members[empty].height() == 1_300));
}

#[test]
fn a_silent_sync_peer_does_not_keep_us_from_asking_another() {
    // An old chain: nobody leaves the initial download, so only one peer at a time is asked for headers.
    let blocks = money::chain_of(50, START - 30 * 24 * 3600, &[]);
    let mut bed = Bed::new();
    let (full, empty) = (bed.member(), bed.member());
    bed.preload(full, &blocks);
    let silent = bed.hand(empty);
    bed.run(Duration::from_secs(1));
    assert!(
        bed.heard(silent)
            .iter()
            .any(|msg| matches!(msg, Message::GetHeaders(_)))
    );
    bed.join(full, empty);
    assert!(bed.run_until(Duration::from_secs(90), |bed| bed.members[empty].height() == 50));
}

#[test]
fn a_peer_that_does_not_know_headers_announcements_is_served_by_inventory() {
    let blocks = chain(5);
    let mut bed = Bed::new();
    let full = bed.member();
    bed.preload(full, &blocks);
    let hand = bed.hand(full);
    bed.heard(hand);
    let block = bed.mine(full);
    bed.run(Duration::from_secs(1));
    let announced = bed
        .heard(hand)
        .into_iter()
        .any(|msg| matches!(msg, Message::Inv(items) if items == [Inventory::Block(block.hash)]));
    assert!(announced);
    // Old and new blocks are served, unknown ones are not there.
    let unknown = Inventory::WitnessBlock(money::chain_of(1, START, b"other")[0].hash);
    let wanted = [&blocks[0], &blocks[4], &block].map(|block| Inventory::WitnessBlock(block.hash));
    bed.say(hand, Message::GetData([wanted.to_vec(), vec![unknown]].concat()));
    bed.run(Duration::from_secs(1));
    let heard = bed.heard(hand);
    let hashes: Vec<_> = heard
        .iter()
        .filter_map(|msg| {
            if let Message::RawBlock(raw) = msg {
                Some(ParsedBlock::parse(raw.clone()).unwrap().hash)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(hashes.len(), 3);
    assert!(
        heard
            .iter()
            .any(|msg| matches!(msg, Message::NotFound(items) if items == &[unknown]))
    );
    // After `sendheaders` the next one comes as a header, once the peer is known to have the parent.
    bed.say(hand, Message::SendHeaders);
    bed.say(hand, Message::Inv(vec![Inventory::Block(block.hash)]));
    bed.run(Duration::from_secs(1));
    bed.heard(hand);
    let next = bed.mine(full);
    bed.run(Duration::from_secs(1));
    let announced = bed
        .heard(hand)
        .into_iter()
        .any(|msg| matches!(msg, Message::Headers(h) if h == [*next.header()]));
    assert!(announced);
}

#[test]
fn a_first_peer_that_has_nothing_does_not_hide_a_second_that_has_everything() {
    let blocks = money::chain_of(40, START - 30 * 24 * 3600, &[]);
    let mut bed = Bed::new();
    let (empty, fresh, full) = (bed.member(), bed.member(), bed.member());
    bed.preload(full, &blocks);
    bed.join(empty, fresh);
    bed.run(Duration::from_secs(5));
    bed.join(empty, full);
    assert!(bed.run_until(Duration::from_secs(10), |bed| bed.members[empty].height() == 40));
}

#[test]
fn an_announcement_that_crosses_a_shorter_answer_is_not_forgotten() {
    let blocks = chain(10);
    let headers = |from: usize, to: usize| Message::Headers(blocks[from..to].iter().map(|b| *b.header()).collect());
    let mut bed = Bed::new();
    let node = bed.member();
    let hand = bed.hand(node);
    bed.run(Duration::from_secs(1));
    let asks = |msg: &Message| matches!(msg, Message::GetHeaders(_));
    assert_eq!(bed.heard(hand).iter().filter(|msg| asks(msg)).count(), 1);
    // The answer was made before the last two blocks were found, and the last of them is announced.
    bed.say(hand, headers(0, 8));
    bed.run(Duration::from_secs(1));
    bed.heard(hand);
    bed.say(hand, Message::Inv(vec![Inventory::Block(blocks[7].hash)]));
    bed.say(hand, headers(9, 10));
    bed.say(hand, headers(9, 10));
    bed.say(hand, headers(7, 8));
    bed.run(Duration::from_secs(1));
    let questions: Vec<_> = bed
        .heard(hand)
        .into_iter()
        .filter_map(|msg| match msg {
            Message::GetHeaders(locator) => Some(locator.hashes[0]),
            _ => None,
        })
        .collect();
    assert_eq!(
        questions, [blocks[7].hash; 2],
        "asked at the announcement, and again after the short answer"
    );
    bed.say(hand, headers(8, 10));
    bed.run(Duration::from_secs(1));
    assert_eq!(bed.members[node].view().best_header().hash, blocks[9].hash);
}
