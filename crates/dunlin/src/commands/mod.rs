//! The commands that talk to the running peer, and the torrent commands that need none.

pub(crate) mod chain;
mod hints;
pub(crate) mod mempool;
pub(crate) mod mine;
pub(crate) mod peer;
pub(crate) mod rpc;
pub(crate) mod status;
pub(crate) mod torrent;
mod verify;
