//! A block of a run: some records in key order behind one checksum.
//!
//! | bytes | of the block |
//! |---|---|
//! | 8 | XXH3 of all that follows, little-endian |
//! | 1 | how many bytes of the key before the record's key begins with |
//! | 1 | how many more bytes the key has; they follow |
//! | 1 | length of the value; 254: two more bytes have it, little-endian; 255: the key was removed |
//! | n | the value, and the next record |

use xxhash_rust::xxh3::xxh3_64;

/// A block is ended once it is this long.
pub(super) const TARGET: usize = 4096;
const SUM: usize = 8;
const LONG: u8 = 254;
const REMOVED: u8 = 255;

/// Makes one block after the other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    last_key: Vec<u8>,
}

impl Builder {
    /// Whether no record was added since the last [`Builder::finish`].
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it is time to end the block.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= TARGET
    }

    /// Adds a record; keys rise, and are at most 255 bytes long.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; SUM]);
            self.last_key.clear();
        }
        let shared = self
            .last_key
            .iter()
            .zip(key)
            .take_while(|(one, other)| one == other)
            .count();
        let rest = &key[shared..];
        self.bytes.extend_from_slice(&[shared as u8, rest.len() as u8]);
        self.bytes.extend_from_slice(rest);
        match value {
            None => self.bytes.push(REMOVED),
            Some(value) if value.len() < usize::from(LONG) => {
                self.bytes.push(value.len() as u8);
                self.bytes.extend_from_slice(value);
            }
            Some(value) => {
                self.bytes.push(LONG);
                self.bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
                self.bytes.extend_from_slice(value);
            }
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    /// Appends the finished block to `out` and begins the next.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some((sum, body)) = self.bytes.split_first_chunk_mut::<SUM>() {
            *sum = xxh3_64(body).to_le_bytes();
        }
        out.append(&mut self.bytes);
    }
}

/// The records of a block; `None` when its checksum is wrong.
pub(super) fn check(block: &[u8]) -> Option<&[u8]> {
    let (sum, body) = block.split_first_chunk::<SUM>()?;
    (xxh3_64(body).to_le_bytes() == *sum).then_some(body)
}

/// Reads the record that begins at `at`: puts its key into `key`, which holds the key of the record before, and tells
/// the place of its value (`None` when the key was removed) and where the next record begins. `None` when the bytes are
/// no record, as no block with a right checksum has them.
pub(super) fn record(body: &[u8], at: usize, key: &mut Vec<u8>) -> Option<(Option<std::ops::Range<usize>>, usize)> {
    let [shared, rest] = *body.get(at..)?.first_chunk::<2>()?;
    let key_end = at + 2 + usize::from(rest);
    key.truncate(usize::from(shared));
    key.extend_from_slice(body.get(at + 2..key_end)?);
    let (start, len) = match *body.get(key_end)? {
        REMOVED => return Some((None, key_end + 1)),
        LONG => {
            let len = body.get(key_end + 1..)?.first_chunk::<2>()?;
            (key_end + 3, usize::from(u16::from_le_bytes(*len)))
        }
        len => (key_end + 1, usize::from(len)),
    };
    (start + len <= body.len()).then_some((Some(start..start + len), start + len))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_every_flipped_bit_is_noticed() {
        let records = [
            (b"a".to_vec(), Some(vec![])),
            (b"abc".to_vec(), Some(vec![1; 253])),
            (b"abd".to_vec(), None),
            (b"b".to_vec(), Some(vec![2; 254])),
            (vec![0xff; 255], Some(vec![3; 60_000])),
        ];
        let mut builder = Builder::default();
        let mut block = Vec::new();
        for round in 0..2 {
            block.clear();
            assert!(builder.is_empty(), "round {round}");
            for (key, value) in &records {
                builder.add(key, value.as_deref());
            }
            builder.finish(&mut block);
        }
        let body = check(&block).unwrap();
        let (mut at, mut key, mut found) = (0, Vec::new(), Vec::new());
        while at < body.len() {
            let (value, next) = record(body, at, &mut key).unwrap();
            found.push((key.clone(), value.map(|range| body[range].to_vec())));
            at = next;
        }
        assert_eq!(found, records);
        for byte in (0..400).chain(block.len() - 3..block.len()) {
            block[byte] ^= 4;
            assert!(check(&block).is_none(), "byte {byte}");
            block[byte] ^= 4;
        }
        assert!(check(&block[..5]).is_none());
        // What is not a record ends reading and breaks nothing.
        assert!(record(&[0, 200, 1], 0, &mut key).is_none());
        assert!(record(&[0, 1, 1, 254, 9], 0, &mut key).is_none());
        assert!(record(&[], 0, &mut key).is_none());
    }
}
