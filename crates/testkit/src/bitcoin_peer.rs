//! A Bitcoin peer under the test's control: it shakes hands, announces the blocks it is given, and serves them whatever
//! they are worth.

mod crowd;

use anyhow::{Context, Result, ensure};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use bitcoin::{Block, BlockHash, Transaction};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message header: magic, command, length, checksum.
const HEADER: usize = 24;
/// So many bytes are pushed at once.
const PUSH: usize = 64 << 10;
/// Longest payload read.
const MAX_PAYLOAD: usize = 4_000_000;

pub use crowd::Crowd;

/// What happened so far.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Commands of the messages received, in order.
    pub commands: Vec<String>,
    /// Blocks that were asked for and served.
    pub served: Vec<BlockHash>,
    /// Connections made.
    pub connections: u64,
    /// Connections that the other side ended.
    pub closed: u64,
}

#[derive(Debug)]
struct Shared {
    blocks: Vec<Block>,
    by_hash: BTreeMap<BlockHash, usize>,
    height: i32,
    seen: Mutex<Seen>,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running peer; dropped, it hangs up.
#[derive(Debug)]
pub struct BitcoinPeer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl BitcoinPeer {
    /// Listens on `ip` (any of 127.0.0.0/8, so that a ban hits only this peer) and offers `blocks`: a chain whose first
    /// block builds on one that the other side has, and whose last one has height `height`.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn listen(ip: Ipv4Addr, blocks: Vec<Block>, height: u32) -> Result<Self> {
        let listener = TcpListener::bind((ip, crate::free_port()))?;
        let address = listener.local_addr()?;
        let shared = shared(blocks, height)?;
        let state = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    let state = state.clone();
                    std::thread::spawn(move || converse(stream, &state, false));
                }
            }
        });
        Ok(BitcoinPeer { address, shared })
    }

    /// Dials `to` from `ip` and offers `blocks` to it, as [`BitcoinPeer::listen`] does.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn dial(ip: Ipv4Addr, to: SocketAddr, blocks: Vec<Block>, height: u32) -> Result<Self> {
        let stream = connect_from(ip, to).with_context(|| format!("cannot reach {to} from {ip}"))?;
        let address = stream.local_addr()?;
        let shared = shared(blocks, height)?;
        let state = shared.clone();
        std::thread::spawn(move || converse(stream, &state, true));
        Ok(BitcoinPeer { address, shared })
    }

    /// Where it listens, or where it dialled from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for BitcoinPeer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listening thread, when there is one.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for stream in lock(&self.shared.open).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Connects from a local address of our choice, which the standard library cannot.
