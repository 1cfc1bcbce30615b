//! Block sync: what to fetch, from whom, and what to do when it does not come.
//!
//! The blocks that are missing on the way to the best header are fetched from many peers at once, in a window that
//! moves with the lowest missing block. Each peer is asked for as many bytes as it gives in a few seconds. Whoever keeps the window from moving is
//! replaced; a block that does not come is asked of a second and a third peer; whatever peer is lost, its blocks go
//! back to the plan.

mod arrived;
mod claims;
mod late;
mod rate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Work};
use dunlin_chain::Entry;
use dunlin_peer::{LinkId, Now};

use self::claims::Claims;
pub(crate) use self::rate::MAX_ROOM as MAX_IN_FLIGHT;
use self::rate::Rate;
use crate::headers::HeaderSync;
use crate::node::Node;
use crate::peer::Peer;
use crate::wire::{Message, services};

/// How far beyond the lowest missing block we fetch.
pub(crate) const WINDOW: u32 = 1024;
/// Blocks that wait for the chain and blocks that were asked for have about this many bytes at most: more would only
/// fill the memory, because the chain takes one after the other.
const MAX_WAITING_BYTES: usize = 24 << 20;
/// The size that a block is thought to have before any came.
const FIRST_GUESS: usize = 250_000;
/// A peer that keeps the window from moving for this long is replaced; doubles with each one, up to a minute.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_STALL_TIMEOUT: Duration = Duration::from_secs(64);
/// A block is asked of at most this many peers at a time.
const MAX_ASKED: usize = 3;
/// How often blocks under way are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An unasked block further above our tip than this is dropped.
const MAX_UNASKED_AHEAD: u32 = 288;
/// A peer that serves recent blocks only is not asked for older ones than these.
const LIMITED_BLOCKS: u32 = 286;

/// The block requests of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockState {
    /// What it was asked for, and when.
    pub(crate) in_flight: BTreeMap<BlockHash, Asked>,
    /// Blocks whose spent coins it was asked for and has not told.
    coins_asked: BTreeSet<BlockHash>,
    /// How fast it gives blocks.
    rate: Rate,
    /// Since when the peer has owed us the block that it was asked for first.
    since: Option<Now>,
    /// Since when it has kept the window from moving.
    stalling: Option<Now>,
    /// When its last block came, wanted or not.
    last: Option<Now>,
    /// When its last new block came.
    pub(crate) last_new: Option<Now>,
    /// Height up to which its chain is that of the best header, with the two blocks for which that was found.
    reach: Option<(BlockHash, BlockHash, u32)>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) height: u32,
    at: Now,
}

/// What all peers together are fetching.
#[derive(Debug)]
pub(crate) struct BlockSync {
    /// Missing blocks of the best header's chain that nobody was asked for, by height.
    plan: BTreeMap<u32, BlockHash>,
    /// The best header and the tip for which the plan was made; `None` when it has to be made anew.
    plan_for: Option<BlockHash>,
    /// Whether more is to be fetched than the plan holds.
    plan_cut: bool,
    /// Blocks up to this height are fetched only to validate a snapshot, when nothing else is missing, or to be searched
    /// for what damaged records said; they have a window of their own.
    history: u32,
    /// The plan is for such a search.
    searching: bool,
    /// Who was asked for what.
    asked: BTreeMap<BlockHash, (u32, BTreeSet<LinkId>)>,
    /// Which of these an operator wanted from one peer: no other is asked for it, and nothing waits for it.
    by_hand: BTreeSet<BlockHash>,
    /// Blocks given to the chain, and by whom.
    judging: BTreeMap<BlockHash, (Option<LinkId>, usize)>,
    /// The bytes of those.
    judging_bytes: usize,
    /// How large blocks have been lately.
    usual_bytes: usize,
    /// Who gave the blocks that are stored and not yet connected.
    sources: BTreeMap<BlockHash, (u32, LinkId)>,
    claims: Claims,
    stall_timeout: Duration,
    next_check: Option<Now>,
}

/// What is the same for all peers while one after the other is asked.
struct Round {
    /// The work of our tip.
    tip: Work,
    downloading: bool,
    /// Inbound peers are asked too.
    anyone: bool,
    /// The last height of the window.
    end: u32,
    /// Blocks have to come with the coins that they spend.
    with_coins: bool,
}

