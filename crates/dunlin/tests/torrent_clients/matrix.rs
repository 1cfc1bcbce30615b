//! Who exchanges what with us: versions, directions, transports, sources, with libtorrent and Transmission. The test
//! prints the table of what passed (`--nocapture` shows it).

use std::path::Path;

use dunlin_testkit::dunlin::run;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::transmission::Transmission;
use dunlin_testkit::{content, free_address};
use dunlin_torrent::Metainfo;
use serde_json::{Value, json};

use crate::fixture::{DUNLIN, LIMIT, Sums, seed};
use crate::v2::magnets;

const VERSIONS: [&str; 3] = ["v1", "v2", "hybrid"];
const TRANSPORTS: [&str; 3] = ["TCP", "uTP", "encrypted"];
const SOURCES: [&str; 2] = ["torrent", "magnet"];

/// libtorrent's settings for a transport.
fn settings(transport: &str) -> Value {
    match transport {
        "TCP" => json!({}),
        "uTP" => json!({
            "enable_incoming_utp": true,
            "enable_outgoing_utp": true,
            "enable_incoming_tcp": false,
            "enable_outgoing_tcp": false,
        }),
        _ => json!({"in_enc_policy": 0, "out_enc_policy": 0}),
    }
}

struct Cases {
    sums: Sums,
    rows: Vec<(String, Result<(), String>)>,
}

impl Cases {
    fn add(&mut self, name: String, output: &Path, result: anyhow::Result<()>) {
        let result = result.and_then(|()| {
            let copy = content::sha256_tree(&output.join("folder"))?;
            anyhow::ensure!(copy == self.sums, "the copy differs");
            Ok(())
        });
        self.rows.push((name, result.map_err(|error| format!("{error:#}"))));
    }
}

fn fetch(source: &str, output: &Path, peer: &str) -> anyhow::Result<()> {
    let output = output.display().to_string();
    let args = [
        "torrent", "get", source, "--output", &output, "--peer", peer, "--no-dht", "--no-lsd",
    ];
    let outcome = run(
        Path::new(DUNLIN),
        [&args[..], &["--stall-timeout", "30"]].concat(),
        LIMIT,
    )?;
    anyhow::ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn everybody_exchanges_everything() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for (n, size) in [5, 16_384, 70_000, 1_500_000].into_iter().enumerate() {
        content::write_file(&home.join(format!("folder/{n}/file")), size, n as u64 + 70).unwrap();
    }
    let mut cases = Cases {
        sums: content::sha256_tree(&home.join("folder")).unwrap(),
        rows: Vec::new(),
    };
    for version in VERSIONS {
        let torrent = dir.path().join(format!("{version}.torrent"));
        let (folder, file) = (home.join("folder").display().to_string(), torrent.display().to_string());
        let (option, length) = (format!("--{version}"), "32768");
        let args = [
            "torrent",
            "create",
            &folder,
            &option,
            "--piece-length",
            length,
            "-o",
            &file,
        ];
        assert_eq!(run(Path::new(DUNLIN), args, LIMIT).unwrap().code, Some(0));
        let metainfo = Metainfo::parse(&std::fs::read(&torrent).unwrap()).unwrap();
        let link = magnets(&metainfo).pop().unwrap().to_string();

        let listen = free_address();
        let _ours = seed(&torrent, &home, listen, dir.path(), &[]);
        for transport in TRANSPORTS {
            let theirs = Libtorrent::start_with(&settings(transport)).unwrap();
            theirs.add(&torrent, &home, &[]).unwrap();
            for source in SOURCES {
                let output = dir.path().join(format!("{version}-{transport}-{source}"));
                let text = if source == "magnet" { &link } else { &file };
                let result = fetch(text, &output, &theirs.address().to_string());
                cases.add(
                    format!("{version:<7} from libtorrent   {transport:<10} {source}"),
                    &output,
                    result,
                );

                let leech = Libtorrent::start_with(&settings(transport)).unwrap();
                let output = dir.path().join(format!("{version}-{transport}-{source}-theirs"));
                let result = match source {
                    "magnet" => leech.add_magnet(&link, &output, &[listen]),
                    _ => leech.add(&torrent, &output, &[listen]),
                };
                let result = result.and_then(|hash| leech.wait_complete(&hash, LIMIT));
                cases.add(
                    format!("{version:<7} to libtorrent     {transport:<10} {source}"),
                    &output,
                    result,
                );
            }
        }
        if version != "v1" {
            continue;
        }
        for source in SOURCES {
            let theirs = Transmission::start().unwrap();
            let hash = theirs.add(&torrent, &home).unwrap();
            theirs.wait_complete(&hash, LIMIT).unwrap();
            let output = dir.path().join(format!("transmission-{source}"));
            let text = if source == "magnet" { &link } else { &file };
            let result = fetch(text, &output, &theirs.address().to_string());
            cases.add(
                format!("{version:<7} from Transmission TCP        {source}"),
                &output,
                result,
            );

            let leech = Transmission::start().unwrap();
            let output = dir.path().join(format!("transmission-{source}-theirs"));
            let hash = match source {
                "magnet" => leech.add_magnet(&link, &output),
                _ => leech.add(&torrent, &output),
            };
            // It dials no loopback address: we dial it.
            let peer = leech.address().to_string();
            let _ours = seed(&torrent, &home, free_address(), dir.path(), &["--peer", &peer]);
            let result = hash.and_then(|hash| leech.wait_complete(&hash, LIMIT));
            cases.add(
                format!("{version:<7} to Transmission   TCP        {source}"),
                &output,
                result,
            );
        }
    }
    println!("\nversion exchanged         transport  source   passed");
    for (name, result) in &cases.rows {
        println!("{name:<45} {}", if result.is_ok() { "yes" } else { "NO" });
    }
    let failed: Vec<_> = cases.rows.iter().filter(|(_, result)| result.is_err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(cases.rows.len(), 40);
}
