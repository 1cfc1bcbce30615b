//! Slow work and its answers.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;
use dunlin_chain::{
    BlockDecodeError, BlockError, BlockOutcome, BlockUndo, HeaderReject, HeadersAccepted, OperateError, ParsedBlock,
    StoreError,
};
use dunlin_mempool::{Accepted, PackageOutcome, PoolReject};
use dunlin_peer::{LinkId, NetAddr};

use super::{ChainOp, Operated, Ticket};
use crate::wire::{CompactBlock, FilterAnswer, FilterRequest, SpentRequest};

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
    /// Ask the mempool what it would say of a transaction.
    TestTx {
        /// The ticket of one that was submitted now.
        ticket: Option<Ticket>,
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
        addrs: Vec<NetAddr>,
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
    /// Answer to [`Job::TestTx`].
    TxTested {
        /// The ticket of one that was submitted now.
        ticket: Option<Ticket>,
        /// The transaction.
        tx: Arc<Transaction>,
        /// What the mempool would say.
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