impl BlockSync {
    pub(crate) fn new() -> Self {
        Self {
            plan: BTreeMap::new(),
            plan_for: None,
            plan_cut: false,
            history: 0,
            searching: false,
            asked: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            judging: BTreeMap::new(),
            judging_bytes: 0,
            usual_bytes: FIRST_GUESS,
            sources: BTreeMap::new(),
            claims: Claims::default(),
            stall_timeout: STALL_TIMEOUT,
            next_check: None,
        }
    }

    /// Whether any block is under way.
    pub(crate) fn in_flight(&self) -> bool {
        !self.asked.is_empty()
    }

    /// When [`BlockSync::tick`] has something to do.
    pub(crate) fn next(&self) -> Option<Now> {
        self.next_check
    }

    /// Makes the plan anew when the best header changed, or when little of it is left.
    fn replan(&mut self, node: &Node) {
        let best = node.view.best_header().hash;
        // While coins are wanted a stored block may turn out to lack them.
        let idle = self.plan.is_empty() && self.asked.is_empty() && node.view.spent_coins_wanted().is_some();
        let low = idle || (self.plan_cut && self.plan.len() < WINDOW as usize / 2);
        let search = node.view.search();
        if self.plan_for == Some(best) && !low && self.searching == search.is_some() {
            return;
        }
        let known = |hash: &BlockHash| self.asked.contains_key(hash) || self.judging.contains_key(hash);
        let max = 2 * WINDOW as usize;
        self.searching = search.is_some();
        let mut missing = match search.is_some_and(|search| search.rests) {
            true => Vec::new(),
            false => node.view.missing_blocks(max, known),
        };
        let base = || node.view.snapshot().map_or(0, |snapshot| snapshot.base.height);
        self.history = search.map_or_else(base, |search| search.target);
        // Behind the blocks that lead to the best header come those for a search, or below the snapshot.
        self.plan_cut = missing.len() >= max || self.history > 0;
        if missing.is_empty() && self.history > 0 {
            missing = match self.searching {
                true => node.view.blocks_to_search(max, known),
                false => node.view.missing_history(max, known),
            };
        }
        self.plan = missing.into_iter().collect();
        self.plan_for = Some(best);
        if !self.claims.is_empty() {
            let planned: BTreeSet<BlockHash> = self.plan.values().copied().collect();
            self.claims
                .keep_only(|hash| planned.contains(hash) || self.asked.contains_key(hash));
        }
    }

    /// The last height of the window: the lowest block that is not stored decides.
    fn window_end(&self) -> u32 {
        let planned = self.plan.keys().next().copied();
        let lowest = planned
            .into_iter()
            .chain(self.asked_beside_plan().map(|(height, _)| *height));
        lowest.min().unwrap_or(0).saturating_add(WINDOW)
    }

    /// What was asked for on the side of the snapshot's base on which the plan lies.
    fn asked_beside_plan(&self) -> impl Iterator<Item = &(u32, BTreeSet<LinkId>)> {
        let planned = self.plan.keys().next().map(|height| *height <= self.history);
        let ours = self.asked.iter().filter(move |(hash, _)| !self.by_hand.contains(*hash));
        ours.map(|(_, asked)| asked)
            .filter(move |(height, _)| planned.is_none_or(|below| below == (*height <= self.history)))
    }

    /// Asks every peer that has room for the blocks that it has; `first` is served before the others.
    pub(crate) fn pump(&mut self, node: &mut Node, first: Option<LinkId>) {
        let with_coins = node.view.spent_coins_wanted().is_some();
        self.watch_coins(node);
        if !with_coins && !self.claims.is_empty() {
            self.release_held(node);
        }
        self.replan(node);
        if self.plan.is_empty() && self.asked.is_empty() && first.is_none() {
            self.next_check = None;
            return;
        }
        let mut links = node.ready_links();
        if let Some(first) = first {
            links.retain(|link| *link != first);
            links.insert(0, first);
        }
        let round = Round {
            tip: node.view.tip().chain_work,
            downloading: node.is_initial_download(),
            anyone: HeaderSync::fetch_from_anyone(node, self.in_flight()),
            end: self.window_end(),
            with_coins,
        };
        for link in links {
            self.ask_peer(node, link, &round);
        }
        if self.asked.is_empty() {
            self.next_check = None;
        } else if self.next_check.is_none() {
            self.next_check = Some(node.now + CHECK_INTERVAL);
        }
    }

