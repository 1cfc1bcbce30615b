//! Blocks that have to come with the coins that they spend (BIP 455), while the chain is in the full form of a
//! SwiftSync.
//!
//! Only peers that offer such coins are asked for such blocks. A block that has come is held, and the peer that gave it
//! is asked for the coins; until it tells them the block counts as not given, so that a peer that keeps coins back is
//! treated as one that keeps blocks back, and another one is asked for what is missing. Coins come only for blocks that
//! are here: what does not fit its block is known at once, and no coins wait.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::{BlockUndo, ParsedBlock};
use dunlin_peer::{CloseReason, LinkId, Now};

use super::BlockSync;
use crate::interface::Job;
use crate::node::Node;
use crate::peer::Peer;
use crate::wire::{Message, SpentCoins, SpentRequest};

/// When peers have blocks for us, and none offers spent coins, for this long, the sync goes on without.
const NOBODY_OFFERS: Duration = Duration::from_secs(60);
/// So long when some offer them, and none tells any.
const NOBODY_TELLS: Duration = Duration::from_secs(600);

/// Blocks that wait for their coins.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Who gave each.
    held: BTreeMap<BlockHash, (Arc<ParsedBlock>, LinkId)>,
    /// The bytes of those.
    pub(super) bytes: usize,
    /// Since when peers have had blocks for us, and none has told coins.
    without: Option<Now>,
}

impl Claims {
    fn take(&mut self, hash: &BlockHash) -> Option<(Arc<ParsedBlock>, LinkId)> {
        let found = self.held.remove(hash)?;
        self.bytes = self.bytes.saturating_sub(found.0.raw.len());
        Some(found)
    }

    /// Lets go of the blocks that are not among these.
    pub(super) fn keep_only(&mut self, wanted: impl Fn(&BlockHash) -> bool) {
        let gone: Vec<BlockHash> = self.held.keys().filter(|hash| !wanted(hash)).copied().collect();
        for hash in gone {
            self.take(&hash);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl BlockSync {
    /// Whether a block has to come with its coins.
    pub(super) fn needs_coins(node: &Node, hash: &BlockHash) -> bool {
        let top = node.view.spent_coins_wanted();
        top.is_some_and(|top| node.view.entry(hash).is_some_and(|entry| entry.height <= top))
    }

    /// Asks a peer for blocks, or for the coins of those that are held.
    pub(super) fn request(&self, node: &mut Node, link: LinkId, wanted: Vec<Inventory>) {
        let (held, missing): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|item| match item {
            Inventory::WitnessBlock(hash) => self.claims.held.contains_key(hash),
            _ => false,
        });
        for item in held {
            if let Inventory::WitnessBlock(hash) = item {
                ask_coins(node, link, hash);
            }
        }
        if !missing.is_empty() {
            node.send(link, Message::GetData(missing));
        }
    }

    /// A block came that needs its coins.
    pub(super) fn hold(&mut self, node: &mut Node, link: LinkId, block: Arc<ParsedBlock>) {
        let (now, hash) = (node.now, block.hash);
        let Some(peer) = node.ready(link) else { return };
        peer.blocks.last = Some(now);
        if !peer.blocks.in_flight.contains_key(&hash) {
            return;
        }
        peer.blocks.since = Some(now);
        peer.blocks.rate.came(now, block.raw.len(), true);
        peer.blocks.stalling = None;
        let offers = peer.offers_spent;
        if let Entry::Vacant(place) = self.claims.held.entry(hash) {
            self.claims.bytes += block.raw.len();
            place.insert((block, link));
        }
        match offers {
            true => ask_coins(node, link, hash),
            // It was asked before coins were wanted.
            false => self.drop_request(node, link, hash),
        }
    }

    /// `bspent` came.
    pub(crate) fn on_spent(&mut self, node: &mut Node, link: LinkId, answer: SpentCoins) {
        let (now, hash) = (node.now, answer.block);
        let Some(peer) = node.ready(link) else { return };
        if !peer.blocks.coins_asked.remove(&hash) {
            return node.close(link, CloseReason::fault("sends spent coins that nobody asked for"));
        }
        peer.blocks.last = Some(now);
        // Another peer may have told them before.
        let Some((block, _)) = self.claims.held.get(&hash) else {
            return;
        };
        let height = node.view.entry(&hash).map_or(0, |entry| entry.height);
        let places = answer.coins.iter().map(|(place, _)| *place);
        let claim = match places.eq((0u32..).take(answer.coins.len())) {
            true => BlockUndo::claimed(block, height, answer.coins.into_iter().map(|(_, coin)| coin)),
            false => Err("coins for other inputs"),
        };
        match claim {
            Ok(claim) => {
                self.claims.without = None;
                if let Some((block, giver)) = self.claims.take(&hash) {
                    self.give(node, giver, block, Some(Arc::new(claim)));
                }
            }
            Err(what) => node.misbehaving(link, format!("spent coins that do not fit block {hash}: {what}")),
        }
    }

    /// The chain goes on in the ordinary way: blocks that were held are as good as others now.
    pub(super) fn release_held(&mut self, node: &mut Node) {
        let held: BTreeSet<BlockHash> = self.claims.held.keys().copied().collect();
        for hash in held {
            if let Some((block, giver)) = self.claims.take(&hash) {
                self.give(node, giver, block, None);
            }
        }
    }

    /// Looks whether the coins that are wanted come; after a while without, the chain must go on.
    pub(super) fn watch_coins(&mut self, node: &mut Node) {
        let (work, least) = (node.view.tip().chain_work, node.view.params().minimum_chain_work);
        let ready = || {
            node.peers
                .values()
                .filter(|peer| peer.is_ready() && peer.serves_blocks())
        };
        let ahead = |peer: &Peer| {
            let best = peer.headers.best;
            best.is_some_and(|best| best.work > work && best.work >= least)
        };
        if node.view.spent_coins_wanted().is_none() || !self.judging.is_empty() || !ready().any(ahead) {
            self.claims.without = None;
            return;
        }
        let patience = match ready().any(|peer| peer.offers_spent) {
            true => NOBODY_TELLS,
            false => NOBODY_OFFERS,
        };
        let since = *self.claims.without.get_or_insert(node.now);
        if node.now.since(since) >= patience {
            self.claims.without = None;
            node.out.job(Job::LeaveSwiftSync);
        }
    }
}

/// Asks a peer for the coins that a block spends.
fn ask_coins(node: &mut Node, link: LinkId, block: BlockHash) {
    if let Some(peer) = node.ready(link)
        && peer.blocks.coins_asked.insert(block)
    {
        node.send(link, Message::GetSpent(SpentRequest { block, cutoff: 0 }));
    }
}
