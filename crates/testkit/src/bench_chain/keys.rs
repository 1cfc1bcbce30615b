//! The keys of the bench chain's people, the six ways in which they lock coins, and the signatures that open them.

use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, TapLeafHash, Transaction, TxIn, TxOut, Witness,
    absolute, transaction,
};

use super::in_parallel;

/// Keys of the ring: so many that no compression sees a script twice, so few that they are made in seconds.
pub(super) const KEYS: u32 = 1 << 16;

/// How a coin is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    P2pkh,
    P2shP2wpkh,
    P2wpkh,
    /// Two signatures of three keys, in P2WSH.
    Multisig,
    /// P2TR, opened by its key.
    TaprootKey,
    /// P2TR, opened by one of the two scripts below it.
    TaprootScript,
}

impl Lock {
    /// The weight of an output, and the most that an input which opens one can weigh.
    pub(super) fn weights(self) -> (u64, u64) {
        match self {
            Lock::P2pkh => (4 * 34, 4 * 148),
            Lock::P2shP2wpkh => (4 * 32, 4 * 64 + 109),
            Lock::P2wpkh => (4 * 31, 4 * 41 + 109),
            Lock::Multisig => (4 * 43, 4 * 41 + 256),
            Lock::TaprootKey => (4 * 43, 4 * 41 + 66),
            Lock::TaprootScript => (4 * 43, 4 * 41 + 168),
        }
    }
}

/// A coin that somebody of the ring can spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coin {
    pub(super) outpoint: OutPoint,
    /// Satoshis.
    pub(super) value: u64,
    pub(super) owner: Owner,
}

/// Whose a coin is: a key (below [`KEYS`]) and how it locks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) lock: Lock,
    pub(super) key: u32,
}

struct Key {
    secret: SecretKey,
    public: PublicKey,
    keypair: Keypair,
    /// The output script of [`Lock::TaprootScript`], the leaf that is used and its control block.
    tree: (ScriptBuf, ScriptBuf, Vec<u8>),
}

/// All keys, with what is dear to compute.
pub(super) struct Keyring {
    secp: Secp256k1<All>,
    keys: Vec<Key>,
}

/// A signed transaction and how many signature verifications it costs whoever checks it.
pub(super) struct Signed {
    pub(super) transaction: Transaction,
    pub(super) verifications: u64,
}

impl Keyring {
    pub(super) fn new() -> Result<Self> {
        let secp = Secp256k1::new();
        let numbers: Vec<u32> = (1..=KEYS).collect();
        let keys = in_parallel(&numbers, |&number| Key::new(&secp, number));
        let keys = keys.into_iter().collect::<Result<_>>()?;
        Ok(Self { secp, keys })
    }

    fn key(&self, number: u32) -> &Key {
        &self.keys[(number % KEYS) as usize]
    }

    /// Pays `value` to `owner`.
    pub(super) fn output(&self, owner: Owner, value: u64) -> TxOut {
        let key = self.key(owner.key);
        let script_pubkey = match owner.lock {
            Lock::P2pkh => ScriptBuf::new_p2pkh(&bitcoin::PublicKey::new(key.public).pubkey_hash()),
            Lock::P2shP2wpkh => ScriptBuf::new_p2sh(&key.p2wpkh().script_hash()),
            Lock::P2wpkh => key.p2wpkh(),
            Lock::Multisig => ScriptBuf::new_p2wsh(&self.multisig(owner.key).wscript_hash()),
            Lock::TaprootKey => ScriptBuf::new_p2tr(&self.secp, key.keypair.x_only_public_key().0, None),
            Lock::TaprootScript => key.tree.0.clone(),
        };
        TxOut {
            value: Amount::from_sat(value),
            script_pubkey,
        }
    }

    fn multisig(&self, first: u32) -> ScriptBuf {
        let keys = (0..3).map(|step| self.key(first + step).public.serialize());
        let builder = keys.fold(Builder::new().push_int(2), |builder, key| builder.push_slice(key));
        builder.push_int(3).push_opcode(OP_CHECKMULTISIG).into_script()
    }

