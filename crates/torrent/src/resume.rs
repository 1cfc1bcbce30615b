//! Resume files: what an earlier run verified, one small file for each torrent.
//!
//! A resume file is a promise about other files, so it is written only after their data is safe, replaces the older
//! one in one step, and carries a checksum. On the next start a piece is believed only while all of its files have
//! the size and modification time of that moment; all others are hashed again.
//!
//! ```text
//! offset  bytes
//!      0  8   "DUNLRES1"
//!      8  32  SHA-256 of everything after it
//!     40  ..  a bencoded dictionary
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::bencode::{Document, Item, Limits, Value};
use crate::command::Priority;
use crate::metainfo::{MAX_FILES, MAX_METAINFO_LEN, MAX_PIECES, Metainfo, MetainfoError};
use crate::replace::replace;
use crate::{Bitfield, InfoHash};

const MAGIC: &[u8; 8] = b"DUNLRES1";
const HEADER: usize = 40;
/// The info dictionary, the piece layers, the bitfield, the files' states and something to spare.
const MAX_LEN: u64 = 2 * MAX_METAINFO_LEN as u64;
/// Bytes of one file's state: presence, size, seconds, nanoseconds.
const STATE_LEN: usize = 21;
/// The ending of resume files.
const EXTENSION: &str = "resume";

/// What is known of one torrent between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// The folder under which its files are.
    pub dir: PathBuf,
    /// The raw info dictionary; `None` while a magnet link has not brought it yet.
    pub raw_info: Option<Bytes>,
    /// BEP 52: the piece layers, as they stand in a .torrent file; `None` when there are none.
    pub layers: Option<Bytes>,
    /// Its name for display while the info dictionary is missing.
    pub name: String,
    /// Tracker URLs in tiers.
    pub trackers: Vec<Vec<String>>,
    /// Verified pieces; of length zero while the info dictionary is missing.
    pub have: Bitfield,
    /// The state of each file at that time, in the torrent's order; filled in by [`crate::disk::Disk`].
    pub files: Vec<FileState>,
    /// The user paused it.
    pub paused: bool,
    /// Payload bytes sent in all runs.
    pub uploaded: u64,
    /// Payload bytes received in all runs.
    pub downloaded: u64,
    /// When it was added, in seconds since the Unix epoch.
    pub added: u64,
    /// How much each file is wanted, in the torrent's order; those beyond the end are normal.
    pub priorities: Vec<Priority>,
    /// Bytes of content a second from peers; `None` is no limit.
    pub download_limit: Option<u64>,
    /// Bytes of content a second to peers; `None` is no limit.
    pub upload_limit: Option<u64>,
    /// How long it has only served, in all runs.
    pub seeded: Duration,
}

/// What tells whether a file changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// Whether it is there.
    pub present: bool,
    /// Bytes.
    pub size: u64,
    /// Modification time, seconds since the Unix epoch.
    pub mtime_secs: i64,
    /// And nanoseconds.
    pub mtime_nanos: u32,
}

/// Why a resume file cannot be used. The torrent's own files are still good: add it again and they are checked.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The file could not be read.
    #[error("cannot read resume data: {0}")]
    Io(#[from] io::Error),
    /// The file is damaged, or was written by another version.
    #[error("resume data is damaged: {0}")]
    Damaged(&'static str),
}

/// The name of a torrent's resume file.
pub fn file_name(info_hash: InfoHash) -> String {
    format!("{info_hash}.{EXTENSION}")
}

/// A folder's resume files, each with what became of reading it, sorted by name. A folder that is not there has none.
///
/// # Errors
/// When the folder cannot be listed.
pub fn load_dir(dir: &Path) -> io::Result<Vec<(PathBuf, Result<Resume, ResumeError>)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(EXTENSION)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files
        .into_iter()
        .map(|path| {
            let resume = Resume::load(&path);
            (path, resume)
        })
        .collect())
}

