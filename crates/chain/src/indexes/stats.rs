//! Statistics of the unspent outputs at every height, as Core's `coinstatsindex`.
//!
//! Space 2: height (four bytes, big-endian) and block hash -> the numbers of [`CoinStats`] in the order of its fields,
//! little-endian. They are of the block, so those of blocks that have left the chain stay. The running MuHash stands
//! among the index's facts.

use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint};
use dunlin_store::{Space, StoreError, Table};

use super::changes::Changes;
use super::frame::{Content, Joined, META, Point, place_key};
use super::muhash::MuHash;
use crate::coin::is_spendable;
use crate::coin_hash::{bogo_size, hashed_form, output_of};
use crate::rules::{self, bip30};
use crate::{Coin, Output, Params, TxParts};

const STATS: Space = Space(2);

/// Key of the running MuHash in [`META`].
const RUNNING_KEY: &[u8] = b"muhash";

/// Bytes of a record.
const RECORD_BYTES: usize = 32 + 4 * 8 + 3 * 16 + 4 * 8;

/// The unspent outputs after a block, and what became of all money up to it. Amounts are in satoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoinStats {
    /// The MuHash of all unspent outputs, in the order of its bytes.
    pub muhash: [u8; 32],
    /// How many there are.
    pub outputs: u64,
    /// Core's measure of their size, which depends on no database.
    pub bogo_size: u64,
    /// What they are worth together.
    pub total_amount: u64,
    /// The subsidies of all blocks.
    pub total_subsidy: u64,
    /// What all inputs spent.
    pub total_spent: u128,
    /// What all outputs got that no coinbase made.
    pub total_new_outputs: u128,
    /// What all coinbases took.
    pub total_coinbase: u128,
    /// The genesis block's subsidy, which nobody can spend.
    pub unspendable_genesis: u64,
    /// Coinbases that were overwritten before BIP 30.
    pub unspendable_bip30: u64,
    /// Outputs that no script can spend.
    pub unspendable_scripts: u64,
    /// Subsidies and fees that miners did not take.
    pub unspendable_unclaimed: u64,
}

impl CoinStats {
    /// Everything that nobody can spend.
    pub fn unspendable(&self) -> u64 {
        self.unspendable_genesis
            .saturating_add(self.unspendable_bip30)
            .saturating_add(self.unspendable_scripts)
            .saturating_add(self.unspendable_unclaimed)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.extend(self.muhash);
        for number in [self.outputs, self.bogo_size, self.total_amount, self.total_subsidy] {
            out.extend(number.to_le_bytes());
        }
        for number in [self.total_spent, self.total_new_outputs, self.total_coinbase] {
            out.extend(number.to_le_bytes());
        }
        for number in [
            self.unspendable_genesis,
            self.unspendable_bip30,
            self.unspendable_scripts,
            self.unspendable_unclaimed,
        ] {
            out.extend(number.to_le_bytes());
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (head, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*head)
        }
        let from = &mut bytes;
        let found = Self {
            muhash: take(from)?,
            outputs: u64::from_le_bytes(take(from)?),
            bogo_size: u64::from_le_bytes(take(from)?),
            total_amount: u64::from_le_bytes(take(from)?),
            total_subsidy: u64::from_le_bytes(take(from)?),
            total_spent: u128::from_le_bytes(take(from)?),
            total_new_outputs: u128::from_le_bytes(take(from)?),
            total_coinbase: u128::from_le_bytes(take(from)?),
            unspendable_genesis: u64::from_le_bytes(take(from)?),
            unspendable_bip30: u64::from_le_bytes(take(from)?),
            unspendable_scripts: u64::from_le_bytes(take(from)?),
            unspendable_unclaimed: u64::from_le_bytes(take(from)?),
        };
        from.is_empty().then_some(found)
    }
}

pub(crate) struct Writer {
    halving_interval: u32,
    stats: CoinStats,
    set: MuHash,
    /// Blocks whose MuHash still has to be divided out.
    pending: Vec<(Point, CoinStats, MuHash)>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            halving_interval: params.subsidy_halving_interval,
            stats: CoinStats::default(),
            set: MuHash::default(),
            pending: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn create(&mut self, outpoint: OutPoint, output: Output<'_>, height: u32, coinbase: bool) {
        let amount = output.value;
        if !is_spendable(output.script_pubkey) {
            self.stats.unspendable_scripts = self.stats.unspendable_scripts.saturating_add(amount);
            return;
        }
        hashed_form(&outpoint, output, height, coinbase, &mut self.buffer);
        self.set.insert(&self.buffer);
        if coinbase {
            self.stats.total_coinbase += u128::from(amount);
        } else {
            self.stats.total_new_outputs += u128::from(amount);
        }
        self.stats.outputs += 1;
        self.stats.bogo_size += bogo_size(output.script_pubkey);
        self.stats.total_amount = self.stats.total_amount.saturating_add(amount);
    }

