//! What a node does near the tip: passes blocks on, takes transactions, keeps peers, makes block templates. Both sides
//! work on the same chain and transactions, made by hand.

mod funds;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, Transaction};
use clap::ValueEnum;
use dunlin_testkit::bitcoin_peer::{Asker, Crowd};
use dunlin_testkit::core::Options;
use dunlin_testkit::wait_until;
use serde_json::json;

use crate::cost::{Meter, Sample, resident};
use crate::node::Node;
use crate::{Args, Rounds, Side};
use funds::Funds;

/// Transactions of a block that is passed on.
const BLOCK_TXS: usize = 1_500;
/// Blocks passed on that count, and those before them by which the nodes learn who is quick.
const BLOCKS: usize = 11;
const WARM_UP: usize = 3;
/// Transactions that one peer pushes.
const PUSHED: usize = 20_000;
/// Transactions in the pool that templates are made of: seven blocks' worth.
const FULL: usize = 45_000;
const TEMPLATES: usize = 7;
const IDLE_LINKS: usize = 500;
const QUIET_LINKS: usize = 100;
const QUIET: Duration = Duration::from_secs(60);
/// Until a node has settled after its peers came.
const SETTLE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(300);

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Row {
    /// A block whose transactions all have goes from one node over a second to a third
    Block,
    /// One peer pushes transactions
    Transactions,
    /// Memory for idle inbound connections
    Connections,
    /// Processor time of a node that has nothing to do
    Idle,
    /// A template on a new tip with a full mempool
    Template,
}

struct Bench<'a> {
    args: &'a Args,
    funds: Funds,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let bench = Bench {
        args,
        funds: Funds::new()?,
    };
    for row in args.rows_of(Row::value_variants()) {
        let outcome = match row {
            Row::Block => bench.block(),
            Row::Transactions => bench.transactions(),
            Row::Connections => bench.connections(),
            Row::Idle => bench.idle(),
            Row::Template => bench.template(),
        };
        if let Err(error) = outcome {
            println!("\n{row:?} failed: {error:#}");
        }
    }
    Ok(())
}

impl Bench<'_> {
    /// A node that has the chain with all coins, connected to `peer` if there is one.
    fn node(&self, side: Side, peer: Option<&Node>) -> Result<Node> {
        let connect: Vec<_> = peer.map(Node::p2p).into_iter().collect();
        let addr = connect.first().map(ToString::to_string);
        let mut ours = vec!["--max-inbound", "700"];
        match &addr {
            Some(addr) => ours.extend(["--connect", addr]),
            None => ours.push("--no-dial"),
        }
        let extra = vec!["-maxconnections=800".to_owned()];
        let (node, _) = Node::start(
            side,
            &self.args.program,
            &ours,
            Options {
                connect,
                extra,
                ..Options::default()
            },
        )?;
        for block in &self.funds.blocks {
            submit(&node, block)?;
        }
        Ok(node)
    }

    fn sides(&self) -> impl Iterator<Item = Side> {
        let only = self.args.only;
        Side::BOTH
            .into_iter()
            .filter(move |side| only.is_none_or(|only| only == *side))
    }

    fn block(&self) -> Result<()> {
        let mut lines = Vec::new();
        for side in self.sides() {
            let first = self.node(side, None)?;
            let second = self.node(side, Some(&first))?;
            let third = self.node(side, Some(&second))?;
            lines.push((
                side,
                Line {
                    nodes: [first, second, third],
                    tip: self.funds.tip()?,
                    done: 0,
                },
            ));
        }
        for (_, line) in &mut lines {
            for node in &line.nodes {
                wait_until("the nodes are connected", LIMIT, || {
                    node.peers().is_ok_and(|count| count > 0)
                })?;
            }
            for _ in 0..WARM_UP {
                line.pass(&self.funds, &[])?;
            }
        }
        let rounds = Rounds::run(self.args, BLOCKS, |side| {
            let line = lines.iter_mut().find(|(of, _)| *of == side);
            let (_, line) = line.context("that side was not started")?;
            let from = line.done * BLOCK_TXS;
            line.done += 1;
            let txs = self.funds.payments(from..from + BLOCK_TXS)?;
            line.pass(&self.funds, &txs)
        })?;
        rounds.report(
            &format!("a block of {BLOCK_TXS} transactions that all have, from A over B to C"),
            "bitcoind",
        );
        Ok(())
    }

    fn transactions(&self) -> Result<()> {
        let txs = self.funds.payments(0..PUSHED)?;
        let rounds = Rounds::run(self.args, 3, |side| {
            let node = self.node(side, None)?;
            let meter = Meter::start(node.pid())?;
            fill(&node, &txs)?;
            let mut sample = meter.read()?.sample();
            sample.pop();
            Ok(sample)
        })?;
        rounds.report(&format!("{PUSHED} transactions pushed by one peer"), "bitcoind");
        Ok(())
    }

    fn connections(&self) -> Result<()> {
        let rounds = Rounds::run(self.args, 3, |side| {
            let node = self.node(side, None)?;
            std::thread::sleep(SETTLE);
            let before = resident(node.pid())?;
            let crowd = Crowd::dial(node.p2p(), IDLE_LINKS)?;
            std::thread::sleep(SETTLE);
            ensure!(
                node.peers()? == IDLE_LINKS,
                "{} of {IDLE_LINKS} peers are left",
                node.peers()?
            );
            let more = resident(node.pid())?.saturating_sub(before);
            drop(crowd);
            Ok(vec![("memory each, KiB", more as f64 / 1024.0 / IDLE_LINKS as f64)])
        })?;
        rounds.report(&format!("{IDLE_LINKS} idle inbound connections"), "bitcoind");
        Ok(())
    }

    fn idle(&self) -> Result<()> {
        let rounds = Rounds::run(self.args, 1, |side| {
            let node = self.node(side, None)?;
            let _crowd = Crowd::dial(node.p2p(), QUIET_LINKS)?;
            std::thread::sleep(SETTLE);
            let meter = Meter::start(node.pid())?;
            std::thread::sleep(QUIET);
            let cost = meter.read()?;
            ensure!(node.peers()? == QUIET_LINKS, "a peer was lost");
            Ok(vec![("CPU, s", cost.cpu.as_secs_f64())])
        })?;
        rounds.report(
            &format!("{} s idle with {QUIET_LINKS} connections", QUIET.as_secs()),
            "bitcoind",
        );
        Ok(())
    }

    fn template(&self) -> Result<()> {
        let txs = self.funds.families(FULL)?;
        let mut nodes = Vec::new();
        for side in self.sides() {
            let node = self.node(side, None)?;
            fill(&node, &txs)?;
            nodes.push((side, node, self.funds.tip()?));
        }
        let rounds = Rounds::run(self.args, TEMPLATES, |side| {
            let place = nodes.iter_mut().find(|(of, ..)| *of == side);
            let (_, node, tip) = place.context("that side was not started")?;
            let block = self.funds.next(tip, Vec::new())?;
            let meter = Meter::start(node.pid())?;
            submit(node, &block)?;
            let start = Instant::now();
            let body = json!({"id": 1, "method": "getblocktemplate", "params": [{"rules": ["segwit"]}]}).to_string();
            let (status, answer) = node.rpc().post("getblocktemplate", body.as_bytes())?;
            let wall = start.elapsed();
            ensure!(
                status == 200 && answer.len() > 1_000_000,
                "no full template came: {status}"
            );
            let cost = meter.read()?;
            Ok(vec![
                ("template, ms", wall.as_secs_f64() * 1e3),
                ("block and template, ms", cost.wall.as_secs_f64() * 1e3),
                ("their CPU, ms", cost.cpu.as_secs_f64() * 1e3),
            ])
        })?;
        rounds.report(
            &format!("getblocktemplate on a new tip with {FULL} transactions"),
            "bitcoind",
        );
        Ok(())
    }
}

