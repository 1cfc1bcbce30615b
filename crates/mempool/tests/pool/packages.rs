//! Packages: children that pay for their parents, and what they may put out.

use std::sync::Arc;

use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use dunlin_mempool::{FeeRate, PackageOutcome, PackageTx, RejectKind};

use crate::harness::{COIN, Node, out, pay, spend};

fn submit(node: &mut Node, txs: &[&Transaction]) -> PackageOutcome {
    let txs: Vec<Arc<Transaction>> = txs.iter().map(|tx| Arc::new((*tx).clone())).collect();
    node.pool.accept_package(node.now, &txs, None)
}

/// The text that a caller sees of the whole.
fn message(outcome: &PackageOutcome) -> String {
    outcome
        .error
        .as_ref()
        .map_or_else(|| "success".into(), ToString::to_string)
}

/// Core's reason for refusing a member.
fn reason(outcome: &PackageOutcome, tx: &Transaction) -> String {
    match &outcome.results[&tx.compute_wtxid()] {
        PackageTx::Refused(reject) => reject.reason.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_child_pays_for_a_parent_that_pays_nothing() {
    let (mut node, coins) = Node::new(1);
    let parent = pay(coins[0], COIN, 0);
    let child = pay(out(&parent, 0), COIN, 2000);
    assert_eq!(
        node.accept(&parent).unwrap_err().kind,
        RejectKind::Reconsiderable,
        "by itself it pays too little"
    );
    let outcome = submit(&mut node, &[&parent, &child]);
    assert_eq!(message(&outcome), "success");
    let both = [parent.compute_wtxid(), child.compute_wtxid()];
    let size = (parent.vsize() + child.vsize()) as i64;
    for wtxid in &both {
        let PackageTx::Accepted(accepted) = &outcome.results[wtxid] else {
            panic!("{outcome:?}");
        };
        assert_eq!(accepted.effective_includes, both);
        assert_eq!(accepted.effective_feerate, 2_000_000 / size);
    }
    assert_eq!(node.pool.len(), 2);
    let again = submit(&mut node, &[&parent, &child]);
    assert_eq!(message(&again), "success");
    assert!(matches!(again.results[&both[0]], PackageTx::Known { .. }));
}

#[test]
fn who_pays_for_itself_is_judged_by_itself() {
    let (mut node, coins) = Node::new(2);
    let (rich, poor) = (pay(coins[0], COIN, 5000), pay(coins[1], COIN, 0));
    let child = spend(&[out(&rich, 0), out(&poor, 0)], &[2 * COIN - 5000 - 1000]);
    let outcome = submit(&mut node, &[&rich, &poor, &child]);
    assert_eq!(message(&outcome), "success");
    let PackageTx::Accepted(accepted) = &outcome.results[&rich.compute_wtxid()] else {
        panic!("{outcome:?}");
    };
    assert_eq!(accepted.effective_includes, [rich.compute_wtxid()]);
}

#[test]
fn the_form_is_checked_first() {
    let (mut node, coins) = Node::new(3);
    let parent = pay(coins[0], COIN, 1000);
    let child = pay(out(&parent, 0), COIN - 1000, 1000);
    let other = pay(coins[1], COIN, 1000);
    let rival = pay(coins[0], COIN, 2000);
    let said = |node: &mut Node, txs: &[&Transaction]| message(&submit(node, txs));
    assert_eq!(said(&mut node, &[&child, &parent]), "package-not-sorted");
    assert_eq!(said(&mut node, &[&parent, &parent]), "package-contains-duplicates");
    assert_eq!(said(&mut node, &[&parent, &rival]), "conflict-in-package");
    assert_eq!(said(&mut node, &[&parent, &other]), "package-not-child-with-parents");
    assert_eq!(said(&mut node, &[]), "package-not-child-with-parents");
    let many: Vec<Transaction> = (0..26).map(|n| pay(coins[2], COIN, n)).collect();
    assert_eq!(
        said(&mut node, &many.iter().collect::<Vec<_>>()),
        "package-too-many-transactions"
    );
    assert!(node.pool.is_empty());
}

#[test]
fn what_stays_too_poor_is_refused_as_a_whole() {
    let (mut node, coins) = Node::new(1);
    let parent = pay(coins[0], COIN, 0);
    let child = pay(out(&parent, 0), COIN, 5);
    let outcome = submit(&mut node, &[&parent, &child]);
    assert_eq!(message(&outcome), "transaction failed");
    assert_eq!(reason(&outcome, &parent), "min relay fee not met");
    assert_eq!(reason(&outcome, &child), "min relay fee not met");
    let dear = pay(out(&parent, 0), COIN, COIN / 2);
    let txs = [Arc::new(parent), Arc::new(dear.clone())];
    let most = Some(FeeRate::from_sat_per_kvb(10_000_000));
    let outcome = node.pool.accept_package(node.now, &txs, most);
    assert_eq!(reason(&outcome, &dear), "max feerate exceeded");
    assert!(node.pool.is_empty());
}

#[test]
fn a_pair_replaces_a_pair_if_it_pays_for_it() {
    let (mut node, coins) = Node::new(2);
    let old = pay(coins[0], COIN, 1000);
    let old_child = pay(out(&old, 0), COIN - 1000, 1000);
    let ids = [node.add(&old), node.add(&old_child)];
    let new = spend(&[coins[0]], &[COIN - 200]);
    let poor = pay(out(&new, 0), COIN - 200, 1500);
    let outcome = submit(&mut node, &[&new, &poor]);
    assert!(
        message(&outcome).starts_with("package RBF failed: insufficient anti-DoS fees, rejecting replacement"),
        "{outcome:?}"
    );
    let child = pay(out(&new, 0), COIN - 200, 3000);
    let outcome = submit(&mut node, &[&new, &child]);
    assert_eq!(message(&outcome), "success");
    let PackageTx::Accepted(accepted) = &outcome.results[&new.compute_wtxid()] else {
        panic!("{outcome:?}");
    };
    assert_eq!(accepted.replaced, ids);
    // With a relative in the pool it is no pair of its own.
    let relative = pay(coins[1], COIN, 1000);
    node.add(&relative);
    let newer = spend(&[coins[0]], &[COIN - 300]);
    let both = spend(&[out(&newer, 0), out(&relative, 0)], &[2 * COIN - 50_000]);
    let outcome = submit(&mut node, &[&newer, &both]);
    assert_eq!(
        message(&outcome),
        "package RBF failed: new transaction cannot have mempool ancestors"
    );
}

fn dusty(coin: OutPoint, fee: u64) -> Transaction {
    let mut tx = pay(coin, COIN, fee);
    tx.version = Version(3);
    tx.output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]),
    });
    tx
}

