//! The node at one moment, as the dashboard and `dunlin status` show it. Bounded: a busy node does not make it long.

use std::net::SocketAddr;

use bitcoin::BlockHash;
use dunlin_mempool::Pool;
use dunlin_peer::Direction;
use serde::Serialize;

use crate::backend::{BitcoinBackend, Node, State, TorrentBackend, TorrentStatus};
use crate::rpc::{progress, sanitize, unix_now, with_pool};

/// Blocks listed.
const MAX_BLOCKS: u32 = 8;
/// Peers listed, of all networks.
const MAX_PEERS: usize = 300;
/// Torrents listed.
const MAX_TORRENTS: usize = 100;
/// Cells of a piece map.
const MAX_CELLS: usize = 240;

/// Everything that the dashboard shows.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Unix seconds.
    pub time: u64,
    /// The Bitcoin network.
    pub network: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime: u64,
    /// The Bitcoin part; null when it is off.
    pub bitcoin: Option<Bitcoin>,
    /// The BitTorrent part; null when it is off.
    pub torrent: Option<Torrents>,
    /// How many peers of all networks there are.
    pub peer_count: usize,
    /// How many there are by network and direction.
    pub peer_counts: Vec<PeerCount>,
    /// The peers, Bitcoin's first.
    pub peers: Vec<Peer>,
}

/// The number of peers of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PeerCount {
    /// `bitcoin` or `bittorrent`.
    pub network: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
    /// How many.
    pub count: usize,
}

/// The Bitcoin part.
#[derive(Clone, Debug, Serialize)]
pub struct Bitcoin {
    /// Height of the tip.
    pub height: u32,
    /// Height of the best header.
    pub headers: u32,
    /// Hash of the tip.
    pub tip: BlockHash,
    /// The tip's time, Unix seconds.
    pub tip_time: u32,
    /// How far validation has come, 0 to 1.
    pub progress: f64,
    /// The node is still catching up.
    pub initial_download: bool,
    /// The snapshot on which the chain rests, until everything below it is validated.
    pub snapshot: Option<Unproven>,
    /// Percent of a snapshot that is being loaded.
    pub snapshot_loading: Option<u64>,
    /// The SwiftSync under way: nothing counts as validated before it has reached its target.
    pub swiftsync: Option<Swift>,
    /// The last blocks, newest first.
    pub blocks: Vec<Block>,
    /// The memory pool.
    pub mempool: Mempool,
    /// Connected peers.
    pub peer_count: usize,
    /// Bytes received since the start.
    pub bytes_in: u64,
    /// Bytes sent since the start.
    pub bytes_out: u64,
    /// Where peers can reach us.
    pub listening: Vec<SocketAddr>,
}

/// How far the validation of a snapshot has come.
#[derive(Clone, Debug, Serialize)]
pub struct Unproven {
    /// The height of its block.
    pub base: u32,
    /// The height up to which the blocks below it are validated.
    pub reached: u32,
    /// Percent of the coins that are compared after that.
    pub compared: u32,
}

/// How far a SwiftSync has come.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Swift {
    /// The height up to which blocks are added up.
    pub height: u32,
    /// The hinted height.
    pub target: u32,
}

/// A block of the active chain.
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Its time, Unix seconds.
    pub time: u32,
    /// Its transactions, where known.
    pub transactions: Option<u32>,
}

/// The memory pool.
#[derive(Clone, Debug, Serialize)]
pub struct Mempool {
    /// Transactions.
    pub count: usize,
    /// Their virtual bytes.
    pub bytes: u64,
    /// Memory used, in bytes.
    pub usage: u64,
    /// Memory allowed, in bytes.
    pub max: u64,
    /// The least fee rate that gets in, satoshi per 1000 virtual bytes.
    pub min_feerate: u64,
    /// Virtual bytes by fee rate, see [`FEE_STEPS`].
    pub fees: Vec<u64>,
}

/// Lower ends of the fee histogram's bars after the first, in satoshi per virtual byte.
pub const FEE_STEPS: [u64; 7] = [1, 2, 5, 10, 20, 50, 100];

/// The BitTorrent part.
#[derive(Clone, Debug, Serialize)]
pub struct Torrents {
    /// How many there are.
    pub count: usize,
    /// Connected peers.
    pub peer_count: usize,
    /// Content received per second.
    pub download_rate: u64,
    /// Content sent per second.
    pub upload_rate: u64,
    /// Content received by all torrents in all runs.
    pub downloaded: u64,
    /// Content sent by all torrents in all runs.
    pub uploaded: u64,
    /// Where peers can reach us.
    pub listening: Vec<SocketAddr>,
    /// The torrents.
    pub list: Vec<Torrent>,
}

