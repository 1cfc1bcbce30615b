//! Who may import whom: the walls of the house, read from `cargo metadata`.

#![allow(clippy::unwrap_used)]

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Each crate with those of ours that it may import. A crate that is not listed may import nothing of ours.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("peer", &[]),
    ("store", &[]),
    ("chain", &["store"]),
    ("mempool", &["chain"]),
    ("relay", &["peer", "chain", "mempool"]),
    ("torrent", &["peer", "store"]),
    ("wallet", &["chain", "mempool"]),
    ("net", &["peer"]),
    ("api", &["peer", "chain", "mempool", "relay", "torrent", "wallet"]),
    (
        "sim",
        &["peer", "store", "chain", "mempool", "relay", "torrent", "wallet"],
    ),
    ("testkit", &[]),
    (
        "",
        &[
            "peer", "store", "chain", "mempool", "relay", "torrent", "wallet", "net", "api", "sim",
        ],
    ),
];

/// The protocols' crates, which know no socket, no clock and no runtime.
const MACHINES: [&str; 7] = ["peer", "store", "chain", "mempool", "relay", "torrent", "sim"];

/// Packages that bring sockets or a runtime.
const SOCKETS: [&str; 8] = ["tokio", "mio", "socket2", "async-std", "smol", "ureq", "axum", "hyper"];

/// The short name of one of our crates: `dunlin-relay` is `relay`, the program itself is empty.
fn short(name: &str) -> Option<&str> {
    if name == "dunlin" {
        Some("")
    } else {
        name.strip_prefix("dunlin-")
    }
}

fn ours() -> Vec<Package> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec();
    metadata.unwrap().packages
}

/// Every forbidden arrow, as `from -> to`.
fn wrong_arrows(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for package in packages {
        let from = short(&package.name).unwrap_or_else(|| panic!("{} is not named like ours", package.name));
        for dependency in &package.dependencies {
            let Some(to) = short(&dependency.name) else { continue };
            // Tests of any crate may use the test kit.
            let test_kit = to == "testkit" && dependency.kind == DependencyKind::Development;
            if !test_kit && !allowed.get(from).is_some_and(|allowed| allowed.contains(to)) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    wrong
}

#[test]
fn every_arrow_points_the_right_way() {
    let packages = ours();
    assert!(packages.len() >= 11, "the whole workspace is read");
    assert_eq!(wrong_arrows(&packages), Vec::<String>::new());
}

#[test]
fn a_wrong_arrow_is_seen() {
    let mut packages = ours();
    let net = packages.iter().find(|package| package.name == "dunlin").unwrap();
    let net = net
        .dependencies
        .iter()
        .find(|dependency| dependency.name == "dunlin-net")
        .unwrap()
        .clone();
    let relay = packages
        .iter_mut()
        .find(|package| package.name == "dunlin-relay")
        .unwrap();
    relay.dependencies.push(net);
    assert_eq!(wrong_arrows(&packages), ["dunlin-relay -> dunlin-net"]);
}

#[test]
fn machines_import_no_sockets() {
    for package in ours() {
        let Some(name) = short(&package.name).filter(|name| MACHINES.contains(name)) else {
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            assert!(
                !SOCKETS.contains(&dependency.name.as_str()),
                "{name} imports {}",
                dependency.name
            );
        }
    }
}