#[test]
fn version_3_parents_may_have_an_anchor_that_the_child_spends() {
    let (mut node, coins) = Node::new(2);
    let truc = |mut tx: Transaction| {
        tx.version = Version(3);
        for input in &mut tx.input {
            if input.previous_output.vout == 1 {
                input.witness.clear();
            }
        }
        tx
    };
    let parent = dusty(coins[0], 0);
    let forgetful = truc(pay(out(&parent, 0), COIN, 3000));
    let outcome = submit(&mut node, &[&parent, &forgetful]);
    assert_eq!(message(&outcome), "unspent-dust");
    assert_eq!(reason(&outcome, &forgetful), "missing-ephemeral-spends");
    let child = truc(spend(&[out(&parent, 0), out(&parent, 1)], &[COIN - 3000]));
    let outcome = submit(&mut node, &[&parent, &child]);
    assert_eq!(message(&outcome), "success", "{outcome:?}");
    assert!(node.pool.has_dust(&parent.compute_txid()));

    let parent = dusty(coins[1], 0);
    let mut older = truc(spend(&[out(&parent, 0), out(&parent, 1)], &[COIN - 3000]));
    older.version = Version::TWO;
    let outcome = submit(&mut node, &[&parent, &older]);
    assert!(
        message(&outcome).starts_with("TRUC-violation, non-version=3 tx"),
        "{outcome:?}"
    );
}

#[test]
fn testing_takes_nothing_in_and_lets_nothing_replace() {
    let (mut node, coins) = Node::new(2);
    let parent = pay(coins[0], COIN, 1000);
    let child = pay(out(&parent, 0), COIN - 1000, 1000);
    let test = |node: &Node, txs: &[&Transaction]| {
        let txs: Vec<Arc<Transaction>> = txs.iter().map(|tx| Arc::new((*tx).clone())).collect();
        node.pool.test_package(node.now, &txs)
    };
    let outcome = test(&node, &[&parent, &child]);
    assert_eq!(message(&outcome), "success");
    let PackageTx::Accepted(accepted) = &outcome.results[&child.compute_wtxid()] else {
        panic!("{outcome:?}");
    };
    assert_eq!(accepted.effective_includes, [child.compute_wtxid()]);
    assert!(node.pool.is_empty());
    assert_eq!(
        node.pool.test_accept(node.now, Arc::new(parent.clone())).unwrap().fee,
        Amount::from_sat(1000)
    );
    node.add(&pay(coins[0], COIN, 500));
    let outcome = test(&node, &[&parent, &child]);
    assert_eq!(reason(&outcome, &parent), "bip125-replacement-disallowed");
    let free = pay(coins[1], COIN, 0);
    let rich = pay(out(&free, 0), COIN, 9000);
    let outcome = test(&node, &[&free, &rich]);
    assert_eq!(reason(&outcome, &free), "min relay fee not met");
    assert_eq!(outcome.results.len(), 1, "the rest was not looked at");
}
