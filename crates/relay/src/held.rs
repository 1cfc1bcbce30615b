//! How much of what peers sent is kept: figures for tests and for those who watch a node.

use crate::machine::Relay;

/// What a [`Relay`] keeps on account of its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Links, whatever their state.
    pub links: usize,
    /// Those that others opened.
    pub inbound: usize,
    /// Transactions whose parents are unknown.
    pub orphans: usize,
    /// The most transactions that one peer announced and that are not settled.
    pub announced: usize,
    /// Known addresses of others.
    pub addresses: usize,
}

impl Relay {
    /// What is kept on account of peers now.
    pub fn held(&self) -> Held {
        let node = self.node();
        let inbound = node.peers.values().filter(|peer| peer.is_inbound()).count();
        let (orphans, announced) = self.txs().held(node.peers.keys());
        Held {
            links: node.peers.len(),
            inbound,
            orphans,
            announced,
            addresses: node.book.len(),
        }
    }
}
