//! What gets in and what does not, with Core's reasons.

use bitcoin::absolute::LockTime;
use bitcoin::ecdsa::Signature;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, PublicKey, ScriptBuf, Sequence, TxOut, Txid, Witness};
use dunlin_mempool::RejectKind;

use crate::harness::{COIN, Node, anybody, out, pay, spend};

#[test]
fn a_good_transaction_gets_in_once() {
    let (mut node, coins) = Node::new(1);
    let tx = pay(coins[0], COIN, 1000);
    let accepted = node.accept(&tx).unwrap();
    assert_eq!(accepted.fee, Amount::from_sat(1000));
    assert_eq!(accepted.vsize, tx.vsize() as u64);
    assert!(accepted.replaced.is_empty());
    assert_eq!(node.refuse(&tx), "txn-already-in-mempool");
    let mut other = tx.clone();
    other.input[0].witness = Witness::from_slice(&[vec![1], vec![0x51]]);
    assert_eq!(node.refuse(&other), "txn-same-nonwitness-data-in-mempool");
    assert!(node.accept(&other).unwrap_err().kind.is_already_known());

    let pool = &node.pool;
    assert_eq!(pool.get(&accepted.txid).unwrap().as_ref(), &tx);
    assert_eq!(pool.get_by_wtxid(&accepted.wtxid).unwrap().as_ref(), &tx);
    assert_eq!(pool.spender(&coins[0]), Some(accepted.txid));
    let info = pool.info();
    assert_eq!(
        (info.size, info.bytes, info.total_fee),
        (1, accepted.vsize, Amount::from_sat(1000))
    );
    assert_eq!(
        (info.min_feerate, info.min_relay_feerate, info.incremental_feerate),
        (100, 100, 100)
    );
}

#[test]
fn missing_inputs_are_named_and_confirmed_transactions_known() {
    let (mut node, coins) = Node::new(2);
    let unknown = OutPoint::new(Txid::from_byte_array([7; 32]), 3);
    let tx = spend(&[coins[0], unknown], &[1000]);
    let reject = node.accept(&tx).unwrap_err();
    assert_eq!(reject.reason, "bad-txns-inputs-missingorspent");
    assert_eq!(reject.kind, RejectKind::MissingInputs(vec![unknown]));

    let parent = pay(coins[0], COIN, 1000);
    node.add(&parent);
    let beyond = OutPoint::new(parent.compute_txid(), 1);
    let reject = node.accept(&spend(&[beyond], &[1000])).unwrap_err();
    assert_eq!(
        reject.kind,
        RejectKind::MissingInputs(vec![beyond]),
        "no such output of a known parent"
    );

    node.mine(vec![parent.clone()]);
    assert_eq!(node.refuse(&parent), "txn-already-known");
}

#[test]
fn consensus_failures_are_told_from_policy() {
    let (mut node, coins) = Node::new(1);
    let mut empty = pay(coins[0], COIN, 1000);
    empty.output.clear();
    let reject = node.accept(&empty).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("bad-txns-vout-empty", RejectKind::Consensus)
    );

    let inflating = spend(&[coins[0]], &[COIN + 1]);
    let reject = node.accept(&inflating).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("bad-txns-in-belowout", RejectKind::Consensus)
    );

    let coinbase = node.block(vec![]).block().txdata[0].clone();
    assert_eq!(node.refuse(&coinbase), "coinbase");

    let mut failing = pay(coins[0], COIN, 1000);
    failing.input[0].witness = Witness::from_slice(&[[0x00]]);
    let reject = node.accept(&failing).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("mempool-script-verify-flag-failed", RejectKind::Consensus)
    );
    failing.input[0].witness.clear();
    let reject = node.accept(&failing).unwrap_err();
    assert_eq!(
        (reject.reason.as_ref(), reject.kind),
        ("mempool-script-verify-flag-failed", RejectKind::Policy)
    );
    assert!(node.pool.is_empty());
}