/// A torrent.
#[derive(Clone, Debug, Serialize)]
pub struct Torrent {
    /// Which.
    pub info_hash: String,
    /// Its name.
    pub name: String,
    /// `metadata`, `checking`, `downloading`, `seeding`, `paused` or `error`.
    pub state: &'static str,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// Bytes of content; 0 while unknown.
    pub total: u64,
    /// Verified bytes.
    pub done: u64,
    /// Pieces in all.
    pub piece_count: u32,
    /// Verified pieces.
    pub pieces_done: u32,
    /// Content received per second.
    pub download_rate: u64,
    /// Content sent per second.
    pub upload_rate: u64,
    /// Content received in all runs.
    pub downloaded: u64,
    /// Content sent in all runs.
    pub uploaded: u64,
    /// Seconds to go.
    pub eta: Option<u64>,
    /// Connected peers.
    pub peers: usize,
    /// The piece map from start to end in at most 240 cells: how much of each is there, `0` for nothing to `9` for all.
    pub map: String,
}

/// A peer of any network.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// `bitcoin` or `bittorrent`.
    pub network: &'static str,
    /// The connection's number within its network.
    pub id: u64,
    /// Its address.
    pub addr: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Its software.
    pub client: String,
    /// Bytes received from it.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
    /// Milliseconds of the last round trip, where measured.
    pub ping: Option<f64>,
    /// Unix seconds of the connection, where known.
    pub since: Option<u64>,
}

