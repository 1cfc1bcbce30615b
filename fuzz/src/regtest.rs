//! The blocks and transactions of the relay target, and what peers and users say about them.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, Wtxid, transaction,
};
use dunlin_chain::build::{self, Base};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock};
use dunlin_relay::{AddKind, Command, Host, Locator, Message, PeerAddr, Version, Which};

/// When every script starts.
pub const START: u64 = 1_800_000_000;
/// Blocks connected before a script that wants coins to spend.
pub const MATURE: usize = 101;

#[derive(Arbitrary, Debug)]
pub enum Say {
    Version {
        version: u32,
        nonce: u64,
        timestamp: i64,
    },
    Verack,
    WtxidRelay,
    SendAddrV2,
    SendHeaders,
    FeeFilter(i64),
    Ping(u64),
    Pong(u64),
    GetAddr,
    Mempool,
    Addr {
        v2: bool,
        list: Vec<(u8, u8, u32)>,
    },
    /// Headers of the known blocks from one number on.
    Headers {
        from: u8,
        count: u8,
        spoil: bool,
    },
    Block(u8),
    Tx(u8),
    Inv(Vec<Item>),
    GetData(Vec<Item>),
    ManyGetData {
        item: Item,
        count: u16,
    },
    NotFound(Vec<Item>),
    GetHeaders {
        hashes: Vec<u8>,
        stop: u8,
    },
    GetBlocks {
        hashes: Vec<u8>,
        stop: u8,
    },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Item {
    Block(u8),
    WitnessBlock(u8),
    CompactBlock(u8),
    Tx(u8),
    WitnessTx(u8),
    Wtx(u8),
    Odd(u32, u8),
}

#[derive(Arbitrary, Debug)]
pub enum Ask {
    AddPeer { addr: u8, kind: u8 },
    Seed(Vec<u8>),
    DisconnectAddr(u8),
    SubmitBlock(u8),
    SubmitTx(u8),
    Peers,
    Bans,
    Added,
    Addresses,
    LocalAddress(u8),
}

/// Everything that peers talk about.
pub struct Known {
    pub blocks: Vec<Arc<ParsedBlock>>,
    pub txs: Vec<Arc<Transaction>>,
}

/// Anyone can spend it, and it is standard: a witness program of `OP_TRUE`.
pub fn open_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

pub fn spend(from: OutPoint, value: u64, witness: &[u8]) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[witness]),
        }],
        output: vec![
            TxOut {
                value: Amount::from_sat(value),
                script_pubkey: open_script()
            };
            2
        ],
    }
}

pub fn chain() -> Chain {
    let config = ChainConfig {
        script_threads: 1,
        cache_bytes: 1 << 20,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).expect("memory does not fail")
}

