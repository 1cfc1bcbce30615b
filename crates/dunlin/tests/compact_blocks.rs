//! Compact blocks (BIP 152) with a real bitcoind, both ways, with all transactions at hand and with some missing.

#![allow(clippy::unwrap_used)]

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(60);
const FEE: Amount = Amount::from_sat(10_000);
const TXS: u64 = 20;
const MISSING: u64 = 3;

/// Core and we, on one link, with coins that can be spent.
struct Pair {
    core: Bitcoind,
    dunlin: Dunlin,
    miner: Holder,
    /// The height of the next coinbase that is spent.
    next: u64,
}

impl Pair {
    fn new(we_dial: bool) -> Self {
        let options = |connect| Options {
            v2transport: true,
            connect,
            extra: vec!["-debug=cmpctblock".to_owned()],
            ..Options::default()
        };
        let (core, dunlin) = if we_dial {
            let core = Bitcoind::start(options(vec![])).unwrap();
            let dunlin = Dunlin::start(DUNLIN, &["--connect", &core.p2p().to_string()]).unwrap();
            (core, dunlin)
        } else {
            let dunlin = Dunlin::start(DUNLIN, &[]).unwrap();
            let core = Bitcoind::start(options(vec![dunlin.doors().p2p])).unwrap();
            (core, dunlin)
        };
        let miner = Holder::new(1);
        let pair = Self {
            core,
            dunlin,
            miner,
            next: 1,
        };
        pair.core.generate(150, &pair.miner.address()).unwrap();
        pair.agree();
        // Each gives the other a block first, and is asked to announce by compact blocks from then on.
        pair.core.generate(1, &pair.miner.address()).unwrap();
        pair.agree();
        pair.mine();
        pair.agree();
        wait_until("both announce by compact blocks", LIMIT, || {
            let [ours, theirs] = [pair.dunlin.peers().unwrap(), pair.core.peers().unwrap()];
            [&ours[0], &theirs[0]]
                .iter()
                .all(|peer| peer["bip152_hb_to"] == json!(true) && peer["bip152_hb_from"] == json!(true))
        })
        .unwrap();
        pair
    }

    fn mine(&self) {
        let address = self.miner.address();
        self.dunlin.call("generatetoaddress", json!([1, address])).unwrap();
    }

    fn agree(&self) {
        wait_equal(
            "both have the same tip",
            LIMIT,
            || self.core.best_hash().unwrap(),
            || self.dunlin.best_hash().unwrap(),
        )
        .unwrap();
    }

    fn payment(&mut self) -> bitcoin::Transaction {
        let hash = self.core.hash_at(self.next).unwrap();
        self.next += 1;
        let coin = coinbase_coin(&self.core.block(&hash).unwrap());
        self.miner.pay(coin, &Holder::new(2), FEE)
    }

    /// Transactions that both have.
    fn fill_mempools(&mut self) {
        for _ in 0..TXS {
            let tx = self.payment();
            self.core
                .call("sendrawtransaction", json!([serialize_hex(&tx)]))
                .unwrap();
        }
        wait_until("we have them too", LIMIT, || {
            self.dunlin.mempool().unwrap().len() as u64 == TXS
        })
        .unwrap();
    }

    /// Bytes that Core has sent or received in messages of one command.
    fn bytes(&self, way: &str, command: &str) -> u64 {
        let peers: Vec<Value> = self.core.peers().unwrap();
        peers[0][way][command].as_u64().unwrap_or(0)
    }

    fn counts(&self) -> [u64; 8] {
        let commands = ["block", "cmpctblock", "getblocktxn", "blocktxn"];
        let mut counts = [0; 8];
        for (at, way) in ["bytessent_per_msg", "bytesrecv_per_msg"].iter().enumerate() {
            for (index, command) in commands.iter().enumerate() {
                counts[at * 4 + index] = self.bytes(way, command);
            }
        }
        counts
    }

    /// What was counted since `before`: whether anything was sent (first four) and received (last four).
    fn moved(&self, before: [u64; 8]) -> [bool; 8] {
        let now = self.counts();
        std::array::from_fn(|index| now[index] > before[index])
    }

    fn relay_from_core(&mut self) {
        self.fill_mempools();
        let before = self.counts();
        self.core.generate(1, &self.miner.address()).unwrap();
        self.agree();
        let [block, compact, _, answered, _, _, asked, _] = self.moved(before);
        assert_eq!((block, compact, asked, answered), (false, true, false, false));
        assert_eq!(self.dunlin.mempool().unwrap().len(), 0);

        // A block with transactions that only Core knows.
        let hidden: Vec<String> = (0..MISSING).map(|_| serialize_hex(&self.payment())).collect();
        self.fill_mempools();
        let pool = self.core.mempool().unwrap();
        let all: Vec<String> = pool.into_iter().chain(hidden).collect();
        let before = self.counts();
        let address = self.miner.address();
        self.core.call("generateblock", json!([address, all])).unwrap();
        self.agree();
        let [block, compact, _, answered, _, _, asked, _] = self.moved(before);
        assert_eq!((block, compact, asked, answered), (false, true, true, true));
        // Two of Core's announcements cost a fraction of one block.
        let hash = self.core.best_hash().unwrap();
        assert_eq!(self.core.block(&hash).unwrap().txdata.len() as u64, 1 + TXS + MISSING);
    }

    fn rebuilt(&self, txs: u64, requested: u64) {
        let hash = self.core.best_hash().unwrap();
        let start = format!("Successfully reconstructed block {hash} with 1 txn prefilled, {txs} txn from mempool");
        let end = format!("and {requested} txn (");
        wait_until("Core tells how it rebuilt the block", LIMIT, || {
            self.core
                .debug_log()
                .lines()
                .any(|line| line.contains(&start) && line.contains(&end))
        })
        .unwrap();
    }

    fn relay_from_us(&mut self) {
        self.fill_mempools();
        let before = self.counts();
        self.mine();
        self.agree();
        let [_, _, asked, _, block, compact, _, answered] = self.moved(before);
        assert_eq!((block, compact, asked, answered), (false, true, false, false));
        self.rebuilt(TXS, 0);

        let hidden: Vec<_> = (0..MISSING).map(|_| self.payment()).collect();
        let mut plan = self.core.plan(&self.miner).unwrap();
        plan.transactions.extend(hidden);
        let before = self.counts();
        let block = serialize_hex(&plan.mine());
        let answer = self.dunlin.call("submitblock", json!([block])).unwrap();
        assert_eq!(answer, Value::Null);
        self.agree();
        let [_, _, asked, _, block, compact, _, answered] = self.moved(before);
        assert_eq!((block, compact, asked, answered), (false, true, true, true));
        self.rebuilt(0, MISSING);
    }
}

#[test]
fn blocks_of_core_are_rebuilt_by_us() {
    Pair::new(true).relay_from_core();
}

#[test]
fn blocks_of_ours_are_rebuilt_by_core() {
    Pair::new(false).relay_from_us();
}
