//! The DHT against real libtorrents: we find their peers, they find ours, and strangers meet through our node.

use crate::fixture::{DUNLIN, LIMIT, small};
use dunlin_testkit::child::Child;
use dunlin_testkit::dunlin::{run, start_command};
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::{free_address, wait_until};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;

/// A libtorrent whose DHT begins at `node`, with its guards against many nodes at one address off.
fn libtorrent(node: Option<SocketAddr>) -> Libtorrent {
    let settings = json!({
        "enable_dht": true,
        "dht_bootstrap_nodes": node.map(|node| node.to_string()).unwrap_or_default(),
        "dht_restrict_routing_ips": false,
        "dht_restrict_search_ips": false,
        "dht_max_peers_reply": 100,
        "dht_announce_interval": 10,
    });
    Libtorrent::start_with(&settings).unwrap()
}

/// `dunlin torrent seed` with the DHT; `node` is where it begins.
fn seed(torrent: &Path, data: &Path, listen: SocketAddr, node: SocketAddr, folder: &Path) -> Child {
    let [torrent, data] = [torrent, data].map(|path| path.display().to_string());
    let [listen_text, node] = [listen, node].map(|addr| addr.to_string());
    let args = [
        "torrent",
        "seed",
        &torrent,
        "--data",
        &data,
        "--listen",
        &listen_text,
        "--dht-node",
        &node,
        "--no-lsd",
    ];
    let mut child = start_command(Path::new(DUNLIN), args, &folder.join("seed.log")).unwrap();
    wait_until("dunlin seeds", LIMIT, || {
        child.check_alive().unwrap();
        child.log().contains("sharing ")
    })
    .unwrap();
    child
}

/// `dunlin torrent get` of a magnet link with nothing but the DHT.
fn get(magnet: &str, output: &Path, node: SocketAddr) {
    let [output, node] = [output.display().to_string(), node.to_string()];
    let args = [
        "torrent",
        "get",
        magnet,
        "--output",
        &output,
        "--listen",
        "127.0.0.1:0",
        "--dht-node",
        &node,
        "--no-lsd",
        "--stall-timeout",
        "90",
    ];
    let outcome = run(Path::new(DUNLIN), args, LIMIT).unwrap();
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
}

#[test]
fn we_find_libtorrents_and_they_find_us_by_the_dht_alone() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let magnet = content.torrent.magnet(&[], None);
    let hub = libtorrent(None);
    let seeder = libtorrent(Some(hub.address()));
    seeder.seed(&content.path, &content.home).unwrap();
    let output = folder.path().join("ours");
    get(&magnet, &output, hub.address());
    content.verify(&output);
    drop(seeder);

    let listen = free_address();
    let _ours = seed(&content.path, &content.home, listen, hub.address(), folder.path());
    let leecher = libtorrent(Some(hub.address()));
    let output = folder.path().join("theirs");
    let hash = leecher.add_magnet(&magnet, &output, &[]).unwrap();
    leecher.wait_complete(&hash, LIMIT).unwrap();
    content.verify(&output);
}

#[test]
fn two_libtorrents_meet_through_our_node() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    // Our node has another torrent to keep it busy; it knows nothing of the one that the others look for.
    let other = folder.path().join("other");
    dunlin_testkit::content::write_file(&other.join("other.bin"), 1 << 20, 5).unwrap();
    let torrent = dunlin_testkit::metainfo::Torrent::create(&other.join("other.bin"), 1 << 14, None).unwrap();
    torrent.save(&other.join("other.torrent")).unwrap();
    let ours = free_address();
    let nobody = free_address();
    let _node = seed(&other.join("other.torrent"), &other, ours, nobody, folder.path());

    let seeder = libtorrent(Some(ours));
    seeder.seed(&content.path, &content.home).unwrap();
    let leecher = libtorrent(Some(ours));
    let output = folder.path().join("theirs");
    let hash = leecher
        .add_magnet(&content.torrent.magnet(&[], None), &output, &[])
        .unwrap();
    leecher.wait_complete(&hash, LIMIT).unwrap();
    content.verify(&output);
}
