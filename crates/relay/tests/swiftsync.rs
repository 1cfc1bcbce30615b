//! The full form of SwiftSync: blocks come with the coins that they spend, from peers that offer them (BIP 455).
#![allow(clippy::unwrap_used)]

mod bed;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, Twist, money};
use bitcoin::Amount;
use dunlin_chain::swiftsync::{Hints, SwiftSync};
use dunlin_chain::{AssumeValid, Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock, Prune};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The hinted height.
const TARGET: u32 = 130;
const BLOCKS: u32 = 150;

/// A chain with signed spends, old and young coins, and hints for it.
fn story() -> (Vec<Arc<ParsedBlock>>, Vec<u8>) {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let end = START - 60;
    let mut blocks = money::extend(&mut chain, 101, end - 600 * u64::from(BLOCKS - 101), &[]);
    let wallet = money::Wallet::new(1);
    for height in 102..=BLOCKS {
        let (coin, value) = money::reward(&blocks[height as usize - 102]);
        let first = wallet.spend(coin, value, 3, 0);
        let output = (bitcoin::OutPoint::new(first.compute_txid(), 0), first.output[0].value);
        let second = wallet.spend(output.0, output.1, 2, 0);
        let time = end - 600 * u64::from(BLOCKS - height);
        let block = money::block_on(&chain.view(), time, vec![first, second], 0, &[]);
        let block = ParsedBlock::from_block(block);
        chain.accept_block(end + 7200, block.clone()).unwrap();
        blocks.push(block);
    }
    let mut hints = Cursor::new(Vec::new());
    let frozen = chain.freeze_coins().unwrap();
    frozen.write_hints(TARGET, &mut hints, &mut |_, _| ()).unwrap();
    (blocks, hints.into_inner())
}

struct Story {
    bed: Bed,
    blocks: Vec<Arc<ParsedBlock>>,
    hints: Vec<u8>,
}

impl Story {
    fn new() -> Self {
        let (blocks, hints) = story();
        let bed = Bed::new();
        Self { bed, blocks, hints }
    }

    /// Somebody with the whole chain.
    fn full(&mut self) -> usize {
        let member = self.bed.member();
        self.bed.preload(member, &self.blocks);
        member
    }

    /// Somebody with the whole chain who does not promise to keep what blocks spent.
    fn forgetful(&mut self) -> usize {
        let config = ChainConfig {
            prune: Prune::Manual,
            ..ChainConfig::default()
        };
        let chain = Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap();
        let member = self.bed.member_of(chain, |_| {});
        self.bed.preload(member, &self.blocks);
        member
    }

    /// Somebody with nothing but hints, who checks every script.
    fn swift(&mut self) -> usize {
        let config = ChainConfig {
            assume_valid: AssumeValid::Never,
            swiftsync: Some(SwiftSync {
                hints: Arc::new(Hints::parse(self.hints.clone()).unwrap()),
                secret: [9; 32],
            }),
            ..ChainConfig::default()
        };
        let chain = Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).unwrap();
        self.bed.member_of(chain, |_| {})
    }

    fn reaches_the_tip(&mut self, member: usize, within: Duration) -> bool {
        let done = self.bed.run_until(within, |bed| bed.members[member].height() == BLOCKS);
        assert!(!done || self.bed.members[member].tip() == self.blocks.last().unwrap().hash);
        done
    }

    /// The coins of both are the same, and so is what every block spent.
    fn agree(&mut self, one: usize, other: usize) {
        let coins = |bed: &mut Bed, member: usize| bed.members[member].engine.chain.summarize_coins().unwrap();
        assert_eq!(coins(&mut self.bed, one), coins(&mut self.bed, other));
        let (one, other) = (self.bed.members[one].view(), self.bed.members[other].view());
        for block in &self.blocks {
            let undo = one.undo(&block.hash).unwrap();
            assert!(undo.is_some());
            assert_eq!(undo, other.undo(&block.hash).unwrap());
        }
    }

    fn warning(&self, member: usize) -> Option<String> {
        self.bed.members[member].view().warning()
    }
}

#[test]
fn one_of_us_serves_and_another_syncs_with_every_script_checked() {
    let mut story = Story::new();
    let (full, swift) = (story.full(), story.swift());
    story.bed.join(swift, full);
    assert!(story.reaches_the_tip(swift, HOUR));
    assert_eq!(story.warning(swift), None);
    story.agree(full, swift);
    // Each block and its coins were sent once, the coins only up to the hinted height.
    assert_eq!(story.bed.messages["block"], u64::from(BLOCKS));
    assert_eq!(story.bed.messages["bspent"], u64::from(TARGET));
    assert!(story.bed.misbehaviours(swift).is_empty());

    // Who was synced so has everything to serve the next one.
    let next = story.swift();
    story.bed.join(next, swift);
    assert!(story.reaches_the_tip(next, HOUR));
    assert_eq!(story.warning(next), None);
    story.agree(full, next);
}

