//! Doors for the fuzzer to what the chain reads from its disk. They are only built for it.

use crate::tree::Tree;
use crate::undo::BlockUndo;
use crate::{Network, Params, coin, index};

/// Reads a coin; one that can be read is the same after writing and reading it again.
///
/// # Panics
/// When it is not.
pub fn coin(bytes: &[u8]) {
    let Some(read) = coin::decode(bytes) else { return };
    let mut written = Vec::new();
    coin::encode(&read, &mut written);
    assert_eq!(coin::decode(&written), Some(read));
}

/// [`coin`] for the undo record of a block.
///
/// # Panics
/// As there.
pub fn undo(bytes: &[u8]) {
    let Some(read) = BlockUndo::decode(bytes) else { return };
    assert_eq!(BlockUndo::decode(read.record().bytes()), Some(read));
}

/// [`coin`] for a record of the header index: the key, then the record.
///
/// # Panics
/// As there.
pub fn index_record(bytes: &[u8]) {
    let genesis = Params::new(Network::Regtest).genesis.header;
    let put = |key: &[u8], value: &[u8]| {
        let mut tree = Tree::new(&genesis);
        let id = index::restore(&mut tree, key, value)?;
        let node = tree.node(id);
        Some((index::key(node), index::encode(node)))
    };
    let Some((mut key, value)) = bytes.split_first_chunk::<36>().map(|(key, value)| (*key, value)) else {
        return;
    };
    // Most keys do not fit their header: the fuzzer cannot compute hashes.
    if let Some(header) = value.first_chunk::<80>() {
        let hash = <bitcoin::hashes::sha256d::Hash as bitcoin::hashes::Hash>::hash(header);
        key[4..].copy_from_slice(hash.as_ref());
    }
    let Some((key, written)) = put(&key, value) else { return };
    assert_eq!(put(&key, &written), Some((key, written)));
}
