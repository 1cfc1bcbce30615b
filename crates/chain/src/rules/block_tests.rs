//! Tests of the block rules: an honest block, broken in one way at a time.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::transaction::Version;
use bitcoin::{Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use super::*;
use crate::build::{Base, assemble, commit_transactions, commit_witnesses, solve};
use crate::{Network, RejectKind};

const HEIGHT: u32 = 300;
const MEDIAN: u32 = 1_600_000_000;

fn params() -> Params {
    Params::new(Network::Regtest)
}

/// A transaction that looks plausible without its coins; `id` makes it unlike others.
fn tx(id: u16) -> Transaction {
    let mut txid = [9; 32];
    txid[..2].copy_from_slice(&id.to_le_bytes());
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array(txid), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ZERO,
            witness: Witness::from_slice(&[[1_u8; 4]]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

fn block(txs: Vec<Transaction>) -> Block {
    let params = params();
    let base = Base {
        height: HEIGHT,
        parent: params.genesis_hash,
        bits: params.genesis.header.bits,
        time: MEDIAN + 600,
    };
    assemble(
        &params,
        &base,
        txs,
        Amount::ZERO,
        ScriptBuf::from_bytes(vec![0x51]),
        b"tests",
    )
}

/// Both checks of a block, after its roots are set right (where asked) and a nonce is found.
fn judge(mut block: Block, roots: Roots) -> Result<(), Reject> {
    if let Roots::Both = roots {
        commit_witnesses(&mut block);
    }
    if let Roots::Both | Roots::Transactions = roots {
        commit_transactions(&mut block);
    }
    assert!(solve(&mut block));
    let parsed = ParsedBlock::from_block(block);
    check_block(&params(), &parsed)?;
    contextual_check_block(&params(), &parsed, HEIGHT, MEDIAN)
}

enum Roots {
    /// As the test left them.
    Kept,
    /// The header commits to the transactions.
    Transactions,
    /// The coinbase commits to the witnesses too.
    Both,
}

/// The reason for which an honest block of three transactions fails after `change`.
fn broken(roots: Roots, change: impl FnOnce(&mut Block)) -> String {
    let mut block = block(vec![tx(1), tx(2)]);
    change(&mut block);
    judge(block, roots).unwrap_err().reason.into_owned()
}

#[test]
fn an_honest_block_passes() {
    for count in [0, 1, 2, 3, 10] {
        assert_eq!(judge(block((0..count).map(tx).collect()), Roots::Kept), Ok(()));
    }
}

#[test]
fn known_blocks_pass() {
    for network in Network::ALL {
        let params = Params::new(network);
        let genesis = ParsedBlock::from_block(params.genesis.clone());
        assert_eq!(check_block(&params, &genesis), Ok(()), "{network}");
    }
}

#[test]
fn proof_of_work_is_part_of_the_block() {
    let mut block = block(vec![]);
    let limit = params().pow_limit;
    while limit.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    let reject = check_block(&params(), &ParsedBlock::from_block(block)).unwrap_err();
    assert_eq!(reject.reason, "high-hash");
}

#[test]
fn the_merkle_root_and_its_doubles() {
    assert_eq!(broken(Roots::Kept, |block| block.txdata.swap(1, 2)), "bad-txnmrklroot");
    assert_eq!(broken(Roots::Kept, |block| drop(block.txdata.pop())), "bad-txnmrklroot");
    // Three leaves: the last is hashed with itself, so repeating it does not change the root.
    let mut doubled = block(vec![tx(1), tx(2)]);
    doubled.txdata.push(tx(2));
    let reject = judge(doubled, Roots::Kept).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("bad-txns-duplicate", RejectKind::Mutated)
    );
    // Six leaves: the last pair is repeated.
    let mut doubled = block((1..6).map(tx).collect());
    doubled.txdata.extend([tx(4), tx(5)]);
    assert_eq!(judge(doubled, Roots::Kept).unwrap_err().reason, "bad-txns-duplicate");
}

#[test]
fn the_coinbase_is_first_and_alone() {
    assert_eq!(
        broken(Roots::Transactions, |block| drop(block.txdata.remove(0))),
        "bad-cb-missing"
    );
    assert_eq!(
        broken(Roots::Transactions, |block| block.txdata.clear()),
        "bad-blk-length"
    );
    let second = |block: &mut Block| {
        let mut coinbase = block.txdata[0].clone();
        coinbase.output.truncate(1);
        coinbase.input[0].witness.clear();
        block.txdata.push(coinbase);
    };
    assert_eq!(broken(Roots::Transactions, second), "bad-cb-multiple");
}

#[test]
fn broken_transactions_break_the_block_under_their_own_name() {
    let empty = |block: &mut Block| block.txdata[2].output.clear();
    assert_eq!(broken(Roots::Both, empty), "bad-txns-vout-empty");
    let long = |block: &mut Block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0; 101]);
    assert_eq!(broken(Roots::Both, long), "bad-cb-length");
}

