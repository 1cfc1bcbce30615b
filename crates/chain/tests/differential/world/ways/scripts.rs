//! Scripts and signatures that do not open their lock.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_PUSHNUM_NEG1;
use bitcoin::{Amount, Block, ScriptBuf, Sequence, Transaction, Witness};

use super::When::Content;
use super::{Way, add, way};
use crate::world::locks::Lock;
use crate::world::maker::{Maker, Owned, SECONDS, State, TIMES};
use crate::world::regtest;

pub const WAYS: &[Way] = &[
    way(
        "a signature over something else (p2pk)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::PublicKey),
    ),
    way(
        "a signature over something else (p2pkh)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::KeyHash),
    ),
    way(
        "a signature over something else (multisig)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::Multisig),
    ),
    way(
        "a signature over something else (p2sh multisig)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::ScriptHashMultisig),
    ),
    way(
        "a signature over something else (p2wpkh)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::WitnessKeyHash),
    ),
    way(
        "a signature over something else (p2sh-p2wpkh)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::NestedKeyHash),
    ),
    way(
        "a signature over something else (p2wsh multisig)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::WitnessMultisig),
    ),
    way(
        "a signature over something else (p2sh-p2wsh multisig)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::NestedMultisig),
    ),
    way(
        "a signature over something else (taproot)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::Taproot),
    ),
    way(
        "a signature over something else (taproot tree)",
        Content,
        |maker, state, block| foreign(maker, state, block, Lock::TaprootTree),
    ),
    way("a signature over another amount", Content, |maker, state, block| {
        let mut coin = maker.coin(state, |coin| coin.lock == Lock::WitnessKeyHash)?;
        coin.value -= 1;
        let mut tx = maker.unsigned(state, &[coin], 0);
        maker.sign_all(&mut tx, &[coin]);
        add(block, tx)
    }),
    way(
        "a signature of another encoding than BIP 66 asks for",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::PublicKey)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            // A zero byte before the end of the signature, counted in the push.
            let mut script = tx.input[0].script_sig.to_bytes();
            script[0] += 1;
            let at = script.len() - 1;
            script.insert(at, 0);
            tx.input[0].script_sig = ScriptBuf::from_bytes(script);
            add(block, tx)
        },
    ),
    way(
        "a dummy of a multisig that is not empty",
        Content,
        |maker, state, block| {
            // BIP 147.
            let coin = maker.coin(state, |coin| coin.lock == Lock::Multisig)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            let mut script = tx.input[0].script_sig.to_bytes();
            script[0] = 0x51;
            tx.input[0].script_sig = ScriptBuf::from_bytes(script);
            add(block, tx)
        },
    ),
    way("a script of another hash", Content, |maker, state, block| {
        witness(maker, state, block, Lock::WitnessScriptHash, &[&[0x52]])
    }),
    way("a redeem script of another hash", Content, |maker, state, block| {
        let coin = maker.coin(state, |coin| coin.lock == Lock::ScriptHash)?;
        let mut tx = maker.unsigned(state, &[coin], 0);
        tx.input[0].script_sig = ScriptBuf::from_bytes(vec![1, 0x52]);
        add(block, tx)
    }),
    way(
        "a redeem script behind more than pushes",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::ScriptHash)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x61, 1, 0x51]);
            add(block, tx)
        },
    ),
    way(
        "a nested witness program behind a second push",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::NestedKeyHash)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            let mut script = vec![OP_PUSHNUM_NEG1.to_u8()];
            script.extend(tx.input[0].script_sig.to_bytes());
            tx.input[0].script_sig = ScriptBuf::from_bytes(script);
            add(block, tx)
        },
    ),
    way(
        "an input script for a witness program",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::WitnessKeyHash)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            tx.input[0].script_sig = regtest::open_script();
            add(block, tx)
        },
    ),
    way(
        "a witness for a coin that takes none",
        Content,
        |maker, state, block| witness(maker, state, block, Lock::Open, &[&[1]]),
    ),
    way(
        "a witness program without its witness",
        Content,
        |maker, state, block| witness(maker, state, block, Lock::WitnessKeyHash, &[]),
    ),
    way(
        "a witness program with a third element",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::WitnessKeyHash)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            let mut items = tx.input[0].witness.to_vec();
            items.insert(0, vec![1]);
            tx.input[0].witness = Witness::from_slice(&items);
            add(block, tx)
        },
    ),
    way(
        "a witness that leaves more than one element",
        Content,
        |maker, state, block| witness(maker, state, block, Lock::WitnessScriptHash, &[&[1], &[0x51]]),
    ),
    way("a witness element that is too long", Content, |maker, state, block| {
        let script = ScriptBuf::from_bytes(vec![0x75, 0x51]);
        wrapped(maker, state, block, &script, &[&[0; 521]])
    }),
    way(
        "a witness script that ends with false",
        Content,
        |maker, state, block| {
            let script = ScriptBuf::from_bytes(vec![0x63, 0x00, 0x67, 0x00, 0x68]);
            wrapped(maker, state, block, &script, &[&[1]])
        },
    ),
    way(
        "a signature of no bytes for a taproot key",
        Content,
        |maker, state, block| witness(maker, state, block, Lock::Taproot, &[&[]]),
    ),
    way(
        "a taproot signature with a sighash type that is none",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::Taproot)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            let mut item = tx.input[0].witness.nth(0)?.to_vec();
            item.truncate(64);
            item.push(0);
            tx.input[0].witness = Witness::from_slice(&[item]);
            add(block, tx)
        },
    ),
    way(
        "an annex that the signature does not know",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| coin.lock == Lock::Taproot)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            maker.sign_all(&mut tx, &[coin]);
            tx.input[0].witness.push([0x50, 7]);
            add(block, tx)
        },
    ),
    way("a control block of a wrong length", Content, |maker, state, block| {
        witness(maker, state, block, Lock::TaprootTree, &[&[0x50], &[0xc0; 34]])
    }),
    way("a leaf that is not in the tree", Content, |maker, state, block| {
        witness(maker, state, block, Lock::TaprootTree, &[&[0x51], &[0xc0; 65]])
    }),
    way("a script that ends with false", Content, |maker, state, block| {
        bare(maker, state, block, regtest::closed_script())
    }),
    way(
        "a script that ends with negative zero",
        Content,
        |maker, state, block| bare(maker, state, block, ScriptBuf::from_bytes(vec![1, 0x80])),
    ),
    way("an opcode that is disabled", Content, |maker, state, block| {
        // Even where it is not reached.
        bare(
            maker,
            state,
            block,
            ScriptBuf::from_bytes(vec![0x51, 0x00, 0x63, 0x7e, 0x68]),
        )
    }),
    way("more than 201 operations", Content, |maker, state, block| {
        let mut script = vec![0x61; 202];
        script.push(0x51);
        bare(maker, state, block, ScriptBuf::from_bytes(script))
    }),
    way("an unbalanced condition", Content, |maker, state, block| {
        bare(maker, state, block, ScriptBuf::from_bytes(vec![0x51, 0x51, 0x63]))
    }),
    way("more than a thousand elements", Content, |maker, state, block| {
        bare(maker, state, block, ScriptBuf::from_bytes(vec![0x51; 1001]))
    }),
    way(
        "an absolute lock that the transaction does not name",
        Content,
        |maker, state, block| {
            let coin = maker.coin(state, |coin| matches!(coin.lock, Lock::Until(_)))?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            let until = tx.lock_time.to_consensus_u32();
            tx.lock_time = LockTime::from_consensus(until - 1);
            (until > 0 && (until < TIMES) == (until - 1 < TIMES)).then_some(())?;
            add(block, tx)
        },
    ),
    way("an absolute lock of the other kind", Content, |maker, state, block| {
        let coin = maker.coin(state, |coin| matches!(coin.lock, Lock::Until(_)))?;
        let mut tx = maker.unsigned(state, &[coin], 0);
        let other = if tx.lock_time.to_consensus_u32() < TIMES {
            TIMES
        } else {
            1
        };
        tx.lock_time = LockTime::from_consensus(other);
        add(block, tx)
    }),
    way("an absolute lock with a final input", Content, |maker, state, block| {
        let coin = maker.coin(state, |coin| matches!(coin.lock, Lock::Until(_)))?;
        let mut tx = maker.unsigned(state, &[coin], 0);
        tx.input[0].sequence = Sequence::MAX;
        add(block, tx)
    }),
    way(
        "an absolute lock that is not open yet",
        Content,
        |maker, state, block| {
            let closed = |coin: &Owned| matches!(coin.lock, Lock::Until(_)) && !state.is_ripe(coin) && !coin.coinbase;
            let coin = maker.pick_any(state, 1, closed).pop()?;
            let tx = maker.unsigned(state, &[coin], 0);
            add(block, tx)
        },
    ),
    way(
        "a relative lock that the input does not name",
        Content,
        |maker, state, block| {
            let one = |coin: &Owned| matches!(coin.lock, Lock::After(after) if after & 0xffff > 0);
            let coin = maker.coin(state, one)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            tx.input[0].sequence = Sequence(tx.input[0].sequence.0 - 1);
            add(block, tx)
        },
    ),
    way("a relative lock of the other kind", Content, |maker, state, block| {
        let one = |coin: &Owned| matches!(coin.lock, Lock::After(_));
        let coin = maker.coin(state, one)?;
        let mut tx = maker.unsigned(state, &[coin], 0);
        tx.input[0].sequence = Sequence(tx.input[0].sequence.0 ^ SECONDS);
        add(block, tx)
    }),
    way(
        "a relative lock in a transaction of version 1",
        Content,
        |maker, state, block| {
            let one = |coin: &Owned| matches!(coin.lock, Lock::After(_));
            let coin = maker.coin(state, one)?;
            let mut tx = maker.unsigned(state, &[coin], 0);
            tx.version = bitcoin::transaction::Version::ONE;
            add(block, tx)
        },
    ),
    way(
        "a relative lock that is not open yet",
        Content,
        |maker, state, block| {
            let closed = |coin: &Owned| matches!(coin.lock, Lock::After(_)) && !state.is_ripe(coin) && !coin.coinbase;
            let coin = maker.pick_any(state, 1, closed).pop()?;
            let tx = maker.unsigned(state, &[coin], 0);
            add(block, tx)
        },
    ),
];

