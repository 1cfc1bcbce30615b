//! Block files that a real bitcoind has written, plain and XOR-ed, and the program's own made anew from its files.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dunlin_testkit::coins::Holder;
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::{Dunlin, run};
use dunlin_testkit::wait_until;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

fn reaches(dunlin: &Dunlin, hash: &str) {
    wait_until("dunlin has bitcoind's tip", LIMIT, || {
        dunlin.best_hash().is_ok_and(|best| best == hash)
    })
    .unwrap();
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn cores_block_files_are_loaded_plain_and_masked() {
    for xor in [0, 1] {
        let mut core = Bitcoind::start(Options {
            extra: vec![format!("-blocksxor={xor}")],
            ..Options::default()
        })
        .unwrap();
        core.generate(150, &Holder::new(1).address()).unwrap();
        let tip = core.best_hash().unwrap();
        core.stop().unwrap();
        let blocks = core.folder().join("regtest").join("blocks");
        let file = blocks.join("blk00000.dat");
        let head = std::fs::read(&file).unwrap()[..4].to_vec();
        assert_eq!(head == [0xfa, 0xbf, 0xb5, 0xda], xor == 0);
        for path in [&blocks, &file] {
            let path = path.to_str().unwrap();
            let mut dunlin = Dunlin::start(env!("CARGO_BIN_EXE_dunlin"), &["--load-block", path]).unwrap();
            reaches(&dunlin, &tip);
            // What was loaded is ours now, and can be made anew from our own files.
            for option in ["--reindex", "--reindex-chainstate"] {
                dunlin.stop().unwrap();
                dunlin.set_extra(&[option]);
                dunlin.restart().unwrap();
                reaches(&dunlin, &tip);
            }
            assert!(
                dunlin.log().contains("finding blocks: done; 151 new blocks"),
                "{}",
                dunlin.log()
            );
            // The check works on the running peer and on its files, finds a flipped bit, and has it mended.
            let checked = dunlin
                .cli(&["chain", "verify", "0", "--level", "4", "--network", "regtest"])
                .unwrap();
            assert!(checked.ok().unwrap().contains("checked 150 blocks at level 4"));
            dunlin.stop().unwrap();
            flip(&dunlin.folder().join("regtest").join("blocks").join("rev00000.dat"), 40);
            let verify = |more: &[&str]| {
                let all = [
                    &["chain", "verify", "0", "--level", "4", "--network", "regtest"][..],
                    more,
                ]
                .concat();
                dunlin.cli(&all).unwrap()
            };
            let broken = verify(&[]);
            assert_eq!(broken.code, Some(1), "{broken:?}");
            assert!(broken.stdout.contains("rev00000.dat is damaged"), "{broken:?}");
            assert!(verify(&["--repair"]).ok().unwrap().contains("repaired"));
            assert!(!verify(&[]).ok().unwrap().contains("damaged"));
            dunlin.set_extra(&["--prune", "1"]);
            dunlin.restart().unwrap();
            reaches(&dunlin, &tip);
            assert_eq!(dunlin.call("getblockchaininfo", json!([])).unwrap()["pruned"], true);
            let services = dunlin.call("getnetworkinfo", json!([])).unwrap()["localservicesnames"].to_string();
            assert!(
                services.contains("\"NETWORK_LIMITED\"") && !services.contains("\"NETWORK\""),
                "{services}"
            );
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let program = env!("CARGO_BIN_EXE_dunlin").as_ref();
    for (args, text) in [
        (["--load-block", "/nowhere/blk00000.dat"], "/nowhere/blk00000.dat"),
        (["--load-block", data.as_str()], "no blk"),
        (["--prune", "549"], "at least 550"),
    ] {
        let all = [
            "run",
            "--network",
            "regtest",
            "--data-dir",
            &data,
            "--listen",
            "127.0.0.1:0",
        ];
        let rest = ["--rpc-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
        let output = run(program, all.iter().chain(&rest).chain(&args), LIMIT).unwrap();
        assert_ne!(output.code, Some(0), "{args:?}");
        assert!(output.stderr.contains(text), "{args:?}: {}", output.stderr);
    }
}
