//! Five bitcoinds and five of ours in one random graph: blocks from everywhere, transactions, cut links, restarts and
//! reorganisations. In the end all have one tip and one memory pool, and nobody was refused.
//!
//! `DUNLIN_GRAPH_BLOCKS` says how many blocks are found while all that goes on, `DUNLIN_GRAPH_SEED` which story it is.

#![allow(clippy::unwrap_used)]

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, TxOut};
use dunlin_testkit::RpcError;
use dunlin_testkit::coins::{Holder, coinbase_coin};
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Nodes of each kind.
const EACH: usize = 5;
/// Coins to pay with; the last of them are kept for the end.
const COINS: usize = 1_500;
const LAST: usize = 20;
const LIMIT: Duration = Duration::from_secs(90);

enum Node {
    Core(Bitcoind),
    Ours(Dunlin),
}

impl Node {
    fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        match self {
            Self::Core(node) => node.call(method, params),
            Self::Ours(node) => node.call(method, params),
        }
    }

    fn p2p(&self) -> SocketAddr {
        match self {
            Self::Core(node) => node.p2p(),
            Self::Ours(node) => node.doors().p2p,
        }
    }

    fn tip(&self) -> String {
        self.call("getbestblockhash", json!([]))
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn height(&self) -> u64 {
        self.call("getblockcount", json!([])).unwrap().as_u64().unwrap()
    }

    fn mempool(&self) -> BTreeSet<String> {
        let ids = self.call("getrawmempool", json!([])).unwrap();
        ids.as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    }

    fn restart(&mut self) {
        match self {
            Self::Core(node) => node.restart().unwrap(),
            Self::Ours(node) => {
                node.stop().unwrap();
                node.restart().unwrap();
            }
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Core(node) => node.debug_log(),
            Self::Ours(node) => node.log(),
        }
    }
}

/// A stream of numbers that is the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// The nodes and which of them keep links to which.
struct Graph {
    nodes: Vec<Node>,
    links: Vec<(usize, usize)>,
}

impl Graph {
    fn start(dice: &mut Dice) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..EACH {
            let options = Options {
                v2transport: dice.below(2) == 0,
                ..Options::default()
            };
            nodes.push(Node::Core(Bitcoind::start(options).unwrap()));
            let ours = Dunlin::start(
                env!("CARGO_BIN_EXE_dunlin"),
                &["--disable=torrent", "--disable=dashboard"],
            );
            nodes.push(Node::Ours(ours.unwrap()));
        }
        // Each is linked to one before it, so that all hang together, and then some more are.
        let count = nodes.len();
        let mut links: Vec<(usize, usize)> = (1..count).map(|node| (node, dice.below(node))).collect();
        while links.len() < 2 * count {
            let (from, to) = (dice.below(count), dice.below(count));
            if from != to && !links.contains(&(from, to)) && !links.contains(&(to, from)) {
                links.push((from, to));
            }
        }
        let graph = Self { nodes, links };
        for link in graph.links.clone() {
            graph.keep(link);
        }
        graph
    }

    fn keep(&self, (from, to): (usize, usize)) {
        let to = self.nodes[to].p2p().to_string();
        // A node that forgot the link at its restart takes it anew; one that did not says so.
        let _ = self.nodes[from].call("addnode", json!([to, "add"]));
    }

    fn cut(&self, (from, to): (usize, usize)) {
        let to = self.nodes[to].p2p().to_string();
        let _ = self.nodes[from].call("addnode", json!([to, "remove"]));
        // It may be down at the moment.
        let _ = self.nodes[from].call("disconnectnode", json!([to]));
    }

    /// Waits until all have one tip. Of two blocks with the same work each node keeps the one that it saw first; then
    /// one more block decides.
    fn agree_on_tip(&self, what: &str) {
        let differ = || self.nodes.iter().map(Node::tip).collect::<BTreeSet<_>>().len() > 1;
        let heights = || self.nodes.iter().map(Node::height).collect::<BTreeSet<_>>();
        let wait = |holds: &dyn Fn() -> bool| {
            if wait_until(what, LIMIT, holds).is_err() {
                let states: Vec<_> = self.nodes.iter().map(|node| (node.height(), node.tip())).collect();
                panic!("{what}: {states:?}");
            }
        };
        wait(&|| heights().len() == 1);
        if differ() {
            let miner = Holder::new(2).address();
            self.nodes[0].call("generatetoaddress", json!([1, miner])).unwrap();
        }
        wait(&|| !differ());
    }
}

