//! Torrent files: BEP 3, with BEP 12 (tracker tiers), BEP 19 (web seeds), BEP 27 (private), BEP 47 (pad files,
//! attributes).
//!
//! Version 1, version 2 (BEP 52) and hybrid torrents are read. The bytes of a version 2 torrent are laid out as those of
//! a hybrid: pads between the files let each begin with a piece of its own. What a torrent says is a stranger's word:
//! sizes are summed with care, the number of pieces has to fit them, and file names are made safe by `paths` before
//! anyone opens a file.

mod file_tree;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::bencode::{DecodeError, Document, Item, Limits, Value};
use crate::merkle;
pub use crate::merkle::Hash;
use crate::paths;
use crate::wire::{BLOCK_LEN, Block};
use crate::{InfoHash, InfoHashV2};
pub use file_tree::Layers;

/// The most pieces, as libtorrent bounds them.
pub const MAX_PIECES: u32 = 0x20_0000;
/// The most files.
pub const MAX_FILES: usize = 500_000;
/// The longest piece: a piece is assembled in memory before it is checked.
pub const MAX_PIECE_LEN: u32 = 256 << 20;
/// The longest .torrent file or info dictionary.
pub const MAX_METAINFO_LEN: usize = 64 << 20;
/// The longest torrent in bytes; file offsets stay within signed 64 bits.
const MAX_TOTAL_LEN: u64 = i64::MAX as u64 / 2;
/// Trackers, web seeds and nodes kept of each kind.
const MAX_URLS: usize = 500;

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Safe path under the download folder: the torrent's name first when it has several files.
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
    /// Where the file begins in the torrent.
    pub offset: u64,
    /// BEP 47: never on disk; zeros that only fill up a piece, or a symbolic link, which we do not make.
    pub pad: bool,
    /// BEP 47: wants its executable bit.
    pub executable: bool,
    /// BEP 52: the root of the hash tree over the file's blocks.
    pub pieces_root: Option<Hash>,
}

