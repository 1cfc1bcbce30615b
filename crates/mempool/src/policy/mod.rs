//! Which transactions are of a usual form ("standard"), what is asked of scripts beyond consensus, and the rules for version 3 (BIP 431) and for dust.

pub(crate) mod dust;
pub(crate) mod output;
pub(crate) mod script_flags;
pub(crate) mod spend;
pub(crate) mod standard;
pub(crate) mod truc;