#[test]
fn signatures_are_verified() {
    let (mut node, coins) = Node::new(2);
    let secp = Secp256k1::new();
    let key = SecretKey::from_slice(&[3; 32]).unwrap();
    let public = PublicKey::new(key.public_key(&secp));
    let own = ScriptBuf::new_p2wpkh(&CompressedPublicKey::try_from(public).unwrap().wpubkey_hash());
    let mut funding = pay(coins[0], COIN, 1000);
    funding.output[0].script_pubkey = own.clone();
    node.add(&funding);

    let value = funding.output[0].value;
    let mut tx = pay(out(&funding, 0), value.to_sat(), 1000);
    tx.input[0].witness.clear();
    let hash = SighashCache::new(&tx)
        .p2wpkh_signature_hash(0, &own, value, EcdsaSighashType::All)
        .unwrap();
    let signature = secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &key);
    tx.input[0].witness = Witness::p2wpkh(&Signature::sighash_all(signature), &public.inner);

    let mut forged = tx.clone();
    forged.output[0].value -= Amount::from_sat(1);
    assert_eq!(node.refuse(&forged), "mempool-script-verify-flag-failed");
    node.add(&tx);
}

#[test]
fn unusual_forms_are_refused_where_standards_hold() {
    let (mut node, coins) = Node::new(1);
    let good = pay(coins[0], COIN, 1000);
    let mut old = good.clone();
    old.version = Version(0);
    assert_eq!(node.refuse(&old), "version");
    let mut bare = good.clone();
    bare.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 10]);
    assert_eq!(node.refuse(&bare), "scriptpubkey");
    let mut stuffed = good.clone();
    stuffed.input[0].witness = Witness::from_slice(&[vec![0; 81], vec![0x75, 0x51]]);
    assert_eq!(node.refuse(&stuffed), "bad-witness-nonstandard");
    let mut dusty = good.clone();
    dusty.output.push(TxOut {
        value: Amount::from_sat(329),
        script_pubkey: anybody(),
    });
    assert_eq!(node.refuse(&dusty), "dust");
    dusty.output[1].value = Amount::from_sat(330);
    node.add(&dusty);

    let (mut node, coins) = Node::with(
        1,
        dunlin_mempool::Config {
            require_standard: false,
            ..Default::default()
        },
    );
    bare.input[0].previous_output = coins[0];
    node.add(&bare);
}

#[test]
fn fees_must_reach_the_least_rate() {
    let (mut node, coins) = Node::new(1);
    let vsize = pay(coins[0], COIN, 0).vsize() as u64;
    let least = vsize.div_ceil(10);
    assert_eq!(node.refuse(&pay(coins[0], COIN, 0)), "min relay fee not met");
    assert_eq!(node.refuse(&pay(coins[0], COIN, least - 1)), "min relay fee not met");
    node.add(&pay(coins[0], COIN, least));
}

#[test]
fn locks_are_measured_against_the_next_block() {
    let (mut node, coins) = Node::new(3);
    let tip = node.chain.view().tip();
    let mut tx = pay(coins[0], COIN, 1000);
    tx.input[0].sequence = Sequence::ZERO;
    tx.lock_time = LockTime::from_consensus(tip.height + 1);
    assert_eq!(node.refuse(&tx), "non-final");
    tx.lock_time = LockTime::from_consensus(tip.median_time_past);
    assert_eq!(node.refuse(&tx), "non-final");
    tx.lock_time = LockTime::from_consensus(tip.height);
    node.add(&tx);

    // A coin of height 2, spent in the block after the tip: that is as many blocks as lie between.
    let mut relative = pay(coins[1], COIN, 1000);
    let age = (tip.height + 1 - 2) as u16;
    relative.input[0].sequence = Sequence::from_height(age + 1);
    assert_eq!(node.refuse(&relative), "non-BIP68-final");
    relative.input[0].sequence = Sequence::from_height(age);
    node.add(&relative);

    // The parent counts as made in the next block: its child waits one more.
    let mut child = pay(out(&relative, 0), COIN - 1000, 1000);
    child.input[0].sequence = Sequence::from_height(1);
    assert_eq!(node.refuse(&child), "non-BIP68-final");
    child.input[0].sequence = Sequence::from_height(0);
    node.add(&child);

    // By time: the median before the coin's block, in steps of 512 seconds.
    let view = node.chain.view();
    let since = tip.median_time_past - view.entry_at(2).unwrap().median_time_past;
    let mut timed = pay(coins[2], COIN, 1000);
    let steps = (since / 512) as u16;
    timed.input[0].sequence = Sequence::from_512_second_intervals(steps + 1);
    assert_eq!(node.refuse(&timed), "non-BIP68-final");
    timed.input[0].sequence = Sequence::from_512_second_intervals(steps);
    node.add(&timed);
}

