//! Against real libtorrent and Transmission, both directions: a large file, a folder of many small ones, from a .torrent
//! and from a magnet link, peers named by hand and found through trackers; and against a peer that lies.

#![allow(clippy::unwrap_used)]

mod dht;
mod encryption;
mod fixture;
mod lsd;
mod manage;
mod matrix;
mod pex;
mod stream;
mod utp;
mod v2;

use dunlin_testkit::dunlin::{run, start_command};
use dunlin_testkit::free_address;
use dunlin_testkit::liar::{Liar, Lie};
use dunlin_testkit::libtorrent::Libtorrent;

use dunlin_testkit::tracker::HttpTracker;
use dunlin_testkit::transmission::Transmission;
use dunlin_testkit::udp_tracker::UdpTracker;
use dunlin_testkit::wait_until;
use fixture::{DUNLIN, LIMIT, get, large, many, seed, small};
use std::net::Ipv4Addr;
use std::path::Path;

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
        // The liar never hangs up, also not on what it does not understand.
        "--torrent-encryption=off".to_owned(),
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
        &["--torrent-encryption=off", "--peer", &peers[0], "--peer", &peers[1]],
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