impl File {
    /// The file's bytes within the torrent.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

/// A parsed torrent: everything that `info` says, and what stands around it.
#[derive(Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// The torrent's name: SHA-1 of the raw info dictionary, or the truncated [`Metainfo::info_hash_v2`] of a version 2
    /// torrent, or of a hybrid that was asked for by it.
    pub info_hash: InfoHash,
    /// SHA-1 of the raw info dictionary, when it has a version 1 half.
    pub info_hash_v1: Option<InfoHash>,
    /// SHA-256 of the raw info dictionary, when it has a version 2 half (BEP 52).
    pub info_hash_v2: Option<InfoHashV2>,
    /// The info dictionary exactly as it came; served to peers who have only a magnet link.
    pub raw_info: Bytes,
    /// The torrent's name, made safe: the file's or the folder's name.
    pub name: String,
    /// Bytes of each piece but the last.
    pub piece_length: u32,
    /// 20 bytes of SHA-1 for each piece; empty when it is of version 2 only.
    pub piece_hashes: Bytes,
    /// BEP 52: of each file that is longer than a piece 32 bytes of SHA-256 for each of its pieces, by the file's root.
    /// Peers bring what is missing.
    pub layers: Layers,
    /// The lengths of pieces that end with their file, in a torrent of version 2 only.
    short: Arc<BTreeMap<u32, u32>>,
    /// Files in the order of their bytes.
    pub files: Vec<File>,
    /// All files together, pads included.
    pub total_length: u64,
    /// BEP 27: peers come from the trackers only.
    pub private: bool,
    /// Tracker URLs in tiers (BEP 12), shuffled by nobody yet.
    pub trackers: Vec<Vec<String>>,
    /// BEP 19 web seeds.
    pub url_list: Vec<String>,
    /// DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made the torrent.
    pub created_by: Option<String>,
    /// Seconds since the Unix epoch.
    pub creation_date: Option<i64>,
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metainfo")
            .field("info_hash", &self.info_hash)
            .field("name", &self.name)
            .field("total_length", &self.total_length)
            .field("pieces", &self.piece_count())
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// Why a torrent is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencoded.
    #[error("not a torrent file: {0}")]
    Bencode(#[from] DecodeError),
    /// Larger than [`MAX_METAINFO_LEN`].
    #[error("torrent file is too large ({0} bytes)")]
    TooLarge(usize),
    /// No `info` dictionary.
    #[error("torrent file has no info dictionary")]
    NoInfo,
    /// A version that nobody has defined yet.
    #[error("torrent is of version {0}, which is not known")]
    Version(i64),
    /// The two halves of a hybrid (BEP 52) are about different things.
    #[error("the version 1 and version 2 halves of the torrent do not describe the same files")]
    Inconsistent,
    /// A field is missing or not what it has to be.
    #[error("torrent has a missing or bad '{0}'")]
    Field(&'static str),
    /// The piece hashes do not fit the size.
    #[error("torrent names {found} piece hashes where its size asks for {expected}")]
    PieceCount {
        /// What total length and piece length ask for.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// More than we are willing to handle.
    #[error("torrent has too many {0}")]
    TooMany(&'static str),
    /// The info dictionary is not the one that was asked for.
    #[error("info dictionary does not match its hash")]
    WrongInfoHash,
}

impl Metainfo {
    /// Reads a .torrent file. Bytes after the torrent's end are ignored, as libtorrent does.
    ///
    /// # Errors
    /// [`MetainfoError`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > MAX_METAINFO_LEN {
            return Err(MetainfoError::TooLarge(bytes.len()));
        }
        let (doc, _) = Document::parse_prefix(bytes, Limits::METAINFO)?;
        let root = doc.root();
        let info = root.get(b"info").filter(Value::is_dict).ok_or(MetainfoError::NoInfo)?;
        let mut metainfo = Self::from_value(info)?;
        if let Some(layers) = root.get(b"piece layers")
            && metainfo.info_hash_v2.is_some()
        {
            metainfo.layers = file_tree::layers(layers, &metainfo.files, metainfo.piece_length)?;
        }
        metainfo.trackers = trackers(root);
        metainfo.url_list = match root.get(b"url-list") {
            Some(list) if list.is_list() => list
                .items()
                .into_iter()
                .flatten()
                .filter_map(url)
                .take(MAX_URLS)
                .collect(),
            Some(one) => url(one).into_iter().collect(),
            None => Vec::new(),
        };
        metainfo.nodes = root.get(b"nodes").map(nodes).unwrap_or_default();
        metainfo.comment = text(root, b"comment.utf-8").or_else(|| text(root, b"comment"));
        metainfo.created_by = text(root, b"created by.utf-8").or_else(|| text(root, b"created by"));
        metainfo.creation_date = root.get(b"creation date").and_then(|date| date.as_int());
        Ok(metainfo)
    }

    /// Reads an info dictionary fetched from peers and checks that it is the one with this hash (BEP 9).
    ///
    /// # Errors
    /// [`MetainfoError::WrongInfoHash`], or what is wrong with the dictionary.
    pub fn from_info(raw_info: &[u8], info_hash: InfoHash) -> Result<Self, MetainfoError> {
        if raw_info.len() > MAX_METAINFO_LEN {
            return Err(MetainfoError::TooLarge(raw_info.len()));
        }
        if !is_named(raw_info, info_hash) {
            return Err(MetainfoError::WrongInfoHash);
        }
        let doc = Document::parse(raw_info, Limits::METAINFO)?;
        let mut metainfo = Self::from_value(doc.root())?;
        if !metainfo.names().any(|name| name == info_hash) {
            // Asked for as the version that it is not.
            return Err(MetainfoError::WrongInfoHash);
        }
        metainfo.info_hash = info_hash;
        Ok(metainfo)
    }

    /// Takes piece layers over which were read for the same torrent before.
    ///
    /// # Errors
    /// When they are not those of its files.
    pub fn with_layers(mut self, layers: &[u8]) -> Result<Self, MetainfoError> {
        let doc = Document::parse(layers, Limits::METAINFO)?;
        self.layers = file_tree::layers(doc.root(), &self.files, self.piece_length)?;
        Ok(self)
    }

    fn from_value(info: Value<'_, '_>) -> Result<Self, MetainfoError> {
        if !info.is_dict() {
            return Err(MetainfoError::NoInfo);
        }
        let v2 = match info.get(b"meta version").map(|version| version.as_int()) {
            None | Some(Some(1)) => false,
            Some(Some(2)) => true,
            Some(version) => return Err(MetainfoError::Version(version.unwrap_or_default())),
        };
        let v1 = !v2 || info.get(b"pieces").is_some();
        let piece_length = info
            .get(b"piece length")
            .and_then(|len| len.as_u64())
            .and_then(|len| u32::try_from(len).ok())
            .filter(|&len| len > 0 && len <= MAX_PIECE_LEN)
            .ok_or(MetainfoError::Field("piece length"))?;
        let raw_name = utf8_variant(info, b"name.utf-8", b"name").ok_or(MetainfoError::Field("name"))?;
        let name = paths::sanitise(raw_name);
        if matches!(raw_name, b"" | b"." | b"..") {
            return Err(MetainfoError::Field("name"));
        }
        let tree = match info.get(b"file tree") {
            Some(tree) if v2 => Some(file_tree::read(
                &name,
                tree,
                piece_length,
                info.get(b"files").is_some(),
            )?),
            None if v2 => return Err(MetainfoError::Field("file tree")),
            _ => None,
        };
        let (mut files, total_length) = match (info.get(b"files"), &tree) {
            (_, Some(tree)) if !v1 => (tree.clone(), tree.last().map_or(0, |file| file.range().end)),
            (Some(list), _) => folder(&name, list)?,
            (None, _) => {
                let length = info
                    .get(b"length")
                    .and_then(|len| len.as_u64())
                    .ok_or(MetainfoError::Field("length"))?;
                let executable = attr(info).contains(&b'x');
                (
                    vec![File {
                        path: PathBuf::from(&name),
                        length,
                        offset: 0,
                        pad: false,
                        executable,
                        pieces_root: None,
                    }],
                    length,
                )
            }
        };
        if total_length == 0 || total_length > MAX_TOTAL_LEN {
            return Err(MetainfoError::Field("length"));
        }
        if let (Some(tree), true) = (&tree, v1) {
            file_tree::unite(&mut files, tree)?;
        }
        let hashes = match info.get(b"pieces").and_then(|pieces| pieces.as_bytes()) {
            Some(hashes) => hashes,
            None if !v1 => &[],
            None => return Err(MetainfoError::Field("pieces")),
        };
        let expected = total_length.div_ceil(u64::from(piece_length));
        if expected > u64::from(MAX_PIECES) {
            return Err(MetainfoError::TooMany("pieces"));
        }
        let found = hashes.len() as u64 / 20;
        if v1 && (hashes.len() % 20 != 0 || found != expected) {
            return Err(MetainfoError::PieceCount { expected, found });
        }
        let info_hash_v1 = v1.then(|| InfoHash::of_info(info.raw()));
        let info_hash_v2 = v2.then(|| InfoHashV2::of_info(info.raw()));
        let short = if v1 {
            BTreeMap::new()
        } else {
            short_pieces(&files, piece_length)
        };
        Ok(Self {
            info_hash: info_hash_v1
                .or(info_hash_v2.map(|hash| hash.truncated()))
                .ok_or(MetainfoError::NoInfo)?,
            info_hash_v1,
            info_hash_v2,
            raw_info: Bytes::copy_from_slice(info.raw()),
            name,
            piece_length,
            piece_hashes: Bytes::copy_from_slice(hashes),
            layers: Layers::new(),
            short: Arc::new(short),
            files,
            total_length,
            private: info.get(b"private").and_then(|flag| flag.as_int()) == Some(1),
            trackers: Vec::new(),
            url_list: Vec::new(),
            nodes: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
        })
    }

    /// The .torrent file: the info dictionary as it came, with trackers and the rest around it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut root = Item::dict().with("info", Item::Raw(self.raw_info.to_vec()));
        if !self.layers.is_empty() {
            root.insert("piece layers", layers_item(&self.layers));
        }
        if let Some(first) = self.trackers.iter().flatten().next() {
            root.insert("announce", first.as_str());
        }
        if self.trackers.iter().flatten().nth(1).is_some() {
            let tier = |tier: &Vec<String>| Item::List(tier.iter().map(|url| url.as_str().into()).collect());
            root.insert("announce-list", self.trackers.iter().map(tier).collect::<Vec<_>>());
        }
        if !self.url_list.is_empty() {
            root.insert(
                "url-list",
                self.url_list
                    .iter()
                    .map(|url| url.as_str().into())
                    .collect::<Vec<Item>>(),
            );
        }
        if !self.nodes.is_empty() {
            let node = |(host, port): &(String, u16)| Item::List(vec![host.as_str().into(), u32::from(*port).into()]);
            root.insert("nodes", self.nodes.iter().map(node).collect::<Vec<_>>());
        }
        if let Some(comment) = &self.comment {
            root.insert("comment", comment.as_str());
        }
        if let Some(created_by) = &self.created_by {
            root.insert("created by", created_by.as_str());
        }
        if let Some(date) = self.creation_date {
            root.insert("creation date", date);
        }
        root.encode()
    }

    /// How many pieces there are; at least one, at most [`MAX_PIECES`].
    pub fn piece_count(&self) -> u32 {
        // The torrent was refused when it had more than [`MAX_PIECES`].
        self.total_length.div_ceil(u64::from(self.piece_length)) as u32
    }

    /// The SHA-1 of a piece; `None` beyond the last, and when the torrent is of version 2 only.
    pub fn piece_hash(&self, piece: u32) -> Option<&[u8; 20]> {
        self.piece_hashes.as_chunks().0.get(piece as usize)
    }

    /// Where a piece begins in the torrent.
    pub fn piece_offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece_length)
    }

    /// BEP 52: what a piece's hash tree comes to, and how many layers it has above the blocks. `None` when that is not
    /// known: the torrent is of version 1 only, peers have yet to bring the layer, or the piece holds no file.
    pub fn piece_root(&self, piece: u32) -> Option<(Hash, u32)> {
        let start = self.piece_offset(piece);
        let file = self
            .files
            .get(self.file_at(start))
            .filter(|file| file.offset <= start)?;
        let root = file.pieces_root?;
        if file.length <= u64::from(self.piece_length) {
            return Some((root, merkle::height(file.length.div_ceil(BLOCK_LEN.into()))));
        }
        let index = (start - file.offset) / u64::from(self.piece_length);
        let node = self.layers.get(&root)?.as_chunks::<32>().0.get(index as usize)?;
        Some((*node, merkle::piece_layer(self.piece_length)))
    }

    /// BEP 52: bytes of a piece that belong to its file, before the pad.
    pub fn piece_payload(&self, piece: u32) -> u32 {
        let start = self.piece_offset(piece);
        let end = self.files.get(self.file_at(start)).map_or(0, |file| file.range().end);
        u32::try_from(end.saturating_sub(start))
            .unwrap_or(u32::MAX)
            .min(self.piece_length)
    }

    /// BEP 52: the files whose piece layers are not here, as their roots and numbers of pieces.
    pub fn missing_layers(&self) -> Vec<(Hash, u64)> {
        let mut missing: Vec<_> = file_tree::large(&self.files, self.piece_length)
            .filter(|(root, _)| !self.layers.contains_key(root))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Under which names peers, trackers and the DHT know the torrent.
    pub fn names(&self) -> impl Iterator<Item = InfoHash> + '_ {
        self.info_hash_v1
            .into_iter()
            .chain(self.info_hash_v2.map(|hash| hash.truncated()))
    }

    /// Bytes of content, as far as peers exchange them: without the pads of a torrent of version 2 only.
    pub fn content_length(&self) -> u64 {
        if self.info_hash_v1.is_some() {
            return self.total_length;
        }
        self.files.iter().filter(|file| !file.pad).map(|file| file.length).sum()
    }

    /// Pieces that are shorter than others because their file ends in them, and their lengths.
    pub(crate) fn short_pieces(&self) -> Arc<BTreeMap<u32, u32>> {
        Arc::clone(&self.short)
    }

    /// Bytes of a piece as peers are asked for them: shorter for the last one, and in a torrent of version 2 only for
    /// the last one of each file; zero beyond the last.
    pub fn piece_len(&self, piece: u32) -> u32 {
        self.short
            .get(&piece)
            .copied()
            .unwrap_or_else(|| self.piece_space(piece))
    }

    /// Bytes of a piece with the pad in it.
    fn piece_space(&self, piece: u32) -> u32 {
        if self.info_hash_v1.is_none() && piece < self.piece_count() {
            return self.piece_length;
        }
        let left = self.total_length.saturating_sub(self.piece_offset(piece));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// How many blocks of [`BLOCK_LEN`] a piece has.
    pub fn block_count(&self, piece: u32) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// A piece's block by its number; `None` beyond the last.
    pub fn block(&self, piece: u32, index: u32) -> Option<Block> {
        let begin = index.checked_mul(BLOCK_LEN)?;
        let len = self.piece_len(piece).checked_sub(begin)?.min(BLOCK_LEN);
        (len > 0).then_some(Block { piece, begin, len })
    }

    /// Whether a block lies within its piece or the pad in it, and is not empty.
    pub fn contains(&self, block: Block) -> bool {
        let end = u64::from(block.begin) + u64::from(block.len);
        block.len > 0 && block.piece < self.piece_count() && end <= u64::from(self.piece_space(block.piece))
    }

    /// The pieces that hold bytes of a file; empty for an empty file.
    pub fn pieces_of(&self, file: &File) -> Range<u32> {
        if file.length == 0 {
            return 0..0;
        }
        let len = u64::from(self.piece_length);
        let last = (file.range().end - 1) / len;
        (file.offset / len) as u32..last as u32 + 1
    }

    /// The index of the file that holds the torrent's byte at `offset`, or of the first file after it.
    pub fn file_at(&self, offset: u64) -> usize {
        self.files.partition_point(|file| file.range().end <= offset)
    }
}