#[test]
fn the_base_size_and_the_weight_have_limits() {
    let fill = |block: &mut Block, size: usize| {
        block.txdata[1].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 500_000]);
        let size_of = |block: &Block| base_size(&ParsedBlock::from_block(block.clone()));
        let now = size_of(block) as usize;
        block.txdata[2].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; size - now - 4 + 1]);
        assert_eq!(size_of(block), size as u64);
    };
    assert_eq!(broken(Roots::Both, |block| fill(block, 1_000_001)), "bad-blk-length");
    assert_eq!(broken(Roots::Both, |block| fill(block, 1_000_000)), "bad-blk-weight");

    // Exactly at the weight limit, and one above: a byte of witness is one unit.
    let heavy = |extra: usize| {
        let mut block = block(vec![tx(1), tx(2)]);
        block.txdata[1].input[0].witness = Witness::from_slice(&[vec![0; 3_990_000]]);
        commit_witnesses(&mut block);
        let missing = (MAX_BLOCK_WEIGHT - weight(&ParsedBlock::from_block(block.clone()))) as usize;
        block.txdata[1].input[0].witness = Witness::from_slice(&[vec![0; 3_990_000 + missing + extra]]);
        judge(block, Roots::Both)
    };
    assert_eq!(heavy(0), Ok(()));
    assert_eq!(heavy(1).unwrap_err().reason, "bad-blk-weight");
}

#[test]
fn legacy_signature_operations_are_counted_without_coins() {
    let with = |count: usize| {
        let mut block = block(vec![tx(1)]);
        block.txdata[1].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; count]);
        judge(block, Roots::Both)
    };
    assert_eq!(with(20_000), Ok(()));
    assert_eq!(with(20_001).unwrap_err().reason, "bad-blk-sigops");
}

#[test]
fn every_transaction_is_final_by_the_median_time() {
    let lock = |block: &mut Block, lock: u32| block.txdata[1].lock_time = LockTime::from_consensus(lock);
    assert_eq!(broken(Roots::Both, |block| lock(block, HEIGHT)), "bad-txns-nonfinal");
    assert_eq!(broken(Roots::Both, |block| lock(block, MEDIAN)), "bad-txns-nonfinal");
    for open in [HEIGHT - 1, MEDIAN - 1] {
        let mut block = block(vec![tx(1)]);
        lock(&mut block, open);
        assert_eq!(judge(block, Roots::Both), Ok(()));
    }
    // Before BIP 113 the block's own time counts.
    let mut params = params();
    params.csv_height = HEIGHT + 1;
    let mut early = block(vec![tx(1)]);
    lock(&mut early, MEDIAN + 599);
    commit_witnesses(&mut early);
    assert_eq!(
        contextual_check_block(&params, &ParsedBlock::from_block(early), HEIGHT, MEDIAN),
        Ok(())
    );
}

