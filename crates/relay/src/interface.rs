//! What the program says to the Bitcoin peer and what it hears from it.

mod job;
mod peer_info;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use dunlin_chain::snapshot::LoadedSnapshot;
use dunlin_chain::{BlockError, OperateError, ParsedBlock, Reject, Verification, VerifyReport};
use dunlin_mempool::{Accepted, PoolReject};
use dunlin_peer::{Direction, LinkId, NetAddr};

pub use self::job::{BlockForm, Done, Job, TxSource};
pub use self::peer_info::PeerInfo;
use crate::bans::{Ban, Subnet};

/// The program's own number for a question; the answer's event gives it back.
pub type Ticket = u64;

/// What to do with an address given by a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddKind {
    /// Keep a connection to it, dialling again whenever it is lost.
    Add,
    /// Dial it once.
    Onetry,
    /// Stop keeping a connection to it; an existing link stays.
    Remove,
}

/// Which links to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The link of this name.
    Link(LinkId),
    /// Every link to this address.
    Addr(NetAddr),
}

/// What an operator may ask of the chain.
#[derive(Clone, Debug)]
pub enum ChainOp {
    /// Treat a block as invalid.
    Invalidate(BlockHash),
    /// Judge a block, its ancestors and descendants anew.
    Reconsider(BlockHash),
    /// Prefer a block to others with the same work.
    Prefer(BlockHash),
    /// Delete block files up to this height.
    Prune(u32),
    /// Check the stored data.
    Verify(Verification),
    /// Take a header.
    Header(Header),
    /// Judge a block that is not solved yet.
    Propose(Arc<ParsedBlock>),
    /// Begin to write the coins of the tip to disk; then [`frozen_coins`](dunlin_chain::View::frozen_coins) gives them.
    FreezeCoins,
    /// Go on from a snapshot that was loaded.
    ActivateSnapshot(Arc<LoadedSnapshot>),
}

/// What came of a [`ChainOp`].
#[derive(Clone, Debug)]
pub enum Operated {
    /// It was done; there is nothing to tell.
    Done,
    /// What the check of the stored data has found.
    Verified(VerifyReport),
    /// What speaks against a proposed block.
    Proposed(Result<(), Reject>),
}

/// What the program asks of the peer.
#[derive(Clone, Debug)]
pub enum Command {
    /// Adds or removes an address to keep connected.
    AddPeer(NetAddr, AddKind),
    /// Tells addresses from a DNS seed or another source that is not a peer.
    Seed(Vec<NetAddr>),
    /// Closes links.
    Disconnect(Which),
    /// Refuses an address or a network for `seconds`, and closes its links.
    Ban {
        /// Whom.
        subnet: Subnet,
        /// For how long from now.
        seconds: u64,
        /// Shown in the list.
        reason: String,
    },
    /// Lifts every ban that covers or lies within the network.
    Unban(Subnet),
    /// Asks for the list of bans.
    Bans {
        /// Given back in [`Event::Bans`].
        ticket: Ticket,
    },
    /// A block of our own (mined here, or given through the RPC).
    SubmitBlock {
        /// Given back in [`Event::BlockSubmitted`].
        ticket: Ticket,
        /// The block.
        block: Arc<ParsedBlock>,
    },
    /// A transaction of our own.
    SubmitTx {
        /// Given back in [`Event::TxSubmitted`].
        ticket: Ticket,
        /// The transaction.
        tx: Arc<Transaction>,
    },
    /// Something for the chain to do.
    Operate {
        /// Given back in [`Event::Operated`].
        ticket: Ticket,
        /// What.
        op: ChainOp,
    },
    /// Asks one peer for a block, and nobody else any more.
    FetchBlock {
        /// Given back in [`Event::BlockAsked`].
        ticket: Ticket,
        /// The peer.
        link: LinkId,
        /// The block, whose header is known.
        hash: BlockHash,
    },
    /// Does what the engine has left to do at its start: connect stored blocks, import files.
    CatchUp,
    /// Asks for the state of every peer.
    Peers {
        /// Given back in [`Event::Peers`].
        ticket: Ticket,
    },
    /// Pings every peer now, to measure how far it is away.
    Ping,
    /// Asks for the manually added addresses.
    Added {
        /// Given back in [`Event::Added`].
        ticket: Ticket,
    },
    /// Asks for our own addresses.
    OwnAddresses {
        /// Given back in [`Event::OwnAddresses`].
        ticket: Ticket,
    },
    /// Asks for a copy of known addresses.
    Addresses {
        /// Given back in [`Event::Addresses`].
        ticket: Ticket,
    },
    /// Tells the address under which others can reach us, for self advertisement.
    LocalAddress(NetAddr),
    /// Links that come in here come through Tor, which listens for us.
    OnionBind(SocketAddr),
}

