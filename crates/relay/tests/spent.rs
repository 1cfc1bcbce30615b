//! Features (BIP 434) and the coins that blocks spent (BIP 455).
#![allow(clippy::unwrap_used)]

mod bed;

use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dunlin_chain::BlockUndo;
use dunlin_relay::{Feature, Message, SPENT_COINS_FEATURE, SpentRequest, Version, services};

const SECOND: Duration = Duration::from_secs(1);

/// A hand that tells this version, and what it hears until it says `verack`.
fn greet(bed: &mut Bed, version: u32) -> (usize, Vec<Message>) {
    let hand = bed.hands.len();
    bed.hands.push(Default::default());
    bed.connect_silently(hand, 0, format!("{}.7.7.7:5000", 60 + hand).parse().unwrap());
    let none = "[::]:0".parse().unwrap();
    let told = Version {
        version,
        services: services::NETWORK | services::WITNESS,
        timestamp: START as i64,
        receiver: none,
        receiver_services: 0,
        nonce: 7_000_000 + hand as u64,
        user_agent: "/hand/".into(),
        start_height: 0,
        relay: true,
    };
    bed.say(hand, Message::Version(Box::new(told)));
    bed.run(SECOND);
    let heard = bed.heard(hand);
    (hand, heard)
}

fn offers(heard: &[Message]) -> bool {
    let verack = heard.iter().position(|msg| matches!(msg, Message::Verack)).unwrap();
    let offer = heard.iter().position(|msg| match msg {
        Message::Feature(feature) => feature.id == SPENT_COINS_FEATURE.as_bytes() && feature.data == [0],
        _ => false,
    });
    assert!(offer.is_none_or(|offer| offer < verack));
    offer.is_some()
}

/// A member with a chain whose last block spends a coin; that block, and what the member has on it.
fn bed() -> (Bed, BlockHash, BlockUndo) {
    let base = money::chain_of(101, START - 120, &[]);
    let mut bed = Bed::new();
    let a = bed.member();
    bed.preload(a, &base);
    let (coin, value) = money::reward(&base[0]);
    let tx = money::Wallet::new(1).spend(coin, value, 3, 0);
    let block = money::next_block(&bed.members[a], bed.now, vec![tx]);
    let hash = bed.submit(a, block).hash;
    assert_eq!(bed.members[a].tip(), hash);
    let undo = bed.members[a].view().undo(&hash).unwrap().unwrap();
    (bed, hash, undo)
}

#[test]
fn spent_coins_are_offered_before_verack_and_served() {
    let (mut bed, block, undo) = bed();
    let (hand, heard) = greet(&mut bed, 70_017);
    assert!(offers(&heard));
    // What nobody knows yet is no fault.
    let other = Feature {
        id: b"BIP99999".to_vec(),
        data: vec![1; 512],
    };
    bed.say(hand, Message::Feature(other));
    bed.say(hand, Message::Verack);
    bed.run(SECOND);
    bed.heard(hand);
    for (cutoff, count) in [(0, 1), (1, 0), (2, 1)] {
        bed.say(hand, Message::GetSpent(SpentRequest { block, cutoff }));
        bed.run(SECOND);
        let heard = bed.heard(hand);
        let answer = heard.iter().find_map(|msg| match msg {
            Message::Spent(answer) => Some(answer.clone()),
            _ => None,
        });
        let answer = answer.unwrap();
        assert_eq!(answer.block, block);
        assert_eq!(answer.coins.len(), count, "cutoff {cutoff}");
        assert!(
            answer
                .coins
                .iter()
                .all(|(place, coin)| *place == 0 && *coin == undo.spent[0][0])
        );
    }
    // Of a block that is not part of the chain there is nothing to tell.
    let unknown = BlockHash::from_byte_array([3; 32]);
    bed.say(
        hand,
        Message::GetSpent(SpentRequest {
            block: unknown,
            cutoff: 0,
        }),
    );
    bed.run(SECOND);
    assert!(!bed.heard(hand).iter().any(|msg| matches!(msg, Message::Spent(_))));
    assert!(!bed.hands[hand].closed);
}

#[test]
fn they_are_only_for_those_to_whom_they_were_offered() {
    let (mut bed, block, _) = bed();
    let (old, heard) = greet(&mut bed, 70_016);
    assert!(!offers(&heard));
    bed.say(old, Message::Verack);
    bed.say(old, Message::GetSpent(SpentRequest { block, cutoff: 0 }));
    bed.run(SECOND);
    assert!(bed.hands[old].closed);
    let told: Vec<_> = bed
        .heard(old)
        .into_iter()
        .filter(|msg| matches!(msg, Message::Spent(_)))
        .collect();
    assert!(told.is_empty());

    // A node without any undo record offers nothing.
    let mut empty = Bed::new();
    empty.member();
    let (_, heard) = greet(&mut empty, 70_017);
    assert!(!offers(&heard));
}

#[test]
fn features_out_of_place_and_coins_that_nobody_asked_for_end_the_link() {
    let (mut bed, block, undo) = bed();
    let feature = Feature {
        id: b"BIP99999".to_vec(),
        data: Vec::new(),
    };
    let (early, _) = greet(&mut bed, 70_016);
    bed.say(early, Message::Feature(feature.clone()));
    let (late, _) = greet(&mut bed, 70_017);
    bed.say(late, Message::Verack);
    bed.say(late, Message::Feature(feature));
    let (giver, _) = greet(&mut bed, 70_017);
    bed.say(giver, Message::Verack);
    let request = SpentRequest { block, cutoff: 0 };
    bed.say(giver, Message::Spent(dunlin_relay::SpentCoins::of(&request, undo)));
    bed.run(SECOND);
    for hand in [early, late, giver] {
        assert!(bed.hands[hand].closed);
    }
}
