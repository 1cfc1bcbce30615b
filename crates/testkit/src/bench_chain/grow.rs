//! Grows the bench chain block by block: who pays whom, from which coins.
//!
//! The plan of a block depends on the seed alone; the signatures are made on all cores. Nothing of it comes from the
//! chain engine that is measured.

use anyhow::{Context, Result};
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, BlockHash, OutPoint, TxOut};

use super::in_parallel;
use super::keys::{Coin, KEYS, Keyring, Lock, Owner, Signed};
use crate::coins::{BlockPlan, coinbase_coin, subsidy};
use crate::content::Bytes64;

/// Blocks after which a coinbase may be spent.
const MATURITY: u32 = 100;
/// What a transaction weighs beside its inputs and outputs.
const OVERHEAD: u64 = 44;
/// Satoshis that a transaction leaves to the miner, when it has them.
const FEE: u64 = 300;
/// Seconds between blocks.
const SPACING: u32 = 600;

/// The size of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks that spread a coinbase over many outputs, after those that only let coinbases ripen.
    pub fans: u32,
    /// Transactions in each of them.
    pub fan_transactions: usize,
    /// Outputs of each such transaction.
    pub fan_outputs: usize,
    /// Blocks of ordinary payments.
    pub busy: u32,
    /// The weight to which they are filled.
    pub weight: u64,
    /// Empty blocks at the end, which bury the others.
    pub burial: u32,
}

impl Shape {
    /// Height of the last block.
    pub fn height(&self) -> u32 {
        MATURITY + self.fans + self.busy + self.burial
    }
}

/// What a chain holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Transactions, coinbases among them.
    pub transactions: u64,
    /// Inputs that spend a coin.
    pub inputs: u64,
    /// Signature verifications that all scripts together cost.
    pub verifications: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
}

/// A transaction before it is signed. Outputs without an owner carry data and no money.
#[derive(Debug)]
struct Draft {
    coins: Vec<Coin>,
    outputs: Vec<(Option<Owner>, u64)>,
}

/// A chain under way.
pub(super) struct Grower {
    shape: Shape,
    ring: Keyring,
    random: Bytes64,
    /// Unspent coins by the height of their block.
    pools: Vec<Vec<Coin>>,
    /// The reward of each block from the first on.
    coinbases: Vec<Coin>,
    tip: BlockHash,
    end_time: u32,
    pub(super) totals: Totals,
}

impl Grower {
    /// Begins at regtest's first block; the last block's time will be `end_time` (Unix seconds).
    pub(super) fn new(shape: Shape, end_time: u32) -> Result<Self> {
        Ok(Self {
            shape,
            ring: Keyring::new()?,
            random: Bytes64::new(0x6475_6e6c_696e),
            pools: vec![Vec::new()],
            coinbases: Vec::new(),
            tip: bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash(),
            end_time,
            totals: Totals::default(),
        })
    }

