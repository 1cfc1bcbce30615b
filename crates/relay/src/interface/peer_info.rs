//! What is told of a peer.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::{Direction, LinkId, NetAddr, NetClass, Now};

use crate::peer::{Kind, Transport};

/// What is known of one peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The link.
    pub link: LinkId,
    /// The peer's address.
    pub addr: NetAddr,
    /// Where the link came in on our side.
    pub bind: Option<SocketAddr>,
    /// The network that the link goes through.
    pub network: NetClass,
    /// The autonomous system of the address, when a map names it.
    pub system: Option<u32>,
    /// Who opened the link.
    pub direction: Direction,
    /// How the link came about.
    pub kind: Kind,
    /// Whether the handshake is complete.
    pub ready: bool,
    /// What carries the messages.
    pub transport: Transport,
    /// What the peer offers, see [`services`](crate::services).
    pub services: u64,
    /// The peer's protocol version.
    pub version: u32,
    /// The peer's software.
    pub user_agent: String,
    /// The height that the peer told in its version.
    pub start_height: i32,
    /// Height of the best header known to be the peer's too; -1 when none is.
    pub synced_headers: i64,
    /// Height of the last block in common with the peer; -1 when none is.
    pub synced_blocks: i64,
    /// The latest round trip.
    pub ping: Option<Duration>,
    /// The shortest round trip.
    pub min_ping: Option<Duration>,
    /// How long the unanswered ping has been under way.
    pub ping_wait: Option<Duration>,
    /// When the link came up.
    pub connected_at: Now,
    /// When a message was last received.
    pub last_recv: Now,
    /// When a message was last sent.
    pub last_send: Now,
    /// When the peer last gave a transaction that was accepted.
    pub last_tx: Option<Now>,
    /// When the peer last gave a block that was new.
    pub last_block: Option<Now>,
    /// Heights of the blocks that were asked of the peer and have not come.
    pub inflight: Vec<u32>,
    /// Whether the peer wants transactions.
    pub relay_tx: bool,
    /// The peer's fee filter, satoshi per 1000 virtual bytes.
    pub fee_filter: i64,
    /// The peer's clock minus ours, seconds.
    pub time_offset: i64,
    /// Whether addresses are exchanged with the peer.
    pub addr_relay: bool,
    /// Addresses taken from the peer.
    pub addr_processed: u64,
    /// Addresses dropped because the peer sent too many.
    pub addr_rate_limited: u64,
    /// Whether we asked the peer to announce blocks by compact blocks (BIP 152).
    pub compact_to: bool,
    /// Whether the peer asked us to do so.
    pub compact_from: bool,
    /// Whether the peer announces and is announced transactions by wtxid (BIP 339).
    pub wtxid_relay: bool,
}
