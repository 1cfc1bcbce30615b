//! Transactions: flooding, asking one peer at a time, orphans, fee filters.
#![allow(clippy::unwrap_used)]

mod bed;

use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use dunlin_relay::Message;

const SECOND: Duration = Duration::from_secs(1);

/// `count` members in a ring on a chain with spendable rewards, and two transactions: a parent and its child.
fn ring(count: usize, immediate: bool) -> (Bed, Transaction, Transaction) {
    let base = money::chain_of(110, START - 60, &[]);
    let mut bed = Bed::new();
    for _ in 0..count {
        let n = bed.member_with(|config| config.immediate = immediate);
        bed.preload(n, &base);
    }
    if count > 1 {
        for n in 0..count {
            bed.join(n, (n + 1) % count);
        }
    }
    bed.run(5 * SECOND);
    let wallet = money::Wallet::new(1);
    let (from, value) = money::reward(&base[0]);
    let parent = wallet.spend(from, value, 2, money::FEE);
    let child = wallet.spend(
        OutPoint::new(parent.compute_txid(), 0),
        parent.output[0].value,
        1,
        money::FEE,
    );
    (bed, parent, child)
}

fn all_have(bed: &Bed, tx: &Transaction) -> bool {
    let txid = tx.compute_txid();
    bed.members
        .iter()
        .all(|member| member.engine.pool.read().unwrap().contains(&txid))
}

fn asked_for(bed: &mut Bed, hand: usize) -> Vec<Inventory> {
    let items = bed.heard(hand).into_iter().filter_map(|msg| match msg {
        Message::GetData(items) => Some(items),
        _ => None,
    });
    items.flatten().collect()
}

fn message(tx: &Transaction) -> Message {
    Message::Tx {
        tx: Arc::new(tx.clone()),
        witness: true,
    }
}

#[test]
fn transactions_cross_a_ring_at_once_when_nobody_hides() {
    let (mut bed, parent, child) = ring(8, true);
    bed.submit_tx(0, parent.clone());
    bed.submit_tx(0, child.clone());
    assert!(bed.run_until(SECOND, |bed| all_have(bed, &parent) && all_have(bed, &child)));
    // And a block takes them out of every pool.
    let txs = bed.members[5].engine.pool.read().unwrap().txids().len();
    assert_eq!(txs, 2);
    let block = money::next_block(&bed.members[5], bed.now, vec![parent, child]);
    let block = bed.submit(5, block);
    assert!(bed.run_until(5 * SECOND, |bed| bed.agree(block.hash)));
    assert!((0..8).all(|n| bed.members[n].pool_len() == 0));
}

