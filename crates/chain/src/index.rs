//! The header tree on disk: one record for each header in the table, and the few facts about the whole directory.
//!
//! Key: height (four bytes, big-endian), hash. So a scan meets parents before their children.
//!
//! | bytes | of the value |
//! |---|---|
//! | 80 | the header |
//! | 1 | flags: 1 valid, 2 invalid, 4 block stored, 8 undo stored, 16 number of transactions known, 32 pruned |
//! | LEB128 | sequence of arrival |
//! | LEB128 | number of transactions, with flag 16 |
//! | LEB128 x 3, 8 | file, offset, length, checksum of the block, with flag 4; then of the undo record, with flag 8 |

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use dunlin_store::{Space, Step, StoreError, Table};

use crate::coin::{number, put_number};
use crate::files::Location;
use crate::tree::{Node, NodeId, Tree};

/// Headers.
pub(crate) const INDEX: Space = Space(0);
/// Facts about the directory.
pub(crate) const META: Space = Space(1);

/// Key of the layout's number in [`META`].
pub(crate) const LAYOUT_KEY: &[u8] = b"layout";
/// The layout that this version writes.
pub(crate) const LAYOUT: u32 = 3;
/// The folder in which earlier layouts had the table.
pub(crate) const FORMER_DIR: &str = "index";
/// Key of the network's name in [`META`].
pub(crate) const NETWORK_KEY: &[u8] = b"network";
/// Key of the number of the set that holds the coins of the tip; the first when it is not there.
pub(crate) const COINS_KEY: &[u8] = b"coins";
/// Key of the record of a snapshot that is not validated yet; see [`crate::snapshot`].
pub(crate) const SNAPSHOT_KEY: &[u8] = b"snapshot";
/// Key of the record of a SwiftSync under way, or of hints that were found wrong; see [`crate::swiftsync`].
pub(crate) const SWIFT_KEY: &[u8] = b"swiftsync";
/// Key of the record of damage that is being searched for; see [`crate::search`].
pub(crate) const SEARCH_KEY: &[u8] = b"search";

/// A key and the least that a record has.
const MIN_RECORD_BYTES: u64 = 36 + 80 + 2;

const VALID: u8 = 1;
const INVALID: u8 = 2;
const BLOCK: u8 = 4;
const UNDO: u8 = 8;
const TX_COUNT: u8 = 16;
const PRUNED: u8 = 32;

/// A node's key.
pub(crate) fn key(node: &Node) -> [u8; 36] {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&node.height.to_be_bytes());
    key[4..].copy_from_slice(node.hash.as_ref());
    key
}

