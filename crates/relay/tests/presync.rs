//! Headers with little work on a network with a minimum of it: nothing of them is kept, and nobody is held up.
#![allow(clippy::unwrap_used)]

mod bed;

use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::Work;
use bitcoin::block::Header;
use dunlin_chain::build::BLOCK_VERSION;
use dunlin_chain::{Network, Params};
use dunlin_relay::{MAX_HEADERS, Message};

const SECOND: Duration = Duration::from_secs(1);
/// Blocks that the network's minimum of work is worth.
const MINIMUM: u32 = 4_200;

/// Regtest, where each block is worth two hashes, with a minimum of work.
fn params() -> Params {
    let mut minimum = [0; 32];
    minimum[28..].copy_from_slice(&(2 * (MINIMUM + 1)).to_be_bytes());
    Params {
        minimum_chain_work: Work::from_be_bytes(minimum),
        ..Params::new(Network::Regtest)
    }
}

/// The next solved headers after `last`.
fn solved(last: Header, count: usize) -> Vec<Header> {
    let mut last = last;
    let mut next = || {
        last = Header {
            prev_blockhash: last.block_hash(),
            time: last.time + 1,
            nonce: 0,
            version: BLOCK_VERSION,
            ..last
        };
        while last.validate_pow(last.target()).is_err() {
            last.nonce += 1;
        }
        last
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_flood_of_cheap_headers_is_not_kept_while_an_honest_chain_syncs() {
    let mut bed = Bed::new();
    let n = bed.member_on(params(), |_| {});
    let flooders = [bed.hand(n), bed.hand(n)];
    bed.run(SECOND);
    // Each shows branches that end below the minimum, 100,000 headers in all.
    let genesis = params().genesis.header;
    for (index, flooder) in flooders.into_iter().enumerate() {
        for round in 0..25 {
            let start = Header {
                time: genesis.time + 10 * index as u32 + round,
                ..solved(genesis, 1)[0]
            };
            let mut first = start;
            while first.validate_pow(first.target()).is_err() {
                first.nonce += 1;
            }
            let mut batch = vec![first];
            batch.extend(solved(first, MAX_HEADERS - 1));
            bed.say(flooder, Message::Headers(batch));
            bed.run(SECOND);
            assert_eq!(bed.members[n].view().header_count(), 1);
        }
        assert!(bed.misbehaviours(n).is_empty(), "a chain that changes is no fault");
    }
    let honest = bed.member();
    let blocks = money::chain_of(MINIMUM + 300, START - 60, &[]);
    bed.preload(honest, &blocks);
    bed.join(n, honest);
    let tip = bed.members[honest].tip();
    assert!(bed.run_until(900 * SECOND, |bed| bed.members[n].tip() == tip));
    assert_eq!(bed.members[n].view().header_count(), blocks.len() + 1);
    assert!(bed.misbehaviours(n).is_empty());
}

#[test]
fn a_peer_that_never_comes_to_an_end_does_not_hold_up_others() {
    let mut bed = Bed::new();
    let mut far = params();
    far.minimum_chain_work = Work::from_be_bytes([1; 32]);
    let n = bed.member_on(far, |_| {});
    let endless = bed.hand(n);
    bed.run(SECOND);
    let other = bed.hand(n);
    let asked = |bed: &mut Bed, hand| {
        let heard = bed.heard(hand);
        heard.iter().any(|msg| matches!(msg, Message::GetHeaders(_)))
    };
    assert!(asked(&mut bed, endless));
    let mut last = params().genesis.header;
    let mut others_turn = None;
    for round in 0..50 {
        let batch = solved(last, MAX_HEADERS);
        last = batch[MAX_HEADERS - 1];
        bed.say(endless, Message::Headers(batch));
        bed.run(15 * SECOND);
        assert_eq!(bed.members[n].view().header_count(), 1);
        assert!(asked(&mut bed, endless), "it is asked for more");
        if others_turn.is_none() && asked(&mut bed, other) {
            others_turn = Some(round);
        }
    }
    // After ten minutes.
    assert!((35..45).contains(&others_turn.unwrap()), "{others_turn:?}");
}

#[test]
fn a_branch_with_more_work_from_far_below_is_found_through_its_proof() {
    let mut bed = Bed::new();
    let n = bed.member_on(params(), |_| {});
    let usual = money::chain_of(MINIMUM + 300, START - 60, &[]);
    bed.preload(n, &usual);
    let other = bed.member();
    // Its first full message of headers has less work than the floor.
    let better = money::chain_of(MINIMUM + 400, START - 60, b"better");
    bed.preload(other, &better);
    bed.join(n, other);
    let tip = bed.members[other].tip();
    assert!(bed.run_until(900 * SECOND, |bed| bed.members[n].tip() == tip));
    assert_eq!(bed.members[n].view().header_count(), usual.len() + better.len() + 1);
    // One with less work is not kept.
    let third = bed.member();
    bed.preload(third, &money::chain_of(MINIMUM, START - 60, b"worse"));
    bed.join(n, third);
    bed.run(600 * SECOND);
    assert_eq!(bed.members[n].view().header_count(), usual.len() + better.len() + 1);
    assert!(bed.misbehaviours(n).is_empty());
}
