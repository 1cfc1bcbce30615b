//! The engine beside Bitcoin Core's: what makes blocks from a seed or from a fuzzer's bytes, breaks them, gives them to
//! both engines and compares what they say.
//!
//! * [`maker`] makes valid transactions and blocks, with every kind of [`lock`](locks);
//! * [`ways`] break blocks, or take them to an edge of a rule;
//! * [`core`] is Core's engine, [`pair`] both side by side;
//! * [`story`] is a sequence of all this: growth, faults alone and together, branches, blocks out of order.
#![allow(dead_code, unreachable_pub)]

pub mod core;
pub mod dice;
pub mod locks;
pub mod maker;
pub mod pair;
#[path = "../../regtest/mod.rs"]
pub mod regtest;
pub mod story;
pub mod ways;