#[test]
fn the_coinbase_begins_with_the_height() {
    let script = |block: &mut Block, bytes: Vec<u8>| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(bytes);
    let other = |block: &mut Block| script(block, bip34_prefix(HEIGHT + 1));
    assert_eq!(broken(Roots::Both, other), "bad-cb-height");
    // The same number in a longer push is not the shortest form.
    assert_eq!(
        broken(Roots::Both, |block| script(block, vec![3, 0x2c, 1, 0])),
        "bad-cb-height"
    );
    assert_eq!(
        broken(Roots::Both, |block| script(block, vec![2, 0x2c])),
        "bad-cb-height"
    );
    assert_eq!(bip34_prefix(HEIGHT), [2, 0x2c, 1]);
    let mut params = params();
    params.bip34_height = HEIGHT + 1;
    let mut free = block(vec![]);
    script(&mut free, vec![0, 0]);
    assert_eq!(
        contextual_check_block(&params, &ParsedBlock::from_block(free), HEIGHT, MEDIAN),
        Ok(())
    );
}

#[test]
fn heights_are_pushed_in_their_shortest_form() {
    assert_eq!(bip34_prefix(0), [0x00]);
    assert_eq!(bip34_prefix(1), [0x51]);
    assert_eq!(bip34_prefix(16), [0x60]);
    assert_eq!(bip34_prefix(17), [1, 17]);
    assert_eq!(bip34_prefix(127), [1, 127]);
    assert_eq!(bip34_prefix(128), [2, 128, 0]);
    assert_eq!(bip34_prefix(227_931), [3, 0x5b, 0x7a, 0x03]);
    assert_eq!(bip34_prefix(u32::MAX), [5, 255, 255, 255, 255, 0]);
}

#[test]
fn the_witness_commitment_in_all_its_variants() {
    let last = |block: &Block| block.txdata[0].output.len() - 1;
    // A witness that nobody committed to.
    let other = |block: &mut Block| block.txdata[1].input[0].witness.push([2]);
    assert_eq!(broken(Roots::Kept, other), "bad-witness-merkle-match");
    // No commitment at all, with and without witnesses.
    let none = |block: &mut Block| drop(block.txdata[0].output.pop());
    assert_eq!(broken(Roots::Transactions, none), "unexpected-witness");
    let mut plain = block(vec![]);
    plain.txdata[0].output.pop();
    plain.txdata[0].input[0].witness.clear();
    assert_eq!(
        judge(plain.clone(), Roots::Transactions),
        Ok(()),
        "nothing to commit to"
    );
    plain.txdata[0].input[0].witness.push([0; 32]);
    assert_eq!(
        judge(plain, Roots::Transactions).unwrap_err().reason,
        "unexpected-witness"
    );
    // The reserved value: one item of 32 bytes.
    for items in [
        vec![],
        vec![vec![0; 31]],
        vec![vec![0; 33]],
        vec![vec![0; 32], vec![0; 32]],
    ] {
        let wrong = |block: &mut Block| block.txdata[0].input[0].witness = Witness::from_slice(&items);
        assert_eq!(broken(Roots::Kept, wrong), "bad-witness-nonce-size");
    }
    let value = |block: &mut Block| block.txdata[0].input[0].witness = Witness::from_slice(&[[1; 32]]);
    assert_eq!(broken(Roots::Kept, value), "bad-witness-merkle-match");
    // Of several commitments the last counts.
    let mut two = block(vec![tx(1)]);
    let real = two.txdata[0].output[last(&two)].clone();
    let mut fake = real.clone();
    fake.script_pubkey = ScriptBuf::from_bytes([&WITNESS_COMMITMENT_HEADER[..], &[7; 32]].concat());
    two.txdata[0].output = vec![two.txdata[0].output[0].clone(), fake.clone(), real.clone()];
    assert_eq!(judge(two.clone(), Roots::Transactions), Ok(()));
    two.txdata[0].output = vec![two.txdata[0].output[0].clone(), real.clone(), fake];
    assert_eq!(
        judge(two.clone(), Roots::Transactions).unwrap_err().reason,
        "bad-witness-merkle-match"
    );
    // A script that goes on after the commitment still is one; a shorter one is none.
    let mut longer = real.clone();
    longer.script_pubkey = ScriptBuf::from_bytes([real.script_pubkey.as_bytes(), &[0xac]].concat());
    two.txdata[0].output[2] = longer;
    assert_eq!(judge(two.clone(), Roots::Transactions), Ok(()));
    let mut shorter = real.clone();
    shorter.script_pubkey = ScriptBuf::from_bytes(real.script_pubkey.as_bytes()[..37].to_vec());
    two.txdata[0].output = vec![two.txdata[0].output[0].clone(), shorter];
    assert_eq!(
        judge(two, Roots::Transactions).unwrap_err().reason,
        "unexpected-witness"
    );
}

