//! What happens to the pool and to the chain that it follows, told in order to one listener.

use std::fmt;
use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use dunlin_chain::ParsedBlock;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A transaction entered the pool.
    Entered {
        /// The transaction.
        tx: &'a Arc<Transaction>,
        /// The number of this change, see [`Pool::sequence`](crate::Pool::sequence).
        sequence: u64,
    },
    /// A transaction left the pool, but not for a block.
    Left {
        /// Which.
        txid: &'a Txid,
        /// The number of this change.
        sequence: u64,
    },
    /// A block joined the chain.
    Connected(&'a Arc<ParsedBlock>),
    /// A block left the chain.
    Disconnected(&'a Arc<ParsedBlock>),
    /// A block that has joined the chain is its tip now that all is settled.
    Tip(&'a Arc<ParsedBlock>),
}

type Tell = dyn Fn(&Change<'_>) + Send + Sync;

/// Who is told. It is called with the pool locked, and so must wait for nothing.
#[derive(Default)]
pub(crate) struct Listener(Option<Box<Tell>>);

impl Listener {
    pub(crate) fn new(listener: impl Fn(&Change<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(listener)))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, change: Change<'_>) {
        if let Some(listener) = &self.0 {
            listener(&change);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_there() { "a listener" } else { "nobody" })
    }
}
