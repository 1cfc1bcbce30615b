//! The JSON-RPC endpoint as clients meet it: credentials, Host, forms of requests, batches, garbage.

#![allow(clippy::unwrap_used)]

mod lab;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_api::Stop;
use dunlin_api::rpc::{Auth, Cookie, Options, serve};
use dunlin_chain::Network;
use lab::{Lab, Reply, Shelf, http, listener, node};
use serde_json::{Value, json};

struct Server {
    addr: SocketAddr,
    basic: String,
    stop: Stop,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn with(auth: Auth) -> Options {
    Options {
        auth,
        ..Options::default()
    }
}

async fn start() -> Server {
    let (listener, addr) = listener().await;
    let mut auth = Auth::default();
    auth.add_password("user", "pass:word");
    let node = node(&Lab::new(Network::Regtest), &Arc::new(Shelf::default()));
    let stop = node.stop.clone();
    let task = tokio::spawn(serve(vec![listener], node, with(auth), stop.clone()));
    Server {
        addr,
        basic: format!("Authorization: Basic {}", STANDARD.encode("user:pass:word")),
        stop,
        task,
    }
}

impl Server {
    async fn post(&self, body: &str) -> Reply {
        http(
            self.addr,
            "POST",
            "/",
            &[&self.basic, "Content-Type: text/plain"],
            body.as_bytes(),
        )
        .await
    }

    async fn call(&self, request: Value) -> (u16, Value) {
        let reply = self.post(&request.to_string()).await;
        (reply.status, reply.json())
    }
}

#[tokio::test]
async fn only_the_right_password_gets_in_and_a_wrong_one_takes_time() {
    let server = start().await;
    let body = br#"{"method":"uptime","id":1}"#;
    let reply = http(server.addr, "POST", "/", &[], body).await;
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (401, Some("Basic realm=\"jsonrpc\""))
    );
    let wrong = format!("Authorization: Basic {}", STANDARD.encode("user:password"));
    let begin = Instant::now();
    let reply = http(server.addr, "POST", "/", &[&wrong], body).await;
    assert_eq!(reply.status, 401);
    assert!(begin.elapsed() >= Duration::from_millis(250));
    for broken in [
        "Authorization: Basic !!!",
        "Authorization: Bearer x",
        "Authorization: Basic dXNlcg==",
    ] {
        assert_eq!(
            http(server.addr, "POST", "/", &[broken], body).await.status,
            401,
            "{broken}"
        );
    }
    let (status, reply) = server.call(json!({"method": "getblockcount", "id": 1})).await;
    assert_eq!((status, reply), (200, json!({"result": 0, "error": null, "id": 1})));
}

#[tokio::test]
async fn the_cookie_file_lets_its_reader_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".cookie");
    let cookie = Cookie::create(&path).unwrap();
    let mut auth = Auth::default();
    cookie.allow(&mut auth);
    let (listener, addr) = listener().await;
    let node = node(&Lab::new(Network::Regtest), &Arc::new(Shelf::default()));
    let stop = node.stop.clone();
    let task = tokio::spawn(serve(vec![listener], node, with(auth), stop));
    let text = std::fs::read_to_string(&path).unwrap();
    let basic = format!("Authorization: Basic {}", STANDARD.encode(text));
    let reply = http(addr, "POST", "/", &[&basic], br#"{"method":"stop","id":1}"#).await;
    assert_eq!(reply.json()["result"], "Dunlin stopping");
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop(cookie);
    assert!(!path.exists());
}