#[test]
fn coinbases_mature_for_the_next_block() {
    let (mut node, _) = Node::new(2);
    let view = node.chain.view();
    let coinbase = |height: u32| {
        let bytes = view.block_bytes(&view.hash_at(height).unwrap()).unwrap().unwrap();
        OutPoint::new(dunlin_chain::ParsedBlock::parse(bytes).unwrap().txids[0], 0)
    };
    // The tip is at 102, so the next block may spend what is a hundred blocks below it.
    assert_eq!(view.tip().height, 102);
    assert_eq!(
        node.refuse(&pay(coinbase(4), COIN, 1000)),
        "bad-txns-premature-spend-of-coinbase"
    );
    node.add(&pay(coinbase(3), COIN, 1000));
}

#[test]
fn clusters_are_bounded_by_count() {
    let (mut node, coins) = Node::new(2);
    let mut value = COIN;
    let mut coin = coins[0];
    for _ in 0..64 {
        let tx = pay(coin, value, 1000);
        node.add(&tx);
        value -= 1000;
        coin = out(&tx, 0);
    }
    assert_eq!(node.refuse(&pay(coin, value, 1000)), "too-large-cluster");
    node.add(&pay(coins[1], COIN, 1000));
    assert_eq!(node.pool.len(), 65);
    let last = node.pool.txids()[63];
    assert_eq!(node.pool.ancestors(&last).len(), 64);
}

#[test]
fn version_3_lives_in_pairs() {
    let (mut node, coins) = Node::new(3);
    let truc = |mut tx: bitcoin::Transaction| {
        tx.version = Version(3);
        tx
    };
    let parent = truc(spend(&[coins[0]], &[COIN / 2, COIN / 2 - 1000]));
    node.add(&parent);
    assert_eq!(
        node.refuse(&pay(out(&parent, 0), COIN / 2, 1000)),
        "TRUC-violation",
        "a child of another version"
    );
    let child = truc(pay(out(&parent, 0), COIN / 2, 1000));
    let child_id = node.add(&child);
    assert_eq!(
        node.refuse(&truc(pay(out(&child, 0), COIN / 2 - 1000, 1000))),
        "TRUC-violation",
        "a grandchild"
    );
    // A second child puts the first out if it pays for it.
    let poor = truc(pay(out(&parent, 1), COIN / 2 - 1000, 1000));
    assert_eq!(node.refuse(&poor), "insufficient fee (including sibling eviction)");
    let rich = truc(pay(out(&parent, 1), COIN / 2 - 1000, 5000));
    assert_eq!(node.accept(&rich).unwrap().replaced, [child_id]);
    let wide = truc(spend(&[coins[1]], &vec![1000; 300]));
    assert_eq!(node.refuse(&wide), "TRUC-violation", "too big");
    let plain = pay(coins[2], COIN, 1000);
    node.add(&plain);
    assert_eq!(
        node.refuse(&truc(pay(out(&plain, 0), COIN - 1000, 1000))),
        "TRUC-violation"
    );
}
