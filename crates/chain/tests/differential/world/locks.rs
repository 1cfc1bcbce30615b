//! How outputs are locked, and how each lock is opened.

use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak, TweakedPublicKey};
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CHECKSIGADD, OP_CLTV, OP_CSV, OP_DROP, OP_NUMEQUAL, OP_PUSHNUM_1, OP_PUSHNUM_2,
    OP_PUSHNUM_3, OP_RESERVED,
};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{Annex, EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{
    CompressedPublicKey, PubkeyHash, ScriptBuf, Transaction, TxOut, Witness, WitnessProgram, WitnessVersion, ecdsa,
    script, taproot,
};

use super::dice::Dice;
use super::regtest;

/// How an output is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Anybody may.
    Open,
    PublicKey,
    KeyHash,
    /// One of two keys.
    Multisig,
    /// Pay-to-script-hash of a script that anybody satisfies.
    ScriptHash,
    /// Two of three keys, behind a script hash.
    ScriptHashMultisig,
    WitnessKeyHash,
    NestedKeyHash,
    /// A witness script that anybody satisfies.
    WitnessScriptHash,
    WitnessMultisig,
    NestedMultisig,
    /// A key without scripts.
    Taproot,
    /// A key with a tree of scripts: a signature, two of three by `OP_CHECKSIGADD`, and an `OP_SUCCESS`.
    TaprootTree,
    /// A witness program of a version without rules.
    FutureWitness,
    /// Pay-to-anchor.
    Anchor,
    /// `OP_CHECKLOCKTIMEVERIFY` with a height or a time.
    Until(u32),
    /// `OP_CHECKSEQUENCEVERIFY` with a sequence number.
    After(u32),
}

/// The locks without a number.
pub const LOCKS: [Lock; 15] = [
    Lock::Open,
    Lock::PublicKey,
    Lock::KeyHash,
    Lock::Multisig,
    Lock::ScriptHash,
    Lock::ScriptHashMultisig,
    Lock::WitnessKeyHash,
    Lock::NestedKeyHash,
    Lock::WitnessScriptHash,
    Lock::WitnessMultisig,
    Lock::NestedMultisig,
    Lock::Taproot,
    Lock::TaprootTree,
    Lock::FutureWitness,
    Lock::Anchor,
];

const ECDSA: [EcdsaSighashType; 6] = [
    EcdsaSighashType::All,
    EcdsaSighashType::None,
    EcdsaSighashType::Single,
    EcdsaSighashType::AllPlusAnyoneCanPay,
    EcdsaSighashType::NonePlusAnyoneCanPay,
    EcdsaSighashType::SinglePlusAnyoneCanPay,
];

const SCHNORR: [TapSighashType; 7] = [
    TapSighashType::Default,
    TapSighashType::All,
    TapSighashType::None,
    TapSighashType::Single,
    TapSighashType::AllPlusAnyoneCanPay,
    TapSighashType::NonePlusAnyoneCanPay,
    TapSighashType::SinglePlusAnyoneCanPay,
];

/// Three keys and what they lock.
pub struct Keys {
    secp: Secp256k1<All>,
    pairs: [Keypair; 3],
    tree: TaprootSpendInfo,
    leaves: [ScriptBuf; 3],
}

