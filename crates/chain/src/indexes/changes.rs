//! What blocks change in an index, gathered before it is written.

use dunlin_store::{Batch, Space, StoreError, Table};

use crate::coin::{number, put_number};

/// One change.
struct Change {
    space: Space,
    key: Box<[u8]>,
    value: Option<Box<[u8]>>,
    /// It stays when the block leaves the chain.
    for_good: bool,
}

/// Changes of one block or of many; a later one of a key wins.
#[derive(Default)]
pub(crate) struct Changes {
    changes: Vec<Change>,
    bytes: usize,
}

impl Changes {
    fn push(&mut self, space: Space, key: Box<[u8]>, value: Option<Box<[u8]>>, for_good: bool) {
        self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len()) + size_of::<Change>();
        self.changes.push(Change {
            space,
            key,
            value,
            for_good,
        });
    }

    /// Sets a key until the block leaves the chain.
    pub(crate) fn put(&mut self, space: Space, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.push(space, key.into(), Some(value.into()), false);
    }

    /// Sets a key that is true also of a block that has left the chain.
    pub(crate) fn put_for_good(&mut self, space: Space, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.push(space, key.into(), Some(value.into()), true);
    }

    /// Removes a key until the block leaves the chain.
    pub(crate) fn delete(&mut self, space: Space, key: impl Into<Box<[u8]>>) {
        self.push(space, key.into(), None, false);
    }

    /// About how much memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Key order, one change for each key: the table takes that fastest.
    fn settle(&mut self) {
        self.changes.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        // The sort keeps the order of equals, so the last of a run is the one that counts.
        self.changes.reverse();
        self.changes.dedup_by(|a, b| a.space == b.space && a.key == b.key);
        self.changes.reverse();
    }

    /// Moves everything into a batch. With `before`, returns the record that [`undo`] takes it back with: what the
    /// keys held in that table.
    pub(crate) fn write_to(
        mut self,
        batch: &mut Batch,
        before: Option<&dyn Table>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.settle();
        let mut record = before.map(|_| Vec::new());
        for change in self.changes {
            if let (Some(table), Some(record), false) = (before, &mut record, change.for_good) {
                let old = table.get(change.space, &change.key)?;
                record.push(change.space.0);
                put_bytes(record, &change.key);
                put_number(record, u64::from(old.is_some()));
                if let Some(old) = old {
                    put_bytes(record, &old);
                }
            }
            match change.value {
                Some(value) => batch.put(change.space, change.key, value),
                None => batch.delete(change.space, change.key),
            }
        }
        Ok(record)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(bytes)
}

/// Adds to `batch` what takes a block's changes back; `None` when the record is damaged.
pub(crate) fn undo(mut record: &[u8], batch: &mut Batch) -> Option<()> {
    while let Some((&space, rest)) = record.split_first() {
        record = rest;
        let key = take_bytes(&mut record)?;
        match number(&mut record)? {
            0 => batch.delete(Space(space), key),
            _ => batch.put(Space(space), key, take_bytes(&mut record)?),
        }
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use dunlin_store::MemTable;

    const SPACE: Space = Space(3);

    #[test]
    fn what_a_record_takes_back_is_what_was_there() {
        let table = MemTable::default();
        let mut changes = Changes::default();
        changes.put(SPACE, *b"a", *b"old");
        changes.put(SPACE, *b"b", *b"first");
        changes.put(SPACE, *b"b", *b"second");
        let mut batch = Batch::default();
        assert!(changes.write_to(&mut batch, None).unwrap().is_none());
        assert_eq!(batch.len(), 2);
        table.write(batch, true).unwrap();

        let mut changes = Changes::default();
        changes.delete(SPACE, *b"a");
        changes.put(SPACE, *b"b", *b"third");
        changes.put(SPACE, *b"c", *b"new");
        changes.put_for_good(SPACE, *b"d", *b"stays");
        let mut batch = Batch::default();
        let record = changes.write_to(&mut batch, Some(&table)).unwrap().unwrap();
        table.write(batch, true).unwrap();
        let get = |key: &[u8]| table.get(SPACE, key).unwrap();
        assert_eq!((get(b"a"), get(b"b").unwrap()), (None, b"third".to_vec()));

        let mut batch = Batch::default();
        undo(&record, &mut batch).unwrap();
        table.write(batch, true).unwrap();
        assert_eq!(get(b"a").unwrap(), b"old");
        assert_eq!(get(b"b").unwrap(), b"second");
        assert_eq!(get(b"c"), None);
        assert_eq!(get(b"d").unwrap(), b"stays");
        for len in 1..record.len() {
            // A cut is noticed unless it falls between two keys.
            let _ = undo(&record[..len], &mut Batch::default());
        }
        assert!(undo(&record[..record.len() - 1], &mut Batch::default()).is_none());
    }
}
