//! Makes blocks and transactions from a seed: every kind of lock that the rules know, spent as they ask.

use std::rc::Rc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TweakedPublicKey};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    Amount, Block, CompressedPublicKey, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxOut, Witness, ecdsa,
    script,
};

use crate::regtest::{self, Made, Place};

/// SplitMix64: the same seed gives the same blocks.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }
}

/// How an output is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Open,
    ScriptHash,
    WitnessScriptHash,
    KeyHash,
    WitnessKeyHash,
    Taproot,
}

pub const LOCKS: [Lock; 6] = [
    Lock::Open,
    Lock::ScriptHash,
    Lock::WitnessScriptHash,
    Lock::KeyHash,
    Lock::WitnessKeyHash,
    Lock::Taproot,
];

#[derive(Clone, Copy, Debug)]
pub struct Owned {
    pub at: OutPoint,
    pub value: u64,
    pub lock: Lock,
    pub height: u32,
    pub coinbase: bool,
}

/// The chain up to a valid block: what can be spent in the next.
pub struct State {
    pub place: Place,
    pub parent: Option<Rc<State>>,
    pub coins: Vec<Owned>,
}

impl State {
    /// The times of the last eleven blocks, sorted.
    pub fn median(&self) -> u32 {
        let mut times = vec![self.place.time];
        let mut at = self.parent.as_ref();
        while let (Some(state), true) = (at, times.len() < 11) {
            times.push(state.place.time);
            at = state.parent.as_ref();
        }
        times.sort_unstable();
        times[times.len() / 2]
    }
}

