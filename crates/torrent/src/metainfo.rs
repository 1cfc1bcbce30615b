//! Torrent files: BEP 3, with BEP 12 (tracker tiers), BEP 19 (web seeds), BEP 27 (private), BEP 47 (pad files,
//! attributes).
//!
//! Version 1 torrents and hybrids (BEP 52), of which the version 1 half is used, are read. What a torrent says is a
//! stranger's word: sizes are summed with care, the number of pieces has to fit them, and file names are made safe
//! by `paths` before anyone opens a file.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use crate::InfoHash;
use crate::bencode::{DecodeError, Document, Item, Limits, Value};
use crate::paths;
use crate::wire::{BLOCK_LEN, Block};

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
    /// SHA-1 of the raw info dictionary.
    pub info_hash: InfoHash,
    /// The info dictionary exactly as it came; served to peers who have only a magnet link.
    pub raw_info: Bytes,
    /// The torrent's name, made safe: the file's or the folder's name.
    pub name: String,
    /// Bytes of each piece but the last.
    pub piece_length: u32,
    /// 20 bytes of SHA-1 for each piece.
    pub piece_hashes: Bytes,
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
    /// BEP 52 without a version 1 half.
    #[error("this is a version 2 torrent (BEP 52), which cannot be used yet; version 1 and hybrid torrents can")]
    VersionTwo,
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
        if InfoHash::of_info(raw_info) != info_hash {
            return Err(MetainfoError::WrongInfoHash);
        }
        let doc = Document::parse(raw_info, Limits::METAINFO)?;
        Self::from_value(doc.root())
    }

    fn from_value(info: Value<'_, '_>) -> Result<Self, MetainfoError> {
        if !info.is_dict() {
            return Err(MetainfoError::NoInfo);
        }
        if info.get(b"pieces").is_none() && (info.get(b"file tree").is_some() || info.get(b"meta version").is_some()) {
            return Err(MetainfoError::VersionTwo);
        }
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
        let (files, total_length) = match info.get(b"files") {
            Some(list) => folder(&name, list)?,
            None => {
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
                    }],
                    length,
                )
            }
        };
        if total_length == 0 || total_length > MAX_TOTAL_LEN {
            return Err(MetainfoError::Field("length"));
        }
        let hashes = info
            .get(b"pieces")
            .and_then(|pieces| pieces.as_bytes())
            .ok_or(MetainfoError::Field("pieces"))?;
        let expected = total_length.div_ceil(u64::from(piece_length));
        if expected > u64::from(MAX_PIECES) {
            return Err(MetainfoError::TooMany("pieces"));
        }
        let found = hashes.len() as u64 / 20;
        if hashes.len() % 20 != 0 || found != expected {
            return Err(MetainfoError::PieceCount { expected, found });
        }
        Ok(Self {
            info_hash: InfoHash::of_info(info.raw()),
            raw_info: Bytes::copy_from_slice(info.raw()),
            name,
            piece_length,
            piece_hashes: Bytes::copy_from_slice(hashes),
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
        (self.piece_hashes.len() / 20) as u32
    }

    /// The SHA-1 of a piece; `None` beyond the last.
    pub fn piece_hash(&self, piece: u32) -> Option<&[u8; 20]> {
        self.piece_hashes.as_chunks().0.get(piece as usize)
    }

    /// Where a piece begins in the torrent.
    pub fn piece_offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece_length)
    }

    /// Bytes of a piece: shorter for the last, zero beyond it.
    pub fn piece_len(&self, piece: u32) -> u32 {
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

    /// Whether a block lies within its piece and is not empty.
    pub fn contains(&self, block: Block) -> bool {
        let end = u64::from(block.begin) + u64::from(block.len);
        block.len > 0 && block.piece < self.piece_count() && end <= u64::from(self.piece_len(block.piece))
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
