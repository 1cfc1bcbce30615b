//! SwiftSync (BIP 457): a first sync that looks no coin up.
//!
//! A file of hints (BIP 456, `hints`) says which outputs are unspent at some height. Going through the blocks up to
//! there, an output that is hinted goes to the coins and stays; every other one is added to an aggregate (`aggregate`),
//! and everything that is spent is taken off it. At the hinted height nothing must be left: then what was added and not
//! spent is exactly what was hinted, whoever made the file. So no block waits for another, and several threads add
//! blocks up (`workers`, `digest`).
//!
//! There are two forms of it. In the BIP's *assume-valid form* the aggregate is over the names of coins, and what coins
//! say is not looked at. It is used only where the scripts of all those blocks are assumed valid anyway: the hinted
//! block must be an ancestor of the assumed valid one, under two weeks of work. Of the other rules it leaves out those
//! that need the coins spent: that they are there before they are spent, maturity, relative locks, the cost of scripts
//! in them, and the amounts of single transactions. Each block still keeps all rules of its own, and in the end there
//! must not be more money than all subsidies.
//!
//! In the *full form* (`claim`) each block has to come with the coins that it spends, as some peer says (BIP 455,
//! [`View::spent_coins_wanted`]). With those every rule is checked, by the functions that connect blocks, and the
//! aggregate is over whole coins: a coin that was not made as somebody said is still there in the end. It is used where
//! no script, or not those of the hinted block, are assumed valid. When a block breaks a rule with its coins, nobody
//! can say yet whether the block or the coins are wrong: the sync has failed.
//!
//! BIP 30 is not checked either. It need not be: where BIP 34 does not rule repetitions out from the first block on,
//! the chain must be the known one, in which only two coinbases were ever repeated.
//!
//! The sync (`sync`) fills the second set of coins. Until its end the validated chain is the genesis block alone, and
//! nothing of it can be seen; then those coins become those of the chain and the hinted block its tip: on disk in one
//! step, once they are written and before anything later is. If the hints are wrong everything is thrown away, and the stored blocks are connected in the ordinary way. The
//! aggregate, its secret salt and the height so far are the mark of those coins, so they are always of one state: a
//! restart goes on from the last flush.
//!
//! After the assume-valid form blocks below the hinted height have no undo records. One that is needed is made anew
//! from older blocks, as a damaged one is (see `repair`); indexes, which need them all, cannot be built. After the full
//! form they are there: the coins that blocks came with are kept as undo records from the start. Those of a sync that
//! failed count for nothing; connecting a block writes its record anew when it differs.

mod aggregate;
mod claim;
mod digest;
mod hints;
mod make;
mod sync;
mod workers;

use std::sync::Arc;

pub use hints::{Hints, HintsError, HintsWriter};
pub use make::HintsMade;
pub(crate) use sync::Swift;

use crate::View;

/// What a SwiftSync needs.
#[derive(Clone)]
pub struct SwiftSync {
    /// The hints.
    pub hints: Arc<Hints>,
    /// A random number that nobody else knows. A sync that goes on after a restart keeps the one that it began with.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for SwiftSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwiftSync")
            .field("hints", &self.hints)
            .finish_non_exhaustive()
    }
}

/// How far a SwiftSync has come; see [`View::swiftsync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwiftProgress {
    /// Blocks up to this height are added up.
    pub height: u32,
    /// The hinted height; nothing counts as validated before it.
    pub target: u32,
    /// It is in the full form: up to the hinted height blocks have to come with the coins that they spend.
    pub full: bool,
}

impl View {
    /// The SwiftSync under way, or about to begin.
    pub fn swiftsync(&self) -> Option<SwiftProgress> {
        // One that has come to its end is there until the disk knows.
        self.shared.swift().filter(|progress| progress.height < progress.target)
    }

    /// The height up to which blocks have to come with the coins that they spend; see
    /// [`Chain::accept_blocks`](crate::Chain::accept_blocks).
    pub fn spent_coins_wanted(&self) -> Option<u32> {
        self.swiftsync()
            .filter(|progress| progress.full)
            .map(|progress| progress.target)
    }
}
