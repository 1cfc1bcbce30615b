//! Coins that are not there, too young or too small, and amounts that cannot be.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, OutPoint, Sequence, Transaction, Txid};

use super::When::Content;
use super::{Way, add, add_open, way};
use crate::world::locks::Lock;
use crate::world::maker::{Maker, Owned, SECONDS, State};
use crate::world::regtest;

const MAX_MONEY: u64 = 2_100_000_000_000_000;

pub const WAYS: &[Way] = &[
    way("a coinbase that pays one satoshi too much", Content, |_, _, block| {
        block.txdata[0].output[0].value += Amount::ONE_SAT;
        Some(())
    }),
    way("a coinbase that pays all money", Content, |_, _, block| {
        block.txdata[0].output[0].value = Amount::from_sat(MAX_MONEY);
        Some(())
    }),
    way("a coin spent twice in a block", Content, |maker, state, block| {
        let coin = maker.coin(state, |_| true)?;
        let first = maker.tx(state, &[coin]).0;
        let mut second = maker.unsigned(state, &[coin], 1);
        maker.sign(&mut second, &[coin]);
        block.txdata.push(first);
        add(block, second)
    }),
    way("a coin that is spent already", Content, |maker, state, block| {
        let parent = state.parent.as_ref()?;
        let gone = |coin: &Owned| !state.coins.iter().any(|mine| mine.at == coin.at);
        let coin = maker.coin(parent, gone)?;
        let tx = maker.tx(state, &[coin]).0;
        add(block, tx)
    }),
    way("a coin that never was", Content, |maker, state, block| {
        let mut coin = maker.coin(state, |_| true)?;
        coin.at.txid = Txid::from_byte_array([9; 32]);
        let tx = maker.tx(state, &[coin]).0;
        add(block, tx)
    }),
    way(
        "an output that its transaction has not",
        Content,
        |maker, state, block| {
            let mut coin = maker.coin(state, |_| true)?;
            coin.at.vout = 70;
            let tx = maker.tx(state, &[coin]).0;
            add(block, tx)
        },
    ),
    way("the coinbase of the genesis block", Content, |maker, state, block| {
        let genesis = dunlin_chain::Params::new(dunlin_chain::Network::Regtest).genesis;
        let mut coin = maker.coin(state, |_| true)?;
        coin.at = OutPoint {
            txid: genesis.txdata[0].compute_txid(),
            vout: 0,
        };
        let tx = maker.tx(state, &[coin]).0;
        add(block, tx)
    }),
    way("an output that only carries data", Content, |maker, state, block| {
        let coin = maker.open_coin(state)?;
        let data = regtest::spend(&[coin.at], &[(coin.value, vec![0x6a, 1, 2].into())]);
        let at = first_output(&data);
        block.txdata.push(data);
        add(block, regtest::spend(&[at], &[(0, regtest::open_script())]))
    }),
    way(
        "an output whose script is too long to run",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            let long = regtest::spend(&[coin.at], &[(coin.value, super::edges::long_script(10_001))]);
            let at = first_output(&long);
            block.txdata.push(long);
            add(block, regtest::spend(&[at], &[(0, regtest::open_script())]))
        },
    ),
    way("a child before its parent", Content, |maker, state, block| {
        let coin = maker.open_coin(state)?;
        let parent = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
        let child = regtest::spend(&[first_output(&parent)], &[(0, regtest::open_script())]);
        block.txdata.push(child);
        add(block, parent)
    }),
    way(
        "a coinbase spent one block too early",
        Content,
        |maker, state, block| {
            let height = state.next();
            let locked = |coin: &Owned| matches!(coin.lock, Lock::Until(_) | Lock::After(_));
            let young = |coin: &Owned| coin.coinbase && coin.height + 99 == height && !locked(coin);
            let coin = maker.pick_any(state, 1, young).pop()?;
            let tx = maker.tx(state, &[coin]).0;
            add(block, tx)
        },
    ),
    way("the block's own coinbase spent", Content, |maker, state, block| {
        let at = first_output(&block.txdata[0]);
        let _ = (maker, state);
        add(block, regtest::spend(&[at], &[(0, regtest::open_script())]))
    }),
    way(
        "a transaction that the chain has already",
        Content,
        |maker, state, block| {
            // BIP 30, while one of its outputs is unspent.
            let _ = maker;
            let unspent = |tx: &&Transaction| {
                let txid = tx.compute_txid();
                state.coins.iter().any(|coin| coin.at.txid == txid)
            };
            let tx = state.txs.iter().find(unspent)?.clone();
            add(block, tx)
        },
    ),
    way("a coinbase that the chain has already", Content, |_, state, block| {
        block.txdata[0] = state.coinbase.clone()?;
        Some(())
    }),
    way("more paid than spent", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| tx.output[0].value += Amount::ONE_SAT)
    }),
    way("an amount beyond all money", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            tx.output[0].value = Amount::from_sat(MAX_MONEY + 1);
        })
    }),
    way("a negative amount", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            tx.output[0].value = Amount::from_sat(u64::MAX)
        })
    }),
    way("the most negative amount", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            tx.output[0].value = Amount::from_sat(1 << 63)
        })
    }),
    way(
        "amounts that together pass all money",
        Content,
        |maker, state, block| {
            add_open(maker, state, block, |tx, _| {
                tx.output[0].value = Amount::from_sat(MAX_MONEY);
                let more = tx.output[0].clone();
                tx.output.push(more);
            })
        },
    ),
    way("amounts that together overflow", Content, |maker, state, block| {
        // CVE-2010-5139: two amounts whose sum wraps to almost nothing.
        add_open(maker, state, block, |tx, _| {
            tx.output[0].value = Amount::from_sat(i64::MAX as u64 - 500_000);
            let more = tx.output[0].clone();
            tx.output.push(more);
        })
    }),
    way("a lock time at this very height", Content, |maker, state, block| {
        locked(maker, state, block, state.next())
    }),
    way("a lock time at the median time past", Content, |maker, state, block| {
        locked(maker, state, block, state.median())
    }),
    way("the last lock time there is", Content, |maker, state, block| {
        locked(maker, state, block, u32::MAX)
    }),
    way(
        "a relative lock of one block too many",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            relative(block, coin, 2, state.next() + 1 - coin.height)
        },
    ),
    way(
        "a relative lock of one unit of time too many",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            relative(block, coin, 2, SECONDS | (state.units_since(&coin) + 1))
        },
    ),
    way("a relative lock of a year", Content, |maker, state, block| {
        let coin = maker.open_coin(state)?;
        relative(block, coin, 2, SECONDS | 0xffff)
    }),
    way(
        "a relative lock in a transaction of negative version",
        Content,
        |maker, state, block| {
            // The version is compared without its sign.
            let coin = maker.open_coin(state)?;
            relative(block, coin, -2, 0xffff)
        },
    ),
    way(
        "a relative lock on a coin of the same block",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            let parent = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
            let mut child = regtest::spend(&[first_output(&parent)], &[(0, regtest::open_script())]);
            child.input[0].sequence = Sequence(1);
            block.txdata.push(parent);
            add(block, child)
        },
    ),
];

fn first_output(tx: &Transaction) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout: 0,
    }
}

fn locked(maker: &mut Maker, state: &State, block: &mut Block, until: u32) -> Option<()> {
    let coin = maker.open_coin(state)?;
    let mut tx = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
    tx.lock_time = LockTime::from_consensus(until);
    tx.input[0].sequence = Sequence(0xffff_fffe);
    add(block, tx)
}

fn relative(block: &mut Block, coin: Owned, version: i32, sequence: u32) -> Option<()> {
    let mut tx = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
    tx.version = bitcoin::transaction::Version(version);
    tx.input[0].sequence = Sequence(sequence);
    add(block, tx)
}