    fn spend(&mut self, outpoint: OutPoint, coin: &Coin) {
        hashed_form(&outpoint, output_of(coin), coin.height, coin.coinbase, &mut self.buffer);
        self.set.remove(&self.buffer);
        let amount = coin.output.value.to_sat();
        self.stats.total_spent += u128::from(amount);
        self.stats.outputs = self.stats.outputs.saturating_sub(1);
        self.stats.bogo_size = self
            .stats
            .bogo_size
            .saturating_sub(bogo_size(&coin.output.script_pubkey));
        self.stats.total_amount = self.stats.total_amount.saturating_sub(amount);
    }
}

impl Content for Writer {
    fn load(&mut self, table: &dyn Table, at: Option<Point>) -> Result<(), StoreError> {
        self.pending.clear();
        let Some(at) = at else {
            self.stats = CoinStats::default();
            self.set = MuHash::default();
            return Ok(());
        };
        let damaged = || StoreError::corrupt(format!("the coin statistics of block {}", at.hash));
        self.stats = read(table, at.height, &at.hash)?.ok_or_else(damaged)?;
        let running = table.get(META, RUNNING_KEY)?.ok_or_else(damaged)?;
        self.set = MuHash::from_bytes(&running)
            .filter(|set| set.digest_reduced() == self.stats.muhash)
            .ok_or_else(damaged)?;
        Ok(())
    }

    fn join(&mut self, joined: &Joined<'_>, _: &mut Changes) -> Result<(), StoreError> {
        let (block, height) = (joined.block, joined.height);
        let subsidy = rules::subsidy(height, self.halving_interval).to_sat();
        self.stats.total_subsidy = self.stats.total_subsidy.saturating_add(subsidy);
        if height == 0 {
            self.stats.unspendable_genesis = self.stats.unspendable_genesis.saturating_add(subsidy);
        } else {
            for (position, tx) in block.transactions().enumerate() {
                let coinbase = position == 0;
                if coinbase && bip30::is_overwritten(height, &block.hash) {
                    self.stats.unspendable_bip30 = self.stats.unspendable_bip30.saturating_add(subsidy);
                    continue;
                }
                let Some(txid) = block.txids.get(position).copied() else {
                    break;
                };
                for (vout, output) in (0u32..).zip(tx.outputs()) {
                    self.create(OutPoint { txid, vout }, output, height, coinbase);
                }
                let spent = position.checked_sub(1).and_then(|row| joined.undo.spent.get(row));
                for (outpoint, coin) in tx.previous_outputs().zip(spent.into_iter().flatten()) {
                    self.spend(outpoint, coin);
                }
            }
        }
        // Whatever came in and is in no output was left by the miner.
        let stats = &mut self.stats;
        let came = stats.total_spent + u128::from(stats.total_subsidy);
        let went = stats.total_new_outputs + stats.total_coinbase + u128::from(stats.unspendable());
        let unclaimed = u64::try_from(came.saturating_sub(went)).unwrap_or(u64::MAX);
        stats.unspendable_unclaimed = stats.unspendable_unclaimed.saturating_add(unclaimed);
        self.pending.push((joined.point(), self.stats, self.set.clone()));
        Ok(())
    }

    fn seal(&mut self, changes: &mut Changes) {
        let pending = std::mem::take(&mut self.pending);
        let (blocks, mut sets): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|(at, stats, set)| ((at, stats), set)).unzip();
        MuHash::reduce(&mut sets);
        for ((at, mut stats), set) in blocks.into_iter().zip(&sets) {
            stats.muhash = set.digest_reduced();
            changes.put_for_good(STATS, at.encode(), stats.encode());
            self.stats.muhash = stats.muhash;
        }
        if let Some(last) = sets.pop() {
            changes.put(META, RUNNING_KEY, last.to_bytes());
            self.set = last;
        }
    }
}

fn read(table: &dyn Table, height: u32, hash: &BlockHash) -> Result<Option<CoinStats>, StoreError> {
    let Some(bytes) = table.get(STATS, &place_key(height, hash))? else {
        return Ok(None);
    };
    match CoinStats::decode(&bytes) {
        Some(stats) => Ok(Some(stats)),
        None => Err(StoreError::corrupt(format!("the coin statistics of block {hash}"))),
    }
}

/// Reading the index of coin statistics.
#[derive(Clone)]
pub struct StatsIndex {
    pub(crate) table: Arc<dyn Table>,
}

impl StatsIndex {
    /// The statistics after a block at its height; `None` when it was never indexed.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn at(&self, height: u32, hash: &BlockHash) -> Result<Option<CoinStats>, StoreError> {
        read(&*self.table, height, hash)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_writing() {
        let stats = CoinStats {
            muhash: [7; 32],
            outputs: 1,
            bogo_size: 2,
            total_amount: 3,
            total_subsidy: 4,
            total_spent: u128::MAX,
            total_new_outputs: 6,
            total_coinbase: 7,
            unspendable_genesis: 8,
            unspendable_bip30: 9,
            unspendable_scripts: 10,
            unspendable_unclaimed: 11,
        };
        let bytes = stats.encode();
        assert_eq!(bytes.len(), RECORD_BYTES);
        assert_eq!(CoinStats::decode(&bytes), Some(stats));
        assert_eq!(CoinStats::decode(&bytes[1..]), None);
        assert_eq!(stats.unspendable(), 38);
    }
}
