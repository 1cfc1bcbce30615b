//! The ways in which a block is broken, each by name.

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, Txid, Witness};
use dunlin_chain::build;

use crate::maker::{Lock, Maker, Owned, State};
use crate::regtest::{self, Made};

/// Makes a block on a state that breaks one rule; `None` when the state has not what it takes.
pub type Way = fn(&mut Maker, &State) -> Option<Made>;

/// Every way.
pub const WAYS: &[(&str, Way)] = &[
    ("merkle root of other transactions", |maker, state| {
        let mut block = with_txs(maker, state)?;
        block.header.merkle_root = bitcoin::TxMerkleNode::all_zeros();
        Some(seal(state, block))
    }),
    ("last transaction repeated", |maker, state| {
        // The root stays the same when a row of odd length repeats its last.
        let coins = maker.pick(state, 2, |coin| coin.value > 0);
        let (first, second) = (coins.first()?, coins.get(1)?);
        let (a, b) = (maker.tx(state, &[*first]).0, maker.tx(state, &[*second]).0);
        let mut block = ready(maker, state, vec![a, b], 0);
        block.txdata.push(block.txdata[2].clone());
        Some(seal(state, block))
    }),
    ("witness changed after the commitment", |maker, state| {
        let mut block = with_spend(maker, state, |coin| coin.lock == Lock::WitnessScriptHash)?;
        block.txdata[1].input[0].witness.push([1]);
        Some(seal(state, block))
    }),
    ("witness without a commitment", |maker, state| {
        let mut block = with_spend(maker, state, |coin| coin.lock == Lock::WitnessScriptHash)?;
        let index = block.txdata[0].output.len() - 1;
        block.txdata[0].output.remove(index);
        block.txdata[0].input[0].witness = Witness::new();
        build::commit_transactions(&mut block);
        Some(seal(state, block))
    }),
    ("reserved witness value of another size", |maker, state| {
        let mut block = with_txs(maker, state)?;
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0u8; 31]]);
        Some(seal(state, block))
    }),
    ("a coinbase that pays one satoshi too much", |maker, state| {
        let (txs, fees) = maker.body(state, 2);
        let block = maker.draft(state, txs, fees + 1);
        Some(maker.finish(state, block))
    }),
    ("a coin spent twice in a block", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.value > 0).first()?;
        let (first, second) = (maker.tx(state, &[coin]).0, maker.tx(state, &[coin]).0);
        let mut second = second;
        second.version = bitcoin::transaction::Version(3);
        maker.sign(&mut second, &[coin]);
        spending(maker, state, vec![first, second])
    }),
    ("a coin that is spent already", |maker, state| {
        let parent = state.parent.as_ref()?;
        let gone = |coin: &Owned| !state.coins.iter().any(|mine| mine.at == coin.at);
        let coin = *maker.pick(parent, 1, gone).first()?;
        let tx = maker.tx(state, &[coin]).0;
        spending(maker, state, vec![tx])
    }),
    ("a coin that never was", |maker, state| {
        let mut coin = *maker.pick(state, 1, |_| true).first()?;
        coin.at.txid = Txid::from_byte_array([9; 32]);
        let tx = maker.tx(state, &[coin]).0;
        spending(maker, state, vec![tx])
    }),
    ("a child before its parent", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.value > 0).first()?;
        let mut parent = maker.unsigned(&[coin], 0);
        parent.output[0].script_pubkey = regtest::open_script();
        maker.sign(&mut parent, &[coin]);
        let at = OutPoint {
            txid: parent.compute_txid(),
            vout: 0,
        };
        let child = regtest::spend(&[at], &[(parent.output[0].value.to_sat(), regtest::open_script())]);
        spending(maker, state, vec![child, parent])
    }),
    ("a coinbase spent one block too early", |maker, state| {
        let height = state.place.height + 1;
        let coin = *state
            .coins
            .iter()
            .find(|coin| coin.coinbase && coin.height + 99 == height)?;
        let tx = maker.tx(state, &[coin]).0;
        spending(maker, state, vec![tx])
    }),
    ("more paid than spent", |maker, state| {
        let coin = *maker.pick(state, 1, |_| true).first()?;
        let mut tx = maker.unsigned(&[coin], 0);
        tx.output[0].value += Amount::ONE_SAT;
        maker.sign(&mut tx, &[coin]);
        spending(maker, state, vec![tx])
    }),
    ("a signature over something else (p2pkh)", |maker, state| {
        foreign_signature(maker, state, Lock::KeyHash)
    }),
    ("a signature over something else (p2wpkh)", |maker, state| {
        foreign_signature(maker, state, Lock::WitnessKeyHash)
    }),
    ("a signature over something else (taproot)", |maker, state| {
        foreign_signature(maker, state, Lock::Taproot)
    }),
    ("a script of another hash", |maker, state| {
        let coin = *maker
            .pick(state, 1, |coin| coin.lock == Lock::WitnessScriptHash)
            .first()?;
        let mut tx = maker.unsigned(&[coin], 0);
        tx.input[0].witness = Witness::from_slice(&[[0x52u8]]);
        spending(maker, state, vec![tx])
    }),
    ("a witness for a coin that takes none", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let mut tx = maker.unsigned(&[coin], 0);
        tx.input[0].witness = Witness::from_slice(&[[1u8]]);
        spending(maker, state, vec![tx])
    }),
    ("a script that ends with false", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let lock = regtest::spend(&[coin.at], &[(coin.value, regtest::closed_script())]);
        let at = OutPoint {
            txid: lock.compute_txid(),
            vout: 0,
        };
        let open = regtest::spend(&[at], &[(coin.value, regtest::open_script())]);
        spending(maker, state, vec![lock, open])
    }),
    ("another height in the coinbase", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(build_height(state.place.height));
        Some(maker.finish(state, block))
    }),
    ("a coinbase script that is too long", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        let mut script = block.txdata[0].input[0].script_sig.to_bytes();
        script.resize(101, 0);
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        Some(maker.finish(state, block))
    }),
    ("two coinbases", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        let mut second = block.txdata[0].clone();
        second.output.truncate(1);
        second.output[0].value = Amount::ZERO;
        block.txdata.push(second);
        Some(maker.finish(state, block))
    }),
    ("no coinbase", |maker, state| {
        let mut block = with_txs(maker, state)?;
        block.txdata.remove(0);
        build::commit_transactions(&mut block);
        Some(seal(state, block))
    }),
    ("no transaction at all", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.txdata.clear();
        build::commit_transactions(&mut block);
        Some(seal(state, block))
    }),
    ("a lock time at this very height", |maker, state| {
        locked(maker, state, |_, state| state.place.height + 1)
    }),
    ("a lock time at the median time past", |maker, state| {
        locked(maker, state, |_, state| state.median())
    }),
    ("a relative lock of one block too many", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.value > 0).first()?;
        relative(maker, state, coin, state.place.height + 2 - coin.height)
    }),
    ("a relative lock of a year", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.value > 0).first()?;
        relative(maker, state, coin, 0x0040_ffff)
    }),
    ("a time that is not after the median", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.time = state.median();
        Some(maker.finish(state, block))
    }),
    ("a time three hours ahead", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.time = u32::try_from(crate::now() + 3 * 60 * 60).unwrap();
        Some(maker.finish(state, block))
    }),
    ("another difficulty", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.bits = CompactTarget::from_consensus(0x207f_fffe);
        Some(maker.finish(state, block))
    }),
    ("a target beyond the limit", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.bits = CompactTarget::from_consensus(0x2100_ffff);
        Some(maker.finish(state, block))
    }),
    ("an old version", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.version = Version::from_consensus(3);
        Some(maker.finish(state, block))
    }),
    ("no proof of work", |maker, state| {
        let made = maker.block(state);
        let mut block = made.block.block().clone();
        while block.header.target().is_met_by(block.block_hash()) {
            block.header.nonce = block.header.nonce.wrapping_add(1);
        }
        Some(unsolved(state, block))
    }),
    ("a parent that nobody knows", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.header.prev_blockhash = bitcoin::BlockHash::from_byte_array([7; 32]);
        Some(maker.finish(state, block))
    }),
    ("an input named twice", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let tx = regtest::spend(&[coin.at, coin.at], &[(coin.value, regtest::open_script())]);
        spending(maker, state, vec![tx])
    }),
    ("a transaction without outputs", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        spending(maker, state, vec![regtest::spend(&[coin.at], &[])])
    }),
    ("a null input beside a real one", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let tx = regtest::spend(&[coin.at, OutPoint::null()], &[(coin.value, regtest::open_script())]);
        spending(maker, state, vec![tx])
    }),
    ("an amount beyond all money", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let tx = regtest::spend(&[coin.at], &[(2_100_000_000_000_001, regtest::open_script())]);
        spending(maker, state, vec![tx])
    }),
    ("a negative amount", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let tx = regtest::spend(&[coin.at], &[(u64::MAX, regtest::open_script())]);
        spending(maker, state, vec![tx])
    }),
    ("amounts that together pass all money", |maker, state| {
        let coin = *maker.pick(state, 1, |coin| coin.lock == Lock::Open).first()?;
        let most = (2_100_000_000_000_000, regtest::open_script());
        spending(maker, state, vec![regtest::spend(&[coin.at], &[most.clone(), most])])
    }),
    ("too many signature operations", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_001]);
        Some(maker.finish(state, block))
    }),
    ("too many signature operations in witness scripts", |maker, state| {
        // 80 x 1001 operations, each once, in scripts that leave before they run.
        let mut script = vec![0x51, 0x63, 0x51, 0x67];
        script.extend([0xac; 1001]);
        script.push(0x68);
        let script = ScriptBuf::from_bytes(script);
        let coin = *maker
            .pick(state, 1, |coin| coin.lock == Lock::Open && coin.value > 1000)
            .first()?;
        let output = (coin.value / 100, ScriptBuf::new_p2wsh(&script.wscript_hash()));
        let lock = regtest::spend(&[coin.at], &vec![output; 80]);
        let inputs: Vec<_> = (0..80)
            .map(|vout| OutPoint {
                txid: lock.compute_txid(),
                vout,
            })
            .collect();
        let mut open = regtest::spend(&inputs, &[(1, regtest::open_script())]);
        for input in &mut open.input {
            input.witness = Witness::from_slice(&[script.as_bytes()]);
        }
        spending(maker, state, vec![lock, open])
    }),
    ("a block that is too long", |maker, state| {
        let mut block = maker.draft(state, Vec::new(), 0);
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
        Some(maker.finish(state, block))
    }),
    ("a block that weighs too much", |maker, state| {
        let coin = *maker
            .pick(state, 1, |coin| coin.lock == Lock::WitnessScriptHash)
            .first()?;
        let script = ScriptBuf::from_bytes(vec![0x6a; 900_000]);
        let mut tx = maker.unsigned(&[coin], 0);
        tx.output[0].script_pubkey = script;
        tx.input[0].witness = Witness::from_slice(&[vec![0; 450_000], vec![0x51]]);
        spending(maker, state, vec![tx])
    }),
];

