//! The ways in which a block is broken, each by name, and the edges at which it is still whole.
//!
//! A way changes a block at one stage of its making, so that ways can be combined.

mod body;
mod coins;
mod edges;
mod header;
mod limits;
mod scripts;

use bitcoin::{Block, Transaction};
use dunlin_chain::ParsedBlock;
use dunlin_chain::build;

pub use edges::EDGES;

use super::maker::{Maker, Owned, State};
use super::regtest::{self, Made, Place};

/// When a way takes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before the block commits to its transactions and witnesses.
    Content,
    /// After that; what is changed here is not committed to any more, unless the way does it.
    Sealed,
    /// On the header, before the proof of work.
    Header,
    /// After the proof of work.
    Solved,
}

/// Changes a block on a state; `None` when the state has not what it takes.
pub type Change = fn(&mut Maker, &State, &mut Block) -> Option<()>;

/// A named change of a block.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub when: When,
    pub change: Change,
}

/// Every way to break a block.
pub fn all() -> Vec<Way> {
    [header::WAYS, body::WAYS, coins::WAYS, scripts::WAYS, limits::WAYS].concat()
}

const fn way(name: &'static str, when: When, change: Change) -> Way {
    Way { name, when, change }
}

/// A block on which every way took hold that could; says which did.
pub fn make(maker: &mut Maker, state: &State, ways: &[Way], transactions: usize) -> (Made, Vec<&'static str>) {
    let (txs, fees) = maker.body(state, transactions);
    let mut block = maker.draft(state, txs, fees);
    let mut names = Vec::new();
    let mut stage = |maker: &mut Maker, block: &mut Block, when: When| {
        for way in ways.iter().filter(|way| way.when == when) {
            // A way that gives up half way must leave no trace.
            let before = block.clone();
            match (way.change)(maker, state, block) {
                Some(()) => names.push(way.name),
                None => *block = before,
            }
        }
    };
    stage(maker, &mut block, When::Content);
    build::commit_witnesses(&mut block);
    build::commit_transactions(&mut block);
    stage(maker, &mut block, When::Sealed);
    stage(maker, &mut block, When::Header);
    // A target that cannot be met is left unmet.
    build::solve_within(&mut block, 10_000);
    stage(maker, &mut block, When::Solved);
    (wrap(state, block), names)
}

/// The block as it is, read from its bytes where they can be read.
pub fn wrap(state: &State, block: Block) -> Made {
    let raw = bitcoin::consensus::serialize(&block);
    Made {
        place: Place {
            hash: block.block_hash(),
            height: state.next(),
            time: block.header.time,
        },
        block: ParsedBlock::parse(raw.into()).unwrap_or_else(|_| ParsedBlock::from_block(block)),
    }
}

/// Copies of an honest block with other bodies under the same header: each must be refused, and none may spoil the
/// honest one.
pub fn mutations(maker: &mut Maker, state: &State) -> (Block, Vec<Block>) {
    let heavy = maker.dice.roll(16) == 0;
    let (txs, fees) = maker.body(state, 3);
    let mut honest = maker.draft(state, txs, fees);
    build::commit_witnesses(&mut honest);
    build::commit_transactions(&mut honest);
    build::solve(&mut honest);
    let mut copies = Vec::new();
    let mut copy = |change: &dyn Fn(&mut Vec<Transaction>)| {
        let mut block = honest.clone();
        change(&mut block.txdata);
        if block.txdata != honest.txdata && block.txdata.iter().all(|tx| !tx.input.is_empty()) {
            copies.push(block);
        }
    };
    copy(&|txs| txs.extend_from_within(txs.len() - 1..));
    copy(&|txs| txs.extend_from_within(txs.len().saturating_sub(2)..));
    copy(&|txs| txs.reverse());
    copy(&|txs| drop(txs.pop()));
    copy(&|txs| txs.clear());
    copy(&|txs| txs[0].input[0].witness.clear());
    copy(&|txs| txs[0].input[0].witness.push([0; 32]));
    copy(&|txs| {
        for tx in txs.iter_mut().skip(1) {
            for input in &mut tx.input {
                input.witness.clear();
            }
        }
    });
    copy(&|txs| {
        if let Some(tx) = txs.last_mut() {
            tx.input[0].witness.push([1; 1000]);
        }
    });
    copy(&|txs| {
        if let Some(tx) = txs.get_mut(1) {
            tx.output[0].script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![0xac; 30_000]);
        }
    });
    if heavy {
        copy(&|txs| {
            // So heavy that it breaks a limit, too.
            if let Some(tx) = txs.get_mut(1) {
                tx.input[0].witness.push(vec![1; 3_990_000]);
            }
        });
    }
    (honest, copies)
}

/// Appends a transaction.
fn add(block: &mut Block, tx: Transaction) -> Option<()> {
    block.txdata.push(tx);
    Some(())
}

/// Appends a transaction that spends a coin which is open to anybody, made by `change`.
fn add_open(
    maker: &mut Maker,
    state: &State,
    block: &mut Block,
    change: impl FnOnce(&mut Transaction, &Owned),
) -> Option<()> {
    let coin = maker.open_coin(state)?;
    let mut tx = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
    change(&mut tx, &coin);
    add(block, tx)
}
