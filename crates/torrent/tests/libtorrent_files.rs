//! Torrents made by libtorrent: we read in them what libtorrent reads, find their pieces on disk, and make the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_torrent::Metainfo;
use dunlin_torrent::create::{CreateError, Options, Version, create};
use dunlin_torrent::disk::{Disk, Done, Job};
use dunlin_torrent::metainfo::MetainfoError;
use serde_json::Value;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn torrent(name: &str) -> Vec<u8> {
    fs::read(data().join(format!("{name}.torrent"))).unwrap()
}

fn expected(name: &str) -> Value {
    let all: Value = serde_json::from_slice(&fs::read(data().join("expected.json")).unwrap()).unwrap();
    all[name].clone()
}

fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// Writes the files that `data/make.py` shared.
fn write_content(dir: &Path, name: &str) {
    let files: &[(&str, usize)] = match name {
        "single" => &[("single.bin", 50_000)],
        "folder" => &[
            ("folder/a.txt", 10),
            ("folder/b/empty", 0),
            ("folder/b/long.bin", 100_000),
            ("folder/b/c/\u{fc}ml\u{e4}ut \u{20ac}.bin", 33_333),
            ("folder/z", 1),
        ],
        "padded" => &[("padded/one", 20_000), ("padded/three", 7), ("padded/two", 40_000)],
        "hybrid" => &[("hybrid/x/one", 20_000), ("hybrid/x/two", 16_384), ("hybrid/y", 5)],
        _ => panic!("{name}"),
    };
    for (index, (path, length)) in files.iter().enumerate() {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(index as u64 + 1, *length)).unwrap();
    }
}

#[test]
fn we_read_what_libtorrent_reads() {
    for name in ["single", "folder", "padded", "hybrid"] {
        let want = expected(name);
        let bytes = torrent(name);
        let metainfo = Metainfo::parse(&bytes).unwrap();
        assert_eq!(metainfo.info_hash.to_string(), want["info_hash"], "{name}");
        assert_eq!(metainfo.name, want["name"], "{name}");
        assert_eq!(metainfo.piece_length, want["piece_length"].as_u64().unwrap() as u32);
        assert_eq!(metainfo.total_length, want["total"].as_u64().unwrap());
        assert_eq!(metainfo.private, want["private"].as_bool().unwrap());
        let hashes: Vec<String> = (0..metainfo.piece_count())
            .map(|piece| hex::encode(metainfo.piece_hash(piece).unwrap()))
            .collect();
        assert_eq!(serde_json::to_value(hashes).unwrap(), want["pieces"], "{name}");
        let files: Vec<Value> = metainfo
            .files
            .iter()
            .map(|file| {
                serde_json::json!({
                    "path": file.path.to_str(), "length": file.length, "offset": file.offset, "pad": file.pad,
                })
            })
            .collect();
        assert_eq!(Value::from(files), want["files"], "{name}");

        let tiers = [
            vec!["http://one.example/announce", "udp://two.example:6969/announce"],
            vec!["http://three.example/announce"],
        ];
        assert_eq!(metainfo.trackers, tiers);
        assert_eq!(metainfo.url_list, ["http://seed.example/files/"]);
        assert_eq!(metainfo.comment.as_deref(), Some("made for tests"));
        assert_eq!(metainfo.created_by.as_deref(), Some("libtorrent"));
        assert_eq!(metainfo.creation_date, Some(1_700_000_000));

        assert_eq!(
            Metainfo::parse(&metainfo.to_bytes()).unwrap(),
            metainfo,
            "{name} survives being written"
        );
        let from_peers = Metainfo::from_info(&metainfo.raw_info, metainfo.info_hash).unwrap();
        assert_eq!(from_peers.files, metainfo.files);
        let mut other = metainfo.raw_info.to_vec();
        other[10] ^= 1;
        assert_eq!(
            Metainfo::from_info(&other, metainfo.info_hash).unwrap_err(),
            MetainfoError::WrongInfoHash
        );
    }
}