/// Takes a snapshot.
pub async fn snapshot(node: &Node) -> Snapshot {
    let mut peers = Vec::new();
    let bitcoin = match &node.bitcoin {
        Some(backend) => Some(bitcoin(&**backend, &mut peers).await),
        None => None,
    };
    let torrent = match &node.torrent {
        Some(backend) => Some(torrents(&**backend, &mut peers).await),
        None => None,
    };
    let peer_count = peers.len();
    let kinds = [
        ("bitcoin", "in"),
        ("bitcoin", "out"),
        ("bittorrent", "in"),
        ("bittorrent", "out"),
    ];
    let counted = |(network, direction)| {
        let count = peers
            .iter()
            .filter(|peer| peer.network == network && peer.direction == direction)
            .count();
        PeerCount {
            network,
            direction,
            count,
        }
    };
    let peer_counts = kinds.map(counted).to_vec();
    peers.truncate(MAX_PEERS);
    Snapshot {
        time: unix_now(),
        network: node.network.to_string(),
        version: node.version.clone(),
        uptime: node.started.elapsed().as_secs(),
        bitcoin,
        torrent,
        peer_count,
        peer_counts,
        peers,
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

async fn bitcoin(backend: &dyn BitcoinBackend, peers: &mut Vec<Peer>) -> Bitcoin {
    let rows = backend.peers().await.unwrap_or_default();
    peers.extend(rows.iter().map(|row| Peer {
        network: "bitcoin",
        id: row.info.link.0,
        addr: row.info.addr.to_string(),
        direction: direction(row.info.direction),
        client: sanitize(&row.info.user_agent),
        bytes_in: row.bytes_in,
        bytes_out: row.bytes_out,
        ping: row.info.ping.map(|ping| ping.as_secs_f64() * 1000.0),
        since: Some(row.info.connected_at.unix_secs()),
    }));
    let view = backend.view();
    let (tip, now) = (view.tip(), unix_now());
    let lowest = tip.height.saturating_sub(MAX_BLOCKS - 1);
    let entries = (lowest..=tip.height)
        .rev()
        .filter_map(|height| view.entry(&view.hash_at(height)?));
    let blocks = entries
        .map(|entry| Block {
            height: entry.height,
            hash: entry.hash,
            time: entry.header.time,
            transactions: entry.tx_count,
        })
        .collect();
    let totals = backend.net_totals();
    Bitcoin {
        height: tip.height,
        headers: view.best_header().height,
        tip: tip.hash,
        tip_time: tip.header.time,
        progress: progress(&view, now),
        initial_download: view.is_initial_download(now),
        snapshot: view.snapshot().map(|snapshot| Unproven {
            base: snapshot.base.height,
            reached: snapshot.reached.height,
            compared: snapshot.compared,
        }),
        snapshot_loading: view.snapshot_loading().map(|(done, all)| done * 100 / all.max(1)),
        swiftsync: view.swiftsync().map(|swift| Swift {
            height: swift.height,
            target: swift.target,
        }),
        blocks,
        mempool: with_pool(backend, mempool),
        peer_count: rows.len(),
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
        listening: backend.listening(),
    }
}

fn mempool(pool: &Pool) -> Mempool {
    let info = pool.info();
    let mut fees = vec![0u64; FEE_STEPS.len() + 1];
    for entry in pool.iter() {
        let rate = entry.fee.to_sat() / entry.vsize.max(1);
        let bar = FEE_STEPS.iter().take_while(|step| rate >= **step).count();
        if let Some(bytes) = fees.get_mut(bar) {
            *bytes = bytes.saturating_add(entry.vsize);
        }
    }
    Mempool {
        count: info.size,
        bytes: info.bytes,
        usage: info.usage,
        max: info.max_bytes,
        min_feerate: info.min_feerate,
        fees,
    }
}

async fn torrents(backend: &dyn TorrentBackend, peers: &mut Vec<Peer>) -> Torrents {
    let all = backend.list().await.unwrap_or_default();
    let before = peers.len();
    peers.extend(all.iter().flat_map(|torrent| &torrent.peers).map(|peer| Peer {
        network: "bittorrent",
        id: peer.link.0,
        addr: peer.addr.to_string(),
        direction: direction(peer.direction),
        client: sanitize(&peer.client),
        bytes_in: peer.downloaded,
        bytes_out: peer.uploaded,
        ping: None,
        since: None,
    }));
    let sum = |field: fn(&TorrentStatus) -> u64| all.iter().map(field).fold(0, u64::saturating_add);
    Torrents {
        count: all.len(),
        peer_count: peers.len() - before,
        download_rate: sum(|torrent| torrent.download_rate),
        upload_rate: sum(|torrent| torrent.upload_rate),
        downloaded: sum(|torrent| torrent.downloaded),
        uploaded: sum(|torrent| torrent.uploaded),
        listening: backend.listening(),
        list: all.iter().take(MAX_TORRENTS).map(torrent).collect(),
    }
}

fn torrent(status: &TorrentStatus) -> Torrent {
    let state = match &status.state {
        State::Metadata => "metadata",
        State::Checking => "checking",
        State::Downloading => "downloading",
        State::Seeding => "seeding",
        State::Queued => "queued",
        State::Paused => "paused",
        State::Error(_) => "error",
    };
    Torrent {
        info_hash: status.info_hash.to_string(),
        name: status.name.chars().filter(|c| !c.is_control()).take(300).collect(),
        state,
        error: status.error.clone(),
        total: status.total_bytes,
        done: status.done_bytes,
        piece_count: status.piece_count,
        pieces_done: status.pieces_done,
        download_rate: status.download_rate,
        upload_rate: status.upload_rate,
        downloaded: status.downloaded,
        uploaded: status.uploaded,
        eta: status.eta,
        peers: status.peers.len(),
        map: piece_map(&status.pieces, status.piece_count),
    }
}

/// One digit per cell, each cell standing for an equal share of the pieces.
fn piece_map(bits: &[u8], count: u32) -> String {
    let count = count as usize;
    let cells = count.min(MAX_CELLS);
    let has = |piece: usize| bits.get(piece / 8).is_some_and(|byte| byte >> (7 - piece % 8) & 1 == 1);
    (0..cells)
        .map(|cell| {
            let (from, to) = (cell * count / cells, (cell + 1) * count / cells);
            let done = (from..to).filter(|piece| has(*piece)).count();
            let digit = if done == to - from {
                9
            } else {
                (done * 9 / (to - from)).min(8).max(usize::from(done > 0))
            };
            char::from(b'0' + u8::try_from(digit).unwrap_or(9))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_maps_are_bounded_and_honest() {
        assert_eq!(piece_map(&[], 0), "");
        assert_eq!(piece_map(&[0b1010_0000], 4), "9090");
        assert_eq!(piece_map(&[], 3), "000");
        let almost = piece_map(&[0xff; 1000], 8001);
        assert_eq!(almost.len(), MAX_CELLS);
        assert!(almost.ends_with('8') && almost.starts_with('9'), "{almost}");
        let mut one = vec![0; 1000];
        one[0] = 0x80;
        assert!(piece_map(&one, 8000).starts_with("10"));
    }
}
