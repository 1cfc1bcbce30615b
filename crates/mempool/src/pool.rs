//! The pool itself: its indexes, what may be asked of it, and the two moves that everything else is made of, putting
//! one transaction in and taking a set out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Amount, BlockHash, OutPoint, Transaction, Txid, Wtxid};
use dunlin_chain::{ParsedBlock, View};

use crate::change::{Change, Listener};
use crate::entry::{Entry, Id};
use crate::estimate::Estimator;
use crate::floor::Floor;
use crate::graph::{Candidate, Chunk, ClusterLimits, Graph};
use crate::returned::Returned;
use crate::{Config, FeeRate};

/// What came of a transaction that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its hash without witnesses.
    pub txid: Txid,
    /// Its hash with witnesses.
    pub wtxid: Wtxid,
    /// What it pays.
    pub fee: Amount,
    /// Its virtual size in bytes.
    pub vsize: u64,
    /// Transactions that it put out, their descendants included.
    pub replaced: Vec<Txid>,
    /// The fee rate that it was judged by, in satoshi per 1000 virtual bytes; operators' priorities included.
    pub effective_feerate: i64,
    /// The transactions whose fees and sizes make that rate.
    pub effective_includes: Vec<Wtxid>,
}

/// The pool in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Transactions.
    pub size: usize,
    /// Sum of their virtual sizes, in bytes.
    pub bytes: u64,
    /// Estimated memory in use, in bytes.
    pub usage: u64,
    /// Memory that may be used, in bytes.
    pub max_bytes: u64,
    /// Sum of their fees.
    pub total_fee: Amount,
    /// The least fee rate that gets in now, in satoshi per 1000 virtual bytes.
    pub min_feerate: u64,
    /// The least fee rate that gets in while there is room.
    pub min_relay_feerate: u64,
    /// The step by which a replacement must pay more.
    pub incremental_feerate: u64,
}

/// Unconfirmed transactions that could be in the next block.
///
/// One writer keeps it in step with the chain: after each change of the tip it calls [`Pool::block_connected`] or
/// [`Pool::block_disconnected`] for the blocks in order, and [`Pool::after_reorg`] at the end.
pub struct Pool {
    pub(crate) config: Config,
    pub(crate) view: View,
    pub(crate) entries: BTreeMap<Id, Entry>,
    pub(crate) graph: Graph,
    by_txid: HashMap<Txid, Id>,
    by_wtxid: HashMap<Wtxid, Id>,
    spends: HashMap<OutPoint, Id>,
    by_time: BTreeSet<(u64, Id)>,
    next_id: Id,
    bytes: u64,
    usage: u64,
    total_fee: u64,
    sequence: u64,
    pub(crate) floor: Floor,
    /// The latest time that a caller gave.
    pub(crate) clock: u64,
    /// Transactions of disconnected blocks, the oldest block first.
    pub(crate) returned: Returned,
    /// What an operator's priorities add to fees, in satoshi, for transactions here or not.
    pub(crate) deltas: BTreeMap<Txid, i64>,
    pub(crate) estimator: Estimator,
    loaded: bool,
    /// A block was disconnected since the last [`Pool::after_reorg`].
    pub(crate) reorganised: bool,
    pub(crate) listener: Listener,
    /// Blocks that joined the chain since the last [`Pool::after_reorg`], of which the listener has yet to hear.
    pub(crate) untold: Vec<Arc<ParsedBlock>>,
    /// The block up to which it has followed the chain.
    pub(crate) tip: BlockHash,
}

impl Pool {
    /// An empty pool over the chain that `view` shows.
    pub fn new(config: Config, view: View) -> Self {
        Self {
            floor: Floor::new(config.incremental_feerate),
            config,
            tip: view.tip().hash,
            view,
            entries: BTreeMap::new(),
            graph: Graph::default(),
            by_txid: HashMap::new(),
            by_wtxid: HashMap::new(),
            spends: HashMap::new(),
            by_time: BTreeSet::new(),
            next_id: 0,
            bytes: 0,
            usage: 0,
            total_fee: 0,
            sequence: 1,
            clock: 0,
            returned: Returned::default(),
            deltas: BTreeMap::new(),
            estimator: Estimator::default(),
            loaded: true,
            reorganised: false,
            listener: Listener::default(),
            untold: Vec::new(),
        }
    }

    /// The limits in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A transaction by its id.
    pub fn get(&self, txid: &Txid) -> Option<Arc<Transaction>> {
        self.entry(txid).map(|entry| Arc::clone(&entry.tx))
    }

    /// A transaction by its witness id.
    pub fn get_by_wtxid(&self, wtxid: &Wtxid) -> Option<Arc<Transaction>> {
        self.entry_by_wtxid(wtxid).map(|entry| Arc::clone(&entry.tx))
    }

    /// A transaction with what was computed for it.
    pub fn entry(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(self.by_txid.get(txid)?)
    }

