//! Torrents made to hurt: none of them gets further than a typed error or a harmless file name.
#![allow(clippy::unwrap_used)]

use std::path::{Component, Path};
use std::time::{Duration, Instant};

use dunlin_torrent::Metainfo;
use dunlin_torrent::bencode::{DecodeError, Item};
use dunlin_torrent::metainfo::{MAX_PIECE_LEN, MAX_PIECES, MetainfoError};
use rand::{Rng, SeedableRng};

fn bytes(text: &[u8]) -> Item {
    Item::from(text)
}

fn info(length: i64, piece_length: i64, pieces: usize) -> Item {
    Item::dict()
        .with("length", length)
        .with("name", "name")
        .with("piece length", piece_length)
        .with("pieces", vec![7u8; pieces * 20])
}

fn torrent(info: Item) -> Vec<u8> {
    Item::dict().with("info", info).encode()
}

fn parse(info: Item) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&torrent(info))
}

fn folder(files: Vec<Item>, total: u64) -> Item {
    let pieces = total.div_ceil(16_384) as usize;
    Item::dict()
        .with("files", files)
        .with("name", "t")
        .with("piece length", 16_384i64)
        .with("pieces", vec![7u8; pieces * 20])
}

fn file(length: i64, path: &[&[u8]]) -> Item {
    Item::dict()
        .with("length", length)
        .with("path", path.iter().map(|part| bytes(part)).collect::<Vec<_>>())
}

#[test]
fn sizes_that_do_not_add_up() {
    use MetainfoError::*;
    assert!(parse(info(16_385, 16_384, 2)).is_ok());
    assert_eq!(
        parse(info(16_385, 16_384, 1)).unwrap_err(),
        PieceCount { expected: 2, found: 1 }
    );
    assert_eq!(
        parse(info(16_385, 16_384, 3)).unwrap_err(),
        PieceCount { expected: 2, found: 3 }
    );
    assert_eq!(
        parse(info(5, 16_384, 1).with("pieces", vec![0; 21])).unwrap_err(),
        PieceCount { expected: 1, found: 1 }
    );
    for piece_length in [0, -1, i64::from(MAX_PIECE_LEN) + 1, i64::MAX, i64::MIN] {
        assert_eq!(
            parse(info(5, piece_length, 1)).unwrap_err(),
            Field("piece length"),
            "{piece_length}"
        );
    }
    for length in [0, -1, i64::MAX, i64::MIN] {
        assert_eq!(parse(info(length, 16_384, 1)).unwrap_err(), Field("length"), "{length}");
    }
    let huge = (i64::from(MAX_PIECES) + 1) * 16_384;
    assert_eq!(parse(info(huge, 16_384, 1)).unwrap_err(), TooMany("pieces"));
    assert_eq!(parse(info(1 << 61, 1, 1)).unwrap_err(), TooMany("pieces"));
    assert_eq!(parse(info(1, 1, 1)).unwrap().piece_len(0), 1);

    let max = i64::MAX / 2;
    let sum = folder(vec![file(max, &[b"a"]), file(max, &[b"b"]), file(max, &[b"c"])], 1);
    assert_eq!(parse(sum).unwrap_err(), Field("length"));
    assert_eq!(
        parse(folder(vec![file(-5, &[b"a"]), file(10, &[b"b"])], 5)).unwrap_err(),
        Field("length")
    );
    let beyond = b"d4:infod6:lengthi99999999999999999999e4:name1:a12:piece lengthi16384e6:pieces0:ee";
    assert_eq!(Metainfo::parse(beyond).unwrap_err(), Field("length"));
}