/// The script of a coinbase for `height`.
fn build_height(height: u32) -> Vec<u8> {
    let mut script = dunlin_chain::rules::bip34_prefix(height);
    script.extend([0; 4]);
    script
}

fn seal(state: &State, block: Block) -> Made {
    regtest::seal(block, state.place.height + 1)
}

fn unsolved(state: &State, block: Block) -> Made {
    Made {
        place: regtest::Place {
            hash: block.block_hash(),
            height: state.place.height + 1,
            time: block.header.time,
        },
        block: dunlin_chain::ParsedBlock::from_block(block),
    }
}

/// A draft whose commitments are made already.
fn ready(maker: &mut Maker, state: &State, txs: Vec<Transaction>, fees: u64) -> Block {
    let mut block = maker.draft(state, txs, fees);
    build::commit_witnesses(&mut block);
    build::commit_transactions(&mut block);
    block
}

fn with_txs(maker: &mut Maker, state: &State) -> Option<Block> {
    let (txs, fees) = maker.body(state, 2);
    if txs.is_empty() {
        return None;
    }
    Some(ready(maker, state, txs, fees))
}

fn with_spend(maker: &mut Maker, state: &State, fits: impl Fn(&Owned) -> bool) -> Option<Block> {
    let coin = *maker.pick(state, 1, fits).first()?;
    let tx = maker.tx(state, &[coin]).0;
    Some(ready(maker, state, vec![tx], 0))
}

