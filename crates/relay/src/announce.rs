//! Announcing blocks: by compact blocks (BIP 152) to those who want them and have the parent, by headers (BIP 130) where the peer asked for them and they connect, else by inventory.

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::Entry;
use dunlin_peer::LinkId;

use crate::headers::{KnownBlock, resolve};
use crate::node::Node;
use crate::serve::Server;
use crate::wire::Message;

/// More new blocks than this are announced by the last one's inventory.
const MAX_BLOCKS_TO_ANNOUNCE: usize = 8;

/// The block announcements to one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnnounceState {
    /// The peer wants headers (BIP 130).
    pub(crate) prefers_headers: bool,
}

/// Whether the peer is known to have the block at this height.
fn has(node: &Node, known: [Option<KnownBlock>; 2], hash: &BlockHash, height: u32) -> bool {
    known.into_iter().flatten().any(|block| {
        block.height >= height
            && node
                .view
                .ancestor(&block.hash, height)
                .is_some_and(|ancestor| ancestor == *hash)
    })
}

/// Announces the blocks that joined the active chain, in height order, to everyone who lacks them.
pub(crate) fn announce(node: &mut Node, server: &Server, connected: &[(BlockHash, u32)]) {
    let Some((tip, height)) = connected.last().filter(|_| !node.is_initial_download()) else {
        return;
    };
    if let Some(entry) = node.view.entry(tip) {
        for link in wanting(node, tip, *height) {
            send_compact(node, server, link, &entry);
        }
    }
    let recent = &connected[connected.len().saturating_sub(MAX_BLOCKS_TO_ANNOUNCE)..];
    for link in node.ready_links() {
        announce_to(node, link, recent);
    }
}

/// The peers that want this block, whose parent they have and which they lack, as a compact block.
pub(crate) fn wanting(node: &mut Node, hash: &BlockHash, height: u32) -> Vec<LinkId> {
    let Some((parent, below)) = node
        .view
        .entry(hash)
        .and_then(|entry| Some((entry.header.prev_blockhash, height.checked_sub(1)?)))
    else {
        return Vec::new();
    };
    let mut links = node.ready_links();
    links.retain(|link| {
        resolve(node, *link);
        node.peers.get(link).is_some_and(|peer| {
            let known = [peer.headers.best, peer.headers.sent];
            peer.compact.wants && !has(node, known, hash, height) && has(node, known, &parent, below)
        })
    });
    links
}

/// Announces a block that the server holds by its compact form.
pub(crate) fn send_compact(node: &mut Node, server: &Server, link: LinkId, entry: &Entry) {
    if let Some(compact) = server.compact(&entry.hash)
        && let Some(peer) = node.ready(link)
    {
        peer.headers.sent = Some(entry.into());
        node.send(link, Message::CompactBlock(compact));
    }
}

fn announce_to(node: &mut Node, link: LinkId, blocks: &[(BlockHash, u32)]) {
    resolve(node, link);
    let Some(peer) = node.peers.get(&link) else { return };
    let Some(&(tip, tip_height)) = blocks.last() else {
        return;
    };
    let known = [peer.headers.best, peer.headers.sent];
    if peer.announce.prefers_headers {
        let lacks = blocks
            .iter()
            .position(|(hash, height)| !has(node, known, hash, *height));
        let Some(lacks) = lacks else { return };
        let headers: Vec<_> = blocks[lacks..]
            .iter()
            .filter_map(|(hash, _)| node.view.entry(hash))
            .map(|entry| entry.header)
            .collect();
        // The first header is of use only if the peer has its parent.
        let connects = headers.first().is_some_and(|header| {
            blocks[lacks]
                .1
                .checked_sub(1)
                .is_some_and(|height| has(node, known, &header.prev_blockhash, height))
        });
        if connects && node.view.contains_in_active(&tip) {
            let sent = node.view.entry(&tip).map(|entry| KnownBlock::from(&entry));
            if let Some(peer) = node.ready(link) {
                peer.headers.sent = sent;
            }
            return node.send(link, Message::Headers(headers));
        }
    }
    if !has(node, known, &tip, tip_height) {
        node.send(link, Message::Inv(vec![Inventory::Block(tip)]));
    }
}