    fn ask_peer(&mut self, node: &mut Node, link: LinkId, round: &Round) {
        crate::headers::resolve(node, link);
        let Some(peer) = node
            .peers
            .get(&link)
            .filter(|peer| peer.is_ready() && peer.serves_blocks() && (peer.offers_spent || !round.with_coins))
        else {
            return;
        };
        let Some(best) = peer.headers.best else { return };
        let owed = peer.blocks.in_flight.len().max(peer.blocks.coins_asked.len());
        let room = self.room(peer, owed).min(self.room_for_all());
        let better = best.work > round.tip;
        if room == 0 || (self.plan.is_empty() && !better) || best.work < node.view.params().minimum_chain_work {
            return;
        }
        if round.downloading && (!HeaderSync::may_fetch_from(peer, round.anyone) || peer.is_limited()) {
            return;
        }
        let lowest = if peer.is_limited() {
            best.height.saturating_sub(LIMITED_BLOCKS)
        } else {
            0
        };
        let idle = peer.blocks.in_flight.is_empty();
        let reach = self.reach(node, link);
        let mut wanted: Vec<(u32, BlockHash)> = Vec::new();
        let mut beyond = false;
        for (&height, &hash) in &self.plan {
            if height > reach || wanted.len() == room {
                break;
            }
            if height > round.end {
                beyond = wanted.is_empty();
                break;
            }
            if height >= lowest {
                wanted.push((height, hash));
            }
        }
        if beyond && idle {
            return self.blame_staller(node, link);
        }
        if wanted.is_empty() && idle && better && reach < best.height {
            wanted = self.branch(node, best.hash, room);
        }
        if wanted.is_empty() {
            return;
        }
        for (height, hash) in &wanted {
            self.note_asked(node, link, *height, *hash);
        }
        let compact = match wanted[..] {
            [(_, hash)] => self.fits_compact(node, link, hash),
            _ => false,
        };
        let items = wanted
            .into_iter()
            .map(|(_, hash)| match compact {
                true => Inventory::CompactBlock(hash),
                false => Inventory::WitnessBlock(hash),
            })
            .collect();
        self.request(node, link, items);
    }

    /// How many more blocks the peer may be asked for, so that what it owes comes soon.
    fn room(&self, peer: &Peer, owed: usize) -> usize {
        peer.blocks.rate.room(self.usual_bytes).saturating_sub(owed)
    }

    /// How many more blocks may be asked for, whoever is asked, so that memory holds them while they wait.
    fn room_for_all(&self) -> usize {
        let left = MAX_WAITING_BYTES.saturating_sub(self.judging_bytes + self.claims.bytes);
        let least = usize::from(self.asked.is_empty() && self.judging.is_empty());
        (left / self.usual_bytes.max(1))
            .saturating_sub(self.asked.len())
            .max(least)
    }

    /// Whether a block that is asked of this peer is best taken in its compact form: the one that comes next.
    fn fits_compact(&self, node: &Node, link: LinkId, hash: BlockHash) -> bool {
        let next = |entry: Entry| entry.header.prev_blockhash == node.view.tip().hash;
        self.asked.len() == 1
            && node.peers.get(&link).is_some_and(|peer| peer.compact.provides)
            && node.view.entry(&hash).is_some_and(next)
            && crate::compact::near_tip(node)
    }

    /// Of how many peers a block was asked.
    pub(crate) fn asked_of(&self, hash: &BlockHash) -> usize {
        self.asked.get(hash).map_or(0, |(_, links)| links.len())
    }

    /// Whether the block was asked of this peer before all others.
    pub(crate) fn is_first(&self, node: &Node, link: LinkId, hash: &BlockHash) -> bool {
        let since = |link: &LinkId| node.peers.get(link)?.blocks.in_flight.get(hash).map(|asked| asked.at);
        let asked = self.asked.get(hash).map(|(_, links)| links.iter());
        let first = asked.into_iter().flatten().min_by_key(|link| (since(link), **link));
        first.is_none_or(|first| *first == link)
    }

    /// Whether the block was asked of a peer that we dialled.
    pub(crate) fn is_asked_of_outbound(&self, node: &Node, hash: &BlockHash) -> bool {
        let outbound = |link: &LinkId| node.peers.get(link).is_some_and(|peer| !peer.is_inbound());
        self.asked
            .get(hash)
            .is_some_and(|(_, links)| links.iter().any(outbound))
    }