/// A hundred and one blocks, four more with transactions, then two branches and some broken blocks.
pub static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let params = Params::new(Network::Regtest);
    let mut blocks = Vec::new();
    let mut txs: Vec<Transaction> = Vec::new();
    let make = |chain: &Chain, txs: Vec<Transaction>, fees: u64, extra: &[u8]| {
        let base = Base::on_tip(&chain.view(), START - 7200 + u64::from(chain.view().tip().height));
        let mut block = build::assemble(&params, &base, txs, Amount::from_sat(fees), open_script(), extra);
        assert!(build::solve(&mut block));
        ParsedBlock::from_block(block)
    };
    let mut main = chain();
    for _ in 0..MATURE {
        let block = make(&main, Vec::new(), 0, b"main");
        main.accept_block(START, block.clone()).expect("a sound block");
        blocks.push(block);
    }
    let mut value = 50 * 100_000_000;
    let mut from = OutPoint::new(blocks[0].txids[0], 0);
    for n in 0..4 {
        value = (value - 10_000) / 2;
        let tx = spend(from, value, &[0x51]);
        from = OutPoint::new(tx.compute_txid(), n % 2);
        txs.push(tx);
    }
    // A rival of the first, one with a wrong witness, one that spends too much, one whose coin nobody knows.
    let first = OutPoint::new(blocks[0].txids[0], 0);
    txs.push(spend(first, (50 * 100_000_000 - 500_000) / 2, &[0x51]));
    txs.push(spend(first, 1_000_000, &[0x52]));
    txs.push(spend(first, 50 * 100_000_000, &[0x51]));
    txs.push(spend(OutPoint::new(Txid::all_zeros(), 1), 1_000_000, &[0x51]));
    let mut branch = chain();
    for block in &blocks {
        branch.accept_block(START, block.clone()).expect("a sound block");
    }
    for n in 0..4 {
        let inside = if n == 0 {
            vec![txs[0].clone(), txs[1].clone()]
        } else {
            Vec::new()
        };
        let block = make(&main, inside, 0, b"main");
        main.accept_block(START, block.clone()).expect("a sound block");
        blocks.push(block);
    }
    for n in 0..6 {
        let inside = if n == 1 { vec![txs[4].clone()] } else { Vec::new() };
        let block = make(&branch, inside, 0, b"branch");
        branch.accept_block(START, block.clone()).expect("a sound block");
        blocks.push(block);
    }
    // Broken ones on the tip of the first chain: too much money, a wrong merkle root, a missing coin, no work.
    for n in 0..4 {
        let inside = if n == 2 { vec![txs[7].clone()] } else { Vec::new() };
        let fees = if n == 0 { 1 } else { 0 };
        let mut block = make(&main, inside, fees, b"bad").block().clone();
        if n == 1 {
            block.header.merkle_root = bitcoin::TxMerkleNode::all_zeros();
            assert!(build::solve(&mut block));
        }
        if n == 3 {
            while block.header.validate_pow(block.header.target()).is_ok() {
                block.header.nonce += 1;
            }
        }
        blocks.push(ParsedBlock::from_block(block));
    }
    Known {
        blocks,
        txs: txs.into_iter().map(Arc::new).collect(),
    }
});

/// Numbers from 0 name the interesting blocks after the mature ones, numbers from 128 the first ones.
pub fn block(n: u8) -> &'static Arc<ParsedBlock> {
    let blocks = &KNOWN.blocks;
    let at = if n < 128 {
        MATURE + usize::from(n)
    } else {
        usize::from(n - 128)
    };
    &blocks[at.min(blocks.len() - 1)]
}

pub fn tx(n: u8) -> &'static Arc<Transaction> {
    &KNOWN.txs[usize::from(n) % KNOWN.txs.len()]
}

pub fn hash(n: u8) -> BlockHash {
    match n {
        255 => BlockHash::all_zeros(),
        254 => BlockHash::from_byte_array([n; 32]),
        _ => block(n).hash,
    }
}

pub fn addr(n: u8) -> SocketAddr {
    ([20 + n / 8, n % 8, 7, 1], 8333).into()
}

pub fn version(version: u32, services: u64, nonce: u64, timestamp: i64, start_height: i32, relay: bool) -> Message {
    Message::Version(Box::new(Version {
        version,
        services,
        timestamp,
        receiver: addr(200),
        receiver_services: 0,
        nonce,
        user_agent: "/fuzz/".into(),
        start_height,
        relay,
    }))
}

pub fn items(list: Vec<Item>) -> Vec<Inventory> {
    list.into_iter().map(inventory).collect()
}

pub fn inventory(item: Item) -> Inventory {
    match item {
        Item::Block(n) => Inventory::Block(hash(n)),
        Item::WitnessBlock(n) => Inventory::WitnessBlock(hash(n)),
        Item::CompactBlock(n) => Inventory::CompactBlock(hash(n)),
        Item::Tx(n) => Inventory::Transaction(tx(n).compute_txid()),
        Item::WitnessTx(n) => Inventory::WitnessTransaction(tx(n).compute_txid()),
        Item::Wtx(255) => Inventory::WTx(Wtxid::from_byte_array([9; 32])),
        Item::Wtx(n) => Inventory::WTx(tx(n).compute_wtxid()),
        Item::Odd(inv_type, n) => Inventory::Unknown {
            inv_type,
            hash: [n; 32],
        },
    }
}

