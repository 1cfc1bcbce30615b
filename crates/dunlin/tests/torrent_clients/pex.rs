//! Peer exchange with real libtorrents: we learn from them, they learn from us.

use crate::fixture::{LIMIT, get, seed, small};
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::{free_address, wait_until};

#[test]
fn libtorrents_that_know_only_us_find_each_other_and_we_find_who_they_know() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let listen = free_address();
    let _ours = seed(&content.path, &content.home, listen, folder.path(), &[]);
    let leechers = [Libtorrent::start().unwrap(), Libtorrent::start().unwrap()];
    for (n, leecher) in leechers.iter().enumerate() {
        let output = folder.path().join(format!("theirs{n}"));
        let hash = leecher.add(&content.path, &output, &[listen]).unwrap();
        // So slow that it is still there to be met.
        leecher.limit(&hash, 0, 64 << 10).unwrap();
    }
    let hash = content.torrent.hash_hex();
    let knows = |one: &Libtorrent, other: &Libtorrent| {
        let peers = one.peers(&hash).unwrap();
        peers.iter().any(|peer| peer["address"] == other.address().to_string())
    };
    wait_until("the two are connected", LIMIT, || {
        knows(&leechers[0], &leechers[1]) || knows(&leechers[1], &leechers[0])
    })
    .unwrap();

    // The first has but a part; the rest must come from the seed that it tells us of.
    let done = leechers[0].status(&hash).unwrap()["progress"].as_f64().unwrap();
    assert!(done < 0.8, "{done} of it is there already");
    let output = folder.path().join("fetched");
    let peer = leechers[0].address().to_string();
    get(&content.path.display().to_string(), &output, &["--peer", &peer]);
    content.verify(&output);
}
