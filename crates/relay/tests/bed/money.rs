//! Blocks and signed transactions for the bed.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::{All, Message as SecpMessage, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, ecdsa, transaction,
};
use dunlin_chain::build::{self, Base};
use dunlin_chain::{Network, Params, ParsedBlock, View};
use dunlin_peer::Now;

use super::Member;

pub const FEE: u64 = 10_000;

/// A wallet of one key.
pub struct Wallet {
    secp: Secp256k1<All>,
    key: SecretKey,
    public: CompressedPublicKey,
}

impl Wallet {
    pub fn new(n: u8) -> Self {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[n.max(1); 32]).unwrap();
        let public = CompressedPublicKey(key.public_key(&secp));
        Self { secp, key, public }
    }

    /// P2WPKH.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Spends one output of this wallet into `count` equal ones of it, less the fee; signed.
    pub fn spend(&self, from: OutPoint, value: Amount, count: u64, fee: u64) -> Transaction {
        let each = (value - Amount::from_sat(fee)) / count;
        let output = TxOut {
            value: each,
            script_pubkey: self.script(),
        };
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: from,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            }],
            output: vec![output; count as usize],
        };
        let kind = EcdsaSighashType::All;
        let hash = SighashCache::new(&mut tx)
            .p2wpkh_signature_hash(0, &self.script(), value, kind)
            .unwrap()
            .to_byte_array();
        let signature = self.secp.sign_ecdsa(&SecpMessage::from_digest(hash), &self.key);
        let signature = ecdsa::Signature {
            signature,
            sighash_type: kind,
        };
        tx.input[0].witness = Witness::p2wpkh(&signature, &self.public.0);
        tx
    }
}

/// Breaks the signature of the first input without breaking its encoding.
pub fn break_signature(tx: &mut Transaction) {
    let mut items: Vec<Vec<u8>> = tx.input[0].witness.to_vec();
    // A byte inside of r.
    items[0][10] ^= 1;
    tx.input[0].witness = Witness::from_slice(&items);
}

/// A solved block on the validated tip, paying to wallet 1.
pub fn block_on(view: &View, time: u64, txs: Vec<Transaction>, fees: u64, extra: &[u8]) -> Block {
    let base = Base::on_tip(view, time);
    let script = Wallet::new(1).script();
    let mut block = build::assemble(view.params(), &base, txs, Amount::from_sat(fees), script, extra);
    assert!(build::solve(&mut block));
    block
}

pub fn next_block(member: &Member, now: Now, txs: Vec<Transaction>) -> Block {
    block_on(&member.view(), now.unix_secs(), txs, 0, &[])
}

/// The header commits to the transactions again, and has its work.
pub fn seal(block: &mut Block) {
    build::commit_witnesses(block);
    build::commit_transactions(block);
    assert!(build::solve(block));
}

/// A chain of `count` blocks after the genesis block, ten minutes apart and ending at `end`.
pub fn chain_of(count: u32, end: u64, extra: &[u8]) -> Vec<Arc<ParsedBlock>> {
    let mut chain = dunlin_chain::Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    extend(&mut chain, count, end, extra)
}

/// As [`chain_of`], on a chain that exists.
pub fn extend(chain: &mut dunlin_chain::Chain, count: u32, end: u64, extra: &[u8]) -> Vec<Arc<ParsedBlock>> {
    let view = chain.view();
    (0..count)
        .map(|n| {
            let time = end - u64::from(count - n - 1) * 600;
            let block = ParsedBlock::from_block(block_on(&view, time, Vec::new(), 0, extra));
            chain.accept_block(end + 7200, block.clone()).unwrap();
            block
        })
        .collect()
}

/// The output of a block's coinbase.
pub fn reward(block: &ParsedBlock) -> (OutPoint, Amount) {
    (
        OutPoint::new(block.txids[0], 0),
        block.block().txdata[0].output[0].value,
    )
}
