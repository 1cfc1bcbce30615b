//! The manifest: which runs make up the store, and the mark that was set with the newest of them.
//!
//! It lies in two files that are written in turn, each with its number and checksum: while one is being written, the
//! other still says what was true before.
//!
//! | bytes | |
//! |---|---|
//! | 8 | how many bytes follow before the checksum |
//! | 8 x 4 | number of this manifest, secret seed of the hashes, number of the next run, length of the mark plus one (0: none) |
//! | n | the mark |
//! | 8 | how many runs there are, the oldest first |
//! | 8 x 6 | for each: number, records, bytes of its blocks, blocks, bytes of its filter, checksum of its index |
//! | 8 | XXH3 of all that stands before it |
//!
//! All numbers are little-endian.

use xxhash_rust::xxh3::xxh3_64;

use super::run::Meta;
use crate::{Files, StoreError};

/// No manifest is longer.
const MAX_LEN: u64 = 1 << 20;

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) next_run: u64,
    pub(super) mark: Option<Box<[u8]>>,
    pub(super) runs: Vec<Meta>,
}

/// The name of the file in which the manifest with this number lies.
pub(super) fn file_name(prefix: &str, number: u64) -> String {
    format!("{prefix}-manifest-{}", number % 2)
}

impl Manifest {
    /// The newest manifest that is whole; `None` in an empty folder and in one whose first manifest was never complete.
    ///
    /// # Errors
    /// [`StoreError`] when a file cannot be read.
    pub(super) fn load(files: &dyn Files, prefix: &str) -> Result<Option<Self>, StoreError> {
        let mut newest: Option<Self> = None;
        for number in 0..2 {
            let name = file_name(prefix, number);
            let Some(len) = files.len(&name)? else { continue };
            // What an earlier, longer manifest left behind the newer one is beyond the end that this one tells.
            let bytes = files.read_at(&name, 0, len.min(MAX_LEN) as usize)?;
            if let Some(found) = Self::decode(&bytes)
                && newest.as_ref().is_none_or(|newest| newest.number < found.number)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// Writes the manifest over the one before the last, and makes it durable.
    ///
    /// # Errors
    /// [`StoreError`]; the manifest before it still holds then.
    pub(super) fn save(&self, files: &dyn Files, prefix: &str) -> Result<(), StoreError> {
        let name = file_name(prefix, self.number);
        files.write_at(&name, 0, &self.encode())?;
        files.sync(&name)
    }

    fn encode(&self) -> Vec<u8> {
        let mark = self.mark.as_deref();
        let mut body = Vec::new();
        let mut put = |number: u64| body.extend_from_slice(&number.to_le_bytes());
        put(self.number);
        put(self.seed);
        put(self.next_run);
        put(mark.map_or(0, |mark| mark.len() as u64 + 1));
        body.extend_from_slice(mark.unwrap_or_default());
        let mut put = |number: u64| body.extend_from_slice(&number.to_le_bytes());
        put(self.runs.len() as u64);
        for run in &self.runs {
            for number in [
                run.number,
                run.records,
                run.blocks_len,
                run.blocks,
                run.filter_len,
                run.sum,
            ] {
                put(number);
            }
        }
        let mut out = (body.len() as u64).to_le_bytes().to_vec();
        out.append(&mut body);
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let len = usize::try_from(number(&mut rest)?).ok()?.checked_add(8)?;
        let (signed, sum) = bytes.split_at_checked(len)?;
        if sum.first_chunk::<8>()? != &xxh3_64(signed).to_le_bytes() {
            return None;
        }
        let mut rest = signed.get(8..)?;
        let (own, seed, next_run) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        let mark = match number(&mut rest)? {
            0 => None,
            len => {
                let (mark, after) = rest.split_at_checked(usize::try_from(len - 1).ok()?)?;
                rest = after;
                Some(mark.into())
            }
        };
        let count = number(&mut rest)?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Meta {
                number: number(&mut rest)?,
                records: number(&mut rest)?,
                blocks_len: number(&mut rest)?,
                blocks: number(&mut rest)?,
                filter_len: number(&mut rest)?,
                sum: number(&mut rest)?,
            });
        }
        Some(Self {
            number: own,
            seed,
            next_run,
            mark,
            runs,
        })
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::CrashDisk;

    fn manifest(number: u64) -> Manifest {
        let run = Meta {
            number,
            records: 2,
            blocks_len: 3,
            blocks: 4,
            filter_len: 5,
            sum: u64::MAX,
        };
        Manifest {
            number,
            seed: 9,
            next_run: number + 1,
            mark: (!number.is_multiple_of(3)).then(|| b"mark".as_slice().into()),
            runs: vec![run; (40 - number) as usize],
        }
    }

    #[test]
    fn the_newest_whole_manifest_counts() {
        let disk = CrashDisk::new(1, None);
        let files = disk.files();
        assert_eq!(Manifest::load(&files, "t").unwrap(), None);
        for number in 1..30 {
            manifest(number).save(&files, "t").unwrap();
            assert_eq!(Manifest::load(&files, "t").unwrap(), Some(manifest(number)));
        }
        // A damaged one is as if it were not there.
        for byte in 0..100 {
            disk.flip_bit(&file_name("t", 29), byte).unwrap();
            assert_eq!(Manifest::load(&files, "t").unwrap(), Some(manifest(28)), "byte {byte}");
            disk.flip_bit(&file_name("t", 29), byte).unwrap();
        }
    }

    #[test]
    fn power_lost_while_saving_leaves_the_old_or_the_new() {
        for seed in 0..100 {
            let disk = CrashDisk::new(seed, Some(7));
            let files = disk.files();
            for number in 1..4 {
                manifest(number).save(&files, "t").unwrap();
            }
            assert!(manifest(4).save(&files, "t").is_err());
            let found = Manifest::load(&disk.power_loss(None).files(), "t").unwrap().unwrap();
            assert!(found == manifest(3) || found == manifest(4));
        }
    }
}
