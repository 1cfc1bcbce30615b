//! Tests of the header rules on chains made by hand.
#![allow(clippy::unwrap_used)]

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Target, TxMerkleNode};

use super::*;
use crate::Network;

const SPACING: u32 = 600;

fn header(time: u32, bits: u32) -> Header {
    Header {
        version: Version::from_consensus(4),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(bits),
        nonce: 0,
    }
}

/// `length` headers ten minutes apart.
fn chain(length: u32, bits: u32) -> Vec<Header> {
    (0..length)
        .map(|height| header(1_600_000_000 + height * SPACING, bits))
        .collect()
}

fn bits(params: &Params, chain: &[Header], time: u32) -> u32 {
    next_work_required(params, chain, time).to_consensus()
}

fn reason(result: Result<(), Reject>) -> String {
    result.unwrap_err().reason.into_owned()
}

const NOW: u64 = 2_000_000_000;
const EASIEST: u32 = 0x1d00_ffff;

#[test]
fn proof_of_work_must_meet_the_named_target_within_the_limit() {
    for network in Network::ALL {
        let params = Params::new(network);
        let genesis = params.genesis.header;
        assert_eq!(check_header(&params, &genesis), Ok(()));
        let mut harder = genesis;
        harder.bits = CompactTarget::from_consensus(0x0300_0001);
        assert_eq!(reason(check_header(&params, &harder)), "high-hash");
        let mut easier = genesis;
        easier.bits = Target::from_le_bytes([0xff; 32]).to_compact_lossy();
        assert_eq!(
            reason(check_header(&params, &easier)),
            "high-hash",
            "easier than the network allows"
        );
    }
}

#[test]
fn the_target_changes_only_at_the_edge_of_a_period() {
    let params = Params::new(Network::Mainnet);
    // Blocks twice as fast as they should be.
    let fast: Vec<Header> = (0..2016)
        .map(|height| header(1_600_000_000 + height * 300, 0x1b04_04cb))
        .collect();
    let time = fast[2015].time + 300;
    assert_eq!(
        bits(&params, &fast[..2015], time),
        0x1b04_04cb,
        "height 2015 belongs to the old period"
    );
    let after = bits(&params, &fast, time);
    assert_ne!(after, 0x1b04_04cb);
    // The span covers 2015 intervals of 2016.
    let expected = retarget(
        CompactTarget::from_consensus(0x1b04_04cb),
        2015 * 300,
        2016 * 600,
        params.pow_limit,
    );
    assert_eq!(after, expected.to_consensus());
    // The time of the new block itself plays no part.
    assert_eq!(bits(&params, &fast, time + 1_000_000), after);

    let mut next = fast.clone();
    next.push(header(time, after));
    assert_eq!(
        bits(&params, &next, time + 300),
        after,
        "height 2017 keeps the new target"
    );
}

#[test]
fn regtest_never_retargets_and_has_short_periods() {
    let params = Params::new(Network::Regtest);
    assert_eq!(params.retarget_interval(), 144);
    for length in [1, 143, 144, 145, 288] {
        let slow: Vec<Header> = (0..length)
            .map(|height| header(height * 100_000, 0x207f_ffff))
            .collect();
        assert_eq!(bits(&params, &slow, length * 100_000), 0x207f_ffff);
    }
}

#[test]
fn testnet4_allows_the_easiest_target_after_twenty_minutes() {
    let params = Params::new(Network::Testnet4);
    let hard = 0x1b04_04cb;
    let mut headers = chain(100, hard);
    let last = headers[99].time;
    assert_eq!(
        bits(&params, &headers, last + 1200),
        hard,
        "exactly twenty minutes is not enough"
    );
    assert_eq!(bits(&params, &headers, last + 1201), EASIEST);
    // The exception does not stick.
    headers.push(header(last + 1201, EASIEST));
    headers.push(header(last + 2402, EASIEST));
    assert_eq!(bits(&params, &headers, last + 2403), hard);
}

#[test]
fn testnet4_looks_back_no_further_than_the_start_of_the_period() {
    let params = Params::new(Network::Testnet4);
    let mut headers = chain(2016, 0x1b04_04cb);
    // The first block of the period has the easiest target as its real one: blocks after it keep that.
    let start = headers[2015].time + SPACING;
    headers.push(header(start, EASIEST));
    headers.push(header(start + 1201, EASIEST));
    assert_eq!(bits(&params, &headers, start + 1202), EASIEST);
}

#[test]
fn bip94_scales_the_first_target_of_the_period() {
    let testnet = Params::new(Network::Testnet4);
    let mut old_rules = testnet.clone();
    old_rules.enforce_bip94 = false;
    let hard = 0x1b04_04cb;
    let mut headers = chain(2016, hard);
    headers[2015].bits = CompactTarget::from_consensus(EASIEST);
    let time = headers[2015].time + SPACING;
    let span = 2015 * i64::from(SPACING);
    let from = |bits| {
        retarget(
            CompactTarget::from_consensus(bits),
            span,
            2016 * SPACING,
            testnet.pow_limit,
        )
        .to_consensus()
    };
    assert_eq!(bits(&testnet, &headers, time), from(hard));
    assert_eq!(bits(&old_rules, &headers, time), from(EASIEST));
    assert_ne!(from(hard), from(EASIEST));
}

