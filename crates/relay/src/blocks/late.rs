//! Blocks that do not come: stallers are replaced, others are asked besides, and lost requests go back to the plan.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_peer::{CloseReason, LinkId};

use super::{BlockSync, CHECK_INTERVAL, MAX_ASKED, MAX_STALL_TIMEOUT, STALL_TIMEOUT};
use crate::node::Node;
use crate::peer::Peer;

impl BlockSync {
    /// This peer could fetch more if the window moved: whoever owes us the lowest block keeps it from moving.
    pub(super) fn blame_staller(&self, node: &mut Node, idle: LinkId) {
        let Some((_, asked)) = self.asked_beside_plan().min_by_key(|(height, _)| *height) else {
            return;
        };
        for link in asked {
            if *link != idle
                && let Some(peer) = node.peers.get_mut(link)
            {
                peer.blocks.stalling.get_or_insert(node.now);
            }
        }
    }

    /// Nobody owes us this block any more.
    pub(super) fn forget(&mut self, node: &mut Node, hash: BlockHash) {
        let Some((_, links)) = self.asked.remove(&hash) else {
            return;
        };
        self.by_hand.remove(&hash);
        for link in links {
            if let Some(peer) = node.peers.get_mut(&link) {
                peer.blocks.in_flight.remove(&hash);
                if peer.blocks.in_flight.is_empty() {
                    peer.blocks.since = None;
                }
            }
        }
    }

    /// One peer will not give us this block.
    pub(super) fn give_up(&mut self, link: LinkId, hash: BlockHash) {
        if let Some((height, links)) = self.asked.get_mut(&hash) {
            links.remove(&link);
            if links.is_empty() {
                let height = *height;
                self.asked.remove(&hash);
                if !self.by_hand.remove(&hash) {
                    self.plan.insert(height, hash);
                }
                // The plan may by now lead elsewhere.
                self.plan_for = None;
            }
        }
    }

    /// The peer says that it has not got these blocks.
    pub(crate) fn on_notfound(&mut self, node: &mut Node, link: LinkId, hash: BlockHash) {
        let Some(peer) = node.ready(link) else { return };
        if peer.blocks.in_flight.remove(&hash).is_some() {
            // What it announced and does not have it will not be asked for again.
            peer.headers.best = None;
            self.give_up(link, hash);
        }
    }

    /// A link is gone: its blocks go back to the plan.
    pub(crate) fn disconnected(&mut self, peer: &Peer) {
        for hash in peer.blocks.in_flight.keys() {
            self.give_up(peer.link, *hash);
        }
    }

    /// A block joined the active chain: peers that were slow under load get their normal time back, step by step.
    pub(crate) fn connected(&mut self) {
        self.stall_timeout = self.stall_timeout.mul_f64(0.85).max(STALL_TIMEOUT);
    }

    /// Looks at the blocks under way: replaces stallers, drops those far too late, asks others besides the slow.
    pub(crate) fn tick(&mut self, node: &mut Node) {
        let now = node.now;
        if self.next_check.is_none_or(|at| at > now) {
            return;
        }
        self.next_check = (!self.asked.is_empty()).then_some(now + CHECK_INTERVAL);
        let busy = node
            .peers
            .values()
            .filter(|peer| !peer.blocks.in_flight.is_empty())
            .count();
        let spacing = Duration::from_secs(u64::from(node.view.params().target_spacing));
        let others = u32::try_from(busy.saturating_sub(1)).unwrap_or(u32::MAX);
        let late = spacing.saturating_add((spacing / 2).saturating_mul(others));
        for link in node.ready_links() {
            // A peer that we do not read from has perhaps sent long ago what we wait for.
            let Some(blocks) = node
                .peers
                .get(&link)
                .filter(|peer| !peer.paused)
                .map(|peer| &peer.blocks)
            else {
                continue;
            };
            if blocks
                .stalling
                .is_some_and(|since| now.since(since) >= self.stall_timeout)
            {
                self.stall_timeout = (self.stall_timeout * 2).min(MAX_STALL_TIMEOUT);
                self.drop_peer(node, link, "stalls the block download");
            } else if blocks.since.is_some_and(|since| now.since(since) >= late) {
                self.drop_peer(node, link, "timeout downloading a block");
            }
        }
        self.ask_besides(node);
    }

    fn drop_peer(&mut self, node: &mut Node, link: LinkId, text: &'static str) {
        if let Some(peer) = node.peers.get_mut(&link) {
            for hash in std::mem::take(&mut peer.blocks.in_flight).into_keys() {
                self.give_up(link, hash);
            }
        }
        node.close(link, CloseReason::benign(text));
    }

    /// Asks idle peers for blocks that others were asked for a while ago without giving us anything since.
    fn ask_besides(&mut self, node: &mut Node) {
        let (now, patience) = (node.now, self.stall_timeout);
        let with_coins = node.view.spent_coins_wanted().is_some();
        let mut late: Vec<(u32, BlockHash)> = Vec::new();
        for (hash, (height, links)) in &self.asked {
            let silent = |link: &LinkId| {
                node.peers.get(link).is_none_or(|peer| {
                    let asked = peer.blocks.in_flight.get(hash).map_or(now, |asked| asked.at);
                    now.since(peer.blocks.last.map_or(asked, |last| last.max(asked))) >= patience
                })
            };
            if links.len() < MAX_ASKED && !self.by_hand.contains(hash) && links.iter().all(silent) {
                late.push((*height, *hash));
            }
        }
        late.sort_unstable();
        for (height, hash) in late {
            let has = |node: &Node, peer: &Peer| {
                peer.headers
                    .best
                    .is_some_and(|best| best.height >= height && node.view.ancestor(&best.hash, height) == Some(hash))
            };
            let asked = self
                .asked
                .get(&hash)
                .map(|(_, links)| links.clone())
                .unwrap_or_default();
            let besides = node
                .peers
                .values()
                .filter(|peer| peer.is_ready() && peer.serves_blocks() && !peer.is_limited())
                .filter(|peer| peer.offers_spent || !with_coins)
                .filter(|peer| !asked.contains(&peer.link) && has(node, peer))
                .min_by_key(|peer| {
                    let owed = peer.blocks.in_flight.len();
                    (
                        peer.blocks.rate.wait(owed, self.usual_bytes),
                        owed,
                        peer.is_inbound(),
                        peer.link,
                    )
                });
            let Some(link) = besides
                .filter(|peer| self.room(peer, peer.blocks.in_flight.len()) > 0)
                .map(|peer| peer.link)
            else {
                continue;
            };
            self.note_asked(node, link, height, hash);
            self.request(node, link, vec![Inventory::WitnessBlock(hash)]);
        }
    }
}
