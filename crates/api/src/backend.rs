//! What the program offers to those who speak to us: the node's parts behind narrow async traits.
//!
//! The servers of this crate own no protocol and no store. They ask through [`BitcoinBackend`] and
//! [`TorrentBackend`], which the program implements over its running machines and which tests implement in memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;
use dunlin_chain::indexes::Indexes;
use dunlin_chain::{BlockError, Network, OperateError, ParsedBlock, View};
use dunlin_mempool::{Accepted, Pool, PoolReject};
pub use dunlin_peer::{AddressBook, LinkId, NetAddr, NetClass, NetClasses};
pub use dunlin_relay::{AddKind, Ban, ChainOp, Kind, Operated, PeerInfo, Subnet, Transport, Which};
pub use dunlin_torrent::command::{Priority, Source};
pub use dunlin_torrent::status::{PeerStatus, State, TorrentStatus};
pub use dunlin_torrent::{InfoHash, Metainfo};
use tokio::sync::watch;

use crate::zmq::Publisher;

/// A running peer as the servers see it.
pub struct Node {
    /// The Bitcoin network this process works on.
    pub network: Network,
    /// The program's version, such as `0.1.0`.
    pub version: String,
    /// What we call ourselves to Bitcoin peers (BIP 14), such as `/Dunlin:0.1.0/`.
    pub user_agent: String,
    /// When the process started.
    pub started: Instant,
    /// Where this node keeps its files.
    pub data_dir: PathBuf,
    /// The Bitcoin part, unless it is switched off.
    pub bitcoin: Option<Arc<dyn BitcoinBackend>>,
    /// The BitTorrent part, unless it is switched off.
    pub torrent: Option<Arc<dyn TorrentBackend>>,
    /// What is published over ZeroMQ, if anything is.
    pub zmq: Option<Arc<Publisher>>,
    /// Where files of torrents are served to players.
    pub streams: crate::stream::Base,
    /// Which parts log more.
    pub logging: crate::rpc::Logging,
    /// Ends the process cleanly.
    pub stop: Stop,
}

/// A switch that ends the process: pulled once, seen by all who hold a clone.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A switch that nobody pulled yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Pulls the switch; pulling it again does nothing.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was pulled.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is pulled.
    pub async fn wait(&self) {
        let mut seen = self.0.subscribe();
        // The sender lives as long as `self`, so this ends only by the switch.
        let _ = seen.wait_for(|pulled| *pulled).await;
    }
}

/// Why a backend could not do what was asked; whose fault it is decides the answer given to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The part is stopping or did not answer in time; asking later may help.
    #[error("{0}")]
    Unavailable(String),
    /// The request names something that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request would add what is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Our own disk or memory failed.
    #[error("{0}")]
    Internal(String),
}

/// Why a submitted block was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitBlockError {
    /// The chain refused it or could not store it.
    #[error("{0}")]
    Block(BlockError),
    /// The node could not even look at it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why a submitted transaction did not enter the pool.
#[derive(Debug, thiserror::Error)]
pub enum SubmitTxError {
    /// The pool refused it.
    #[error("{}", .0.reason)]
    Rejected(PoolReject),
    /// The node could not even look at it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why the chain did not do what an operator asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainOpError {
    /// The chain says why.
    #[error("{0}")]
    Chain(OperateError),
    /// The node could not even ask it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// One Bitcoin connection: what the relay knows of it joined with what the transport counted.
#[derive(Clone, Debug)]
pub struct PeerRow {
    /// What the relay knows.
    pub info: PeerInfo,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// Which networks we reach, and how.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// The networks that we reach.
    pub reachable: NetClasses,
    /// The proxy of each network that has one.
    pub proxies: Vec<(NetClass, SocketAddr)>,
}

/// Bytes over all Bitcoin connections since the start, closed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetTotals {
    /// Received.
    pub bytes_in: u64,
    /// Sent.
    pub bytes_out: u64,
}

/// The Bitcoin peer.
///
/// Queries go straight to the chain's [`View`] and to the pool; only what changes something passes through here.
#[async_trait]
pub trait BitcoinBackend: Send + Sync {
    /// The chain as it is now; cheap.
    fn view(&self) -> View;

    /// The indexes that are on; cheap.
    fn indexes(&self) -> Indexes;

    /// The memory pool. Held shortly: the relay waits for it.
    fn pool(&self) -> Arc<RwLock<Pool>>;

    /// Validates, stores and floods a block. `false` says that it was here already.
    async fn submit_block(&self, block: Arc<ParsedBlock>) -> Result<bool, SubmitBlockError>;

    /// Takes a transaction into the pool and floods it.
    async fn submit_tx(&self, tx: Arc<Transaction>) -> Result<Accepted, SubmitTxError>;

    /// Has the chain do what an operator asks; returns once it has come to rest.
    async fn operate(&self, op: ChainOp) -> Result<Operated, ChainOpError>;

    /// All connections, oldest first.
    async fn peers(&self) -> Result<Vec<PeerRow>, BackendError>;

