//! Messages about hash trees (BEP 52).

use bytes::{Buf, Bytes};

use crate::merkle::Hash;

/// The most hashes that one request is for, as libtorrent bounds them.
pub const MAX_HASHES: u32 = 8192;
/// Bytes of a request.
pub(super) const REQUEST_LEN: usize = 48;
/// The most bytes of hashes in a message: with a proof of as many layers as a tree can have.
pub(super) const MAX_BODY: usize = (MAX_HASHES as usize + 64) * 32;

/// Which nodes of a file's tree are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashRequest {
    /// The tree's root.
    pub root: Hash,
    /// Layers above the leaves.
    pub layer: u32,
    /// The first node's index in its layer.
    pub index: u32,
    /// How many.
    pub length: u32,
    /// How many layers above are wanted as a proof, those counted that follow from the nodes themselves.
    pub proofs: u32,
}

impl HashRequest {
    pub(super) fn read(body: &mut Bytes) -> Option<Self> {
        let mut root = [0; 32];
        body.try_copy_to_slice(&mut root).ok()?;
        Some(Self {
            root,
            layer: body.try_get_u32().ok()?,
            index: body.try_get_u32().ok()?,
            length: body.try_get_u32().ok()?,
            proofs: body.try_get_u32().ok()?,
        })
    }

    pub(super) fn bytes(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[..32].copy_from_slice(&self.root);
        let numbers = [self.layer, self.index, self.length, self.proofs];
        for (slot, number) in bytes[32..].as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *slot = number.to_be_bytes();
        }
        bytes
    }
}
