//! How long RPC queries take while blocks are connected.
//!
//! Queries go out at a steady rate over one kept connection. Each counts from the instant at which it was due, so that
//! a server that stalls pays for every query that its stall held up; beside it stands the time from sending it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_testkit::Rpc;
use dunlin_testkit::core::Bitcoind;
use serde_json::{Value, json};

use crate::cost::Sample;
use crate::node::Node;

/// Queries a second.
pub(super) const RATE: u32 = 200;
/// Blocks asked about: those that spread coins, most of which stay unspent.
const HEIGHTS: std::ops::RangeInclusive<u64> = 101..=140;

/// What is asked, over and over.
pub(super) struct Queries(Vec<String>);

impl Queries {
    /// Height, headers and coins in turn.
    pub(super) fn about(seed: &Bitcoind) -> Result<Self> {
        let mut queries = Vec::new();
        for height in HEIGHTS {
            let hash = seed.hash_at(height)?;
            let block = seed.block(&hash)?;
            let spread = block.txdata.last().context("a block has transactions")?.compute_txid();
            queries.push(request("getblockcount", &json!([])));
            queries.push(request("getblockheader", &json!([hash])));
            queries.push(request("gettxout", &json!([spread.to_string(), height])));
        }
        Ok(Self(queries))
    }

    /// Asks from the first connected block until the node is at `height`.
    pub(super) fn measure(&self, node: &mut Node, height: u64, limit: Duration) -> Result<Sample> {
        let done = AtomicBool::new(false);
        let rpc = node.rpc().clone();
        let (synced, latencies) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| self.ask(&rpc, &done));
            let synced = node.wait_synced(height, limit);
            done.store(true, Ordering::Relaxed);
            (synced, asking.join())
        });
        synced?;
        let mut latencies = latencies.map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
        let count = latencies.due.len();
        ensure!(count >= 100, "only {count} queries were answered");
        latencies.due.sort();
        latencies.sent.sort();
        let at = |sorted: &[Duration], per_mille: usize| sorted[(count - 1) * per_mille / 1000].as_secs_f64() * 1e3;
        Ok(vec![
            ("median, ms", at(&latencies.due, 500)),
            ("p99, ms", at(&latencies.due, 990)),
            ("longest, ms", at(&latencies.due, 1000)),
            ("p99 from sending, ms", at(&latencies.sent, 990)),
            ("queries", count as f64),
        ])
    }

    fn ask(&self, rpc: &Rpc, done: &AtomicBool) -> Result<Latencies> {
        let mut connection = Connection::open(rpc)?;
        let height = request("getblockcount", &json!([]));
        while !done.load(Ordering::Relaxed) && connection.call(&height)?["result"].as_u64().is_none_or(|at| at == 0) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let start = Instant::now();
        let mut latencies = Latencies::default();
        for (query, number) in self.0.iter().cycle().zip(0..) {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let due = start + Duration::from_secs(1) * number / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            connection.call(query)?;
            latencies.due.push(due.elapsed());
            latencies.sent.push(sent.elapsed());
        }
        Ok(latencies)
    }
}

/// How long each query took, from when it was due and from when it was sent.
#[derive(Default)]
struct Latencies {
    due: Vec<Duration>,
    sent: Vec<Duration>,
}

fn request(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "1.0", "id": 1, "method": method, "params": params}).to_string()
}

/// One kept HTTP connection.
struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    fn open(rpc: &Rpc) -> Result<Self> {
        let authority = rpc.url().trim_start_matches("http://").trim_end_matches('/');
        let stream = TcpStream::connect(authority)?;
        stream.set_nodelay(true)?;
        let login = BASE64_STANDARD.encode(rpc.cookie()?);
        Ok(Self {
            stream: BufReader::new(stream),
            head: format!("POST / HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Basic {login}\r\nContent-Length: "),
        })
    }

    fn call(&mut self, body: &str) -> Result<Value> {
        let request = format!("{}{}\r\n\r\n{body}", self.head, body.len());
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the server hung up");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}
