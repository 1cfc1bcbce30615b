//! A whole Bitcoin peer against a sequence of operations: the relay machine, its engine and a regtest chain in memory.
//! Peers connect, say valid and invalid things in any order and vanish; jobs are done late; time passes. Nothing may
//! panic, one input may not set off more than a bounded number of outputs, and the chain never loses work.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, RwLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, Wtxid, transaction,
};
use bytes::BytesMut;
use dunlin_chain::build::{self, Base};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock};
use dunlin_fuzz::take;
use dunlin_mempool::Pool;
use dunlin_peer::{
    AddressBook, Codec as _, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, Now, Output, Reach,
    SendBuf,
};
use dunlin_relay::{
    AddKind, Codec, Command, Config, Done, Engine, Host, Job, Locator, Message, PeerAddr, Relay, Version, Which,
    services,
};
use libfuzzer_sys::fuzz_target;

const START: u64 = 1_800_000_000;
/// Outputs that one input may set off: far below what a peer can ask for in one message.
const MOST_OUTPUTS: usize = 5_000;
/// Blocks connected before an input that wants coins to spend.
const MATURE: usize = 101;

#[derive(Arbitrary, Debug)]
struct Script {
    mature: bool,
    immediate: bool,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Connect {
        addr: u8,
    },
    DialOk {
        dial: u8,
    },
    DialFailed {
        dial: u8,
    },
    /// The whole handshake of a sound peer.
    Shake {
        link: u8,
        services: u8,
        height: i32,
        relay: bool,
        wtxid: bool,
    },
    Say {
        link: u8,
        what: Say,
    },
    /// A payload in a sound envelope.
    Payload {
        link: u8,
        command: u8,
        payload: Vec<u8>,
    },
    Bytes {
        link: u8,
        bytes: Vec<u8>,
    },
    Close {
        link: u8,
        codec: bool,
    },
    Writable {
        link: u8,
    },
    Wait {
        millis: u16,
    },
    WaitLong {
        secs: u32,
    },
    Work {
        jobs: u8,
    },
    Command(Ask),
}

