//! Bodies that do not belong to their header, broken coinbases and broken commitments.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, TxIn, Witness};
use dunlin_chain::{build, rules};

use super::When::{Content, Sealed};
use super::{Way, add_open, way};
use crate::world::regtest;

pub const WAYS: &[Way] = &[
    way("last transaction repeated", Sealed, |_, _, block| {
        // The root stays the same when a row of odd length repeats its last.
        if block.txdata.len() % 2 == 0 {
            return None;
        }
        block.txdata.extend_from_within(block.txdata.len() - 1..);
        Some(())
    }),
    way("last two transactions repeated", Content, |maker, state, block| {
        // Six leaves have the same root as eight of which the last two repeat the two before.
        let mut at = maker.open_coin(state)?.at;
        while block.txdata.len() % 4 != 2 || block.txdata.len() < 6 {
            let tx = regtest::spend(&[at], &[(0, regtest::open_script())]);
            at = OutPoint {
                txid: tx.compute_txid(),
                vout: 0,
            };
            block.txdata.push(tx);
        }
        block.txdata.extend_from_within(block.txdata.len() - 2..);
        Some(())
    }),
    way("a transaction that follows itself", Content, |_, _, block| {
        if block.txdata.len() < 2 {
            return None;
        }
        // As neighbours under one node, so that it is seen in the tree.
        if block.txdata.len() % 2 == 0 {
            block.txdata.remove(1);
        }
        block.txdata.extend_from_within(block.txdata.len() - 1..);
        (block.txdata.len() > 2).then_some(())
    }),
    way("transactions in another order", Sealed, |_, _, block| {
        if block.txdata.len() < 3 {
            return None;
        }
        block.txdata.swap(1, 2);
        Some(())
    }),
    way("a transaction too few", Sealed, |_, _, block| {
        block.txdata.pop();
        Some(())
    }),
    way("witness changed after the commitment", Sealed, |_, _, block| {
        spender(block)?.witness.push([1]);
        Some(())
    }),
    way("witness taken away after the commitment", Sealed, |_, _, block| {
        let input = block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input);
        input
            .into_iter()
            .find(|input| !input.witness.is_empty())
            .map(|input| input.witness.clear())
    }),
    way("witness without a commitment", Sealed, |_, _, block| {
        let index = rules::witness_commitment_index(block.txdata.first()?)?;
        block.txdata[0].output.remove(index);
        build::commit_transactions(block);
        Some(())
    }),
    way("a reserved value that is too short", Sealed, |_, _, block| {
        block.txdata.first_mut()?.input[0].witness = Witness::from_slice(&[[0u8; 31]]);
        Some(())
    }),
    way("a reserved value that is too long", Sealed, |_, _, block| {
        block.txdata.first_mut()?.input[0].witness = Witness::from_slice(&[[0u8; 33]]);
        Some(())
    }),
    way("two reserved values", Sealed, |_, _, block| {
        block.txdata.first_mut()?.input[0].witness = Witness::from_slice(&[[0u8; 32]; 2]);
        Some(())
    }),
    way("no reserved value", Sealed, |_, _, block| {
        block.txdata.first_mut()?.input[0].witness.clear();
        Some(())
    }),
    way("another reserved value than committed to", Sealed, |_, _, block| {
        block.txdata.first_mut()?.input[0].witness = Witness::from_slice(&[[1u8; 32]]);
        Some(())
    }),
    way("a wrong commitment after the right one", Sealed, |_, _, block| {
        let coinbase = block.txdata.first_mut()?;
        let mut script = rules::WITNESS_COMMITMENT_HEADER.to_vec();
        script.extend([9; 32]);
        let mut output = coinbase.output.last()?.clone();
        output.script_pubkey = ScriptBuf::from_bytes(script);
        coinbase.output.push(output);
        build::commit_transactions(block);
        Some(())
    }),
    way("another height in the coinbase", Content, |_, state, block| {
        coinbase_script(block, &rules::bip34_prefix(state.place.height))
    }),
    way(
        "a height that is not pushed in its shortest form",
        Content,
        |_, state, block| {
            let bytes = state.next().to_le_bytes();
            let mut script = vec![5];
            script.extend(bytes);
            script.push(0);
            coinbase_script(block, &script)
        },
    ),
    way("a height behind a longer push opcode", Content, |_, state, block| {
        let prefix = rules::bip34_prefix(state.next());
        if prefix.len() < 2 {
            return coinbase_script(block, &[1, state.next() as u8]);
        }
        let mut script = vec![0x4c];
        script.extend(prefix);
        coinbase_script(block, &script)
    }),
    way("a height with its top byte cut off", Content, |_, state, block| {
        let prefix = rules::bip34_prefix(state.next());
        // A zero is what follows anyway.
        let (last, rest) = prefix.split_last()?;
        (*last != 0).then_some(())?;
        coinbase_script(block, rest)
    }),
    way("a coinbase script that is too long", Content, |_, _, block| {
        let mut script = block.txdata[0].input[0].script_sig.to_bytes();
        script.resize(101, 0);
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        Some(())
    }),
    way("a coinbase script of one byte", Content, |_, _, block| {
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
        Some(())
    }),
    way("a coinbase without a script", Content, |_, _, block| {
        block.txdata[0].input[0].script_sig = ScriptBuf::new();
        Some(())
    }),
    way("two coinbases", Content, |_, _, block| {
        let mut second = block.txdata[0].clone();
        second.output.truncate(1);
        second.output[0].value = Amount::ZERO;
        block.txdata.push(second);
        Some(())
    }),
    way("no coinbase", Sealed, |_, _, block| {
        if block.txdata.len() < 2 {
            return None;
        }
        block.txdata.remove(0);
        build::commit_transactions(block);
        Some(())
    }),
    way("a coinbase with a second input", Content, |_, _, block| {
        let mut input = block.txdata[0].input[0].clone();
        input.previous_output.vout = 3;
        block.txdata[0].input.push(input);
        Some(())
    }),
    way("a coinbase that names output 0 of nothing", Content, |_, _, block| {
        block.txdata[0].input[0].previous_output.vout = 0;
        Some(())
    }),
    way("a coinbase without outputs", Sealed, |_, _, block| {
        block.txdata.first_mut()?.output.clear();
        build::commit_transactions(block);
        Some(())
    }),
    way("a coinbase that is not final", Content, |_, state, block| {
        block.txdata[0].lock_time = bitcoin::absolute::LockTime::from_consensus(state.next());
        block.txdata[0].input[0].sequence = Sequence(0);
        Some(())
    }),
    way("no transaction at all", Sealed, |_, _, block| {
        block.txdata.clear();
        build::commit_transactions(block);
        Some(())
    }),
    way("a transaction without outputs", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| tx.output.clear())
    }),
    way("an input named twice", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            let again = tx.input[0].clone();
            tx.input.push(again);
        })
    }),
    way("an input named twice among others", Content, |maker, state, block| {
        let coins = maker.pick(state, 3, |coin| coin.value > 0);
        add_open(maker, state, block, |tx, _| {
            for coin in &coins {
                tx.input.push(TxIn {
                    previous_output: coin.at,
                    ..tx.input[0].clone()
                });
            }
            let again = tx.input[0].clone();
            tx.input.push(again);
        })
    }),
    way("a null input beside a real one", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            let mut null = tx.input[0].clone();
            null.previous_output = OutPoint::null();
            tx.input.push(null);
        })
    }),
    way("a half-null input", Content, |maker, state, block| {
        add_open(maker, state, block, |tx, _| {
            let mut null = tx.input[0].clone();
            null.previous_output = OutPoint {
                txid: bitcoin::Txid::all_zeros(),
                vout: 0,
            };
            tx.input.push(null);
        })
    }),
];

/// Some input that is not the coinbase's.
fn spender(block: &mut Block) -> Option<&mut TxIn> {
    block.txdata.get_mut(1)?.input.first_mut()
}

/// A coinbase script that begins with `prefix`.
fn coinbase_script(block: &mut Block, prefix: &[u8]) -> Option<()> {
    let mut script = prefix.to_vec();
    script.extend([0; 4]);
    block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
    Some(())
}
