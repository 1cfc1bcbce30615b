//! Real peers for tests: bitcoind, libtorrent, Transmission, a browser, each on loopback.
//!
//! Every peer gets free ports and a temporary folder of its own, and is stopped by its process id when its value is
//! dropped. Beside the real clients stand the hostile ones: a seeder that lies about its data ([`liar`]) and a Bitcoin
//! peer that serves whatever chain it is given ([`bitcoin_peer`]). A client that is missing is an error, never a
//! skipped test: `make test` prepares them all, and `testkit-setup` says what is not there.

pub mod aria2;
pub mod bench_chain;
pub mod bitcoin_peer;
pub mod browser;
pub mod child;
pub mod coins;
pub mod content;
pub mod core;
pub mod core_build;
pub mod dunlin;
pub mod liar;
pub mod libtorrent;
pub mod metainfo;
pub mod ports;
pub mod rpc;
pub mod setup;
pub mod slow_wire;
pub mod tiny_disk;
pub mod tracker;
pub mod transmission;
pub mod udp_tracker;
pub mod wait;
pub mod zmq;

pub use child::Child;
pub use ports::{free_address, free_port};
pub use rpc::{Rpc, RpcError};
pub use wait::wait_until;
