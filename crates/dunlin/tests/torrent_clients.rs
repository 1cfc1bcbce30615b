//! Against real libtorrent and Transmission, both directions: a large file, a folder of many small ones, from a .torrent
//! and from a magnet link, peers named by hand and found through trackers; and against a peer that lies.

#![allow(clippy::unwrap_used)]

use dunlin_testkit::child::Child;
use dunlin_testkit::content;
use dunlin_testkit::dunlin::{run, start_command};
use dunlin_testkit::free_address;
use dunlin_testkit::liar::{Liar, Lie};
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::tracker::HttpTracker;
use dunlin_testkit::transmission::Transmission;
use dunlin_testkit::udp_tracker::UdpTracker;
use dunlin_testkit::wait_until;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(180);

/// SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

type Sums = std::collections::BTreeMap<String, String>;

/// Something to share: where it lies, its torrent without trackers, and its sums.
struct Content {
    home: PathBuf,
    torrent: Torrent,
    path: PathBuf,
    sums: Sums,
}

impl Content {
    fn new(home: &Path, name: &str, piece_length: u64) -> Self {
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
    fn with_tracker(&self, url: &str, folder: &Path) -> PathBuf {
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
    fn verify(&self, folder: &Path) {
        let copy = content::sha256_tree(&folder.join(&self.torrent.name)).unwrap();
        self.compare(&copy, self.sums.clone());
    }

    /// Checks Transmission's copy below `folder`: it makes no empty files.
    fn verify_without_empty(&self, folder: &Path) {
        let copy = content::sha256_tree(&folder.join(&self.torrent.name)).unwrap();
        let sums = self
            .sums
            .iter()
            .filter(|(_, sum)| *sum != NOTHING)
            .map(|(name, sum)| (name.clone(), sum.clone()));
        self.compare(&copy, sums.collect());
    }

    fn compare(&self, copy: &Sums, expected: Sums) {
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
fn large() -> &'static Content {
    static LARGE: OnceLock<Content> = OnceLock::new();
    LARGE.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
        // Written anew in every run, over what an earlier run left.
        content::write_file(&home.join("large.bin"), 256 << 20, 41).unwrap();
        Content::new(&home, "large.bin", 256 << 10)
    })
}

/// A folder of 500 small files.
fn many() -> &'static Content {
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
fn get(source: &str, output: &Path, more: &[&str]) {
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
fn seed(torrent: &Path, data: &Path, listen: SocketAddr, folder: &Path, more: &[&str]) -> Child {
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

#[test]
fn we_fetch_from_libtorrent() {
    let folder = tempfile::tempdir().unwrap();
    let tracker = HttpTracker::start().unwrap();
    let libtorrent = Libtorrent::start().unwrap();
    let address = libtorrent.address().to_string();

    libtorrent.seed(&large().path, &large().home).unwrap();
    let output = folder.path().join("large");
    get(&large().path.display().to_string(), &output, &["--peer", &address]);
    large().verify(&output);

    // The folder comes by a magnet link: metadata from the peer, which a tracker names.
    let tracked = many().with_tracker(&tracker.url(), folder.path());
    let hash = libtorrent.seed(&tracked, &many().home).unwrap();
    wait_until("libtorrent announced", LIMIT, || !tracker.announces().is_empty()).unwrap();
    let output = folder.path().join("many");
    get(&many().torrent.magnet(&[], Some(&tracker.url())), &output, &[]);
    many().verify(&output);
    assert_eq!(hash, many().torrent.hash_hex());
    let events: Vec<String> = tracker
        .announces()
        .into_iter()
        .filter(|it| it.peer_id.starts_with(b"-DN"))
        .map(|it| it.event)
        .collect();
    for event in ["started", "completed", "stopped"] {
        assert!(events.iter().any(|seen| seen == event), "no {event} in {events:?}");
    }
}

#[test]
fn libtorrent_fetches_from_us() {
    let folder = tempfile::tempdir().unwrap();
    let tracker = UdpTracker::start().unwrap();
    let libtorrent = Libtorrent::start().unwrap();

    let listen = free_address();
    let seeder = seed(&large().path, &large().home, listen, folder.path(), &[]);
    let output = folder.path().join("large");
    let hash = libtorrent.add(&large().path, &output, &[listen]).unwrap();
    libtorrent.wait_complete(&hash, LIMIT).unwrap();
    large().verify(&output);
    drop(seeder);

    // A torrent made by us, read by libtorrent, found through a UDP tracker that loses our first packet.
    let made = folder.path().join("made.torrent");
    let (content, output_file) = (
        many().home.join("many").display().to_string(),
        made.display().to_string(),
    );
    let args = [
        "torrent",
        "create",
        &content,
        "--tracker",
        &tracker.url(),
        "-o",
        &output_file,
    ];
    let outcome = run(Path::new(DUNLIN), args, LIMIT).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    tracker.lose_one();
    let mut seeder = seed(&made, &many().home, free_address(), folder.path(), &[]);
    wait_until("we announced", LIMIT, || !tracker.announces().is_empty()).unwrap();
    let output = folder.path().join("many");
    let hash = libtorrent.add(&made, &output, &[]).unwrap();
    libtorrent.wait_complete(&hash, LIMIT).unwrap();
    many().verify(&output);
    // A magnet link, from the metadata that we give.
    let again = Libtorrent::start().unwrap();
    let output = folder.path().join("again");
    let link = format!(
        "magnet:?xt=urn:btih:{hash}&tr={}",
        tracker.url().replace(':', "%3A").replace('/', "%2F")
    );
    again.add_magnet(&link, &output, &[]).unwrap();
    again.wait_complete(&hash, LIMIT).unwrap();
    many().verify(&output);

    assert!(
        seeder.interrupt(LIMIT).unwrap().success(),
        "Ctrl-C ends it well: {}",
        seeder.log_tail()
    );
    let mut ours = tracker
        .announces()
        .into_iter()
        .filter(|announce| announce.peer_id.starts_with(b"-DN"));
    assert_eq!(ours.next_back().unwrap().event, "stopped");
}

#[test]
fn we_fetch_from_transmission() {
    let folder = tempfile::tempdir().unwrap();
    let tracker = UdpTracker::start().unwrap();
    let transmission = Transmission::start().unwrap();
    let address = transmission.address().to_string();

    let hash = transmission.add(&large().path, &large().home).unwrap();
    transmission.wait_complete(&hash, LIMIT).unwrap();
    let output = folder.path().join("large");
    get(&large().path.display().to_string(), &output, &["--peer", &address]);
    large().verify(&output);

    let tracked = many().with_tracker(&tracker.url(), folder.path());
    let hash = transmission.add(&tracked, &many().home).unwrap();
    transmission.wait_complete(&hash, LIMIT).unwrap();
    wait_until("Transmission announced", LIMIT, || !tracker.announces().is_empty()).unwrap();
    let output = folder.path().join("many");
    get(&many().torrent.magnet(&[], Some(&tracker.url())), &output, &[]);
    many().verify(&output);
}

#[test]
fn transmission_fetches_from_us() {
    let folder = tempfile::tempdir().unwrap();
    let tracker = HttpTracker::start().unwrap();
    let transmission = Transmission::start().unwrap();
    let address = transmission.address().to_string();

    // Transmission dials no loopback address: we dial it, named by hand here and by the tracker below.
    let output = folder.path().join("large");
    let hash = transmission.add(&large().path, &output).unwrap();
    let seeder = seed(
        &large().path,
        &large().home,
        free_address(),
        folder.path(),
        &["--peer", &address],
    );
    transmission.wait_complete(&hash, LIMIT).unwrap();
    large().verify(&output);
    drop(seeder);

    let output = folder.path().join("many");
    let hash = transmission
        .add_magnet(&many().torrent.magnet(&[], Some(&tracker.url())), &output)
        .unwrap();
    wait_until("Transmission announced", LIMIT, || !tracker.announces().is_empty()).unwrap();
    let tracked = many().with_tracker(&tracker.url(), folder.path());
    let seeder = seed(&tracked, &many().home, free_address(), folder.path(), &[]);
    transmission.wait_complete(&hash, LIMIT).unwrap();
    many().verify_without_empty(&output);
    assert_eq!(transmission.status(&hash).unwrap()["corruptEver"], 0);
    drop(seeder);
}

/// A file of 16 MiB for the liar's tests.
fn small(folder: &Path) -> Content {
    content::write_file(&folder.join("seed").join("small.bin"), 16 << 20, 43).unwrap();
    Content::new(&folder.join("seed"), "small.bin", 64 << 10)
}

#[test]
fn a_liar_is_caught_its_block_fetched_again_and_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let liar = Liar::start(
        content.torrent.clone(),
        Ipv4Addr::new(127, 0, 0, 21),
        Lie::Pieces(vec![7]),
    )
    .unwrap();
    let honest = Libtorrent::start().unwrap();
    let hash = honest.seed(&content.path, &content.home).unwrap();

    let listen = free_address();
    let output = folder.path().join("got");
    let args = [
        "torrent".to_owned(),
        "get".to_owned(),
        content.path.display().to_string(),
        format!("--output={}", output.display()),
        format!("--peer={}", liar.address()),
        format!("--listen={listen}"),
        "--no-dht".to_owned(),
        "--no-lsd".to_owned(),
    ];
    let mut download = start_command(Path::new(DUNLIN), &args, &folder.path().join("get.log")).unwrap();
    wait_until("the liar lies", LIMIT, || liar.corrupt_blocks() > 0).unwrap();
    wait_until("the liar is dropped", LIMIT, || liar.hung_up_on() == liar.connections()).unwrap();
    download.check_alive().unwrap();
    assert!(
        liar.honest_blocks() > 0,
        "the liar gave good blocks too, and was trusted until it lied"
    );

    let handshakes = liar.handshakes();
    honest.connect(&hash, listen).unwrap();
    assert!(download.wait(LIMIT).unwrap().success(), "{}", download.log_tail());
    content.verify(&output);
    assert_eq!(liar.handshakes(), handshakes, "nobody talked to the liar again");
    // libtorrent adds up its figures once in a while.
    wait_until("the honest peer gave the corrupt piece anew", LIMIT, || {
        honest.status(&hash).unwrap()["uploaded"].as_u64().unwrap() >= content.torrent.piece_length
    })
    .unwrap();
    let log = download.log();
    assert!(
        log.contains("piece 7") && log.contains(&liar.address().ip().to_string()),
        "{log}"
    );
}

#[test]
fn a_liar_among_honest_peers_spoils_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let liar = Liar::start(content.torrent.clone(), Ipv4Addr::new(127, 0, 0, 22), Lie::Always).unwrap();
    let honest = Libtorrent::start().unwrap();
    let hash = honest.seed(&content.path, &content.home).unwrap();
    // Slow enough that the liar has its turn, and that both give blocks of the same pieces at the end.
    honest.limit(&hash, 4 << 20, 0).unwrap();

    let output = folder.path().join("got");
    let peers = [liar.address(), honest.address()].map(|peer| peer.to_string());
    get(
        &content.path.display().to_string(),
        &output,
        &["--peer", &peers[0], "--peer", &peers[1]],
    );
    content.verify(&output);
    assert!(liar.corrupt_blocks() > 0, "the liar was asked");
    // Were it asked for ever, it would give about as much as the honest peer.
    let lies = liar.corrupt_blocks() * 16_384;
    assert!(
        lies < content.torrent.total / 2,
        "the liar was believed too long: {lies} bytes"
    );
}
