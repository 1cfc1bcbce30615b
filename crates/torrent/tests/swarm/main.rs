//! The engine among its equals: whole swarms on a virtual clock, from one seed each the same run.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod bed;
mod hostile;
mod links;
mod sharing;
mod survival;
mod wishes;
