//! A simulated Bitcoin network: nodes of real relay machines, each with its own chain and mempool in memory.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message as SecpMessage, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use dunlin_chain::build::{Base, assemble, solve};
use dunlin_chain::{AssumeValid, Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock, View};
use dunlin_mempool::{Config as PoolConfig, Pool};
use dunlin_peer::{AddressBook, Now, Reach};
use dunlin_relay::{Codec, Command, Config, Engine, Event, Job, Relay, services};
use dunlin_sim::{Conditions, NodeId, Sim};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// When the simulation starts; the shared history ends right before.
pub const START: u64 = 1_800_000_000;
/// Blocks that every node has at the start: the coinbases of the first ten can be spent.
pub const HISTORY: u32 = 110;
/// How many other nodes' addresses a node knows at the start.
const KNOWN: usize = 24;
pub const FEE: Amount = Amount::from_sat(10_000);

/// What the test sees of a node beside its machine.
pub struct Computer {
    pub view: View,
    pub pool: Arc<RwLock<Pool>>,
}

pub struct Net {
    pub sim: Sim<Relay, Codec>,
    pub computers: Vec<Computer>,
    pub history: Vec<Arc<ParsedBlock>>,
}

pub fn params() -> Params {
    Params::new(Network::Regtest)
}

fn secret_key() -> SecretKey {
    SecretKey::from_slice(&[0x42; 32]).unwrap()
}

fn public_key() -> PublicKey {
    secret_key().public_key(&Secp256k1::new())
}

/// Pays to the one key of these tests.
pub fn script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&public_key().serialize()))
}

pub fn chain(blocks: &[Arc<ParsedBlock>]) -> Chain {
    let config = ChainConfig {
        cache_bytes: 1 << 20,
        script_threads: 1,
        assume_valid: AssumeValid::Never,
        ..ChainConfig::default()
    };
    let mut chain = Chain::open(params(), ChainStore::in_memory(), config).unwrap();
    for block in blocks {
        chain.accept_block(START, Arc::clone(block)).unwrap();
    }
    chain
}

/// A solved block on the tip of `view`.
pub fn block_on(view: &View, now: u64, txs: Vec<Transaction>, extra: &[u8]) -> Arc<ParsedBlock> {
    let fees = FEE * txs.len() as u64;
    let mut block = assemble(&params(), &Base::on_tip(view, now), txs, fees, script(), extra);
    assert!(solve(&mut block));
    ParsedBlock::from_block(block)
}

/// The first blocks of the chain, ten minutes apart.
pub fn history() -> Vec<Arc<ParsedBlock>> {
    let mut chain = chain(&[]);
    let mut blocks = Vec::new();
    for height in 1..=HISTORY {
        let time = START - u64::from(HISTORY - height + 1) * 600;
        let block = block_on(&chain.view(), time, vec![], b"history");
        chain.accept_block(time, Arc::clone(&block)).unwrap();
        blocks.push(block);
    }
    blocks
}

pub fn addr(number: usize) -> SocketAddr {
    // Each in a network group of its own.
    SocketAddr::from((Ipv4Addr::new(11, number as u8, (number >> 8) as u8, 1), 8333))
}

/// How nodes find each other.
#[derive(Clone, Copy, PartialEq)]
pub enum Topology {
    /// A ring with chords that each node keeps connected, and a few links of its own choice besides.
    Ring,
    /// Every link is of the node's own choice, from the addresses it knows.
    Free,
}

/// `count` nodes, all running; those that `informed` accepts have the shared history.
pub fn net(seed: u64, count: usize, topology: Topology, informed: impl Fn(usize) -> bool) -> Net {
    let conditions = Conditions {
        max_latency: Duration::from_millis(120),
        bandwidth: 1_000_000,
        ..Conditions::default()
    };
    let magic = params().magic;
    let mut keys = ChaCha8Rng::seed_from_u64(seed);
    let make_codec = move |_| Codec::encrypting(magic, keys.random());
    let mut sim = Sim::new(seed, Now::from_unix_secs(START), conditions, make_codec);
    let history = history();
    let mut computers = Vec::new();
    for number in 0..count {
        let chain = chain(if informed(number) { &history } else { &[] });
        let view = chain.view();
        let pool = Arc::new(RwLock::new(Pool::new(PoolConfig::default(), view.clone())));
        let engine = Rc::new(RefCell::new(Engine::new(chain, Arc::clone(&pool))));
        computers.push(Computer {
            view: view.clone(),
            pool: Arc::clone(&pool),
        });
        let make = move |now: Now, life: u32| {
            let book = address_book(seed, number, count, now);
            let config = config(seed, number, count, life, topology);
            Relay::new(config, view.clone(), Arc::clone(&pool), book, now)
        };
        let run = move |now: Now, job: Job| (duration(&job), engine.borrow_mut().run(now, job));
        sim.add(addr(number), make, run);
    }
    sim.start_all();
    Net {
        sim,
        computers,
        history,
    }
}

fn config(seed: u64, number: usize, count: usize, life: u32, topology: Topology) -> Config {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    key[8..16].copy_from_slice(&(number as u64).to_be_bytes());
    key[16..20].copy_from_slice(&life.to_be_bytes());
    let ring = [1, count / 11 + 1, count / 3 + 1].map(|step| addr((number + step) % count).into());
    // Some speak the plain transport only.
    let encrypted = if number % 5 == 4 { 0 } else { services::P2P_V2 };
    Config {
        seed: key,
        services: Config::default().services | encrypted,
        add_peers: match topology {
            Topology::Ring => ring.to_vec(),
            Topology::Free => Vec::new(),
        },
        listen_port: Some(8333),
        external: vec![addr(number).into()],
        max_outbound: if topology == Topology::Ring { 3 } else { 8 },
        ..Config::default()
    }
}

