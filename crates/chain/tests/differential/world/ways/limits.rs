//! One more than the limits of size, weight and signature operations.

use bitcoin::{Block, OutPoint, ScriptBuf, Witness};

use super::When::Content;
use super::{Way, edges, way};
use crate::world::maker::{Maker, State};
use crate::world::regtest;

pub const WAYS: &[Way] = &[
    way("too many signature operations", Content, |_, _, block| {
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_001]);
        Some(())
    }),
    way("a multisig too many", Content, |_, _, block| {
        // Each counts for twenty, whatever the number before it.
        let script: Vec<u8> = [0x51, 0xae].repeat(1001);
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(script);
        Some(())
    }),
    way(
        "too many signature operations in witness scripts",
        Content,
        |maker, state, block| witness_sigops(maker, state, block, 80, 1001, false),
    ),
    way(
        "too many signature operations in nested witness scripts",
        Content,
        |maker, state, block| witness_sigops(maker, state, block, 80, 1001, true),
    ),
    way(
        "too many signature operations in redeem scripts",
        Content,
        |maker, state, block| {
            // 15 operations of which each is charged fourfold, 1334 times.
            let script = ScriptBuf::from_bytes([&[0x00, 0x63][..], &[0xad; 150], &[0x68, 0x51]].concat());
            let coin = maker.coin(state, |coin| {
                coin.lock == crate::world::locks::Lock::Open && coin.value > 1000
            })?;
            let lock = regtest::spend(&[coin.at], &vec![(1, script.to_p2sh()); 134]);
            let inputs: Vec<_> = (0..134)
                .map(|vout| OutPoint {
                    txid: lock.compute_txid(),
                    vout,
                })
                .collect();
            let mut open = regtest::spend(&inputs, &[(1, regtest::open_script())]);
            for input in &mut open.input {
                let push = bitcoin::script::PushBytesBuf::try_from(script.to_bytes()).unwrap();
                input.script_sig = bitcoin::script::Builder::new().push_slice(push).into_script();
            }
            block.txdata.extend([lock, open]);
            Some(())
        },
    ),
    way("a block that is too long", Content, |_, _, block| {
        block.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
        Some(())
    }),
    way("a transaction that is too long", Content, |maker, state, block| {
        super::add_open(maker, state, block, |tx, _| {
            tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
        })
    }),
    way("a block that weighs one too much", Content, |maker, state, block| {
        edges::weigh(maker, state, block, 4_000_001)
    }),
    way("a block that weighs far too much", Content, |maker, state, block| {
        edges::weigh(maker, state, block, 4_000_001)?;
        block.txdata.last_mut()?.input[0].witness.push([0; 10_000]);
        Some(())
    }),
];

/// Spends `inputs` witness scripts with `each` operations that are counted but never run.
pub(super) fn witness_sigops(
    maker: &mut Maker,
    state: &State,
    block: &mut Block,
    inputs: u32,
    each: usize,
    nested: bool,
) -> Option<()> {
    // Multisigs of up to sixteen keys, so that no script passes the limit of what it may hold.
    let mut counted = [0x60, 0xae].repeat(each / 16);
    if !each.is_multiple_of(16) {
        counted.extend([0x50 + (each % 16) as u8, 0xae]);
    }
    let script = ScriptBuf::from_bytes([&[0x51, 0x63, 0x51, 0x67][..], &counted, &[0x68]].concat());
    let coin = maker.coin(state, |coin| {
        coin.lock == crate::world::locks::Lock::Open && coin.value > 1000
    })?;
    let program = script.to_p2wsh();
    let output = if nested { program.to_p2sh() } else { program.clone() };
    let lock = regtest::spend(&[coin.at], &vec![(1, output); inputs as usize]);
    let places: Vec<_> = (0..inputs)
        .map(|vout| OutPoint {
            txid: lock.compute_txid(),
            vout,
        })
        .collect();
    let mut open = regtest::spend(&places, &[(1, regtest::open_script())]);
    for input in &mut open.input {
        input.witness = Witness::from_slice(&[script.as_bytes()]);
        if nested {
            let push = bitcoin::script::PushBytesBuf::try_from(program.to_bytes()).unwrap();
            input.script_sig = bitcoin::script::Builder::new().push_slice(push).into_script();
        }
    }
    block.txdata.extend([lock, open]);
    Some(())
}
