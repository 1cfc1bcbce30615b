//! Mistakes that other implementations made, each as a test, most of them beside Core's engine.
//!
//! Where a mistake is tested elsewhere:
//!
//! | mistake | test |
//! |---|---|
//! | CVE-2010-5139, amounts whose sum wraps; CVE-2018-17144, an input named twice; CVE-2012-2459, a repeated tail | `differential` by name, `rules/tx_tests.rs`, `rules/block_tests.rs` |
//! | BIP 30 asked by height alone: its two exceptions, its return at 1,983,702 | `rules/bip30.rs`; a repeated transaction in `differential` |
//! | the witness commitment: the last one counts, the size and value of the reserved value, none for no witnesses | `rules/block_tests.rs`, `differential` |
//! | FindAndDelete, `OP_CODESEPARATOR`, `SIGHASH_SINGLE` without its output, BIP 66 encodings | `core_vectors` |
//! | the retarget one block off, negative and overflowing targets, BIP 94's first block and its time | `rules/target.rs`, `rules/header_tests.rs` |
//! | old block versions, the time at the median, two hours and one second ahead | `rules/header_tests.rs`, `differential` |
//! | relative locks counted from the block of the coin instead of the one before it | `rules/tx_tests.rs`, edges of `differential` |
//! | CVE-2017-12842, an inner node of the tree that poses as a transaction | `rules/block_tests.rs`; a valid one of 64 bytes among the edges of `differential` |
#![allow(clippy::unwrap_used)]

#[path = "../differential/world/mod.rs"]
mod world;

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::Hash;
use bitcoin::key::UntweakedPublicKey;
use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1, OP_RESERVED, OP_RETURN};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{
    BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxMerkleNode, Witness, WitnessProgram,
    WitnessVersion, script,
};
use dunlin_chain::rules::{self, HeaderChain, SequenceLocks};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, Params};
use world::pair::Pair;
use world::regtest::{self, Made, NOW, Place, genesis, open_script};

/// Both engines on a chain with coins that anybody may spend.
struct Bench {
    pair: Pair,
    tip: Place,
    coins: Vec<OutPoint>,
    salt: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            pair: Pair::new(),
            tip: genesis(),
            coins: Vec::new(),
            salt: 0,
        };
        for _ in 0..120 {
            let made = bench.made(Vec::new());
            assert!(bench.pair.offer(&made, "valid"));
            bench.tip = made.place;
            bench.coins.push(made.reward());
        }
        bench.coins.truncate(20);
        bench
    }

    fn made(&mut self, txs: Vec<Transaction>) -> Made {
        self.salt += 1;
        regtest::finish(regtest::draft(self.tip, self.salt, txs, 0), self.tip.height + 1)
    }

    /// Both take a block with these transactions.
    fn takes(&mut self, txs: Vec<Transaction>) {
        let made = self.made(txs);
        assert!(self.pair.offer(&made, "valid"));
        self.tip = made.place;
    }

    /// Both refuse it.
    fn refuses(&mut self, txs: Vec<Transaction>) {
        let made = self.made(txs);
        assert!(!self.pair.offer(&made, "broken"));
    }

    /// A transaction that locks a coin with `script`, and one that spends it and has its input made by `open`.
    fn through(&mut self, script: ScriptBuf, open: impl Fn(&mut Transaction)) -> Vec<Transaction> {
        let lock = regtest::spend(&[self.coins.pop().unwrap()], &[(50_000, script)]);
        let mut spend = regtest::spend(&[first(&lock)], &[(1, open_script())]);
        open(&mut spend);
        vec![lock, spend]
    }
}

fn first(tx: &Transaction) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout: 0,
    }
}

fn witness(items: Vec<Vec<u8>>) -> impl Fn(&mut Transaction) {
    move |tx| tx.input[0].witness = Witness::from_slice(&items)
}

/// An output with this single leaf, and what opens it but for the leaf's own arguments.
fn tapscript(leaf: &[u8]) -> (ScriptBuf, Vec<Vec<u8>>) {
    // A point that nobody knows the key of (BIP 341).
    let nobody = hex::decode("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0").unwrap();
    let internal = UntweakedPublicKey::from_slice(&nobody).unwrap();
    let leaf = ScriptBuf::from_bytes(leaf.to_vec());
    let tree = TaprootBuilder::new()
        .add_leaf(0, leaf.clone())
        .unwrap()
        .finalize(&Secp256k1::new(), internal)
        .unwrap();
    let control = tree.control_block(&(leaf.clone(), LeafVersion::TapScript)).unwrap();
    (
        ScriptBuf::new_p2tr_tweaked(tree.output_key()),
        vec![leaf.into_bytes(), control.serialize()],
    )
}