#[derive(Arbitrary, Debug)]
enum Say {
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
enum Item {
    Block(u8),
    WitnessBlock(u8),
    CompactBlock(u8),
    Tx(u8),
    WitnessTx(u8),
    Wtx(u8),
    Odd(u32, u8),
}

#[derive(Arbitrary, Debug)]
enum Ask {
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
struct Known {
    blocks: Vec<Arc<ParsedBlock>>,
    txs: Vec<Arc<Transaction>>,
}

/// Anyone can spend it, and it is standard: a witness program of `OP_TRUE`.
fn open_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn spend(from: OutPoint, value: u64, witness: &[u8]) -> Transaction {
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

fn chain() -> Chain {
    let config = ChainConfig {
        script_threads: 1,
        cache_bytes: 1 << 20,
        ..ChainConfig::default()
    };
    Chain::open(Params::new(Network::Regtest), ChainStore::in_memory(), config).expect("memory does not fail")
}

/// A hundred and one blocks, four more with transactions, then two branches and some broken blocks.
static KNOWN: LazyLock<Known> = LazyLock::new(|| {
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
        let mut block = make(&main, inside, fees, b"bad").block.clone();
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
fn block(n: u8) -> &'static Arc<ParsedBlock> {
    let blocks = &KNOWN.blocks;
    let at = if n < 128 {
        MATURE + usize::from(n)
    } else {
        usize::from(n - 128)
    };
    &blocks[at.min(blocks.len() - 1)]
}

fn tx(n: u8) -> &'static Arc<Transaction> {
    &KNOWN.txs[usize::from(n) % KNOWN.txs.len()]
}

fn hash(n: u8) -> BlockHash {
    match n {
        255 => BlockHash::all_zeros(),
        254 => BlockHash::from_byte_array([n; 32]),
        _ => block(n).hash,
    }
}

fn addr(n: u8) -> SocketAddr {
    ([20 + n / 8, n % 8, 7, 1], 8333).into()
}

struct Peer {
    codec: Codec,
    input: BytesMut,
}

struct World {
    now: Now,
    relay: Relay,
    engine: Engine,
    magic: [u8; 4],
    peers: BTreeMap<LinkId, Peer>,
    dials: Vec<(SocketAddr, DialToken)>,
    jobs: VecDeque<Job>,
    next_link: u64,
}

fuzz_target!(|script: Script| {
    let mut chain = chain();
    if script.mature {
        for block in &KNOWN.blocks[..MATURE] {
            chain.accept_block(START, block.clone()).expect("a sound block");
        }
    }
    let view = chain.view();
    let magic = view.params().magic;
    let pool = Arc::new(RwLock::new(Pool::new(Default::default(), view.clone())));
    let config = Config {
        seed: [3; 32],
        listen_port: Some(8333),
        external: Some(addr(200)),
        immediate: script.immediate,
        max_inbound: 6,
        ..Config::default()
    };
    let now = Now::from_unix_secs(START);
    let book = AddressBook::new([4; 32], Reach::Public);
    let mut world = World {
        now,
        relay: Relay::new(config, view.clone(), pool.clone(), book, now),
        engine: Engine::new(chain, pool),
        magic,
        peers: BTreeMap::new(),
        dials: Vec::new(),
        jobs: VecDeque::new(),
        next_link: 1,
    };
    world.drain();
    let mut work = view.tip().chain_work;
    for op in script.ops {
        world.apply(op);
        let tip = view.tip();
        assert!(tip.chain_work >= work, "the chain lost work");
        work = tip.chain_work;
    }
    world.work(usize::MAX);
});

impl World {
    fn input(&mut self, input: Input<Message, Command, Done>) {
        self.relay.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.relay.poll() {
            outputs += 1;
            assert!(outputs <= MOST_OUTPUTS, "an input set off too much");
            match output {
                Output::Send { link, msg } => {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        let mut out = SendBuf::default();
                        peer.codec.encode(&msg, &mut out);
                    }
                }
                Output::Dial { addr, token } => self.dials.push((addr, token)),
                Output::Close { link, reason } => {
                    if self.peers.remove(&link).is_some() {
                        let cause = DisconnectCause::Ours(reason);
                        self.relay.handle(self.now, Input::Disconnected { link, cause });
                    }
                }
                Output::Job(job) => self.jobs.push_back(job),
                Output::PauseRead { .. } | Output::ResumeRead { .. } | Output::Event(_) => {}
            }
        }
    }

    /// Does the oldest jobs.
    fn work(&mut self, most: usize) {
        for _ in 0..most.min(10_000) {
            let Some(job) = self.jobs.pop_front() else { return };
            let done = self.engine.run(self.now, job);
            self.input(Input::Done(done));
        }
        assert!(most < 10_000, "the work never ends");
    }

    fn connect(&mut self, addr: SocketAddr, token: Option<DialToken>) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.peers.insert(
            id,
            Peer {
                codec: Codec::new(self.magic),
                input: BytesMut::new(),
            },
        );
        let direction = if token.is_some() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        self.input(Input::Connected(Link {
            id,
            addr,
            direction,
            token,
        }));
    }

    fn link(&self, n: u8) -> Option<LinkId> {
        let at = usize::from(n) % self.peers.len().max(1);
        self.peers.keys().nth(at).copied()
    }

    /// The message goes through the wire, so that the machine only sees what a codec lets pass.
    fn say(&mut self, link: LinkId, message: &Message) {
        let mut out = SendBuf::default();
        Codec::new(self.magic).encode(message, &mut out);
        self.bytes(link, &out.to_vec());
    }

    fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.input.extend_from_slice(bytes);
        }
        while let Some(peer) = self.peers.get_mut(&link) {
            match peer.codec.decode(&mut peer.input) {
                Ok(Some(msg)) => self.input(Input::Received { link, msg }),
                Ok(None) => return,
                Err(error) => return self.close(link, DisconnectCause::Codec(error.0)),
            }
        }
    }

    fn close(&mut self, link: LinkId, cause: DisconnectCause) {
        self.peers.remove(&link);
        self.input(Input::Disconnected { link, cause });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect { addr: n } => self.connect(addr(n), None),
            Op::DialOk { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.connect(addr, Some(token));
                }
            }
            Op::DialFailed { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.input(Input::DialFailed { addr, token });
                }
            }
            Op::Shake {
                link,
                services: bits,
                height,
                relay,
                wtxid,
            } => {
                let Some(link) = self.link(link) else { return };
                let offer = if bits % 4 == 0 {
                    bits.into()
                } else {
                    services::NETWORK | services::WITNESS
                };
                self.say(link, &version(70_016, offer, link.0, START as i64, height, relay));
                if wtxid {
                    self.say(link, &Message::WtxidRelay);
                    self.say(link, &Message::SendAddrV2);
                }
                self.say(link, &Message::Verack);
            }
            Op::Say { link, what } => {
                if let Some(link) = self.link(link) {
                    let message = message(what);
                    self.say(link, &message);
                }
            }
            Op::Payload { link, command, payload } => {
                if let Some(link) = self.link(link) {
                    let bytes = envelope(self.magic, command, &payload);
                    self.bytes(link, &bytes);
                }
            }
            Op::Bytes { link, bytes } => {
                if let Some(link) = self.link(link) {
                    self.bytes(link, &bytes);
                }
            }
            Op::Close { link, codec } => {
                if let Some(link) = self.link(link) {
                    let cause = if codec {
                        DisconnectCause::Codec("nonsense".into())
                    } else {
                        DisconnectCause::Remote
                    };
                    self.close(link, cause);
                }
            }
            Op::Writable { link } => {
                if let Some(link) = self.link(link) {
                    self.input(Input::Writable { link });
                }
            }
            Op::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Op::WaitLong { secs } => self.wait(Duration::from_secs((secs % 100_000).into())),
            Op::Work { jobs } => self.work(jobs.into()),
            Op::Command(ask) => self.input(Input::Command(command(ask))),
        }
    }

    /// Lets time pass in at most fifty steps.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..50 {
            let Some(due) = self.relay.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.relay.handle_timeout(end);
        self.drain();
    }
}

fn pick<T>(list: &mut Vec<T>, n: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(usize::from(n) % list.len()))
}

fn envelope(magic: [u8; 4], command: u8, mut payload: &[u8]) -> Vec<u8> {
    const COMMANDS: [&str; 12] = [
        "version",
        "feefilter",
        "ping",
        "pong",
        "addr",
        "addrv2",
        "inv",
        "getdata",
        "getheaders",
        "headers",
        "tx",
        "block",
    ];
    // An odd first byte breaks the checksum.
    let broken = command % 2 == 1 && take(&mut payload) == 0xff;
    let text = COMMANDS[usize::from(command / 2) % COMMANDS.len()].as_bytes();
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(text);
    bytes.resize(16, 0);
    bytes.extend((payload.len() as u32).to_le_bytes());
    let sum = bitcoin::hashes::sha256d::Hash::hash(payload).to_byte_array();
    bytes.extend(sum[..4].iter().map(|byte| byte ^ u8::from(broken)));
    bytes.extend_from_slice(payload);
    bytes
}

fn version(version: u32, services: u64, nonce: u64, timestamp: i64, start_height: i32, relay: bool) -> Message {
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

fn items(list: Vec<Item>) -> Vec<Inventory> {
    list.into_iter().map(inventory).collect()
}

fn inventory(item: Item) -> Inventory {
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

fn locator(hashes: Vec<u8>, stop: u8) -> Locator {
    Locator {
        hashes: hashes.into_iter().take(101).map(hash).collect(),
        stop: hash(stop),
    }
}

fn message(what: Say) -> Message {
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
        Say::Block(n) => Message::Block(block(n).clone()),
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

fn command(ask: Ask) -> Command {
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