#[tokio::test]
async fn names_that_can_be_rebound_and_other_methods_are_refused() {
    let server = start().await;
    let body = br#"{"method":"uptime"}"#;
    let reply = http(server.addr, "POST", "/", &[&server.basic, "Host: evil.example"], body).await;
    assert_eq!(reply.status, 403);
    let reply = http(server.addr, "POST", "/", &[&server.basic, "Host: localhost:1"], body).await;
    assert_eq!(reply.status, 200);
    let reply = http(server.addr, "GET", "/", &[&server.basic], b"").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (405, "JSONRPC server handles only POST requests")
    );
    let reply = http(server.addr, "OPTIONS", "/", &["Origin: http://evil.example"], b"").await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let reply = http(server.addr, "POST", "/wallet/x", &[&server.basic], body).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn errors_have_the_status_that_each_version_asks_for() {
    let server = start().await;
    let (status, reply) = server.call(json!({"method": "nosuch", "id": "a"})).await;
    assert_eq!(status, 404);
    assert_eq!(
        reply,
        json!({"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": "a"})
    );
    let (status, reply) = server
        .call(json!({"jsonrpc": "2.0", "method": "nosuch", "id": "a"}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        reply,
        json!({"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "a"})
    );
    let (status, reply) = server
        .call(json!({"method": "getblockhash", "params": [9], "id": 1}))
        .await;
    assert_eq!((status, &reply["error"]["code"]), (500, &json!(-8)));
    assert_eq!(reply["error"]["message"], "Block height out of range");
    let (status, reply) = server.call(json!({"id": 1})).await;
    assert_eq!(
        (status, &reply["error"]),
        (400, &json!({"code": -32600, "message": "Missing method"}))
    );
    let (status, _) = server.call(json!({"jsonrpc": "2.0", "id": 1})).await;
    assert_eq!(status, 400);
    let reply = server.post(r#"{"jsonrpc":"2.0","method":"uptime"}"#).await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
}

#[tokio::test]
async fn arguments_come_by_place_or_by_name() {
    let server = start().await;
    let genesis = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
    for params in [json!([0]), json!({"height": 0}), json!({"args": [0]})] {
        let (status, reply) = server
            .call(json!({"method": "getblockhash", "params": params, "id": 1}))
            .await;
        assert_eq!((status, &reply["result"]), (200, &json!(genesis)), "{params}");
    }
    let (_, reply) = server
        .call(json!({"method": "getblock", "params": {"args": [genesis], "verbose": false}, "id": 1}))
        .await;
    assert_eq!(reply["result"].as_str().unwrap().len(), 2 * 285);
    let (_, reply) = server
        .call(json!({"method": "getblockhash", "params": {"hight": 0}, "id": 1}))
        .await;
    assert_eq!(
        reply["error"],
        json!({"code": -8, "message": "Unknown named parameter hight"})
    );
    let (_, reply) = server
        .call(json!({"method": "getblockhash", "params": ["0"], "id": 1}))
        .await;
    assert_eq!(reply["error"]["code"], -3);
    let (_, reply) = server
        .call(json!({"method": "getblockhash", "params": [], "id": 1}))
        .await;
    assert_eq!(reply["error"]["code"], -1);
    assert!(
        reply["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("getblockhash height\n\n")
    );
}

#[tokio::test]
async fn batches_answer_each_part() {
    let server = start().await;
    let batch = json!([
        {"method": "getblockcount", "id": 1},
        {"jsonrpc": "2.0", "method": "nosuch", "id": 2},
        {"jsonrpc": "2.0", "method": "uptime"},
        7,
        {"method": "getblockhash", "params": [-1], "id": 5},
    ]);
    let (status, reply) = server.call(batch).await;
    assert_eq!(status, 200);
    assert_eq!(
        reply,
        json!([
            {"result": 0, "error": null, "id": 1},
            {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 2},
            {"result": null, "error": {"code": -32600, "message": "Invalid Request object"}, "id": null},
            {"result": null, "error": {"code": -8, "message": "Block height out of range"}, "id": 5},
        ])
    );
    assert_eq!(server.post("[]").await.body, "[]\n");
    assert_eq!(
        server.post(r#"[{"jsonrpc":"2.0","method":"uptime"}]"#).await.status,
        204
    );
}

#[tokio::test]
async fn garbage_is_answered_with_one_clear_error() {
    let server = start().await;
    let deep = "[".repeat(100_000);
    for garbage in ["", "{", "hello", "{\"method\":", "\u{0}\u{1}", "{}{}", deep.as_str()] {
        let reply = server.post(garbage).await;
        assert_eq!(reply.status, 500, "{:.20}", garbage);
        let error = json!({"result": null, "error": {"code": -32700, "message": "Parse error"}, "id": null});
        assert_eq!(reply.json(), error, "{:.20}", garbage);
    }
    for top in ["1", "null", "\"x\""] {
        assert_eq!(
            server.post(top).await.json()["error"]["message"],
            "Top-level object parse error"
        );
    }
    let reply = http(server.addr, "POST", "/", &[&server.basic], &vec![b' '; (32 << 20) + 1]).await;
    assert_eq!(reply.status, 413);
    assert_eq!(server.call(json!({"method": "getblockcount", "id": 1})).await.0, 200);
}

#[tokio::test]
async fn a_stop_ends_the_server_and_its_idle_connections() {
    let server = start().await;
    let idle = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    server.stop.trigger();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop(idle);
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
}
