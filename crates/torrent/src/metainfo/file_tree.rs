//! The file tree and the piece layers of version 2 torrents (BEP 52).

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::{File, MAX_FILES, MAX_TOTAL_LEN, MetainfoError, attr};
use crate::bencode::Value;
use crate::merkle::{self, Hash};
use crate::paths;
use crate::wire::BLOCK_LEN;

/// Piece layers by the roots of their files.
pub type Layers = BTreeMap<Hash, Bytes>;

/// The files of a tree in its order, each at the beginning of a piece, with pads between them as a hybrid has them.
/// None is at the end.
/// With `folder`, a single file has a folder too.
pub(super) fn read(
    name: &str,
    tree: Value<'_, '_>,
    piece_length: u32,
    folder: bool,
) -> Result<Vec<File>, MetainfoError> {
    if !piece_length.is_power_of_two() || piece_length < BLOCK_LEN {
        return Err(MetainfoError::Field("piece length"));
    }
    const BAD: MetainfoError = MetainfoError::Field("file tree");
    let mut files: Vec<File> = Vec::new();
    let mut offset = 0u64;
    let mut todo: Vec<(Vec<&[u8]>, Value<'_, '_>)> = vec![(Vec::new(), tree)];
    while let Some((path, node)) = todo.pop() {
        let pairs: Vec<_> = node.pairs().ok_or(BAD)?.collect();
        if let [(b"", file)] = pairs[..] {
            if path.is_empty() {
                return Err(BAD);
            }
            if files.len() >= MAX_FILES {
                return Err(MetainfoError::TooMany("files"));
            }
            let mut file = entry(file)?;
            let gap = offset.next_multiple_of(piece_length.into()) - offset;
            if gap > 0 && file.length > 0 {
                files.push(pad(name, offset, gap));
                offset += gap;
            }
            file.path = paths::join(name, &path).ok_or(BAD)?;
            file.offset = offset;
            offset = offset
                .checked_add(file.length)
                .filter(|&sum| sum <= MAX_TOTAL_LEN)
                .ok_or(MetainfoError::Field("length"))?;
            files.push(file);
            continue;
        }
        // The first of them is taken next.
        for (part, below) in pairs.into_iter().rev() {
            if part.is_empty() {
                return Err(BAD);
            }
            let mut path = path.clone();
            path.push(part);
            todo.push((path, below));
        }
        if todo.len() > MAX_FILES {
            return Err(MetainfoError::TooMany("files"));
        }
    }
    if !folder
        && let [only] = &mut files[..]
        && let Some(inner) = only.path.strip_prefix(name).ok().map(PathBuf::from)
        && inner.components().count() == 1
    {
        // A single file, which has no folder.
        only.path = inner;
    }
    if files.is_empty() {
        return Err(BAD);
    }
    paths::separate(&mut files);
    Ok(files)
}

/// Zeros from `offset` to the next piece.
fn pad(name: &str, offset: u64, length: u64) -> File {
    File {
        path: PathBuf::from(name).join(".pad"),
        length,
        offset,
        pad: true,
        executable: false,
        pieces_root: None,
    }
}

fn entry(file: Value<'_, '_>) -> Result<File, MetainfoError> {
    let length = file.get(b"length").and_then(|len| len.as_u64());
    let attr = attr(file);
    let link = attr.contains(&b'l');
    let length = match length {
        Some(length) if length <= MAX_TOTAL_LEN => length,
        None if link => 0,
        _ => return Err(MetainfoError::Field("length")),
    };
    let root = file.get(b"pieces root").and_then(|root| root.as_bytes());
    let pieces_root = match root {
        Some(root) if length > 0 => Hash::try_from(root).ok().filter(|root| *root != [0; 32]),
        _ => None,
    };
    if length > 0 && pieces_root.is_none() {
        return Err(MetainfoError::Field("pieces root"));
    }
    Ok(File {
        path: PathBuf::new(),
        length,
        offset: 0,
        pad: link && length == 0,
        executable: attr.contains(&b'x'),
        pieces_root,
    })
}

/// Gives the files of a hybrid's version 1 half their roots; both halves have to describe the same.
pub(super) fn unite(files: &mut [File], tree: &[File]) -> Result<(), MetainfoError> {
    let real = |file: &&File| !file.pad;
    let same = |a: &File, b: &File| a.path == b.path && a.length == b.length && (a.offset == b.offset || a.length == 0);
    let mut theirs = tree.iter().filter(real);
    for file in files.iter_mut().filter(|file| !file.pad) {
        match theirs.next() {
            Some(other) if same(file, other) => file.pieces_root = other.pieces_root,
            _ => return Err(MetainfoError::Inconsistent),
        }
    }
    theirs.next().map_or(Ok(()), |_| Err(MetainfoError::Inconsistent))
}

/// Reads what a torrent has of piece layers and checks each against its file's root.
pub(super) fn layers(value: Value<'_, '_>, files: &[File], piece_length: u32) -> Result<Layers, MetainfoError> {
    const BAD: MetainfoError = MetainfoError::Field("piece layers");
    let wanted: BTreeMap<Hash, u64> = large(files, piece_length).collect();
    let mut layers = Layers::new();
    for (root, layer) in value.pairs().ok_or(BAD)? {
        let root = Hash::try_from(root).map_err(|_| BAD)?;
        let pieces = *wanted.get(&root).ok_or(BAD)?;
        let bytes = layer.as_bytes().ok_or(BAD)?;
        let (nodes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || nodes.len() as u64 != pieces {
            return Err(BAD);
        }
        let layer = merkle::piece_layer(piece_length);
        if merkle::root(nodes.to_vec(), layer, merkle::height(pieces)) != root {
            return Err(BAD);
        }
        layers.insert(root, Bytes::copy_from_slice(bytes));
    }
    Ok(layers)
}

/// The roots of the files that are longer than a piece, with their numbers of pieces.
pub(super) fn large(files: &[File], piece_length: u32) -> impl Iterator<Item = (Hash, u64)> + '_ {
    let len = u64::from(piece_length);
    files
        .iter()
        .filter(move |file| file.length > len)
        .filter_map(move |file| Some((file.pieces_root?, file.length.div_ceil(len))))
}
