//! What these tests share: content to share, and our two commands that need no daemon.

use dunlin_testkit::child::Child;
use dunlin_testkit::content;
use dunlin_testkit::dunlin::{run, start_command};
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::wait_until;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// SHA-256 of nothing.
pub(crate) const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) type Sums = std::collections::BTreeMap<String, String>;

/// Something to share: where it lies, its torrent without trackers, and its sums.
pub(crate) struct Content {
    pub(crate) home: PathBuf,
    pub(crate) torrent: Torrent,
    pub(crate) path: PathBuf,
    pub(crate) sums: Sums,
}

impl Content {
    pub(crate) fn new(home: &Path, name: &str, piece_length: u64) -> Self {
        let content = home.join(name);
        let torrent = Torrent::create(&content, piece_length, None).unwrap();
        let path = home.join(format!("{name}.torrent"));
        torrent.save(&path).unwrap();
        let sums = content::sha256_tree(&content).unwrap();
        Content {
            home: home.to_owned(),
            torrent,
            path,
            sums,
        }
    }

    /// The same content in a torrent that names a tracker.
    pub(crate) fn with_tracker(&self, url: &str, folder: &Path) -> PathBuf {
        let torrent = Torrent::create(
            &self.home.join(&self.torrent.name),
            self.torrent.piece_length,
            Some(url),
        )
        .unwrap();
        let path = folder.join("tracked.torrent");
        torrent.save(&path).unwrap();
        assert_eq!(torrent.info_hash, self.torrent.info_hash);
        path
    }

    /// Checks a copy below `folder`.
    pub(crate) fn verify(&self, folder: &Path) {
        let copy = content::sha256_tree(&folder.join(&self.torrent.name)).unwrap();
        self.compare(&copy, self.sums.clone());
    }

    /// Checks Transmission's copy below `folder`: it makes no empty files.
    pub(crate) fn verify_without_empty(&self, folder: &Path) {
        let copy = content::sha256_tree(&folder.join(&self.torrent.name)).unwrap();
        let sums = self
            .sums
            .iter()
            .filter(|(_, sum)| *sum != NOTHING)
            .map(|(name, sum)| (name.clone(), sum.clone()));
        self.compare(&copy, sums.collect());
    }

    pub(crate) fn compare(&self, copy: &Sums, expected: Sums) {
        let names = |sums: &Sums| sums.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(copy), names(&expected), "the files of {}", self.torrent.name);
        let wrong: Vec<&String> = expected
            .iter()
            .filter(|(name, sum)| copy[*name] != **sum)
            .map(|(name, _)| name)
            .collect();
        assert!(wrong.is_empty(), "wrong sums: {wrong:?}");
    }
}

/// One file of 256 MiB.
pub(crate) fn large() -> &'static Content {
    static LARGE: OnceLock<Content> = OnceLock::new();
    LARGE.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
        // Written anew in every run, over what an earlier run left.
        content::write_file(&home.join("large.bin"), 256 << 20, 41).unwrap();
        Content::new(&home, "large.bin", 256 << 10)
    })
}

/// A folder of 500 small files.
pub(crate) fn many() -> &'static Content {
    static MANY: OnceLock<Content> = OnceLock::new();
    MANY.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("many");
        if home.exists() {
            std::fs::remove_dir_all(&home).unwrap();
        }
        content::write_tree(&home.join("many"), 500, 60_000, 42).unwrap();
        let content = Content::new(&home, "many", 64 << 10);
        assert_eq!(content.sums.len(), 500);
        content
    })
}

/// `dunlin torrent get`, to its end.
pub(crate) fn get(source: &str, output: &Path, more: &[&str]) {
    let output_text = output.display().to_string();
    let mut args = vec![
        "torrent",
        "get",
        source,
        "--output",
        &output_text,
        "--no-dht",
        "--no-lsd",
    ];
    args.extend(more);
    let outcome = run(Path::new(DUNLIN), &args, LIMIT).unwrap();
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    let left: Vec<_> = std::fs::read_dir(output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 1, "nothing but the content is left: {left:?}");
}

/// `dunlin torrent seed`, running; returns when it listens and has checked its content.
pub(crate) fn seed(torrent: &Path, data: &Path, listen: SocketAddr, folder: &Path, more: &[&str]) -> Child {
    let [torrent, data] = [torrent, data].map(|path| path.display().to_string());
    let listen_text = listen.to_string();
    let mut args = vec![
        "torrent",
        "seed",
        &torrent,
        "--data",
        &data,
        "--listen",
        &listen_text,
        "--no-dht",
        "--no-lsd",
    ];
    args.extend(more);
    let mut child = start_command(Path::new(DUNLIN), &args, &folder.join("seed.log")).unwrap();
    wait_until("dunlin seeds", LIMIT, || {
        child.check_alive().unwrap();
        child.log().contains("sharing ") && TcpStream::connect(listen).is_ok()
    })
    .unwrap();
    child
}

/// A file of 16 MiB for the liar's tests.
pub(crate) fn small(folder: &Path) -> Content {
    content::write_file(&folder.join("seed").join("small.bin"), 16 << 20, 43).unwrap();
    Content::new(&folder.join("seed"), "small.bin", 64 << 10)
}
