//! Blocks that just fit: at every limit, and with everything that looks odd and is allowed.

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Amount, Block, ScriptBuf, Sequence, Transaction, Witness};
use dunlin_chain::{build, rules};

use super::When::{Content, Header, Sealed};
use super::{Way, add, add_open, limits, scripts, way};
use crate::world::locks::Lock;
use crate::world::maker::{Maker, Owned, SECONDS, State};
use crate::world::regtest;

/// Changes after which a block is still valid, if it had nothing else in it.
pub const EDGES: &[Way] = &[
    way("the earliest time", Header, |_, state, block| {
        block.header.time = state.median() + 1;
        Some(())
    }),
    way("version 4", Header, |_, _, block| version(block, 4)),
    way("every version bit", Header, |_, _, block| version(block, 0x3fff_ffff)),
    way("the last version", Header, |_, _, block| version(block, i32::MAX)),
    way("all signature operations that fit", Content, |_, _, block| {
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_000 - in_coinbase(block)]);
        Some(())
    }),
    way(
        "all signature operations that fit, in witness scripts",
        Content,
        |maker, state, block| {
            if in_coinbase(block) > 0 {
                return None;
            }
            block.txdata[0].output[0].script_pubkey = regtest::open_script();
            limits::witness_sigops(maker, state, block, 80, 1000, false)
        },
    ),
    way("all the weight that fits", Content, |maker, state, block| {
        weigh(maker, state, block, 4_000_000)
    }),
    way("a coinbase script of a hundred bytes", Content, |_, _, block| {
        let mut script = block.txdata[0].input[0].script_sig.to_bytes();
        script.resize(100, 0xac);
        // The bytes after the height may be anything; these count as operations.
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        Some(())
    }),
    way("the shortest coinbase script", Content, |_, state, block| {
        let mut script = rules::bip34_prefix(state.next());
        script.resize(script.len().max(2), 0);
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        block.txdata[0].output[0].value -= Amount::from_sat(u64::from(state.place.time % 1000));
        Some(())
    }),
    way("a coinbase that leaves everything", Content, |_, _, block| {
        block.txdata[0].output[0].value = Amount::ZERO;
        Some(())
    }),
    way("no commitment and no witness", Sealed, |_, _, block| {
        if block.txdata.len() > 1 {
            return None;
        }
        block.txdata[0].output.truncate(1);
        block.txdata[0].input[0].witness.clear();
        build::commit_transactions(block);
        Some(())
    }),
    way("a commitment to a reserved value of its own", Sealed, |_, _, block| {
        let index = rules::witness_commitment_index(&block.txdata[0])?;
        recommit(block, index, [7; 32]);
        Some(())
    }),
    way("the right commitment after a wrong one", Sealed, |_, _, block| {
        let index = rules::witness_commitment_index(&block.txdata[0])?;
        let right = block.txdata[0].output[index].clone();
        let mut bytes = right.script_pubkey.to_bytes();
        bytes[20] ^= 1;
        block.txdata[0].output[index].script_pubkey = ScriptBuf::from_bytes(bytes);
        block.txdata[0].output.push(right);
        build::commit_transactions(block);
        Some(())
    }),
    way("a commitment with more behind it", Sealed, |_, _, block| {
        let index = rules::witness_commitment_index(&block.txdata[0])?;
        let mut bytes = block.txdata[0].output[index].script_pubkey.to_bytes();
        bytes.extend([0xff; 50]);
        block.txdata[0].output[index].script_pubkey = ScriptBuf::from_bytes(bytes);
        build::commit_transactions(block);
        Some(())
    }),
    way("a coinbase spent as soon as it may", Content, |maker, state, block| {
        let height = state.next();
        let coin = maker.coin(state, |coin| coin.coinbase && coin.height + 100 == height)?;
        let tx = maker.tx(state, &[coin]).0;
        add(block, tx)
    }),
    way("a transaction of 64 bytes", Content, |maker, state, block| {
        // As long as an inner node of the merkle tree.
        add_open(maker, state, block, |tx, _| {
            tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51, 0x61, 0x61, 0x61]);
        })
    }),
    way(
        "all the money that a coin has in one fee",
        Content,
        |maker, state, block| add_open(maker, state, block, |tx, _| tx.output[0].value = Amount::ZERO),
    ),
    way("a script of ten thousand bytes", Content, |maker, state, block| {
        let (lock, open) = scripts::through(maker, state, long_script(10_000))?;
        block.txdata.push(lock);
        add(block, open)
    }),
    way("two hundred and one operations", Content, |maker, state, block| {
        let mut script = vec![0x61; 201];
        script.push(0x51);
        let (lock, open) = scripts::through(maker, state, ScriptBuf::from_bytes(script))?;
        block.txdata.push(lock);
        add(block, open)
    }),
    way("a thousand elements", Content, |maker, state, block| {
        let (lock, open) = scripts::through(maker, state, ScriptBuf::from_bytes(vec![0x51; 1000]))?;
        block.txdata.push(lock);
        add(block, open)
    }),
    way("a witness element of 520 bytes", Content, |maker, state, block| {
        let script = ScriptBuf::from_bytes(vec![0x75, 0x51]);
        let (lock, mut open) = scripts::through(maker, state, script.to_p2wsh())?;
        open.input[0].witness = Witness::from_slice(&[&[0; 520][..], script.as_bytes()]);
        block.txdata.push(lock);
        add(block, open)
    }),
    way(
        "a witness for a version without rules",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::FutureWitness)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            tx.input[0].witness = Witness::from_slice(&[vec![0; 5000], vec![], vec![1; 3]]);
            add(block, tx)
        },
    ),
    way("an annex of ten thousand bytes", Content, |maker, state, block| {
        let coin = maker.coin(state, |coin| coin.lock == Lock::FutureWitness)?;
        let mut tx = maker.unsigned(state, &[coin], 0);
        tx.input[0].witness = Witness::from_slice(&[vec![0x50; 10_000]]);
        add(block, tx)
    }),
    way("a chain of twenty in one block", Content, |maker, state, block| {
        let coin = maker.open_coin(state)?;
        let mut at = coin.at;
        for _ in 0..20 {
            let tx = regtest::spend(&[at], &[(coin.value, regtest::open_script())]);
            at.txid = tx.compute_txid();
            at.vout = 0;
            block.txdata.push(tx);
        }
        Some(())
    }),
    way("a lock time just behind", Content, |maker, state, block| {
        lock_time(maker, state, block, state.place.height, 0)
    }),
    way("a lock time just before the median", Content, |maker, state, block| {
        lock_time(maker, state, block, state.median() - 1, 0)
    }),
    way(
        "a lock time far ahead with final inputs",
        Content,
        |maker, state, block| lock_time(maker, state, block, u32::MAX, u32::MAX),
    ),
    way("a relative lock that is just open", Content, |maker, state, block| {
        let coin = maker.open_coin(state)?;
        sequence(block, coin, 2, state.next() - coin.height)
    }),
    way(
        "a relative lock in time that is just open",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            sequence(block, coin, 2, SECONDS | state.units_since(&coin).min(0xffff))
        },
    ),
    way(
        "a relative lock that is switched off",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            sequence(block, coin, 2, (1 << 31) | 0xffff)
        },
    ),
    way(
        "a relative lock with bits that mean nothing",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            sequence(block, coin, 2, 0x3fbf_0000 | (state.next() - coin.height))
        },
    ),
    way(
        "a relative lock in a transaction of version 1",
        Content,
        |maker, state, block| {
            let coin = maker.open_coin(state)?;
            sequence(block, coin, 1, 0xffff)
        },
    ),
];

