//! Every backend keeps the same promises.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use dunlin_store::{
    Batch, CrashDisk, DirFiles, DiskTable, Files, LogTable, MemFiles, MemTable, Space, Step, StoreError, Table,
};

const COINS: Space = Space(0);
const META: Space = Space(1);

fn files_keep_their_promises(files: &dyn Files) {
    assert_eq!(files.len("a").unwrap(), None);
    assert!(matches!(files.read_at("a", 0, 1), Err(StoreError::Corrupt { .. })));
    files.write_at("a", 3, b"def").unwrap();
    files.write_at("a", 0, b"abc").unwrap();
    files.sync("a").unwrap();
    files.write_at("b", 0, b"x").unwrap();
    assert_eq!(files.read_at("a", 1, 4).unwrap(), b"bcde");
    assert_eq!(files.len("a").unwrap(), Some(6));
    assert_eq!(files.list().unwrap(), ["a", "b"]);
    // A length beyond the end is refused before anything is allocated for it.
    assert!(matches!(
        files.read_at("a", 4, usize::MAX / 4),
        Err(StoreError::Corrupt { .. })
    ));
    assert!(matches!(
        files.read_at("a", u64::MAX, 2),
        Err(StoreError::Corrupt { .. })
    ));
    files.remove("a").unwrap();
    files.remove("a").unwrap();
    files.sync("a").unwrap();
    assert_eq!(files.list().unwrap(), ["b"]);
    files.write_at("a", 0, b"new").unwrap();
    assert_eq!(files.read_at("a", 0, 3).unwrap(), b"new");
}

fn pairs(table: &dyn Table, space: Space, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    table
        .scan(space, prefix, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Step::Continue
        })
        .unwrap();
    found
}

fn tables_keep_their_promises(table: &dyn Table) {
    let mut batch = Batch::default();
    for key in [&b"ab2"[..], b"ab1", b"ac", b"b"] {
        batch.put(COINS, key, &b"one"[..]);
    }
    batch.put(META, &b"ab1"[..], &b"other space"[..]);
    table.write(batch, true).unwrap();

    let mut batch = Batch::default();
    batch.put(COINS, &b"ab1"[..], &b"two"[..]);
    batch.delete(COINS, &b"ac"[..]);
    batch.put(COINS, &b"b"[..], &b"gone"[..]);
    batch.delete(COINS, &b"b"[..]);
    batch.delete(COINS, &b"never there"[..]);
    table.write(batch, false).unwrap();

    assert_eq!(table.get(COINS, b"ab1").unwrap().unwrap(), b"two");
    assert_eq!(table.get(COINS, b"ac").unwrap(), None);
    assert_eq!(table.get(COINS, b"b").unwrap(), None);
    assert_eq!(table.get(META, b"ab1").unwrap().unwrap(), b"other space");
    let want = [(b"ab1".to_vec(), b"two".to_vec()), (b"ab2".to_vec(), b"one".to_vec())];
    assert_eq!(pairs(table, COINS, b"ab"), want);
    assert_eq!(pairs(table, COINS, b""), want);

    let mut seen = 0;
    table
        .scan(COINS, b"", &mut |_, _| {
            seen += 1;
            Step::Stop
        })
        .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn files_in_memory() {
    files_keep_their_promises(&MemFiles::default());
}

#[test]
fn files_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    files_keep_their_promises(&DirFiles::open(&dir.path().join("blocks")).unwrap());
}

#[test]
fn files_on_a_crashing_disk() {
    files_keep_their_promises(&CrashDisk::new(1, None).files());
}

#[test]
fn tables_in_memory() {
    tables_keep_their_promises(&MemTable::default());
}

#[test]
fn tables_on_a_crashing_disk() {
    tables_keep_their_promises(&CrashDisk::new(1, None).table());
}

#[test]
fn tables_in_a_log() {
    let disk = CrashDisk::new(1, None);
    for bulk in [COINS, META, Space(9)] {
        let open = |disk: &CrashDisk| LogTable::new(Arc::new(disk.files()), &format!("log{}", bulk.0), bulk);
        tables_keep_their_promises(&open(&disk));
        assert_eq!(pairs(&open(&disk.process_killed(None)), COINS, b"").len(), 2);
    }
}

#[test]
fn tables_in_a_directory_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DiskTable::open(dir.path(), &["coins", "meta"], 1 << 20).unwrap();
    tables_keep_their_promises(&open());
    let table = open();
    assert_eq!(pairs(&table, COINS, b"").len(), 2);
    assert!(matches!(table.get(Space(7), b"x"), Err(StoreError::Engine { .. })));
}

#[test]
fn many_open_files_are_more_than_the_handles_kept() {
    let dir = tempfile::tempdir().unwrap();
    let files = DirFiles::open(dir.path()).unwrap();
    for index in 0..80u8 {
        files.write_at(&format!("blk{index:05}.dat"), 0, &[index]).unwrap();
    }
    for index in 0..80u8 {
        let name = format!("blk{index:05}.dat");
        files.sync(&name).unwrap();
        assert_eq!(files.read_at(&name, 0, 1).unwrap(), [index]);
    }
}

#[test]
fn a_full_disk_is_told_from_other_errors() {
    // The kernel's own always-full device.
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("blk00000.dat")).unwrap();
    let files = DirFiles::open(dir.path()).unwrap();
    match files.write_at("blk00000.dat", 0, b"block") {
        Err(StoreError::DiskFull { path }) => assert!(path.ends_with("blk00000.dat")),
        other => panic!("expected DiskFull, got {other:?}"),
    }
}