#[test]
fn before_segwit_no_witness_is_allowed_and_no_commitment_is_read() {
    let mut params = params();
    params.segwit_height = HEIGHT + 1;
    let judge = |block: Block| contextual_check_block(&params, &ParsedBlock::from_block(block), HEIGHT, MEDIAN);
    assert_eq!(judge(block(vec![tx(1)])).unwrap_err().reason, "unexpected-witness");
    let mut bare = block(vec![]);
    bare.txdata[0].input[0].witness.clear();
    bare.txdata[0].output[1].script_pubkey = ScriptBuf::from_bytes([&WITNESS_COMMITMENT_HEADER[..], &[7; 32]].concat());
    assert_eq!(judge(bare), Ok(()));
}

#[test]
fn mutation_is_seen_without_knowing_the_header() {
    let parsed = |block: Block| -> Arc<ParsedBlock> { ParsedBlock::from_block(block) };
    let honest = block(vec![tx(1), tx(2)]);
    assert!(!is_mutated(&parsed(honest.clone()), true));
    let mut stripped = honest.clone();
    stripped.txdata[1].input[0].witness.clear();
    assert!(is_mutated(&parsed(stripped), true));
    assert!(is_mutated(&parsed(honest.clone()), false), "witnesses before segwit");
    let mut swapped = honest;
    swapped.txdata.swap(1, 2);
    assert!(is_mutated(&parsed(swapped), true));

    // A body whose only transaction is an inner node of the real tree: 64 bytes, and not a coinbase.
    let mut node = tx(1);
    node.input[0].witness.clear();
    node.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(node.base_size(), 64);
    let mut posing = block(vec![]);
    posing.txdata = vec![node.clone()];
    commit_transactions(&mut posing);
    assert!(is_mutated(&parsed(posing.clone()), true));
    posing.txdata[0].output[0]
        .script_pubkey
        .push_opcode(bitcoin::opcodes::all::OP_PUSHNUM_1);
    commit_transactions(&mut posing);
    posing.txdata[0].input[0].witness.clear();
    assert!(!is_mutated(&parsed(posing), true), "65 bytes can not be an inner node");
}

#[test]
fn the_coinbase_may_take_the_subsidy_and_the_fees() {
    let coinbase = |values: &[u64]| {
        let mut coinbase = block(vec![]).txdata.remove(0);
        coinbase.output = values
            .iter()
            .map(|value| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: ScriptBuf::new(),
            })
            .collect();
        check_coinbase_amount(&coinbase, Amount::from_sat(10), Amount::from_sat(50))
    };
    assert_eq!(coinbase(&[60]), Ok(()));
    assert_eq!(coinbase(&[0]), Ok(()), "less may be taken");
    assert_eq!(coinbase(&[59, 2]).unwrap_err().reason, "bad-cb-amount");
    assert_eq!(
        coinbase(&[u64::MAX, 1]).unwrap_err().reason,
        "bad-cb-amount",
        "no overflow"
    );
}

#[test]
fn negative_amounts_arrive_from_the_wire() {
    let mut raw = bitcoin::consensus::serialize(&tx(1));
    let at = raw
        .windows(8)
        .position(|bytes| bytes == 1000_u64.to_le_bytes())
        .unwrap();
    raw[at..at + 8].copy_from_slice(&(-1_i64).to_le_bytes());
    let negative: Transaction = deserialize(&raw).unwrap();
    assert_eq!(check_tx(&negative).unwrap_err().reason, "bad-txns-vout-negative");
}