/// What the peer tells the program.
#[derive(Debug)]
pub enum Event {
    /// A handshake completed.
    PeerReady {
        /// The link.
        link: LinkId,
        /// Its address.
        addr: NetAddr,
        /// Who opened it.
        direction: Direction,
        /// The peer's software.
        user_agent: String,
    },
    /// A link is gone.
    PeerGone {
        /// The link.
        link: LinkId,
        /// Its address.
        addr: NetAddr,
        /// Why, in words.
        cause: String,
    },
    /// A peer broke the protocol or sent something invalid; its link is being closed.
    Misbehaved {
        /// The link.
        link: LinkId,
        /// Its address.
        addr: NetAddr,
        /// The named reason, such as `bad-txnmrklroot`.
        reason: String,
        /// Whether its address is refused for a while.
        discouraged: bool,
    },
    /// The active chain has another tip.
    TipChanged {
        /// The new tip.
        hash: BlockHash,
        /// Its height.
        height: u32,
        /// Blocks that left the active chain.
        disconnected: usize,
        /// Blocks that joined it.
        connected: usize,
        /// Who gave the block that moved the tip; `None` for our own.
        from: Option<LinkId>,
    },
    /// A transaction entered the mempool.
    TxAccepted {
        /// Its identifier.
        txid: Txid,
        /// Its identifier with witness.
        wtxid: Wtxid,
        /// Who gave it; `None` for our own.
        from: Option<LinkId>,
    },
    /// A transaction of a peer was not accepted.
    TxRejected {
        /// Its identifier.
        txid: Txid,
        /// Core's reject string.
        reason: Cow<'static, str>,
        /// Who gave it.
        from: LinkId,
    },
    /// Answer to [`Command::SubmitBlock`].
    BlockSubmitted {
        /// The question's ticket.
        ticket: Ticket,
        /// Whether the block was new, or why it was refused.
        result: Result<bool, BlockError>,
    },
    /// Answer to [`Command::SubmitTx`].
    TxSubmitted {
        /// The question's ticket.
        ticket: Ticket,
        /// What the mempool says.
        result: Result<Accepted, PoolReject>,
    },
    /// Answer to [`Command::Operate`], once the chain has come to rest.
    Operated {
        /// The question's ticket.
        ticket: Ticket,
        /// What came of it.
        result: Result<Operated, OperateError>,
    },
    /// Answer to [`Command::FetchBlock`].
    BlockAsked {
        /// The question's ticket.
        ticket: Ticket,
        /// Whether the peer was asked, or why not in Core's words.
        result: Result<(), &'static str>,
    },
    /// Answer to [`Command::Peers`].
    Peers {
        /// The question's ticket.
        ticket: Ticket,
        /// One entry for each link, in order of their age.
        peers: Vec<PeerInfo>,
    },
    /// Answer to [`Command::Added`].
    Added {
        /// The question's ticket.
        ticket: Ticket,
        /// Each address and whether it is connected.
        peers: Vec<(NetAddr, bool)>,
    },
    /// Answer to [`Command::Bans`].
    Bans {
        /// The question's ticket.
        ticket: Ticket,
        /// What is refused and until when.
        bans: Vec<Ban>,
    },
    /// Answer to [`Command::OwnAddresses`].
    OwnAddresses {
        /// The question's ticket.
        ticket: Ticket,
        /// Our addresses as others reach them, as far as known.
        addrs: Vec<NetAddr>,
    },
    /// Answer to [`Command::Addresses`].
    Addresses {
        /// The question's ticket.
        ticket: Ticket,
        /// A copy of the book, for example to save it.
        book: Box<dunlin_peer::AddressBook>,
        /// Peers with whom we exchange blocks only, to be dialled first after a restart.
        anchors: Vec<NetAddr>,
    },
    /// The snapshot on which the chain rested was wrong: the node has to be started again.
    SnapshotRefuted {
        /// What was found, for the operator.
        reason: String,
    },
    /// Our own disk failed while storing a block; the node cannot go on.
    StoreFailed {
        /// What happened.
        error: String,
    },
}
