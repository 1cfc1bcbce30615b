//! Called as `bitcoind` and `bitcoin-cli`: what starts and drives Bitcoin Core starts and drives us.

#![allow(clippy::unwrap_used)]

use corepc_node::client::client_sync::v30::AddNodeCommand;
use corepc_node::{Conf, Node, P2P};
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core_build;
use dunlin_testkit::dunlin::{Output, run};
use dunlin_testkit::{free_address, wait_until};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Links to our program under Core's names.
struct Links(tempfile::TempDir);

impl Links {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bitcoind", "bitcoin-cli"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dunlin"), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn bitcoind(&self) -> PathBuf {
        self.0.path().join("bitcoind")
    }

    fn cli(&self) -> PathBuf {
        self.0.path().join("bitcoin-cli")
    }
}

fn call(program: &Path, dir: &Path, words: &[&str]) -> Output {
    let dir = format!("-datadir={}", dir.display());
    run(program, [&dir[..], "-regtest"].iter().chain(words), LIMIT).unwrap()
}

/// Ends a daemon in the background when its test fails.
struct KilledAtEnd(PathBuf);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(&self.0) {
            let _ = std::process::Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[test]
fn corepc_node_starts_and_drives_us() {
    let links = Links::new();
    let mut conf = Conf::default();
    conf.wallet = None;
    conf.p2p = P2P::Yes;
    conf.args.push("-txindex");
    let mut first = Node::with_conf(links.bitcoind(), &conf).unwrap();
    let regtest = first.workdir().join("regtest");
    for file in [".cookie", "debug.log", "bitcoind.pid", "blocks"] {
        assert!(regtest.join(file).exists(), "{file}");
    }

    let (alice, bob) = (Holder::new(1), Holder::new(2));
    let address = bitcoin::Address::from_str(&alice.address()).unwrap().assume_checked();
    let blocks = first.client.generate_to_address(101, &address).unwrap().0;
    assert_eq!(blocks.len(), 101);
    let info = first.client.get_blockchain_info().unwrap();
    assert_eq!((info.chain.as_str(), info.blocks), ("regtest", 101));
    assert_eq!(first.client.best_block_hash().unwrap().to_string(), blocks[100]);

    let block = first.client.get_block(blocks[0].parse().unwrap()).unwrap();
    let tx = alice.pay(coinbase_coin(&block), &bob, bitcoin::Amount::from_sat(1_000));
    let sent = first.client.send_raw_transaction(&tx).unwrap();
    assert_eq!(sent.0, tx.compute_txid().to_string());
    first.client.generate_to_address(1, &address).unwrap();
    let mined = first.client.get_raw_transaction(tx.compute_txid()).unwrap();
    assert_eq!(mined.0, bitcoin::consensus::encode::serialize_hex(&tx));

    conf.p2p = first.p2p_connect(true).unwrap();
    let second = Node::with_conf(links.bitcoind(), &conf).unwrap();
    wait_until("the second node has the first one's chain", LIMIT, || {
        second.client.get_block_count().unwrap().0 == 102
    })
    .unwrap();
    let peers = first.client.get_peer_info().unwrap().0;
    assert_eq!(peers.len(), 1);
    assert!(peers[0].inbound);
    let gone = first.params.p2p_socket.unwrap().to_string();
    second.client.add_node(&gone, AddNodeCommand::OneTry).unwrap();

    assert!(first.stop().unwrap().success());
    assert!(!regtest.join(".cookie").exists() && !regtest.join("bitcoind.pid").exists());
}

#[test]
fn the_client_prints_and_ends_as_cores_does() {
    let links = Links::new();
    let core = core_build::bitcoind().unwrap().with_file_name("bitcoin-cli");
    let dir = tempfile::tempdir().unwrap();
    let conf = format!(
        "regtest=1\nfallbackfee=0.0002\n[regtest]\nrpcport={}\nconnect=0\nlisten=0\nprinttoconsole=0\n",
        free_address().port()
    );
    std::fs::write(dir.path().join("bitcoin.conf"), conf).unwrap();

    // Nobody is there yet.
    let ours = call(&links.cli(), dir.path(), &["getblockcount"]);
    assert_eq!(ours.code, call(&core, dir.path(), &["getblockcount"]).code);
    assert!(
        ours.stderr.contains("Could not connect to the server"),
        "{}",
        ours.stderr
    );

    let _end = KilledAtEnd(dir.path().join("regtest/bitcoind.pid"));
    let started = call(&links.bitcoind(), dir.path(), &["-daemonwait"]);
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    let calls: &[&[&str]] = &[
        &["getblockcount"],
        &["getblockhash", "0"],
        &["generatetoaddress", "1", "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"],
        &["getblockhash", "77"],
        &["getblockhash", "seven"],
        &["-addrinfo"],
        &["-addrinfo", "x"],
        &["-getinfo"],
        &["-generate"],
        &["-netinfo"],
        &["-netinfo", "4"],
        &["-netinfo", "4", "o"],
        &["-netinfo", "x"],
        &["-netinfo", "0", "o"],
        &["echo", "1", "a"],
        &["echojson", "[1]"],
        &["-named", "createpsbt", "inputs=[]", "outputs={}", "psbt_version=0"],
        &["nosuchmethod"],
        &["getchaintips"],
        &["-named", "getblockhash", "height=0"],
        &["-rpcwait", "gettxout", &"0".repeat(64), "0"],
        &["-nosuchoption", "getblockcount"],
        &["-rpcpassword=wrong", "getblockcount"],
        &[],
    ];
    for words in calls {
        let (ours, theirs) = (call(&links.cli(), dir.path(), words), call(&core, dir.path(), words));
        assert_eq!(
            (ours.code, !ours.stderr.is_empty()),
            (theirs.code, !theirs.stderr.is_empty()),
            "{words:?}"
        );
        // Two calls that mine give two blocks; the first line of -netinfo names the client.
        let shown = |output: &Output| match words.first() {
            Some(&"generatetoaddress") => String::new(),
            Some(&"-netinfo") => output.stdout.lines().skip(1).collect::<Vec<_>>().join("\n"),
            _ => output.stdout.clone(),
        };
        assert_eq!(shown(&ours), shown(&theirs), "{words:?}");
        if ours.stderr.starts_with("error code") {
            assert_eq!(ours.stderr, theirs.stderr, "{words:?}");
        }
    }
    let info = call(&links.cli(), dir.path(), &["-getinfo"]).ok().unwrap();
    assert!(info.contains("Chain: regtest\nBlocks: 2\n"), "{info}");
    let stopping = call(&core, dir.path(), &["stop"]);
    assert_eq!(stopping.code, Some(0), "{}", stopping.stderr);
    wait_until("the daemon is gone", LIMIT, || {
        !dir.path().join("regtest/bitcoind.pid").exists()
    })
    .unwrap();
}

#[test]
fn what_core_refuses_is_refused_and_what_we_cannot_do_is_said() {
    let links = Links::new();
    let dir = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["-colour"], "Invalid parameter -colour"),
        (&["-signet"], "at most one"),
        (&["-peerbloomfilters"], "-peerbloomfilters cannot be carried out"),
        (&["word"], "unexpected token 'word'"),
        (&["-debug=colour"], "Unsupported logging category -debug=colour."),
        (&["-rpcbind=127.0.0.1", "-rpcallowip=nowhere"], "nowhere"),
    ];
    for (words, says) in cases {
        let output = call(&links.bitcoind(), dir.path(), words);
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{words:?}");
        assert!(
            output.stderr.starts_with("Error: ") && output.stderr.contains(says),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
    let version = call(&links.bitcoind(), dir.path(), &["-version"]).ok().unwrap();
    assert!(version.starts_with("Bitcoin Core daemon version v"), "{version}");
    std::fs::create_dir_all(dir.path().join("regtest/chainstate")).unwrap();
    std::fs::write(dir.path().join("regtest/chainstate/CURRENT"), "MANIFEST-000001\n").unwrap();
    let output = call(&links.bitcoind(), dir.path(), &[]);
    assert!(
        output.stderr.contains("holds the data of Bitcoin Core"),
        "{}",
        output.stderr
    );
}
