//! What the program asks of the torrent engine, and what the engine tells and asks of the program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::dht::Saved;
use crate::ip_filter::IpFilter;
use crate::resume::Resume;
use crate::status::TorrentStatus;
use crate::tracker::{self, TrackerError};
use crate::wire::{Encryption, TorrentKeys};
use crate::{InfoHash, Magnet, Metainfo, disk};

/// The settings of a [`Session`](crate::session::Session).
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything random is drawn from this.
    pub seed: [u8; 32],
    /// The first eight bytes of our peer id (BEP 20).
    pub peer_id_prefix: [u8; 8],
    /// Our name in the extension handshake.
    pub client: String,
    /// The port on which the program listens; `None` when it does not.
    pub listen_port: Option<u16>,
    /// Where resume files are kept; `None` keeps none.
    pub resume_dir: Option<PathBuf>,
    /// Which links are encrypted, when their codecs can: see [`crate::wire::Codec::encrypting`].
    pub encryption: Encryption,
    /// The session keeps its torrents in here, for the codecs of its links.
    pub torrent_keys: TorrentKeys,
    /// Addresses that nothing is exchanged with.
    pub ip_filter: Arc<IpFilter>,
    /// Bytes of content a second from all peers; `None` is no limit.
    pub download_limit: Option<u64>,
    /// Bytes of content a second to all peers; `None` is no limit.
    pub upload_limit: Option<u64>,
    /// A torrent that has given so many thousandths of its own size is paused.
    pub ratio_goal: Option<u64>,
    /// A torrent that has only served for so long, in all runs, is paused.
    pub seed_time_goal: Option<Duration>,
    /// Torrents that download at once; the others wait for their turn.
    pub max_downloads: Option<usize>,
    /// Torrents that only serve at once; the others wait for their turn.
    pub max_seeds: Option<usize>,
    /// Whether to dial over uTP where TCP comes to nothing; for a session within a [`crate::utp::Transport`].
    pub utp: bool,
    /// Whether peers are looked for in the house (BEP 14); its messages come in as datagrams.
    pub lsd: bool,
    /// Whether peers tell each other of peers (BEP 11).
    pub pex: bool,
    /// The DHT; `None` runs no node of it.
    pub dht: Option<DhtConfig>,
    /// Bounds.
    pub limits: Limits,
}

/// How the session's node of the DHT is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtConfig {
    /// Names of nodes to begin with, as `host:port`.
    pub routers: Vec<String>,
    /// What an earlier run remembered.
    pub saved: Saved,
    /// Ask, but answer nobody (BEP 43).
    pub read_only: bool,
}

impl Config {
    /// The defaults, with this seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            peer_id_prefix: *b"-DN0100-",
            client: concat!("Dunlin ", env!("CARGO_PKG_VERSION")).to_owned(),
            listen_port: None,
            resume_dir: None,
            encryption: Encryption::Off,
            torrent_keys: TorrentKeys::default(),
            ip_filter: Arc::default(),
            download_limit: None,
            upload_limit: None,
            ratio_goal: None,
            seed_time_goal: None,
            max_downloads: None,
            max_seeds: None,
            utp: false,
            lsd: false,
            pex: true,
            dht: None,
            limits: Limits::default(),
        }
    }
}

/// Bounds on what the engine takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Links of all torrents.
    pub links: usize,
    /// Links of one torrent.
    pub links_per_torrent: usize,
    /// Dials on their way.
    pub dials: usize,
    /// Peers that one torrent uploads to at once.
    pub unchoke_slots: usize,
    /// Requests on their way to one peer, at most.
    pub pipeline: usize,
    /// Requests of one peer that wait for their answer, at most; told as `reqq`.
    pub peer_requests: usize,
    /// Bytes handed to the disk and not yet written; beyond it links are not read.
    pub dirty_bytes: u64,
    /// Bytes being read for one peer or queued on its link; more than the driver's send mark.
    pub upload_window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 200,
            links_per_torrent: 50,
            dials: 20,
            unchoke_slots: 8,
            pipeline: 512,
            peer_requests: 2000,
            dirty_bytes: 24 << 20,
            upload_window: 4 << 20,
        }
    }
}

/// Where a torrent comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A .torrent file.
    Metainfo(Arc<Metainfo>),
    /// A magnet link; the rest comes from peers.
    Magnet(Magnet),
}

impl Source {
    /// Which torrent it is.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Metainfo(metainfo) => metainfo.info_hash,
            Self::Magnet(magnet) => magnet.info_hash,
        }
    }
}

/// A torrent to add.
#[derive(Clone, Debug)]
pub struct AddTorrent {
    /// The torrent.
    pub source: Source,
    /// The folder that its files go into.
    pub dir: PathBuf,
    /// Peers to dial, named by the user.
    pub peers: Vec<SocketAddr>,
    /// Add it, but do nothing yet.
    pub paused: bool,
    /// Only serve what is there: nothing is downloaded, created or written.
    pub seed_only: bool,
    /// Fetch pieces in the order of the file.
    pub sequential: bool,
    /// What an earlier run verified; its counters, trackers and info dictionary are taken over.
    pub resume: Option<Arc<Resume>>,
}

impl AddTorrent {
    /// A torrent to download into `dir`, with nothing special about it.
    pub fn new(source: Source, dir: PathBuf) -> Self {
        Self {
            source,
            dir,
            peers: Vec::new(),
            paused: false,
            seed_only: false,
            sequential: false,
            resume: None,
        }
    }
}

