//! The tree of headers, with the active chain and the best chain of headers as two paths through it.
//!
//! A node is never removed and its number never changes; a parent's number is always smaller than its children's. Two
//! vectors by height, one for each path, make lookups by height and ancestors cheap without further pointers: a branch
//! off both paths is short, or about to become one of them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use hashbrown::HashTable;

use crate::coins::Keyed;
use crate::files::Location;
use crate::rules::{self, HeaderChain};
use crate::{ChainTip, Entry, Status, TipStatus};

/// A node's number.
pub(crate) type NodeId = u32;

/// The parent of the genesis block.
const NO_PARENT: NodeId = NodeId::MAX;

/// One header and what is known of its block.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) hash: BlockHash,
    pub(crate) header: Header,
    parent: NodeId,
    pub(crate) height: u32,
    pub(crate) work: Work,
    pub(crate) median_time_past: u32,
    pub(crate) tx_count: Option<u32>,
    /// Where the block is stored.
    pub(crate) block: Option<Location>,
    /// Where the coins that it spent are stored.
    pub(crate) undo: Option<Location>,
    /// When the block and all its ancestors had arrived, counted from 1; 0 while any of them is missing.
    pub(crate) sequence: u64,
    pub(crate) valid: bool,
    pub(crate) invalid: bool,
    /// The block was stored and its file was deleted to save space.
    pub(crate) pruned: bool,
}

/// Where a block's hash belongs in a table; without the key nobody can choose hashes that collide.
fn place_of(keyed: &Keyed, hash: &BlockHash) -> u64 {
    let mut hasher = keyed.build_hasher();
    hasher.write(hash.as_byte_array());
    hasher.finish()
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// The numbers by the keyed hash of the nodes' hashes, which stand in the nodes.
    by_hash: HashTable<NodeId>,
    keyed: Keyed,
    /// The validated chain by height.
    active: Vec<NodeId>,
    /// The chain of headers with the most work by height.
    best: Vec<NodeId>,
    /// Blocks of the validated chain whose bytes were found damaged and have not come again yet.
    lost: BTreeSet<NodeId>,
}

