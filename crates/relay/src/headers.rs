//! Header sync: which peer is asked for headers, what its answers mean, what we answer.
//!
//! While the best header is older than a day one peer at a time is asked, then all. A peer that has nothing more, or
//! is silent, makes room for the next. A full `headers` message leads to the next question; headers that do not connect
//! lead to a question from our best header. A peer's chain is stored only after it has shown enough work.

use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use dunlin_chain::{Entry, HeaderReject, HeadersAccepted, RejectKind};
use dunlin_peer::{CloseReason, LinkId, Now};

use crate::interface::Job;
use crate::node::Node;
use crate::peer::{Kind, Peer};
use crate::presync::Presync;
use crate::prove;
use crate::wire::{Locator, MAX_HEADERS, Message};

/// How long a peer has to answer `getheaders` before it is asked again.
const RESPONSE_TIME: Duration = Duration::from_secs(2 * 60);
/// How long the one sync peer may be silent before another is asked besides it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A best header younger than this means that we may ask everyone.
const RECENT_SECS: u64 = 24 * 60 * 60;
/// How long an outbound peer may be behind our tip before it is asked once more, and then replaced.
const CHAIN_SYNC_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// That many outbound peers with a good chain are never replaced for falling behind.
const MAX_PROTECTED: usize = 4;

/// A block that a peer is known to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownBlock {
    pub(crate) hash: BlockHash,
    pub(crate) height: u32,
    pub(crate) work: Work,
}

impl From<&Entry> for KnownBlock {
    fn from(entry: &Entry) -> Self {
        Self {
            hash: entry.hash,
            height: entry.height,
            work: entry.chain_work,
        }
    }
}

/// The headers of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderState {
    /// We asked it for its chain from our best header on.
    pub(crate) started: bool,
    /// Its last question is unanswered since then.
    pub(crate) asked: Option<Now>,
    /// Something came up that called for another question while one was unanswered.
    ask_again: bool,
    /// It stayed silent as the sync peer.
    pub(crate) silent: bool,
    /// The block with the most work that it is known to have.
    pub(crate) best: Option<KnownBlock>,
    /// The last block that it announced and that we do not know.
    unknown: Option<BlockHash>,
    /// The last header that we sent it.
    pub(crate) sent: Option<KnownBlock>,
    /// We told it that we prefer headers (BIP 130).
    told_sendheaders: bool,
    /// A block inventory made us ask it before its turn.
    asked_by_inv: bool,
    protected: bool,
    behind: Option<Behind>,
    /// Its chain has not shown enough work yet.
    pub(crate) presync: Option<Box<Presync>>,
    /// The last header that a presync gave to the chain; only what lies behind it is unknown.
    pub(crate) released: Option<BlockHash>,
}

impl HeaderState {
    /// It is never replaced for falling behind.
    pub(crate) fn is_protected(&self) -> bool {
        self.protected
    }

    /// Its chain has been shown for so long that others should be asked besides it.
    fn is_slow(&self, now: Now) -> bool {
        self.presync.as_ref().is_some_and(|it| it.is_slow(now.unix_secs()))
    }
}

/// An outbound peer that is behind our tip.
#[derive(Clone, Copy, Debug)]
struct Behind {
    /// The work that it has to reach.
    work: Work,
    until: Now,
    asked: bool,
}

/// The state shared by all peers' header sync.
#[derive(Debug, Default)]
pub(crate) struct HeaderSync {
    last_inv: Option<BlockHash>,
}

/// What came of a batch of headers, for the block sync.
pub(crate) enum Learned {
    /// Nothing that needs more than what was done.
    Nothing,
    /// The peer's chain is better known now.
    Headers,
}

/// Asks for headers after `from` (our best header when `None`). While a question is unanswered, the wish is kept until
/// the answer is there: an announcement may have crossed an answer that does not reach as far.
pub(crate) fn ask(node: &mut Node, link: LinkId, from: Option<BlockHash>) -> bool {
    let now = node.now;
    let Some(peer) = node.ready(link) else { return false };
    if peer.headers.asked.is_some_and(|asked| now.since(asked) < RESPONSE_TIME) {
        peer.headers.ask_again = true;
        return false;
    }
    peer.headers.asked = Some(now);
    peer.headers.ask_again = false;
    let from = from.unwrap_or_else(|| node.view.best_header().hash);
    let hashes = node.view.locator(Some(from));
    node.send(
        link,
        Message::GetHeaders(Locator {
            hashes,
            stop: BlockHash::all_zeros(),
        }),
    );
    true
}