impl Resume {
    /// The torrent, when its info dictionary is known.
    ///
    /// # Errors
    /// When the info dictionary does not belong to the info hash, or is of no use.
    pub fn metainfo(&self) -> Result<Option<Metainfo>, MetainfoError> {
        let Some(raw_info) = &self.raw_info else {
            return Ok(None);
        };
        let mut metainfo = Metainfo::from_info(raw_info, self.info_hash)?;
        if let Some(layers) = &self.layers {
            metainfo = metainfo.with_layers(layers)?;
        }
        metainfo.trackers.clone_from(&self.trackers);
        Ok(Some(metainfo))
    }

    /// Reads a resume file.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn load(file: &Path) -> Result<Self, ResumeError> {
        let mut bytes = Vec::new();
        File::open(file)?.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
        Self::decode(&bytes)
    }

    /// Replaces a resume file: a reader finds the old one or the new one, also after a power cut.
    ///
    /// # Errors
    /// When the disk does not take it; the old file is still there then.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        replace(file, &self.encode())
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let tier = |tier: &Vec<String>| Item::List(tier.iter().map(|url| url.as_str().into()).collect());
        let mut states = Vec::with_capacity(self.files.len() * STATE_LEN);
        for state in &self.files {
            states.push(u8::from(state.present));
            states.extend(state.size.to_be_bytes());
            states.extend(state.mtime_secs.to_be_bytes());
            states.extend(state.mtime_nanos.to_be_bytes());
        }
        let number = |value: u64| Item::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let mut root = Item::dict()
            .with("info hash", &self.info_hash.0[..])
            .with("dir", self.dir.as_os_str().as_bytes())
            .with("name", self.name.as_str())
            .with("trackers", self.trackers.iter().map(tier).collect::<Vec<_>>())
            .with("pieces", self.have.len())
            .with("have", self.have.as_bytes())
            .with("files", states)
            .with("paused", i64::from(self.paused))
            .with("uploaded", number(self.uploaded))
            .with("downloaded", number(self.downloaded))
            .with("added", number(self.added))
            .with("seeded", number(self.seeded.as_secs()));
        for (key, limit) in [
            ("download limit", self.download_limit),
            ("upload limit", self.upload_limit),
        ] {
            if let Some(limit) = limit {
                root.insert(key, number(limit));
            }
        }
        if self.priorities.iter().any(|priority| *priority != Priority::Normal) {
            let bytes: Vec<u8> = self.priorities.iter().map(|priority| *priority as u8).collect();
            root.insert("priorities", bytes);
        }
        if let Some(raw_info) = &self.raw_info {
            root.insert("info", raw_info.to_vec());
        }
        if let Some(layers) = &self.layers {
            root.insert("layers", layers.to_vec());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEADER, 0);
        root.encode_into(&mut bytes);
        let (header, body) = bytes.split_at_mut(HEADER);
        header[MAGIC.len()..].copy_from_slice(&Sha256::digest(body));
        bytes
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`ResumeError::Damaged`] when they are not what [`Resume::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, ResumeError> {
        use ResumeError::Damaged;
        if bytes.len() as u64 > MAX_LEN {
            return Err(Damaged("too large"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(Damaged("not a resume file"))?;
        let (checksum, body) = rest.split_first_chunk::<32>().ok_or(Damaged("cut short"))?;
        if Sha256::digest(body)[..] != checksum[..] {
            return Err(Damaged("wrong checksum"));
        }
        let doc = Document::parse(body, Limits::METAINFO).map_err(|_| Damaged("not bencoded"))?;
        let root = doc.root();
        let bytes = |key: &'static str| {
            root.get(key.as_bytes())
                .and_then(|value: Value<'_, '_>| value.as_bytes())
                .ok_or(Damaged(key))
        };
        let number = |key: &'static str| {
            root.get(key.as_bytes())
                .and_then(|value| value.as_u64())
                .ok_or(Damaged(key))
        };
        let pieces = number("pieces")?;
        let pieces = u32::try_from(pieces)
            .ok()
            .filter(|&count| count <= MAX_PIECES)
            .ok_or(Damaged("pieces"))?;
        let states = bytes("files")?;
        if states.len() % STATE_LEN != 0 || states.len() / STATE_LEN > MAX_FILES {
            return Err(Damaged("files"));
        }
        let trackers = root
            .get(b"trackers")
            .and_then(|tiers| tiers.items())
            .ok_or(Damaged("trackers"))?;
        let tier = |tier: Value<'_, '_>| -> Vec<String> {
            tier.items()
                .into_iter()
                .flatten()
                .filter_map(|url| url.as_str().map(str::to_owned))
                .collect()
        };
        Ok(Self {
            info_hash: InfoHash(bytes("info hash")?.try_into().map_err(|_| Damaged("info hash"))?),
            dir: PathBuf::from(OsStr::from_bytes(bytes("dir")?)),
            raw_info: root
                .get(b"info")
                .and_then(|info| info.as_bytes())
                .map(Bytes::copy_from_slice),
            layers: root
                .get(b"layers")
                .and_then(|layers| layers.as_bytes())
                .map(Bytes::copy_from_slice),
            name: String::from_utf8_lossy(bytes("name")?).into_owned(),
            trackers: trackers.map(tier).collect(),
            have: Bitfield::from_wire(bytes("have")?, pieces).ok_or(Damaged("have"))?,
            files: states
                .as_chunks::<STATE_LEN>()
                .0
                .iter()
                .filter_map(read_state)
                .collect(),
            paused: number("paused")? != 0,
            uploaded: number("uploaded")?,
            downloaded: number("downloaded")?,
            added: number("added")?,
            priorities: root
                .get(b"priorities")
                .and_then(|list| list.as_bytes())
                .unwrap_or_default()
                .iter()
                .take(MAX_FILES)
                .map(|byte| match byte {
                    0 => Priority::Skip,
                    2 => Priority::High,
                    _ => Priority::Normal,
                })
                .collect(),
            download_limit: number("download limit").ok(),
            upload_limit: number("upload limit").ok(),
            seeded: Duration::from_secs(number("seeded").unwrap_or(0)),
        })
    }
}

fn read_state(bytes: &[u8; STATE_LEN]) -> Option<FileState> {
    let (present, rest) = bytes.split_first()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (secs, nanos) = rest.split_first_chunk()?;
    Some(FileState {
        present: *present != 0,
        size: u64::from_be_bytes(*size),
        mtime_secs: i64::from_be_bytes(*secs),
        mtime_nanos: u32::from_be_bytes(*nanos.first_chunk()?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample() -> Resume {
        let mut have = Bitfield::new(11);
        have.set(3);
        Resume {
            info_hash: InfoHash([7; 20]),
            dir: "/some/where".into(),
            raw_info: Some(Bytes::from_static(b"d1:ai1ee")),
            layers: Some(Bytes::from_static(b"de")),
            name: "name".into(),
            trackers: vec![vec!["http://a/".into(), "udp://b:1".into()], vec!["http://c/".into()]],
            have,
            files: vec![
                FileState {
                    present: true,
                    size: 1 << 40,
                    mtime_secs: -5,
                    mtime_nanos: 999,
                },
                FileState::default(),
            ],
            paused: true,
            uploaded: 1,
            downloaded: 2,
            added: 3,
            priorities: vec![Priority::Skip, Priority::Normal, Priority::High],
            download_limit: None,
            upload_limit: Some(1 << 20),
            seeded: Duration::from_secs(77),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub").join(file_name(InfoHash([7; 20])));
        let mut resume = sample();
        resume.save(&file).unwrap();
        assert_eq!(Resume::load(&file).unwrap(), resume);
        resume.raw_info = None;
        resume.have = Bitfield::new(0);
        resume.save(&file).unwrap();
        assert_eq!(Resume::load(&file).unwrap(), resume);
        let all = load_dir(file.parent().unwrap()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        assert!(load_dir(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(
                matches!(Resume::decode(&bad), Err(ResumeError::Damaged(_))),
                "byte {at}"
            );
            assert!(
                matches!(Resume::decode(&bytes[..at]), Err(ResumeError::Damaged(_))),
                "cut at {at}"
            );
        }
    }
}
