//! Spenders: which transaction of the chain spends an output, as Core's `txospenderindex`.
//!
//! Space 2: SipHash-2-4 of the outpoint (eight bytes, with a secret key of this index), height, place of the spending
//! transaction (four bytes each), all big-endian -> nothing. Nobody who does not know the key can make two outpoints
//! that collide; where the block can be read an entry is checked against it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::hashes::siphash24;
use dunlin_store::{Space, Step, StoreError, Table};

use super::changes::Changes;
use super::frame::{Content, Joined, META, Point};
use crate::coin;

const SPENDERS: Space = Space(2);

/// Key of the secret in [`META`].
const SECRET_KEY: &[u8] = b"secret";

/// Where the transaction is that spends an output: a place in the validated chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpenderPlace {
    /// The block's height.
    pub height: u32,
    /// Which of its transactions, counted from 0.
    pub position: u32,
}

fn secret(table: &dyn Table) -> Result<Option<(u64, u64)>, StoreError> {
    let Some(bytes) = table.get(META, SECRET_KEY)? else {
        return Ok(None);
    };
    let words = bytes.as_chunks::<8>().0;
    match words {
        [first, second] => Ok(Some((u64::from_be_bytes(*first), u64::from_be_bytes(*second)))),
        _ => Err(StoreError::corrupt("the spender index's secret")),
    }
}

fn short(secret: (u64, u64), outpoint: &OutPoint) -> [u8; 8] {
    siphash24::Hash::hash_to_u64_with_keys(secret.0, secret.1, &coin::key(outpoint)).to_be_bytes()
}

#[derive(Default)]
pub(crate) struct Writer {
    secret: (u64, u64),
}

impl Content for Writer {
    fn load(&mut self, table: &dyn Table, _: Option<Point>) -> Result<(), StoreError> {
        self.secret = secret(table)?.unwrap_or_else(|| {
            let source = RandomState::new();
            (source.hash_one(0u8), source.hash_one(1u8))
        });
        Ok(())
    }

    fn join(&mut self, joined: &Joined<'_>, changes: &mut Changes) -> Result<(), StoreError> {
        for (position, tx) in (0u32..).zip(joined.block.transactions()).skip(1) {
            for outpoint in tx.previous_outputs() {
                let mut key = [0; 16];
                key[..8].copy_from_slice(&short(self.secret, &outpoint));
                key[8..12].copy_from_slice(&joined.height.to_be_bytes());
                key[12..].copy_from_slice(&position.to_be_bytes());
                changes.put(SPENDERS, key, []);
            }
        }
        Ok(())
    }

    fn seal(&mut self, changes: &mut Changes) {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.secret.0.to_be_bytes());
        secret[8..].copy_from_slice(&self.secret.1.to_be_bytes());
        changes.put_for_good(META, SECRET_KEY, secret);
    }
}

/// Reading the index of spenders.
#[derive(Clone)]
pub struct SpenderIndex {
    pub(crate) table: Arc<dyn Table>,
}

impl SpenderIndex {
    /// Where an output may be spent: one place, or none, but for a chance of one in 2^64 for each spent output of the
    /// chain. Whoever can read the block checks that.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn places(&self, outpoint: &OutPoint) -> Result<Vec<SpenderPlace>, StoreError> {
        let mut found = Vec::new();
        let Some(secret) = secret(&*self.table)? else {
            return Ok(found);
        };
        self.table.scan(SPENDERS, &short(secret, outpoint), &mut |key, _| {
            let place = key.get(8..).map(|place| place.as_chunks::<4>().0);
            if let Some([height, position]) = place {
                found.push(SpenderPlace {
                    height: u32::from_be_bytes(*height),
                    position: u32::from_be_bytes(*position),
                });
            }
            Step::Continue
        })?;
        Ok(found)
    }
}
