//! A small torrent with its bytes, and a disk's jobs as plain calls. Each test file uses a part of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_torrent::bencode::Item;
use dunlin_torrent::disk::{Disk, DiskError, Done, Job, Opened, Verdict};
use dunlin_torrent::resume::Resume;
use dunlin_torrent::wire::Block;
use dunlin_torrent::{Bitfield, InfoHash, Metainfo};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha1::{Digest, Sha1};

pub(crate) const PIECE: usize = 32_768;

/// Files whose borders fall anywhere, some empty, one padding.
pub(crate) const BORDERS: &[(&str, usize)] = &[
    ("a", 1),
    ("b/one", 40_000),
    ("empty", 0),
    ("b/two", 3),
    ("b/three", 7),
    ("c/d/e", 100_000),
    ("b/empty too", 0),
    (".pad/20821", 20_821),
    ("z", 32_768),
    ("last", 5),
];

/// A torrent and its bytes, pads included.
pub(crate) struct Sample {
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) content: Vec<u8>,
}

/// `files` are (path below `t`, length); a path that begins with `.pad` is a pad file.
pub(crate) fn sample(seed: u64, files: &[(&str, usize)]) -> Sample {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut content = Vec::new();
    let mut list = Vec::new();
    for (path, length) in files {
        let mut bytes = vec![0; *length];
        let mut file = Item::dict()
            .with("length", *length as i64)
            .with("path", path.split('/').map(Item::from).collect::<Vec<_>>());
        if path.starts_with(".pad") {
            file.insert("attr", "p");
        } else {
            rng.fill_bytes(&mut bytes);
        }
        content.extend(bytes);
        list.push(file);
    }
    let pieces: Vec<u8> = content.chunks(PIECE).flat_map(Sha1::digest).collect();
    let info = Item::dict()
        .with("files", list)
        .with("name", "t")
        .with("piece length", PIECE as i64)
        .with("pieces", pieces)
        .encode();
    let metainfo = Metainfo::from_info(&info, InfoHash::of_info(&info)).unwrap();
    Sample {
        metainfo: Arc::new(metainfo),
        content,
    }
}

impl Sample {
    pub(crate) fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash
    }

    pub(crate) fn open(&self, disk: &Disk, dir: &Path, resume: Option<Resume>) -> Result<Opened, DiskError> {
        let job = Job::Open {
            metainfo: Arc::clone(&self.metainfo),
            dir: dir.into(),
            resume: resume.map(Arc::new),
            read_only: false,
        };
        match disk.run(job) {
            Done::Opened { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn piece(&self, piece: u32) -> &[u8] {
        self.content.chunks(PIECE).nth(piece as usize).unwrap()
    }

    /// A piece in blocks of many lengths, as no peer would send them but any border can fall.
    pub(crate) fn blocks(&self, piece: u32, rng: &mut ChaCha8Rng) -> Vec<Bytes> {
        let mut rest = self.piece(piece);
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rng.random_range(1..=rest.len().min(9000)));
            blocks.push(Bytes::copy_from_slice(block));
            rest = after;
        }
        blocks
    }

    pub(crate) fn write(&self, disk: &Disk, piece: u32) -> Result<Verdict, DiskError> {
        let blocks = self.piece(piece).chunks(16_384).map(Bytes::copy_from_slice).collect();
        write(disk, self.info_hash(), piece, blocks)
    }

    pub(crate) fn write_all(&self, disk: &Disk) {
        for piece in 0..self.metainfo.piece_count() {
            assert_eq!(self.write(disk, piece).unwrap(), Verdict::Verified);
        }
    }

    pub(crate) fn check(&self, disk: &Disk, ranges: impl IntoIterator<Item = Range<u32>>) -> Vec<u32> {
        let check = |pieces| match disk.run(Job::Check {
            info_hash: self.info_hash(),
            pieces,
        }) {
            Done::Checked { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        };
        ranges.into_iter().flat_map(check).collect()
    }

    pub(crate) fn read(&self, disk: &Disk, block: Block) -> Result<Bytes, DiskError> {
        match disk.run(Job::ReadBlock {
            info_hash: self.info_hash(),
            block,
            ticket: 77,
        }) {
            Done::Read {
                result,
                ticket: 77,
                block: back,
                ..
            } if back == block => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn resume(&self, dir: &Path, have: impl IntoIterator<Item = u32>) -> Resume {
        let mut bits = Bitfield::new(self.metainfo.piece_count());
        for piece in have {
            bits.set(piece);
        }
        Resume {
            info_hash: self.info_hash(),
            dir: dir.into(),
            raw_info: Some(self.metainfo.raw_info.clone()),
            layers: None,
            name: "t".into(),
            trackers: Vec::new(),
            have: bits,
            files: Vec::new(),
            paused: false,
            uploaded: 0,
            downloaded: 0,
            added: 0,
            priorities: Vec::new(),
            download_limit: None,
            upload_limit: None,
            seeded: Default::default(),
        }
    }

    /// Saves resume data through the disk and reads it back.
    pub(crate) fn save(&self, disk: &Disk, dir: &Path, have: impl IntoIterator<Item = u32>, file: &Path) -> Resume {
        let job = Job::SaveResume {
            resume: Box::new(self.resume(dir, have)),
            file: file.into(),
        };
        assert!(matches!(disk.run(job), Done::ResumeSaved { result: Ok(()), .. }));
        Resume::load(file).unwrap()
    }

    pub(crate) fn close(&self, disk: &Disk, delete_files: bool) -> Result<(), DiskError> {
        match disk.run(Job::Close {
            info_hash: self.info_hash(),
            delete_files,
            resume_file: None,
        }) {
            Done::Closed { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    /// What the files hold, in order, equals the content.
    pub(crate) fn assert_files(&self, dir: &Path) {
        for file in self.metainfo.files.iter().filter(|file| !file.pad) {
            let want = &self.content[file.offset as usize..][..file.length as usize];
            assert!(
                fs::read(dir.join(&file.path)).unwrap() == want,
                "{}",
                file.path.display()
            );
        }
    }
}

pub(crate) fn write(disk: &Disk, info_hash: InfoHash, piece: u32, blocks: Vec<Bytes>) -> Result<Verdict, DiskError> {
    match disk.run(Job::WritePiece {
        info_hash,
        piece,
        blocks,
    }) {
        Done::Written {
            result, piece: back, ..
        } if back == piece => result,
        other => panic!("{other:?}"),
    }
}