fn connect_from(ip: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::from((ip, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn shared(blocks: Vec<Block>, height: u32) -> Result<Arc<Shared>> {
    let by_hash = blocks
        .iter()
        .enumerate()
        .map(|(index, block)| (block.block_hash(), index))
        .collect();
    Ok(Arc::new(Shared {
        blocks,
        by_hash,
        height: i32::try_from(height)?,
        seen: Mutex::default(),
        stop: AtomicBool::new(false),
        open: Mutex::default(),
    }))
}

fn converse(stream: TcpStream, shared: &Shared, we_dialled: bool) {
    lock(&shared.seen).connections += 1;
    let copies = [stream.try_clone(), stream.try_clone()];
    let [kept, ours] = copies;
    lock(&shared.open).extend(kept);
    // The other side ended it, or spoke the encrypted transport, at which an old peer hangs up.
    let _ = speak(stream, shared, we_dialled);
    if let Ok(stream) = ours {
        let _ = stream.shutdown(Shutdown::Both);
    }
    lock(&shared.seen).closed += 1;
}

fn send(stream: &mut TcpStream, message: NetworkMessage) -> Result<()> {
    Ok(stream.write_all(&serialize(&RawNetworkMessage::new(Magic::REGTEST, message)))?)
}

fn receive(stream: &mut TcpStream) -> Result<NetworkMessage> {
    let mut bytes = vec![0; HEADER];
    stream.read_exact(&mut bytes)?;
    let length = usize::try_from(u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]))?;
    ensure!(length <= MAX_PAYLOAD, "a message of {length} bytes");
    bytes.resize(HEADER + length, 0);
    stream.read_exact(&mut bytes[HEADER..])?;
    let message: RawNetworkMessage = deserialize(&bytes)?;
    ensure!(*message.magic() == Magic::REGTEST, "another network");
    Ok(message.into_payload())
}

fn version(stream: &TcpStream, shared: &Shared) -> Result<NetworkMessage> {
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(NetworkMessage::Version(VersionMessage {
        version: 70_016,
        services,
        timestamp: i64::try_from(now)?,
        receiver: Address::new(&stream.peer_addr()?, ServiceFlags::NONE),
        sender: Address::new(&stream.local_addr()?, services),
        nonce: now ^ u64::from(stream.local_addr()?.port()) << 32,
        user_agent: "/testkit:0.1/".to_owned(),
        start_height: shared.height,
        relay: true,
    }))
}

/// A peer that asks questions and reads the answers as they lie on the wire.
#[derive(Debug)]
pub struct Asker {
    stream: TcpStream,
    services: u64,
}

impl Asker {
    /// Dials `to` and shakes hands.
    ///
    /// # Errors
    /// When nobody answers there as a Bitcoin peer does.
    pub fn dial(to: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let shared = shared(Vec::new(), 0)?;
        let hello = version(&stream, &shared)?;
        send(&mut stream, hello)?;
        let mut services = 0;
        loop {
            match receive(&mut stream)? {
                NetworkMessage::Version(version) => {
                    services = version.services.to_u64();
                    send(&mut stream, NetworkMessage::Verack)?;
                }
                NetworkMessage::Verack => return Ok(Self { stream, services }),
                _ => {}
            }
        }
    }

    /// What the other side offers.
    pub fn services(&self) -> u64 {
        self.services
    }

    /// Sends transactions that nobody asked for, as fast as the other side takes them.
    ///
    /// # Errors
    /// When the other side hangs up.
    pub fn push(&mut self, transactions: &[Transaction]) -> Result<()> {
        let mut bytes = Vec::new();
        for tx in transactions {
            bytes.extend(serialize(&RawNetworkMessage::new(
                Magic::REGTEST,
                NetworkMessage::Tx(tx.clone()),
            )));
            if bytes.len() >= PUSH {
                self.stream.write_all(&bytes)?;
                bytes.clear();
            }
        }
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Sends a question of BIP 157 and reads so many answers of it, each with its command.
    ///
    /// # Errors
    /// When the other side hangs up or does not answer in half a minute.
    pub fn ask(&mut self, question: NetworkMessage, answers: usize) -> Result<Vec<(String, Vec<u8>)>> {
        send(&mut self.stream, question)?;
        let mut found = Vec::new();
        while found.len() < answers {
            let message = receive(&mut self.stream)?;
            let command = message.cmd().to_owned();
            match message {
                NetworkMessage::Ping(nonce) => send(&mut self.stream, NetworkMessage::Pong(nonce))?,
                NetworkMessage::CFilter(_) | NetworkMessage::CFHeaders(_) | NetworkMessage::CFCheckpt(_) => {
                    found.push((command, serialize(&RawNetworkMessage::new(Magic::REGTEST, message))));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn speak(mut stream: TcpStream, shared: &Shared, we_dialled: bool) -> Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    if we_dialled {
        let hello = version(&stream, shared)?;
        send(&mut stream, hello)?;
    }
    let headers = || NetworkMessage::Headers(shared.blocks.iter().map(|block| block.header).collect());
    loop {
        let message = receive(&mut stream)?;
        lock(&shared.seen).commands.push(message.cmd().to_owned());
        match message {
            NetworkMessage::Version(_) => {
                if !we_dialled {
                    let hello = version(&stream, shared)?;
                    send(&mut stream, hello)?;
                }
                send(&mut stream, NetworkMessage::Verack)?;
            }
            NetworkMessage::Verack if !shared.blocks.is_empty() => send(&mut stream, headers())?,
            NetworkMessage::Ping(nonce) => send(&mut stream, NetworkMessage::Pong(nonce))?,
            NetworkMessage::GetHeaders(request) => {
                // Everything that follows the first block of theirs that leads to ours.
                let known = |block: &Block| request.locator_hashes.contains(&block.block_hash());
                let from = shared.blocks.iter().rposition(known).map_or(0, |index| index + 1);
                let list = shared.blocks[from..].iter().map(|block| block.header).collect();
                send(&mut stream, NetworkMessage::Headers(list))?;
            }
            NetworkMessage::GetData(list) => {
                for item in list {
                    let (Inventory::Block(hash) | Inventory::WitnessBlock(hash)) = item else {
                        continue;
                    };
                    let Some(index) = shared.by_hash.get(&hash) else {
                        send(&mut stream, NetworkMessage::NotFound(vec![item]))?;
                        continue;
                    };
                    send(&mut stream, NetworkMessage::Block(shared.blocks[*index].clone()))?;
                    lock(&shared.seen).served.push(hash);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::coins::{BlockPlan, Holder, coinbase_coin};
    use crate::core::{Bitcoind, Options};
    use crate::wait_until;
    use bitcoin::Amount;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn core_takes_a_block_made_by_hand_and_hangs_up_on_a_bad_one() {
        let core = Bitcoind::start(Options::default()).unwrap();
        let miner = Holder::new(1);
        core.generate(101, &miner.address()).unwrap();
        let raw = core
            .call("getblock", serde_json::json!([core.hash_at(1).unwrap(), 0]))
            .unwrap();
        let first: Block = deserialize(&hex::decode(raw.as_str().unwrap()).unwrap()).unwrap();
        let payment = miner.pay(coinbase_coin(&first), &Holder::new(2), Amount::from_sat(1_000));

        let mut plan = core.plan(&miner).unwrap();
        plan.transactions.push(payment);
        let good = plan.mine();
        let bad = BlockPlan::new(good.block_hash(), 103, good.header.time + 1, &miner).mine_with_wrong_merkle_root();

        let from = Ipv4Addr::new(127, 0, 0, 5);
        let peer = BitcoinPeer::dial(from, core.p2p(), vec![good.clone(), bad], 103).unwrap();
        assert_eq!(peer.address().ip(), from);
        wait_until("Core takes the good block", LIMIT, || {
            core.best_hash().unwrap() == good.block_hash().to_string()
        })
        .unwrap();
        wait_until("Core hangs up", LIMIT, || peer.seen().closed == 1).unwrap();
        assert!(core.debug_log().contains("bad-txnmrklroot"));
    }

    #[test]
    fn core_dials_and_takes_a_block_made_by_hand() {
        let core = Bitcoind::start(Options::default()).unwrap();
        let miner = Holder::new(1);
        core.generate(3, &miner.address()).unwrap();
        let block = core.plan(&miner).unwrap().mine();
        let peer = BitcoinPeer::listen(Ipv4Addr::LOCALHOST, vec![block.clone()], 4).unwrap();
        core.add_peer(peer.address()).unwrap();
        wait_until("Core takes the block", LIMIT, || {
            core.best_hash().unwrap() == block.block_hash().to_string()
        })
        .unwrap();
        assert_eq!(peer.seen().served, [block.block_hash()]);
    }
}
