//! Compact blocks (BIP 152) between machines, and from peers that get them wrong.
#![allow(clippy::unwrap_used)]

mod bed;

use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::ParsedBlock;
use dunlin_relay::{BlockTxn, BlockTxnRequest, CompactBlock, Message};

const SECOND: Duration = Duration::from_secs(1);

fn bed(members: usize) -> Bed {
    let blocks = money::chain_of(20, START - 60, &[]);
    let mut bed = Bed::new();
    for _ in 0..members {
        // Only the links that the test makes.
        let n = bed.member_with(|config| config.max_outbound = 0);
        bed.preload(n, &blocks);
    }
    bed
}

fn count(bed: &Bed, command: &str) -> u64 {
    bed.messages.get(command).copied().unwrap_or(0)
}

#[test]
fn after_the_first_block_blocks_travel_as_compact_ones_without_being_asked_for() {
    let mut bed = bed(3);
    bed.join(0, 1);
    bed.join(1, 2);
    bed.run(5 * SECOND);
    for _ in 0..3 {
        let tip = bed.mine(0).hash;
        bed.run(5 * SECOND);
        assert!(bed.agree(tip));
    }
    let (whole, asked) = (count(&bed, "block"), count(&bed, "getdata"));
    let compact = count(&bed, "cmpctblock");
    for _ in 0..4 {
        let tip = bed.mine(0).hash;
        bed.run(5 * SECOND);
        assert!(bed.agree(tip));
    }
    assert_eq!((count(&bed, "block"), count(&bed, "getdata")), (whole, asked));
    assert_eq!(count(&bed, "cmpctblock"), compact + 2 * 4);
    assert!((0..3).all(|n| bed.misbehaviours(n).is_empty()));
}

/// A peer that announces by compact blocks: it gave a block first and was asked to.
fn announcer(bed: &mut Bed) -> usize {
    let hand = bed.hand(0);
    bed.run(SECOND);
    bed.say(
        hand,
        Message::SendCmpct {
            announce: 1,
            version: 2,
        },
    );
    let block = next(bed);
    bed.say(hand, Message::Headers(vec![*block.header()]));
    bed.run(SECOND);
    bed.say(hand, Message::RawBlock(block.raw.clone()));
    bed.run(SECOND);
    assert_eq!(bed.members[0].tip(), block.hash);
    let heard = bed.heard(hand);
    assert!(heard.iter().any(|msg| matches!(
        msg,
        Message::SendCmpct {
            announce: 1,
            version: 2
        }
    )));
    hand
}

fn next(bed: &Bed) -> Arc<ParsedBlock> {
    ParsedBlock::from_block(money::next_block(&bed.members[0], bed.now, Vec::new()))
}

fn announce(bed: &mut Bed, hand: usize, block: CompactBlock) -> Vec<Message> {
    bed.heard(hand);
    bed.say(hand, Message::CompactBlock(Arc::new(block)));
    bed.run(SECOND);
    bed.heard(hand)
}

/// The next block with nothing prefilled, so that its coinbase has to be asked for.
fn bare(block: &ParsedBlock) -> CompactBlock {
    let mut compact = CompactBlock::of(block, 1).unwrap();
    compact.prefilled.clear();
    compact.short_ids = vec![compact.ids().of(&block.wtxids[0])];
    compact
}

#[test]
fn what_is_missing_is_asked_for() {
    let mut bed = bed(1);
    let hand = announcer(&mut bed);
    let block = next(&bed);
    let heard = announce(&mut bed, hand, bare(&block));
    let asked = heard.iter().find_map(|msg| match msg {
        Message::GetBlockTxn(request) => Some(request.clone()),
        _ => None,
    });
    let places = vec![0];
    assert_eq!(
        asked,
        Some(BlockTxnRequest {
            hash: block.hash,
            places
        })
    );
    let txs = vec![Arc::new(block.block().txdata[0].clone())];
    bed.say(hand, Message::BlockTxn(BlockTxn { hash: block.hash, txs }));
    bed.run(SECOND);
    assert_eq!(bed.members[0].tip(), block.hash);
    assert!(bed.misbehaviours(0).is_empty());
}