impl Tree {
    /// A tree of the genesis block alone.
    pub(crate) fn new(genesis: &Header) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            by_hash: HashTable::new(),
            keyed: Keyed::default(),
            active: vec![0],
            best: vec![0],
            lost: BTreeSet::new(),
        };
        let hash = genesis.block_hash();
        tree.nodes.push(Node {
            hash,
            header: *genesis,
            parent: NO_PARENT,
            height: 0,
            work: rules::work_of(genesis.bits),
            median_time_past: genesis.time,
            tx_count: Some(1),
            block: None,
            undo: None,
            sequence: 1,
            valid: true,
            invalid: false,
            pruned: false,
        });
        tree.note_hash(0);
        tree
    }

    /// Makes room for as many further headers; room that stays empty costs nothing but addresses.
    pub(crate) fn reserve(&mut self, further: usize) {
        self.nodes.reserve(further);
        self.best.reserve(further);
        let (nodes, keyed) = (&self.nodes, &self.keyed);
        let place = |id: &NodeId| place_of(keyed, &nodes[*id as usize].hash);
        self.by_hash.reserve(further, place);
    }

    /// The node with this number; numbers only come from this tree.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(crate) fn find(&self, hash: &BlockHash) -> Option<NodeId> {
        // Most who ask for a header have just added it, or its child.
        if self.nodes.last().is_some_and(|last| last.hash == *hash) {
            return self.ids().next_back();
        }
        let found = self
            .by_hash
            .find(place_of(&self.keyed, hash), |id| self.nodes[*id as usize].hash == *hash);
        found.copied()
    }

    /// Makes the node findable by its hash.
    fn note_hash(&mut self, id: NodeId) {
        let (nodes, keyed) = (&self.nodes, &self.keyed);
        let place = |id: &NodeId| place_of(keyed, &nodes[*id as usize].hash);
        self.by_hash.insert_unique(place(&id), id, place);
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Every number, parents before children.
    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        0..self.nodes.len() as NodeId
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        let parent = self.node(id).parent;
        (parent != NO_PARENT).then_some(parent)
    }

    /// Adds a header below `parent`; the caller has checked it.
    pub(crate) fn insert(&mut self, parent: NodeId, header: Header, hash: BlockHash) -> NodeId {
        let id = self.nodes.len() as NodeId;
        let above = self.node(parent);
        let (height, invalid) = (above.height + 1, above.invalid);
        // Most headers have their parent's target, and the division is dear.
        let own = match self.parent(parent) {
            Some(further) if above.header.bits == header.bits => above.work - self.node(further).work,
            _ => rules::work_of(header.bits),
        };
        let work = above.work + own;
        self.nodes.push(Node {
            hash,
            header,
            parent,
            height,
            work,
            median_time_past: 0,
            tx_count: None,
            block: None,
            undo: None,
            sequence: 0,
            valid: false,
            invalid,
            pruned: false,
        });
        self.nodes[id as usize].median_time_past = rules::median_time_past(&Branch { tree: self, last: id });
        self.note_hash(id);
        if !invalid && work > self.node(self.best_header()).work {
            match parent == self.best_header() {
                true => self.best.push(id),
                false => self.set_best(id),
            }
        }
        id
    }

    /// The tip of the validated chain.
    pub(crate) fn tip(&self) -> NodeId {
        self.active.last().copied().unwrap_or(0)
    }

    /// The tip of the chain of headers with the most work, the first seen of equals, none of it known to be invalid.
    pub(crate) fn best_header(&self) -> NodeId {
        self.best.last().copied().unwrap_or(0)
    }

    pub(crate) fn active_at(&self, height: u32) -> Option<NodeId> {
        self.active.get(height as usize).copied()
    }

    pub(crate) fn best_at(&self, height: u32) -> Option<NodeId> {
        self.best.get(height as usize).copied()
    }

    pub(crate) fn is_active(&self, id: NodeId) -> bool {
        self.active_at(self.node(id).height) == Some(id)
    }

    /// The node at `height` on the way from `id` to the genesis block; `id` itself when `height` is not below it.
    pub(crate) fn ancestor(&self, id: NodeId, height: u32) -> NodeId {
        let mut at = id;
        loop {
            let node = self.node(at);
            if node.height <= height {
                return at;
            }
            let here = node.height as usize;
            for path in [&self.active, &self.best] {
                if path.get(here) == Some(&at) {
                    return path[height as usize];
                }
            }
            if node.parent == NO_PARENT {
                return at;
            }
            at = node.parent;
        }
    }

    /// Whether `ancestor` lies on the way from `id` to the genesis block, `id` included.
    pub(crate) fn is_ancestor(&self, ancestor: NodeId, id: NodeId) -> bool {
        let height = self.node(ancestor).height;
        height <= self.node(id).height && self.ancestor(id, height) == ancestor
    }

    /// The last node that the active chain and the way to `id` have in common.
    pub(crate) fn fork_point(&self, id: NodeId) -> NodeId {
        // Above the tip nothing is active: the walk begins at its height.
        let mut at = self.ancestor(id, self.node(self.tip()).height);
        while !self.is_active(at) {
            match self.parent(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        at
    }

    /// Makes the way to `id` the active chain.
    pub(crate) fn set_active(&mut self, id: NodeId) {
        let path = std::mem::take(&mut self.active);
        self.active = self.lead(path, id);
    }

    fn set_best(&mut self, id: NodeId) {
        let path = std::mem::take(&mut self.best);
        self.best = self.lead(path, id);
    }

    /// Bends a path by height so that it ends with `id`.
    fn lead(&self, mut path: Vec<NodeId>, id: NodeId) -> Vec<NodeId> {
        let mut tail = Vec::new();
        let mut at = Some(id);
        while let Some(here) = at {
            let height = self.node(here).height as usize;
            if path.get(height) == Some(&here) {
                path.truncate(height + 1);
                break;
            }
            path.truncate(height);
            tail.push(here);
            at = self.parent(here);
        }
        path.extend(tail.into_iter().rev());
        path
    }

    /// Blocks of the validated chain that must be fetched again, in the order of their numbers.
    pub(crate) fn lost(&self) -> impl Iterator<Item = NodeId> {
        self.lost.iter().copied()
    }

    /// Forgets where a block is stored.
    pub(crate) fn lose_block(&mut self, id: NodeId) {
        self.node_mut(id).block = None;
        if self.is_active(id) {
            self.lost.insert(id);
        }
    }

    /// Notes where a block is stored.
    pub(crate) fn store_block(&mut self, id: NodeId, at: Location, tx_count: u32) {
        let node = self.node_mut(id);
        node.block = Some(at);
        node.tx_count = Some(tx_count);
        node.pruned = false;
        self.lost.remove(&id);
    }

    /// Notes that a block was deleted to save space.
    pub(crate) fn prune_block(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.block = None;
        node.pruned = true;
        self.lost.remove(&id);
    }

    /// Marks the block and everything built on it; returns the numbers newly marked.
    pub(crate) fn mark_invalid(&mut self, id: NodeId) -> Vec<NodeId> {
        let mut marked = Vec::new();
        for at in id..self.nodes.len() as NodeId {
            let node = self.node(at);
            let parent_invalid = node.parent != NO_PARENT && self.node(node.parent).invalid;
            if !node.invalid && (at == id || parent_invalid) {
                self.node_mut(at).invalid = true;
                marked.push(at);
            }
        }
        if self.node(self.best_header()).invalid {
            self.choose_best();
        }
        marked
    }

    /// Takes back every judgement on blocks above a height; returns the numbers of those that had one.
    pub(crate) fn doubt_above(&mut self, height: u32) -> Vec<NodeId> {
        let judged = |node: &Node| node.height > height && (node.valid || node.invalid);
        let doubted: Vec<NodeId> = self.ids().filter(|id| judged(self.node(*id))).collect();
        for id in &doubted {
            let node = self.node_mut(*id);
            node.valid = false;
            node.invalid = false;
        }
        self.choose_best();
        doubted
    }

    /// The last node that the ways to two nodes have in common.
    pub(crate) fn common(&self, mut one: NodeId, mut other: NodeId) -> NodeId {
        loop {
            one = self.ancestor(one, self.node(other).height);
            other = self.ancestor(other, self.node(one).height);
            if one == other {
                return one;
            }
            match (self.parent(one), self.parent(other)) {
                (Some(above), Some(beside)) => (one, other) = (above, beside),
                _ => return one,
            }
        }
    }

    /// Takes the mark off a block, its ancestors and everything built on it; returns the numbers that had it.
    pub(crate) fn clear_invalid(&mut self, id: NodeId) -> Vec<NodeId> {
        let related = |at: &NodeId| self.node(*at).invalid && (self.is_ancestor(id, *at) || self.is_ancestor(*at, id));
        let cleared: Vec<NodeId> = self.ids().filter(related).collect();
        for at in &cleared {
            self.node_mut(*at).invalid = false;
        }
        self.choose_best();
        cleared
    }

    /// Looks through all nodes for the best header; of equals the one on the validated chain, then the first seen.
    fn choose_best(&mut self) {
        let mut best = self.tip();
        while let (true, Some(parent)) = (self.node(best).invalid, self.parent(best)) {
            best = parent;
        }
        for id in self.ids() {
            let node = self.node(id);
            if !node.invalid && node.work > self.node(best).work {
                best = id;
            }
        }
        self.set_best(best);
    }

    pub(crate) fn entry(&self, id: NodeId) -> Entry {
        let node = self.node(id);
        Entry {
            hash: node.hash,
            header: node.header,
            height: node.height,
            chain_work: node.work,
            median_time_past: node.median_time_past,
            tx_count: node.tx_count,
            have_data: node.block.is_some(),
            pruned: node.pruned,
            status: if node.invalid {
                Status::Invalid
            } else if node.valid {
                Status::Valid
            } else if node.block.is_some() {
                Status::Stored
            } else {
                Status::HeaderOnly
            },
        }
    }

    /// What is known of the branch that ends with `id`.
    pub(crate) fn chain_tip(&self, id: NodeId) -> ChainTip {
        let fork = self.fork_point(id);
        let mut branch = std::iter::successors(Some(id), |at| self.parent(*at)).take_while(|at| *at != fork);
        let node = self.node(id);
        let status = if self.is_active(id) {
            TipStatus::Active
        } else if node.invalid {
            TipStatus::Invalid
        } else if branch.any(|at| self.node(at).tx_count.is_none()) {
            TipStatus::HeadersOnly
        } else if node.valid {
            TipStatus::ValidFork
        } else {
            TipStatus::ValidHeaders
        };
        ChainTip {
            entry: self.entry(id),
            branch_len: node.height - self.node(fork).height,
            status,
        }
    }

    /// The chain that ends with `last`, as the rules look at it.
    pub(crate) fn branch(&self, last: NodeId) -> Branch<'_> {
        Branch { tree: self, last }
    }
}

