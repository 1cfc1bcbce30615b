//! The pool on a real chain, behaviour by behaviour.

#![allow(clippy::unwrap_used)]

mod admission;
mod blocks;
mod harness;
mod limits;
mod mining;
mod packages;
mod priorities;
mod replacement;
mod soak;
