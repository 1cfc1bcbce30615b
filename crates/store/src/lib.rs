//! Storage traits and their backends: files, memory, and one that crashes on purpose.
//!
//! Two narrow traits are all that the rest of the program knows of a disk: [`Files`], named files written at an
//! offset, and [`Table`], ordered key spaces written in atomic batches. [`Lock`] keeps a second process out of a data
//! directory. [`Layered`], over [`Files`], is the store for what is written once, read once and
//! removed; [`LogTable`], over [`Files`] too, the one for what is read when the program starts and then only written.
//! [`DirFiles`] and [`DiskTable`] put the traits on a file system, [`MemFiles`] and [`MemTable`] in memory, and
//! [`CrashDisk`] loses power at a chosen operation and comes back with what a real disk might have kept.

mod crash;
mod dir;
mod disk_table;
mod error;
mod files;
mod layered;
mod lock;
mod log_table;
mod mem;
mod table;

pub use crash::{CrashDisk, CrashFiles, CrashTable};
pub use dir::DirFiles;
pub use disk_table::DiskTable;
pub use error::StoreError;
pub use files::Files;
pub use layered::{Barrier, Changes, Damage, Draft, Layered, Pairs, Snapshot, Writing};
pub use lock::Lock;
pub use log_table::LogTable;
pub use mem::{MemFiles, MemTable};
pub use table::{Batch, Change, Space, Step, Table};
