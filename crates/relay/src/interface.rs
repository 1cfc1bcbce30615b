//! What the program says to the Bitcoin peer and what it hears from it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use bytes::Bytes;
use dunlin_chain::snapshot::LoadedSnapshot;
use dunlin_chain::{
    BlockDecodeError, BlockError, BlockOutcome, BlockUndo, HeaderReject, HeadersAccepted, OperateError, ParsedBlock,
    StoreError, Verification, VerifyReport,
};
use dunlin_mempool::{Accepted, PackageOutcome, PoolReject};
use dunlin_peer::{Direction, LinkId, Now};

use crate::bans::{Ban, Subnet};
use crate::peer::{Kind, Transport};
use crate::wire::{CompactBlock, FilterAnswer, FilterRequest, SpentRequest};

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
    Addr(SocketAddr),
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
}

/// What the program asks of the peer.
#[derive(Clone, Debug)]
pub enum Command {
    /// Adds or removes an address to keep connected.
    AddPeer(SocketAddr, AddKind),
    /// Tells addresses from a DNS seed or another source that is not a peer.
    Seed(Vec<SocketAddr>),
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
    /// Asks for a copy of known addresses.
    Addresses {
        /// Given back in [`Event::Addresses`].
        ticket: Ticket,
    },
    /// Tells the address under which others can reach us, for self advertisement.
    LocalAddress(SocketAddr),
}

/// What the peer tells the program.
#[derive(Debug)]
pub enum Event {
    /// A handshake completed.
    PeerReady {
        /// The link.
        link: LinkId,
        /// Its address.
        addr: SocketAddr,
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
        addr: SocketAddr,
        /// Why, in words.
        cause: String,
    },
    /// A peer broke the protocol or sent something invalid; its link is being closed.
    Misbehaved {
        /// The link.
        link: LinkId,
        /// Its address.
        addr: SocketAddr,
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
        peers: Vec<(SocketAddr, bool)>,
    },
    /// Answer to [`Command::Bans`].
    Bans {
        /// The question's ticket.
        ticket: Ticket,
        /// What is refused and until when.
        bans: Vec<Ban>,
    },
    /// Answer to [`Command::Addresses`].
    Addresses {
        /// The question's ticket.
        ticket: Ticket,
        /// A copy of the book, for example to save it.
        book: Box<dunlin_peer::AddressBook>,
        /// Peers with whom we exchange blocks only, to be dialled first after a restart.
        anchors: Vec<SocketAddr>,
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

/// Why a transaction is being judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxSource {
    /// A peer sent it.
    Peer(LinkId),
    /// The program submitted it.
    Own(Ticket),
}

/// In which form a peer wants a stored block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockForm {
    /// With witnesses.
    Whole,
    /// Without witnesses.
    Stripped,
    /// As a compact block (BIP 152).
    Compact,
    /// Only the transactions in these places.
    Transactions(Vec<u16>),
}

