//! A regtest chain in memory with coins that anybody can spend, and a pool on it.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use dunlin_chain::build::{Base, assemble, solve};
use dunlin_chain::{Chain, ChainChange, Network, Params, ParsedBlock};
use dunlin_mempool::{Accepted, Config, Pool, PoolReject};

/// The witness script of all coins here: OP_TRUE.
const ANYBODY: [u8; 1] = [0x51];

/// A chain and its pool, kept in step.
pub(crate) struct Node {
    pub(crate) chain: Chain,
    pub(crate) pool: Pool,
    /// The time in seconds; blocks are ten minutes apart.
    pub(crate) now: u64,
    extra: u64,
}

impl Node {
    /// A node with `coins` mature coins of 50 coins each, oldest first.
    pub(crate) fn new(coins: u32) -> (Self, Vec<OutPoint>) {
        Self::with(coins, Config::default())
    }

    pub(crate) fn with(coins: u32, config: Config) -> (Self, Vec<OutPoint>) {
        let params = Params::new(Network::Regtest);
        let now = u64::from(params.genesis.header.time) + 1_000_000;
        let chain = Chain::in_memory(params).unwrap();
        let pool = Pool::new(config, chain.view());
        let mut node = Self {
            chain,
            pool,
            now,
            extra: 0,
        };
        let mut outpoints = Vec::new();
        for height in 0..coins + 100 {
            let block = node.mine(vec![]);
            if height < coins {
                outpoints.push(OutPoint::new(block.txids[0], 0));
            }
        }
        (node, outpoints)
    }

    /// A solved block with these transactions on the tip, not yet given to the chain.
    pub(crate) fn block(&mut self, txs: Vec<Transaction>) -> Arc<ParsedBlock> {
        let base = Base::on_tip(&self.chain.view(), self.now);
        self.solved(base, txs)
    }

    pub(crate) fn solved(&mut self, base: Base, txs: Vec<Transaction>) -> Arc<ParsedBlock> {
        self.extra += 1;
        let params = self.chain.params().clone();
        let extra = self.extra.to_le_bytes();
        let mut block = assemble(&params, &base, txs, Amount::ZERO, anybody(), &extra);
        assert!(solve(&mut block));
        ParsedBlock::from_block(block)
    }

    /// Gives a block to the chain and lets the pool follow.
    pub(crate) fn submit(&mut self, block: Arc<ParsedBlock>) -> Vec<ChainChange> {
        let outcome = self.chain.accept_block(self.now + 7200, block).unwrap();
        for change in &outcome.changes {
            match change {
                ChainChange::Connected(block, _) => self.pool.block_connected(block),
                ChainChange::Disconnected(block, _) => self.pool.block_disconnected(block),
            }
        }
        self.pool.after_reorg(self.now);
        outcome.changes
    }

    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) -> Arc<ParsedBlock> {
        self.now += 600;
        let block = self.block(txs);
        assert_eq!(self.submit(Arc::clone(&block)).len(), 1);
        block
    }

    /// Replaces the last `depth` blocks by `depth + 1` empty ones.
    pub(crate) fn reorganise(&mut self, depth: u32) {
        let view = self.chain.view();
        let fork = view.tip().height - depth;
        let mut parent = view.entry_at(fork).unwrap();
        for step in 1..=depth + 1 {
            let base = Base {
                height: fork + step,
                parent: parent.hash,
                bits: parent.header.bits,
                time: parent.header.time + 300,
            };
            let block = self.solved(base, vec![]);
            let hash = block.hash;
            self.submit(block);
            parent = view.entry(&hash).unwrap();
        }
        assert_eq!(view.tip().height, fork + depth + 1);
    }

    pub(crate) fn accept(&mut self, tx: &Transaction) -> Result<Accepted, PoolReject> {
        self.pool.accept(self.now, Arc::new(tx.clone()))
    }

    /// Puts a transaction in that has to be fine.
    pub(crate) fn add(&mut self, tx: &Transaction) -> Txid {
        self.accept(tx).unwrap_or_else(|reject| panic!("{reject}")).txid
    }

    /// Core's reason for refusing a transaction.
    pub(crate) fn refuse(&mut self, tx: &Transaction) -> String {
        self.accept(tx).unwrap_err().reason.into_owned()
    }
}

/// Pays to anybody, in a form that is passed on.
pub(crate) fn anybody() -> ScriptBuf {
    ScriptBuf::from_bytes(ANYBODY.to_vec()).to_p2wsh()
}

/// The value of a fresh coin.
pub(crate) const COIN: u64 = 5_000_000_000;

/// Spends coins of `anybody` into outputs of these values.
pub(crate) fn spend(coins: &[OutPoint], values: &[u64]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: *coin,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[ANYBODY]),
            })
            .collect(),
        output: values
            .iter()
            .map(|value| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: anybody(),
            })
            .collect(),
    }
}

/// Spends a coin of `value` whole, but for the fee.
pub(crate) fn pay(coin: OutPoint, value: u64, fee: u64) -> Transaction {
    spend(&[coin], &[value - fee])
}

/// An output of a transaction.
pub(crate) fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint::new(tx.compute_txid(), vout)
}
