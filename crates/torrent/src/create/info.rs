//! The dictionaries of a new torrent.

use std::collections::BTreeMap;

use super::{PieceHash, Plan, Source, Version};
use crate::bencode::Item;
use crate::merkle::{self, Hash};

fn number(length: u64) -> Item {
    Item::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// The .torrent with nothing around what its files say.
pub(super) fn torrent(plan: &Plan<'_>, name: &str, is_folder: bool, private: bool, pieces: &[PieceHash]) -> Vec<u8> {
    let mut root = Item::dict();
    let mut info = Item::dict().with("name", name).with("piece length", plan.piece_length);
    if private {
        info.insert("private", 1u32);
    }
    if plan.version != Version::V2 {
        let hashes: Vec<[u8; 20]> = pieces.iter().map(|piece| piece.v1).collect();
        info.insert("pieces", hashes.as_flattened());
        if is_folder {
            info.insert("files", v1_files(plan));
        } else {
            info.insert("length", number(plan.total));
        }
    }
    if plan.version != Version::V1 {
        let (tree, layers) = v2_files(plan, name, pieces);
        info.insert("meta version", 2u32);
        info.insert("file tree", tree);
        root.insert("piece layers", Item::Dict(layers));
    }
    root.with("info", Item::Raw(info.encode())).encode()
}

/// The list of files, with pad files (BEP 47) where the next one begins later.
fn v1_files(plan: &Plan<'_>) -> Vec<Item> {
    let mut entries = Vec::new();
    let mut end = 0;
    for file in plan.files {
        let gap = file.offset - end;
        if gap > 0 {
            let path = vec![".pad".into(), gap.to_string().as_str().into()];
            entries.push(
                Item::dict()
                    .with("attr", "p")
                    .with("length", number(gap))
                    .with("path", Item::List(path)),
            );
        }
        let parts: Vec<Item> = file.parts.iter().map(|part| part.as_str().into()).collect();
        entries.push(Item::dict().with("length", number(file.length)).with("path", parts));
        end = file.offset + file.length;
    }
    entries
}

/// The tree of files with their roots, and the piece layers.
fn v2_files(plan: &Plan<'_>, name: &str, pieces: &[PieceHash]) -> (Item, BTreeMap<Vec<u8>, Item>) {
    let mut tree = BTreeMap::new();
    let mut layers = BTreeMap::new();
    for file in plan.files {
        let mut entry = Item::dict().with("length", number(file.length));
        if file.length > 0 {
            let (root, layer) = root_of(plan, file, pieces);
            entry.insert("pieces root", &root[..]);
            if layer.len() > 1 {
                layers.insert(root.to_vec(), Item::Bytes(layer.as_flattened().to_vec()));
            }
        }
        let entry = Item::Dict(BTreeMap::from([(Vec::new(), entry)]));
        let own = [name.to_owned()];
        let parts = if file.parts.is_empty() { &own[..] } else { &file.parts };
        insert(&mut tree, parts, entry);
    }
    (Item::Dict(tree), layers)
}

/// A file's root, and the nodes of its pieces.
fn root_of(plan: &Plan<'_>, file: &Source, pieces: &[PieceHash]) -> (Hash, Vec<Hash>) {
    let len = u64::from(plan.piece_length);
    // There are no more pieces than fit into memory.
    let first = (file.offset / len) as usize;
    let count = file.length.div_ceil(len) as usize;
    let nodes: Vec<Hash> = pieces.iter().skip(first).take(count).map(|piece| piece.v2).collect();
    match nodes[..] {
        [only] => (only, nodes),
        _ => {
            let layer = merkle::piece_layer(plan.piece_length);
            let root = merkle::root(nodes.clone(), layer, merkle::height(count as u64));
            (root, nodes)
        }
    }
}

/// Puts an entry into its folder, which is made where it is not there.
fn insert(mut folder: &mut BTreeMap<Vec<u8>, Item>, parts: &[String], entry: Item) {
    let Some((name, folders)) = parts.split_last() else {
        return;
    };
    for part in folders {
        let below = folder.entry(part.as_bytes().to_vec()).or_insert_with(Item::dict);
        let Item::Dict(below) = below else { return };
        folder = below;
    }
    folder.insert(name.as_bytes().to_vec(), entry);
}