/// Some addresses of others, as a DNS seed would give them.
fn address_book(seed: u64, number: usize, count: usize, now: Now) -> AddressBook {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(seed ^ number as u64).to_be_bytes());
    let mut book = AddressBook::new(key, Reach::Public);
    let mut rng = ChaCha8Rng::from_seed(key);
    for _ in 0..KNOWN {
        let other = addr(rng.random_range(0..count));
        if other != addr(number) {
            let offered = services::NETWORK | services::WITNESS | services::P2P_V2;
            book.add(other, offered, now.unix_secs() - 3600, other.ip());
        }
    }
    book
}

/// How long a job takes on a modest computer.
pub fn duration(job: &Job) -> Duration {
    match job {
        Job::AcceptBlock { .. } => Duration::from_millis(20),
        Job::AcceptTx { .. } => Duration::from_millis(2),
        Job::ReadBlock { .. } => Duration::from_millis(5),
        _ => Duration::from_millis(1),
    }
}

impl Net {
    /// A signed transaction that spends the coinbase of a block of the history.
    pub fn spend(&self, height: usize, value: Amount) -> Arc<Transaction> {
        let coinbase = &self.history[height - 1].block().txdata[0];
        let input = TxIn {
            previous_output: OutPoint::new(coinbase.compute_txid(), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let whole = coinbase.output[0].value;
        let pay = |value| TxOut {
            value,
            script_pubkey: script(),
        };
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![pay(value), pay(whole - value - FEE)],
        };
        let digest = SighashCache::new(&tx)
            .p2wpkh_signature_hash(0, &script(), whole, EcdsaSighashType::All)
            .unwrap();
        let signature = Secp256k1::new().sign_ecdsa(&SecpMessage::from_digest(digest.to_byte_array()), &secret_key());
        let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
        tx.input[0].witness = Witness::p2wpkh(&signature, &public_key());
        Arc::new(tx)
    }

    pub fn submit_tx(&mut self, node: usize, tx: &Arc<Transaction>) -> Txid {
        let tx = Arc::clone(tx);
        let txid = tx.compute_txid();
        assert!(self.sim.command(NodeId(node), Command::SubmitTx { ticket: 1, tx }));
        txid
    }

    /// Mines a block on a node's tip, with what is in its mempool, and submits it there.
    pub fn mine(&mut self, node: usize) -> BlockHash {
        let now = self.sim.now().unix_secs();
        let computer = &self.computers[node];
        let txs: Vec<Transaction> = {
            let pool = computer.pool.read().unwrap();
            pool.txids()
                .into_iter()
                .map(|txid| (*pool.get(&txid).unwrap()).clone())
                .collect()
        };
        let block = block_on(&computer.view, now, txs, &(node as u64).to_be_bytes());
        let hash = block.hash;
        assert!(
            self.sim
                .command(NodeId(node), Command::SubmitBlock { ticket: 2, block })
        );
        hash
    }

    pub fn tip(&self, id: NodeId) -> BlockHash {
        self.computers[id.0].view.tip().hash
    }

    pub fn has_tx(&self, id: NodeId, txid: &Txid) -> bool {
        self.computers[id.0].pool.read().unwrap().contains(txid)
    }

    /// Runs until every one of `who` has the tip; the virtual time it took.
    pub fn until_tip(&mut self, who: &BTreeSet<NodeId>, tip: BlockHash, limit: Duration) -> Duration {
        self.until(who, limit, "the block", |net, id| net.tip(id) == tip)
    }

    /// Runs until every one of `who` has the transaction in its mempool; the virtual time it took.
    pub fn until_tx(&mut self, who: &BTreeSet<NodeId>, txid: Txid, limit: Duration) -> Duration {
        self.until(who, limit, "the transaction", |net, id| net.has_tx(id, &txid))
    }

    fn until(
        &mut self,
        who: &BTreeSet<NodeId>,
        limit: Duration,
        what: &str,
        has: impl Fn(&Net, NodeId) -> bool,
    ) -> Duration {
        let began = self.sim.now();
        let mut lacking: BTreeSet<NodeId> = who.clone();
        loop {
            lacking.retain(|id| !has(self, *id));
            let time = self.sim.now().since(began);
            if lacking.is_empty() {
                return time;
            }
            assert!(
                time < limit,
                "{what} did not reach {lacking:?} of {} in {limit:?}",
                who.len()
            );
            self.sim.run_for(Duration::from_millis(100));
        }
    }

    pub fn all(&self) -> BTreeSet<NodeId> {
        self.sim.ids().collect()
    }

    /// What nodes reported as misbehaviour of others: nobody here misbehaves.
    pub fn accusations(&mut self) -> Vec<String> {
        self.sim
            .take_events()
            .into_iter()
            .filter_map(|(at, node, event)| match event {
                Event::Misbehaved { addr, reason, .. } => Some(format!("{at:?} {node:?} accuses {addr}: {reason}")),
                Event::StoreFailed { error } => Some(format!("{at:?} {node:?}: {error}")),
                _ => None,
            })
            .collect()
    }
}