/// A node's record.
pub(crate) fn encode(node: &Node) -> Vec<u8> {
    let mut out = serialize(&node.header);
    let mut flags = 0;
    for (flag, set) in [
        (VALID, node.valid),
        (INVALID, node.invalid),
        (BLOCK, node.block.is_some()),
        (UNDO, node.undo.is_some()),
        (TX_COUNT, node.tx_count.is_some()),
        (PRUNED, node.pruned),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.push(flags);
    put_number(&mut out, node.sequence);
    if let Some(count) = node.tx_count {
        put_number(&mut out, u64::from(count));
    }
    for at in [&node.block, &node.undo].into_iter().flatten() {
        put_number(&mut out, u64::from(at.file));
        put_number(&mut out, at.offset);
        put_number(&mut out, u64::from(at.len));
        out.extend_from_slice(&at.checksum.to_le_bytes());
    }
    out
}

fn location(bytes: &mut &[u8]) -> Option<Location> {
    let file = u32::try_from(number(bytes)?).ok()?;
    let offset = number(bytes)?;
    let len = u32::try_from(number(bytes)?).ok()?;
    let (checksum, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(Location {
        file,
        offset,
        len,
        checksum: u64::from_le_bytes(*checksum),
    })
}

/// Puts a record into the tree; `None` when it is damaged or its parent is not there.
pub(crate) fn restore(tree: &mut Tree, key: &[u8], value: &[u8]) -> Option<NodeId> {
    let (header, mut rest) = value.split_first_chunk::<80>()?;
    let header: Header = deserialize(header).ok()?;
    // The table vouches for what was written: the hash is not worked out again.
    let hash = BlockHash::from_byte_array(key.get(4..)?.try_into().ok()?);
    let id = match key.starts_with(&[0; 4]) {
        true => tree.find(&hash)?,
        false => {
            let parent = tree.find(&header.prev_blockhash)?;
            tree.insert(parent, header, hash)
        }
    };
    let (&flags, after) = rest.split_first()?;
    rest = after;
    let sequence = number(&mut rest)?;
    let tx_count = match flags & TX_COUNT {
        0 => None,
        _ => Some(u32::try_from(number(&mut rest)?).ok()?),
    };
    let block = if flags & BLOCK == 0 {
        None
    } else {
        Some(location(&mut rest)?)
    };
    let undo = if flags & UNDO == 0 {
        None
    } else {
        Some(location(&mut rest)?)
    };
    let node = tree.node_mut(id);
    node.sequence = sequence;
    node.tx_count = tx_count;
    node.block = block;
    node.undo = undo;
    node.valid = flags & VALID != 0;
    node.pruned = flags & PRUNED != 0;
    if flags & INVALID != 0 {
        tree.mark_invalid(id);
    }
    Some(id)
}

/// Loads every record into a tree that has the genesis block. A damaged record is left out with a warning, and what
/// was built on it too: the headers come again from peers.
pub(crate) fn load(table: &dyn Table, tree: &mut Tree) -> Result<(), StoreError> {
    let mut left_out = 0u64;
    let most = table.size_hint(INDEX)? / MIN_RECORD_BYTES;
    tree.reserve(usize::try_from(most).unwrap_or(0));
    table.scan(INDEX, b"", &mut |key, value| {
        if restore(tree, key, value).is_none() {
            left_out += 1;
        }
        Step::Continue
    })?;
    if left_out > 0 {
        tracing::warn!(left_out, "records of the header index are damaged and were left out");
    }
    Ok(())
}

/// The number of the set that holds the coins of the tip.
pub(crate) fn coins(table: &dyn Table) -> Result<u8, StoreError> {
    Ok(table
        .get(META, COINS_KEY)?
        .and_then(|number| number.first().copied())
        .unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Network, Params};
    use dunlin_store::{Batch, MemTable};

    #[test]
    fn the_tree_survives_writing() {
        let genesis = Params::new(Network::Regtest).genesis.header;
        let mut tree = Tree::new(&genesis);
        let mut parent = 0;
        for salt in 0..4 {
            let above = tree.node(parent);
            let header = Header {
                prev_blockhash: above.hash,
                time: above.header.time + 1 + salt,
                ..genesis
            };
            parent = tree.insert(parent, header, header.block_hash());
        }
        let node = tree.node_mut(2);
        node.block = Some(Location {
            file: 3,
            offset: 1 << 33,
            len: 77,
            checksum: u64::MAX,
        });
        node.undo = Some(Location {
            file: 3,
            offset: 0,
            len: 0,
            checksum: 0,
        });
        node.valid = true;
        node.pruned = true;
        node.tx_count = Some(1000);
        node.sequence = 500;
        tree.mark_invalid(4);

        let table = MemTable::default();
        let mut batch = Batch::default();
        for id in tree.ids() {
            batch.put(INDEX, key(tree.node(id)), encode(tree.node(id)));
        }
        batch.put(INDEX, vec![0xff; 36], vec![1, 2, 3]);
        table.write(batch, true).unwrap();

        let mut found = Tree::new(&genesis);
        load(&table, &mut found).unwrap();
        assert_eq!(found.len(), 5);
        for id in tree.ids() {
            assert_eq!(format!("{:?}", found.node(id)), format!("{:?}", tree.node(id)));
        }
        assert_eq!(found.best_header(), 3);
    }
}
