//! Invalid blocks and headers: rejected by name, the sender disconnected and its address refused.
#![allow(clippy::unwrap_used)]

mod bed;

use std::sync::Arc;
use std::time::Duration;

use bed::money::{self, Wallet};
use bed::{Bed, START};
use bitcoin::{Amount, Block, OutPoint, Transaction};
use dunlin_chain::ParsedBlock;
use dunlin_relay::{Message, Subnet};

const SECOND: Duration = Duration::from_secs(1);

/// A member with spendable rewards, and the blocks.
fn bed() -> (Bed, Vec<Arc<ParsedBlock>>) {
    let blocks = money::chain_of(110, START - 60, &[]);
    let mut bed = Bed::new();
    let n = bed.member();
    bed.preload(n, &blocks);
    bed.run(SECOND);
    (bed, blocks)
}

fn spend(blocks: &[Arc<ParsedBlock>], height: usize) -> Transaction {
    let (from, value) = money::reward(&blocks[height - 1]);
    Wallet::new(1).spend(from, value, 1, money::FEE)
}

/// A liar announces the block and sends it when asked; it must be refused for `reason`, the liar thrown out, and a
/// good peer's block still taken.
fn refused(reason: &str, make: impl FnOnce(&Bed, &[Arc<ParsedBlock>]) -> Block) {
    let (mut bed, blocks) = bed();
    let block = make(&bed, &blocks);
    let liar = bed.hand(0);
    bed.heard(liar);
    bed.say(liar, Message::Headers(vec![block.header]));
    bed.run(SECOND);
    let asked = bed.heard(liar).iter().any(|msg| matches!(msg, Message::GetData(_)));
    assert!(asked, "the block is fetched from its announcer");
    bed.say(liar, Message::RawBlock(ParsedBlock::from_block(block).raw.clone()));
    bed.run(SECOND);
    let found = bed.misbehaviours(0);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with(reason), "{found:?}");
    assert!(found[0].1, "the address is discouraged");
    assert!(bed.hands[liar].closed);
    assert_eq!(bed.members[0].height(), 110);
    // The same address does not get in again; another one does, and its block is taken.
    let again = bed.hand_at(0, "60.9.9.9:6000".parse().unwrap());
    assert!(bed.hands[again].closed);
    let good = bed.hand(0);
    assert!(!bed.hands[good].closed);
    let view = bed.members[0].view();
    let block = money::block_on(&view, bed.now.unix_secs(), vec![spend(&blocks, 3)], money::FEE, b"good");
    bed.say(good, Message::Headers(vec![block.header]));
    bed.run(SECOND);
    bed.say(good, Message::RawBlock(ParsedBlock::from_block(block).raw.clone()));
    bed.run(SECOND);
    assert_eq!(bed.members[0].height(), 111);
    assert!(!bed.hands[good].closed);
}

#[test]
fn a_bad_merkle_root() {
    refused("bad-txnmrklroot", |bed, blocks| {
        let mut block = money::next_block(&bed.members[0], bed.now, vec![spend(blocks, 1)]);
        block.txdata[1].output[0].value -= Amount::from_sat(1);
        block
    });
}

#[test]
fn a_bad_signature() {
    refused("block-script-verify-flag-failed", |bed, blocks| {
        let mut tx = spend(blocks, 1);
        money::break_signature(&mut tx);
        money::next_block(&bed.members[0], bed.now, vec![tx])
    });
}

#[test]
fn a_double_spend_within_the_block() {
    refused("bad-txns-inputs-missingorspent", |bed, blocks| {
        let (from, value) = money::reward(&blocks[0]);
        let wallet = Wallet::new(1);
        let twice = [1, 2].map(|count| wallet.spend(from, value, count, money::FEE));
        money::next_block(&bed.members[0], bed.now, twice.to_vec())
    });
}

#[test]
fn a_coin_that_never_was() {
    refused("bad-txns-inputs-missingorspent", |bed, blocks| {
        let (from, value) = money::reward(&blocks[0]);
        let tx = Wallet::new(1).spend(OutPoint::new(from.txid, 1000), value, 1, money::FEE);
        money::next_block(&bed.members[0], bed.now, vec![tx])
    });
}

#[test]
fn an_excess_subsidy() {
    refused("bad-cb-amount", |bed, _| {
        let mut block = money::next_block(&bed.members[0], bed.now, Vec::new());
        block.txdata[0].output[0].value += Amount::from_sat(1);
        money::seal(&mut block);
        block
    });
}

