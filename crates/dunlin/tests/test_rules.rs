//! Rules that a regtest chooses for itself, beside a real bitcoind with the same choice: BIP 94, the heights at which
//! deployments begin, and the least work of a chain that is taken.

#![allow(clippy::unwrap_used)]

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, opcodes::all::*};
use dunlin_testkit::coins::{BlockPlan, Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(120);

/// Both, given the same blocks.
struct Both {
    core: Bitcoind,
    dunlin: Dunlin,
    miner: Holder,
}

impl Both {
    fn start(core: &[&str], ours: &[&str]) -> Self {
        let extra = core.iter().map(|option| (*option).to_owned()).collect();
        Self {
            core: Bitcoind::start(Options {
                extra,
                ..Options::default()
            })
            .unwrap(),
            dunlin: Dunlin::start(DUNLIN, ours).unwrap(),
            miner: Holder::new(1),
        }
    }

    fn generate(&self, count: u64) {
        for hash in self.core.generate(count, &self.miner.address()).unwrap() {
            let hex = self.core.call("getblock", json!([hash, 0])).unwrap();
            assert_eq!(self.dunlin.call("submitblock", json!([hex])).unwrap(), Value::Null);
        }
    }

    fn plan(&self) -> BlockPlan {
        self.core.plan(&self.miner).unwrap()
    }

    /// What both say of a block, in the same words; bitcoind's.
    fn verdict(&self, block: &Block) -> Value {
        let hex = serialize_hex(block);
        let [core, ours] =
            [self.core.rpc(), self.dunlin.rpc()].map(|rpc| rpc.call("submitblock", json!([hex])).unwrap());
        // Why a script failed is not told by the library that runs it for us.
        let told = |verdict: &Value| verdict.as_str().map(|text| text.split(" (").next().unwrap().to_owned());
        assert_eq!(told(&core), told(&ours));
        assert_eq!(self.core.best_hash().unwrap(), self.dunlin.best_hash().unwrap());
        core
    }

    /// The coinbase at a height, spent by nobody yet.
    fn coin(&self, height: u64) -> (OutPoint, Amount) {
        coinbase_coin(&self.core.block(&self.core.hash_at(height).unwrap()).unwrap())
    }
}

/// Mines again after a change.
fn again(mut block: Block) -> Block {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

/// The block without its commitment to witnesses.
fn bare(mut block: Block) -> Block {
    block.txdata[0].input[0].witness = Witness::new();
    block.txdata[0].output.truncate(1);
    block
}

/// Spends the output of another transaction, which asks for no signature.
fn take(from: OutPoint, value: Amount, sequence: Sequence) -> Transaction {
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value,
            script_pubkey: Builder::new().push_opcode(OP_PUSHNUM_1).into_script(),
        }],
    }
}

#[test]
fn deployments_begin_at_the_height_that_is_chosen() {
    let heights = ["bip34@120", "dersig@130", "cltv@140", "csv@150", "segwit@160"];
    let core: Vec<String> = heights.iter().map(|at| format!("-testactivationheight={at}")).collect();
    let ours: Vec<String> = heights.iter().map(|at| format!("--test-rule={at}")).collect();
    let both = Both::start(
        &core.iter().map(String::as_str).collect::<Vec<_>>(),
        &ours.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    // A coin that asks for no signature, and so for no witness.
    let anyone = || Builder::new().push_opcode(OP_PUSHNUM_1).into_script();
    let mut plan = both.plan();
    plan.reward_to = anyone();
    assert_eq!(both.verdict(&again(bare(plan.mine()))), Value::Null);
    both.generate(109);
    // Outputs that only a rule keeps from being taken.
    let locked = |opcode, number| {
        let script = Builder::new().push_int(number).push_opcode(opcode).push_opcode(OP_DROP);
        script.push_opcode(OP_PUSHNUM_1).into_script()
    };
    let part = Amount::from_sat(100_000_000);
    let scripts = [
        locked(OP_CLTV, 400),
        locked(OP_CLTV, 400),
        locked(OP_CSV, 30),
        locked(OP_CSV, 30),
        anyone(),
    ];
    let outputs = scripts.map(|script_pubkey| TxOut {
        value: part,
        script_pubkey,
    });
    let mut funding = take(both.coin(1).0, part, Sequence::MAX);
    funding.output = outputs.to_vec();
    let txid = funding.compute_txid();
    let mut plan = both.plan();
    plan.transactions = vec![funding];
    assert_eq!(both.verdict(&again(bare(plan.mine()))), Value::Null);
    let output = |vout| OutPoint { txid, vout };

    // The next block with these transactions; without a witness where none may be.
    let next = |transactions: Vec<Transaction>| {
        let mut plan = both.plan();
        plan.transactions = transactions;
        match plan.height {
            160.. => plan.mine(),
            _ => again(bare(plan.mine())),
        }
    };
    let up_to = |height: u64| both.generate(height - 1 - both.core.height().unwrap());
    let spend = |height: u64, vout: u32| {
        up_to(height);
        both.verdict(&next(vec![take(output(vout), part, Sequence::ZERO)]))
    };
    let version = |height: u64, old: i32| {
        up_to(height - 1);
        let versioned = || {
            let mut block = next(Vec::new());
            block.header.version = Version::from_consensus(old);
            again(block)
        };
        assert_eq!(both.verdict(&versioned()), Value::Null);
        assert_eq!(both.verdict(&versioned()), json!(format!("bad-version(0x{old:08x})")));
    };
    let refused = |verdict: Value, reason: &str| {
        assert!(verdict.as_str().is_some_and(|text| text.contains(reason)), "{verdict}");
    };
    version(120, 1);
    // The coinbase must begin with the height.
    let mut block = next(Vec::new());
    block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![1, 7, 7]);
    assert_eq!(both.verdict(&again(block)), json!("bad-cb-height"));
    version(130, 2);
    assert_eq!(spend(138, 0), Value::Null);
    version(140, 3);
    refused(spend(140, 1), "Locktime requirement");
    assert_eq!(spend(149, 2), Value::Null);
    refused(spend(150, 3), "Locktime requirement");
    let early = take(output(4), part, Sequence::from_consensus(1_000));
    assert_eq!(both.verdict(&next(vec![early])), json!("bad-txns-nonfinal"));
    up_to(159);
    assert_eq!(both.verdict(&both.plan().mine()), json!("unexpected-witness"));
    assert_eq!(both.verdict(&next(Vec::new())), Value::Null);
    // From here on a witness has its commitment.
    assert_eq!(both.verdict(&next(Vec::new())), Value::Null);
    let mut naked = both.plan().mine();
    naked.txdata[0].output.truncate(1);
    assert_eq!(both.verdict(&again(naked)), json!("unexpected-witness"));
}