/// Whether a raw info dictionary goes by this name, in either version.
pub(crate) fn is_named(raw_info: &[u8], name: InfoHash) -> bool {
    InfoHash::of_info(raw_info) == name || InfoHashV2::of_info(raw_info).truncated() == name
}

/// Piece layers as they stand in a file.
pub(crate) fn layers_item(layers: &Layers) -> Item {
    let pair = |(root, layer): (&Hash, &Bytes)| (root.to_vec(), Item::Bytes(layer.to_vec()));
    Item::Dict(layers.iter().map(pair).collect())
}

/// The pieces that files end in before their ends, with their lengths.
fn short_pieces(files: &[File], piece_length: u32) -> BTreeMap<u32, u32> {
    let len = u64::from(piece_length);
    let ends = files.iter().filter(|file| !file.pad && file.length % len != 0);
    // The number of pieces was found to be small enough, and the rest is less than a piece.
    ends.map(|file| ((file.range().end / len) as u32, (file.length % len) as u32))
        .collect()
}

/// Files of a torrent with a folder, and their lengths together.
fn folder(name: &str, list: Value<'_, '_>) -> Result<(Vec<File>, u64), MetainfoError> {
    let mut files = Vec::new();
    let mut offset = 0u64;
    for item in list.items().ok_or(MetainfoError::Field("files"))? {
        if files.len() >= MAX_FILES {
            return Err(MetainfoError::TooMany("files"));
        }
        let length = item
            .get(b"length")
            .and_then(|len| len.as_u64())
            .ok_or(MetainfoError::Field("length"))?;
        let attr = attr(item);
        // A symbolic link (attribute `l`) is never made from a stranger's torrent: like a pad, it is not on disk.
        let pad = attr.contains(&b'p') || (attr.contains(&b'l') && length == 0);
        let parts = match item.get(b"path.utf-8").or_else(|| item.get(b"path")) {
            Some(path) => {
                let parts: Option<Vec<&[u8]>> = path
                    .items()
                    .ok_or(MetainfoError::Field("path"))?
                    .map(|part| part.as_bytes())
                    .collect();
                parts.ok_or(MetainfoError::Field("path"))?
            }
            None if pad => Vec::new(),
            None => return Err(MetainfoError::Field("path")),
        };
        if parts.is_empty() && !pad {
            return Err(MetainfoError::Field("path"));
        }
        let path = paths::join(name, &parts).ok_or(MetainfoError::Field("path"))?;
        files.push(File {
            path,
            length,
            offset,
            pad,
            executable: attr.contains(&b'x'),
            pieces_root: None,
        });
        offset = offset
            .checked_add(length)
            .filter(|&sum| sum <= MAX_TOTAL_LEN)
            .ok_or(MetainfoError::Field("length"))?;
    }
    if files.is_empty() {
        return Err(MetainfoError::Field("files"));
    }
    paths::separate(&mut files);
    Ok((files, offset))
}

