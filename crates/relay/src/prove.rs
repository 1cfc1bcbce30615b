//! Which headers go to the chain at once, and which only after their peer has shown the work behind them.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use dunlin_chain::rules;
use dunlin_peer::{CloseReason, LinkId};
use rand::Rng;

use crate::headers::answered;
use crate::interface::Job;
use crate::node::Node;
use crate::presync::Presync;
use crate::wire::{Locator, MAX_HEADERS, Message};

/// Takes a batch of headers for the presync of this peer's chain, which it begins where one is needed. Returns whether
/// it did; else the batch is for the chain.
pub(crate) fn take(node: &mut Node, link: LinkId, headers: &[Header]) -> bool {
    let Some(first) = headers.first() else { return false };
    let Some(peer) = node.peers.get_mut(&link) else {
        return true;
    };
    let under_way = peer.headers.presync.take();
    let params = node.view.params().clone();
    // Before any sum of work: the work that a header claims is no more than what was done for it.
    if let Some(reject) = headers
        .iter()
        .find_map(|header| rules::check_header(&params, header).err())
    {
        node.misbehaving(link, reject.to_string());
        return true;
    }
    if let Some(presync) = under_way {
        let height = presync.height();
        match advance(node, link, presync, headers) {
            Ok(()) => return true,
            // Its chain may have changed: these headers are looked at as if they were the first.
            Err(broken) => tracing::debug!(%link, ?broken, height, "a peer's chain was not shown twice"),
        }
        if let Some(peer) = node.peers.get_mut(&link) {
            peer.headers.asked = None;
        }
    }
    let known = headers
        .last()
        .is_some_and(|last| node.view.entry(&last.block_hash()).is_some());
    let Some(start) = node.view.entry(&first.prev_blockhash).filter(|_| !known) else {
        return false;
    };
    let needed = node.view.needed_work();
    if work_behind(start.chain_work, headers) >= needed {
        return false;
    }
    if headers.len() < MAX_HEADERS {
        too_little(node, link);
        return true;
    }
    let random = [node.rng.random(), node.rng.random(), node.rng.random()];
    let presync = Box::new(Presync::new(&params, &start, needed, node.now.unix_secs(), random));
    if let Err(broken) = advance(node, link, presync, headers) {
        node.misbehaving(link, format!("headers that cannot be a chain: {broken:?}"));
    }
    true
}

fn work_behind(start: Work, headers: &[Header]) -> Work {
    headers
        .iter()
        .fold(start, |sum, header| sum + rules::work_of(header.bits))
}

/// One step of a presync: asks for the next headers, hands over those that are ready.
fn advance(
    node: &mut Node,
    link: LinkId,
    mut presync: Box<Presync>,
    headers: &[Header],
) -> Result<(), crate::presync::Broken> {
    let params = node.view.params().clone();
    let next = presync.take(&params, headers, headers.len() == MAX_HEADERS)?;
    let now = node.now;
    let Some(peer) = node.ready(link) else { return Ok(()) };
    peer.headers.silent = false;
    if let Some(after) = next.ask_after {
        peer.headers.asked = Some(now);
        let start = presync.start();
        peer.headers.presync = Some(presync);
        ask_behind(node, link, after, start);
    } else if next.accept.is_empty() {
        too_little(node, link);
    } else {
        peer.headers.released = next.accept.last().map(Header::block_hash);
    }
    if !next.accept.is_empty() {
        let headers = next.accept;
        let proven = true;
        node.peer_job(link, Job::AcceptHeaders { link, headers, proven });
    }
    Ok(())
}

/// The peer has no more headers, and too few to be of use.
fn too_little(node: &mut Node, link: LinkId) {
    if node.is_initial_download() && node.peers.get(&link).is_some_and(|peer| peer.is_chosen()) {
        return node.close(link, CloseReason::benign("its chain has too little work"));
    }
    answered(node, link);
}

/// Asks for the headers behind `after`, which we may not have; `start` is the header that we have before it.
fn ask_behind(node: &mut Node, link: LinkId, after: BlockHash, start: BlockHash) {
    let mut hashes = vec![after];
    hashes.extend(node.view.locator(Some(start)).into_iter().filter(|hash| *hash != after));
    let stop = BlockHash::all_zeros();
    node.send(link, Message::GetHeaders(Locator { hashes, stop }));
}
