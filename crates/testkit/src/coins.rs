//! Blocks and transactions made by hand, with the codec of the `bitcoin` crate and none of our own code: what a test
//! gives to a peer must not come from the peer's own builder.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Address, Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, transaction,
};

/// The proof-of-work target of every regtest block.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Regtest halves the subsidy every 150 blocks.
const REGTEST_HALVING: u32 = 150;

/// A key whose P2WPKH address receives coins and who signs for them.
#[derive(Debug)]
pub struct Holder {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
}

impl Holder {
    /// The holder with a given number; the same number is the same key.
    ///
    /// # Panics
    /// For number 0.
    pub fn new(number: u8) -> Self {
        assert!(number != 0, "zero is no secret key");
        let secp = Secp256k1::new();
        let mut bytes = [0; 32];
        bytes[31] = number;
        let secret = SecretKey::from_slice(&bytes).expect("a small number is a valid secret key");
        let public = CompressedPublicKey(secret.public_key(&secp));
        Holder { secp, secret, public }
    }

    /// The regtest address.
    pub fn address(&self) -> String {
        Address::p2wpkh(&self.public, Network::Regtest).to_string()
    }

    /// The output script of the address.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Signs a transaction that spends `coins` of this holder to `outputs`.
    ///
    /// # Panics
    /// When a coin does not belong to this holder.
    pub fn spend(&self, coins: &[(OutPoint, Amount)], outputs: Vec<TxOut>) -> Transaction {
        self.spend_version(transaction::Version::TWO, coins, outputs)
    }

    /// The same in a transaction of another version.
    ///
    /// # Panics
    /// When a coin does not belong to this holder.
    pub fn spend_version(
        &self,
        version: transaction::Version,
        coins: &[(OutPoint, Amount)],
        outputs: Vec<TxOut>,
    ) -> Transaction {
        let input = |coin: &(OutPoint, Amount)| TxIn {
            previous_output: coin.0,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: outputs,
        };
        let script = self.script();
        for (index, (_, amount)) in coins.iter().enumerate() {
            let mut cache = SighashCache::new(&transaction);
            let digest = cache
                .p2wpkh_signature_hash(index, &script, *amount, EcdsaSighashType::All)
                .expect("the input exists and the script is P2WPKH");
            let signature = self
                .secp
                .sign_ecdsa(&Message::from_digest(digest.to_byte_array()), &self.secret);
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
            transaction.input[index].witness = Witness::p2wpkh(&signature, &self.public.0);
        }
        transaction
    }

    /// Spends one coin to another holder, leaving `fee` to the miner.
    pub fn pay(&self, coin: (OutPoint, Amount), to: &Holder, fee: Amount) -> Transaction {
        let value = coin.1.checked_sub(fee).unwrap_or(Amount::ZERO);
        self.spend(
            &[coin],
            vec![TxOut {
                value,
                script_pubkey: to.script(),
            }],
        )
    }
}

/// The subsidy of a regtest block.
pub fn subsidy(height: u32) -> Amount {
    Amount::from_sat(5_000_000_000_u64.checked_shr(height / REGTEST_HALVING).unwrap_or(0))
}

/// The first output of a block's coinbase.
///
/// # Panics
/// When the block has none.
pub fn coinbase_coin(block: &Block) -> (OutPoint, Amount) {
    let coinbase = block.txdata.first().expect("a block has a coinbase");
    let output = coinbase.output.first().expect("a coinbase has an output");
    (OutPoint::new(coinbase.compute_txid(), 0), output.value)
}

