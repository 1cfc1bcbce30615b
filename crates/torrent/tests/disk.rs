//! The disk: borders between files, wrong pieces, earlier runs, hostile folders, full disks.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_torrent::bencode::Item;
use dunlin_torrent::disk::{Disk, DiskError, DiskErrorKind, Done, Job, Opened, Verdict};
use dunlin_torrent::resume::Resume;
use dunlin_torrent::wire::Block;
use dunlin_torrent::{Bitfield, InfoHash, Metainfo};
use rand::{Rng, RngCore, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sha1::{Digest, Sha1};

const PIECE: usize = 32_768;

/// A torrent and its bytes, pads included.
struct Sample {
    metainfo: Arc<Metainfo>,
    content: Vec<u8>,
}

/// `files` are (path below `t`, length); a path that begins with `.pad` is a pad file.
fn sample(seed: u64, files: &[(&str, usize)]) -> Sample {
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
    fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash
    }

    fn open(&self, disk: &Disk, dir: &Path, resume: Option<Resume>) -> Result<Opened, DiskError> {
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

    fn piece(&self, piece: u32) -> &[u8] {
        self.content.chunks(PIECE).nth(piece as usize).unwrap()
    }

    /// A piece in blocks of many lengths, as no peer would send them but any border can fall.
    fn blocks(&self, piece: u32, rng: &mut ChaCha8Rng) -> Vec<Bytes> {
        let mut rest = self.piece(piece);
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rng.random_range(1..=rest.len().min(9000)));
            blocks.push(Bytes::copy_from_slice(block));
            rest = after;
        }
        blocks
    }

    fn write(&self, disk: &Disk, piece: u32) -> Result<Verdict, DiskError> {
        let blocks = self.piece(piece).chunks(16_384).map(Bytes::copy_from_slice).collect();
        write(disk, self.info_hash(), piece, blocks)
    }

    fn write_all(&self, disk: &Disk) {
        for piece in 0..self.metainfo.piece_count() {
            assert_eq!(self.write(disk, piece).unwrap(), Verdict::Verified);
        }
    }

    fn check(&self, disk: &Disk, ranges: Vec<Range<u32>>) -> Vec<u32> {
        let check = |pieces| match disk.run(Job::Check {
            info_hash: self.info_hash(),
            pieces,
        }) {
            Done::Checked { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        };
        ranges.into_iter().flat_map(check).collect()
    }

    fn read(&self, disk: &Disk, block: Block) -> Result<Bytes, DiskError> {
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

    fn resume(&self, dir: &Path, have: impl IntoIterator<Item = u32>) -> Resume {
        let mut bits = Bitfield::new(self.metainfo.piece_count());
        for piece in have {
            bits.set(piece);
        }
        Resume {
            info_hash: self.info_hash(),
            dir: dir.into(),
            raw_info: Some(self.metainfo.raw_info.clone()),
            name: "t".into(),
            trackers: Vec::new(),
            have: bits,
            files: Vec::new(),
            paused: false,
            uploaded: 0,
            downloaded: 0,
            added: 0,
        }
    }

    /// Saves resume data through the disk and reads it back.
    fn save(&self, disk: &Disk, dir: &Path, have: impl IntoIterator<Item = u32>, file: &Path) -> Resume {
        let job = Job::SaveResume {
            resume: Box::new(self.resume(dir, have)),
            file: file.into(),
        };
        assert!(matches!(disk.run(job), Done::ResumeSaved { result: Ok(()), .. }));
        Resume::load(file).unwrap()
    }

    fn close(&self, disk: &Disk, delete_files: bool) -> Result<(), DiskError> {
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
    fn assert_files(&self, dir: &Path) {
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

fn write(disk: &Disk, info_hash: InfoHash, piece: u32, blocks: Vec<Bytes>) -> Result<Verdict, DiskError> {
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

const BORDERS: &[(&str, usize)] = &[
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

#[test]
fn pieces_cross_files_from_many_threads_with_few_descriptors() {
    let sample = sample(1, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(3);
    let opened = sample.open(&disk, &dir.path().join("new"), None).unwrap();
    assert!(opened.have.is_none() && opened.unknown.is_empty());
    let dir = dir.path().join("new");
    assert_eq!(fs::read(dir.join("t/b/empty too")).unwrap(), b"");

    let mut order: Vec<u32> = (0..sample.metainfo.piece_count()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(2));
    std::thread::scope(|scope| {
        for (n, part) in order.chunks(2).enumerate() {
            let (disk, sample) = (&disk, &sample);
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
                for &piece in part {
                    let blocks = sample.blocks(piece, &mut rng);
                    assert_eq!(
                        write(disk, sample.info_hash(), piece, blocks).unwrap(),
                        Verdict::Verified
                    );
                }
            });
        }
    });
    sample.assert_files(&dir);
    assert!(!dir.join("t/.pad").exists());
    assert!(disk.open_files() <= 3);

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..500 {
        let piece = rng.random_range(0..sample.metainfo.piece_count());
        let begin = rng.random_range(0..sample.metainfo.piece_len(piece));
        let len = rng.random_range(1..=sample.metainfo.piece_len(piece) - begin);
        let want = &sample.piece(piece)[begin as usize..][..len as usize];
        assert_eq!(sample.read(&disk, Block { piece, begin, len }).unwrap(), want);
    }
    let flush = disk.run(Job::Flush {
        info_hash: sample.info_hash(),
    });
    assert!(matches!(flush, Done::Flushed { result: Ok(()), .. }));
}

#[test]
fn a_wrong_piece_reaches_no_file_and_names_the_wrong_block() {
    let sample = sample(2, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    let mut blocks: Vec<Vec<u8>> = sample.piece(1).chunks(16_384).map(<[u8]>::to_vec).collect();
    blocks[1][5] ^= 1;
    let bad = blocks.iter().cloned().map(Bytes::from).collect();
    let Verdict::HashMismatch { block_hashes } = write(&disk, sample.info_hash(), 1, bad).unwrap() else {
        panic!()
    };
    let good: Vec<[u8; 20]> = sample
        .piece(1)
        .chunks(16_384)
        .map(|block| Sha1::digest(block).into())
        .collect();
    assert_eq!((block_hashes[0], block_hashes.len()), (good[0], 2));
    assert_ne!(block_hashes[1], good[1]);
    assert!(!dir.path().join("t/b/one").exists());
    assert_eq!(sample.write(&disk, 1).unwrap(), Verdict::Verified);

    // Jobs that do not fit the torrent are refused, not carried out.
    for (piece, bytes) in [
        (1, vec![0; PIECE - 1]),
        (1, vec![0; PIECE + 1]),
        (99, vec![0; PIECE]),
        (u32::MAX, vec![]),
    ] {
        let error = write(&disk, sample.info_hash(), piece, vec![bytes.into()]).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Misuse);
    }
    for (piece, begin, len) in [(99, 0, 1), (0, PIECE as u32, 1), (0, u32::MAX, u32::MAX), (0, 0, 0)] {
        let error = sample.read(&disk, Block { piece, begin, len }).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Misuse);
    }
    assert_eq!(
        write(&disk, InfoHash([0; 20]), 0, Vec::new()).unwrap_err().kind,
        DiskErrorKind::Misuse
    );
    let beyond = disk.run(Job::Check {
        info_hash: sample.info_hash(),
        pieces: 0..100,
    });
    assert!(matches!(beyond, Done::Checked { result: Err(_), .. }));
}

#[test]
fn resume_data_is_believed_only_for_unchanged_files() {
    let sample = sample(3, &[("one", 100_000), ("two", 100_000), ("three", 100_000)]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state/x.resume");
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    let all = 0..sample.metainfo.piece_count();
    sample.write_all(&disk);
    let resume = sample.save(&disk, dir.path(), all.clone(), &file);

    let opened = sample.open(&Disk::default(), dir.path(), Some(resume.clone())).unwrap();
    assert!(opened.have.is_full() && opened.unknown.is_empty());

    // A later write of another program, of the same length: its pieces are unknown and turn out wrong.
    let two = dir.path().join("t/two");
    fs::OpenOptions::new()
        .write(true)
        .open(&two)
        .unwrap()
        .write_all_at(b"changed", 50_000)
        .unwrap();
    let disk = Disk::default();
    let opened = sample.open(&disk, dir.path(), Some(resume.clone())).unwrap();
    let of_two = sample.metainfo.pieces_of(&sample.metainfo.files[1]);
    assert_eq!(opened.unknown, [of_two.clone()]);
    assert_eq!(opened.have.count(), all.end - (of_two.end - of_two.start));
    let good = sample.check(&disk, opened.unknown);
    assert_eq!(
        good,
        of_two
            .clone()
            .filter(|&piece| piece != 150_000 / PIECE as u32)
            .collect::<Vec<_>>()
    );

    // A shorter file, and a missing one: what cannot be there is not even looked for.
    fs::OpenOptions::new()
        .write(true)
        .open(&two)
        .unwrap()
        .set_len(40_000)
        .unwrap();
    fs::remove_file(dir.path().join("t/three")).unwrap();
    let opened = sample.open(&Disk::default(), dir.path(), Some(resume.clone())).unwrap();
    assert_eq!(opened.have.iter().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(opened.unknown, [Range { start: 3, end: 4 }]);

    // Resume data of another torrent, or of another shape, is worth nothing.
    let mut other = resume.clone();
    other.info_hash = InfoHash([1; 20]);
    assert!(
        sample
            .open(&Disk::default(), dir.path(), Some(other))
            .unwrap()
            .have
            .is_none()
    );
    let mut other = resume;
    other.have = Bitfield::full(5);
    assert!(
        sample
            .open(&Disk::default(), dir.path(), Some(other))
            .unwrap()
            .have
            .is_none()
    );
}

#[test]
fn a_magnet_without_metadata_has_resume_data_too() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(4, BORDERS);
    let mut resume = sample.resume(dir.path(), []);
    resume.raw_info = None;
    resume.have = Bitfield::new(0);
    let file = dir.path().join("m.resume");
    let save = |resume: &Resume| {
        let done = Disk::default().run(Job::SaveResume {
            resume: Box::new(resume.clone()),
            file: file.clone(),
        });
        matches!(done, Done::ResumeSaved { result: Ok(()), .. })
    };
    assert!(save(&resume));
    assert_eq!(Resume::load(&file).unwrap(), resume);
    assert_eq!(resume.metainfo().unwrap(), None);
    // But a torrent that claims pieces has to be open, or nobody knows what is safe.
    assert!(!save(&sample.resume(dir.path(), [1])));
    assert_eq!(
        sample.resume(dir.path(), []).metainfo().unwrap().unwrap().files,
        sample.metainfo.files
    );
}

#[test]
fn no_link_is_followed_out_of_the_folder() {
    let sample = sample(
        5,
        &[
            ("deep/file", 1000),
            ("plain", 1000),
            ("dangling", 1000),
            ("pipe", 1000),
            ("fold", 1000),
        ],
    );
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    fs::write(outside.path().join("victim"), b"precious").unwrap();
    fs::write(outside.path().join("deep/file"), &sample.content[..1000]).unwrap();
    symlink(outside.path().join("deep"), dir.path().join("t/deep")).unwrap();
    symlink(outside.path().join("victim"), dir.path().join("t/plain")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("t/dangling")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(dir.path().join("t/pipe"))
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(dir.path().join("t/fold")).unwrap();

    let disk = Disk::default();
    let opened = sample.open(&disk, dir.path(), None).unwrap();
    assert!(
        opened.have.is_none() && opened.unknown.is_empty(),
        "nothing behind a link counts as there"
    );
    let blocked = ["deep/file", "plain", "dangling", "pipe", "fold"];
    for name in blocked {
        let error = sample.write(&disk, 0).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Obstructed, "{error}");
        assert_eq!(error.path, dir.path().join("t").join(name));
        assert!(sample.check(&disk, vec![0..1]).is_empty());
        assert_eq!(
            sample
                .read(
                    &disk,
                    Block {
                        piece: 0,
                        begin: 0,
                        len: 5000
                    }
                )
                .unwrap_err()
                .kind,
            error.kind
        );
        // Clear this obstacle; the next file has the next one.
        let path = dir.path().join("t").join(name);
        match name {
            "deep/file" => fs::remove_file(dir.path().join("t/deep")).unwrap(),
            "fold" => fs::remove_dir(path).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
    }
    assert_eq!(sample.write(&disk, 0).unwrap(), Verdict::Verified);
    sample.assert_files(dir.path());
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);

    // Deleting does not follow links either.
    fs::remove_dir_all(dir.path().join("t/deep")).unwrap();
    symlink(outside.path().join("deep"), dir.path().join("t/deep")).unwrap();
    sample.close(&disk, true).unwrap_err();
    assert!(outside.path().join("deep/file").exists());
    assert!(!dir.path().join("t/plain").exists());
}

#[test]
fn the_download_folder_itself_may_be_a_link() {
    let sample = sample(6, BORDERS);
    let real = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("downloads");
    symlink(real.path(), &link).unwrap();
    let disk = Disk::default();
    sample.open(&disk, &link, None).unwrap();
    sample.write_all(&disk);
    sample.assert_files(real.path());
}

#[test]
fn closing_deletes_what_is_ours_and_nothing_else() {
    let sample = sample(7, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    sample.write_all(&disk);
    fs::write(dir.path().join("t/b/mine"), b"x").unwrap();
    sample.close(&disk, true).unwrap();
    assert_eq!(disk.open_files(), 0);
    let left: Vec<_> = fs::read_dir(dir.path().join("t"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["b"]);
    assert_eq!(fs::read_dir(dir.path().join("t/b")).unwrap().count(), 1);
    assert_eq!(sample.write(&disk, 0).unwrap_err().kind, DiskErrorKind::Misuse);

    let untouched = tempfile::tempdir().unwrap();
    sample.open(&disk, untouched.path(), None).unwrap();
    sample.write_all(&disk);
    sample.close(&disk, false).unwrap();
    sample.assert_files(untouched.path());
    sample.open(&disk, untouched.path(), None).unwrap();
    sample.close(&disk, true).unwrap();
    assert_eq!(
        fs::read_dir(untouched.path()).unwrap().count(),
        0,
        "empty folders go too, the download folder stays"
    );
}

#[test]
fn reading_only_creates_nothing() {
    let sample = sample(8, BORDERS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let metainfo = Arc::clone(&sample.metainfo);
    let dir_path: PathBuf = dir.path().join("none");
    let open = Job::Open {
        metainfo,
        dir: dir_path.clone(),
        resume: None,
        read_only: true,
    };
    let Done::Opened { result: Ok(opened), .. } = disk.run(open) else {
        panic!()
    };
    assert!(opened.unknown.is_empty());
    assert_eq!(sample.write(&disk, 0).unwrap_err().kind, DiskErrorKind::Permission);
    let error = sample
        .read(
            &disk,
            Block {
                piece: 0,
                begin: 0,
                len: 1,
            },
        )
        .unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed);
    assert!(
        error.to_string().ends_with("t/a: cannot open: the file is not there"),
        "{error}"
    );
    assert!(!dir_path.exists());
}

#[test]
fn a_file_that_shrinks_underneath_is_noticed() {
    let sample = sample(9, &[("one", 100_000)]);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    sample.open(&disk, dir.path(), None).unwrap();
    sample.write_all(&disk);
    fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("t/one"))
        .unwrap()
        .set_len(50_000)
        .unwrap();
    assert!(
        sample
            .read(
                &disk,
                Block {
                    piece: 0,
                    begin: 0,
                    len: 100
                }
            )
            .is_ok()
    );
    let error = sample
        .read(
            &disk,
            Block {
                piece: 1,
                begin: 16_384,
                len: 1000,
            },
        )
        .unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed, "{error}");
    assert_eq!(sample.check(&disk, vec![0..4]), [0]);
}

#[test]
fn a_longer_file_is_cut_when_it_is_written() {
    let sample = sample(10, &[("one", 100_000)]);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("t/one"), vec![1; 200_000]).unwrap();
    let disk = Disk::default();
    let opened = sample.open(&disk, dir.path(), None).unwrap();
    assert!(sample.check(&disk, opened.unknown).is_empty());
    sample.write_all(&disk);
    sample.assert_files(dir.path());
}

#[test]
fn a_terabyte_of_holes_is_checked_at_once() {
    let piece_length = 16i64 << 20;
    let pieces = 1usize << 16;
    let info = Item::dict()
        .with("length", piece_length * pieces as i64)
        .with("name", "sparse")
        .with("piece length", piece_length)
        .with("pieces", vec![7u8; pieces * 20])
        .encode();
    let metainfo = Arc::new(Metainfo::from_info(&info, InfoHash::of_info(&info)).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    if file.set_len(1 << 40).is_err() {
        eprintln!("this file system takes no file of a terabyte; nothing to test");
        return;
    }
    let disk = Disk::default();
    let begun = Instant::now();
    let info_hash = metainfo.info_hash;
    let open = Job::Open {
        metainfo,
        dir: dir.path().into(),
        resume: None,
        read_only: false,
    };
    let Done::Opened { result: Ok(opened), .. } = disk.run(open) else {
        panic!()
    };
    assert_eq!(
        opened.unknown.iter().map(|range| range.end - range.start).sum::<u32>(),
        pieces as u32
    );
    for pieces in opened.unknown {
        let Done::Checked { result, .. } = disk.run(Job::Check { info_hash, pieces }) else {
            panic!()
        };
        assert!(result.unwrap().is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_piece_of_zeros_in_a_hole_is_a_good_piece() {
    let zeros = vec![0u8; PIECE * 2];
    let pieces: Vec<u8> = zeros.chunks(PIECE).flat_map(Sha1::digest).collect();
    let info = Item::dict()
        .with("length", zeros.len() as i64)
        .with("name", "zeros")
        .with("piece length", PIECE as i64)
        .with("pieces", pieces)
        .encode();
    let metainfo = Arc::new(Metainfo::from_info(&info, InfoHash::of_info(&info)).unwrap());
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("zeros"))
        .unwrap()
        .set_len(zeros.len() as u64)
        .unwrap();
    let sample = Sample {
        metainfo,
        content: zeros,
    };
    let disk = Disk::default();
    let opened = sample.open(&disk, dir.path(), None).unwrap();
    assert_eq!(sample.check(&disk, opened.unknown), [0, 1]);
}

/// Writes the sample's pieces until one fails; the caller made sure that one will.
fn fill_until_error(sample: &Sample, dir: &Path, want: DiskErrorKind) {
    let disk = Disk::default();
    sample.open(&disk, dir, None).unwrap();
    let mut written = Vec::new();
    let error = (0..sample.metainfo.piece_count())
        .find_map(|piece| match sample.write(&disk, piece) {
            Ok(verdict) => {
                assert_eq!(verdict, Verdict::Verified);
                written.push(piece);
                None
            }
            Err(error) => Some(error),
        })
        .unwrap();
    assert_eq!(error.kind, want, "{error}");
    assert_eq!(error.path, dir.join("t/big"));
    assert!(!written.is_empty());
    for &piece in &written {
        let block = sample.metainfo.block(piece, 0).unwrap();
        assert_eq!(
            sample.read(&disk, block).unwrap(),
            sample.piece(piece)[..block.len as usize]
        );
    }
    // After a restart without resume data the written pieces are found, and no others.
    let disk = Disk::default();
    let opened = sample.open(&disk, dir, None).unwrap();
    assert_eq!(sample.check(&disk, opened.unknown), written);
}

#[test]
fn a_full_disk_is_named_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(&full)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("not allowed to mount a small file system; the file size limit is tested below all the same");
        return;
    }
    let sample = sample(11, &[("big", 1_000_000)]);
    let result = std::panic::catch_unwind(|| fill_until_error(&sample, &full, DiskErrorKind::Full));
    assert!(Command::new("umount").arg(&full).status().unwrap().success());
    result.unwrap();
}

/// Runs another test of this file in a process of its own, which finds `DUNLIN_TEST_DIR` set.
fn inner(shell: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{shell} exec \"$0\" --exact {test} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env("DUNLIN_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn inner_dir() -> Option<PathBuf> {
    std::env::var_os("DUNLIN_TEST_DIR").map(PathBuf::from)
}

#[test]
fn a_limit_on_file_sizes_is_named_and_harms_nothing() {
    if let Some(dir) = inner_dir() {
        return fill_until_error(&sample(12, &[("big", 1_000_000)]), &dir, DiskErrorKind::TooLarge);
    }
    let dir = tempfile::tempdir().unwrap();
    let shell = "trap '' XFSZ; ulimit -f 500 || exit 9;";
    let output = inner(shell, "a_limit_on_file_sizes_is_named_and_harms_nothing", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        fs::metadata(dir.path().join("t/big")).unwrap().len() <= 512_000,
        "the limit was in force"
    );
}

#[test]
fn kill_at_any_moment_never_claims_an_unverified_piece() {
    let sample = sample(13, &[("a", 3_000_000), ("b", 10), ("c/d", 5_000_000)]);
    let count = sample.metainfo.piece_count();
    if let Some(dir) = inner_dir() {
        // The victim: goes on from the resume data, writes piece after piece, saves often, until it is killed.
        let disk = Disk::default();
        let file = dir.join("x.resume");
        let opened = sample.open(&disk, &dir, Resume::load(&file).ok()).unwrap();
        let mut have = opened.have.clone();
        for piece in sample.check(&disk, opened.unknown) {
            have.set(piece);
        }
        for piece in (0..count).cycle() {
            assert_eq!(sample.write(&disk, piece).unwrap(), Verdict::Verified);
            have.set(piece);
            if piece % 7 == 0 {
                sample.save(&disk, &dir, have.iter(), &file);
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut claimed = 0;
    for round in 0..30 {
        let mut child = inner("", "kill_at_any_moment_never_claims_an_unverified_piece", dir.path())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(20..150)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "the victim ended by itself in round {round}");

        let Ok(resume) = Resume::load(&dir.path().join("x.resume")) else {
            assert!(round < 5, "a resume file that was there is never lost or damaged");
            continue;
        };
        let disk = Disk::default();
        let opened = sample.open(&disk, dir.path(), Some(resume)).unwrap();
        let mut have = opened.have.iter().collect::<Vec<_>>();
        let checked = sample.check(&disk, have.iter().map(|&piece| piece..piece + 1).collect());
        assert_eq!(have, checked, "round {round}: claimed, but not on disk");
        claimed += have.len();
        // And nothing is lost for good: claimed pieces and those found by the check are all that was saved.
        have.extend(sample.check(&disk, opened.unknown));
        assert!(!have.is_empty());
        if round == 15 {
            // Somebody changes a file behind our back between two runs.
            let path = dir.path().join("t/c/d");
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all_at(&[1; 100_000], 0)
                .unwrap();
        }
    }
    eprintln!("{claimed} pieces were claimed by resume data in all rounds");
}
