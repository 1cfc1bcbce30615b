//! uTP with real libtorrents that speak nothing else: both sides dial, in plain and encrypted.

use crate::fixture::{LIMIT, get, seed, small};
use dunlin_testkit::free_address;
use dunlin_testkit::libtorrent::Libtorrent;
use serde_json::json;

/// One that takes and makes links over uTP only; `policy` is its numbers' 0 for encryption forced, 2 for none.
fn libtorrent(policy: u8) -> Libtorrent {
    let settings = json!({
        "enable_incoming_utp": true,
        "enable_outgoing_utp": true,
        "enable_incoming_tcp": false,
        "enable_outgoing_tcp": false,
        "in_enc_policy": policy,
        "out_enc_policy": policy,
    });
    Libtorrent::start_with(&settings).unwrap()
}

#[test]
fn we_fetch_from_libtorrent_over_utp() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    for policy in [2, 0] {
        let theirs = libtorrent(policy);
        theirs.seed(&content.path, &content.home).unwrap();
        let output = folder.path().join(format!("got{policy}"));
        let (torrent, peer) = (content.path.display().to_string(), theirs.address().to_string());
        get(&torrent, &output, &["--peer", &peer]);
        content.verify(&output);
    }
}

#[test]
fn libtorrent_fetches_from_us_over_utp() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let listen = free_address();
    let _ours = seed(&content.path, &content.home, listen, folder.path(), &[]);
    for policy in [2, 0] {
        let theirs = libtorrent(policy);
        let output = folder.path().join(format!("got{policy}"));
        let hash = theirs.add(&content.path, &output, &[listen]).unwrap();
        theirs.wait_complete(&hash, LIMIT).unwrap();
        content.verify(&output);
    }
}