#[test]
fn transactions_cross_a_ring_with_random_delays() {
    let (mut bed, parent, child) = ring(6, false);
    bed.submit_tx(2, parent.clone());
    bed.submit_tx(2, child.clone());
    assert!(
        !bed.run_until(Duration::from_millis(25), |bed| all_have(bed, &parent)),
        "nobody hides"
    );
    assert!(bed.run_until(120 * SECOND, |bed| all_have(bed, &parent) && all_have(bed, &child)));
    assert_eq!(bed.messages["tx"], 2 * 5, "each peer fetched each transaction once");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let (mut bed, parent, child) = ring(5, false);
        bed.submit_tx(0, parent);
        bed.submit_tx(3, child);
        bed.run(200 * SECOND);
        (bed.bytes, bed.messages.clone(), bed.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn one_peer_is_asked_and_after_a_minute_the_next() {
    let (mut bed, parent, _) = ring(1, true);
    let hands = [bed.hand(0), bed.hand(0)];
    let item = Inventory::WTx(parent.compute_wtxid());
    for hand in hands {
        bed.heard(hand);
        bed.say(hand, Message::Inv(vec![item]));
    }
    bed.run(10 * SECOND);
    let asked = hands.map(|hand| asked_for(&mut bed, hand));
    assert_eq!(asked.iter().flatten().count(), 1);
    let silent = asked.iter().position(|items| items == &[item]).unwrap();
    bed.run(55 * SECOND);
    let other = hands[1 - silent];
    assert_eq!(asked_for(&mut bed, other), [item]);
    bed.say(other, message(&parent));
    bed.run(SECOND);
    assert!(all_have(&bed, &parent));
}

#[test]
fn what_a_peer_has_not_got_is_asked_of_the_next_at_once() {
    let (mut bed, parent, _) = ring(1, true);
    let hands = [bed.hand(0), bed.hand(0)];
    let item = Inventory::WTx(parent.compute_wtxid());
    for hand in hands {
        bed.heard(hand);
        bed.say(hand, Message::Inv(vec![item]));
    }
    bed.run(SECOND);
    let first = hands
        .into_iter()
        .find(|hand| !asked_for(&mut bed, *hand).is_empty())
        .unwrap();
    bed.say(first, Message::NotFound(vec![item]));
    bed.run(SECOND);
    let second = hands.into_iter().find(|hand| *hand != first).unwrap();
    assert_eq!(asked_for(&mut bed, second), [item]);
}

#[test]
fn an_orphans_parent_is_fetched_by_its_txid() {
    let (mut bed, parent, child) = ring(1, true);
    let hand = bed.hand(0);
    bed.heard(hand);
    bed.say(hand, Message::Inv(vec![Inventory::WTx(child.compute_wtxid())]));
    bed.run(SECOND);
    assert_eq!(asked_for(&mut bed, hand), [Inventory::WTx(child.compute_wtxid())]);
    bed.say(hand, message(&child));
    bed.run(SECOND);
    assert_eq!(
        asked_for(&mut bed, hand),
        [Inventory::WitnessTransaction(parent.compute_txid())]
    );
    assert_eq!(bed.members[0].pool_len(), 0);
    bed.say(hand, message(&parent));
    bed.run(SECOND);
    assert!(all_have(&bed, &parent) && all_have(&bed, &child));
}

#[test]
fn a_child_pays_for_a_parent_whichever_comes_first() {
    for parent_first in [false, true] {
        let (mut bed, _, _) = ring(2, true);
        let base = money::chain_of(110, START - 60, &[]);
        let wallet = money::Wallet::new(1);
        let (from, value) = money::reward(&base[0]);
        let parent = wallet.spend(from, value, 1, 0);
        let (coin, value) = (OutPoint::new(parent.compute_txid(), 0), parent.output[0].value);
        let child = wallet.spend(coin, value, 1, money::FEE);
        let hand = bed.hand(0);
        if parent_first {
            bed.say(hand, message(&parent));
            bed.run(SECOND);
            assert_eq!(bed.members[0].pool_len(), 0, "it pays nothing");
            bed.say(hand, Message::Inv(vec![Inventory::WTx(parent.compute_wtxid())]));
            bed.run(SECOND);
            assert!(asked_for(&mut bed, hand).is_empty(), "it is not wanted again by itself");
        }
        bed.say(hand, message(&child));
        bed.run(SECOND);
        assert_eq!(
            asked_for(&mut bed, hand),
            [Inventory::WitnessTransaction(parent.compute_txid())]
        );
        bed.say(hand, message(&parent));
        bed.run(5 * SECOND);
        // The second member hears of both and has to ask for the parent by the child, too.
        assert!(all_have(&bed, &parent) && all_have(&bed, &child), "{parent_first}");
        assert!(bed.misbehaviours(0).is_empty() && bed.misbehaviours(1).is_empty());
    }
}

#[test]
fn a_fee_filter_and_a_wish_for_no_transactions_are_respected() {
    let (mut bed, parent, child) = ring(1, true);
    let (poor, rich) = (bed.hand(0), bed.hand(0));
    bed.say(rich, Message::FeeFilter(10_000_000));
    bed.run(SECOND);
    bed.heard(poor);
    bed.heard(rich);
    bed.submit_tx(0, parent.clone());
    bed.submit_tx(0, child);
    bed.run(SECOND);
    let invs = |heard: Vec<Message>| heard.into_iter().filter(|msg| matches!(msg, Message::Inv(_))).count();
    let (poor_heard, rich_heard) = (bed.heard(poor), bed.heard(rich));
    assert!(invs(poor_heard) > 0);
    assert_eq!(invs(rich_heard), 0);
    // What was announced is served, by either name; what does not exist is not there.
    let txid = parent.compute_txid();
    let unknown = Inventory::WTx(Wtxid::from_byte_array([3; 32]));
    let items = vec![
        Inventory::WTx(parent.compute_wtxid()),
        Inventory::WitnessTransaction(txid),
        unknown,
    ];
    bed.say(poor, Message::GetData(items));
    bed.run(SECOND);
    let heard = bed.heard(poor);
    let served = heard
        .iter()
        .filter(|msg| matches!(msg, Message::Tx { tx, .. } if tx.compute_txid() == txid))
        .count();
    assert_eq!(served, 2);
    assert!(
        heard
            .iter()
            .any(|msg| matches!(msg, Message::NotFound(items) if items == &[unknown]))
    );
}

#[test]
fn a_refused_transaction_is_not_fetched_again_until_the_tip_changes() {
    let (mut bed, mut parent, _) = ring(1, true);
    money::break_signature(&mut parent);
    let item = Inventory::WTx(parent.compute_wtxid());
    let hand = bed.hand(0);
    bed.heard(hand);
    bed.say(hand, Message::Inv(vec![item]));
    bed.run(SECOND);
    assert_eq!(asked_for(&mut bed, hand), [item]);
    bed.say(hand, message(&parent));
    bed.run(SECOND);
    assert_eq!(bed.members[0].pool_len(), 0);
    let other = bed.hand(0);
    bed.say(other, Message::Inv(vec![item]));
    bed.run(SECOND);
    assert!(asked_for(&mut bed, other).is_empty());
    bed.mine(0);
    let third = bed.hand(0);
    bed.say(third, Message::Inv(vec![item]));
    bed.run(SECOND);
    assert_eq!(asked_for(&mut bed, third), [item]);
}

#[test]
fn a_flood_of_announcements_is_bounded() {
    let (mut bed, _, _) = ring(1, true);
    let hand = bed.hand(0);
    bed.heard(hand);
    let mut n = 0u64;
    for _ in 0..4 {
        let items = (0..50_000)
            .map(|_| {
                n += 1;
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&n.to_le_bytes());
                Inventory::WTx(Wtxid::from_byte_array(bytes))
            })
            .collect();
        bed.say(hand, Message::Inv(items));
    }
    // By txid, against what was agreed: ignored.
    bed.say(
        hand,
        Message::Inv(vec![Inventory::Transaction(Txid::from_byte_array([1; 32]))]),
    );
    bed.run(SECOND);
    let asked = asked_for(&mut bed, hand);
    assert_eq!(asked.len(), 5_000);
    assert!(asked.iter().all(|item| matches!(item, Inventory::WTx(_))));
}