/// The last question is answered; what came up meanwhile is asked now.
pub(crate) fn answered(node: &mut Node, link: LinkId) {
    let Some(peer) = node.ready(link) else { return };
    peer.headers.asked = None;
    if std::mem::take(&mut peer.headers.ask_again) {
        ask(node, link, None);
    }
}

/// Notes that the peer has this block.
pub(crate) fn has_block(node: &mut Node, link: LinkId, hash: BlockHash) {
    resolve(node, link);
    let entry = node.view.entry(&hash);
    let Some(peer) = node.peers.get_mut(&link) else { return };
    match entry {
        Some(entry) => raise(peer, &entry),
        None => peer.headers.unknown = Some(hash),
    }
}

/// Looks again for the block that the peer announced before we knew it.
pub(crate) fn resolve(node: &mut Node, link: LinkId) {
    let Some(peer) = node.peers.get_mut(&link) else { return };
    if let Some(hash) = peer.headers.unknown
        && let Some(entry) = node.view.entry(&hash)
    {
        peer.headers.unknown = None;
        raise(peer, &entry);
    }
}

fn raise(peer: &mut Peer, entry: &Entry) {
    if peer.headers.best.is_none_or(|best| entry.chain_work >= best.work) {
        peer.headers.best = Some(entry.into());
    }
}

impl HeaderSync {
    /// Whether headers and blocks may be fetched from this peer during the initial download: from outbound peers, or
    /// from `anyone`.
    pub(crate) fn may_fetch_from(peer: &Peer, anyone: bool) -> bool {
        peer.serves_blocks() && (anyone || !peer.is_inbound())
    }

    /// Whether inbound peers are asked too: when no outbound peer is there or none is giving us blocks.
    pub(crate) fn fetch_from_anyone(node: &Node, blocks_in_flight: bool) -> bool {
        let preferred = |peer: &Peer| !peer.is_inbound() && peer.serves_blocks() && peer.is_ready();
        !blocks_in_flight || !node.peers.values().any(preferred)
    }

    /// Asks peers for their headers where it is their turn.
    pub(crate) fn start(&mut self, node: &mut Node, blocks_in_flight: bool) {
        let waiting = |peer: &&Peer| peer.is_ready() && !peer.headers.started && peer.serves_blocks();
        if !node.peers.values().any(|peer| waiting(&peer)) {
            return;
        }
        let best = node.view.best_header();
        let recent = u64::from(best.header.time) + RECENT_SECS > node.now.unix_secs();
        let anyone = Self::fetch_from_anyone(node, blocks_in_flight);
        let now = node.now;
        let mut syncing = node
            .peers
            .values()
            .filter(|peer| peer.is_ready() && peer.headers.started)
            .filter(|peer| !peer.headers.is_slow(now))
            .any(|peer| peer.headers.asked.is_some_and(|asked| now.since(asked) < PATIENCE));
        let mut candidates: Vec<_> = node
            .peers
            .values()
            .filter(waiting)
            .map(|peer| (peer.headers.silent, peer.is_inbound(), peer.link))
            .collect();
        candidates.sort_unstable();
        // From the parent of the best header on, so that even a peer with nothing new answers with something.
        let from = if best.height == 0 {
            best.hash
        } else {
            best.header.prev_blockhash
        };
        for (_, _, link) in candidates {
            let fit = node
                .peers
                .get(&link)
                .is_some_and(|peer| Self::may_fetch_from(peer, anyone));
            if (recent || (!syncing && fit)) && ask(node, link, Some(from)) {
                syncing = true;
                if let Some(peer) = node.peers.get_mut(&link) {
                    peer.headers.started = true;
                }
            }
        }
    }