    /// Adds, tries or forgets a peer. [`BackendError::AlreadyExists`] and [`BackendError::NotFound`] say that the
    /// list did not change.
    async fn add_node(&self, addr: NetAddr, what: AddKind) -> Result<(), BackendError>;

    /// The addresses that a person added, and whether each is connected.
    async fn added_nodes(&self) -> Result<Vec<(NetAddr, bool)>, BackendError>;

    /// Our addresses as others reach them, as far as known.
    async fn own_addresses(&self) -> Result<Vec<NetAddr>, BackendError>;

    /// Which networks we reach, and how.
    fn ways(&self) -> Ways;

    /// A copy of the address book.
    async fn address_book(&self) -> Result<Box<AddressBook>, BackendError>;

    /// Pings every peer.
    async fn ping(&self) -> Result<(), BackendError>;

    /// Closes connections; [`BackendError::NotFound`] when there is none.
    async fn disconnect(&self, which: Which) -> Result<(), BackendError>;

    /// Asks a peer for a block; [`BackendError::Invalid`] says why it cannot be, in Core's words.
    async fn fetch_block(&self, peer: LinkId, block: BlockHash) -> Result<(), BackendError>;

    /// Bans a range for `seconds` from now and closes its connections.
    async fn ban(&self, subnet: Subnet, seconds: u64) -> Result<(), BackendError>;

    /// Lifts the ban of a range; [`BackendError::NotFound`] when there is none.
    async fn unban(&self, subnet: Subnet) -> Result<(), BackendError>;

    /// The bans in force.
    async fn banned(&self) -> Result<Vec<Ban>, BackendError>;

    /// Traffic since the start.
    fn net_totals(&self) -> NetTotals;

    /// Where we listen for Bitcoin peers.
    fn listening(&self) -> Vec<SocketAddr>;

    /// The service bits that we offer.
    fn services(&self) -> u64;

    /// Whether transactions are taken from peers.
    fn relays_txs(&self) -> bool;

    /// Bytes that block and undo files take on disk.
    fn size_on_disk(&self) -> u64;

    /// Holds the tip's hash and tells each change of it.
    fn tip_changed(&self) -> watch::Receiver<BlockHash>;
}

/// What to share or fetch.
#[derive(Clone, Debug)]
pub enum AddSource {
    /// A parsed `.torrent` file or magnet link.
    Torrent(Source),
    /// The address of a `.torrent` file, to be fetched over HTTP(S).
    Url(String),
}

/// A torrent to add, and how.
#[derive(Clone, Debug)]
pub struct AddRequest {
    /// What.
    pub source: AddSource,
    /// The folder to put it in; the configured one when `None`.
    pub dir: Option<PathBuf>,
    /// Peers to dial besides those found.
    pub peers: Vec<SocketAddr>,
    /// Add it without starting.
    pub paused: bool,
    /// Only serve what is there.
    pub seed_only: bool,
}

/// The BitTorrent peer.
#[async_trait]
pub trait TorrentBackend: Send + Sync {
    /// Every torrent, in an order that stays.
    async fn list(&self) -> Result<Vec<TorrentStatus>, BackendError>;

    /// Adds a torrent; [`BackendError::AlreadyExists`] when it is there.
    async fn add(&self, add: AddRequest) -> Result<InfoHash, BackendError>;

    /// Forgets a torrent, and deletes its files where asked.
    async fn remove(&self, info_hash: InfoHash, delete_files: bool) -> Result<(), BackendError>;

    /// Stops transfer.
    async fn pause(&self, info_hash: InfoHash) -> Result<(), BackendError>;

    /// Starts transfer again.
    async fn resume(&self, info_hash: InfoHash) -> Result<(), BackendError>;

    /// What a torrent consists of; `None` while a magnet link's info dictionary is not here yet.
    async fn metainfo(&self, info_hash: InfoHash) -> Result<Option<Arc<Metainfo>>, BackendError>;

    /// Hashes everything on disk again.
    async fn recheck(&self, info_hash: InfoHash) -> Result<(), BackendError>;

    /// Says how much files are wanted, by their indices in the torrent.
    async fn prioritise(&self, info_hash: InfoHash, files: Vec<(usize, Priority)>) -> Result<(), BackendError>;

    /// Limits rates in bytes a second, of one torrent or of all together; `None` is no limit.
    async fn limit(
        &self,
        info_hash: Option<InfoHash>,
        download: Option<u64>,
        upload: Option<u64>,
    ) -> Result<(), BackendError>;

    /// Bytes of a torrent from `offset` on, as soon as they are there; at least one, at most `len`. `stream` is the
    /// reader's own number: what follows is fetched first until [`TorrentBackend::end_stream`].
    async fn read(&self, info_hash: InfoHash, stream: u64, offset: u64, len: u32) -> Result<Bytes, BackendError>;

    /// A reader wants nothing more.
    fn end_stream(&self, info_hash: InfoHash, stream: u64);

    /// Where we listen for BitTorrent peers.
    fn listening(&self) -> Vec<SocketAddr>;
}
