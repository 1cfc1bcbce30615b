//! What is kept of one link.

use std::net::SocketAddr;

use dunlin_peer::{Direction, Link, LinkId, NetAddr, NetClass, Now};

use crate::addresses::AddrState;
use crate::announce::AnnounceState;
use crate::blocks::BlockState;
use crate::compact::CompactState;
use crate::headers::HeaderState;
use crate::ping::PingState;
use crate::serve::ServeState;
use crate::tx::TxState;
use crate::wire::services;

/// How a link came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The other side dialled.
    Inbound,
    /// We chose the address.
    Automatic,
    /// We chose the address, and exchange neither transactions nor addresses over the link.
    BlockRelay,
    /// We look whether somebody answers at the address, and close.
    Feeler,
    /// A person chose it.
    Manual,
    /// We tell one transaction of our own, and close.
    Private,
}

/// What carries the messages of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing was received that tells.
    Detecting,
    /// The plain one.
    V1,
    /// The encrypted one (BIP 324), with its session id.
    V2([u8; 32]),
}

/// How far the handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The peer's `version` has not come.
    AwaitVersion,
    /// Its `verack` has not come.
    AwaitVerack,
    /// Everything may be sent.
    Ready,
}

/// One link and the peer at its other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) link: LinkId,
    pub(crate) addr: NetAddr,
    /// It came in through our onion service.
    pub(crate) onion: bool,
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    pub(crate) transport: Transport,
    /// We dialled and asked for the encrypted transport.
    pub(crate) asked_encryption: bool,
    /// We asked for the close: nothing more is read from it or sent to it.
    pub(crate) closing: bool,
    pub(crate) connected_at: Now,
    pub(crate) last_recv: Now,
    pub(crate) last_send: Now,
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    /// The version that both speak.
    pub(crate) version: u32,
    /// The version that the peer told.
    pub(crate) peer_version: u32,
    pub(crate) services: u64,
    pub(crate) user_agent: String,
    pub(crate) start_height: i32,
    pub(crate) time_offset: i64,
    /// BIP 339.
    pub(crate) wtxid_relay: bool,
    /// BIP 155.
    pub(crate) wants_addrv2: bool,
    /// We offered the coins that blocks spent (BIP 455).
    pub(crate) offered_spent: bool,
    /// The peer offered them to us.
    pub(crate) offers_spent: bool,
    /// Jobs that the peer's messages caused and that are not done.
    pub(crate) jobs: usize,
    /// Reading is paused until jobs are done.
    pub(crate) paused: bool,
    pub(crate) ping: PingState,
    pub(crate) headers: HeaderState,
    pub(crate) blocks: BlockState,
    pub(crate) announce: AnnounceState,
    pub(crate) compact: CompactState,
    pub(crate) serve: ServeState,
    pub(crate) tx: TxState,
    pub(crate) addrs: AddrState,
}

impl Peer {
    pub(crate) fn new(link: Link<NetAddr>, kind: Kind, nonce: u64, now: Now) -> Self {
        Self {
            link: link.id,
            addr: link.addr,
            onion: false,
            bind: link.bind,
            kind,
            stage: Stage::AwaitVersion,
            transport: Transport::Detecting,
            asked_encryption: false,
            closing: false,
            connected_at: now,
            last_recv: now,
            last_send: now,
            nonce,
            version: 0,
            peer_version: 0,
            services: 0,
            user_agent: String::new(),
            start_height: -1,
            time_offset: 0,
            wtxid_relay: false,
            wants_addrv2: false,
            offered_spent: false,
            offers_spent: false,
            jobs: 0,
            paused: false,
            ping: PingState::default(),
            headers: HeaderState::default(),
            blocks: BlockState::default(),
            announce: AnnounceState::default(),
            compact: CompactState::default(),
            serve: ServeState::default(),
            tx: TxState::default(),
            addrs: AddrState::new(now),
        }
    }

    /// The handshake is complete and the link is not being closed.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready && !self.closing
    }

    /// The network that the link goes through.
    pub(crate) fn network(&self) -> NetClass {
        match self.onion {
            true => NetClass::Onion,
            false => self.addr.host.class(),
        }
    }

    pub(crate) fn is_inbound(&self) -> bool {
        self.kind == Kind::Inbound
    }

    /// We chose the address, and keep the link while it is good.
    pub(crate) fn is_chosen(&self) -> bool {
        matches!(self.kind, Kind::Automatic | Kind::BlockRelay)
    }

    /// Transactions may travel on the link.
    pub(crate) fn relays_txs(&self) -> bool {
        !matches!(self.kind, Kind::BlockRelay | Kind::Feeler | Kind::Private)
    }

    pub(crate) fn direction(&self) -> Direction {
        if self.is_inbound() {
            Direction::Inbound
        } else {
            Direction::Outbound
        }
    }

    /// Serves blocks with witnesses, at least recent ones.
    pub(crate) fn serves_blocks(&self) -> bool {
        self.services & (services::NETWORK | services::NETWORK_LIMITED) != 0 && self.services & services::WITNESS != 0
    }

    /// Serves recent blocks only (BIP 159).
    pub(crate) fn is_limited(&self) -> bool {
        self.services & services::NETWORK == 0 && self.services & services::NETWORK_LIMITED != 0
    }
}
