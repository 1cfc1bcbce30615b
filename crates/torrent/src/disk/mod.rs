//! A torrent's bytes on disk.
//!
//! The engine never touches a file: it hands out [`Job`]s and gets [`Done`]s.

mod job;

pub use job::{DiskError, DiskErrorKind, Done, Job, Opened, Verdict};