    /// The next block; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<Block>> {
        let height = u32::try_from(self.pools.len())?;
        self.pools.push(Vec::new());
        let fans_end = MATURITY + self.shape.fans;
        let signed = match height {
            _ if height > self.shape.height() => return Ok(None),
            _ if height > fans_end + self.shape.busy => Vec::new(),
            _ if height > fans_end => self.pay(height)?,
            _ if height > MATURITY => self.fan(height)?,
            _ => Vec::new(),
        };
        let miner = Owner {
            lock: Lock::P2wpkh,
            key: height,
        };
        let mut plan = BlockPlan {
            previous: self.tip,
            height,
            time: self.time(height),
            reward_to: self.ring.output(miner, 0).script_pubkey,
            reward: subsidy(height),
            transactions: Vec::with_capacity(signed.len()),
        };
        for item in signed {
            self.totals.verifications += item.verifications;
            self.totals.inputs += item.transaction.input.len() as u64;
            plan.transactions.push(item.transaction);
        }
        self.totals.transactions += plan.transactions.len() as u64 + 1;
        let block = plan.mine();
        self.tip = block.block_hash();
        let (outpoint, value) = coinbase_coin(&block);
        self.coinbases.push(Coin {
            outpoint,
            value: value.to_sat(),
            owner: miner,
        });
        self.totals.bytes += block.total_size() as u64;
        Ok(Some(block))
    }

    /// Hash of the last block made.
    pub(super) fn tip(&self) -> BlockHash {
        self.tip
    }

    fn time(&self, height: u32) -> u32 {
        self.end_time - (self.shape.height() - height) * SPACING
    }

    /// The coinbase that is ripe since this block.
    fn ripe_coinbase(&self, height: u32) -> Result<Coin> {
        let index = height.checked_sub(MATURITY + 1).context("no coinbase is ripe yet")?;
        self.coinbases
            .get(index as usize)
            .copied()
            .context("each block has a coinbase")
    }

    fn fan(&mut self, height: u32) -> Result<Vec<Signed>> {
        let (transactions, outputs) = (self.shape.fan_transactions, self.shape.fan_outputs);
        let coinbase = self.ripe_coinbase(height)?;
        let root = vec![self.draft(vec![coinbase], transactions, false)];
        let mut signed = self.sign(height, root)?;
        let branches = std::mem::take(&mut self.pools[height as usize]);
        let drafts = branches
            .into_iter()
            .map(|coin| self.draft(vec![coin], outputs, false))
            .collect();
        signed.extend(self.sign(height, drafts)?);
        Ok(signed)
    }

    /// A block of ordinary payments. The second part of it may spend what the first part made.
    fn pay(&mut self, height: u32) -> Result<Vec<Signed>> {
        let coinbase = self.ripe_coinbase(height)?;
        let first = self.draft(vec![coinbase], 2, false);
        let mut weight = 2000 + weight(&first);
        let mut drafts = vec![first];
        let mut signed = Vec::new();
        for (limit, youngest) in [(self.shape.weight / 2, 1), (self.shape.weight, 0)] {
            loop {
                let draft = self.payment(height, youngest)?;
                let more = self::weight(&draft);
                if weight + more > limit {
                    // Not this one, then: its coins stay unspent.
                    for coin in draft.coins {
                        self.pools[height as usize - 1].push(coin);
                    }
                    break;
                }
                weight += more;
                drafts.push(draft);
            }
            signed.extend(self.sign(height, std::mem::take(&mut drafts))?);
        }
        Ok(signed)
    }

    /// One payment: mostly a few coins to a payee and change, sometimes many at either end.
    fn payment(&mut self, height: u32, youngest: u32) -> Result<Draft> {
        let (inputs, outputs) = match self.random.below(100) {
            0..52 => (1, 2),
            52..68 => (2, 2),
            68..76 => (1, 1),
            76..84 => (3, 2),
            84..90 => (2, 1),
            90..95 => (1, 3),
            95..98 => (1 + self.random.below(2), 8 + self.random.below(25)),
            _ => (8 + self.random.below(25), 1),
        };
        let coins = (0..inputs)
            .map(|_| self.take(height, youngest))
            .collect::<Result<_>>()?;
        let data = self.random.below(50) == 0;
        Ok(self.draft(coins, outputs as usize, data))
    }

    /// Takes an unspent coin whose age in blocks is spread evenly over the orders of magnitude, as people spend: many
    /// within a few blocks, a long tail far back.
    fn take(&mut self, height: u32, youngest: u32) -> Result<Coin> {
        let oldest = height - MATURITY;
        for _ in 0..1000 {
            let order = self.random.below(u64::from(oldest.ilog2()) + 2);
            let age = match order {
                0 => u64::from(youngest),
                _ => (1 << (order - 1)) + self.random.below(1 << (order - 1)),
            };
            let pool = (height as usize).checked_sub(usize::try_from(age)?);
            let Some(pool) = pool
                .and_then(|at| self.pools.get_mut(at))
                .filter(|pool| !pool.is_empty())
            else {
                continue;
            };
            let index = self.random.below(pool.len() as u64);
            return Ok(pool.swap_remove(usize::try_from(index)?));
        }
        anyhow::bail!("the chain has too few coins at height {height}")
    }

    fn draft(&mut self, coins: Vec<Coin>, outputs: usize, data: bool) -> Draft {
        let total: u64 = coins.iter().map(|coin| coin.value).sum();
        let mut left = total.saturating_sub(FEE);
        let even = left / outputs as u64;
        let mut drawn = Vec::with_capacity(outputs + 1);
        for index in (0..outputs).rev() {
            // The last takes what is left; the others something around the even share.
            let value = if index == 0 {
                left
            } else {
                (even / 4 + self.random.below(even + 1)).min(left)
            };
            left -= value;
            drawn.push((Some(self.owner()), value));
        }
        if data {
            drawn.push((None, 0));
        }
        Draft { coins, outputs: drawn }
    }

    /// Somebody, with the locks in about the shares that they have among people's coins.
    fn owner(&mut self) -> Owner {
        let lock = match self.random.below(100) {
            0..40 => Lock::P2wpkh,
            40..58 => Lock::P2pkh,
            58..70 => Lock::P2shP2wpkh,
            70..80 => Lock::Multisig,
            80..94 => Lock::TaprootKey,
            _ => Lock::TaprootScript,
        };
        let key = self.random.below(u64::from(KEYS)) as u32;
        Owner { lock, key }
    }

    /// Signs on all cores and adds the new coins to the pool of `height`.
    fn sign(&mut self, height: u32, drafts: Vec<Draft>) -> Result<Vec<Signed>> {
        let ring = &self.ring;
        let signed = in_parallel(&drafts, |draft| {
            let outputs = draft.outputs.iter().map(|&(owner, value)| match owner {
                Some(owner) => ring.output(owner, value),
                None => data_output(&draft.coins),
            });
            let signed = ring.sign(&draft.coins, outputs.collect())?;
            let txid = signed.transaction.compute_txid();
            Ok((signed, txid))
        });
        let signed: Vec<_> = signed.into_iter().collect::<Result<_>>()?;
        let pool = self.pools.get_mut(height as usize).context("each height has a pool")?;
        let mut all = Vec::with_capacity(signed.len());
        for (draft, (signed, txid)) in drafts.into_iter().zip(signed) {
            for (index, (owner, value)) in draft.outputs.into_iter().enumerate() {
                if let Some(owner) = owner {
                    let outpoint = OutPoint::new(txid, u32::try_from(index)?);
                    pool.push(Coin { outpoint, value, owner });
                }
            }
            all.push(signed);
        }
        Ok(all)
    }
}

fn weight(draft: &Draft) -> u64 {
    let inputs = draft.coins.iter().map(|coin| coin.owner.lock.weights().1);
    let outputs = draft.outputs.iter().map(|(owner, _)| match owner {
        Some(owner) => owner.lock.weights().0,
        None => 4 * 43,
    });
    OVERHEAD + inputs.sum::<u64>() + outputs.sum::<u64>()
}

/// An output that nobody can spend and that carries 32 bytes.
fn data_output(coins: &[Coin]) -> TxOut {
    use bitcoin::hashes::Hash;
    let bytes = coins.first().map_or([0; 32], |coin| coin.outpoint.txid.to_byte_array());
    TxOut {
        value: Amount::ZERO,
        script_pubkey: Builder::new().push_opcode(OP_RETURN).push_slice(bytes).into_script(),
    }
}