fn foreign(maker: &mut Maker, state: &State, block: &mut Block, lock: Lock) -> Option<()> {
    let coin = maker.coin(state, |coin| coin.lock == lock)?;
    let mut tx = maker.unsigned(state, &[coin], 0);
    maker.sign_all(&mut tx, &[coin]);
    tx.output[0].value -= Amount::ONE_SAT;
    add(block, tx)
}

/// Spends a coin of a lock with this witness.
fn witness(maker: &mut Maker, state: &State, block: &mut Block, lock: Lock, items: &[&[u8]]) -> Option<()> {
    let coin = maker.coin(state, |coin| coin.lock == lock)?;
    let mut tx = maker.unsigned(state, &[coin], 0);
    tx.input[0].witness = Witness::from_slice(items);
    add(block, tx)
}

/// Locks a coin with a script and opens it with nothing.
fn bare(maker: &mut Maker, state: &State, block: &mut Block, script: ScriptBuf) -> Option<()> {
    let (lock, open) = through(maker, state, script)?;
    block.txdata.push(lock);
    add(block, open)
}

/// Locks a coin with a witness script and opens it with these items.
fn wrapped(maker: &mut Maker, state: &State, block: &mut Block, script: &ScriptBuf, items: &[&[u8]]) -> Option<()> {
    let (lock, mut open) = through(maker, state, script.to_p2wsh())?;
    let mut witness = Witness::from_slice(items);
    witness.push(script.as_bytes());
    open.input[0].witness = witness;
    block.txdata.push(lock);
    add(block, open)
}

/// A transaction that locks an open coin with `script`, and one that spends it without opening anything.
pub(super) fn through(maker: &mut Maker, state: &State, script: ScriptBuf) -> Option<(Transaction, Transaction)> {
    let coin = maker.open_coin(state)?;
    let lock = regtest::spend(&[coin.at], &[(coin.value, script)]);
    let at = bitcoin::OutPoint {
        txid: lock.compute_txid(),
        vout: 0,
    };
    let open = regtest::spend(&[at], &[(coin.value, regtest::open_script())]);
    Some((lock, open))
}