/// Slow work, run in order by an [`Engine`](crate::Engine); reads may run elsewhere, see
/// [`read_block`](crate::read_block).
#[derive(Debug)]
pub enum Job {
    /// Validate headers, each the parent of the next.
    AcceptHeaders {
        /// Who sent them.
        link: LinkId,
        /// The headers.
        headers: Vec<Header>,
        /// Whether their sender has shown that the branch ends with enough work.
        proven: bool,
    },
    /// Parse the bytes of a block and check what needs no chain.
    ParseBlock {
        /// Who sent it.
        link: LinkId,
        /// The block in wire encoding.
        raw: Bytes,
    },
    /// Ask the system's resolver for the addresses of a DNS seed.
    Resolve {
        /// The seed's name.
        name: String,
        /// The port of all its addresses.
        port: u16,
    },
    /// Validate the header of a compact block.
    AcceptCompact {
        /// Who sent it.
        link: LinkId,
        /// The compact block.
        compact: Arc<CompactBlock>,
    },
    /// Validate, store and connect a block.
    AcceptBlock {
        /// Who sent it; `None` for our own.
        from: Option<LinkId>,
        /// The ticket of our own block.
        ticket: Option<Ticket>,
        /// The block.
        block: Arc<ParsedBlock>,
        /// What it spends, as some peer says; see
        /// [`Chain::accept_blocks`](dunlin_chain::Chain::accept_blocks).
        spent: Option<Arc<BlockUndo>>,
    },
    /// Go on connecting stored blocks.
    Advance,
    /// Nobody gives the spent coins that a SwiftSync needs: leave it. It is answered as [`Job::CatchUp`] is.
    LeaveSwiftSync,
    /// Do what the operator asks of the chain.
    Operate {
        /// The operator's question.
        ticket: Ticket,
        /// What.
        op: ChainOp,
    },
    /// A piece of what the engine has left to do at its start.
    CatchUp,
    /// Offer a transaction to the mempool.
    AcceptTx {
        /// Who sent it.
        source: TxSource,
        /// The transaction.
        tx: Arc<Transaction>,
    },
    /// Offer a parent that pays too little, with its child, to the mempool.
    AcceptPackage {
        /// Who sent them.
        link: LinkId,
        /// The parent, then the child.
        txs: [Arc<Transaction>; 2],
    },
    /// Read a block for a peer.
    ReadBlock {
        /// Who asked.
        link: LinkId,
        /// Which block.
        hash: BlockHash,
        /// What of it.
        form: BlockForm,
    },
    /// Read the coins that a block spent for a peer (BIP 455).
    ReadSpent {
        /// Who asked.
        link: LinkId,
        /// For what.
        ask: SpentRequest,
    },
    /// Read compact block filters for a peer.
    ReadFilters {
        /// Who asked.
        link: LinkId,
        /// For what.
        ask: FilterRequest,
        /// As how many jobs it counts.
        weight: usize,
    },
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// Answer to [`Job::AcceptHeaders`].
    Headers {
        /// Who sent them.
        link: LinkId,
        /// How many there were.
        count: usize,
        /// The hash of the last of them.
        last: Option<BlockHash>,
        /// What the chain says.
        result: Result<HeadersAccepted, HeaderReject>,
    },
    /// Answer to [`Job::ParseBlock`].
    BlockParsed {
        /// Who sent it.
        link: LinkId,
        /// How many bytes were parsed.
        bytes: usize,
        /// The block, unless the bytes are none.
        result: Result<Arc<ParsedBlock>, BlockDecodeError>,
    },
    /// Answer to [`Job::Resolve`].
    Resolved {
        /// What the name stands for; empty when it cannot be resolved.
        addrs: Vec<SocketAddr>,
    },
    /// Answer to [`Job::AcceptCompact`].
    Compact {
        /// Who sent it.
        link: LinkId,
        /// The compact block.
        compact: Arc<CompactBlock>,
        /// What the chain says of its header.
        result: Result<HeadersAccepted, HeaderReject>,
    },
    /// Answer to [`Job::AcceptBlock`].
    Block {
        /// Who sent it.
        from: Option<LinkId>,
        /// The ticket of our own block.
        ticket: Option<Ticket>,
        /// The block.
        block: Arc<ParsedBlock>,
        /// What the chain says.
        result: Result<BlockOutcome, BlockError>,
    },
    /// Answer to [`Job::Advance`].
    Advanced {
        /// What the chain says.
        result: Result<BlockOutcome, StoreError>,
    },
    /// Answer to [`Job::Operate`].
    Operated {
        /// The operator's question.
        ticket: Ticket,
        /// What happened to the chain.
        outcome: BlockOutcome,
        /// What to answer.
        result: Result<Operated, OperateError>,
    },
    /// Answer to [`Job::CatchUp`].
    CaughtUp {
        /// What happened to the chain.
        result: Result<BlockOutcome, StoreError>,
        /// There is more to do.
        more: bool,
    },
    /// Answer to [`Job::AcceptTx`].
    Tx {
        /// Who sent it.
        source: TxSource,
        /// The transaction.
        tx: Arc<Transaction>,
        /// What the mempool says.
        result: Result<Accepted, PoolReject>,
    },
    /// Answer to [`Job::AcceptPackage`].
    Package {
        /// Who sent them.
        link: LinkId,
        /// The parent, then the child.
        txs: [Arc<Transaction>; 2],
        /// What the mempool says.
        outcome: PackageOutcome,
    },
    /// Answer to [`Job::ReadBlock`].
    BlockRead {
        /// Who asked.
        link: LinkId,
        /// Which block.
        hash: BlockHash,
        /// What of it.
        form: BlockForm,
        /// Its bytes, without witnesses where only those were asked for; `None` when it is not stored.
        result: Result<Option<Bytes>, StoreError>,
    },
    /// Answer to [`Job::ReadSpent`].
    SpentRead {
        /// Who asked.
        link: LinkId,
        /// The payload of the answer, unless there is none.
        payload: Option<Bytes>,
    },
    /// Answer to [`Job::ReadFilters`].
    FiltersRead {
        /// Who asked.
        link: LinkId,
        /// As how many jobs it counted.
        weight: usize,
        /// What to send; nothing when it cannot be had.
        answers: Vec<FilterAnswer>,
    },
    /// Nothing came of it.
    Nothing,
}

/// What is known of one peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The link.
    pub link: LinkId,
    /// The peer's address.
    pub addr: SocketAddr,
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
