//! One parent, one child: a parent that pays too little by itself is judged again with a child that the same peer gave,
//! so that the child can pay for both.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use dunlin_mempool::{PackageOutcome, PackageTx};
use dunlin_peer::LinkId;

use super::{TxId, TxRelay};
use crate::interface::Job;
use crate::known::Salt;
use crate::node::Node;

/// Stands for a parent with its child among what was refused.
fn pair(salt: Salt, parent: &Transaction, child: &Transaction) -> u64 {
    let mut both = [0; 64];
    let (first, second) = both.split_at_mut(32);
    first.copy_from_slice(&parent.compute_wtxid().to_byte_array());
    second.copy_from_slice(&child.compute_wtxid().to_byte_array());
    salt.shorten(&both)
}

impl TxRelay {
    /// Whether a transaction was refused for what it pays, by itself.
    pub(super) fn pays_too_little(&self, node: &Node, id: &TxId) -> bool {
        self.reconsiderable.contains(node.salt.shorten(&id.bytes()))
    }

    /// Has a parent judged with the child that this peer gave last, of those that were not tried with it.
    pub(super) fn try_with_child(&mut self, node: &mut Node, link: LinkId, parent: &Arc<Transaction>) {
        let salt = node.salt;
        let children = self.orphans.children_of(link, parent.compute_txid());
        let untried = |child: &Arc<Transaction>| !self.reconsiderable.contains(pair(salt, parent, child));
        let Some(child) = children.into_iter().rev().find(untried) else {
            return;
        };
        let (first, second) = (parent.compute_wtxid(), child.compute_wtxid());
        if self.judging.contains(&first) || self.judging.contains(&second) {
            return;
        }
        self.judging.extend([first, second]);
        // Two that are refused together are not judged together again.
        self.reconsiderable.insert(pair(salt, parent, &child));
        let txs = [Arc::clone(parent), child];
        node.peer_job(link, Job::AcceptPackage { link, txs });
    }

    /// The mempool judged a parent with its child.
    pub(crate) fn on_package(
        &mut self,
        node: &mut Node,
        link: LinkId,
        txs: &[Arc<Transaction>; 2],
        outcome: &PackageOutcome,
    ) {
        for tx in txs {
            self.judging.remove(&tx.compute_wtxid());
        }
        for tx in txs {
            let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
            match outcome.results.get(&wtxid) {
                Some(PackageTx::Accepted(_)) => self.accepted(node, Some(link), txid, wtxid),
                Some(PackageTx::Known { .. } | PackageTx::OtherWitness(_)) => self.settled(txid, wtxid),
                Some(PackageTx::Refused(reject)) => self.refused(node, link, tx, reject, false),
                None => {}
            }
        }
    }

    /// Whether a parent was refused for good, so that no child of it will do better.
    pub(super) fn refused_parent(&self, salt: Salt, parent: &Txid) -> bool {
        self.rejected.contains(salt.shorten(parent.as_ref()))
    }
}
