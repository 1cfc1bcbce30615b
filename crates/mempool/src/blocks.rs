//! Following the chain: confirmed transactions and those that they rule out leave; the transactions of disconnected
//! blocks come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{BlockHash, Transaction};
use dunlin_chain::rules::{COINBASE_MATURITY, is_final};
use dunlin_chain::{Coin, Entry as Block, ParsedBlock};

use crate::accept::Setting;
use crate::change::Change;
use crate::entry::{Entry, Id};
use crate::{Pool, Ratio};

impl Pool {
    /// A block joined the chain.
    pub fn block_connected(&mut self, block: &Arc<ParsedBlock>) {
        self.tip = block.hash;
        let confirmed: BTreeSet<Id> = block.txids.iter().filter_map(|txid| self.id(txid)).collect();
        if let Some(at) = self.view.entry(&block.hash) {
            let entries = confirmed.iter().filter_map(|id| self.entries.get(id));
            self.estimator.block_connected(at.height, entries);
        }
        self.take_out(&confirmed, true);
        // Whatever still spends one of the block's inputs is another transaction.
        let spent = block.transactions().flat_map(|tx| tx.previous_outputs());
        let conflicts: BTreeSet<Id> = spent.filter_map(|outpoint| self.spender_id(&outpoint)).collect();
        for txid in self.names(&conflicts).iter().chain(&block.txids) {
            self.deltas.remove(txid);
        }
        self.remove_with_descendants(conflicts);
        for txid in &block.txids {
            self.returned.remove(txid);
        }
        let (now, usage, room) = (self.clock, self.usage(), self.config.max_bytes);
        self.floor.settle(now, usage, room);
        self.floor.block(now);
        if self.listener.is_there() {
            self.untold.push(Arc::clone(block));
        }
    }

    /// The block at the tip left the chain. Its transactions wait for [`Pool::after_reorg`].
    pub fn block_disconnected(&mut self, block: &Arc<ParsedBlock>) {
        self.tell_connected();
        self.listener.tell(Change::Disconnected(block));
        self.reorganised = true;
        self.tip = block.prev();
        for (txid, tx) in block.txids.iter().zip(&block.block().txdata).rev() {
            self.returned.push_front(*txid, Arc::new(tx.clone()));
        }
        while let Some(tx) = self.returned.pop_excess() {
            self.remove_spenders(&tx);
        }
    }

    /// The chain stands at another block, and nothing here is concerned: it was not reached block by block.
    pub fn set_tip(&mut self, tip: BlockHash) {
        self.tip = tip;
    }

    /// To be called when a change of the chain is complete, at `now` in Unix seconds: gives the transactions of
    /// disconnected blocks back, forgets what can no longer be in the next block, and keeps to the limits.
    pub fn after_reorg(&mut self, now: u64) {
        self.clock = self.clock.max(now);
        if std::mem::take(&mut self.reorganised) {
            self.give_back(now);
        }
        if let Some(tip) = self.tell_connected() {
            self.listener.tell(Change::Tip(&tip));
        }
    }

    /// Tells the listener of blocks that joined the chain; the last of them.
    fn tell_connected(&mut self) -> Option<Arc<ParsedBlock>> {
        let untold = std::mem::take(&mut self.untold);
        untold
            .iter()
            .for_each(|block| self.listener.tell(Change::Connected(block)));
        untold.into_iter().next_back()
    }

    fn give_back(&mut self, now: u64) {
        for (txid, tx) in std::mem::take(&mut self.returned).into_all() {
            if tx.is_coinbase() || self.admit(now, Arc::clone(&tx), Setting::Returned, None).is_err() {
                let here = self.id(&txid).is_some();
                // The pool may have it already, as when it came back with another witness.
                if !here {
                    self.remove_spenders(&tx);
                }
            }
        }
        let tip = self.view.tip();
        let stale: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, e)| self.is_stale(e, &tip))
            .map(|(id, _)| *id)
            .collect();
        self.remove_with_descendants(stale);
        self.limit(now);
    }

    /// Removes what spends a transaction that is neither here nor in the chain.
    fn remove_spenders(&mut self, tx: &Transaction) {
        let spenders = self.spenders_of(tx.compute_txid(), tx.output.len());
        self.remove_with_descendants(spenders);
    }

    /// Can this transaction no longer be in the block after `tip`?
    fn is_stale(&self, entry: &Entry, tip: &Block) -> bool {
        let height = tip.height.saturating_add(1);
        if !is_final(&*entry.tx, height, tip.median_time_past) {
            return true;
        }
        let locked = entry.tx.version.0 as u32 >= 2
            && entry
                .tx
                .input
                .iter()
                .any(|input| input.sequence.is_relative_lock_time());
        if !locked && !entry.spends_coinbase {
            return false;
        }
        let coins: Result<Option<Vec<Coin>>, _> = entry
            .tx
            .input
            .iter()
            .map(|input| self.coin(&input.previous_output, tip))
            .collect();
        // A disk that fails says nothing against the transaction; the next block is checked again anyway.
        let Ok(coins) = coins else { return false };
        let Some(coins) = coins else { return true };
        let immature = |coin: &Coin| coin.coinbase && height.saturating_sub(coin.height) < COINBASE_MATURITY;
        coins.iter().any(immature) || !self.locks(&entry.tx, &coins, tip).open_at(height, tip.median_time_past)
    }

    /// A transaction that comes back may have children here already. If all of them together with its parents would
    /// make a cluster beyond the limits, the children that pay worst go.
    pub(crate) fn make_room_for_children(&mut self, entry: &Entry) {
        let rate = |pool: &Self, id: Id| pool.entries.get(&id).map(Entry::ratio).unwrap_or_default();
        loop {
            let children = self.spenders_of(entry.txid, entry.tx.output.len());
            let related = self.parents_of(&entry.tx).into_iter().chain(children.iter().copied());
            if self.graph.fits(entry.ratio().weight, related, self.cluster_limits()) {
                return;
            }
            let worst = children
                .into_iter()
                .min_by(|a, b| Ratio::cmp_rate(&rate(self, *a), &rate(self, *b)));
            let Some(worst) = worst else { return };
            self.remove_with_descendants([worst]);
        }
    }
}