    /// Whether the chain has the block and has not judged it.
    pub(crate) fn is_judging(&self, hash: &BlockHash) -> bool {
        self.judging.contains_key(hash)
    }

    /// The peer is no longer waited for.
    pub(crate) fn drop_request(&mut self, node: &mut Node, link: LinkId, hash: BlockHash) {
        if let Some(peer) = node.peers.get_mut(&link)
            && peer.blocks.in_flight.remove(&hash).is_some()
        {
            if peer.blocks.in_flight.is_empty() {
                peer.blocks.since = None;
            }
            self.give_up(link, hash);
        }
    }

    pub(crate) fn note_asked(&mut self, node: &mut Node, link: LinkId, height: u32, hash: BlockHash) {
        let at = node.now;
        if self.plan.get(&height) == Some(&hash) {
            self.plan.remove(&height);
        }
        self.asked
            .entry(hash)
            .or_insert_with(|| (height, BTreeSet::new()))
            .1
            .insert(link);
        if let Some(peer) = node.peers.get_mut(&link) {
            peer.blocks.since.get_or_insert(at);
            if peer.blocks.in_flight.is_empty() {
                peer.blocks.rate.begins(at);
            }
            peer.blocks.in_flight.insert(hash, Asked { height, at });
        }
    }

    /// Asks one peer for a block that an operator wants; earlier requests for it are forgotten. An error says why not,
    /// in Core's words.
    pub(crate) fn ask_by_hand(&mut self, node: &mut Node, link: LinkId, hash: BlockHash) -> Result<(), &'static str> {
        let peer = node.peers.get(&link).filter(|peer| !peer.closing);
        let peer = peer.ok_or("Peer does not exist")?;
        if !peer.is_ready() {
            return Err("Peer not fully connected");
        }
        if peer.services & services::WITNESS == 0 {
            return Err("Pre-SegWit peer");
        }
        let height = node.view.entry(&hash).map_or(0, |entry| entry.height);
        self.forget(node, hash);
        self.by_hand.insert(hash);
        self.note_asked(node, link, height, hash);
        node.send(link, Message::GetData(vec![Inventory::WitnessBlock(hash)]));
        self.next_check.get_or_insert(node.now + CHECK_INTERVAL);
        Ok(())
    }

    /// How far the peer's chain is that of the best header.
    fn reach(&self, node: &mut Node, link: LinkId) -> u32 {
        let target = node.view.best_header();
        let Some(peer) = node.peers.get_mut(&link) else {
            return 0;
        };
        let Some(best) = peer.headers.best else { return 0 };
        if let Some((of, to, reach)) = peer.blocks.reach
            && of == best.hash
            && to == target.hash
        {
            return reach;
        }
        let view = &node.view;
        let shared = |height: u32| view.ancestor(&target.hash, height) == view.ancestor(&best.hash, height);
        // Both chains agree up to some height and nowhere above: the greatest such height is found by halving.
        let top = best.height.min(target.height);
        let (mut low, mut high) = (0, top);
        if shared(top) {
            low = top;
        }
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if shared(middle) {
                low = middle
            } else {
                high = middle - 1
            }
        }
        peer.blocks.reach = Some((best.hash, target.hash, low));
        low
    }

    /// Missing blocks of a branch that is not the best header's, lowest first: its blocks may be all we can get.
    fn branch(&self, node: &Node, tip: BlockHash, room: usize) -> Vec<(u32, BlockHash)> {
        let active = node.view.tip();
        let mut missing = Vec::new();
        let mut at = node.view.entry(&tip);
        if at.as_ref().is_none_or(|entry| entry.chain_work <= active.chain_work) {
            return Vec::new();
        }
        for _ in 0..WINDOW {
            let Some(entry) = at else { return Vec::new() };
            if node.view.contains_in_active(&entry.hash) {
                missing.reverse();
                missing.truncate(room);
                return missing;
            }
            if entry.status == dunlin_chain::Status::Invalid {
                return Vec::new();
            }
            if !entry.have_data && !self.asked.contains_key(&entry.hash) && !self.judging.contains_key(&entry.hash) {
                missing.push((entry.height, entry.hash));
            }
            at = node.view.entry(&entry.header.prev_blockhash);
        }
        Vec::new()
    }

    /// The plan has to be made anew: a block was refused, or the chain took another way.
    pub(crate) fn invalidate(&mut self) {
        self.plan_for = None;
    }
}