    /// The same by its witness id.
    pub fn entry_by_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.entries.get(self.by_wtxid.get(wtxid)?)
    }

    /// Is a transaction with this id here?
    pub fn contains(&self, txid: &Txid) -> bool {
        self.by_txid.contains_key(txid)
    }

    /// Is a transaction with this witness id here?
    pub fn contains_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.by_wtxid.contains_key(wtxid)
    }

    /// All transactions in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// All ids in the order in which they came.
    pub fn txids(&self) -> Vec<Txid> {
        self.iter().map(|entry| entry.txid).collect()
    }

    /// The transaction that spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.entries.get(self.spends.get(outpoint)?).map(|entry| entry.txid)
    }

    /// The transactions of the pool that this one spends from, directly.
    pub fn parents(&self, txid: &Txid) -> Vec<Txid> {
        self.by_txid
            .get(txid)
            .map(|id| self.names(&self.graph.parents(*id)))
            .unwrap_or_default()
    }

    /// The transactions of the pool that spend from this one, directly.
    pub fn children(&self, txid: &Txid) -> Vec<Txid> {
        self.by_txid
            .get(txid)
            .map(|id| self.names(&self.graph.children(*id)))
            .unwrap_or_default()
    }

    /// Everything in the pool that this one descends from, itself included.
    pub fn ancestors(&self, txid: &Txid) -> Vec<Txid> {
        self.by_txid
            .get(txid)
            .map(|id| self.names(&self.graph.ancestors([*id])))
            .unwrap_or_default()
    }

    /// Everything in the pool that descends from this one, itself included.
    pub fn descendants(&self, txid: &Txid) -> Vec<Txid> {
        self.by_txid
            .get(txid)
            .map(|id| self.names(&self.graph.descendants([*id])))
            .unwrap_or_default()
    }

    /// The fee rate at which a transaction would be mined, with the relatives that it is mined with.
    pub fn mining_feerate(&self, txid: &Txid) -> Option<FeeRate> {
        self.graph
            .chunk_of(*self.by_txid.get(txid)?)
            .map(|chunk| chunk.ratio.to_rate())
    }

    /// Modified fee in satoshi and sigop-adjusted weight of the chunk with which a transaction would be mined.
    pub fn chunk(&self, txid: &Txid) -> Option<(i64, u64)> {
        let chunk = self.graph.chunk_of(*self.by_txid.get(txid)?)?;
        Some((chunk.ratio.fee, chunk.ratio.weight))
    }

    /// The chunks of a transaction's cluster in mining order: modified fee in satoshi, sigop-adjusted weight, members.
    pub fn cluster(&self, txid: &Txid) -> Option<Vec<(i64, u64, Vec<Txid>)>> {
        let chunks = self.graph.cluster_of(*self.by_txid.get(txid)?)?;
        let shown = |chunk: &Chunk| {
            let members = chunk.members.iter().filter_map(|id| self.entries.get(id));
            (
                chunk.ratio.fee,
                chunk.ratio.weight,
                members.map(|entry| entry.txid).collect(),
            )
        };
        Some(chunks.iter().map(shown).collect())
    }

    /// What the best chunks come to together, from none of them to all: sigop-adjusted weight and modified fee in satoshi.
    pub fn feerate_diagram(&self) -> Vec<(u64, i64)> {
        let mut sum = (0, 0);
        let mut points = vec![sum];
        for (_, chunk) in self.graph.by_rate() {
            sum = (sum.0 + chunk.ratio.weight, sum.1 + chunk.ratio.fee);
            points.push(sum);
        }
        points
    }

    /// All transactions, those that are mined first at the beginning, and parents before children.
    pub fn by_mining_order(&self) -> impl Iterator<Item = &Entry> {
        let members = self.graph.by_rate().flat_map(|(_, chunk)| &chunk.members);
        members.filter_map(|id| self.entries.get(id))
    }

    /// Whether it has followed the chain up to this block and no further.
    pub fn follows(&self, tip: &BlockHash) -> bool {
        self.tip == *tip
    }

    /// What was learned about fee rates.
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Goes on with what was learned about fee rates before.
    pub fn set_estimator(&mut self, estimator: Estimator) {
        self.estimator = estimator;
    }

    /// Have the transactions of an earlier run been looked through? True unless somebody said otherwise.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Tells whether the transactions of an earlier run have been looked through.
    pub fn set_loaded(&mut self, loaded: bool) {
        self.loaded = loaded;
    }

    /// The number of the next change: it rises with every transaction that enters or leaves, from 1 on as in Core.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Has everything that happens from now on told to `listener`, in order, while the pool is locked: it must not wait
    /// for anything.
    pub fn set_listener(&mut self, listener: impl Fn(&Change<'_>) + Send + Sync + 'static) {
        self.listener = Listener::new(listener);
    }

    /// The pool in figures, as of the latest time that it was given.
    pub fn info(&self) -> Info {
        Info {
            size: self.entries.len(),
            bytes: self.bytes,
            usage: self.usage,
            max_bytes: self.config.max_bytes,
            total_fee: Amount::from_sat(self.total_fee),
            min_feerate: self.min_feerate(self.clock).sat_per_kvb(),
            min_relay_feerate: self.config.min_relay_feerate.sat_per_kvb(),
            incremental_feerate: self.config.incremental_feerate.sat_per_kvb(),
        }
    }

    /// The least fee rate that gets in at `now`, in Unix seconds.
    pub fn min_feerate(&self, now: u64) -> FeeRate {
        self.floor_at(now).max(self.config.min_relay_feerate)
    }

    pub(crate) fn floor_at(&self, now: u64) -> FeeRate {
        self.floor.at(now, self.usage, self.config.max_bytes)
    }

    pub(crate) fn usage(&self) -> u64 {
        self.usage
    }

    pub(crate) fn cluster_limits(&self) -> ClusterLimits {
        ClusterLimits {
            count: self.config.cluster_count,
            weight: self.config.cluster_weight,
        }
    }

    pub(crate) fn names(&self, ids: &BTreeSet<Id>) -> Vec<Txid> {
        ids.iter()
            .filter_map(|id| self.entries.get(id))
            .map(|entry| entry.txid)
            .collect()
    }

    pub(crate) fn id(&self, txid: &Txid) -> Option<Id> {
        self.by_txid.get(txid).copied()
    }

    pub(crate) fn spender_id(&self, outpoint: &OutPoint) -> Option<Id> {
        self.spends.get(outpoint).copied()
    }

    /// The transactions that spend outputs of this one, known here or not.
    pub(crate) fn spenders_of(&self, txid: Txid, outputs: usize) -> BTreeSet<Id> {
        (0..u32::try_from(outputs).unwrap_or(u32::MAX))
            .filter_map(|vout| self.spender_id(&OutPoint { txid, vout }))
            .collect()
    }

    /// The transactions of the pool that this one spends from.
    pub(crate) fn parents_of(&self, tx: &Transaction) -> BTreeSet<Id> {
        tx.input
            .iter()
            .filter_map(|input| self.id(&input.previous_output.txid))
            .collect()
    }

    pub(crate) fn expired(&self, before: u64) -> BTreeSet<Id> {
        self.by_time
            .iter()
            .take_while(|(time, _)| *time < before)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Puts a checked transaction in. Nothing in the pool conflicts with it, and the cluster that it makes with its
    /// relatives is within the limits.
    pub(crate) fn insert(&mut self, entry: Entry) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        let (tx, sequence) = (&entry.tx, self.sequence);
        self.listener.tell(Change::Entered { tx, sequence });
        self.sequence += 1;
        let candidate = Candidate {
            ratio: entry.ratio(),
            parents: self.parents_of(&entry.tx),
        };
        let children = self.spenders_of(entry.txid, entry.tx.output.len());
        self.graph.insert(id, candidate, children);
        self.by_txid.insert(entry.txid, id);
        self.by_wtxid.insert(entry.wtxid, id);
        for input in &entry.tx.input {
            self.spends.insert(input.previous_output, id);
        }
        self.by_time.insert((entry.time, id));
        self.bytes += entry.vsize;
        self.usage += entry.usage;
        self.total_fee += entry.fee.to_sat();
        self.entries.insert(id, entry);
        id
    }

    /// Says when a transaction came.
    pub(crate) fn date(&mut self, txid: &Txid, time: u64) {
        let Some(id) = self.id(txid) else { return };
        if let Some(entry) = self.entries.get_mut(&id) {
            self.by_time.remove(&(entry.time, id));
            entry.time = time;
            self.by_time.insert((time, id));
        }
    }

    /// Takes transactions out. What stays behind must not miss them as parents.
    pub(crate) fn remove(&mut self, ids: &BTreeSet<Id>) {
        self.take_out(ids, false);
    }

    /// [`Pool::remove`], or of those that are `confirmed` now, which nobody misses as parents.
    pub(crate) fn take_out(&mut self, ids: &BTreeSet<Id>, confirmed: bool) {
        self.graph.remove(ids);
        for id in ids {
            let Some(entry) = self.entries.remove(id) else { continue };
            if !confirmed {
                let (txid, sequence) = (&entry.txid, self.sequence);
                self.listener.tell(Change::Left { txid, sequence });
            }
            self.sequence += 1;
            self.estimator.left(&entry.txid);
            self.by_txid.remove(&entry.txid);
            self.by_wtxid.remove(&entry.wtxid);
            for input in &entry.tx.input {
                self.spends.remove(&input.previous_output);
            }
            self.by_time.remove(&(entry.time, *id));
            self.bytes -= entry.vsize;
            self.usage -= entry.usage;
            self.total_fee -= entry.fee.to_sat();
        }
    }

    /// Takes transactions out with everything that descends from them.
    pub(crate) fn remove_with_descendants(&mut self, ids: impl IntoIterator<Item = Id>) {
        let all = self.graph.descendants(ids);
        self.remove(&all);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}