#[test]
fn missing_and_mistyped_fields() {
    use MetainfoError::*;
    let without = |key: &str| match info(5, 16_384, 1) {
        Item::Dict(mut map) => {
            map.remove(key.as_bytes());
            parse(Item::Dict(map)).unwrap_err()
        }
        _ => panic!(),
    };
    for key in ["length", "name", "piece length", "pieces"] {
        assert!(matches!(without(key), Field(field) if field == key), "{key}");
        let mistyped = info(5, 16_384, 1).with(key, Item::List(Vec::new()));
        assert!(
            matches!(parse(mistyped).unwrap_err(), Field(field) if field == key),
            "{key}"
        );
    }
    assert_eq!(parse(Item::List(Vec::new())).unwrap_err(), NoInfo);
    assert_eq!(Metainfo::parse(b"de").unwrap_err(), NoInfo);
    assert_eq!(Metainfo::parse(b"le").unwrap_err(), NoInfo);
    assert_eq!(Metainfo::parse(b"").unwrap_err(), Bencode(DecodeError::Truncated));
    assert!(matches!(Metainfo::parse(b"<!DOCTYPE html>").unwrap_err(), Bencode(_)));
    for name in [&b""[..], b".", b".."] {
        assert_eq!(parse(info(5, 16_384, 1).with("name", name)).unwrap_err(), Field("name"));
    }
    assert_eq!(parse(folder(Vec::new(), 5)).unwrap_err(), Field("files"));
    assert_eq!(parse(folder(vec![file(5, &[])], 5)).unwrap_err(), Field("path"));
    assert_eq!(
        parse(folder(vec![Item::dict().with("length", 5i64)], 5)).unwrap_err(),
        Field("path")
    );
    assert_eq!(parse(folder(vec![Item::Int(5)], 5)).unwrap_err(), Field("length"));
    let mistyped = Item::dict().with("length", 5i64).with("path", vec![Item::Int(1)]);
    assert_eq!(parse(folder(vec![mistyped], 5)).unwrap_err(), Field("path"));
    assert_eq!(
        parse(folder(vec![file(5, &[&b"x"[..]; 500])], 5)).unwrap_err(),
        Field("path")
    );
}

#[test]
fn no_path_leaves_the_folder() {
    let hostile: [&[&[u8]]; 12] = [
        &[b"..", b"..", b"etc", b"passwd"],
        &[b"../../etc/passwd"],
        &[b"/etc/passwd"],
        &[b"/", b"etc"],
        &[b"a", b"", b"b"],
        &[b"a", b".", b"b"],
        &[b"..\\..\\windows"],
        &[b"a\0b"],
        &[b"C:\\x"],
        &[b"\xff\xfe"],
        &[b"\xc0\xae\xc0\xae", b"x"],
        &["\u{202e}fdp.exe".as_bytes()],
    ];
    let files: Vec<Item> = hostile.iter().map(|path| file(5, path)).collect();
    let metainfo = parse(folder(files, 60)).unwrap();
    assert_eq!(metainfo.files.len(), hostile.len());
    for file in &metainfo.files {
        let mut components = file.path.components();
        assert_eq!(
            components.next(),
            Some(Component::Normal("t".as_ref())),
            "{}",
            file.path.display()
        );
        assert!(
            components.all(|part| matches!(part, Component::Normal(_))),
            "{}",
            file.path.display()
        );
        let text = file.path.to_str().unwrap();
        assert!(!text.contains(['\0', '\\', '\u{202e}']), "{text}");
    }
    assert_eq!(metainfo.files[0].path, Path::new("t/_/_/etc/passwd"));
    let name = parse(info(5, 16_384, 1).with("name", "../../evil")).unwrap();
    assert_eq!(name.files[0].path, Path::new(".._.._evil"));
}

#[test]
fn equal_and_overlapping_names_get_files_of_their_own() {
    let files = vec![
        file(5, &[b"a"]),
        file(5, &[b"a"]),
        file(5, &[b"a", b"b"]),
        file(5, &[b"x/y"]),
        file(5, &[b"x_y"]),
    ];
    let metainfo = parse(folder(files, 25)).unwrap();
    let paths: Vec<_> = metainfo.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["t/a.1", "t/a.2", "t/a/b", "t/x_y", "t/x_y.1"]);
}

#[test]
fn utf8_names_win_over_the_plain_ones() {
    let named = info(5, 16_384, 1)
        .with("name", &b"\x83n"[..])
        .with("name.utf-8", "\u{30cf}");
    assert_eq!(parse(named).unwrap().name, "\u{30cf}");
    let file = file(5, &[b"\x83n"]).with("path.utf-8", vec![Item::from("\u{30cf}")]);
    assert_eq!(
        parse(folder(vec![file], 5)).unwrap().files[0].path,
        Path::new("t/\u{30cf}")
    );
}

#[test]
fn links_and_pads_are_not_files() {
    let link = file(0, &[b"link"])
        .with("attr", "l")
        .with("symlink path", vec![Item::from("..")]);
    let pad = file(11, &[b".pad", b"11"]).with("attr", "p");
    let metainfo = parse(folder(vec![file(5, &[b"a"]).with("attr", "xh"), pad, link], 16)).unwrap();
    let pads: Vec<bool> = metainfo.files.iter().map(|file| file.pad).collect();
    assert_eq!(pads, [false, true, true]);
    assert!(metainfo.files[0].executable);
}

