//! Two hundred real relay machines, each with its own chain and mempool, on one virtual network: transactions and
//! blocks reach everybody, through the loss of peers and of the network between them, and every run can be repeated.

#![allow(clippy::unwrap_used)]

mod bitcoin_net;

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::Amount;
use bitcoin_net::{HISTORY, Net, Topology, net};
use dunlin_sim::{Churn, Conditions, NodeId, Stats, Trace};

const PEERS: usize = 200;
/// Ample: transactions are announced after random delays of seconds, to hide where they come from.
const LIMIT: Duration = Duration::from_secs(300);

/// Everybody finds enough others.
fn settle(net: &mut Net) {
    net.sim.run_for(Duration::from_secs(60));
    assert_eq!(net.sim.connected_to(NodeId(0)), net.all());
}

fn flood(net: &mut Net) {
    let everybody = net.all();
    let tx = net.spend(1, Amount::from_sat(1_000_000));
    let txid = net.submit_tx(17, &tx);
    let time = net.until_tx(&everybody, txid, LIMIT);
    println!("a transaction reached {} peers in {time:?}", everybody.len());

    let block = net.mine(101 % everybody.len());
    let time = net.until_tip(&everybody, block, Duration::from_secs(30));
    println!("a block reached {} peers in {time:?}", everybody.len());
    for id in &everybody {
        assert_eq!(net.computers[id.0].view.tip().height, HISTORY + 1);
        assert!(!net.has_tx(*id, &txid), "{id:?}: mined, so no longer in the mempool");
    }
}

/// Stops three of ten and sends both kinds at once, while the rest still notices.
fn lose_peers(net: &mut Net) {
    let gone: BTreeSet<NodeId> = net.all().into_iter().filter(|id| id.0 * 7 % 10 < 3).collect();
    for id in &gone {
        net.sim.stop(*id);
    }
    let count = net.all().len();
    assert_eq!(gone.len(), count * 3 / 10);
    let rest = net.sim.connected_to(NodeId(1));
    println!("{} of {count} peers stopped, {} are connected", gone.len(), rest.len());
    assert!(rest.len() >= count * 13 / 20, "{}", rest.len());

    let tx = net.spend(2, Amount::from_sat(2_000_000));
    let txid = net.submit_tx(1, &tx);
    let time = net.until_tx(&rest, txid, LIMIT);
    println!("a transaction reached all {} in {time:?}", rest.len());
    let block = net.mine(4);
    let time = net.until_tip(&rest, block, Duration::from_secs(60));
    println!("a block reached all {} in {time:?}", rest.len());

    for id in &gone {
        net.sim.start(*id);
    }
    let everybody = net.all();
    let time = net.until_tip(&everybody, block, Duration::from_secs(120));
    println!("the stopped ones came back and had the block after {time:?}");
}

/// Both halves go on alone, then the one with more work convinces the other.
fn split(net: &mut Net) {
    let everybody = net.all();
    let (small, large): (BTreeSet<NodeId>, BTreeSet<NodeId>) = everybody.iter().partition(|id| id.0 % 5 < 2);
    net.sim.partition(|id| u32::from(id.0 % 5 < 2));
    let tx = net.spend(3, Amount::from_sat(3_000_000));
    let txid = net.submit_tx(0, &tx);
    net.until_tx(&small, txid, LIMIT);
    let mut tips = [net.tip(NodeId(0)); 2];
    for _ in 0..2 {
        tips[0] = net.mine(5);
        net.until_tip(&small, tips[0], Duration::from_secs(60));
    }
    for _ in 0..4 {
        tips[1] = net.mine(2);
        net.until_tip(&large, tips[1], Duration::from_secs(60));
    }
    assert!(
        small.iter().all(|id| !net.has_tx(*id, &txid)),
        "mined in the small half"
    );
    net.sim.run_for(Duration::from_secs(300));
    assert!(small.iter().all(|id| net.tip(*id) == tips[0]));

    net.sim.heal();
    let time = net.until_tip(&everybody, tips[1], Duration::from_secs(120));
    println!(
        "{} and {} peers agree {time:?} after the network healed",
        small.len(),
        large.len()
    );
    // What the small half had mined is unconfirmed again, and is not lost.
    assert!(small.iter().all(|id| net.has_tx(*id, &txid)));
    net.sim.run_for(Duration::from_secs(30));
    let block = net.mine(10);
    net.until_tip(&everybody, block, Duration::from_secs(60));
    assert!(everybody.iter().all(|id| !net.has_tx(*id, &txid)));
}

fn story(seed: u64, peers: usize) -> (Trace, Stats) {
    let mut net = net(seed, peers, Topology::Ring, |_| true);
    settle(&mut net);
    flood(&mut net);
    lose_peers(&mut net);
    split(&mut net);
    assert_eq!(net.accusations(), Vec::<String>::new());
    (net.sim.trace(), net.sim.stats())
}

#[test]
fn two_hundred_peers_flood_lose_peers_split_and_heal_and_do_so_again() {
    let (trace, stats) = story(1, PEERS);
    println!("{stats:?}\n{trace}");
    assert_eq!(story(1, PEERS), (trace, stats), "the same seed, the same run");
}

#[test]
fn another_seed_is_another_run() {
    let (one, _) = story(2, 40);
    let (same, _) = story(2, 40);
    let (other, _) = story(3, 40);
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn peers_that_choose_their_links_find_each_other_and_flood() {
    let mut net = net(4, 100, Topology::Free, |_| true);
    settle(&mut net);
    flood(&mut net);
    assert_eq!(net.accusations(), Vec::<String>::new());
}

#[test]
fn newcomers_take_the_whole_chain_from_one_that_has_it() {
    let mut net = net(5, 30, Topology::Ring, |number| number == 0);
    let everybody = net.all();
    let tip = net.tip(NodeId(0));
    let time = net.until_tip(&everybody, tip, LIMIT);
    println!("{HISTORY} blocks went from one peer to 29 in {time:?}");
    assert_eq!(net.accusations(), Vec::<String>::new());
}

#[test]
fn peers_come_and_go_on_a_lossy_network_and_agree_in_the_end() {
    let mut net = net(6, 80, Topology::Ring, |number| number % 4 == 0);
    net.sim.set_conditions(Conditions {
        loss: 30_000,
        ..net.sim.conditions().clone()
    });
    let churn = Churn {
        mean_up: Duration::from_secs(120),
        mean_down: Duration::from_secs(30),
    };
    net.sim.set_churn(Some(churn), |id| id.0 % 4 != 0);
    let mut txids = Vec::new();
    for round in 0..30 {
        net.sim.run_for(Duration::from_secs(30));
        if round % 3 == 0 {
            let tx = net.spend(1 + round / 3, Amount::from_sat(1_000_000));
            txids.push(net.submit_tx(round % 20 * 4, &tx));
        }
        net.mine((round + 10) % 20 * 4);
    }
    net.sim.set_churn(None, |_| false);
    net.sim.run_for(Duration::from_secs(120));
    let last = net.mine(0);
    let everybody = net.all();
    let time = net.until_tip(&everybody, last, LIMIT);
    let height = net.computers[0].view.tip().height;
    println!(
        "{} peers agree on height {height} {time:?} after the last block",
        everybody.len()
    );
    // Blocks mined before the last one had spread lose; most do not.
    assert!(height > HISTORY + 20 && height <= HISTORY + 31, "{height}");
    // Nothing that was sent is lost, although its block may be: every one is mined by now.
    for id in everybody {
        assert!(txids.iter().all(|txid| !net.has_tx(id, txid)));
    }
    assert_eq!(net.accusations(), Vec::<String>::new());
}
