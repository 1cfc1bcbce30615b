//! Parsed blocks that were stored a moment ago and wait to be connected, so that most are parsed only once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ParsedBlock;
use crate::tree::NodeId;

/// A bounded store of parsed blocks; the oldest make room.
pub(crate) struct Recent {
    blocks: BTreeMap<NodeId, Arc<ParsedBlock>>,
    order: VecDeque<NodeId>,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            blocks: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    pub(crate) fn insert(&mut self, id: NodeId, block: Arc<ParsedBlock>) {
        self.bytes += block.raw.len();
        if let Some(old) = self.blocks.insert(id, block) {
            self.bytes -= old.raw.len();
        } else {
            self.order.push_back(id);
        }
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(oldest);
        }
        // Numbers of blocks taken out stay in the queue until they reach its front.
        if self.order.len() > 2 * self.blocks.len() + 64 {
            self.order.retain(|id| self.blocks.contains_key(id));
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<ParsedBlock>> {
        self.blocks.get(&id).cloned()
    }

    /// Takes a block out: it is connected now, or of no use.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<Arc<ParsedBlock>> {
        let block = self.blocks.remove(&id)?;
        self.bytes -= block.raw.len();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, Params};

    #[test]
    fn the_oldest_make_room() {
        let block = ParsedBlock::from_block(Params::new(Network::Regtest).genesis);
        let mut recent = Recent::new(block.raw.len() * 3);
        for id in 0..1000 {
            recent.insert(id, Arc::clone(&block));
            if id % 2 == 0 {
                assert!(recent.remove(id).is_some());
            }
        }
        assert!(recent.bytes <= recent.max_bytes);
        assert!(recent.order.len() < 100);
        assert!(recent.remove(999).is_some() && recent.remove(997).is_some() && recent.remove(995).is_some());
        assert!(recent.remove(993).is_none());
        assert_eq!(recent.bytes, 0);
    }
}
