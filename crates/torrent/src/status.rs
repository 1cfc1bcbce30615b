//! Snapshots of torrents and peers, for people and programs that look on.

use std::net::SocketAddr;
use std::path::PathBuf;

use dunlin_peer::{Direction, LinkId};
use serde::Serialize;

use crate::{InfoHash, InfoHashV2};

/// What a torrent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Fetching the info dictionary from peers.
    Metadata,
    /// Finding out what is on disk.
    Checking,
    /// Fetching pieces.
    Downloading,
    /// Serving; everything that is wanted is there.
    Seeding,
    /// Waiting for its turn.
    Queued,
    /// Doing nothing because the user said so.
    Paused,
    /// Cannot go on.
    Error(String),
}

/// A torrent at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct TorrentStatus {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Its hash in version 2 (BEP 52), when it has one.
    pub info_hash_v2: Option<InfoHashV2>,
    /// Its name, or what a magnet link calls it.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// The error's text, when that is its state.
    pub error: Option<String>,
    /// The folder that its files are in.
    pub dir: PathBuf,
    /// The torrent is private (BEP 27).
    pub private: bool,
    /// Bytes of content; zero until the info dictionary is here.
    pub total_bytes: u64,
    /// Bytes of verified pieces.
    pub done_bytes: u64,
    /// Bytes a second that it may fetch; `None` is no limit.
    pub download_limit: Option<u64>,
    /// Bytes a second that it may give; `None` is no limit.
    pub upload_limit: Option<u64>,
    /// How much each file is wanted, when not all are wanted alike: 0 not at all, 1 as usual, 2 before the others.
    pub priorities: Vec<u8>,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// Pieces in all.
    pub piece_count: u32,
    /// Verified pieces.
    pub pieces_done: u32,
    /// One bit for each verified piece, the first in the highest bit of the first byte.
    #[serde(serialize_with = "as_hex")]
    pub pieces: Vec<u8>,
    /// For each piece, how many connected peers have it; 255 stands for that many and more.
    #[serde(serialize_with = "as_hex")]
    pub availability: Vec<u8>,
    /// Whole copies among the connected peers, in thousandths.
    pub copies_milli: u64,
    /// Bytes of content per second from peers.
    pub download_rate: u64,
    /// Bytes of content per second to peers.
    pub upload_rate: u64,
    /// Bytes of content received in all runs.
    pub downloaded: u64,
    /// Bytes of content sent in all runs.
    pub uploaded: u64,
    /// Bytes received that were of no use.
    pub wasted: u64,
    /// Seconds to the end at the present rate.
    pub eta: Option<u64>,
    /// When it was added, in seconds since the Unix epoch.
    pub added: u64,
    /// Addresses known.
    pub known_peers: usize,
    /// Links that stand.
    pub peers: Vec<PeerStatus>,
    /// Trackers, tier by tier.
    pub trackers: Vec<TrackerStatus>,
}

/// A tracker at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct TrackerStatus {
    /// Its URL.
    pub url: String,
    /// It answered last time.
    pub working: bool,
    /// Its last failure or warning.
    pub message: Option<String>,
    /// Peers with everything, as it counts.
    pub seeders: Option<u32>,
    /// Peers without.
    pub leechers: Option<u32>,
}

/// A peer at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// The link.
    #[serde(serialize_with = "as_number")]
    pub link: LinkId,
    /// The other side's address.
    pub addr: SocketAddr,
    /// Who dialled.
    #[serde(serialize_with = "as_text")]
    pub direction: Direction,
    /// The peer's program.
    pub client: String,
    /// What it has of the torrent, in thousandths.
    pub progress_milli: u32,
    /// Bytes of content per second from it.
    pub download_rate: u64,
    /// Bytes of content per second to it.
    pub upload_rate: u64,
    /// Bytes of content from it.
    pub downloaded: u64,
    /// Bytes of content to it.
    pub uploaded: u64,
    /// Requests of ours on their way.
    pub requests: usize,
    /// The state of the link.
    pub flags: PeerFlags,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerFlags {
    /// We want pieces that it has.
    pub interested: bool,
    /// It refuses our requests.
    pub choked: bool,
    /// It wants pieces that we have.
    pub peer_interested: bool,
    /// We refuse its requests.
    pub peer_choked: bool,
    /// It is unchoked by chance.
    pub optimistic: bool,
    /// It took our requests and has sent nothing for a minute.
    pub snubbed: bool,
    /// It has everything.
    pub seed: bool,
    /// BEP 6.
    pub fast: bool,
    /// BEP 10.
    pub extensions: bool,
    /// The link is over uTP.
    pub utp: bool,
}

fn as_hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn as_number<S: serde::Serializer>(link: &LinkId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(link.0)
}

fn as_text<S: serde::Serializer, T: std::fmt::Display>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
