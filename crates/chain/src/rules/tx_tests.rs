//! Tests of the transaction rules.
#![allow(clippy::unwrap_used)]

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use super::*;

fn input(id: u8, index: u32) -> TxIn {
    TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([id; 32]), index),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    }
}

fn output(value: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::new(),
    }
}

fn tx() -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(1, 0)],
        output: vec![output(1000)],
    }
}

fn coinbase(script: usize) -> Transaction {
    let mut tx = tx();
    tx.input[0].previous_output = OutPoint::null();
    tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; script]);
    tx
}

fn reason<T: std::fmt::Debug>(result: Result<T, Reject>) -> String {
    result.unwrap_err().reason.into_owned()
}

/// The reason for which `tx()` fails after `change`.
fn broken(change: impl FnOnce(&mut Transaction)) -> String {
    let mut tx = tx();
    change(&mut tx);
    reason(check_tx(&tx))
}

#[test]
fn the_shape_of_a_transaction() {
    assert_eq!(check_tx(&tx()), Ok(()));
    assert_eq!(broken(|tx| tx.input.clear()), "bad-txns-vin-empty");
    assert_eq!(broken(|tx| tx.output.clear()), "bad-txns-vout-empty");
    assert_eq!(broken(|tx| tx.input.push(input(1, 0))), "bad-txns-inputs-duplicate");
    assert_eq!(
        broken(|tx| tx.input.extend([input(2, 0), input(3, 0), input(2, 0)])),
        "bad-txns-inputs-duplicate"
    );
    assert_eq!(
        broken(|tx| tx.input.push(TxIn {
            previous_output: OutPoint::null(),
            ..input(1, 0)
        })),
        "bad-txns-prevout-null"
    );
    let mut two = tx();
    two.input.push(input(1, 1));
    assert_eq!(
        check_tx(&two),
        Ok(()),
        "another output of the same transaction is no duplicate"
    );
    for length in [2, 100] {
        assert_eq!(check_tx(&coinbase(length)), Ok(()));
    }
    for length in [0, 1, 101] {
        assert_eq!(reason(check_tx(&coinbase(length))), "bad-cb-length");
    }
}

#[test]
fn the_size_limit_leaves_witnesses_out() {
    let mut large = tx();
    // Everything but the script takes 64 bytes: 51 around one input, 8 for the amount, 5 for the script's length.
    let fill = |tx: &mut Transaction, size: usize| {
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; size - 64]);
    };
    fill(&mut large, 1_000_000);
    assert_eq!(large.base_size(), 1_000_000);
    large.input[0].witness.push([0; 500]);
    assert_eq!(check_tx(&large), Ok(()));
    fill(&mut large, 1_000_001);
    assert_eq!(reason(check_tx(&large)), "bad-txns-oversize");
}

#[test]
fn amounts_are_signed_on_the_wire_and_capped() {
    let with = |values: &[u64]| {
        let mut tx = tx();
        tx.output = values.iter().map(|value| output(*value)).collect();
        check_tx(&tx).map_err(|reject| reject.reason.into_owned())
    };
    assert_eq!(with(&[MAX_MONEY]), Ok(()));
    assert_eq!(with(&[0, 0]), Ok(()));
    assert_eq!(with(&[u64::MAX]), Err("bad-txns-vout-negative".into()));
    assert_eq!(with(&[1 << 63]), Err("bad-txns-vout-negative".into()));
    assert_eq!(with(&[MAX_MONEY + 1]), Err("bad-txns-vout-toolarge".into()));
    assert_eq!(with(&[i64::MAX as u64]), Err("bad-txns-vout-toolarge".into()));
    assert_eq!(with(&[MAX_MONEY, 1]), Err("bad-txns-txouttotal-toolarge".into()));
    assert_eq!(with(&[MAX_MONEY - 1, 1]), Ok(()));
}

fn coin(value: u64, height: u32, coinbase: bool) -> Coin {
    Coin {
        output: output(value),
        height,
        coinbase,
    }
}

#[test]
fn inputs_must_cover_outputs_and_the_rest_is_the_fee() {
    assert_eq!(
        check_tx_inputs(&tx(), &[coin(1500, 1, false)], 2),
        Ok(Amount::from_sat(500))
    );
    assert_eq!(check_tx_inputs(&tx(), &[coin(1000, 1, false)], 2), Ok(Amount::ZERO));
    assert_eq!(
        reason(check_tx_inputs(&tx(), &[coin(999, 1, false)], 2)),
        "bad-txns-in-belowout"
    );
    assert_eq!(reason(check_tx_inputs(&tx(), &[], 2)), "bad-txns-inputs-missingorspent");
    assert_eq!(
        reason(check_tx_inputs(&tx(), &[coin(MAX_MONEY + 1, 1, false)], 2)),
        "bad-txns-inputvalues-outofrange"
    );
    let mut two = tx();
    two.input.push(input(2, 0));
    let coins = [coin(MAX_MONEY, 1, false), coin(1, 1, false)];
    assert_eq!(
        reason(check_tx_inputs(&two, &coins, 2)),
        "bad-txns-inputvalues-outofrange"
    );
}