#[test]
fn trackers_and_other_extras_are_bounded_and_forgiven() {
    let item = Item::dict()
        .with("info", info(5, 16_384, 1).with("private", 1i64))
        .with("announce", "http://plain.example/")
        .with(
            "announce-list",
            vec![
                Item::List(Vec::new()),
                Item::List(vec![
                    "http://a.example/".into(),
                    Item::Int(1),
                    " ".into(),
                    "bad\nurl".into(),
                ]),
                Item::Int(3),
            ],
        )
        .with("url-list", "http://seed.example/")
        .with(
            "nodes",
            vec![
                Item::List(vec!["host".into(), 6881u32.into()]),
                Item::List(vec!["host".into(), 70_000u32.into()]),
                Item::Int(3),
            ],
        )
        .with("creation date", "not a number")
        .with("comment", &b"\xff"[..]);
    let mut bytes = item.encode();
    bytes.extend(b"trailing bytes as libtorrent takes them");
    let metainfo = Metainfo::parse(&bytes).unwrap();
    assert!(metainfo.private);
    assert_eq!(metainfo.trackers, [["http://a.example/"]]);
    assert_eq!(metainfo.url_list, ["http://seed.example/"]);
    assert_eq!(metainfo.nodes, [("host".to_owned(), 6881)]);
    assert_eq!(
        (metainfo.creation_date, metainfo.comment.as_deref()),
        (None, Some("\u{fffd}"))
    );

    let many: Vec<Item> = (0..5000)
        .map(|n| Item::List(vec![Item::from(format!("http://{n}.example/").as_str())]))
        .collect();
    let torrent = Item::dict()
        .with("info", info(5, 16_384, 1))
        .with("announce-list", many)
        .encode();
    assert_eq!(Metainfo::parse(&torrent).unwrap().trackers.len(), 500);
}

#[test]
fn bombs_are_refused_in_no_time() {
    let begun = Instant::now();
    let mut deep = b"d4:info".to_vec();
    deep.extend(vec![b'l'; 5_000_000]);
    assert_eq!(
        Metainfo::parse(&deep).unwrap_err(),
        MetainfoError::Bencode(DecodeError::Depth)
    );
    let mut claim = b"d4:infod6:pieces".to_vec();
    claim.extend(b"9223372036854775807:abc");
    assert_eq!(
        Metainfo::parse(&claim).unwrap_err(),
        MetainfoError::Bencode(DecodeError::Truncated)
    );
    let mut wide = b"d4:infol".to_vec();
    wide.extend(b"0:".repeat(4_000_000));
    assert_eq!(
        Metainfo::parse(&wide).unwrap_err(),
        MetainfoError::Bencode(DecodeError::Values)
    );

    // Deep folders and equal names for hundreds of thousands of files.
    let deep_path: Vec<&[u8]> = vec![b"d"; 90];
    let many: Vec<Item> = (0..30_000)
        .map(|_| file(0, &deep_path))
        .chain([file(5, &[b"x"])])
        .collect();
    let metainfo = parse(folder(many, 5)).unwrap();
    assert_eq!(metainfo.files.len(), 30_001);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn damaged_torrents_never_panic() {
    let files = vec![
        file(20_000, &[b"a"]),
        file(10_000, &[b"b", b"c"]).with("attr", "p"),
        file(5, &[b"d"]).with("path.utf-8", vec![Item::from("e")]),
    ];
    let good = Item::dict()
        .with("announce", "http://a.example/")
        .with("info", folder(files, 30_005).with("private", 1i64))
        .encode();
    assert!(Metainfo::parse(&good).is_ok());
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut parsed = 0;
    for _ in 0..100_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] = b"dlei0123456789:-"[rng.random_range(0..16)],
                _ => bytes.truncate(at.max(1)),
            }
        }
        let Ok(metainfo) = Metainfo::parse(&bytes) else {
            continue;
        };
        parsed += 1;
        let last = metainfo.piece_count() - 1;
        let sum: u64 = (0..=last).map(|piece| u64::from(metainfo.piece_len(piece))).sum();
        assert_eq!(sum, metainfo.total_length);
        assert_eq!(metainfo.piece_len(last + 1), 0);
        for file in &metainfo.files {
            assert!(metainfo.pieces_of(file).end <= metainfo.piece_count());
        }
        assert_eq!(
            Metainfo::parse(&metainfo.to_bytes()).unwrap().info_hash,
            metainfo.info_hash
        );
    }
    assert!(
        parsed > 1000,
        "the damage has to leave some torrents readable: {parsed}"
    );
}
