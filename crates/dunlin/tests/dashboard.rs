//! The dashboard in a real browser: its numbers move by themselves.

#![allow(clippy::unwrap_used)]

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use dunlin_testkit::browser::Browser;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::content;
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::wait::{wait_equal, wait_until};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn live_numbers_move_without_a_reload() {
    let dunlin = Dunlin::start(DUNLIN, &[]).unwrap();
    let core = Bitcoind::start(Options {
        connect: vec![dunlin.doors().p2p],
        ..Options::default()
    })
    .unwrap();
    let miner = Holder::new(1);
    dunlin.call("generatetoaddress", json!([137, miner.address()])).unwrap();
    wait_until("Core follows", LIMIT, || core.height().unwrap() == 137).unwrap();

    let browser = Browser::start(1280, 1600).unwrap();
    browser.open(&dunlin.dashboard().unwrap()).unwrap();
    // Gone after a reload: what follows is the work of one and the same page.
    browser
        .run(
            "window.testkitWasHere = true; window.testkitErrors = []; \
                 window.addEventListener('error', event => window.testkitErrors.push(String(event.message)))",
        )
        .unwrap();
    let element = |id: &str| {
        browser
            .run(&format!("return document.getElementById('{id}').innerText"))
            .unwrap()
    };
    let becomes = |id: &str, value: &str| {
        wait_equal(&format!("{id} on the page"), LIMIT, || element(id), || json!(value)).unwrap();
    };
    becomes("height", "137");
    becomes("peer-count", "1");
    wait_until("the peer is named", LIMIT, || {
        browser.text().unwrap().contains("Satoshi")
    })
    .unwrap();

    dunlin.call("generatetoaddress", json!([1, miner.address()])).unwrap();
    becomes("height", "138");
    let tip = dunlin.best_hash().unwrap();
    assert_eq!(
        browser.run("return document.getElementById('tip').title").unwrap(),
        json!(tip)
    );

    becomes("mempool-count", "0");
    let coin = coinbase_coin(&core.block(&core.hash_at(1).unwrap()).unwrap());
    let payment = miner.pay(coin, &Holder::new(2), Amount::from_sat(5_000));
    core.call("sendrawtransaction", json!([serialize_hex(&payment)]))
        .unwrap();
    becomes("mempool-count", "1");

    becomes("torrent-count", "0");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seen-on-the-page.bin");
    content::write_file(&file, 2 << 20, 3).unwrap();
    let torrent = Torrent::create(&file, 65_536, None).unwrap();
    let path = folder.path().join("page.torrent");
    torrent.save(&path).unwrap();
    let (source, output) = (path.display().to_string(), folder.path().display().to_string());
    dunlin
        .cli(&["torrent", "add", &source, "--output", &output])
        .unwrap()
        .ok()
        .unwrap();
    becomes("torrent-count", "1");
    wait_until("the torrent is named", LIMIT, || {
        browser.text().unwrap().contains("seen-on-the-page")
    })
    .unwrap();

    assert_eq!(
        browser.run("return window.testkitWasHere === true").unwrap(),
        json!(true),
        "the page was reloaded"
    );
    assert_eq!(browser.run("return window.testkitErrors").unwrap(), json!([]));
    // Everything the page needs came from the daemon itself.
    let strangers = browser
        .run("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))")
        .unwrap();
    assert_eq!(strangers, json!([]));
    browser
        .screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.png"))
        .unwrap();
    browser.run("window.scrollTo(0, document.body.scrollHeight)").unwrap();
    browser
        .screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-end.png"))
        .unwrap();
}
