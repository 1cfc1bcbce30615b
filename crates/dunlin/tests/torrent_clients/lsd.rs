//! Local service discovery (BEP 14): two peers that know nothing of each other, on one loopback.

use std::path::Path;

use crate::fixture::{DUNLIN, LIMIT, small};
use dunlin_testkit::dunlin::{run, start_command};
use dunlin_testkit::wait_until;

#[test]
fn peers_in_one_house_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let content = small(folder.path());
    let torrent = content.path.display().to_string();
    let output = folder.path().join("got").display().to_string();
    let alone = ["--listen", "127.0.0.1:0", "--no-dht", "--no-pex"];
    let data = content.home.display().to_string();
    let args = [&["torrent", "seed", &torrent, "--data", &data], &alone[..]].concat();
    let mut seed = start_command(Path::new(DUNLIN), &args, &folder.path().join("seed.log")).unwrap();
    wait_until("dunlin seeds", LIMIT, || seed.log().contains("sharing ")).unwrap();

    let get = ["torrent", "get", &torrent, "--output", &output];
    let deaf = [&get[..], &alone, &["--no-lsd", "--stall-timeout", "3"]].concat();
    assert_eq!(run(Path::new(DUNLIN), &deaf, LIMIT).unwrap().code, Some(1));
    let outcome = run(Path::new(DUNLIN), [&get[..], &alone].concat(), LIMIT).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    content.verify(Path::new(&output));
    seed.check_alive().unwrap();
}