#[test]
fn a_coinbase_matures_after_a_hundred_blocks() {
    let spend = |height| check_tx_inputs(&tx(), &[coin(1000, 50, true)], height);
    let early = spend(149).unwrap_err();
    assert_eq!(
        (early.reason.as_ref(), early.kind),
        ("bad-txns-premature-spend-of-coinbase", RejectKind::Premature)
    );
    assert!(spend(150).is_ok());
    assert!(
        spend(40).is_err(),
        "a coin from above the spending height does not wrap around"
    );
}

#[test]
fn finality_compares_heights_below_the_threshold_and_times_above() {
    let final_at = |lock: u32, sequence: u32, height: u32, time: u32| {
        let mut tx = tx();
        tx.lock_time = LockTime::from_consensus(lock);
        tx.input[0].sequence = Sequence(sequence);
        is_final(&tx, height, time)
    };
    assert!(final_at(0, 0, 0, 0));
    assert!(
        !final_at(100, 0, 100, u32::MAX),
        "the lock is the last height that is not allowed"
    );
    assert!(final_at(100, 0, 101, 0));
    assert!(!final_at(499_999_999, 0, 499_999_999, u32::MAX));
    assert!(!final_at(500_000_000, 0, u32::MAX, 500_000_000));
    assert!(final_at(500_000_000, 0, 0, 500_000_001));
    assert!(
        final_at(u32::MAX, u32::MAX, 0, 0),
        "final sequences switch the lock off"
    );
    let mut mixed = tx();
    mixed.lock_time = LockTime::from_consensus(10);
    mixed.input.push(TxIn {
        sequence: Sequence(0xffff_fffe),
        ..input(2, 0)
    });
    assert!(!is_final(&mixed, 5, 5), "every sequence has to be final");
}

#[test]
fn relative_locks_by_height() {
    let locks = |version: i32, sequence: u32, coin: u32| {
        let mut tx = tx();
        tx.version = Version(version);
        tx.input[0].sequence = Sequence(sequence);
        sequence_locks(&tx, [coin], |_| panic!("no time lock here"))
    };
    assert_eq!(locks(2, 10, 100), SequenceLocks { height: 109, time: -1 });
    assert!(!locks(2, 10, 100).open_at(109, 0) && locks(2, 10, 100).open_at(110, 0));
    assert_eq!(locks(2, 0, 100), SequenceLocks { height: 99, time: -1 });
    assert_eq!(locks(2, 0x003f_0005, 100).height, 104, "only sixteen bits count");
    assert_eq!(locks(1, 10, 100), SequenceLocks::NONE);
    assert_eq!(locks(0, 10, 100), SequenceLocks::NONE);
    assert_eq!(locks(-1, 10, 100).height, 109, "a negative version is a large one");
    assert_eq!(locks(i32::MIN, 10, 100).height, 109);
    assert_eq!(locks(2, 0x8000_000a, 100), SequenceLocks::NONE);
    assert!(SequenceLocks::NONE.open_at(0, 0));
    assert_eq!(
        locks(2, 0xffff, u32::MAX).height,
        i64::from(u32::MAX) + 0xffff - 1,
        "no overflow"
    );
}

#[test]
fn relative_locks_by_time_start_at_the_median_before_the_coin() {
    let locks = |sequence: u32, coin: u32| {
        let mut tx = tx();
        tx.input[0].sequence = Sequence(sequence);
        sequence_locks(&tx, [coin], |height| 1_000_000 + height)
    };
    let two = locks((1 << 22) | 2, 50);
    assert_eq!(
        two,
        SequenceLocks {
            height: -1,
            time: 1_000_049 + 1024 - 1
        }
    );
    assert!(!two.open_at(0, 1_001_072) && two.open_at(0, 1_001_073));
    assert_eq!(
        locks(1 << 22, 0).time,
        1_000_000 - 1,
        "the genesis block has no block before it"
    );
    assert_eq!(locks((1 << 22) | 0xffff, 1).time, 1_000_000 + 0xffff * 512 - 1);
}

#[test]
fn the_strictest_input_decides_and_the_failure_has_cores_name() {
    let mut tx = tx();
    tx.input = vec![
        TxIn {
            sequence: Sequence(5),
            ..input(1, 0)
        },
        TxIn {
            sequence: Sequence((1 << 22) | 1),
            ..input(1, 1)
        },
        TxIn {
            sequence: Sequence(50),
            ..input(1, 2)
        },
        TxIn {
            sequence: Sequence(0x8000_ffff),
            ..input(1, 3)
        },
    ];
    let heights = [100, 10, 60, 1000];
    let locks = sequence_locks(&tx, heights, |height| height * 600);
    assert_eq!(
        locks,
        SequenceLocks {
            height: 109,
            time: 9 * 600 + 512 - 1
        }
    );
    let check = |height, median| check_sequence_locks(&tx, heights, height, median, |height| height * 600);
    assert_eq!(check(110, 5912), Ok(()));
    assert_eq!(reason(check(109, 5912)), "bad-txns-nonfinal");
    assert_eq!(reason(check(110, 5911)), "bad-txns-nonfinal");
}