#[test]
fn wrong_transactions_lead_to_the_whole_block_and_a_wrong_number_of_them_to_the_door() {
    let mut bed = bed(1);
    let hand = announcer(&mut bed);
    let block = next(&bed);
    announce(&mut bed, hand, bare(&block));
    let wrong = Arc::new(bed.members[0].view().params().genesis.txdata[0].clone());
    let answer = |txs| Message::BlockTxn(BlockTxn { hash: block.hash, txs });
    bed.say(hand, answer(vec![wrong.clone()]));
    bed.run(SECOND);
    let heard = bed.heard(hand);
    let whole =
        |msg: &Message| matches!(msg, Message::GetData(items) if *items == [Inventory::WitnessBlock(block.hash)]);
    assert!(heard.iter().any(whole), "{heard:?}");
    bed.say(hand, Message::RawBlock(block.raw.clone()));
    bed.run(SECOND);
    assert_eq!(bed.members[0].tip(), block.hash);
    assert!(bed.misbehaviours(0).is_empty());

    let block = next(&bed);
    announce(&mut bed, hand, bare(&block));
    let txs = vec![wrong; 2];
    bed.say(hand, Message::BlockTxn(BlockTxn { hash: block.hash, txs }));
    bed.run(SECOND);
    assert!(bed.misbehaviours(0)[0].0.contains("non-matching block transactions"));
    assert!(bed.hands[hand].closed);
}

#[test]
fn malformed_messages_of_the_protocol_are_punished() {
    type Case = (fn(&Bed) -> Message, &'static str);
    let cases: [Case; 3] = [
        (
            |bed| {
                let mut compact = bare(&next(bed));
                compact.short_ids.clear();
                Message::CompactBlock(Arc::new(compact))
            },
            "invalid compact block",
        ),
        (
            |bed| {
                let hash = bed.members[0].tip();
                let places = vec![0, 9];
                Message::GetBlockTxn(BlockTxnRequest { hash, places })
            },
            "getblocktxn with out-of-bounds tx indices",
        ),
        (
            |_| Message::SendCmpct {
                announce: 2,
                version: 2,
            },
            "invalid sendcmpct announce field",
        ),
    ];
    for (msg, reason) in cases {
        let mut bed = bed(1);
        let hand = announcer(&mut bed);
        let msg = msg(&bed);
        bed.say(hand, msg);
        bed.run(SECOND);
        let misbehaviours = bed.misbehaviours(0);
        assert_eq!(misbehaviours.len(), 1, "{reason}");
        assert!(misbehaviours[0].0.contains(reason), "{misbehaviours:?}");
    }
}

#[test]
fn an_invalid_block_that_came_as_a_compact_one_is_nobodys_fault() {
    let mut bed = bed(1);
    let hand = announcer(&mut bed);
    let tip = bed.members[0].tip();
    let mut block = money::next_block(&bed.members[0], bed.now, Vec::new());
    block.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
    dunlin_chain::build::commit_transactions(&mut block);
    assert!(dunlin_chain::build::solve(&mut block));
    let block = ParsedBlock::from_block(block);
    announce(&mut bed, hand, CompactBlock::of(&block, 1).unwrap());
    assert_eq!(bed.members[0].tip(), tip);
    assert!(bed.misbehaviours(0).is_empty());
    assert!(!bed.hands[hand].closed);
    assert_ne!(tip, bitcoin::BlockHash::all_zeros());
}

#[test]
fn old_blocks_are_served_whole_and_recent_ones_in_the_form_asked_for() {
    let mut bed = bed(1);
    let hand = bed.hand(0);
    bed.run(SECOND);
    let at = |bed: &Bed, height| bed.members[0].view().hash_at(height).unwrap();
    let mut form = |height: u32, txs: bool| {
        let hash = at(&bed, height);
        bed.heard(hand);
        let msg = match txs {
            true => Message::GetBlockTxn(BlockTxnRequest { hash, places: vec![0] }),
            false => Message::GetData(vec![Inventory::CompactBlock(hash)]),
        };
        bed.say(hand, msg);
        bed.run(SECOND);
        let heard = bed.heard(hand);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard[0].command().to_owned()
    };
    assert_eq!([15, 14].map(|height| form(height, false)), ["cmpctblock", "block"]);
    assert_eq!([10, 9].map(|height| form(height, true)), ["blocktxn", "block"]);
}