    /// Spends `coins` to `outputs`; the signatures are the same each time.
    pub(super) fn sign(&self, coins: &[Coin], outputs: Vec<TxOut>) -> Result<Signed> {
        let input = |coin: &Coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: outputs,
        };
        let spent: Vec<TxOut> = coins.iter().map(|coin| self.output(coin.owner, coin.value)).collect();
        let mut cache = SighashCache::new(&transaction);
        let mut verifications = 0;
        let mut opened = Vec::with_capacity(coins.len());
        for (index, coin) in coins.iter().enumerate() {
            verifications += match coin.owner.lock {
                // The checker tries keys from the last to the first, so one that did not sign costs a verification.
                Lock::Multisig => 3 - u64::from(absent(coin.owner.key) == 0),
                _ => 1,
            };
            opened.push(self.open(&mut cache, index, coin.owner, &spent)?);
        }
        for (input, (script_sig, witness)) in transaction.input.iter_mut().zip(opened) {
            (input.script_sig, input.witness) = (script_sig, witness);
        }
        Ok(Signed {
            transaction,
            verifications,
        })
    }

    fn open(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        owner: Owner,
        spent: &[TxOut],
    ) -> Result<(ScriptBuf, Witness)> {
        let key = self.key(owner.key);
        let TxOut { value, script_pubkey } = &spent[index];
        let all = EcdsaSighashType::All;
        let ecdsa = |key: &Key, digest: [u8; 32]| {
            let signature = self.secp.sign_ecdsa(&Message::from_digest(digest), &key.secret);
            bitcoin::ecdsa::Signature::sighash_all(signature)
        };
        Ok(match owner.lock {
            Lock::P2pkh => {
                let digest = cache.legacy_signature_hash(index, script_pubkey, all.to_u32())?;
                let signature = PushBytesBuf::try_from(ecdsa(key, digest.to_byte_array()).to_vec())?;
                let builder = Builder::new().push_slice(signature);
                (builder.push_slice(key.public.serialize()).into_script(), Witness::new())
            }
            Lock::P2wpkh | Lock::P2shP2wpkh => {
                let program = key.p2wpkh();
                let digest = cache.p2wpkh_signature_hash(index, &program, *value, all)?;
                let witness = Witness::p2wpkh(&ecdsa(key, digest.to_byte_array()), &key.public);
                let redeem = match owner.lock {
                    Lock::P2wpkh => ScriptBuf::new(),
                    _ => Builder::new()
                        .push_slice(PushBytesBuf::try_from(program.into_bytes())?)
                        .into_script(),
                };
                (redeem, witness)
            }
            Lock::Multisig => {
                let script = self.multisig(owner.key);
                let digest = cache.p2wsh_signature_hash(index, &script, *value, all)?;
                let mut witness = Witness::from_slice(&[&[] as &[u8]]);
                for step in (0..3).filter(|&step| step != absent(owner.key)) {
                    let signature = ecdsa(self.key(owner.key + step), digest.to_byte_array());
                    witness.push(signature.serialize());
                }
                witness.push(script);
                (ScriptBuf::new(), witness)
            }
            Lock::TaprootKey => {
                let prevouts = Prevouts::All(spent);
                let digest = cache.taproot_key_spend_signature_hash(index, &prevouts, TapSighashType::Default)?;
                let tweaked = key.keypair.tap_tweak(&self.secp, None).to_keypair();
                let message = Message::from_digest(digest.to_byte_array());
                let signature = self.secp.sign_schnorr_no_aux_rand(&message, &tweaked);
                (ScriptBuf::new(), Witness::from_slice(&[signature.serialize()]))
            }
            Lock::TaprootScript => {
                let (_, leaf, control) = &key.tree;
                let hash = TapLeafHash::from_script(leaf, LeafVersion::TapScript);
                let prevouts = Prevouts::All(spent);
                let sighash = TapSighashType::Default;
                let digest = cache.taproot_script_spend_signature_hash(index, &prevouts, hash, sighash)?;
                let message = Message::from_digest(digest.to_byte_array());
                let signature = self.secp.sign_schnorr_no_aux_rand(&message, &key.keypair);
                let stack: [&[u8]; 3] = [&signature.serialize(), leaf.as_bytes(), control];
                (ScriptBuf::new(), Witness::from_slice(&stack))
            }
        })
    }
}

/// Which of the three keys of a multisig coin does not sign.
fn absent(key: u32) -> u32 {
    key % 3
}

impl Key {
    fn new(secp: &Secp256k1<All>, number: u32) -> Result<Self> {
        let seed = bitcoin::hashes::sha256::Hash::hash(&number.to_le_bytes());
        let secret = SecretKey::from_slice(seed.as_byte_array())?;
        let keypair = Keypair::from_secret_key(secp, &secret);
        let (internal, _) = keypair.x_only_public_key();
        let leaf = |filler: i64| {
            let builder = Builder::new().push_x_only_key(&internal).push_opcode(OP_CHECKSIG);
            match filler {
                0 => builder.into_script(),
                _ => builder.push_int(filler).into_script(),
            }
        };
        let tree = TaprootBuilder::new().add_leaf(1, leaf(0))?.add_leaf(1, leaf(1))?;
        let tree = tree.finalize(secp, internal).ok().context("the tree has two leaves")?;
        let control = tree.control_block(&(leaf(0), LeafVersion::TapScript));
        let control = control.context("the leaf is of the tree")?.serialize();
        let script = ScriptBuf::new_p2tr_tweaked(tree.output_key());
        Ok(Self {
            secret,
            public: keypair.public_key(),
            keypair,
            tree: (script, leaf(0), control),
        })
    }

    fn p2wpkh(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&CompressedPublicKey(self.public).wpubkey_hash())
    }
}
