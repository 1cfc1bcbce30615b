//! Makes valid blocks and transactions: every kind of lock that the rules know, opened as they ask.

use std::collections::HashMap;
use std::rc::Rc;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxOut};

use super::dice::Dice;
use super::locks::{Keys, LOCKS, Lock};
use super::regtest::{self, Made, Place};

/// Lock times from here on are times.
pub const TIMES: u32 = 500_000_000;
/// The bit of a sequence number that makes it count in units of 512 seconds.
pub const SECONDS: u32 = 1 << 22;

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
    /// The transactions of the last block.
    pub txs: Vec<Transaction>,
    /// Its coinbase.
    pub coinbase: Option<Transaction>,
}

impl State {
    /// The height of the next block.
    pub fn next(&self) -> u32 {
        self.place.height + 1
    }

    /// The median of the times of the last eleven blocks.
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

    /// The median at an earlier height.
    pub fn median_at(&self, height: u32) -> u32 {
        let mut at = self;
        while let (Some(parent), true) = (&at.parent, at.place.height > height) {
            at = parent;
        }
        at.median()
    }

    /// The units of 512 seconds that have passed for a coin, as relative locks count them.
    pub fn units_since(&self, coin: &Owned) -> u32 {
        self.median()
            .saturating_sub(self.median_at(coin.height.saturating_sub(1)))
            / 512
    }

    /// Whether the next block may spend the coin.
    pub fn is_ripe(&self, coin: &Owned) -> bool {
        let height = self.next();
        let open = match coin.lock {
            Lock::Until(until) if until < TIMES => until < height,
            Lock::Until(until) => until < self.median(),
            Lock::After(after) if after & SECONDS == 0 => coin.height + after <= height,
            Lock::After(after) => after & 0xffff <= self.units_since(coin),
            _ => true,
        };
        open && (!coin.coinbase || coin.height + 100 <= height)
    }
}

pub struct Maker {
    pub dice: Dice,
    keys: Keys,
    known: HashMap<ScriptBuf, Lock>,
    salt: u64,
}

/// What coins come to; those that only a broken block made may come to more than a number holds.
fn worth(coins: &[Owned]) -> u64 {
    coins.iter().fold(0, |sum, coin| sum.saturating_add(coin.value))
}

impl Maker {
    /// Makes blocks that no maker of another `salt` makes.
    pub fn new(dice: Dice, salt: u64) -> Self {
        let keys = Keys::new(salt);
        let known = LOCKS.into_iter().map(|lock| (keys.script(lock), lock)).collect();
        Self {
            dice,
            keys,
            known,
            salt: salt << 32,
        }
    }

    /// The script of a lock, which is known from here on.
    pub fn script(&mut self, lock: Lock) -> ScriptBuf {
        let script = self.keys.script(lock);
        self.known.insert(script.clone(), lock);
        script
    }

    /// A lock for an output of the block at `height`.
    fn any_lock(&mut self, height: u32, median: u32) -> Lock {
        let roll = self.dice.roll(LOCKS.len() + 4);
        match roll.checked_sub(LOCKS.len()) {
            None => LOCKS[roll],
            Some(0) => Lock::Until(height + self.dice.roll(6) as u32),
            Some(1) => Lock::Until(median.saturating_add(self.dice.roll(3000) as u32)),
            Some(2) => Lock::After(self.dice.roll(6) as u32),
            Some(_) => Lock::After(SECONDS | self.dice.roll(4) as u32),
        }
    }

    /// Coins that the next block may spend, in random order, at most `count`; `fits` chooses among them.
    pub fn pick(&mut self, state: &State, count: usize, fits: impl Fn(&Owned) -> bool) -> Vec<Owned> {
        self.pick_any(state, count, |coin| state.is_ripe(coin) && fits(coin))
    }

    /// [`Maker::pick`] among all coins, those that are locked yet included.
    pub fn pick_any(&mut self, state: &State, count: usize, fits: impl Fn(&Owned) -> bool) -> Vec<Owned> {
        let mut ready: Vec<Owned> = state.coins.iter().filter(|coin| fits(coin)).copied().collect();
        let mut picked = Vec::new();
        while picked.len() < count && !ready.is_empty() {
            picked.push(ready.swap_remove(self.dice.roll(ready.len())));
        }
        picked
    }

    /// One ripe coin with something in it.
    pub fn coin(&mut self, state: &State, fits: impl Fn(&Owned) -> bool) -> Option<Owned> {
        self.pick(state, 1, |coin| coin.value > 0 && fits(coin)).pop()
    }

    /// One ripe coin that anybody may spend.
    pub fn open_coin(&mut self, state: &State) -> Option<Owned> {
        self.coin(state, |coin| coin.lock == Lock::Open)
    }

    /// An unsigned transaction that spends `coins` to one to three outputs and leaves `fee`. Its lock time and sequence
    /// numbers are what the coins ask for.
    pub fn unsigned(&mut self, state: &State, coins: &[Owned], fee: u64) -> Transaction {
        let total = worth(coins);
        let count = 1 + self.dice.roll(3) as u64;
        let rest = total.saturating_sub(fee);
        let mut outputs = Vec::new();
        for index in 0..count {
            let share = if index == 0 {
                rest - rest / count * (count - 1)
            } else {
                rest / count
            };
            let lock = self.any_lock(state.next(), state.median());
            outputs.push((share, self.script(lock)));
        }
        let inputs: Vec<_> = coins.iter().map(|coin| coin.at).collect();
        let mut tx = regtest::spend(&inputs, &outputs);
        for (input, coin) in tx.input.iter_mut().zip(coins) {
            match coin.lock {
                Lock::Until(until) => {
                    tx.lock_time = LockTime::from_consensus(until);
                    input.sequence = Sequence(0xffff_fffe);
                }
                Lock::After(after) => input.sequence = Sequence(after),
                _ => {}
            }
        }
        tx
    }

