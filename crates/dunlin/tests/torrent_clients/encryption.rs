//! Encrypted links (MSE) with real libtorrents: both sides dial, each side insists, and who wants none is met in plain.

use crate::fixture::{LIMIT, get, seed, small};
use dunlin_testkit::free_address;
use dunlin_testkit::libtorrent::Libtorrent;
use serde_json::{Value, json};

/// libtorrent's numbers: 0 is forced, 1 enabled, 2 disabled; of ciphers 1 is none, 2 RC4, 3 both.
fn libtorrent(policy: u8, level: u8) -> Libtorrent {
    let settings: Value = json!({
        "in_enc_policy": policy,
        "out_enc_policy": policy,
        "allowed_enc_level": level,
        "prefer_rc4": false,
    });
    Libtorrent::start_with(&settings).unwrap()
}

#[test]
fn we_dial_libtorrents_that_require_or_refuse_encryption() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    for (n, (policy, level, ours)) in [
        (0, 2, "require"),
        (0, 2, "prefer"),
        (0, 1, "prefer"),
        (1, 3, "require"),
        (2, 3, "prefer"),
        (2, 3, "off"),
    ]
    .into_iter()
    .enumerate()
    {
        let theirs = libtorrent(policy, level);
        theirs.seed(&content.path, &content.home).unwrap();
        let output = folder.path().join(format!("got{n}"));
        let (torrent, peer) = (content.path.display().to_string(), theirs.address().to_string());
        get(&torrent, &output, &["--peer", &peer, "--torrent-encryption", ours]);
        content.verify(&output);
    }
}

#[test]
fn libtorrents_that_require_or_refuse_encryption_dial_us() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    for (n, (policy, level, ours)) in [(0, 2, "require"), (0, 1, "prefer"), (1, 3, "require"), (2, 3, "prefer")]
        .into_iter()
        .enumerate()
    {
        let listen = free_address();
        let _ours = seed(
            &content.path,
            &content.home,
            listen,
            folder.path(),
            &["--torrent-encryption", ours],
        );
        let theirs = libtorrent(policy, level);
        let output = folder.path().join(format!("got{n}"));
        let hash = theirs.add(&content.path, &output, &[listen]).unwrap();
        theirs.wait_complete(&hash, LIMIT).unwrap();
        content.verify(&output);
    }
}

#[test]
fn who_requires_encryption_gives_nothing_to_a_plain_libtorrent() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let listen = free_address();
    let ours = seed(
        &content.path,
        &content.home,
        listen,
        folder.path(),
        &["--torrent-encryption", "require"],
    );
    let plain = libtorrent(2, 3);
    let hash = plain
        .add(&content.path, &folder.path().join("plain"), &[listen])
        .unwrap();
    // The one that may be served comes after the one that may not.
    let encrypted = libtorrent(0, 2);
    let output = folder.path().join("encrypted");
    encrypted.add(&content.path, &output, &[listen]).unwrap();
    encrypted.wait_complete(&hash, LIMIT).unwrap();
    content.verify(&output);
    assert_eq!(plain.status(&hash).unwrap()["progress"].as_f64(), Some(0.0));
    let log = plain.log();
    assert!(log.contains(&listen.to_string()), "it tried: {log}");
    drop(ours);
}
