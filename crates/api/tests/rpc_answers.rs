//! Answers that no real bitcoind can be compared with: peers, bans, our own methods.

#![allow(clippy::unwrap_used)]

mod lab;

use std::sync::Arc;

use dunlin_api::rpc::{Params, Request, RpcError, Shared, call};
use dunlin_chain::Network;
use dunlin_peer::Direction;
use lab::{Lab, Shelf, node, peer};
use serde_json::{Value, json};

struct Caller {
    lab: Arc<Lab>,
    shared: Arc<Shared>,
}

fn caller() -> Caller {
    let lab = Lab::new(Network::Regtest);
    let shared = Shared::new(node(&lab, &Arc::new(Shelf::default())));
    Caller { lab, shared }
}

impl Caller {
    async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let Value::Array(params) = params else {
            panic!("{params}")
        };
        call(
            &self.shared,
            Request {
                method: method.into(),
                params: Params::Positional(params),
            },
        )
        .await
    }
}

#[tokio::test]
async fn peers_look_as_in_core() {
    let caller = caller();
    caller.lab.peers.lock().unwrap().extend([
        peer(1, "127.0.0.1:40000", Direction::Inbound),
        peer(2, "[2a00::1]:8333", Direction::Outbound),
    ]);
    let peers = caller.call("getpeerinfo", json!([])).await.unwrap();
    let first = &peers[0];
    assert_eq!(first["addr"], "127.0.0.1:40000");
    assert_eq!(first["network"], "not_publicly_routable");
    assert_eq!(first["services"], "0000000000000409");
    assert_eq!(first["servicesnames"], json!(["NETWORK", "WITNESS", "NETWORK_LIMITED"]));
    assert_eq!(first["pingtime"].to_string(), "0.012345");
    assert_eq!(first["minfeefilter"].to_string(), "0.00000100");
    assert_eq!(
        (&first["bytesrecv"], &first["bytessent"]),
        (&json!(4_000), &json!(3_000))
    );
    assert_eq!(first["inflight"], json!([8, 9]));
    assert_eq!(
        (&first["inbound"], &first["connection_type"]),
        (&json!(true), &json!("inbound"))
    );
    assert_eq!(
        (&peers[1]["network"], &peers[1]["connection_type"]),
        (&json!("ipv6"), &json!("outbound-full-relay"))
    );
    let info = caller.call("getnetworkinfo", json!([])).await.unwrap();
    assert_eq!((&info["connections"], &info["connections_in"]), (&json!(2), &json!(1)));
    assert_eq!(info["relayfee"].to_string(), "0.00000100");
    assert_eq!(caller.call("disconnectnode", json!(["", 1])).await, Ok(Value::Null));
    assert_eq!(
        caller.call("disconnectnode", json!(["[2a00::1]:8333"])).await,
        Ok(Value::Null)
    );
    assert_eq!(caller.call("getconnectioncount", json!([])).await, Ok(json!(0)));
}

#[tokio::test]
async fn nodes_and_bans_are_kept_once() {
    let caller = caller();
    let error = |code, text: &str| Err(RpcError::new(code, text));
    assert_eq!(
        caller.call("addnode", json!(["192.0.2.1", "add"])).await,
        Ok(Value::Null)
    );
    assert_eq!(*caller.lab.added.lock().unwrap(), ["192.0.2.1:18444".parse().unwrap()]);
    let again = caller.call("addnode", json!(["192.0.2.1:18444", "add"])).await;
    assert_eq!(again, error(-23, "Error: Node already added"));
    assert_eq!(
        caller.call("addnode", json!(["192.0.2.1", "remove"])).await,
        Ok(Value::Null)
    );
    assert_eq!(
        caller.call("addnode", json!(["x", "explode"])).await.unwrap_err().code,
        -1
    );

    assert_eq!(
        caller
            .call("setban", json!(["192.0.2.0/255.255.255.0", "add", 60]))
            .await,
        Ok(Value::Null)
    );
    let again = caller.call("setban", json!(["192.0.2.0/24", "add"])).await;
    assert_eq!(again, error(-23, "Error: IP/Subnet already banned"));
    let list = caller.call("listbanned", json!([])).await.unwrap();
    assert_eq!(
        (&list[0]["address"], &list[0]["ban_duration"]),
        (&json!("192.0.2.0/24"), &json!(60))
    );
    assert!(list[0]["time_remaining"].as_u64().unwrap() <= 60);
    assert_eq!(caller.call("clearbanned", json!([])).await, Ok(Value::Null));
    assert_eq!(caller.call("listbanned", json!([])).await, Ok(json!([])));
}

#[tokio::test]
async fn torrents_are_added_listed_and_removed() {
    let caller = caller();
    let hash = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
    let magnet = format!("magnet:?xt=urn:btih:{hash}&dn=name");
    let added = caller
        .call("torrent.add", json!([magnet, null, ["192.0.2.1:6881"], true]))
        .await;
    assert_eq!(added, Ok(json!({"info_hash": hash})));
    assert_eq!(caller.call("torrent.add", json!([magnet])).await.unwrap_err().code, -8);
    assert_eq!(
        caller
            .call("torrent.add", json!([magnet, null, ["nowhere"]]))
            .await
            .unwrap_err()
            .code,
        -8
    );
    assert_eq!(
        caller.call("torrent.add", json!(["d4:infode"])).await.unwrap_err().code,
        -22
    );
    let list = caller.call("torrent.list", json!([])).await.unwrap();
    assert_eq!(
        (&list[0]["info_hash"], &list[0]["state"]),
        (&json!(hash), &json!("paused"))
    );
    assert_eq!(caller.call("torrent.resume", json!([hash])).await, Ok(Value::Null));
    let info = caller.call("torrent.info", json!([hash])).await.unwrap();
    assert_eq!((&info["state"], &info["files"]), (&json!("downloading"), &Value::Null));
    assert_eq!(caller.call("torrent.remove", json!([hash])).await, Ok(Value::Null));
    assert_eq!(caller.call("torrent.info", json!([hash])).await.unwrap_err().code, -5);
    assert_eq!(caller.call("torrent.pause", json!(["xyz"])).await.unwrap_err().code, -5);
}

#[tokio::test]
async fn mining_stops_at_its_bound_of_tries() {
    let caller = caller();
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let hashes = caller.call("generatetoaddress", json!([5, address])).await.unwrap();
    let last = hashes.as_array().unwrap().last().unwrap().clone();
    assert_eq!(caller.call("getbestblockhash", json!([])).await, Ok(last));
    // A regtest block takes two tries on average: fifty blocks never come from ten.
    let few = caller
        .call("generatetoaddress", json!([50, address, 10]))
        .await
        .unwrap();
    assert!(few.as_array().unwrap().len() <= 10);
    let status = caller.call("dunlin.status", json!([])).await.unwrap();
    assert_eq!(
        status["bitcoin"]["height"],
        caller.call("getblockcount", json!([])).await.unwrap()
    );
    let help = caller.call("help", json!(["generatetoaddress"])).await.unwrap();
    assert!(
        help.as_str()
            .unwrap()
            .contains("generatetoaddress nblocks \"address\" ( maxtries )")
    );
}