#[test]
fn bip94_refuses_a_period_that_begins_too_early() {
    let both = Both::start(&["-test=bip94"], &["--test-rule", "bip94"]);
    both.generate(142);
    // The last block of the first period lies far ahead, though not too far.
    let tip = both.core.block(&both.core.best_hash().unwrap()).unwrap();
    let mut last = both.plan();
    last.time = tip.header.time + 3_000;
    let last_time = last.time;
    assert_eq!(last.height, 143);
    assert_eq!(both.verdict(&last.mine()), Value::Null);
    for (time, want) in [
        (last_time - 601, json!("time-timewarp-attack")),
        (last_time - 600, Value::Null),
    ] {
        let mut plan = both.plan();
        plan.time = time;
        assert_eq!(both.verdict(&plan.mine()), want);
    }
    // Within a period the median alone counts.
    let mut plan = both.plan();
    plan.time = last_time - 2_000;
    assert_eq!(both.verdict(&plan.mine()), Value::Null);
    // Without the choice such a period is none of anybody's business.
    let both = Both::start(&[], &[]);
    both.generate(142);
    let mut last = both.plan();
    last.time += 3_000;
    let early = last.time - 2_000;
    assert_eq!(both.verdict(&last.mine()), Value::Null);
    let mut plan = both.plan();
    plan.time = early;
    assert_eq!(both.verdict(&plan.mine()), Value::Null);
}

#[test]
fn a_chain_proves_its_work_before_its_headers_are_kept() {
    // Each block of regtest is worth two hashes: 7,500 of them, a little more than what waits to be compared.
    const BLOCKS: u64 = 7_500;
    let miner = Holder::new(1);
    let source = Bitcoind::start(Options::default()).unwrap();
    source.generate(BLOCKS, &miner.address()).unwrap();
    let (enough, too_much) = (format!("{:x}", 2 * BLOCKS), format!("{:x}", 2 * (BLOCKS + 2)));
    let peer = source.p2p().to_string();
    let start = |work: &str| Dunlin::start(DUNLIN, &["--connect", &peer, "--minimum-chain-work", work]).unwrap();
    let (taking, refusing) = (start(&enough), start(&too_much));
    wait_equal(
        "all blocks are there",
        LIMIT,
        || source.best_hash().unwrap(),
        || taking.best_hash().unwrap(),
    )
    .unwrap();
    let headers = |dunlin: &Dunlin| dunlin.call("getblockchaininfo", json!([])).unwrap()["headers"].clone();
    assert_eq!(headers(&taking), json!(BLOCKS));
    assert_eq!(headers(&refusing), json!(0));
    // Bitcoin Core proves ours in the same way.
    let core = Bitcoind::start(Options {
        connect: vec![taking.doors().p2p],
        extra: vec![format!("-minimumchainwork={enough}")],
        ..Options::default()
    })
    .unwrap();
    wait_until("bitcoind has all blocks", LIMIT, || core.height().unwrap() == BLOCKS).unwrap();
    let told = "Initial headers sync complete with peer";
    assert!(core.debug_log().contains(told));
    // Two blocks more are enough for the other one.
    source.generate(3, &miner.address()).unwrap();
    wait_equal(
        "the other one follows",
        LIMIT,
        || source.best_hash().unwrap(),
        || refusing.best_hash().unwrap(),
    )
    .unwrap();
}
