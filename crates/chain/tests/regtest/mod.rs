//! Blocks and transactions for tests on regtest.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use dunlin_chain::build::{self, Base};
use dunlin_chain::{Network, Params, ParsedBlock, rules};

/// A clock far ahead of every block made here.
pub const NOW: u64 = 1_900_000_000;

/// A place in a chain to build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub hash: BlockHash,
    pub height: u32,
    pub time: u32,
}

/// The genesis block.
pub fn genesis() -> Place {
    let params = Params::new(Network::Regtest);
    Place {
        hash: params.genesis_hash,
        height: 0,
        time: params.genesis.header.time,
    }
}

/// A block and the place behind it.
#[derive(Clone, Debug)]
pub struct Made {
    pub block: Arc<ParsedBlock>,
    pub place: Place,
}

impl Made {
    /// The coinbase's id.
    pub fn coinbase(&self) -> Txid {
        self.block.txids[0]
    }

    /// The output that the coinbase pays to.
    pub fn reward(&self) -> OutPoint {
        OutPoint {
            txid: self.coinbase(),
            vout: 0,
        }
    }
}

/// Anyone can spend this.
pub fn open_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// Nobody can.
pub fn closed_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x00])
}

/// The subsidy at a height.
pub fn subsidy(height: u32) -> Amount {
    rules::subsidy(height, Params::new(Network::Regtest).subsidy_halving_interval)
}

/// Spends outputs without a signature.
pub fn spend(inputs: &[OutPoint], outputs: &[(u64, ScriptBuf)]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs
            .iter()
            .map(|previous_output| TxIn {
                previous_output: *previous_output,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output: outputs
            .iter()
            .map(|(value, script_pubkey)| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: script_pubkey.clone(),
            })
            .collect(),
    }
}

/// An unsolved block on `on`; `salt` makes siblings differ.
pub fn draft(on: Place, salt: u64, txs: Vec<Transaction>, fees: u64) -> Block {
    let params = Params::new(Network::Regtest);
    let base = Base {
        height: on.height + 1,
        parent: on.hash,
        bits: params.genesis.header.bits,
        time: on.time.saturating_add(60),
    };
    build::assemble(
        &params,
        &base,
        txs,
        Amount::from_sat(fees),
        open_script(),
        &salt.to_le_bytes(),
    )
}

/// Commits to what the draft holds now and solves it.
pub fn finish(mut block: Block, height: u32) -> Made {
    build::commit_witnesses(&mut block);
    build::commit_transactions(&mut block);
    seal(block, height)
}

/// Solves the draft as it is.
pub fn seal(mut block: Block, height: u32) -> Made {
    assert!(build::solve(&mut block));
    let place = Place {
        hash: block.block_hash(),
        height,
        time: block.header.time,
    };
    Made {
        block: ParsedBlock::from_block(block),
        place,
    }
}

/// A valid block on `on`.
pub fn block(on: Place, salt: u64, txs: Vec<Transaction>, fees: u64) -> Made {
    seal(draft(on, salt, txs, fees), on.height + 1)
}

/// `count` empty blocks in a row.
pub fn blocks(mut on: Place, salt: u64, count: usize) -> Vec<Made> {
    (0..count)
        .map(|_| {
            let made = block(on, salt, Vec::new(), 0);
            on = made.place;
            made
        })
        .collect()
}
