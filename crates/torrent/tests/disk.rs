//! The disk: borders between files, wrong pieces, earlier runs, sparse files.
#![allow(clippy::unwrap_used)]

mod sample;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_torrent::bencode::Item;
use dunlin_torrent::disk::{Disk, DiskErrorKind, Done, Job, Verdict};
use dunlin_torrent::resume::Resume;
use dunlin_torrent::wire::Block;
use dunlin_torrent::{Bitfield, InfoHash, Metainfo};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sample::{BORDERS, PIECE, Sample, sample, write};
use sha1::{Digest, Sha1};

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
    assert_eq!(opened.unknown, std::slice::from_ref(&of_two));
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
