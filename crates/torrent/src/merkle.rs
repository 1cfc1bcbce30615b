//! Hash trees of version 2 torrents (BEP 52): SHA-256 over blocks of 16 KiB, a binary tree for each file, padded with
//! zero hashes at the end of its leaves.
//!
//! Layers are counted from the leaves: layer 0 holds the hashes of blocks. The piece layer holds one hash for each piece.

use sha2::{Digest, Sha256};

use crate::wire::BLOCK_LEN;

/// A node of a tree.
pub type Hash = [u8; 32];

/// The node above two others.
pub(crate) fn parent(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update(left).chain_update(right).finalize().into()
}

/// The node `layer` layers above leaves that are all padding.
pub(crate) fn padding(layer: u32) -> Hash {
    (0..layer).fold([0; 32], |node, _| parent(&node, &node))
}

/// The hashes of blocks whose bytes come in order.
pub(crate) struct Blocks {
    leaves: Vec<Hash>,
    block: Sha256,
    filled: u32,
    left: u32,
}

impl Blocks {
    /// For `len` bytes; what comes after them is padding and of no interest.
    pub(crate) fn new(len: u32) -> Self {
        Self {
            leaves: Vec::new(),
            block: Sha256::new(),
            filled: 0,
            left: len,
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while self.left > 0 && !bytes.is_empty() {
            let room = self.left.min(BLOCK_LEN - self.filled) as usize;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            bytes = rest;
            self.block.update(now);
            // No more than a block.
            self.filled += now.len() as u32;
            self.left -= now.len() as u32;
            if self.filled == BLOCK_LEN || self.left == 0 {
                self.leaves.push(self.block.finalize_reset().into());
                self.filled = 0;
            }
        }
    }

    /// The node `height` layers above the blocks; `None` when bytes are missing.
    pub(crate) fn root(self, height: u32) -> Option<Hash> {
        (self.left == 0).then(|| root(self.leaves, 0, height))
    }
}

/// How many layers lie above one of `len` nodes, padded to a power of two.
pub(crate) fn height(len: u64) -> u32 {
    len.max(1).next_power_of_two().trailing_zeros()
}

/// The layer of a torrent's pieces.
pub(crate) fn piece_layer(piece_length: u32) -> u32 {
    height(u64::from(piece_length / BLOCK_LEN))
}

/// Each layer above `nodes`, which are of layer `layer`, up to the one of a single node `height` layers above; without
/// the padding behind the nodes.
pub(crate) fn layers(nodes: Vec<Hash>, layer: u32, height: u32) -> Vec<Vec<Hash>> {
    let mut all = vec![nodes];
    let mut pad = padding(layer);
    for at in 0..height as usize {
        let next = all[at]
            .chunks(2)
            .map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&pad)))
            .collect();
        all.push(next);
        pad = parent(&pad, &pad);
    }
    all
}

/// The node `height` layers above `nodes`, which are of layer `layer`.
pub(crate) fn root(nodes: Vec<Hash>, layer: u32, height: u32) -> Hash {
    let top = layers(nodes, layer, height).pop().unwrap_or_default();
    top.first().copied().unwrap_or_else(|| padding(layer + height))
}

/// The node that follows from `node`, which stands at `index` of its layer, and the nodes beside its way up.
pub(crate) fn climb(node: Hash, mut index: u64, uncles: &[Hash]) -> Hash {
    uncles.iter().fold(node, |node, uncle| {
        let above = if index.is_multiple_of(2) {
            parent(&node, uncle)
        } else {
            parent(uncle, &node)
        };
        index /= 2;
        above
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_padded_and_proofs_lead_to_their_roots() {
        let nodes: Vec<Hash> = (1..=5u8).map(|n| [n; 32]).collect();
        assert_eq!((height(1), height(2), height(5), height(8)), (0, 1, 3, 3));
        let all = layers(nodes.clone(), 0, 3);
        let pair = |a, b| parent(&[a; 32], &[b; 32]);
        assert_eq!(all[1], [pair(1, 2), pair(3, 4), pair(5, 0)]);
        let right = parent(&pair(5, 0), &pair(0, 0));
        let top = parent(&parent(&all[1][0], &all[1][1]), &right);
        assert_eq!((all[3].as_slice(), root(nodes, 0, 3)), (&[top][..], top));
        assert_eq!(climb(all[1][1], 1, &[all[1][0], right]), top);
        assert_eq!(padding(1), pair(0, 0));
        // A layer above the leaves is padded with what stands above padding.
        assert_eq!(root(all[1].clone(), 1, 2), top);
    }
}