#[test]
fn version_two_is_read_as_libtorrent_reads_it() {
    let (bytes, want) = (torrent("v2"), expected("v2"));
    let metainfo = Metainfo::parse(&bytes).unwrap();
    assert_eq!(metainfo.info_hash_v1, None);
    let hash = metainfo.info_hash_v2.unwrap();
    assert_eq!(hash.truncated(), metainfo.info_hash);
    assert_eq!(metainfo.files.len(), 1);
    assert_eq!(metainfo.files[0].path.to_str(), want["files"][0]["path"].as_str());
    assert_eq!(metainfo.content_length(), 20_000);
    assert_eq!(metainfo.piece_count(), 2);
    assert_eq!([metainfo.piece_len(0), metainfo.piece_len(1)], [16_384, 3_616]);
    assert!(metainfo.missing_layers().is_empty());
    assert_eq!(Metainfo::parse(&metainfo.to_bytes()).unwrap(), metainfo);
    // By a magnet link it comes without its layers.
    let from_peers = Metainfo::from_info(&metainfo.raw_info, metainfo.info_hash).unwrap();
    assert_eq!(
        from_peers.missing_layers(),
        [(metainfo.files[0].pieces_root.unwrap(), 2)]
    );
    // A changed layer does not lead to the root.
    let at = bytes.windows(12).position(|part| part == b"piece layers").unwrap() + 60;
    let mut other = bytes.clone();
    other[at] ^= 1;
    assert_eq!(
        Metainfo::parse(&other).unwrap_err(),
        MetainfoError::Field("piece layers")
    );

    // The same content makes the same torrent.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("v2")).unwrap();
    fs::write(dir.path().join("v2/one"), content(1, 20_000)).unwrap();
    let options = Options {
        version: Version::V2,
        piece_length: Some(16_384),
        ..Options::default()
    };
    let created = create(&dir.path().join("v2"), &options, &|_, _| {}).unwrap();
    assert_eq!(created.metainfo.raw_info, metainfo.raw_info);
    assert_eq!(created.metainfo.layers, metainfo.layers);
}

/// The hybrid that BEP 52's authors published for tests, whose hashes are on record.
#[test]
fn the_published_hybrid_is_read() {
    let metainfo = Metainfo::parse(&torrent("bep52-hybrid")).unwrap();
    assert_eq!(
        metainfo.info_hash_v1.unwrap().to_string(),
        "631a31dd0a46257d5078c0dee4e66e26f73e42ac"
    );
    assert_eq!(
        metainfo.info_hash_v2.unwrap().to_string(),
        "d8dd32ac93357c368556af3ac1d95c9d76bd0dff6fa9833ecdac3d53134efabb"
    );
    assert_eq!((metainfo.piece_count(), metainfo.piece_length), (1715, 524_288));
    assert_eq!(metainfo.files.iter().filter(|file| !file.pad).count(), 9);
    assert!(metainfo.missing_layers().is_empty());
    assert!((0..1715).all(|piece| metainfo.piece_root(piece).is_some()));
    let by_v2 = Metainfo::from_info(&metainfo.raw_info, metainfo.info_hash_v2.unwrap().truncated()).unwrap();
    assert_eq!(by_v2.info_hash_v1, metainfo.info_hash_v1);
    assert_eq!(by_v2.info_hash, metainfo.info_hash_v2.unwrap().truncated());
}

