//! A large file from one libtorrent seed over loopback: Dunlin's daemon against libtorrent as the leech.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_testkit::content::write_file;
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::wait_until;
use serde_json::json;

use crate::cost::{Cost, Meter};
use crate::{Args, Rounds, Side};

const SIZE: u64 = 1 << 30;
const PIECE_LENGTH: u64 = 1 << 20;
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let content = folder.path().join("content.bin");
    write_file(&content, SIZE, 7)?;
    let torrent = Torrent::create(&content, PIECE_LENGTH, None)?;
    let file = folder.path().join("content.torrent");
    torrent.save(&file)?;
    let rounds = Rounds::run(args, ROUNDS, |side| {
        let seed = Libtorrent::start()?;
        seed.seed(&file, folder.path())?;
        let cost = match side {
            Side::Dunlin => dunlin(&args.program, &file, &torrent.hash_hex(), seed.address())?,
            Side::Other => libtorrent(&file, &torrent.hash_hex(), seed.address())?,
        };
        Ok(cost.sample())
    })?;
    rounds.report("leech of 1 GiB in 1 MiB pieces from one libtorrent seed", "libtorrent");
    Ok(())
}

fn dunlin(program: &str, file: &Path, info_hash: &str, seed: SocketAddr) -> Result<Cost> {
    let leech = Dunlin::start(program, &["--disable", "bitcoin"])?;
    let meter = Meter::start(leech.pid())?;
    let bytes = BASE64_STANDARD.encode(std::fs::read(file)?);
    leech.call("torrent.add", json!({"torrent": bytes, "peers": [seed.to_string()]}))?;
    wait_until("dunlin has it all", LIMIT, || {
        leech
            .call("torrent.info", json!([info_hash]))
            .is_ok_and(|status| status["state"] == "seeding")
    })?;
    meter.read()
}

fn libtorrent(file: &Path, info_hash: &str, seed: SocketAddr) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let leech = Libtorrent::start()?;
    let meter = Meter::start(leech.pid())?;
    leech.add(file, folder.path(), &[seed])?;
    leech.wait_complete(info_hash, LIMIT)?;
    meter.read()
}
