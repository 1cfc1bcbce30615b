//! The dashboard as browsers and scripts meet it: token, Host, Origin, snapshot, live events, actions, metrics.

#![allow(clippy::unwrap_used)]

mod lab;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_api::dashboard::{Token, serve};
use dunlin_api::{Node, rpc};
use dunlin_chain::Network;
use dunlin_peer::Direction;
use lab::{Lab, Shelf, http, listener, node, peer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const HASH: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";

struct Site {
    addr: SocketAddr,
    token: String,
    node: Arc<Node>,
    lab: Arc<Lab>,
    shelf: Arc<Shelf>,
    _dir: tempfile::TempDir,
}

async fn start() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::load_or_create(&dir.path().join("api-token")).unwrap();
    let (lab, shelf) = (Lab::new(Network::Regtest), Arc::new(Shelf::default()));
    let node = node(&lab, &shelf);
    let (listener, addr) = listener().await;
    let text = token.as_str().to_owned();
    tokio::spawn(serve(listener, Arc::clone(&node), token, &[], node.stop.clone()));
    Site {
        addr,
        token: text,
        node,
        lab,
        shelf,
        _dir: dir,
    }
}

impl Site {
    fn cookie(&self) -> String {
        format!("Cookie: other=1; dunlin-{}={}", self.addr.port(), self.token)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    fn origin(&self) -> String {
        format!("Origin: http://{}", self.addr)
    }

    async fn mine(&self, blocks: u32) {
        let shared = rpc::Shared::new(Arc::clone(&self.node));
        let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let params = rpc::Params::Positional(vec![blocks.into(), address.into()]);
        let hashes = rpc::call(
            &shared,
            rpc::Request {
                method: "generatetoaddress".into(),
                params,
            },
        )
        .await
        .unwrap();
        assert_eq!(hashes.as_array().unwrap().len(), blocks as usize);
    }
}

#[tokio::test]
async fn the_token_becomes_a_cookie_and_nothing_shows_without_it() {
    let site = start().await;
    for path in ["/", "/api/status", "/api/events", "/metrics"] {
        let reply = http(site.addr, "GET", path, &[], b"").await;
        assert_eq!(reply.status, 401, "{path}");
        assert!(!reply.body.contains("height\""), "{path}");
    }
    let wrong = http(site.addr, "GET", &format!("/?token={}", "0".repeat(64)), &[], b"").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let reply = http(site.addr, "GET", &format!("/?token={}", site.token), &[], b"").await;
    assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
    let cookie = reply.header("set-cookie").unwrap();
    let start = format!("dunlin-{}={}; ", site.addr.port(), site.token);
    assert!(
        cookie.starts_with(&start) && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );

    let page = http(site.addr, "GET", "/", &[&site.cookie()], b"").await;
    assert_eq!(page.status, 200);
    for id in [
        "id=\"height\"",
        "id=\"tip\"",
        "id=\"mempool-count\"",
        "id=\"peer-count\"",
        "id=\"torrent-count\"",
    ] {
        assert!(page.body.contains(id), "{id}");
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(!page.body.contains("<script>") && !page.body.contains("http://") && !page.body.contains("https://"));
    for part in ["/app.js", "/style.css", "/icon.svg"] {
        let reply = http(site.addr, "GET", part, &[], b"").await;
        assert_eq!(
            (reply.status, reply.header("x-content-type-options")),
            (200, Some("nosniff")),
            "{part}"
        );
    }
    let other = http(site.addr, "GET", "/", &[&site.cookie(), "Host: evil.example"], b"").await;
    assert_eq!(other.status, 403);
    assert_eq!(
        http(site.addr, "GET", "/nothing", &[&site.cookie()], b"").await.status,
        404
    );
}

#[tokio::test]
async fn the_snapshot_tells_what_is_there() {
    let site = start().await;
    site.mine(3).await;
    site.lab
        .peers
        .lock()
        .unwrap()
        .push(peer(4, "192.0.2.4:8333", Direction::Inbound));
    let hash = HASH.parse().unwrap();
    site.shelf
        .torrents
        .lock()
        .unwrap()
        .insert(hash, lab::torrent(hash, "a <b>name</b>"));
    let now = http(site.addr, "GET", "/api/status", &[&site.bearer()], b"")
        .await
        .json();
    assert_eq!(now["network"], "regtest");
    assert_eq!(
        (&now["bitcoin"]["height"], &now["bitcoin"]["headers"]),
        (&3.into(), &3.into())
    );
    assert_eq!(now["bitcoin"]["blocks"].as_array().unwrap().len(), 4);
    assert_eq!(now["bitcoin"]["blocks"][0]["hash"], now["bitcoin"]["tip"]);
    assert_eq!(now["bitcoin"]["progress"], 1.0);
    assert_eq!(now["peer_count"], 2);
    assert_eq!(
        (&now["peers"][0]["direction"], &now["peers"][1]["network"]),
        (&"in".into(), &"bittorrent".into())
    );
    assert_eq!(now["torrent"]["list"][0]["map"], "9090");
    assert_eq!(now["torrent"]["list"][0]["state"], "downloading");

    let metrics = http(site.addr, "GET", "/metrics", &[&site.bearer()], b"").await;
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "dunlin_info{version=\"0.1.0\",network=\"regtest\"} 1",
        "# TYPE dunlin_chain_height gauge\ndunlin_chain_height 3",
        "dunlin_peers{network=\"bitcoin\",direction=\"in\"} 1",
        "dunlin_bitcoin_received_bytes_total 4000",
        "dunlin_torrents 1",
    ] {
        assert!(metrics.body.contains(line), "{line}\n{}", metrics.body);
    }
}

#[tokio::test]
async fn changes_need_our_own_origin() {
    let site = start().await;
    let magnet = format!("magnet:?xt=urn:btih:{HASH}");
    let post = async |headers: &[&str]| http(site.addr, "POST", "/api/torrents", headers, magnet.as_bytes()).await;
    let (cookie, origin, bearer) = (site.cookie(), site.origin(), site.bearer());
    assert_eq!(post(&[]).await.status, 401);
    assert_eq!(post(&[&cookie]).await.status, 403);
    assert_eq!(post(&[&cookie, "Origin: http://evil.example"]).await.status, 403);
    assert_eq!(post(&[&cookie, "Origin: null"]).await.status, 403);
    assert_eq!(
        post(&[&cookie, &origin, "Sec-Fetch-Site: cross-site"]).await.status,
        403
    );
    assert!(site.shelf.torrents.lock().unwrap().is_empty());
    let reply = post(&[&cookie, &origin]).await;
    assert_eq!((reply.status, &reply.json()["info_hash"]), (200, &HASH.into()));
    assert_eq!(post(&[&bearer]).await.status, 409);

    let act = async |action: &str| {
        http(
            site.addr,
            "POST",
            &format!("/api/torrents/{action}"),
            &[&cookie, &origin],
            b"",
        )
        .await
        .status
    };
    let state = || {
        site.shelf
            .torrents
            .lock()
            .unwrap()
            .values()
            .next()
            .map(|status| status.state.clone())
    };
    assert_eq!(act(&format!("{HASH}/pause")).await, 200);
    assert_eq!(state(), Some(dunlin_api::backend::State::Paused));
    assert_eq!(act(&format!("{HASH}/resume")).await, 200);
    assert_eq!(state(), Some(dunlin_api::backend::State::Downloading));
    assert_eq!(act(&format!("{HASH}/explode")).await, 404);
    assert_eq!(act("xyz/pause").await, 400);
    assert_eq!(act(&format!("{HASH}/remove?delete_files=true")).await, 200);
    assert_eq!(act(&format!("{HASH}/remove")).await, 404);
    assert_eq!(state(), None);
}

#[tokio::test]
async fn what_is_no_torrent_is_refused_with_a_reason() {
    let site = start().await;
    let bearer = site.bearer();
    let file = "Content-Type: application/x-bittorrent";
    for (headers, body) in [
        (vec![bearer.as_str()], &b"magnet:?dn=nothing"[..]),
        (vec![&bearer], b"\xff\xfe"),
        (vec![&bearer], b"hello"),
        (vec![&bearer, file], b"d4:infode"),
        (vec![&bearer, file], b""),
    ] {
        let reply = http(site.addr, "POST", "/api/torrents", &headers, body).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(!reply.json()["error"].as_str().unwrap().is_empty());
    }
    let reply = http(
        site.addr,
        "POST",
        "/api/torrents",
        &[&bearer],
        &vec![b'x'; (16 << 20) + 1],
    )
    .await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn events_follow_the_chain_and_end_with_the_node() {
    let site = start().await;
    let mut stream = tokio::net::TcpStream::connect(site.addr).await.unwrap();
    let request = format!(
        "GET /api/events HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n",
        site.addr,
        site.cookie()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || loop {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .unwrap()
            .unwrap();
        match line {
            None => return None,
            Some(line) => {
                if let Some(data) = line.strip_prefix("data: ") {
                    return Some(serde_json::from_str::<serde_json::Value>(data).unwrap());
                }
            }
        }
    };
    assert_eq!(next().await.unwrap()["bitcoin"]["height"], 0);
    site.mine(2).await;
    let mut height = 0;
    for _ in 0..5 {
        height = next().await.unwrap()["bitcoin"]["height"].as_u64().unwrap();
        if height == 2 {
            break;
        }
    }
    assert_eq!(height, 2);
    site.node.stop.trigger();
    while next().await.is_some() {}
}
