//! Named files written at an offset.

use crate::StoreError;

/// A flat folder of files.
///
/// Names are plain file names made by the program, never by a peer. A write is durable only after [`Files::sync`] of
/// the same file has returned; writes that were not synced may survive a power loss in any part and in any order.
pub trait Files: Send + Sync {
    /// Writes all of `data` at `offset`, creating the file when it is not there. A gap reads as zeros.
    ///
    /// # Errors
    /// [`StoreError`]; part of the data may have been written.
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError>;

    /// Reads exactly `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file is not there or ends too soon; nothing is allocated beyond its real size.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// Says that `len` bytes at `offset` will be read soon. It takes no time and promises nothing: where the system can,
    /// it reads them ahead.
    fn will_need(&self, _name: &str, _offset: u64, _len: u64) {}

    /// The file's length, or `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the file system does not answer.
    fn len(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Makes every earlier write to the file durable, its existence included.
    ///
    /// # Errors
    /// [`StoreError`]; the writes must then be taken as lost.
    fn sync(&self, name: &str) -> Result<(), StoreError>;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read.
    fn list(&self) -> Result<Vec<String>, StoreError>;

    /// Deletes the file; it is no error when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the file system refuses.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}