/// Operations in the script of the coinbase's input: whatever bytes follow its height may look like some.
fn in_coinbase(block: &Block) -> usize {
    let script = &block.txdata[0].input[0].script_sig;
    usize::try_from(rules::script_sigops(script, false)).unwrap()
}

fn version(block: &mut Block, version: i32) -> Option<()> {
    block.header.version = Version::from_consensus(version);
    Some(())
}

fn lock_time(maker: &mut Maker, state: &State, block: &mut Block, until: u32, sequence: u32) -> Option<()> {
    add_open(maker, state, block, |tx, _| {
        tx.lock_time = LockTime::from_consensus(until);
        tx.version = bitcoin::transaction::Version::ONE;
        tx.input[0].sequence = Sequence(sequence);
    })
}

fn sequence(block: &mut Block, coin: Owned, version: i32, sequence: u32) -> Option<()> {
    let mut tx = regtest::spend(&[coin.at], &[(coin.value, regtest::open_script())]);
    tx.version = bitcoin::transaction::Version(version);
    tx.input[0].sequence = Sequence(sequence);
    add(block, tx)
}

/// Commits to the witnesses in output `index` of the coinbase with another reserved value.
fn recommit(block: &mut Block, index: usize, reserved: [u8; 32]) {
    let root = rules::witness_root(block.txdata.iter().map(Transaction::compute_wtxid));
    let digest = sha256d::Hash::hash(&[root.to_byte_array(), reserved].concat());
    let mut script = rules::WITNESS_COMMITMENT_HEADER.to_vec();
    script.extend(digest.to_byte_array());
    block.txdata[0].output[index].script_pubkey = ScriptBuf::from_bytes(script);
    block.txdata[0].input[0].witness = Witness::from_slice(&[reserved]);
    build::commit_transactions(block);
}

/// A script of `length` bytes that anybody satisfies if it is not too long: pushes that are dropped, then a true.
pub(super) fn long_script(length: usize) -> ScriptBuf {
    let mut script = Vec::new();
    while length - script.len() > 525 {
        script.extend([0x4d, 0x08, 0x02]);
        script.extend([0; 520]);
        script.push(0x75);
    }
    // What is left: a push of the exact length, dropped, and the true.
    let rest = length - script.len() - 5;
    script.push(0x4d);
    script.extend((rest as u16).to_le_bytes());
    script.extend(vec![0; rest]);
    script.extend([0x75, 0x51]);
    ScriptBuf::from_bytes(script)
}

/// Fills the block until it weighs exactly this much: bytes of the coinbase for the bulk, then bytes of a witness.
pub(super) fn weigh(maker: &mut Maker, state: &State, block: &mut Block, weight: u64) -> Option<()> {
    let coin = maker.coin(state, |coin| coin.lock == Lock::FutureWitness)?;
    let mut tx = maker.unsigned(state, &[coin], 0);
    tx.input[0].witness = Witness::from_slice(&[vec![0; 10]]);
    block.txdata.push(tx);
    block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 900_000]);
    build::commit_witnesses(block);
    let now = block.weight().to_wu();
    let more = usize::try_from(weight.checked_sub(now)?).ok()?;
    // Neither length prefix changes its size on the way.
    block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 900_000 + more / 4]);
    let last = block.txdata.len() - 1;
    block.txdata[last].input[0].witness = Witness::from_slice(&[vec![0; 10 + more % 4]]);
    build::commit_witnesses(block);
    (block.weight().to_wu() == weight).then_some(())
}