pub struct Maker {
    pub dice: Dice,
    secp: Secp256k1<All>,
    pair: Keypair,
    salt: u64,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let pair = SecretKey::from_slice(&[seed as u8 + 1; 32]).unwrap().keypair(&secp);
        Self {
            dice: Dice(seed),
            secp,
            pair,
            salt: seed << 32,
        }
    }

    fn public(&self) -> CompressedPublicKey {
        CompressedPublicKey(self.pair.public_key())
    }

    pub fn script(&self, lock: Lock) -> ScriptBuf {
        let open = regtest::open_script();
        match lock {
            Lock::Open => open,
            Lock::ScriptHash => ScriptBuf::new_p2sh(&open.script_hash()),
            Lock::WitnessScriptHash => ScriptBuf::new_p2wsh(&open.wscript_hash()),
            Lock::KeyHash => ScriptBuf::new_p2pkh(&PubkeyHash::hash(&self.public().to_bytes())),
            Lock::WitnessKeyHash => ScriptBuf::new_p2wpkh(&self.public().wpubkey_hash()),
            Lock::Taproot => {
                let key = TweakedPublicKey::dangerous_assume_tweaked(self.pair.x_only_public_key().0);
                ScriptBuf::new_p2tr_tweaked(key)
            }
        }
    }

    fn lock_of(&self, script: &ScriptBuf) -> Option<Lock> {
        LOCKS.into_iter().find(|lock| self.script(*lock) == *script)
    }

    /// Coins that the next block may spend, in random order, at most `count`; `fits` chooses among them.
    pub fn pick(&mut self, state: &State, count: usize, fits: impl Fn(&Owned) -> bool) -> Vec<Owned> {
        let height = state.place.height + 1;
        let ripe = |coin: &&Owned| !coin.coinbase || coin.height + 100 <= height;
        let mut ready: Vec<Owned> = state
            .coins
            .iter()
            .filter(ripe)
            .filter(|coin| fits(coin))
            .copied()
            .collect();
        let mut picked = Vec::new();
        while picked.len() < count && !ready.is_empty() {
            picked.push(ready.swap_remove(self.dice.roll(ready.len())));
        }
        picked
    }

    /// An unsigned transaction that spends `coins` to one to three outputs and leaves `fee`.
    pub fn unsigned(&mut self, coins: &[Owned], fee: u64) -> Transaction {
        let total: u64 = coins.iter().map(|coin| coin.value).sum();
        let count = 1 + self.dice.roll(3) as u64;
        let rest = total.saturating_sub(fee);
        let outputs: Vec<_> = (0..count)
            .map(|index| {
                let share = if index == 0 {
                    rest - rest / count * (count - 1)
                } else {
                    rest / count
                };
                let lock = LOCKS[self.dice.roll(LOCKS.len())];
                (share, self.script(lock))
            })
            .collect();
        let inputs: Vec<_> = coins.iter().map(|coin| coin.at).collect();
        regtest::spend(&inputs, &outputs)
    }

    /// Satisfies every input.
    pub fn sign(&self, tx: &mut Transaction, coins: &[Owned]) {
        let spent: Vec<TxOut> = coins
            .iter()
            .map(|coin| TxOut {
                value: Amount::from_sat(coin.value),
                script_pubkey: self.script(coin.lock),
            })
            .collect();
        let bare = tx.clone();
        let mut cache = SighashCache::new(&bare);
        let all = EcdsaSighashType::All;
        let open = regtest::open_script();
        let signature = |digest: [u8; 32]| ecdsa::Signature {
            signature: self
                .secp
                .sign_ecdsa(&Message::from_digest(digest), &self.pair.secret_key()),
            sighash_type: all,
        };
        for (index, coin) in coins.iter().enumerate() {
            let script = &spent[index].script_pubkey;
            let input = &mut tx.input[index];
            match coin.lock {
                Lock::Open => {}
                Lock::ScriptHash => input.script_sig = script::Builder::new().push_slice([0x51]).into_script(),
                Lock::WitnessScriptHash => input.witness = Witness::from_slice(&[open.as_bytes()]),
                Lock::KeyHash => {
                    let digest = cache.legacy_signature_hash(index, script, all.to_u32()).unwrap();
                    let signature = signature(digest.to_byte_array()).serialize();
                    input.script_sig = script::Builder::new()
                        .push_slice(signature)
                        .push_slice(self.public().to_bytes())
                        .into_script();
                }
                Lock::WitnessKeyHash => {
                    let digest = cache
                        .p2wpkh_signature_hash(index, script, spent[index].value, all)
                        .unwrap();
                    input.witness = Witness::p2wpkh(&signature(digest.to_byte_array()), &self.pair.public_key());
                }
                Lock::Taproot => {
                    let digest = cache
                        .taproot_key_spend_signature_hash(index, &Prevouts::All(&spent), TapSighashType::Default)
                        .unwrap();
                    let signature = self
                        .secp
                        .sign_schnorr_no_aux_rand(&Message::from_digest(digest.to_byte_array()), &self.pair);
                    input.witness = Witness::from_slice(&[signature.serialize()]);
                }
            }
        }
    }

    /// A valid transaction with its fee, sometimes with lock times that are just met.
    pub fn tx(&mut self, state: &State, coins: &[Owned]) -> (Transaction, u64) {
        let total: u64 = coins.iter().map(|coin| coin.value).sum();
        let fee = (self.dice.roll(1000) as u64).min(total);
        let mut tx = self.unsigned(coins, fee);
        let height = state.place.height + 1;
        match self.dice.roll(4) {
            0 => {
                tx.lock_time = LockTime::from_consensus(height - 1);
                tx.input[0].sequence = Sequence(0xffff_fffe);
            }
            1 => {
                tx.lock_time = LockTime::from_consensus(state.median() - 1);
                tx.input[0].sequence = Sequence(0xffff_fffe);
            }
            2 => {
                for (input, coin) in tx.input.iter_mut().zip(coins) {
                    input.sequence = Sequence(height - coin.height);
                }
            }
            _ => {}
        }
        self.sign(&mut tx, coins);
        (tx, fee)
    }

    /// Up to `count` valid transactions, the last sometimes a child of the one before it, and their fees.
    pub fn body(&mut self, state: &State, count: usize) -> (Vec<Transaction>, u64) {
        let mut coins = self.pick(state, count * 2, |coin| coin.value > 0);
        let mut txs: Vec<Transaction> = Vec::new();
        let mut fees = 0;
        for _ in 0..count {
            let take = (1 + self.dice.roll(2)).min(coins.len());
            if take == 0 {
                break;
            }
            let mine: Vec<Owned> = coins.drain(..take).collect();
            let (tx, fee) = self.tx(state, &mine);
            fees += fee;
            if self.dice.roll(3) == 0 {
                let output = &tx.output[0];
                let child = Owned {
                    at: OutPoint {
                        txid: tx.compute_txid(),
                        vout: 0,
                    },
                    value: output.value.to_sat(),
                    lock: self.lock_of(&output.script_pubkey).unwrap(),
                    height: state.place.height + 1,
                    coinbase: false,
                };
                txs.push(tx);
                let (tx, fee) = self.tx(state, &[child]);
                fees += fee;
                txs.push(tx);
            } else {
                txs.push(tx);
            }
        }
        (txs, fees)
    }

    /// A block on `state` that is not finished yet.
    pub fn draft(&mut self, state: &State, txs: Vec<Transaction>, fees: u64) -> Block {
        self.salt += 1;
        let mut block = regtest::draft(state.place, self.salt, txs, fees);
        let lock = LOCKS[self.dice.roll(LOCKS.len())];
        block.txdata[0].output[0].script_pubkey = self.script(lock);
        let earliest = state.median() + 1;
        block.header.time = earliest.max(state.place.time.saturating_sub(300)) + self.dice.roll(900) as u32;
        block
    }

    /// Commits to what a draft holds and solves it.
    pub fn finish(&self, state: &State, block: Block) -> Made {
        regtest::finish(block, state.place.height + 1)
    }

    /// A valid block.
    pub fn block(&mut self, state: &State) -> Made {
        let count = self.dice.roll(4);
        let (txs, fees) = self.body(state, count);
        let draft = self.draft(state, txs, fees);
        self.finish(state, draft)
    }

    /// The state behind a valid block.
    pub fn after(&self, state: &Rc<State>, made: &Made) -> Rc<State> {
        let mut coins = state.coins.clone();
        for (index, (tx, txid)) in made.block.block().txdata.iter().zip(&made.block.txids).enumerate() {
            coins.retain(|coin| tx.input.iter().all(|input| input.previous_output != coin.at));
            for (vout, output) in (0..).zip(&tx.output) {
                if let Some(lock) = self.lock_of(&output.script_pubkey) {
                    coins.push(Owned {
                        at: OutPoint { txid: *txid, vout },
                        value: output.value.to_sat(),
                        lock,
                        height: made.place.height,
                        coinbase: index == 0,
                    });
                }
            }
        }
        Rc::new(State {
            place: made.place,
            parent: Some(Rc::clone(state)),
            coins,
        })
    }
}
