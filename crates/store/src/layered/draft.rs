//! Changes to a store that nobody sees yet, with a look through them at what lies below.
//!
//! Keys and values lie one behind the other in one piece of memory, and each key is hashed once: for the look-up here,
//! for those in the store, and for the layer that takes it in the end.

use hashbrown::HashTable;

use super::{Layered, layer};
use crate::StoreError;

/// Changes over a store; dropped, they leave no trace.
pub struct Draft<'a> {
    store: &'a Layered,
    data: Vec<u8>,
    items: Vec<Item>,
    /// Numbers of the items that count.
    table: HashTable<u32>,
}

/// What becomes of one key.
struct Item {
    hash: u64,
    /// Where the key begins; the value stands behind it.
    at: usize,
    key: u8,
    /// The value's length.
    value: u16,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It has a value; `fresh` says that it has none below.
    Put { fresh: bool },
    /// It had a value below and has none now.
    Removed,
    /// It was put and removed here: nobody will ever know.
    Gone,
}

impl Item {
    fn key<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.at..self.at + usize::from(self.key)]
    }

    fn value<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.at + usize::from(self.key);
        matches!(self.state, State::Put { .. }).then(|| &data[start..start + usize::from(self.value)])
    }
}

impl<'a> Draft<'a> {
    /// No changes yet.
    pub fn new(store: &'a Layered) -> Self {
        Self {
            store,
            data: Vec::new(),
            items: Vec::new(),
            table: HashTable::new(),
        }
    }

    /// How many keys differ from the store.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        layer::hash(self.store.core.seed, key)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let same = |number: &u32| {
            let item = &self.items[*number as usize];
            item.hash == hash && item.key(&self.data) == key
        };
        self.table.find(hash, same).map(|number| *number as usize)
    }

    /// Looks a key up, here and below, and shows its value to `see`.
    ///
    /// # Errors
    /// As [`Layered::get`].
    pub fn get<T>(&self, key: &[u8], mut see: impl FnMut(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        let hash = self.hash(key);
        match self.find(hash, key) {
            Some(number) => Ok(self.items[number].value(&self.data).map(see)),
            None => self.store.search(hash, key, &mut see),
        }
    }

    /// Shows the value of a key to `see` and removes it; `None` when it has none.
    ///
    /// # Errors
    /// As [`Layered::get`]; nothing is removed then.
    pub fn take<T>(&mut self, key: &[u8], mut see: impl FnMut(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        let hash = self.hash(key);
        let Some(number) = self.find(hash, key) else {
            let seen = self.store.search(hash, key, &mut see)?;
            if seen.is_some() {
                self.insert(hash, key, State::Removed, |_| {})?;
            }
            return Ok(seen);
        };
        let item = &mut self.items[number];
        let seen = item.value(&self.data).map(see);
        if item.state == (State::Put { fresh: true }) {
            item.state = State::Gone;
            let same = |other: &u32| *other as usize == number;
            if let Ok(entry) = self.table.find_entry(hash, same) {
                entry.remove();
            }
        } else {
            item.state = State::Removed;
        }
        Ok(seen)
    }

    /// Sets `key` (1 to 255 bytes) to what `write` appends (at most 60,000 bytes). `fresh` is a promise that the key has
    /// no value in the store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when key or value has no permitted length.
    pub fn put(&mut self, key: &[u8], fresh: bool, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StoreError> {
        let hash = self.hash(key);
        let Some(number) = self.find(hash, key) else {
            return self.insert(hash, key, State::Put { fresh }, write);
        };
        // What was not promised before is not promised now.
        let fresh = self.items[number].state == State::Put { fresh: true };
        self.items[number] = self.append(hash, key, State::Put { fresh }, write)?;
        Ok(())
    }

    fn insert(
        &mut self,
        hash: u64,
        key: &[u8],
        state: State,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let number = u32::try_from(self.items.len()).map_err(|_| StoreError::corrupt("too many changes at once"))?;
        let item = self.append(hash, key, state, write)?;
        self.items.push(item);
        let items = &self.items;
        self.table
            .insert_unique(hash, number, |number| items[*number as usize].hash);
        Ok(())
    }

    fn append(
        &mut self,
        hash: u64,
        key: &[u8],
        state: State,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Item, StoreError> {
        let at = self.data.len();
        self.data.extend_from_slice(key);
        let start = self.data.len();
        write(&mut self.data);
        let lengths = (u8::try_from(key.len()), u16::try_from(self.data.len() - start));
        let (Ok(len @ 1..), Ok(value)) = lengths else {
            return Err(layer::unfit());
        };
        if usize::from(value) > layer::MAX_VALUE {
            return Err(layer::unfit());
        }
        Ok(Item {
            hash,
            at,
            key: len,
            value,
            state,
        })
    }

    /// Makes the changes visible, all at once; `with` runs while readers are still kept out.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a layer has grown beyond 32 GiB.
    pub fn publish<T>(self, with: impl FnOnce() -> T) -> Result<T, StoreError> {
        let items = self.items.iter().filter(|item| item.state != State::Gone);
        let changes = items.map(|item| layer::Change {
            hash: item.hash,
            key: item.key(&self.data),
            value: item.value(&self.data),
            fresh: item.state == State::Put { fresh: true },
        });
        self.store.apply(changes, with)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::{MemFiles, Writing};

    #[test]
    fn a_draft_is_a_map_over_another_until_it_is_published() {
        let store = Layered::open(Arc::new(MemFiles::default()), "t", Writing::Steps).unwrap();
        let mut below: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut dice = 1u64;
        for round in 0..40 {
            let mut draft = Draft::new(&store);
            let mut model = below.clone();
            for _ in 0..500 {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let roll = dice >> 33;
                let key = format!("{}", roll % 300).into_bytes();
                if roll % 7 < 4 {
                    let value = vec![roll as u8; (roll % 70) as usize];
                    let fresh = !below.contains_key(&key);
                    draft.put(&key, fresh, |out| out.extend_from_slice(&value)).unwrap();
                    model.insert(key, value);
                } else {
                    assert_eq!(draft.get(&key, <[u8]>::to_vec).unwrap(), model.get(&key).cloned());
                    assert_eq!(draft.take(&key, <[u8]>::to_vec).unwrap(), model.remove(&key));
                    assert_eq!(draft.take(&key, |_| ()).unwrap(), None);
                }
            }
            for (key, value) in &below {
                assert_eq!(store.get(key, <[u8]>::to_vec).unwrap().as_ref(), Some(value));
            }
            if round % 3 == 0 {
                continue;
            }
            draft.publish(|| ()).unwrap();
            below = model;
            if round % 4 == 0 {
                store.freeze(&[round], Box::new(|| Ok(()))).unwrap();
            }
            for key in (0..300).map(|n| format!("{n}").into_bytes()) {
                assert_eq!(store.get(&key, <[u8]>::to_vec).unwrap(), below.get(&key).cloned());
            }
        }
        let mut draft = Draft::new(&store);
        assert!(draft.put(&[], true, |_| ()).is_err());
        assert!(draft.put(&[1; 256], true, |_| ()).is_err());
        assert!(draft.put(&[1], true, |out| out.extend([0; 60_001])).is_err());
    }
}
