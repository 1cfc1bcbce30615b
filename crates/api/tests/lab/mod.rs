//! A node in memory for tests: a real chain and mempool, torrents that are only a list, and a bare HTTP client.

// Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod pair;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::{BlockHash, Transaction};
use dunlin_api::backend::{
    AddKind, AddRequest, AddSource, BackendError, Ban, BitcoinBackend, ChainOp, ChainOpError, InfoHash, Kind, Metainfo,
    NetAddr, NetClass, NetTotals, Operated, PeerInfo, PeerRow, PeerStatus, Priority, State, SubmitBlockError,
    SubmitTxError, Subnet, TorrentBackend, TorrentStatus, Transport, Ways, Which,
};
use dunlin_api::{Node, Stop};
use dunlin_chain::indexes::{IndexKind, Indexer, Indexes};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock, View};
use dunlin_mempool::{Accepted, Pool};
use dunlin_peer::{AddressBook, Direction, LinkId, Now, Reach};
use dunlin_relay::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub fn now() -> Now {
    Now::from_unix_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A Bitcoin node without peers of flesh and blood.
pub struct Lab {
    engine: Mutex<Engine>,
    view: View,
    indexes: Indexes,
    pool: Arc<RwLock<Pool>>,
    tip: watch::Sender<BlockHash>,
    pub peers: Mutex<Vec<PeerRow>>,
    pub added: Mutex<Vec<NetAddr>>,
    pub book: Mutex<AddressBook>,
    bans: Mutex<Vec<Ban>>,
}

impl Lab {
    pub fn new(network: Network) -> Arc<Self> {
        Self::with(network, ChainConfig::default(), &[])
    }

    pub fn with(network: Network, config: ChainConfig, indexes: &[IndexKind]) -> Arc<Self> {
        let chain = Chain::open(Params::new(network), ChainStore::in_memory(), config).unwrap();
        let view = chain.view();
        let tables = indexes.iter().map(|kind| (*kind, kind.in_memory())).collect();
        let indexer = Indexer::open(view.clone(), tables).unwrap();
        let indexes = indexer.indexes();
        std::thread::spawn(move || indexer.run());
        let pool = Arc::new(RwLock::new(Pool::new(dunlin_mempool::Config::default(), view.clone())));
        let tip = watch::Sender::new(view.tip().hash);
        Arc::new(Self {
            engine: Mutex::new(Engine::new(chain, Arc::clone(&pool))),
            view,
            indexes,
            pool,
            tip,
            peers: Mutex::default(),
            added: Mutex::default(),
            book: Mutex::new(AddressBook::new([7; 32], Reach::Public)),
            bans: Mutex::default(),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.indexes.stop(&self.view);
    }
}

/// A peer as the relay would describe it.
pub fn peer(id: u64, addr: &str, direction: Direction) -> PeerRow {
    PeerRow {
        info: PeerInfo {
            link: LinkId(id),
            addr: addr.parse().unwrap(),
            bind: None,
            network: NetClass::Ipv4,
            system: None,
            direction,
            kind: match direction {
                Direction::Inbound => Kind::Inbound,
                Direction::Outbound => Kind::Automatic,
            },
            transport: Transport::V2([7; 32]),
            ready: true,
            services: 0x409,
            version: 70_016,
            user_agent: "/Satoshi:31.0.0/".into(),
            start_height: 5,
            synced_headers: 7,
            synced_blocks: 6,
            ping: Some(Duration::from_micros(12_345)),
            min_ping: Some(Duration::from_micros(2_000)),
            ping_wait: None,
            connected_at: Now::from_unix_secs(1_700_000_000),
            last_recv: Now::from_unix_secs(1_700_000_100),
            last_send: Now::from_unix_secs(1_700_000_101),
            last_tx: None,
            last_block: Some(Now::from_unix_secs(1_700_000_050)),
            inflight: vec![8, 9],
            relay_tx: true,
            fee_filter: 100,
            time_offset: -1,
            addr_relay: true,
            addr_processed: 3,
            addr_rate_limited: 0,
            compact_to: true,
            compact_from: false,
            wtxid_relay: true,
        },
        bytes_in: 4_000,
        bytes_out: 3_000,
    }
}

#[async_trait]
impl BitcoinBackend for Lab {
    fn view(&self) -> View {
        self.view.clone()
    }

    fn indexes(&self) -> Indexes {
        self.indexes.clone()
    }

    fn pool(&self) -> Arc<RwLock<Pool>> {
        Arc::clone(&self.pool)
    }

    async fn submit_block(&self, block: Arc<ParsedBlock>) -> Result<bool, SubmitBlockError> {
        let outcome = self
            .engine
            .lock()
            .unwrap()
            .accept_block(now(), block)
            .map_err(SubmitBlockError::Block)?;
        self.tip.send_replace(self.view.tip().hash);
        Ok(outcome.new)
    }

    async fn submit_tx(&self, tx: Arc<Transaction>) -> Result<Accepted, SubmitTxError> {
        self.pool
            .write()
            .unwrap()
            .accept(now().unix_secs(), tx)
            .map_err(SubmitTxError::Rejected)
    }

    async fn operate(&self, op: ChainOp) -> Result<Operated, ChainOpError> {
        let mut engine = self.engine.lock().unwrap();
        let (outcome, done) = engine.operate(now(), &op).map_err(ChainOpError::Chain)?;
        assert!(!outcome.more);
        self.tip.send_replace(self.view.tip().hash);
        Ok(done)
    }

    async fn peers(&self) -> Result<Vec<PeerRow>, BackendError> {
        Ok(self.peers.lock().unwrap().clone())
    }

    async fn add_node(&self, addr: NetAddr, what: AddKind) -> Result<(), BackendError> {
        let mut added = self.added.lock().unwrap();
        let at = added.iter().position(|known| *known == addr);
        match (what, at) {
            (AddKind::Onetry, _) => {}
            (AddKind::Add, None) => added.push(addr),
            (AddKind::Add, Some(_)) => return Err(BackendError::AlreadyExists(String::new())),
            (AddKind::Remove, Some(at)) => {
                added.remove(at);
            }
            (AddKind::Remove, None) => return Err(BackendError::NotFound(String::new())),
        }
        Ok(())
    }

    async fn own_addresses(&self) -> Result<Vec<NetAddr>, BackendError> {
        Ok(Vec::new())
    }

    fn ways(&self) -> Ways {
        Ways {
            reachable: [NetClass::Ipv4, NetClass::Ipv6].into_iter().collect(),
            proxies: Vec::new(),
        }
    }

    async fn added_nodes(&self) -> Result<Vec<(NetAddr, bool)>, BackendError> {
        let added = self.added.lock().unwrap();
        let peers = self.peers.lock().unwrap();
        let row = |addr: &NetAddr| (*addr, peers.iter().any(|peer| peer.info.addr == *addr));
        Ok(added.iter().map(row).collect())
    }

    async fn address_book(&self) -> Result<Box<AddressBook>, BackendError> {
        Ok(Box::new(self.book.lock().unwrap().clone()))
    }

    async fn ping(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn disconnect(&self, which: Which) -> Result<(), BackendError> {
        let mut peers = self.peers.lock().unwrap();
        let before = peers.len();
        peers.retain(|peer| match which {
            Which::Link(link) => peer.info.link != link,
            Which::Addr(addr) => peer.info.addr != addr,
        });
        if peers.len() == before {
            Err(BackendError::NotFound(String::new()))
        } else {
            Ok(())
        }
    }

    async fn fetch_block(&self, peer: LinkId, _: BlockHash) -> Result<(), BackendError> {
        let peers = self.peers.lock().unwrap();
        let known = peers.iter().any(|row| row.info.link == peer);
        known
            .then_some(())
            .ok_or_else(|| BackendError::Invalid("Peer does not exist".to_owned()))
    }

    async fn ban(&self, subnet: Subnet, seconds: u64) -> Result<(), BackendError> {
        let created = now().unix_secs();
        let ban = Ban {
            subnet,
            created,
            until: created + seconds,
            discouraged: false,
            reason: String::new(),
        };
        self.bans.lock().unwrap().push(ban);
        Ok(())
    }

    async fn unban(&self, subnet: Subnet) -> Result<(), BackendError> {
        let mut bans = self.bans.lock().unwrap();
        let before = bans.len();
        bans.retain(|ban| ban.subnet != subnet);
        if bans.len() == before {
            Err(BackendError::NotFound(String::new()))
        } else {
            Ok(())
        }
    }

    async fn banned(&self) -> Result<Vec<Ban>, BackendError> {
        Ok(self.bans.lock().unwrap().clone())
    }

    fn net_totals(&self) -> NetTotals {
        NetTotals {
            bytes_in: 4_000,
            bytes_out: 3_000,
        }
    }

    fn listening(&self) -> Vec<SocketAddr> {
        vec!["127.0.0.1:18444".parse().unwrap()]
    }

    fn services(&self) -> u64 {
        0x409
    }

    fn relays_txs(&self) -> bool {
        true
    }

    fn size_on_disk(&self) -> u64 {
        0
    }

    fn tip_changed(&self) -> watch::Receiver<BlockHash> {
        self.tip.subscribe()
    }
}

/// Torrents that do nothing but stand in a list.
#[derive(Default)]
pub struct Shelf {
    pub torrents: Mutex<BTreeMap<InfoHash, TorrentStatus>>,
}

pub fn torrent(info_hash: InfoHash, name: &str) -> TorrentStatus {
    TorrentStatus {
        info_hash,
        info_hash_v2: None,
        download_limit: None,
        upload_limit: None,
        priorities: Vec::new(),
        name: name.into(),
        state: State::Downloading,
        error: None,
        dir: PathBuf::from("/downloads"),
        private: false,
        total_bytes: 4 * 16_384,
        done_bytes: 2 * 16_384,
        piece_length: 16_384,
        piece_count: 4,
        pieces_done: 2,
        pieces: vec![0b1010_0000],
        availability: vec![1; 4],
        copies_milli: 1_000,
        download_rate: 2_048,
        upload_rate: 1_024,
        downloaded: 2 * 16_384,
        uploaded: 100,
        wasted: 0,
        eta: Some(16),
        added: 1_700_000_000,
        known_peers: 3,
        peers: vec![PeerStatus {
            link: LinkId(3),
            addr: "192.0.2.9:6881".parse().unwrap(),
            direction: Direction::Outbound,
            client: "libtorrent 2.0".into(),
            progress_milli: 1_000,
            download_rate: 2_048,
            upload_rate: 1_024,
            downloaded: 32_768,
            uploaded: 100,
            requests: 4,
            flags: Default::default(),
        }],
        trackers: Vec::new(),
    }
}

impl Shelf {
    fn change(&self, info_hash: InfoHash, state: State) -> Result<(), BackendError> {
        let mut torrents = self.torrents.lock().unwrap();
        let status = torrents
            .get_mut(&info_hash)
            .ok_or_else(|| BackendError::NotFound("no such torrent".into()))?;
        status.state = state;
        Ok(())
    }
}

#[async_trait]
impl TorrentBackend for Shelf {
    async fn list(&self) -> Result<Vec<TorrentStatus>, BackendError> {
        Ok(self.torrents.lock().unwrap().values().cloned().collect())
    }

    async fn add(&self, add: AddRequest) -> Result<InfoHash, BackendError> {
        let AddSource::Torrent(source) = add.source else {
            return Err(BackendError::Invalid("there is no web here".into()));
        };
        let info_hash = source.info_hash();
        if self.torrents.lock().unwrap().contains_key(&info_hash) {
            return Err(BackendError::AlreadyExists("this torrent is there already".into()));
        }
        self.torrents
            .lock()
            .unwrap()
            .insert(info_hash, torrent(info_hash, "added"));
        if add.paused {
            self.change(info_hash, State::Paused).map(|()| info_hash)
        } else {
            Ok(info_hash)
        }
    }

    async fn remove(&self, info_hash: InfoHash, _delete_files: bool) -> Result<(), BackendError> {
        let gone = self.torrents.lock().unwrap().remove(&info_hash);
        gone.map(|_| ())
            .ok_or_else(|| BackendError::NotFound("no such torrent".into()))
    }

    async fn pause(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.change(info_hash, State::Paused)
    }

    async fn resume(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.change(info_hash, State::Downloading)
    }

    async fn metainfo(&self, _info_hash: InfoHash) -> Result<Option<Arc<Metainfo>>, BackendError> {
        Ok(None)
    }

    async fn recheck(&self, info_hash: InfoHash) -> Result<(), BackendError> {
        self.change(info_hash, State::Checking)
    }

    async fn prioritise(&self, _: InfoHash, _: Vec<(usize, Priority)>) -> Result<(), BackendError> {
        Ok(())
    }

    async fn limit(&self, _: Option<InfoHash>, _: Option<u64>, _: Option<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    async fn read(&self, _: InfoHash, _: u64, _: u64, _: u32) -> Result<bytes::Bytes, BackendError> {
        Err(BackendError::NotFound("no such torrent".into()))
    }

    fn end_stream(&self, _: InfoHash, _: u64) {}

    fn listening(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

pub fn node(lab: &Arc<Lab>, shelf: &Arc<Shelf>) -> Arc<Node> {
    Arc::new(Node {
        network: lab.view.params().network,
        version: "0.1.0".into(),
        user_agent: "/Dunlin:0.1.0/".into(),
        started: Instant::now(),
        data_dir: PathBuf::from("/nowhere"),
        bitcoin: Some(Arc::clone(lab) as Arc<dyn BitcoinBackend>),
        torrent: Some(Arc::clone(shelf) as Arc<dyn TorrentBackend>),
        zmq: None,
        streams: Default::default(),
        logging: Default::default(),
        stop: Stop::new(),
    })
}

pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An answer over HTTP.
pub struct Reply {
    pub status: u16,
    pub head: String,
    /// The body, as text where it is none with marks in it.
    pub body: String,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.body))
    }
}

/// Sends one request with the given header lines. The Host header is the address unless the lines bring their own.
pub async fn http(addr: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|line| line.starts_with("Host:")) {
        request.push_str(&format!("Host: {addr}\r\n"));
    }
    for line in headers {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // A server that refuses a long body may close before it has read all of it.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end + 4..]);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply {
        status,
        head,
        body: String::from_utf8_lossy(body).into_owned(),
        bytes: body.to_vec(),
    }
}
