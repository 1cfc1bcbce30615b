//! Building blocks: the coinbase, the witness commitment, the merkle root, and the search for a nonce. Used by miners
//! on networks where a processor is enough, and by tests.

mod signet;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, Wtxid,
};

use crate::rules::{
    LOCKTIME_THRESHOLD, MAX_TIMEWARP, WITNESS_COMMITMENT_HEADER, bip34_prefix, derive_target, merkle_root,
    next_work_required, subsidy, witness_commitment_index, witness_root,
};
use crate::{Params, View};

pub use signet::{SignetError, solve_challenge};

/// The version of new blocks: BIP 9's top bits and no signal.
pub const BLOCK_VERSION: BlockVersion = BlockVersion::from_consensus(0x2000_0000);

/// What stands in the witness of a coinbase and is committed to with the witnesses (BIP 141).
pub const RESERVED_VALUE: [u8; 32] = [0; 32];

/// What a new block builds on and is worth.
#[derive(Clone, Debug)]
pub struct Base {
    /// Height of the new block.
    pub height: u32,
    /// Hash of its parent.
    pub parent: BlockHash,
    /// The target that it must meet: [`next_work_required`] for `time`.
    pub bits: CompactTarget,
    /// Its time in seconds; above the parent's median time past.
    pub time: u32,
}

impl Base {
    /// The block after the validated tip, made at `now_unix`: as late as the clock says, but never too early for the
    /// rules, those of BIP 94 included, which does no harm elsewhere.
    pub fn on_tip(view: &View, now_unix: u64) -> Self {
        let tree = view.shared.tree();
        let tip = tree.node(tree.tip());
        let height = tip.height.saturating_add(1);
        let mut time = tip.median_time_past.saturating_add(1);
        if height.is_multiple_of(view.params().retarget_interval()) {
            time = time.max(tip.header.time.saturating_sub(MAX_TIMEWARP));
        }
        let time = time.max(u32::try_from(now_unix).unwrap_or(u32::MAX));
        let bits = next_work_required(view.params(), &tree.branch(tree.tip()), time);
        Self {
            height,
            parent: tip.hash,
            bits,
            time,
        }
    }
}

/// A coinbase for the block at `height` that pays `value` to `script_pubkey`.
///
/// `extra` follows the height in the input script and makes coinbases of one height differ; at most 90 bytes of it are
/// used. Its lock time is the height before, so that no two blocks can have the same coinbase, and its sequence leaves
/// that lock in force.
pub fn coinbase_tx(height: u32, value: Amount, script_pubkey: ScriptBuf, extra: &[u8]) -> Transaction {
    let mut script_sig = bip34_prefix(height);
    script_sig.extend_from_slice(&extra[..extra.len().min(90)]);
    if script_sig.len() < 2 {
        // The rules ask for two bytes at least; OP_0 does nothing.
        script_sig.push(0);
    }
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(height.saturating_sub(1).min(LOCKTIME_THRESHOLD - 1)),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script_sig),
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value, script_pubkey }],
    }
}

/// An unsolved block on `base` with `txs` in the given order, whose coinbase pays the subsidy and `fees` to
/// `coinbase_script`.
pub fn assemble(
    params: &Params,
    base: &Base,
    txs: Vec<Transaction>,
    fees: Amount,
    coinbase_script: ScriptBuf,
    extra: &[u8],
) -> Block {
    let value = subsidy(base.height, params.subsidy_halving_interval) + fees;
    let mut txdata = Vec::with_capacity(txs.len() + 1);
    txdata.push(coinbase_tx(base.height, value, coinbase_script, extra));
    txdata.extend(txs);
    let header = Header {
        version: BLOCK_VERSION,
        prev_blockhash: base.parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: base.time,
        bits: base.bits,
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    if base.height >= params.segwit_height {
        commit_witnesses(&mut block);
    }
    commit_transactions(&mut block);
    block
}

/// The script of the output that commits to the witnesses of these transactions, the coinbase first, whose own id does
/// not count; with a reserved value of zeros.
pub fn commitment_script(wtxids: impl IntoIterator<Item = Wtxid>) -> ScriptBuf {
    let mut bytes = witness_root(wtxids).to_byte_array().to_vec();
    bytes.extend_from_slice(&RESERVED_VALUE);
    let mut script = WITNESS_COMMITMENT_HEADER.to_vec();
    script.extend_from_slice(sha256d::Hash::hash(&bytes).as_byte_array());
    ScriptBuf::from_bytes(script)
}

/// Writes the commitment to the block's witnesses into its coinbase, in place of one that is there, with a reserved
/// value of zeros. The merkle root has to be set afterwards.
pub fn commit_witnesses(block: &mut Block) {
    let script_pubkey = commitment_script(block.txdata.iter().map(Transaction::compute_wtxid));
    let Some(coinbase) = block.txdata.first_mut() else {
        return;
    };
    let output = TxOut {
        value: Amount::ZERO,
        script_pubkey,
    };
    match witness_commitment_index(coinbase) {
        Some(index) => coinbase.output[index] = output,
        None => coinbase.output.push(output),
    }
    if let Some(input) = coinbase.input.first_mut() {
        input.witness = Witness::from_slice(&[RESERVED_VALUE]);
    }
}

/// Sets the header's merkle root to that of the block's transactions.
pub fn commit_transactions(block: &mut Block) {
    let merkle = merkle_root(block.txdata.iter().map(|tx| tx.compute_txid().to_raw_hash()));
    block.header.merkle_root = TxMerkleNode::from_raw_hash(merkle.root);
}

/// Looks for a nonce that meets the header's own target, from the one that it has upwards through all that there are.
/// False when none does; change the time or the coinbase and try again.
pub fn solve(block: &mut Block) -> bool {
    solve_within(block, u32::MAX)
}

/// [`solve`] with at most `tries` further nonces, so that a caller can stop in between.
pub fn solve_within(block: &mut Block, tries: u32) -> bool {
    let limit = bitcoin::Target::from_le_bytes([0xff; 32]);
    let Some(target) = derive_target(block.header.bits, limit) else {
        return false;
    };
    for _ in 0..=tries {
        if target.is_met_by(block.header.block_hash()) {
            return true;
        }
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rules::{check_block, contextual_check_block};
    use crate::{Network, ParsedBlock};

    #[test]
    fn an_assembled_and_solved_block_passes_the_rules() {
        let params = Params::new(Network::Regtest);
        for height in [1, 2, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 8_388_608] {
            let base = Base {
                height,
                parent: params.genesis.block_hash(),
                bits: params.genesis.header.bits,
                time: params.genesis.header.time + 1,
            };
            let mut block = assemble(&params, &base, vec![], Amount::ZERO, ScriptBuf::new(), b"");
            assert!(solve(&mut block));
            let parsed = ParsedBlock::from_block(block.clone());
            check_block(&params, &parsed).unwrap();
            contextual_check_block(&params, &parsed, height, params.genesis.header.time).unwrap();
            let library = block.bip34_block_height();
            assert!(library.is_err() || library == Ok(u64::from(height)));
            assert!(block.check_merkle_root() && block.check_witness_commitment());
        }
    }

    #[test]
    fn solving_stops_after_the_given_tries() {
        let params = Params::new(Network::Mainnet);
        let mut block = params.genesis.clone();
        assert!(solve_within(&mut block, 0), "the genesis block is solved");
        block.header.time += 1;
        let before = block.header.nonce;
        assert!(!solve_within(&mut block, 10));
        assert_eq!(block.header.nonce, before + 11);
        block.header.bits = CompactTarget::from_consensus(0);
        assert!(!solve(&mut block));
    }
}