#[test]
fn bip94_forbids_stepping_back_in_time_at_the_edge() {
    let params = Params::new(Network::Testnet4);
    let mut headers = chain(2016, EASIEST);
    // The last block claims to be an hour ahead; the median stays behind.
    headers[2015].time += 3600;
    let last = headers[2015].time;
    let bits = bits(&params, &headers, last);
    assert_eq!(
        contextual_check_header(&params, &header(last - 600, bits), headers.as_slice(), NOW),
        Ok(())
    );
    let early = contextual_check_header(&params, &header(last - 601, bits), headers.as_slice(), NOW);
    assert_eq!(reason(early), "time-timewarp-attack");

    let mut without = params.clone();
    without.enforce_bip94 = false;
    assert_eq!(
        contextual_check_header(&without, &header(last - 601, bits), headers.as_slice(), NOW),
        Ok(())
    );
    // Inside of a period the rule does not hold.
    let inside = &headers[1..];
    assert_eq!(
        contextual_check_header(&params, &header(last - 601, EASIEST), inside, NOW),
        Ok(())
    );
}

#[test]
fn time_must_pass_the_median_and_not_run_ahead_of_the_clock() {
    let params = Params::new(Network::Mainnet);
    let headers = chain(20, EASIEST);
    let median = headers[14].time;
    assert_eq!(median_time_past(headers.as_slice()), median);
    let check = |time, now| contextual_check_header(&params, &header(time, EASIEST), headers.as_slice(), now);
    assert_eq!(reason(check(median, NOW)), "time-too-old");
    assert_eq!(check(median + 1, NOW), Ok(()));
    let time = headers[19].time + 10;
    assert_eq!(check(time, u64::from(time) - 7200), Ok(()));
    let early = check(time, u64::from(time) - 7201).unwrap_err();
    assert_eq!(
        (early.reason.as_ref(), early.kind),
        ("time-too-new", RejectKind::TimeFuture)
    );
    assert_eq!(check(time, u64::MAX), Ok(()), "a clock far ahead must not overflow");
}

#[test]
fn the_median_of_short_chains_counts_what_is_there() {
    let times = [50, 10, 40, 20, 30];
    let headers: Vec<Header> = times.iter().map(|time| header(*time, EASIEST)).collect();
    let medians = [50, 50, 40, 40, 30];
    for (length, median) in (1..=5).zip(medians) {
        assert_eq!(median_time_past(&headers[..length]), median, "{length}");
        assert_eq!(
            median_time_past_at(headers.as_slice(), length as u32 - 1),
            median,
            "{length}"
        );
    }
    let long = chain(40, EASIEST);
    assert_eq!(median_time_past_at(long.as_slice(), 20), long[15].time);
}

#[test]
fn a_wrong_target_is_named_before_anything_else() {
    let params = Params::new(Network::Mainnet);
    let headers = chain(20, EASIEST);
    let wrong = contextual_check_header(&params, &header(0, 0x1c00_ffff), headers.as_slice(), 0);
    assert_eq!(reason(wrong), "bad-diffbits");
}

#[test]
fn old_versions_end_with_their_soft_forks() {
    /// A chain that claims to be `height` high without having that many headers.
    struct At(u32, Header);
    impl HeaderChain for At {
        fn height(&self) -> u32 {
            self.0
        }
        fn header_at(&self, _: u32) -> Header {
            self.1
        }
    }
    let params = Params::new(Network::Mainnet);
    let check = |version: i32, height: u32| {
        let parent = header(1_600_000_000, EASIEST);
        let mut child = header(1_600_000_600, EASIEST);
        child.version = Version::from_consensus(version);
        contextual_check_header(&params, &child, &At(height - 1, parent), NOW)
            .map_err(|reject| reject.reason.into_owned())
    };
    for (version, last) in [(1, 227_930), (2, 363_724), (3, 388_380)] {
        assert_eq!(check(version, last), Ok(()));
        assert_eq!(
            check(version, last + 1),
            Err(format!("bad-version(0x0000000{version})"))
        );
    }
    assert_eq!(check(4, 900_000), Ok(()));
    assert_eq!(check(0x2000_0000, 900_000), Ok(()));
    assert_eq!(
        check(-1, 900_000),
        Err("bad-version(0xffffffff)".into()),
        "versions are signed"
    );
    assert_eq!(check(i32::MIN, 1), Ok(()));
}

#[test]
fn transitions_beyond_a_factor_of_four_are_refused_without_context() {
    let params = Params::new(Network::Mainnet);
    let old = CompactTarget::from_consensus(0x1b04_04cb);
    let new = |span| retarget(old, span, 1_209_600, params.pow_limit);
    let permitted = |height, new| permitted_difficulty_transition(&params, height, old, new);
    assert!(permitted(2016, new(0)) && permitted(2016, new(i64::MAX)) && permitted(2016, old));
    assert!(
        !permitted(2016, CompactTarget::from_consensus(0x1b10_132d)),
        "a little easier than four times"
    );
    assert!(
        !permitted(2016, CompactTarget::from_consensus(0x1b01_0131)),
        "a little harder than a quarter"
    );
    assert!(!permitted(2017, new(0)) && permitted(2017, old));
    assert!(permitted_difficulty_transition(
        &Params::new(Network::Testnet4),
        5,
        old,
        new(0)
    ));
}