/// Three nodes in a row.
struct Line {
    nodes: [Node; 3],
    tip: (Block, u32),
    done: usize,
}

impl Line {
    /// Gives the transactions to all and then a block of them to the first.
    fn pass(&mut self, funds: &Funds, txs: &[Transaction]) -> Result<Sample> {
        for node in &self.nodes {
            fill(node, txs)?;
        }
        let block = funds.next(&mut self.tip, txs.to_vec())?;
        let hash = block.block_hash().to_string();
        let meters = self.nodes.each_ref().map(|node| Meter::start(node.pid()));
        let [first, second, third] = &self.nodes;
        let (sent, times) = std::thread::scope(|scope| {
            let watches = [second, third].map(|node| {
                let params = json!([hash, LIMIT.as_millis() as u64]);
                scope.spawn(move || node.rpc().call("waitforblock", params).map(|_| Instant::now()))
            });
            // Both wait by then.
            std::thread::sleep(Duration::from_millis(300));
            let start = Instant::now();
            let sent = submit(first, &block).map(|()| start);
            let times = watches.map(|watch| watch.join().expect("a call does not panic"));
            (sent, times)
        });
        let start = sent?;
        let [second, third] = times;
        let ms = |at: Instant| at.duration_since(start).as_secs_f64() * 1e3;
        let mut cpu = 0.0;
        for meter in meters {
            cpu += meter?.read()?.cpu.as_secs_f64() * 1e3;
        }
        Ok(vec![
            ("at B, ms", ms(second?)),
            ("at C, ms", ms(third?)),
            ("CPU of all, ms", cpu),
        ])
    }
}

/// Pushes transactions over one connection until all are in the mempool.
fn fill(node: &Node, txs: &[Transaction]) -> Result<()> {
    let mut peer = Asker::dial(node.p2p())?;
    peer.push(txs)?;
    let size = || node.rpc().call("getmempoolinfo", json!([])).ok()?["size"].as_u64();
    let filled = wait_until("all transactions are in the mempool", LIMIT, || {
        size() == Some(txs.len() as u64)
    });
    filled.with_context(|| format!("{:?} of {} are there", size(), txs.len()))
}

fn submit(node: &Node, block: &Block) -> Result<()> {
    let answer = node.rpc().call("submitblock", json!([serialize_hex(block)]))?;
    ensure!(answer.is_null(), "the block was refused: {answer}");
    Ok(())
}
