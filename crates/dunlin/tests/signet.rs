//! A signet of one's own beside a bitcoind that knows the same challenge (BIP 325).

#![allow(clippy::unwrap_used)]

use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{NetworkKind, PrivateKey, ScriptBuf};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait_until;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn key(number: u8) -> PrivateKey {
    PrivateKey::new(SecretKey::from_slice(&[number; 32]).unwrap(), NetworkKind::Test)
}

#[test]
fn bitcoind_takes_the_blocks_that_we_sign() {
    let challenge = format!("{:x}", ScriptBuf::new_p2pk(&key(1).public_key(&Secp256k1::new())));
    let core = Bitcoind::start(Options {
        signet_challenge: Some(challenge.clone()),
        ..Options::default()
    })
    .unwrap();
    let peer = core.p2p().to_string();
    let args = [
        "--network",
        "signet",
        "--signet-challenge",
        &challenge,
        "--connect",
        &peer,
    ];
    let mut node = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &args).unwrap();
    let info = node.call("getblockchaininfo", json!([])).unwrap();
    assert_eq!(
        (&info["chain"], &info["signet_challenge"]),
        (&json!("signet"), &json!(challenge))
    );

    let keys = tempfile::tempdir().unwrap();
    let file = |number: u8| {
        let path = keys.path().join(number.to_string());
        std::fs::write(&path, format!("{}\n", key(number).to_wif())).unwrap();
        path.display().to_string()
    };
    let refused = node.cli(&["mine", "--signet-key", &file(2)]).unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("asks for another key"), "{}", refused.stderr);
    let unsigned = node.cli(&["mine"]).unwrap();
    assert!(unsigned.stderr.contains("--signet-key"), "{}", unsigned.stderr);

    let mined = node
        .cli(&["mine", "2", "--signet-key", &file(1)])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(mined.lines().count(), 2);
    wait_until("bitcoind takes both", LIMIT, || core.height().unwrap() == 2).unwrap();
    assert_eq!(core.best_hash().unwrap(), mined.lines().last().unwrap());

    // The folder keeps its challenge.
    node.stop().unwrap();
    let verified = node.cli(&["chain", "verify", "0", "--network", "signet"]).unwrap();
    verified.ok().unwrap();
    node.set_extra(&["--network", "signet"]);
    node.restart_unready().unwrap();
    wait_until("it will not run another signet there", LIMIT, || {
        node.check_alive().is_err()
    })
    .unwrap();
    assert!(
        node.log()
            .contains(&format!("start with --signet-challenge {challenge}"))
    );
}