fn attr<'a>(file: Value<'a, '_>) -> &'a [u8] {
    file.get(b"attr").and_then(|attr| attr.as_bytes()).unwrap_or_default()
}

fn utf8_variant<'a>(dict: Value<'a, '_>, utf8: &[u8], plain: &[u8]) -> Option<&'a [u8]> {
    dict.get(utf8)
        .or_else(|| dict.get(plain))
        .and_then(|value| value.as_bytes())
}

fn text(dict: Value<'_, '_>, key: &[u8]) -> Option<String> {
    dict.get(key)?
        .as_bytes()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A URL as text; control characters and spaces around it would only fool people.
fn url(value: Value<'_, '_>) -> Option<String> {
    let url = value.as_str()?.trim();
    (!url.is_empty() && url.len() <= 4096 && !url.chars().any(char::is_control)).then(|| url.to_owned())
}

/// BEP 12: `announce-list` replaces `announce` where it is there.
fn trackers(root: Value<'_, '_>) -> Vec<Vec<String>> {
    let mut tiers: Vec<Vec<String>> = Vec::new();
    let mut left = MAX_URLS;
    for tier in root
        .get(b"announce-list")
        .and_then(|list| list.items())
        .into_iter()
        .flatten()
    {
        let urls: Vec<String> = tier.items().into_iter().flatten().filter_map(url).take(left).collect();
        left -= urls.len();
        if !urls.is_empty() {
            tiers.push(urls);
        }
    }
    if tiers.is_empty() {
        tiers.extend(root.get(b"announce").and_then(url).map(|url| vec![url]));
    }
    tiers
}

fn nodes(list: Value<'_, '_>) -> Vec<(String, u16)> {
    let node = |pair: Value<'_, '_>| {
        let mut parts = pair.items()?;
        let host = parts.next()?.as_str()?.to_owned();
        let port = parts.next()?.as_u64().and_then(|port| u16::try_from(port).ok())?;
        (port != 0 && !host.is_empty()).then_some((host, port))
    };
    list.items()
        .into_iter()
        .flatten()
        .filter_map(node)
        .take(MAX_URLS)
        .collect()
}