#[test]
fn lies_that_only_the_end_shows_cost_time_and_nothing_else() {
    let lies: [Twist; 3] = [
        |told| {
            if let [(_, coin), ..] = &mut told.coins[..] {
                coin.height -= u32::from(coin.height > 5);
            }
        },
        // The signature is over the amount, and the key is in the script.
        |told| {
            if let [(_, coin), ..] = &mut told.coins[..] {
                coin.output.value += Amount::from_sat(1);
            }
        },
        |told| {
            if let [(_, coin), ..] = &mut told.coins[..] {
                coin.output.script_pubkey = vec![0x51].into();
            }
        },
    ];
    for twist in lies {
        let mut story = Story::new();
        let (liar, swift) = (story.full(), story.swift());
        story.bed.twist = Some((liar, twist));
        story.bed.join(swift, liar);
        assert!(story.reaches_the_tip(swift, HOUR));
        let warning = story.warning(swift).unwrap();
        assert!(warning.starts_with("SwiftSync to height 130 has failed"), "{warning}");
        story.agree(liar, swift);
    }
}

#[test]
fn whoever_tells_coins_that_do_not_fit_is_dropped_and_another_is_asked() {
    let misfits: [Twist; 4] = [
        |told| drop(told.coins.pop()),
        |told| {
            if let [.., (place, _)] = &mut told.coins[..] {
                *place += 1;
            }
        },
        |told| {
            if let [(_, coin), ..] = &mut told.coins[..] {
                coin.height = 1 << 30;
            }
        },
        |told| {
            if let [.., (_, coin)] = &mut told.coins[..] {
                coin.output.value += Amount::from_sat(1);
            }
        },
    ];
    for twist in misfits {
        let mut story = Story::new();
        let (liar, full, swift) = (story.full(), story.full(), story.swift());
        story.bed.twist = Some((liar, twist));
        story.bed.join(swift, liar);
        story.bed.run(SECOND / 2);
        story.bed.join(swift, full);
        assert!(story.reaches_the_tip(swift, HOUR));
        assert_eq!(story.warning(swift), None, "it was the full form to the end");
        story.agree(full, swift);
        let told = story.bed.misbehaviours(swift);
        let fits = |(reason, _): &(String, bool)| reason.starts_with("spent coins that do not fit block ");
        assert!(!told.is_empty() && told.iter().all(fits), "{told:?}");
    }
}

#[test]
fn losing_the_server_in_the_middle_does_not_stop_it() {
    let mut story = Story::new();
    let (first, second, swift) = (story.full(), story.full(), story.swift());
    story.bed.join(swift, first);
    let begun = |bed: &Bed| bed.messages.get("bspent").is_some_and(|count| *count > 30);
    assert!(story.bed.run_until(HOUR, begun));
    story.bed.kill(first);
    story.bed.join(swift, second);
    assert!(story.reaches_the_tip(swift, HOUR));
    assert_eq!(story.warning(swift), None);
    story.agree(second, swift);
}

#[test]
fn without_a_peer_that_offers_coins_the_ordinary_sync_begins_after_a_while() {
    let mut story = Story::new();
    let (forgetful, swift) = (story.forgetful(), story.swift());
    story.bed.join(swift, forgetful);
    assert!(!story.reaches_the_tip(swift, 59 * SECOND));
    assert!(!story.bed.messages.contains_key("getbspent"));
    assert_eq!(story.bed.members[swift].height(), 0);
    assert!(story.reaches_the_tip(swift, 60 * SECOND));
    assert_eq!(story.warning(swift), None);

    // One that offers them among others is enough.
    let mut story = Story::new();
    let (forgetful, full, swift) = (story.forgetful(), story.full(), story.swift());
    story.bed.join(swift, forgetful);
    story.bed.run(30 * SECOND);
    story.bed.join(swift, full);
    assert!(story.reaches_the_tip(swift, HOUR));
    assert_eq!(story.bed.messages["bspent"], u64::from(TARGET));
    story.agree(full, swift);
}

#[test]
fn without_any_peer_it_waits() {
    let mut story = Story::new();
    let swift = story.swift();
    story.bed.run(HOUR);
    let wanted = story.bed.members[swift].view().spent_coins_wanted();
    assert_eq!(wanted, Some(TARGET));
}
