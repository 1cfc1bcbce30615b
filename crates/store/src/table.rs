//! Ordered key spaces, written in atomic batches.

use crate::StoreError;

/// One key space of a [`Table`]: its place in the list of names that the table was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u8);

/// Whether a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show me the next pair.
    Continue,
    /// That was enough.
    Stop,
}

/// One change of a batch: where, which key, and its new value or `None` for a removal.
pub type Change = (Space, Box<[u8]>, Option<Box<[u8]>>);

/// Changes that reach the table together or not at all. A later change of a key wins over an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, space: Space, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.changes.push((space, key.into(), Some(value.into())));
    }

    /// Removes `key`.
    pub fn delete(&mut self, space: Space, key: impl Into<Box<[u8]>>) {
        self.changes.push((space, key.into(), None));
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in the order in which they were made; `None` is a removal.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        self.changes.into_iter()
    }
}

/// Ordered pairs of bytes in several key spaces.
///
/// Batches become durable in the order in which they were written: when one survives a power loss, so does every one
/// before it.
pub trait Table: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes the whole batch or nothing of it; with `durable`, returns once it would survive a power loss.
    ///
    /// # Errors
    /// [`StoreError`]; the batch must then be taken as neither written nor lost until the table is opened again.
    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError>;

    /// Returns once everything written before would survive a power loss.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    fn sync(&self) -> Result<(), StoreError>;

    /// How many bytes of pairs a space may have, at most and roughly, for who makes room before a scan; 0 when that is
    /// not known.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    fn size_hint(&self, _: Space) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Shows the pairs whose key begins with `prefix`, in key order, until `visit` says [`Step::Stop`].
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    fn scan(&self, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError>;
}