/// btcd stopped at block 761,249 in October 2022: its wire decoder knew a limit of 11,000 bytes for a witness element,
/// which tapscript does not; and in November 2022 at a transaction with 500,001 elements in one witness.
#[test]
fn a_witness_is_as_long_as_a_block_allows() {
    let mut bench = Bench::new();
    let leaf = [vec![0x4d, 8, 2], vec![0; 520], vec![OP_DROP.to_u8()]]
        .concat()
        .repeat(100);
    let (script, open) = tapscript(&[leaf, vec![OP_PUSHNUM_1.to_u8()]].concat());
    assert!(open[0].len() > 50_000);
    let txs = bench.through(script, witness(open));
    bench.takes(txs);

    let future = ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V16, &[7; 40]).unwrap());
    let txs = bench.through(future.clone(), witness(vec![Vec::new(); 500_001]));
    bench.takes(txs);
    let txs = bench.through(future, witness(vec![vec![0; 3_900_000]]));
    bench.takes(txs);
}

/// btcd before 0.24.2 compared the transaction version of BIP 68 with its sign (CVE-2024-34478), so that negative
/// versions had no relative locks.
#[test]
fn a_negative_version_has_relative_locks() {
    for (version, held) in [
        (-1, true),
        (i32::MIN, true),
        (i32::MAX, true),
        (2, true),
        (1, false),
        (0, false),
    ] {
        let mut tx = regtest::spend(&[OutPoint::null()], &[(1, open_script())]);
        tx.version = Version(version);
        tx.input[0].sequence = Sequence(10);
        let locks = rules::sequence_locks(&tx, [100], |_| 0);
        assert_eq!(locks != SequenceLocks::NONE, held, "version {version}");

        let mut bench = Bench::new();
        let mut tx = regtest::spend(&[bench.coins[0]], &[(1, open_script())]);
        tx.version = Version(version);
        tx.input[0].sequence = Sequence(5000);
        if held {
            bench.refuses(vec![tx.clone()]);
            tx.input[0].sequence = Sequence(119);
        }
        bench.takes(vec![tx]);
    }
}

/// A redeem script that looks like pay-to-script-hash, or like a witness program inside a witness script, is run as
/// it is and not unwrapped again; some first implementations of BIP 16 went on unwrapping.
#[test]
fn only_the_outermost_script_hash_is_unwrapped() {
    let closed = regtest::closed_script();
    let inner = closed.to_p2sh();
    let push = |bytes: &[u8]| script::PushBytesBuf::try_from(bytes.to_vec()).unwrap();
    let mut bench = Bench::new();
    // The inner hash is met, and the script behind it, which nobody can satisfy, is never run.
    let txs = bench.through(inner.to_p2sh(), |tx| {
        tx.input[0].script_sig = script::Builder::new()
            .push_slice(push(closed.as_bytes()))
            .push_slice(push(inner.as_bytes()))
            .into_script();
    });
    bench.takes(txs);
    // The same inside of a witness script.
    let txs = bench.through(inner.to_p2wsh(), witness(vec![closed.to_bytes(), inner.to_bytes()]));
    bench.takes(txs);
    // A witness program as a witness script is two pushes, of which the last is true; two elements are one too many.
    let program = closed.to_p2wsh();
    let txs = bench.through(program.to_p2wsh(), witness(vec![program.to_bytes()]));
    bench.refuses(txs);
    // Behind two script hashes a witness program is none any more.
    let txs = bench.through(program.to_p2sh().to_p2sh(), |tx| {
        tx.input[0].script_sig = script::Builder::new()
            .push_slice(push(program.as_bytes()))
            .push_slice(push(program.to_p2sh().as_bytes()))
            .into_script();
    });
    bench.takes(txs);
}

/// Until July 2010 an `OP_RETURN` in the input's script ended the whole check with success, and every coin could be
/// spent by anybody.
#[test]
fn a_return_in_the_input_script_opens_nothing() {
    let mut bench = Bench::new();
    for lock in [
        regtest::closed_script(),
        ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::all_zeros()),
    ] {
        for input in [
            vec![0x51, OP_RETURN.to_u8()],
            vec![0x51, 0x63, OP_RETURN.to_u8()],
            vec![0x51, 0x4c, 1],
        ] {
            let txs = bench.through(lock.clone(), |tx| {
                tx.input[0].script_sig = ScriptBuf::from_bytes(input.clone())
            });
            bench.refuses(txs);
        }
    }
}

