//! What others speak to us: Core-compatible JSON-RPC and REST, and the dashboard.
//!
//! [`backend`] says what the program must offer, [`rpc`] serves it as JSON-RPC over HTTP in Bitcoin Core's terms and
//! as Core's REST, [`zmq`] tells subscribers what happens, [`dashboard`] serves it to people, [`stream`] serves torrents'
//! files to players. All run over [`http`], which holds the rules that every listener obeys.

pub mod backend;
pub mod dashboard;
pub mod http;
pub mod psbt;
mod rest;
pub mod rpc;
pub mod stream;
mod templates;
pub mod zmq;

pub use backend::{BitcoinBackend, Node, Stop, TorrentBackend};
