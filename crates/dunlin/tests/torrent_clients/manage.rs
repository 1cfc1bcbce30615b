//! Managing torrents of the running peer: the watch folder, files that are not wanted, limits, filtered addresses.

use std::time::Duration;

use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::{content, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Content, DUNLIN, LIMIT};

fn info(daemon: &Dunlin, content: &Content) -> Value {
    daemon
        .call("torrent.info", json!([content.torrent.hash_hex()]))
        .unwrap_or_default()
}

#[test]
fn a_watched_torrent_is_fetched_as_it_is_wished() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("seed");
    content::write_file(&home.join("two").join("a.bin"), 2 << 20, 81).unwrap();
    content::write_file(&home.join("two").join("b.bin"), 6 << 20, 82).unwrap();
    let content = Content::new(&home, "two", 64 << 10);
    let theirs = Libtorrent::start().unwrap();
    theirs.seed(&content.path, &content.home).unwrap();

    let watched = folder.path().join("watched");
    std::fs::create_dir(&watched).unwrap();
    let watch = format!("--watch-dir={}", watched.display());
    let daemon = Dunlin::start(DUNLIN, &["--disable", "bitcoin", &watch]).unwrap();
    std::fs::write(watched.join("broken.torrent"), "no torrent").unwrap();
    std::fs::copy(&content.path, watched.join("two.torrent")).unwrap();
    wait_until("both files were looked at", LIMIT, || {
        watched.join("two.torrent.added").exists() && watched.join("broken.torrent.bad").exists()
    })
    .unwrap();

    let hash = content.torrent.hash_hex();
    let files = daemon
        .cli(&["torrent", "files", &hash, "--skip", "1"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(files.contains("skip") && files.contains("normal"), "{files}");
    daemon
        .cli(&["torrent", "limit", &hash, "--download", "512"])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(info(&daemon, &content)["download_limit"], 512 << 10);
    let peer = theirs.address().to_string();
    let source = content.path.display().to_string();
    // Adding it again only names the peer.
    let _ = daemon.cli(&["torrent", "add", &source, "--peer", &peer]).unwrap();
    let start = std::time::Instant::now();
    wait_until("what is wanted is here", LIMIT, || {
        info(&daemon, &content)["state"] == "seeding"
    })
    .unwrap();
    assert!(start.elapsed() > Duration::from_millis(2_500), "{:?}", start.elapsed());
    let done = info(&daemon, &content)["done_bytes"].as_u64().unwrap();
    assert!((2 << 20..(2 << 20) + 65_537).contains(&done), "{done}");

    daemon.cli(&["torrent", "limit", &hash]).unwrap().ok().unwrap();
    daemon
        .cli(&["torrent", "files", &hash, "--high", "1"])
        .unwrap()
        .ok()
        .unwrap();
    wait_until("all of it is here", LIMIT, || {
        let info = info(&daemon, &content);
        info["done_bytes"] == info["total_bytes"] && info["state"] == "seeding"
    })
    .unwrap();
    content.verify(&daemon.folder().join("regtest").join("downloads"));
}

#[test]
fn filtered_addresses_are_neither_dialled_nor_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let content = crate::fixture::small(folder.path());
    let theirs = Libtorrent::start().unwrap();
    theirs.seed(&content.path, &content.home).unwrap();
    let list = folder.path().join("list.dat");
    std::fs::write(&list, "127.0.0.0 - 127.255.255.255 , 0 , this machine\n").unwrap();
    let filter = format!("--ip-filter={}", list.display());
    let daemon = Dunlin::start(DUNLIN, &["--disable", "bitcoin", &filter]).unwrap();
    let source = content.path.display().to_string();
    daemon.cli(&["torrent", "add", &source]).unwrap().ok().unwrap();
    let hash = theirs
        .add(&content.path, &content.home, &[])
        .unwrap_or_else(|_| content.torrent.hash_hex());
    theirs.connect(&hash, daemon.doors().torrent).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(info(&daemon, &content)["peers"], json!([]));

    std::fs::write(&list, "127.0.0.1\nnonsense\n").unwrap();
    let output = folder.path().join("got").display().to_string();
    let args = ["torrent", "get", &source, "--output", &output, &filter];
    let outcome = dunlin_testkit::dunlin::run(std::path::Path::new(DUNLIN), args, LIMIT).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("line 2") && outcome.stderr.lines().count() == 1,
        "{}",
        outcome.stderr
    );
}