fn spending(maker: &mut Maker, state: &State, txs: Vec<Transaction>) -> Option<Made> {
    let block = maker.draft(state, txs, 0);
    Some(maker.finish(state, block))
}

fn foreign_signature(maker: &mut Maker, state: &State, lock: Lock) -> Option<Made> {
    let coin = *maker
        .pick(state, 1, |coin| coin.lock == lock && coin.value > 0)
        .first()?;
    let mut tx = maker.unsigned(&[coin], 0);
    maker.sign(&mut tx, &[coin]);
    tx.output[0].value -= Amount::ONE_SAT;
    spending(maker, state, vec![tx])
}

fn locked(maker: &mut Maker, state: &State, until: fn(&Maker, &State) -> u32) -> Option<Made> {
    let coin = *maker.pick(state, 1, |_| true).first()?;
    let mut tx = maker.unsigned(&[coin], 0);
    tx.lock_time = LockTime::from_consensus(until(maker, state));
    tx.input[0].sequence = Sequence(0xffff_fffe);
    maker.sign(&mut tx, &[coin]);
    spending(maker, state, vec![tx])
}

fn relative(maker: &mut Maker, state: &State, coin: Owned, sequence: u32) -> Option<Made> {
    let mut tx = maker.unsigned(&[coin], 0);
    tx.input[0].sequence = Sequence(sequence);
    maker.sign(&mut tx, &[coin]);
    spending(maker, state, vec![tx])
}
