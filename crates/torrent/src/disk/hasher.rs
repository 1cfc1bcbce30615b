//! Hashing one piece: with SHA-1 (BEP 3), as a tree of SHA-256 (BEP 52), or both for a hybrid.

use sha1::{Digest, Sha1};

use crate::Metainfo;
use crate::merkle::{Blocks, Hash};
use crate::wire::BLOCK_LEN;

const ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];

/// The state of one piece, which takes the piece's bytes in order.
pub(super) struct PieceHasher {
    flat: Option<(Sha1, [u8; 20])>,
    tree: Option<(Blocks, Hash, u32)>,
}

impl PieceHasher {
    /// For a piece of the torrent; `None` when there is nothing to check it with.
    pub(super) fn new(meta: &Metainfo, piece: u32) -> Option<Self> {
        let flat = meta.piece_hash(piece).map(|hash| (Sha1::new(), *hash));
        let tree = meta
            .piece_root(piece)
            .map(|(expected, height)| (Blocks::new(meta.piece_payload(piece)), expected, height));
        (flat.is_some() || tree.is_some()).then_some(Self { flat, tree })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some((sha1, _)) = &mut self.flat {
            sha1.update(bytes);
        }
        if let Some((blocks, ..)) = &mut self.tree {
            blocks.update(bytes);
        }
    }

    /// Takes `len` zeros.
    pub(super) fn update_zeros(&mut self, mut len: u64) {
        while len > 0 {
            let now = len.min(ZEROS.len() as u64);
            if let Some((sha1, _)) = &mut self.flat {
                sha1.update(&ZEROS[..now as usize]);
            }
            if let Some((blocks, ..)) = &mut self.tree {
                blocks.update(&ZEROS[..now as usize]);
            }
            len -= now;
        }
    }

    /// Whether the piece was right, in every way that it can be checked.
    pub(super) fn matches(self) -> bool {
        self.flat
            .is_none_or(|(sha1, expected)| <[u8; 20]>::from(sha1.finalize()) == expected)
            && self
                .tree
                .is_none_or(|(blocks, expected, height)| blocks.root(height) == Some(expected))
    }
}