pub fn locator(hashes: Vec<u8>, stop: u8) -> Locator {
    Locator {
        hashes: hashes.into_iter().take(101).map(hash).collect(),
        stop: hash(stop),
    }
}

pub fn message(what: Say) -> Message {
    match what {
        Say::Version {
            version: number,
            nonce,
            timestamp,
        } => version(number, 9, nonce, timestamp, 0, true),
        Say::Verack => Message::Verack,
        Say::WtxidRelay => Message::WtxidRelay,
        Say::SendAddrV2 => Message::SendAddrV2,
        Say::SendHeaders => Message::SendHeaders,
        Say::FeeFilter(rate) => Message::FeeFilter(rate),
        Say::Ping(nonce) => Message::Ping(nonce),
        Say::Pong(nonce) => Message::Pong(nonce),
        Say::GetAddr => Message::GetAddr,
        Say::Mempool => Message::Mempool,
        Say::Addr { v2, list } => {
            let entry = |(n, offer, time): (u8, u8, u32)| PeerAddr {
                time: if time % 2 == 0 { START as u32 } else { time },
                services: offer.into(),
                host: Host::Ip(addr(n).ip()),
                port: 8333,
            };
            let list = list.into_iter().map(entry).collect();
            if v2 { Message::AddrV2(list) } else { Message::Addr(list) }
        }
        Say::Headers { from, count, spoil } => {
            let start = KNOWN
                .blocks
                .iter()
                .position(|known| known.hash == block(from).hash)
                .unwrap_or(0);
            let mut headers: Vec<Header> = KNOWN.blocks[start..]
                .iter()
                .take(count.into())
                .map(|block| *block.header())
                .collect();
            if let Some(last) = headers.last_mut().filter(|_| spoil) {
                last.time ^= 1;
            }
            Message::Headers(headers)
        }
        Say::Block(n) => Message::RawBlock(block(n).raw.clone()),
        Say::Tx(n) => Message::Tx {
            tx: tx(n).clone(),
            witness: n < 128,
        },
        Say::Inv(list) => Message::Inv(items(list)),
        Say::GetData(list) => Message::GetData(items(list)),
        Say::ManyGetData { item, count } => Message::GetData(vec![inventory(item); usize::from(count).min(50_000)]),
        Say::NotFound(list) => Message::NotFound(items(list)),
        Say::GetHeaders { hashes, stop } => Message::GetHeaders(locator(hashes, stop)),
        Say::GetBlocks { hashes, stop } => Message::GetBlocks(locator(hashes, stop)),
    }
}

pub fn command(ask: Ask) -> Command {
    match ask {
        Ask::AddPeer { addr: n, kind } => {
            let kinds = [AddKind::Add, AddKind::Onetry, AddKind::Remove];
            Command::AddPeer(addr(n), kinds[usize::from(kind) % 3])
        }
        Ask::Seed(list) => Command::Seed(list.into_iter().map(addr).collect()),
        Ask::DisconnectAddr(n) => Command::Disconnect(Which::Addr(addr(n))),
        Ask::SubmitBlock(n) => Command::SubmitBlock {
            ticket: 1,
            block: block(n).clone(),
        },
        Ask::SubmitTx(n) => Command::SubmitTx {
            ticket: 2,
            tx: tx(n).clone(),
        },
        Ask::Peers => Command::Peers { ticket: 3 },
        Ask::Bans => Command::Bans { ticket: 4 },
        Ask::Added => Command::Added { ticket: 5 },
        Ask::Addresses => Command::Addresses { ticket: 6 },
        Ask::LocalAddress(n) => Command::LocalAddress(addr(n)),
    }
}