/// How much a file is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Not at all.
    Skip,
    /// As the others.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// Bytes that somebody wants to read while the torrent downloads.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// The reader's own number; one question of it is open at a time.
    pub stream: u64,
    /// The first byte's place in the torrent.
    pub offset: u64,
    /// Bytes; fewer come where the file, the piece or [`crate::wire::MAX_BLOCK_LEN`] ends.
    pub len: u32,
    /// Given back.
    pub ticket: u64,
}

/// A request of the program.
#[derive(Debug)]
pub enum Command {
    /// Take on a torrent.
    Add(Box<AddTorrent>),
    /// Drop a torrent; answered by [`Event::Removed`].
    Remove {
        /// Which torrent.
        info_hash: InfoHash,
        /// Delete what was downloaded, too.
        delete_files: bool,
    },
    /// Close the torrent's links and do nothing until resumed.
    Pause {
        /// Which torrent.
        info_hash: InfoHash,
    },
    /// Go on; also after an error.
    Resume {
        /// Which torrent.
        info_hash: InfoHash,
    },
    /// Dial these peers.
    AddPeers {
        /// Which torrent.
        info_hash: InfoHash,
        /// Their addresses.
        peers: Vec<SocketAddr>,
    },
    /// Say how much files are wanted, by their indices in the torrent.
    Prioritise {
        /// Which torrent.
        info_hash: InfoHash,
        /// Those that change.
        files: Vec<(usize, Priority)>,
    },
    /// Limit rates, in bytes of content a second; `None` is no limit.
    Limit {
        /// Which torrent; `None` for all together.
        info_hash: Option<InfoHash>,
        /// From peers.
        download: Option<u64>,
        /// To peers.
        upload: Option<u64>,
    },
    /// Read bytes as soon as they are there, and fetch what follows them before all else; answered by [`Event::Read`].
    Read(ReadRequest),
    /// A reader wants nothing more.
    EndStream {
        /// Which torrent.
        info_hash: InfoHash,
        /// The reader's number.
        stream: u64,
    },
    /// Believe nothing and hash what is on disk.
    Recheck {
        /// Which torrent.
        info_hash: InfoHash,
    },
    /// Tell the state of every torrent, or of one; answered by [`Event::Status`].
    Query {
        /// This one alone, if it is there.
        info_hash: Option<InfoHash>,
        /// Given back.
        ticket: u64,
    },
    /// Where the program listens from now on.
    Listening {
        /// The port; `None` when it does not listen.
        port: Option<u16>,
    },
    /// Say goodbye to trackers and peers and save everything; answered by [`Event::Stopped`].
    Stop,
}

/// News for the program.
#[derive(Debug)]
pub enum Event {
    /// Answers [`Command::Query`].
    Status {
        /// The query's ticket.
        ticket: u64,
        /// Every torrent, in the order of their info hashes.
        torrents: Vec<TorrentStatus>,
    },
    /// A torrent was taken on.
    Added {
        /// Which torrent.
        info_hash: InfoHash,
        /// False when it was there before; new peers were taken over.
        new: bool,
    },
    /// A magnet link's info dictionary is here.
    MetadataReceived {
        /// Which torrent.
        info_hash: InfoHash,
        /// What it is.
        metainfo: Arc<Metainfo>,
    },
    /// It is known now which pieces are on disk.
    Checked {
        /// Which torrent.
        info_hash: InfoHash,
        /// Pieces that are there.
        have: u32,
        /// Pieces in all.
        pieces: u32,
    },
    /// Every piece is there, verified and written.
    Completed {
        /// Which torrent.
        info_hash: InfoHash,
    },
    /// A piece came with a wrong hash and is fetched again.
    PieceFailed {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which piece.
        piece: u32,
        /// Who sent parts of it.
        from: Vec<SocketAddr>,
    },
    /// A peer lied and is banned from the torrent.
    PeerBanned {
        /// Which torrent.
        info_hash: InfoHash,
        /// The peer.
        addr: SocketAddr,
        /// What it did.
        reason: String,
    },
    /// A torrent cannot go on; [`Command::Resume`] tries again.
    Error {
        /// Which torrent.
        info_hash: InfoHash,
        /// One line for people.
        text: String,
    },
    /// Answers [`Command::Read`].
    Read {
        /// The question's ticket.
        ticket: u64,
        /// The bytes, or in one line why they will not come.
        result: Result<Bytes, String>,
    },
    /// A torrent is gone.
    Removed {
        /// Which torrent.
        info_hash: InfoHash,
        /// What could not be deleted.
        error: Option<String>,
    },
    /// Answers [`Command::Stop`]: everything is saved.
    Stopped,
}

/// Slow work for the program.
#[derive(Debug)]
pub enum Job {
    /// For [`disk::Disk`].
    Disk(disk::Job),
    /// Ask a tracker.
    Announce(tracker::Request),
    /// Find the addresses of names in the form `host:port`.
    Resolve {
        /// The names.
        names: Vec<String>,
    },
    /// Write what the DHT is to remember, in place of what is there.
    SaveDht {
        /// Where.
        file: PathBuf,
        /// What.
        saved: Saved,
    },
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// The disk's answer.
    Disk(disk::Done),
    /// The tracker's answer.
    Announced {
        /// The request as it was handed out.
        request: tracker::Request,
        /// What the tracker said.
        result: Result<tracker::Response, TrackerError>,
    },
    /// The addresses of all names that have some.
    Resolved {
        /// The addresses.
        addrs: Vec<SocketAddr>,
    },
    /// [`Job::SaveDht`] was tried; a failure costs only a slower next start.
    DhtSaved,
}