    fn spent(&self, coins: &[Owned]) -> Vec<(TxOut, Lock)> {
        let output = |coin: &Owned| TxOut {
            value: Amount::from_sat(coin.value),
            script_pubkey: self.keys.script(coin.lock),
        };
        coins.iter().map(|coin| (output(coin), coin.lock)).collect()
    }

    /// Opens every input, with signatures of all kinds.
    pub fn sign(&mut self, tx: &mut Transaction, coins: &[Owned]) {
        let spent = self.spent(coins);
        self.keys.sign(tx, &spent, Some(&mut self.dice));
    }

    /// Opens every input, with signatures over everything.
    pub fn sign_all(&self, tx: &mut Transaction, coins: &[Owned]) {
        self.keys.sign(tx, &self.spent(coins), None);
    }

    /// A valid transaction with its fee, sometimes with lock times that are just met.
    pub fn tx(&mut self, state: &State, coins: &[Owned]) -> (Transaction, u64) {
        let total = worth(coins);
        let fee = (self.dice.roll(1000) as u64).min(total);
        let mut tx = self.unsigned(state, coins, fee);
        let height = state.next();
        let bound = coins
            .iter()
            .any(|coin| matches!(coin.lock, Lock::Until(_) | Lock::After(_)));
        match self.dice.roll(6) {
            _ if bound => {}
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
            3 => {
                for (input, coin) in tx.input.iter_mut().zip(coins) {
                    input.sequence = Sequence(SECONDS | state.units_since(coin).min(0xffff));
                }
            }
            4 => tx.version = Version(*self.dice.one(&[0, 1, 3, -1, i32::MIN, i32::MAX])),
            _ => {}
        }
        self.sign(&mut tx, coins);
        (tx, fee)
    }

    /// The first output of a transaction of the next block, as a coin.
    pub fn child(&self, state: &State, tx: &Transaction) -> Option<Owned> {
        let output = tx.output.first()?;
        Some(Owned {
            at: OutPoint {
                txid: tx.compute_txid(),
                vout: 0,
            },
            value: output.value.to_sat(),
            lock: *self.known.get(&output.script_pubkey)?,
            height: state.next(),
            coinbase: false,
        })
    }

    /// Up to `count` valid transactions, some followed by a child, and their fees.
    pub fn body(&mut self, state: &State, count: usize) -> (Vec<Transaction>, u64) {
        let mut coins = self.pick(state, count * 2, |coin| coin.value > 0);
        let mut txs: Vec<Transaction> = Vec::new();
        let mut fees = 0;
        for _ in 0..count {
            let mut mine: Vec<Owned> = Vec::new();
            for _ in 0..=self.dice.roll(2) {
                let alone = |coin: &Owned| matches!(coin.lock, Lock::Until(_) | Lock::After(_));
                match coins.pop() {
                    // What has a lock time of its own is spent alone.
                    Some(coin) if mine.is_empty() || !alone(&coin) && !alone(&mine[0]) => mine.push(coin),
                    _ => break,
                }
            }
            if mine.is_empty() {
                break;
            }
            let (tx, fee) = self.tx(state, &mine);
            fees += fee;
            txs.push(tx);
            while self.dice.roll(3) == 0
                && let Some(child) = txs.last().and_then(|tx| self.child(state, tx))
                && state.is_ripe(&child)
            {
                let (tx, fee) = self.tx(state, &[child]);
                fees += fee;
                txs.push(tx);
            }
        }
        (txs, fees)
    }

    /// A block on `state` that is not finished yet.
    pub fn draft(&mut self, state: &State, txs: Vec<Transaction>, fees: u64) -> Block {
        self.salt += 1;
        let mut block = regtest::draft(state.place, self.salt, txs, fees);
        let lock = self.any_lock(state.next(), state.median());
        block.txdata[0].output[0].script_pubkey = self.script(lock);
        let earliest = state.median().saturating_add(1);
        let time = earliest.max(state.place.time.saturating_sub(300));
        block.header.time = time.saturating_add(self.dice.roll(900) as u32);
        block
    }

    /// A valid block.
    pub fn block(&mut self, state: &State) -> Made {
        let count = self.dice.roll(4);
        let (txs, fees) = self.body(state, count);
        let draft = self.draft(state, txs, fees);
        regtest::finish(draft, state.next())
    }

    /// The state behind a valid block.
    pub fn after(&self, state: &Rc<State>, made: &Made) -> Rc<State> {
        let block = made.block.block();
        let spent: std::collections::HashSet<OutPoint> = block
            .txdata
            .iter()
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        let mut coins: Vec<Owned> = state
            .coins
            .iter()
            .filter(|coin| !spent.contains(&coin.at))
            .copied()
            .collect();
        for (index, (tx, txid)) in block.txdata.iter().zip(&made.block.txids).enumerate() {
            for (vout, output) in (0..).zip(&tx.output) {
                let at = OutPoint { txid: *txid, vout };
                if let (Some(lock), false) = (self.known.get(&output.script_pubkey), spent.contains(&at)) {
                    coins.push(Owned {
                        at,
                        value: output.value.to_sat(),
                        lock: *lock,
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
            txs: block.txdata.iter().skip(1).cloned().collect(),
            coinbase: block.txdata.first().cloned(),
        })
    }
}