/// An `OP_SUCCESS` makes a tapscript succeed as soon as it is read, before anything behind it is looked at, however
/// broken; but what stands before it must be readable (BIP 342).
#[test]
fn an_op_success_ends_the_reading_of_a_tapscript() {
    let mut bench = Bench::new();
    let success = OP_RESERVED.to_u8();
    for (leaf, good) in [
        (vec![success, 0x4c], true),
        (vec![0x00, 0x69, 0x7e], true),
        (vec![0x00, 0x63, 0xfe, 0x68], true),
        ([success].repeat(20_000), true),
        (vec![0x4c, success], false),
        (vec![0x02, success], false),
        (vec![0x01, success, 0x69, 0x00], false),
    ] {
        let (script, open) = tapscript(&leaf);
        let txs = bench.through(script, witness(open));
        if good {
            bench.takes(txs);
        } else {
            bench.refuses(txs);
        }
    }
}

/// In March 2013 half of the network refused a block that touched more transactions than the lock table of its
/// database held (CVE-2013-3220). No number of inputs but that of the block's weight is too many.
#[test]
fn a_block_may_touch_thousands_of_transactions() {
    let mut bench = Bench::new();
    let coin = bench.coins.pop().unwrap();
    let fan = regtest::spend(&[coin], &vec![(1000, open_script()); 6000]);
    let txid = fan.compute_txid();
    bench.takes(vec![fan]);
    let each: Vec<Transaction> = (0..6000)
        .map(|vout| regtest::spend(&[OutPoint { txid, vout }], &[(900, open_script())]))
        .collect();
    let outputs: Vec<OutPoint> = each.iter().map(first).collect();
    bench.takes(each);
    bench.takes(vec![regtest::spend(&outputs, &[(1, open_script())])]);
}

/// Heights up to sixteen are opcodes, larger ones are numbers with a sign; BIP 34's other spellings are refused.
#[test]
fn the_height_of_a_coinbase_has_one_spelling() {
    let mut pair = Pair::new();
    let mut tip = genesis();
    for height in 1..=260u32 {
        let mut spellings = vec![
            vec![1, height as u8],
            vec![2, height as u8, (height >> 8) as u8],
            vec![3, height as u8, (height >> 8) as u8, 0],
            vec![0x4c, 1, height as u8],
            vec![0x4d, 1, 0, height as u8],
            vec![0x50 + height as u8 % 17],
            vec![0x00],
        ];
        let right = rules::bip34_prefix(height);
        // What begins as it should is no other spelling.
        spellings.retain(|spelling| !spelling.starts_with(&right));
        let tried = if (17..=126).contains(&height) || (130..=254).contains(&height) {
            0
        } else {
            spellings.len()
        };
        for (salt, spelling) in spellings.iter().take(tried).enumerate() {
            let mut block = regtest::draft(tip, salt as u64, Vec::new(), 0);
            let script = [spelling.as_slice(), &[0x61, 0x61]].concat();
            block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
            assert!(
                !pair.offer(&regtest::finish(block, height), "another spelling"),
                "{height}: {spelling:?}"
            );
        }
        let made = regtest::block(tip, 9, Vec::new(), 0);
        assert!(pair.offer(&made, "valid"));
        tip = made.place;
    }
    assert_eq!(pair.counts.reasons.keys().collect::<Vec<_>>(), ["bad-cb-height"]);
}

