//! Version 2 and hybrid torrents (BEP 52) with real libtorrents: both directions, from a .torrent and from magnet links.

use std::path::{Path, PathBuf};

use crate::fixture::{DUNLIN, LIMIT, Sums, get, seed};
use dunlin_testkit::dunlin::run;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::{content, free_address};
use dunlin_torrent::{Magnet, Metainfo};

/// A folder of files, empty, smaller and larger than a piece and a block.
struct Folder {
    home: PathBuf,
    sums: Sums,
}

impl Folder {
    fn new(home: &Path) -> Self {
        let sizes = [0, 5, 16_384, 20_000, 65_536, 300_001, 40_000_000];
        for (n, size) in sizes.into_iter().enumerate() {
            let name = format!("{}/file{n}", ["a", "b/c"][n % 2]);
            content::write_file(&home.join("folder").join(name), size, n as u64 + 50).unwrap();
        }
        let sums = content::sha256_tree(&home.join("folder")).unwrap();
        Self {
            home: home.to_owned(),
            sums,
        }
    }

    /// A torrent of it in the format that the option names.
    fn torrent(&self, option: &str) -> (PathBuf, Metainfo) {
        let path = self.home.join(format!("made{option}.torrent"));
        let (content, file) = (self.home.join("folder"), path.display().to_string());
        let content = content.display().to_string();
        let args = [
            "torrent",
            "create",
            &content,
            option,
            "--piece-length",
            "32768",
            "-o",
            &file,
        ];
        let outcome = run(Path::new(DUNLIN), args, LIMIT).unwrap();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let metainfo = Metainfo::parse(&std::fs::read(&path).unwrap()).unwrap();
        (path, metainfo)
    }

    fn verify(&self, output: &Path) {
        assert_eq!(content::sha256_tree(&output.join("folder")).unwrap(), self.sums);
    }
}

/// The links by which a torrent can be named.
pub(crate) fn magnets(metainfo: &Metainfo) -> Vec<Magnet> {
    let mut links: Vec<Magnet> = metainfo.names().map(Magnet::new).collect();
    if let (Some(link), Some(hash)) = (links.last_mut(), metainfo.info_hash_v2) {
        link.info_hash_v2 = Some(hash);
    }
    links
}

#[test]
fn we_fetch_both_versions_from_libtorrent() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(&dir.path().join("seed"));
    for option in ["--v2", "--hybrid"] {
        let (torrent, metainfo) = folder.torrent(option);
        let theirs = Libtorrent::start().unwrap();
        theirs.add(&torrent, &folder.home, &[]).unwrap();
        let peer = theirs.address().to_string();
        let mut sources = vec![torrent.display().to_string()];
        sources.extend(magnets(&metainfo).iter().map(Magnet::to_string));
        for (n, source) in sources.iter().enumerate() {
            let output = dir.path().join(format!("got{option}{n}"));
            get(source, &output, &["--peer", &peer]);
            folder.verify(&output);
        }
    }
}

#[test]
fn libtorrent_fetches_both_versions_from_us() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(&dir.path().join("seed"));
    for option in ["--v2", "--hybrid"] {
        let (torrent, metainfo) = folder.torrent(option);
        let listen = free_address();
        let _ours = seed(&torrent, &folder.home, listen, dir.path(), &[]);
        let theirs = Libtorrent::start().unwrap();
        let output = dir.path().join(format!("theirs{option}"));
        let hash = theirs.add(&torrent, &output, &[listen]).unwrap();
        theirs.wait_complete(&hash, LIMIT).unwrap();
        folder.verify(&output);
        for (n, link) in magnets(&metainfo).iter().enumerate() {
            let theirs = Libtorrent::start().unwrap();
            let output = dir.path().join(format!("theirs{option}{n}"));
            let hash = theirs.add_magnet(&link.to_string(), &output, &[listen]).unwrap();
            theirs.wait_complete(&hash, LIMIT).unwrap();
            folder.verify(&output);
        }
    }
}