/// The first `count` blocks of the regtest chain whose coins at height 200 Core pins for `loadtxoutset`: each is a
/// second younger than the one before and pays its subsidy to the witness script `OP_TRUE`.
///
/// # Panics
/// Never: every height of a list in memory fits.
pub fn assume_utxo_chain(count: u32) -> Vec<Block> {
    let genesis = bitcoin::constants::genesis_block(Network::Regtest);
    let script = ScriptBuf::from_bytes(vec![0x51]).to_p2wsh();
    let (mut previous, mut time) = (genesis.block_hash(), genesis.header.time);
    let mut blocks = Vec::new();
    for height in 1..=count {
        time += 1;
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::from_height(height - 1).expect("a height is a height"),
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: bitcoin::script::Builder::new()
                    .push_int(i64::from(height))
                    .push_int(0)
                    .into_script(),
                sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: subsidy(height),
                script_pubkey: script.clone(),
            }],
        };
        let mut block = Block {
            header: Header {
                version: Version::from_consensus(4),
                prev_blockhash: previous,
                merkle_root: TxMerkleNode::all_zeros(),
                time,
                bits: CompactTarget::from_consensus(REGTEST_BITS),
                nonce: 0,
            },
            txdata: vec![coinbase],
        };
        block.header.merkle_root = block.compute_merkle_root().expect("the block has a coinbase");
        solve(&mut block.header);
        previous = block.block_hash();
        blocks.push(block);
    }
    blocks
}

/// What goes into a block made by hand.
#[derive(Debug, Clone)]
pub struct BlockPlan {
    /// The block before it.
    pub previous: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its time in Unix seconds; it must exceed the median of the eleven before.
    pub time: u32,
    /// Who receives the reward.
    pub reward_to: ScriptBuf,
    /// How much: the subsidy and fees, or a lie.
    pub reward: Amount,
    /// Transactions after the coinbase.
    pub transactions: Vec<Transaction>,
}

impl BlockPlan {
    /// An empty block that takes exactly its subsidy.
    pub fn new(previous: BlockHash, height: u32, time: u32, miner: &Holder) -> Self {
        let (reward_to, reward) = (miner.script(), subsidy(height));
        BlockPlan {
            previous,
            height,
            time,
            reward_to,
            reward,
            transactions: Vec::new(),
        }
    }

    /// The block with its coinbase (BIP 34), witness commitment (BIP 141), merkle root and proof of work.
    pub fn mine(self) -> Block {
        let mut block = self.assemble();
        block.header.merkle_root = block.compute_merkle_root().expect("the block has a coinbase");
        solve(&mut block.header);
        block
    }

    /// The same, with a merkle root that does not fit its transactions but with its proof of work.
    pub fn mine_with_wrong_merkle_root(self) -> Block {
        let mut block = self.assemble();
        block.header.merkle_root = TxMerkleNode::from_byte_array([0x5a; 32]);
        solve(&mut block.header);
        block
    }

    fn assemble(self) -> Block {
        let reserved = [0_u8; 32];
        // Two bytes are the least a coinbase script may have; low heights are a single opcode.
        let script_sig = bitcoin::script::Builder::new()
            .push_int(i64::from(self.height))
            .push_slice(b"testkit")
            .into_script();
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig,
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[reserved]),
            }],
            output: vec![TxOut {
                value: self.reward,
                script_pubkey: self.reward_to,
            }],
        };
        let mut block = Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: self.previous,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.time,
                bits: CompactTarget::from_consensus(REGTEST_BITS),
                nonce: 0,
            },
            txdata: std::iter::once(coinbase).chain(self.transactions).collect(),
        };
        let root = block.witness_root().expect("the block has a coinbase");
        let commitment = Block::compute_witness_commitment(&root, &reserved);
        let mut payload = [0_u8; 36];
        payload[..4].copy_from_slice(&[0xaa, 0x21, 0xa9, 0xed]);
        payload[4..].copy_from_slice(commitment.as_byte_array());
        let script_pubkey = bitcoin::script::Builder::new()
            .push_opcode(OP_RETURN)
            .push_slice(payload)
            .into_script();
        block.txdata[0].output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey,
        });
        block
    }
}

/// Finds a nonce: on regtest every second one fits.
fn solve(header: &mut Header) {
    let target = header.target();
    while header.validate_pow(target).is_err() {
        header.nonce = header.nonce.wrapping_add(1);
    }
}