impl Keys {
    pub fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let pairs = [1, 2, 3].map(|index| {
            let mut secret = [index; 32];
            secret[8..16].copy_from_slice(&seed.to_be_bytes());
            SecretKey::from_slice(&secret).unwrap().keypair(&secp)
        });
        let xonly = pairs.map(|pair| pair.x_only_public_key().0);
        let leaves = [
            script::Builder::new()
                .push_x_only_key(&xonly[0])
                .push_opcode(OP_CHECKSIG)
                .into_script(),
            script::Builder::new()
                .push_x_only_key(&xonly[0])
                .push_opcode(OP_CHECKSIG)
                .push_x_only_key(&xonly[1])
                .push_opcode(OP_CHECKSIGADD)
                .push_x_only_key(&xonly[2])
                .push_opcode(OP_CHECKSIGADD)
                .push_int(2)
                .push_opcode(OP_NUMEQUAL)
                .into_script(),
            ScriptBuf::from_bytes(vec![OP_RESERVED.to_u8()]),
        ];
        let tree = TaprootBuilder::new()
            .add_leaf(1, leaves[0].clone())
            .and_then(|tree| tree.add_leaf(2, leaves[1].clone()))
            .and_then(|tree| tree.add_leaf(2, leaves[2].clone()))
            .unwrap()
            .finalize(&secp, xonly[1])
            .unwrap();
        Self {
            secp,
            pairs,
            tree,
            leaves,
        }
    }

    fn public(&self, index: usize) -> CompressedPublicKey {
        CompressedPublicKey(self.pairs[index].public_key())
    }

    /// `one` key of the first `of`.
    fn multisig(&self, need: usize, of: usize) -> ScriptBuf {
        let numbers = [OP_PUSHNUM_1, OP_PUSHNUM_2, OP_PUSHNUM_3];
        let mut builder = script::Builder::new().push_opcode(numbers[need - 1]);
        for index in 0..of {
            builder = builder.push_slice(self.public(index).to_bytes());
        }
        builder
            .push_opcode(numbers[of - 1])
            .push_opcode(OP_CHECKMULTISIG)
            .into_script()
    }

    /// The script of an output.
    pub fn script(&self, lock: Lock) -> ScriptBuf {
        let open = regtest::open_script();
        match lock {
            Lock::Open => open,
            Lock::PublicKey => script::Builder::new()
                .push_slice(self.public(0).to_bytes())
                .push_opcode(OP_CHECKSIG)
                .into_script(),
            Lock::KeyHash => ScriptBuf::new_p2pkh(&PubkeyHash::hash(&self.public(0).to_bytes())),
            Lock::Multisig => self.multisig(1, 2),
            Lock::ScriptHash => open.to_p2sh(),
            Lock::ScriptHashMultisig => self.multisig(2, 3).to_p2sh(),
            Lock::WitnessKeyHash => ScriptBuf::new_p2wpkh(&self.public(0).wpubkey_hash()),
            Lock::NestedKeyHash => self.script(Lock::WitnessKeyHash).to_p2sh(),
            Lock::WitnessScriptHash => open.to_p2wsh(),
            Lock::WitnessMultisig => self.multisig(2, 3).to_p2wsh(),
            Lock::NestedMultisig => self.script(Lock::WitnessMultisig).to_p2sh(),
            Lock::Taproot => {
                let key = TweakedPublicKey::dangerous_assume_tweaked(self.pairs[0].x_only_public_key().0);
                ScriptBuf::new_p2tr_tweaked(key)
            }
            Lock::TaprootTree => ScriptBuf::new_p2tr_tweaked(self.tree.output_key()),
            Lock::FutureWitness => {
                ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V2, &[7; 32]).unwrap())
            }
            Lock::Anchor => ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]),
            Lock::Until(number) => script::Builder::new()
                .push_int(i64::from(number))
                .push_opcode(OP_CLTV)
                .push_opcode(OP_DROP)
                .push_opcode(OP_PUSHNUM_1)
                .into_script(),
            Lock::After(number) => script::Builder::new()
                .push_int(i64::from(number))
                .push_opcode(OP_CSV)
                .push_opcode(OP_DROP)
                .push_opcode(OP_PUSHNUM_1)
                .into_script(),
        }
    }

    fn ecdsa(&self, key: usize, digest: [u8; 32], kind: EcdsaSighashType) -> ecdsa::Signature {
        ecdsa::Signature {
            signature: self
                .secp
                .sign_ecdsa(&Message::from_digest(digest), &self.pairs[key].secret_key()),
            sighash_type: kind,
        }
    }

    /// Opens the lock of every input of `tx`; `spent` is in input order. The kinds of signatures come from `dice`,
    /// without it every signature is over all.
    pub fn sign(&self, tx: &mut Transaction, spent: &[(TxOut, Lock)], mut dice: Option<&mut Dice>) {
        let bare = tx.clone();
        let outputs: Vec<TxOut> = spent.iter().map(|(output, _)| output.clone()).collect();
        let mut cache = SighashCache::new(&bare);
        for (index, (output, lock)) in spent.iter().enumerate() {
            let kind = dice.as_mut().map_or(EcdsaSighashType::All, |dice| *dice.one(&ECDSA));
            let mut tap_kind = dice
                .as_mut()
                .map_or(TapSighashType::Default, |dice| *dice.one(&SCHNORR));
            if index >= bare.output.len() {
                // A signature over an output that is not there is no taproot signature.
                tap_kind = TapSighashType::All;
            }
            let tail: Vec<u8> = match dice.as_mut().map_or(9, |dice| dice.roll(10)) {
                0 => vec![0x50],
                1 => vec![0x50, 1, 2, 3],
                _ => Vec::new(),
            };
            let path = dice.as_mut().map_or(0, |dice| dice.roll(4));
            let legacy = |script: &ScriptBuf, key| {
                let digest = cache.legacy_signature_hash(index, script, kind.to_u32()).unwrap();
                self.ecdsa(key, digest.to_byte_array(), kind).serialize()
            };
            let input = &mut tx.input[index];
            match lock {
                Lock::Open | Lock::FutureWitness | Lock::Anchor | Lock::Until(_) | Lock::After(_) => {}
                Lock::PublicKey => {
                    let signature = legacy(&output.script_pubkey, 0);
                    input.script_sig = script::Builder::new().push_slice(signature).into_script();
                }
                Lock::KeyHash => {
                    let signature = legacy(&output.script_pubkey, 0);
                    input.script_sig = script::Builder::new()
                        .push_slice(signature)
                        .push_slice(self.public(0).to_bytes())
                        .into_script();
                }
                Lock::Multisig => {
                    let signature = legacy(&output.script_pubkey, path % 2);
                    input.script_sig = script::Builder::new().push_int(0).push_slice(signature).into_script();
                }
                Lock::ScriptHash => input.script_sig = script::Builder::new().push_slice([0x51]).into_script(),
                Lock::ScriptHashMultisig => {
                    let script = self.multisig(2, 3);
                    input.script_sig = script::Builder::new()
                        .push_int(0)
                        .push_slice(legacy(&script, 0))
                        .push_slice(legacy(&script, 2))
                        .push_slice(script::PushBytesBuf::try_from(script.to_bytes()).unwrap())
                        .into_script();
                }
                Lock::WitnessKeyHash | Lock::NestedKeyHash => {
                    let program = self.script(Lock::WitnessKeyHash);
                    let digest = cache
                        .p2wpkh_signature_hash(index, &program, output.value, kind)
                        .unwrap();
                    let signature = self.ecdsa(0, digest.to_byte_array(), kind);
                    input.witness = Witness::p2wpkh(&signature, &self.pairs[0].public_key());
                    if *lock == Lock::NestedKeyHash {
                        input.script_sig = nested(&program);
                    }
                }
                Lock::WitnessScriptHash => {
                    input.witness = Witness::from_slice(&[regtest::open_script().as_bytes()]);
                }
                Lock::WitnessMultisig | Lock::NestedMultisig => {
                    let script = self.multisig(2, 3);
                    let digest = cache.p2wsh_signature_hash(index, &script, output.value, kind).unwrap();
                    let mut witness = Witness::new();
                    witness.push([]);
                    for key in [1, 2] {
                        witness.push(self.ecdsa(key, digest.to_byte_array(), kind).serialize());
                    }
                    witness.push(script.as_bytes());
                    input.witness = witness;
                    if *lock == Lock::NestedMultisig {
                        input.script_sig = nested(&self.script(Lock::WitnessMultisig));
                    }
                }
                Lock::Taproot | Lock::TaprootTree => {
                    let annex = (!tail.is_empty()).then(|| Annex::new(&tail).unwrap());
                    let leaf = match (lock, path) {
                        (Lock::TaprootTree, 1..=3) => Some(self.leaves[path - 1].clone()),
                        _ => None,
                    };
                    let code = leaf
                        .as_ref()
                        .map(|leaf| (TapLeafHash::from_script(leaf, LeafVersion::TapScript), 0xffff_ffff));
                    let digest = cache
                        .taproot_signature_hash(index, &Prevouts::All(&outputs), annex, code, tap_kind)
                        .unwrap();
                    let message = Message::from_digest(digest.to_byte_array());
                    let sign = |pair: &Keypair| {
                        taproot::Signature {
                            signature: self.secp.sign_schnorr_no_aux_rand(&message, pair),
                            sighash_type: tap_kind,
                        }
                        .to_vec()
                    };
                    let mut witness = Witness::new();
                    match (lock, path) {
                        (Lock::TaprootTree, 1) => witness.push(sign(&self.pairs[0])),
                        (Lock::TaprootTree, 2) => {
                            witness.push(sign(&self.pairs[2]));
                            witness.push([]);
                            witness.push(sign(&self.pairs[0]));
                        }
                        (Lock::TaprootTree, 3) => {}
                        (Lock::TaprootTree, _) => {
                            let tweaked = self.pairs[1].tap_tweak(&self.secp, self.tree.merkle_root());
                            witness.push(sign(&tweaked.to_keypair()));
                        }
                        _ => witness.push(sign(&self.pairs[0])),
                    }
                    if let Some(leaf) = leaf {
                        let control = self
                            .tree
                            .control_block(&(leaf.clone(), LeafVersion::TapScript))
                            .unwrap();
                        witness.push(leaf.as_bytes());
                        witness.push(control.serialize());
                    }
                    if !tail.is_empty() {
                        witness.push(&tail);
                    }
                    input.witness = witness;
                }
            }
        }
    }
}

/// The input script for a witness program behind a script hash.
fn nested(program: &ScriptBuf) -> ScriptBuf {
    script::Builder::new()
        .push_slice(script::PushBytesBuf::try_from(program.to_bytes()).unwrap())
        .into_script()
}