/// Nobody can spend the coinbase of the genesis block, outputs that only carry data, or scripts of more than 10,000
/// bytes: they never are coins, and taking their block off again does not miss them.
#[test]
fn what_can_never_be_spent_is_no_coin() {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let view = chain.view();
    let genesis_coin = OutPoint {
        txid: view.params().genesis.txdata[0].compute_txid(),
        vout: 0,
    };
    assert_eq!(view.coin(&genesis_coin).unwrap(), None);
    assert_eq!(chain.summarize_coins().unwrap().count, 0);

    let trunk = regtest::blocks(genesis(), 1, 101);
    for made in &trunk {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    let before = chain.summarize_coins().unwrap();
    let long = |length| ScriptBuf::from_bytes(vec![0x61; length]);
    let data = ScriptBuf::from_bytes(vec![OP_RETURN.to_u8(), 1, 1]);
    let scripts = [
        data,
        long(10_001),
        long(10_000),
        ScriptBuf::from_bytes(vec![OP_RETURN.to_u8()]),
        ScriptBuf::new(),
    ];
    let outputs: Vec<_> = scripts.iter().map(|script| (10, script.clone())).collect();
    let tx = regtest::spend(&[trunk[0].reward()], &outputs);
    let txid = tx.compute_txid();
    let on = trunk[100].place;
    let spending = regtest::block(on, 1, vec![tx], 0);
    chain.accept_block(NOW, Arc::clone(&spending.block)).unwrap();
    let kept: Vec<bool> = (0..5)
        .map(|vout| view.coin(&OutPoint { txid, vout }).unwrap().is_some())
        .collect();
    assert_eq!(kept, [false, false, true, false, true]);

    let other = regtest::blocks(on, 2, 2);
    for made in &other {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    assert_eq!(view.tip().hash, other[1].place.hash);
    // Two coinbases more, each with one output that can be spent.
    assert_eq!(chain.summarize_coins().unwrap().count, before.count + 2);
}

/// A block whose mutated copy came first (CVE-2012-2459 and its relatives in the witness) is taken, also after a
/// restart; nodes that remembered the hash as invalid split off.
#[test]
fn a_mutated_copy_is_not_remembered_against_the_block() {
    let store = ChainStore::in_memory();
    let open = || Chain::open(Params::new(Network::Regtest), store.clone(), ChainConfig::default()).unwrap();
    let mut chain = open();
    let trunk = regtest::blocks(genesis(), 1, 101);
    for made in &trunk {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    let on = trunk[100].place;
    let child = regtest::spend(&[trunk[0].reward()], &[(7, open_script())]);
    let honest = regtest::block(
        on,
        1,
        vec![child.clone(), regtest::spend(&[first(&child)], &[(1, open_script())])],
        0,
    );
    let block = honest.block.block().clone();
    let mut copies = Vec::new();
    let mut tail = block.clone();
    tail.txdata.extend_from_within(2..);
    copies.push(tail);
    let mut extra = block.clone();
    extra.txdata[1].input[0].witness.push([1]);
    copies.push(extra);
    let mut bare = block.clone();
    bare.txdata[0].input[0].witness.clear();
    copies.push(bare);
    let mut swapped = block;
    swapped.txdata.swap(1, 2);
    copies.push(swapped);
    chain.accept_headers(NOW, &[*honest.block.header()]).unwrap();
    for copy in copies {
        assert_eq!(copy.block_hash(), honest.place.hash);
        let copy = dunlin_chain::ParsedBlock::from_block(copy);
        chain.accept_block(NOW, copy).unwrap_err();
    }
    drop(chain);
    let mut chain = open();
    chain.accept_block(NOW, Arc::clone(&honest.block)).unwrap();
    assert_eq!(chain.view().tip().hash, honest.place.hash);
}

/// A chain of headers that claims to be `height` high, all with the same header.
struct Same(u32, Header);

impl HeaderChain for Same {
    fn height(&self) -> u32 {
        self.0
    }

    fn header_at(&self, _: u32) -> Header {
        self.1
    }
}

/// Times are 32 bits wide without a sign and end in February 2106; nothing may wrap before.
#[test]
fn the_last_times_are_compared_as_what_they_are() {
    let params = Params::new(Network::Testnet4);
    let header = |time| Header {
        version: BlockVersion::from_consensus(4),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(0x1c00_ffff),
        nonce: 0,
    };
    // After 2038, where a signed number ends.
    let chain = Same(7, header(0x8000_0000));
    assert_eq!(
        rules::contextual_check_header(&params, &header(0x8000_0001), &chain, 0x8000_0001),
        Ok(())
    );
    // The last second but one; the clock plus two hours, and the parent plus twenty minutes, are beyond 32 bits.
    let chain = Same(7, header(u32::MAX - 1));
    let last = header(u32::MAX);
    assert_eq!(
        rules::contextual_check_header(&params, &last, &chain, u64::from(u32::MAX)),
        Ok(())
    );
    assert_eq!(rules::next_work_required(&params, &chain, u32::MAX), last.bits);
    let past = rules::contextual_check_header(&params, &last, &Same(7, last), u64::from(u32::MAX)).unwrap_err();
    assert_eq!(past.reason, "time-too-old");
    // A period that begins at the end of time and ends at its beginning counts as a quarter, not as a century.
    let quarter = rules::retarget(
        last.bits,
        i64::from(1u32) - i64::from(u32::MAX),
        params.target_timespan,
        params.pow_limit,
    );
    assert_eq!(
        quarter,
        rules::retarget(last.bits, 0, params.target_timespan, params.pow_limit)
    );

    // Lock times and relative locks at the end.
    let mut tx = regtest::spend(&[OutPoint::null()], &[(1, open_script())]);
    tx.lock_time = LockTime::from_consensus(u32::MAX);
    tx.input[0].sequence = Sequence(0xffff_fffe);
    assert!(!rules::is_final(&tx, 1, u32::MAX));
    tx.lock_time = LockTime::from_consensus(u32::MAX - 1);
    assert!(rules::is_final(&tx, 1, u32::MAX));
    tx.input[0].sequence = Sequence((1 << 22) | 0xffff);
    let locks = rules::sequence_locks(&tx, [5], |_| u32::MAX);
    assert_eq!(locks.time, i64::from(u32::MAX) + (0xffff << 9) - 1);
    assert!(!locks.open_at(u32::MAX, u32::MAX));
    tx.input[0].sequence = Sequence(0xffff);
    let locks = rules::sequence_locks(&tx, [u32::MAX - 1], |_| 0);
    assert!(!locks.open_at(u32::MAX, 0));
}