#[test]
fn a_premature_spend_of_a_coinbase() {
    refused("bad-txns-premature-spend-of-coinbase", |bed, blocks| {
        money::next_block(&bed.members[0], bed.now, vec![spend(blocks, 105)])
    });
}

#[test]
fn a_broken_witness_commitment() {
    refused("bad-witness-merkle-match", |bed, blocks| {
        let mut block = money::next_block(&bed.members[0], bed.now, vec![spend(blocks, 1)]);
        money::break_signature(&mut block.txdata[1]);
        block
    });
}

#[test]
fn a_block_found_invalid_after_it_was_stored_is_its_senders_fault() {
    let (mut bed, blocks) = bed();
    // Two blocks: the second one is broken and comes first.
    let mut side = dunlin_chain::Chain::in_memory(bed.members[0].view().params().clone()).unwrap();
    for block in &blocks {
        side.accept_block(START, block.clone()).unwrap();
    }
    let first = money::extend(&mut side, 1, START - 30, &[]).remove(0);
    let mut tx = spend(&blocks, 1);
    money::break_signature(&mut tx);
    let second = money::block_on(&side.view(), START - 20, vec![tx], 0, &[]);
    let headers = vec![*first.header(), second.header];
    let (honest, liar) = (bed.hand(0), bed.hand(0));
    bed.say(liar, Message::Headers(headers.clone()));
    bed.run(SECOND);
    bed.say(liar, Message::RawBlock(ParsedBlock::from_block(second).raw.clone()));
    bed.run(SECOND);
    assert!(bed.misbehaviours(0).is_empty(), "nothing is known against it yet");
    bed.say(honest, Message::Headers(headers[..1].to_vec()));
    bed.run(5 * SECOND);
    bed.say(honest, Message::RawBlock(first.raw.clone()));
    bed.run(SECOND);
    assert_eq!(bed.members[0].height(), 111);
    assert!(bed.hands[liar].closed && !bed.hands[honest].closed);
    assert!(bed.misbehaviours(0)[0].0.starts_with("block-script-verify-flag-failed"));
}

#[test]
fn headers_without_work_and_headers_that_do_not_follow() {
    let (mut bed, blocks) = bed();
    let good = money::next_block(&bed.members[0], bed.now, Vec::new()).header;
    let mut lazy = good;
    // Some nonce misses the easy target of regtest.
    while lazy.target().is_met_by(lazy.block_hash()) {
        lazy.nonce += 1;
    }
    let hand = bed.hand(0);
    bed.say(hand, Message::Headers(vec![lazy]));
    bed.run(SECOND);
    assert!(bed.hands[hand].closed);
    let hand = bed.hand(0);
    bed.say(hand, Message::Headers(vec![*blocks[3].header(), *blocks[7].header()]));
    bed.run(SECOND);
    assert!(bed.hands[hand].closed);
    let reasons: Vec<String> = bed.misbehaviours(0).into_iter().map(|(reason, _)| reason).collect();
    assert!(reasons[0].starts_with("high-hash"), "{reasons:?}");
    assert_eq!(reasons[1], "non-continuous headers sequence");
    // A header that does not connect is no crime: we ask for what lies between.
    let hand = bed.hand(0);
    bed.heard(hand);
    let mut far = good;
    far.prev_blockhash = lazy.block_hash();
    bed.say(hand, Message::Headers(vec![far]));
    bed.run(SECOND);
    assert!(!bed.hands[hand].closed);
}

#[test]
fn bans_are_listed_and_lifted() {
    use dunlin_relay::{Command, Event};
    let (mut bed, _) = bed();
    let subnet: Subnet = "61.0.0.0/8".parse().unwrap();
    let guest = bed.hand_at(0, "61.9.9.9:1".parse().unwrap());
    assert!(!bed.hands[guest].closed);
    bed.command(
        0,
        Command::Ban {
            subnet,
            seconds: 3600,
            reason: "test".into(),
        },
    );
    bed.run(SECOND);
    assert!(bed.hands[guest].closed, "its links are closed");
    let guest = bed.hand_at(0, "61.1.1.1:1".parse().unwrap());
    assert!(bed.hands[guest].closed);
    bed.command(0, Command::Bans { ticket: 1 });
    let listed = bed.members[0]
        .events
        .iter()
        .any(|event| matches!(event, Event::Bans { ticket: 1, bans } if bans.len() == 1 && bans[0].subnet == subnet));
    assert!(listed);
    bed.command(0, Command::Unban(subnet));
    let guest = bed.hand_at(0, "61.1.1.1:2".parse().unwrap());
    assert!(!bed.hands[guest].closed);
}
