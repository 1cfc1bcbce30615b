//! BIP 431: transactions of version 3 live in unconfirmed pairs of at most one parent and one child, so that a child
//! can always replace another.

use bitcoin::transaction::Version;

use crate::entry::{Entry, Id};
use crate::graph::Graph;

/// Largest virtual size.
const MAX_VSIZE: u64 = 10_000;
/// Largest virtual size of a child.
const MAX_CHILD_VSIZE: u64 = 1000;

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Violation {
    /// Words for a person.
    pub(crate) detail: String,
    /// The other child of the parent, if putting it out would mend things.
    pub(crate) sibling: Option<Id>,
}

fn broken(detail: impl Into<String>) -> Result<(), Violation> {
    Err(Violation {
        detail: detail.into(),
        sibling: None,
    })
}

/// Checks a new transaction against its parents in the pool and the transactions that it conflicts with.
pub(crate) fn check<'a>(
    new: &Entry,
    parents: impl Iterator<Item = (Id, &'a Entry)>,
    conflicts: impl Fn(Id) -> bool,
    graph: &Graph,
) -> Result<(), Violation> {
    let is_truc = |version: Version| version == Version(3);
    let parents: Vec<(Id, &Entry)> = parents.collect();
    for (_, parent) in &parents {
        if is_truc(parent.tx.version) != is_truc(new.tx.version) {
            let (own, other) = if is_truc(new.tx.version) {
                ("", "non-")
            } else {
                ("non-", "")
            };
            return broken(format!(
                "{own}version=3 tx {} cannot spend from {other}version=3 tx {}",
                new.txid, parent.txid
            ));
        }
    }
    if !is_truc(new.tx.version) {
        return Ok(());
    }
    if new.vsize > MAX_VSIZE {
        return broken(format!(
            "version=3 tx {} is too big: {} > {MAX_VSIZE} virtual bytes",
            new.txid, new.vsize
        ));
    }
    let (parent, txid) = match parents.as_slice() {
        [] => return Ok(()),
        [(parent, entry)] => (*parent, entry.txid),
        _ => return broken(format!("tx {} would have too many ancestors", new.txid)),
    };
    if graph.ancestors([parent]).len() > 1 {
        return broken(format!("tx {} would have too many ancestors", new.txid));
    }
    if new.vsize > MAX_CHILD_VSIZE {
        let size = new.vsize;
        return broken(format!(
            "version=3 child tx {} is too big: {size} > {MAX_CHILD_VSIZE} virtual bytes",
            new.txid
        ));
    }
    let mut others = graph.descendants([parent]);
    others.remove(&parent);
    if others.is_empty() || others.iter().any(|id| conflicts(*id)) {
        return Ok(());
    }
    // After a reorganisation there may be several; then nobody can tell which should go.
    let sibling = others
        .first()
        .copied()
        .filter(|id| others.len() == 1 && graph.ancestors([*id]).len() == 2);
    Err(Violation {
        detail: format!("tx {txid} would exceed descendant count limit"),
        sibling,
    })
}
