//! BIP 431: transactions of version 3 live in unconfirmed pairs of at most one parent and one child, so that a child
//! can always replace another.

use bitcoin::transaction::Version;

use crate::accept::Judged;
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
    let parents: Vec<(Id, &Entry)> = parents.collect();
    for (_, parent) in &parents {
        same_version(new, parent).or_else(broken)?;
    }
    if !is_truc(new) {
        return Ok(());
    }
    if new.vsize > MAX_VSIZE {
        return broken(format!(
            "version=3 tx {} is too big: {} > {MAX_VSIZE} virtual bytes",
            named(new),
            new.vsize
        ));
    }
    let (parent, entry) = match parents.as_slice() {
        [] => return Ok(()),
        [(parent, entry)] => (*parent, *entry),
        _ => return broken(too_many_ancestors(new)),
    };
    if graph.ancestors([parent]).len() > 1 {
        return broken(too_many_ancestors(new));
    }
    child_size(new).or_else(broken)?;
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
        detail: too_many_descendants(entry),
        sibling,
    })
}

/// Checks the transaction in one place of a package, parents before children, that passed [`check`], against its
/// parents in the package and in the pool. An error is in words for a person.
pub(crate) fn check_package<'a>(
    package: &[Judged],
    place: usize,
    parents: impl Iterator<Item = (Id, &'a Entry)>,
    graph: &Graph,
) -> Result<(), String> {
    let Some(new) = package.get(place).map(|judged| &judged.entry) else {
        return Ok(());
    };
    let spends = |child: &Entry, parent: &Entry| {
        let mut inputs = child.tx.input.iter();
        inputs.any(|input| input.previous_output.txid == parent.txid)
    };
    let here: Vec<(Id, &Entry)> = parents.collect();
    let before = package.iter().take(place).map(|judged| &judged.entry);
    let beside: Vec<&Entry> = before.filter(|other| spends(new, other)).collect();
    if !is_truc(new) {
        let all = here.iter().map(|(_, parent)| *parent).chain(beside);
        return all.into_iter().try_for_each(|parent| same_version(new, parent));
    }
    if here.len() + beside.len() > 1 {
        return Err(too_many_ancestors(new));
    }
    let (parent, has_child) = match (here.as_slice(), beside.as_slice()) {
        ([(id, parent)], _) => {
            if graph.ancestors([*id]).len() > 1 {
                return Err(too_many_ancestors(new));
            }
            (*parent, graph.descendants([*id]).len() > 1)
        }
        ([], [parent]) => (*parent, false),
        _ => return Ok(()),
    };
    child_size(new)?;
    same_version(new, parent)?;
    for (at, judged) in package.iter().enumerate() {
        if at != place && spends(&judged.entry, parent) {
            return Err(too_many_descendants(parent));
        }
        if at != place && spends(&judged.entry, new) {
            return Err(too_many_ancestors(&judged.entry));
        }
    }
    if has_child {
        return Err(too_many_descendants(parent));
    }
    Ok(())
}

fn is_truc(entry: &Entry) -> bool {
    entry.tx.version == Version(3)
}

fn named(entry: &Entry) -> String {
    format!("{} (wtxid={})", entry.txid, entry.wtxid)
}

fn too_many_ancestors(of: &Entry) -> String {
    format!("tx {} would have too many ancestors", named(of))
}

fn too_many_descendants(of: &Entry) -> String {
    format!("tx {} would exceed descendant count limit", named(of))
}

fn same_version(new: &Entry, parent: &Entry) -> Result<(), String> {
    let (own, other) = match (is_truc(new), is_truc(parent)) {
        (true, false) => ("", "non-"),
        (false, true) => ("non-", ""),
        _ => return Ok(()),
    };
    let (new, parent) = (named(new), named(parent));
    Err(format!(
        "{own}version=3 tx {new} cannot spend from {other}version=3 tx {parent}"
    ))
}

fn child_size(new: &Entry) -> Result<(), String> {
    if new.vsize <= MAX_CHILD_VSIZE {
        return Ok(());
    }
    let (name, size) = (named(new), new.vsize);
    Err(format!(
        "version=3 child tx {name} is too big: {size} > {MAX_CHILD_VSIZE} virtual bytes"
    ))
}