/// A hybrid is verified in both ways: a piece that only SHA-1 would let pass does not count.
#[test]
fn the_halves_of_a_hybrid_have_to_agree() {
    let bytes = torrent("hybrid");
    let metainfo = Metainfo::parse(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_content(dir.path(), "hybrid");
    let checked = |metainfo: Metainfo| {
        let disk = Disk::default();
        let info_hash = metainfo.info_hash;
        let pieces = 0..metainfo.piece_count();
        let open = Job::Open {
            metainfo: Arc::new(metainfo),
            dir: dir.path().into(),
            resume: None,
            read_only: true,
        };
        disk.run(open);
        match disk.run(Job::Check { info_hash, pieces }) {
            Done::Checked { result, .. } => result.unwrap().len(),
            other => panic!("{other:?}"),
        }
    };
    let pieces = metainfo.piece_count() as usize;
    assert_eq!(checked(metainfo.clone()), pieces);
    let mut lying = metainfo.clone();
    let root = lying.files[0].pieces_root.unwrap();
    let mut layer = lying.layers[&root].to_vec();
    layer[0] ^= 1;
    lying.layers.insert(root, layer.into());
    assert_eq!(checked(lying), pieces - 1);

    let mut other = bytes.clone();
    let at = other.windows(9).position(|part| part == b"file tree").unwrap() + 12;
    assert_eq!(other[at], b'x');
    other[at] = b'w';
    assert_eq!(Metainfo::parse(&other).unwrap_err(), MetainfoError::Inconsistent);
}

#[test]
fn pieces_of_libtorrents_content_are_found_on_disk() {
    for name in ["single", "folder", "padded", "hybrid"] {
        let dir = tempfile::tempdir().unwrap();
        write_content(dir.path(), name);
        let metainfo = Arc::new(Metainfo::parse(&torrent(name)).unwrap());
        let disk = Disk::default();
        let open = Job::Open {
            metainfo: Arc::clone(&metainfo),
            dir: dir.path().into(),
            resume: None,
            read_only: true,
        };
        let Done::Opened { result, .. } = disk.run(open) else {
            panic!()
        };
        let opened = result.unwrap();
        assert!(opened.have.is_none());
        let mut good = Vec::new();
        for pieces in opened.unknown {
            let Done::Checked { result, .. } = disk.run(Job::Check {
                info_hash: metainfo.info_hash,
                pieces,
            }) else {
                panic!()
            };
            good.extend(result.unwrap());
        }
        assert_eq!(good, (0..metainfo.piece_count()).collect::<Vec<_>>(), "{name}");
        assert!(!dir.path().join(name).join(".pad").exists());
    }
}

#[test]
fn a_torrent_of_ours_is_the_one_libtorrent_makes() {
    let dir = tempfile::tempdir().unwrap();
    write_content(dir.path(), "single");
    let heard = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total && total == 50_000);
        heard.fetch_max(done, Ordering::Relaxed);
    };
    let options = Options {
        piece_length: Some(16_384),
        trackers: vec![
            vec![
                "http://one.example/announce".into(),
                "udp://two.example:6969/announce".into(),
            ],
            vec!["http://three.example/announce".into()],
        ],
        url_list: vec!["http://seed.example/files/".into()],
        comment: Some("made for tests".into()),
        created_by: Some("libtorrent".into()),
        creation_date: Some(1_700_000_000),
        ..Options::default()
    };
    let created = create(&dir.path().join("single.bin"), &options, &progress).unwrap();
    assert_eq!(heard.into_inner(), 50_000);
    assert_eq!(created.metainfo, Metainfo::parse(&torrent("single")).unwrap());
    assert_eq!(
        created.metainfo.raw_info,
        Metainfo::parse(&torrent("single")).unwrap().raw_info
    );
}

#[test]
fn a_folder_comes_out_sorted_and_checks_out() {
    let dir = tempfile::tempdir().unwrap();
    write_content(dir.path(), "folder");
    let folder = dir.path().join("folder");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    for threads in [1, 3] {
        let options = Options {
            private: true,
            piece_length: Some(32_768),
            threads,
            ..Options::default()
        };
        let created = create(&folder, &options, &|_, _| {}).unwrap();
        assert_eq!(created.skipped, [fs::canonicalize(&folder).unwrap().join("link")]);
        let names: Vec<_> = created
            .metainfo
            .files
            .iter()
            .map(|file| file.path.to_str().unwrap())
            .collect();
        let want = [
            "folder/a.txt",
            "folder/b/c/\u{fc}ml\u{e4}ut \u{20ac}.bin",
            "folder/b/empty",
            "folder/b/long.bin",
        ];
        assert_eq!(names[..4], want);
        assert!(created.metainfo.private);
        let metainfo = Arc::new(created.metainfo);
        let disk = Disk::default();
        let open = Job::Open {
            metainfo: Arc::clone(&metainfo),
            dir: created.dir,
            resume: None,
            read_only: true,
        };
        assert!(matches!(disk.run(open), Done::Opened { result: Ok(_), .. }));
        let pieces = 0..metainfo.piece_count();
        let Done::Checked { result, .. } = disk.run(Job::Check {
            info_hash: metainfo.info_hash,
            pieces,
        }) else {
            panic!()
        };
        assert_eq!(result.unwrap().len(), 5);
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let create = |path: &Path, options: &Options| create(path, options, &|_, _| {}).unwrap_err();
    let none = Options::default();
    assert!(matches!(
        create(&dir.path().join("none"), &none),
        CreateError::Io { .. }
    ));
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(create(&empty, &none), CreateError::Empty(_)));
    fs::write(empty.join("nothing"), b"").unwrap();
    assert!(matches!(create(&empty, &none), CreateError::Empty(_)));
    fs::write(empty.join("back\\slash"), b"x").unwrap();
    let error = create(&empty, &none);
    assert!(
        matches!(&error, CreateError::Name(path) if path.ends_with("back\\slash")),
        "{error}"
    );
    let odd = Options {
        piece_length: Some(20_000),
        ..Options::default()
    };
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    assert!(matches!(create(&file, &odd), CreateError::PieceLength));
    assert!(matches!(create(Path::new("/"), &none), CreateError::Name(_)));
}