    /// Headers came, as an answer or as an announcement.
    pub(crate) fn on_headers(&mut self, node: &mut Node, link: LinkId, headers: Vec<Header>) {
        if node.ready(link).is_none() {
            return;
        }
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            // An announcement is never empty, so this answers our question: the peer has nothing more.
            if let Some(peer) = node.ready(link) {
                peer.headers.presync = None;
            }
            return answered(node, link);
        };
        if headers.len() > MAX_HEADERS {
            return node.misbehaving(link, "headers message size");
        }
        let last = last.block_hash();
        if prove::take(node, link, &headers) {
            return;
        }
        if node.view.entry(&first.prev_blockhash).is_none() {
            // Perhaps an announcement after blocks that we have not heard of.
            ask(node, link, None);
            has_block(node, link, last);
            return;
        }
        let proven = false;
        node.peer_job(link, Job::AcceptHeaders { link, headers, proven });
    }

    /// The chain judged a peer's headers.
    pub(crate) fn on_done(
        &mut self,
        node: &mut Node,
        link: LinkId,
        count: usize,
        last: Option<BlockHash>,
        result: Result<HeadersAccepted, HeaderReject>,
    ) -> Learned {
        let Some(peer) = node.ready(link) else {
            return Learned::Nothing;
        };
        if result.is_err() {
            peer.headers.presync = None;
            peer.headers.released = None;
        }
        match result {
            Ok(_) => {
                peer.headers.silent = false;
                let Some(last) = last else {
                    answered(node, link);
                    return Learned::Nothing;
                };
                let presyncing = peer.headers.presync.is_some();
                let overtaken = presyncing || peer.headers.released.is_some_and(|released| released != last);
                let more = overtaken || count >= MAX_HEADERS;
                if overtaken {
                    // The next question is under way, or comes after what the presync gave to the chain last.
                } else if more {
                    peer.headers.released = None;
                    peer.headers.asked = None;
                    ask(node, link, Some(last));
                } else {
                    peer.headers.released = None;
                    answered(node, link);
                }
                has_block(node, link, last);
                self.judge_chain(node, link, more);
                Learned::Headers
            }
            Err(HeaderReject::Orphan(_)) => {
                ask(node, link, None);
                if let Some(last) = last {
                    has_block(node, link, last);
                }
                Learned::Nothing
            }
            Err(HeaderReject::NotContinuous { .. }) => {
                node.misbehaving(link, "non-continuous headers sequence");
                Learned::Nothing
            }
            Err(HeaderReject::Invalid { reject, .. }) => {
                if at_fault(peer, reject.kind) {
                    node.misbehaving(link, reject.to_string());
                }
                Learned::Nothing
            }
            Err(HeaderReject::LowWork) => {
                peer.headers.asked = None;
                Learned::Nothing
            }
            Err(HeaderReject::Store(error)) => {
                node.out.event(crate::Event::StoreFailed {
                    error: error.to_string(),
                });
                Learned::Nothing
            }
        }
    }

    /// Drops an automatic peer whose whole chain has too little work to help us, protects good ones.
    fn judge_chain(&mut self, node: &mut Node, link: LinkId, more: bool) {
        let minimum = node.view.params().minimum_chain_work;
        let tip = node.view.tip().chain_work;
        let downloading = node.is_initial_download();
        let protected = node.peers.values().filter(|peer| peer.headers.protected).count();
        let Some(peer) = node.peers.get_mut(&link) else { return };
        let Some(best) = peer.headers.best else { return };
        if !peer.is_chosen() {
            return;
        }
        if downloading && !more && best.work < minimum {
            return node.close(link, CloseReason::benign("its chain has too little work"));
        }
        if peer.kind == Kind::Automatic && protected < MAX_PROTECTED && best.work >= tip {
            peer.headers.protected = true;
        }
    }

    /// A block inventory came for a block that we do not have: ask for the headers that lead to it.
    pub(crate) fn on_block_inv(&mut self, node: &mut Node, link: LinkId, hash: BlockHash) {
        let last_inv = self.last_inv;
        let Some(peer) = node.ready(link) else { return };
        let started = peer.headers.started;
        if !started && (peer.headers.asked_by_inv || last_inv == Some(hash)) {
            return;
        }
        if !started {
            peer.headers.asked_by_inv = true;
            self.last_inv = Some(hash);
        }
        ask(node, link, None);
    }

    /// Answers `getheaders`.
    pub(crate) fn on_getheaders(&mut self, node: &mut Node, link: LinkId, locator: &Locator) {
        let tip = node.view.tip();
        if tip.chain_work < node.view.params().minimum_chain_work {
            // Too little work for the peer to take; an empty answer says that we are alive.
            return node.send(link, Message::Headers(Vec::new()));
        }
        let headers = if locator.hashes.is_empty() {
            match node.view.entry(&locator.stop) {
                Some(entry) if node.view.contains_in_active(&entry.hash) => vec![entry.header],
                _ => return,
            }
        } else {
            node.view.headers_after(&locator.hashes, locator.stop, MAX_HEADERS)
        };
        let sent = headers
            .last()
            .and_then(|header| node.view.entry(&header.block_hash()))
            .unwrap_or(tip);
        if let Some(peer) = node.ready(link) {
            peer.headers.sent = Some((&sent).into());
        }
        node.send(link, Message::Headers(headers));
    }

    /// When [`HeaderSync::tick`] has something to do for this peer.
    pub(crate) fn next(peer: &Peer) -> Option<Now> {
        let behind = peer.headers.behind.map(|behind| behind.until);
        let wait = if peer.headers.silent { RESPONSE_TIME } else { PATIENCE };
        let again = peer
            .headers
            .asked
            .filter(|_| !(peer.headers.silent && peer.headers.started))
            .map(|at| at + wait);
        behind.into_iter().chain(again).min()
    }

    /// Asks another peer when the sync peer is silent; replaces outbound peers that stay behind.
    pub(crate) fn tick(&mut self, node: &mut Node, link: LinkId) {
        let now = node.now;
        let Some(peer) = node.ready(link) else { return };
        let waited = peer.headers.asked.map_or(Duration::ZERO, |asked| now.since(asked));
        if !peer.headers.silent && waited >= PATIENCE {
            // It may be asked again after the others.
            peer.headers.silent = true;
            peer.headers.started = false;
        }
        if waited >= RESPONSE_TIME {
            peer.headers.asked = None;
        }
        self.check_behind(node, link);
    }

    /// Watches whether an automatic peer keeps up with our tip.
    pub(crate) fn check_behind(&mut self, node: &mut Node, link: LinkId) {
        let (now, tip) = (node.now, node.view.tip());
        let Some(peer) = node.ready(link) else { return };
        let exempt = !peer.is_chosen() || peer.headers.protected || !peer.headers.started;
        let headers = &mut peer.headers;
        if exempt {
            headers.behind = None;
            return;
        }
        let best = headers.best.map(|best| best.work);
        if best.is_some_and(|work| work >= tip.chain_work) {
            headers.behind = None;
            return;
        }
        match headers.behind {
            Some(behind) if best.is_none_or(|work| work < behind.work) => {
                if now < behind.until {
                    return;
                }
                if behind.asked {
                    return node.close(link, CloseReason::benign("its chain is behind ours"));
                }
                headers.behind = Some(Behind {
                    asked: true,
                    until: now + RESPONSE_TIME,
                    ..behind
                });
                ask(node, link, Some(tip.header.prev_blockhash));
            }
            _ => {
                let until = now + CHAIN_SYNC_TIMEOUT;
                headers.behind = Some(Behind {
                    work: tip.chain_work,
                    until,
                    asked: false,
                });
            }
        }
    }

    /// Tells the peer that we prefer headers, once its chain is known to be worth following (BIP 130).
    pub(crate) fn maybe_sendheaders(node: &mut Node, link: LinkId) {
        let minimum = node.view.params().minimum_chain_work;
        let Some(peer) = node.ready(link) else { return };
        if !peer.headers.told_sendheaders && peer.headers.best.is_some_and(|best| best.work > minimum) {
            peer.headers.told_sendheaders = true;
            node.send(link, Message::SendHeaders);
        }
    }
}

/// Whether an invalid header or block of this kind is the sender's fault.
pub(crate) fn at_fault(peer: &Peer, kind: RejectKind) -> bool {
    match kind {
        RejectKind::Consensus
        | RejectKind::InvalidHeader
        | RejectKind::Mutated
        | RejectKind::InvalidParent
        | RejectKind::MissingInputs
        | RejectKind::Premature => true,
        // An inbound peer may not know yet that its chain is invalid; of our own choices we expect better.
        RejectKind::KnownInvalid => !peer.is_inbound(),
        RejectKind::TimeFuture | RejectKind::MissingParent | RejectKind::LowWork => false,
    }
}
