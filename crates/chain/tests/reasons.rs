//! Every way in which one block can be broken, given to Bitcoin Core's engine and to ours: both must refuse it, and
//! with the same reason string. Core's is read from what it logs.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::Version as BlockVersion;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use bitcoinkernel as kernel;
use dunlin_chain::build::{Base, assemble, commit_transactions, commit_witnesses, solve};
use dunlin_chain::rules::{MAX_BLOCK_WEIGHT, MAX_MONEY, WITNESS_COMMITMENT_HEADER};
use dunlin_chain::{BlockError, Chain, Network, Params, ParsedBlock};

const COIN: u64 = 5_000_000_000;

/// Keeps what Core logs.
struct Heard(Arc<Mutex<Vec<String>>>);

impl kernel::Log for Heard {
    fn log(&self, message: &str) {
        self.0.lock().unwrap().push(message.trim_end().to_owned());
    }
}

/// Both engines on the same chain.
struct Pair {
    core: kernel::ChainstateManager,
    heard: Arc<Mutex<Vec<String>>>,
    ours: Chain,
    now: u64,
    extra: u32,
    _logger: kernel::Logger,
    _context: kernel::Context,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let logger = kernel::Logger::new(Heard(Arc::clone(&heard))).unwrap();
        let context = kernel::ContextBuilder::new()
            .chain_type(kernel::ChainType::Regtest)
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let core = kernel::ChainstateManager::new(&context, &path("data"), &path("blocks")).unwrap();
        core.import_blocks().unwrap();
        Self {
            core,
            heard,
            ours: Chain::in_memory(Params::new(Network::Regtest)).unwrap(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
            extra: 0,
            _logger: logger,
            _context: context,
            _dir: dir,
        }
    }

    /// An unsolved block with these transactions on the tip.
    fn block(&mut self, txs: Vec<Transaction>) -> Block {
        let view = self.ours.view();
        let tip = view.tip();
        let base = Base::on_tip(&view, u64::from(tip.header.time) + 600);
        self.extra += 1;
        assemble(
            view.params(),
            &base,
            txs,
            Amount::ZERO,
            anybody(),
            &self.extra.to_le_bytes(),
        )
    }

    fn core_tip(&self) -> i32 {
        self.core.active_chain().height()
    }

    /// Gives a block to both, and returns both reasons if both refuse it.
    fn offer(&mut self, block: &Block) -> Result<(), (String, String)> {
        let parsed = ParsedBlock::from_block(block.clone());
        let ours = self.ours.accept_block(self.now, Arc::clone(&parsed));
        self.heard.lock().unwrap().clear();
        let before = self.core_tip();
        let given = self.core.process_block(&kernel::Block::new(&parsed.raw).unwrap());
        let core = (given.is_rejected() || self.core_tip() == before).then(|| self.core_reason());
        match (ours, core) {
            (Ok(outcome), None) => {
                assert_eq!(outcome.changes.len(), 1);
                Ok(())
            }
            (Err(BlockError::Invalid(reject)), Some(reason)) => Err((reject.reason.into_owned(), reason)),
            (Err(BlockError::MissingParent(_)), Some(reason)) => Err(("prev-blk-not-found".into(), reason)),
            (ours, core) => panic!("ours: {ours:?}, Core: {core:?}"),
        }
    }

    /// The reason in the last lines that Core logged.
    fn core_reason(&self) -> String {
        let heard = self.heard.lock().unwrap();
        let text = heard.iter().rev().find_map(|line| {
            let (_, text) = line
                .split_once("Block validation error: ")
                .or_else(|| line.split_once("FAILED ("))?;
            Some(text.to_owned())
        });
        let text = text.unwrap_or_else(|| panic!("no reason among {heard:?}"));
        let reason = text.split(", ").next().unwrap().to_owned();
        // Without a detail the bracket that encloses the reason is still there.
        if reason.matches('(').count() < reason.matches(')').count() {
            reason.strip_suffix(')').unwrap().to_owned()
        } else {
            reason
        }
    }

    /// Solves the block and checks that both engines refuse it for `reason`.
    fn refuse(&mut self, reason: &str, mut block: Block) -> Block {
        assert!(solve(&mut block));
        self.refuse_as_is(reason, &block);
        block
    }