/// A chain of headers seen from its last one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch<'a> {
    tree: &'a Tree,
    last: NodeId,
}

impl HeaderChain for Branch<'_> {
    fn height(&self) -> u32 {
        self.tree.node(self.last).height
    }

    fn header_at(&self, height: u32) -> Header {
        self.tree.node(self.tree.ancestor(self.last, height)).header
    }

    fn back(&self) -> impl Iterator<Item = Header> + '_ {
        let mut next = Some(self.last);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.tree.parent(at);
            Some(self.tree.node(at).header)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Network, Params};

    /// Adds a header with its own time, so that siblings differ.
    fn grow(tree: &mut Tree, parent: NodeId, salt: u32) -> NodeId {
        let above = tree.node(parent);
        let header = Header {
            prev_blockhash: above.hash,
            time: above.header.time + 1 + salt,
            ..above.header
        };
        tree.insert(parent, header, header.block_hash())
    }

    fn tree() -> Tree {
        Tree::new(&Params::new(Network::Regtest).genesis.header)
    }

    #[test]
    fn the_best_header_is_the_first_with_the_most_work() {
        let mut tree = tree();
        let a1 = grow(&mut tree, 0, 0);
        let b1 = grow(&mut tree, 0, 9);
        assert_eq!(tree.best_header(), a1);
        let b2 = grow(&mut tree, b1, 0);
        assert_eq!(tree.best_header(), b2);
        assert_eq!(tree.best_at(1), Some(b1));
        let a2 = grow(&mut tree, a1, 0);
        let a3 = grow(&mut tree, a2, 0);
        assert_eq!(tree.best_header(), a3);
        assert_eq!(tree.best_at(1), Some(a1));

        assert_eq!(tree.mark_invalid(a2), [a2, a3]);
        assert_eq!(tree.best_header(), b2);
        let a4 = grow(&mut tree, a3, 0);
        assert!(tree.node(a4).invalid);
        assert_eq!(tree.best_header(), b2);
    }

    #[test]
    fn ancestors_are_found_on_and_off_the_paths() {
        let mut tree = tree();
        let mut main = vec![0];
        for _ in 0..30 {
            main.push(grow(&mut tree, *main.last().unwrap(), 0));
        }
        tree.set_active(main[20]);
        let mut side = main[..=10].to_vec();
        for _ in 0..5 {
            side.push(grow(&mut tree, *side.last().unwrap(), 77));
        }
        for chain in [&main, &side] {
            let last = *chain.last().unwrap();
            for (height, id) in chain.iter().enumerate() {
                assert_eq!(tree.ancestor(last, height as u32), *id);
                assert!(tree.is_ancestor(*id, last));
            }
        }
        assert!(!tree.is_ancestor(side[12], main[30]));
        assert_eq!(tree.fork_point(side[15]), main[10]);
        assert_eq!(tree.fork_point(main[30]), main[20]);
        tree.set_active(side[15]);
        assert_eq!(tree.tip(), side[15]);
        assert_eq!(tree.active_at(11), Some(side[11]));
        assert_eq!(tree.active_at(16), None);
        assert_eq!(tree.fork_point(main[30]), main[10]);
        tree.set_active(main[10]);
        assert_eq!(tree.tip(), main[10]);
    }

    #[test]
    fn the_median_time_is_that_of_eleven() {
        let mut tree = tree();
        let mut at = 0;
        for _ in 0..12 {
            at = grow(&mut tree, at, 0);
        }
        let start = tree.node(0).header.time;
        assert_eq!(tree.node(at).median_time_past, start + 7);
    }
}