#[test]
fn all_end_on_one_tip_with_one_memory_pool() {
    let mut dice = Dice(setting("DUNLIN_GRAPH_SEED", 4));
    let rounds = setting("DUNLIN_GRAPH_BLOCKS", 60);
    let mut graph = Graph::start(&mut dice);
    let (rich, poor) = (Holder::new(1), Holder::new(2));

    // Coins for all that is to come, deep enough that no reorganisation reaches them.
    let Node::Core(first) = &graph.nodes[0] else {
        unreachable!()
    };
    first.generate(101, &rich.address()).unwrap();
    let (place, value) = coinbase_coin(&first.block(&first.hash_at(1).unwrap()).unwrap());
    let each = (value - Amount::from_sat(1_000_000)) / u64::try_from(COINS).unwrap();
    let outputs = vec![
        TxOut {
            value: each,
            script_pubkey: rich.script(),
        };
        COINS
    ];
    let fan = rich.spend(&[(place, value)], outputs);
    first
        .call("sendrawtransaction", json!([serialize_hex(&fan), 0]))
        .unwrap();
    first.generate(10, &poor.address()).unwrap();
    graph.agree_on_tip("all have the first blocks");
    let mut coins = (0..COINS).map(|vout| (OutPoint::new(fan.compute_txid(), u32::try_from(vout).unwrap()), each));

    let mut missing: Option<(usize, usize)> = None;
    let mut reorganised = 0;
    for round in 0..rounds {
        for _ in 0..dice.below(5) {
            if coins.len() <= LAST {
                break;
            }
            let Some(coin) = coins.next() else { break };
            let tx = rich.pay(
                coin,
                &poor,
                Amount::from_sat(1_000 + u64::try_from(dice.below(9_000)).unwrap()),
            );
            let at = dice.below(graph.nodes.len());
            graph.nodes[at]
                .call("sendrawtransaction", json!([serialize_hex(&tx)]))
                .unwrap();
        }
        // Two at once now and then: one of them loses.
        for _ in 0..1 + usize::from(dice.below(4) == 0) {
            let at = dice.below(graph.nodes.len());
            graph.nodes[at]
                .call("generatetoaddress", json!([1, poor.address()]))
                .unwrap();
        }
        match round % 12 {
            3 => {
                let link = graph.links[dice.below(graph.links.len())];
                graph.cut(link);
                missing = Some(link);
            }
            6 => graph.keep(missing.take().unwrap()),
            8 => {
                let at = dice.below(graph.nodes.len());
                graph.nodes[at].restart();
                for link in graph
                    .links
                    .clone()
                    .into_iter()
                    .filter(|(from, to)| *from == at || *to == at)
                {
                    graph.keep(link);
                }
            }
            11 => {
                // One node does not like its last blocks, and finds better ones.
                graph.agree_on_tip("all have one tip before a reorganisation");
                let node = &graph.nodes[dice.below(graph.nodes.len())];
                let (depth, height) = (1 + u64::try_from(dice.below(3)).unwrap(), node.height());
                let hash = node.call("getblockhash", json!([height + 1 - depth])).unwrap();
                node.call("invalidateblock", json!([hash])).unwrap();
                node.call("generatetoaddress", json!([depth + 1, rich.address()]))
                    .unwrap();
                graph.agree_on_tip("all follow the better branch");
                reorganised += 1;
            }
            _ => {}
        }
    }
    if let Some(link) = missing {
        graph.keep(link);
    }
    assert!(reorganised > 0 || rounds < 12);
    graph.agree_on_tip("all have one tip");

    // What a cut link kept from the others goes into blocks; then everybody hears of everything again.
    for index in 0..graph.nodes.len() {
        graph.nodes[index]
            .call("generatetoaddress", json!([1, poor.address()]))
            .unwrap();
        graph.agree_on_tip("all have the block of each");
    }
    let left: Vec<_> = graph.nodes.iter().map(Node::mempool).collect();
    assert!(left.iter().all(BTreeSet::is_empty), "{left:?}");
    let mut sent = BTreeSet::new();
    for coin in coins.by_ref().take(LAST) {
        let tx = rich.pay(coin, &poor, Amount::from_sat(2_000));
        let at = dice.below(graph.nodes.len());
        graph.nodes[at]
            .call("sendrawtransaction", json!([serialize_hex(&tx)]))
            .unwrap();
        sent.insert(tx.compute_txid().to_string());
    }
    assert!(!sent.is_empty());
    wait_until("all have one memory pool", LIMIT, || {
        graph.nodes.iter().all(|node| node.mempool() == sent)
    })
    .unwrap();

    for node in &graph.nodes {
        assert_eq!(node.call("listbanned", json!([])).unwrap(), json!([]));
        let log = node.log();
        // Who still offers a block that was invalidated here by hand is left, as Core does; that is nobody's fault.
        let blamed = log
            .lines()
            .filter(|line| !line.contains("duplicate-invalid"))
            .find(|line| line.contains("Misbehaving") || line.contains("is disconnected: "));
        assert_eq!(blamed, None);
    }
}