    fn refuse_as_is(&mut self, reason: &str, block: &Block) {
        let (ours, core) = self.offer(block).expect_err(reason);
        // Core adds the name of the script error, which the kernel's interface does not give.
        let core = core.split(" (").next().unwrap();
        assert_eq!((ours.as_str(), core), (reason, reason));
    }
}

fn anybody() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn spend(coin: OutPoint, values: &[u64]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: coin,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ZERO,
            witness: Witness::from_slice(&[[0x51]]),
        }],
        output: values
            .iter()
            .map(|value| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: anybody(),
            })
            .collect(),
    }
}

/// Sets both roots right again.
fn sealed(mut block: Block) -> Block {
    commit_witnesses(&mut block);
    commit_transactions(&mut block);
    block
}

#[test]
fn both_engines_give_the_same_reason() {
    let mut pair = Pair::new();
    let mut coins = Vec::new();
    for _ in 0..110 {
        let mut block = pair.block(vec![]);
        assert!(solve(&mut block));
        coins.push(OutPoint::new(block.txdata[0].compute_txid(), 0));
        pair.offer(&block).unwrap();
    }
    let (coin, other, young) = (coins[0], coins[1], coins[109]);
    let tip = pair.ours.view().tip();
    let good = spend(coin, &[COIN]);
    // A block with `tx` and its commitments in place.
    let with = |pair: &mut Pair, tx: Transaction| pair.block(vec![tx]);
    let mut count = 0;
    macro_rules! refused {
        ($reason:expr, $block:expr) => {{
            let block = $block;
            count += 1;
            pair.refuse($reason, block)
        }};
        ($reason:expr, $change:expr, $seal:expr) => {{
            let mut block = with(&mut pair, good.clone());
            let change: &dyn Fn(&mut Block) = &$change;
            change(&mut block);
            count += 1;
            pair.refuse($reason, $seal(block))
        }};
    }
    let as_is = |block: Block| block;
    let merkle = |mut block: Block| {
        commit_transactions(&mut block);
        block
    };

    // The header.
    let mut unsolved = pair.block(vec![]);
    while unsolved.header.target().is_met_by(unsolved.block_hash()) {
        unsolved.header.nonce += 1;
    }
    pair.refuse_as_is("high-hash", &unsolved);
    refused!(
        "bad-diffbits",
        |block| block.header.bits = CompactTarget::from_consensus(0x207f_fffe),
        as_is
    );
    refused!("time-too-old", |block| block.header.time = tip.median_time_past, as_is);
    let late = (pair.now + 7200 + 600) as u32;
    refused!("time-too-new", |block| block.header.time = late, as_is);
    for version in [1, 2, 3, -1] {
        let reason = format!("bad-version(0x{version:08x})");
        refused!(
            &reason,
            |block| block.header.version = BlockVersion::from_consensus(version),
            as_is
        );
    }
    refused!(
        "prev-blk-not-found",
        |block| block
            .header
            .prev_blockhash
            .clone_from(&bitcoin::BlockHash::from_raw_hash(
                block.header.merkle_root.to_raw_hash()
            )),
        as_is
    );

    // The body against the header.
    refused!(
        "bad-txnmrklroot",
        |block| block.txdata[1].lock_time = LockTime::from_consensus(1),
        as_is
    );
    let mut three = pair.block(vec![good.clone(), spend(other, &[COIN])]);
    three.txdata.push(three.txdata[2].clone());
    refused!("bad-txns-duplicate", three);

    // The body alone.
    refused!("bad-blk-length", |block| block.txdata.clear(), merkle);
    refused!("bad-cb-missing", |block| drop(block.txdata.remove(0)), merkle);
    refused!(
        "bad-cb-multiple",
        |block| block.txdata.push(block.txdata[0].clone()),
        sealed
    );
    refused!(
        "bad-cb-length",
        |block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0; 101]),
        merkle
    );
    refused!("bad-txns-vout-empty", |block| block.txdata[1].output.clear(), sealed);
    for (value, reason) in [
        (u64::MAX, "bad-txns-vout-negative"),
        (MAX_MONEY + 1, "bad-txns-vout-toolarge"),
    ] {
        refused!(
            reason,
            |block| block.txdata[1].output[0].value = Amount::from_sat(value),
            sealed
        );
    }
    refused!(
        "bad-txns-txouttotal-toolarge",
        with(&mut pair, spend(coin, &[MAX_MONEY, 1]))
    );
    refused!(
        "bad-txns-inputs-duplicate",
        |block| block.txdata[1].input = vec![block.txdata[1].input[0].clone(); 2],
        sealed
    );
    let mut null = spend(coin, &[COIN]);
    null.input.push(TxIn {
        previous_output: OutPoint::null(),
        ..null.input[0].clone()
    });
    refused!("bad-txns-prevout-null", with(&mut pair, null));
    let mut wide = good.clone();
    wide.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_001]);
    refused!("bad-blk-sigops", with(&mut pair, wide));

    // The body at its height.
    let mut early = good.clone();
    early.lock_time = LockTime::from_consensus(tip.height + 1);
    refused!("bad-txns-nonfinal", with(&mut pair, early.clone()));
    early.lock_time = LockTime::from_consensus(tip.median_time_past);
    refused!("bad-txns-nonfinal", with(&mut pair, early));
    let height = |block: &mut Block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![1, 110, 0]);
    refused!("bad-cb-height", height, merkle);
    refused!(
        "bad-witness-nonce-size",
        |block| block.txdata[0].input[0].witness.clear(),
        as_is
    );
    refused!(
        "bad-witness-merkle-match",
        |block| block.txdata[1].input[0].witness.push([1]),
        as_is
    );
    refused!("unexpected-witness", |block| block.txdata[0].output.truncate(1), merkle);
    let heavy = |block: &mut Block| {
        block.txdata[1].input[0].witness = Witness::from_slice(&[vec![0; MAX_BLOCK_WEIGHT as usize - 700]]);
    };
    refused!("bad-blk-weight", heavy, sealed);

    // The coins.
    refused!(
        "bad-txns-inputs-missingorspent",
        with(&mut pair, spend(OutPoint::new(coin.txid, 5), &[COIN]))
    );
    let twice = pair.block(vec![good.clone(), spend(coin, &[COIN - 1])]);
    refused!("bad-txns-inputs-missingorspent", twice);
    let backwards = pair.block(vec![
        spend(OutPoint::new(good.compute_txid(), 0), &[COIN]),
        good.clone(),
    ]);
    refused!("bad-txns-inputs-missingorspent", backwards);
    refused!(
        "bad-txns-premature-spend-of-coinbase",
        with(&mut pair, spend(young, &[COIN]))
    );
    refused!("bad-txns-in-belowout", with(&mut pair, spend(coin, &[COIN + 1])));
    let mut locked = good.clone();
    locked.input[0].sequence = Sequence::from_height(111);
    refused!("bad-txns-nonfinal", with(&mut pair, locked));
    let mut failing = good.clone();
    failing.input[0].witness = Witness::from_slice(&[[0x00]]);
    refused!("block-script-verify-flag-failed", with(&mut pair, failing));
    refused!(
        "bad-cb-amount",
        |block| block.txdata[0].output[0].value += Amount::from_sat(1),
        sealed
    );

    // Signature operations that only the coins show: a witness script that never runs its 80,001 checks.
    let script = ScriptBuf::from_bytes([&[0x00, 0x63][..], &[0xac; 9990], &[0x68, 0x51]].concat());
    let mut funding = spend(other, &[1000; 9]);
    for output in &mut funding.output {
        output.script_pubkey = script.to_p2wsh();
    }
    let mut block = with(&mut pair, funding.clone());
    assert!(solve(&mut block));
    pair.offer(&block).unwrap();
    let mut costly = spend(OutPoint::new(funding.compute_txid(), 0), &[0]);
    costly.input = (0..9)
        .map(|vout| TxIn {
            previous_output: OutPoint::new(funding.compute_txid(), vout),
            witness: Witness::from_slice(&[script.as_bytes()]),
            ..costly.input[0].clone()
        })
        .collect();
    let invalid = refused!("bad-blk-sigops", with(&mut pair, costly));

    // What builds on a block that is known to be invalid, and that block again.
    let mut child = pair.block(vec![]);
    child.header.prev_blockhash = invalid.block_hash();
    refused!("bad-prevblk", child);
    pair.refuse_as_is("duplicate-invalid", &invalid);

    // The honest block is taken after all of this.
    let mut block = with(&mut pair, good.clone());
    assert!(
        block.txdata[0].output[1]
            .script_pubkey
            .as_bytes()
            .starts_with(&WITNESS_COMMITMENT_HEADER)
    );
    assert!(solve(&mut block));
    pair.offer(&block).unwrap();
    println!("{count} broken blocks refused for the same reasons");
    assert_eq!(count, 38);
}
