//! The pool on disk, in Bitcoin Core's `mempool.dat`: version 2, which is masked with a key so that no scanner takes
//! the bytes for something else, written and read; version 1, which is not, read.
//!
//! All numbers are little endian. A file is replaced in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bitcoin::consensus::encode::{self, Decodable, Encodable};
use bitcoin::{Transaction, Txid, VarInt};

use crate::{Pool, RejectKind};

const PLAIN: u64 = 1;
const MASKED: u64 = 2;
const KEY_BYTES: usize = 8;

/// Why a file cannot be used, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The system cannot read or write it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ends too early or has bytes that mean nothing.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another program wrote it.
    #[error("it has version {0}; versions 1 and 2 can be read")]
    Version(u64),
}

impl From<encode::Error> for DumpError {
    fn from(error: encode::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// One transaction of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedTx {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// When it came, in Unix seconds.
    pub time: i64,
    /// What an operator's priority adds to its fee, in satoshi.
    pub delta: i64,
}

/// What to take over from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// As if the transactions came now.
    pub use_current_time: bool,
    /// Operators' priorities too.
    pub apply_fee_delta_priority: bool,
}

/// What came of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Transactions that got in.
    pub accepted: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that came too long ago.
    pub expired: u64,
    /// Those that were here already.
    pub known: u64,
}

/// Bytes of the file with the mask on or off; a byte's place in the file says which byte of the key belongs to it.
struct Masking<T> {
    inner: T,
    key: [u8; KEY_BYTES],
    place: usize,
}

impl<T> Masking<T> {
    fn new(inner: T) -> Self {
        let key = [0; KEY_BYTES];
        Self { inner, key, place: 0 }
    }

    fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.key.get(self.place).copied().unwrap_or_default();
            self.place = (self.place + 1) % KEY_BYTES;
        }
    }
}

impl<R: Read> bitcoin::io::Read for Masking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> bitcoin::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.mask(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<W: Write> Write for Masking<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut masked = bytes.to_vec();
        self.mask(&mut masked);
        self.inner.write_all(&masked)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the pool to `path`, masked with `key`, beside the file first and then in its place. Returns how many
/// transactions were written.
///
/// # Errors
/// When the system does not let us write.
pub fn save(pool: &RwLock<Pool>, path: &Path, key: [u8; KEY_BYTES]) -> io::Result<usize> {
    let (txs, deltas) = {
        let pool = pool.read().unwrap_or_else(PoisonError::into_inner);
        let txs: Vec<DumpedTx> = pool
            .by_mining_order()
            .map(|entry| DumpedTx {
                tx: Arc::clone(&entry.tx),
                time: i64::try_from(entry.time).unwrap_or(i64::MAX),
                delta: entry.delta,
            })
            .collect();
        let absent = pool.deltas.iter().filter(|(txid, _)| !pool.contains(txid));
        let deltas: BTreeMap<Txid, i64> = absent.map(|(txid, delta)| (*txid, *delta)).collect();
        (txs, deltas)
    };
    let new = path.with_extension("dat.new");
    let file = File::create(&new)?;
    let mut writer = Masking::new(BufWriter::new(file));
    write(&mut writer, key, &txs, &deltas)?;
    let file = writer.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(txs.len())
}

fn write(
    writer: &mut Masking<impl Write>,
    key: [u8; KEY_BYTES],
    txs: &[DumpedTx],
    deltas: &BTreeMap<Txid, i64>,
) -> io::Result<()> {
    put(writer, &MASKED)?;
    put(writer, &VarInt::from(KEY_BYTES))?;
    writer.write_all(&key)?;
    writer.key = key;
    put(writer, &(txs.len() as u64))?;
    for one in txs {
        put(writer, &*one.tx)?;
        put(writer, &one.time)?;
        put(writer, &one.delta)?;
    }
    put(writer, &VarInt::from(deltas.len()))?;
    for (txid, delta) in deltas {
        put(writer, txid)?;
        put(writer, delta)?;
    }
    // Core lists here what it has yet to hear back from a peer.
    put(writer, &VarInt(0))
}

fn put(writer: &mut impl Write, value: &impl Encodable) -> io::Result<()> {
    writer.write_all(&encode::serialize(value))
}

/// A file that is read from the front, one transaction after another.
struct DumpReader<R> {
    reader: Masking<R>,
    total: u64,
    left: u64,
}

impl<R: Read> DumpReader<R> {
    fn new(inner: R) -> Result<Self, DumpError> {
        let mut reader = Masking::new(inner);
        match take::<u64>(&mut reader)? {
            PLAIN => {}
            MASKED => {
                if take::<VarInt>(&mut reader)?.0 != KEY_BYTES as u64 {
                    return Err(DumpError::Damaged("its key has not 8 bytes".to_owned()));
                }
                let key: [u8; KEY_BYTES] = take(&mut reader)?;
                reader.key = key;
            }
            other => return Err(DumpError::Version(other)),
        }
        let total = take(&mut reader)?;
        Ok(Self {
            reader,
            total,
            left: total,
        })
    }

    fn next_tx(&mut self) -> Result<Option<DumpedTx>, DumpError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        Ok(Some(DumpedTx {
            tx: Arc::new(take(&mut self.reader)?),
            time: take(&mut self.reader)?,
            delta: take(&mut self.reader)?,
        }))
    }

    /// What follows the transactions: priorities of others, and what was not heard back yet.
    fn finish(mut self) -> Result<(BTreeMap<Txid, i64>, BTreeSet<Txid>), DumpError> {
        let mut deltas = BTreeMap::new();
        for _ in 0..take::<VarInt>(&mut self.reader)?.0 {
            deltas.insert(take(&mut self.reader)?, take(&mut self.reader)?);
        }
        let mut unbroadcast = BTreeSet::new();
        for _ in 0..take::<VarInt>(&mut self.reader)?.0 {
            unbroadcast.insert(take(&mut self.reader)?);
        }
        Ok((deltas, unbroadcast))
    }
}

fn take<T: Decodable>(reader: &mut impl bitcoin::io::Read) -> Result<T, DumpError> {
    Ok(T::consensus_decode(reader)?)
}

/// Offers the transactions of a file to the pool, which is locked for one at a time. `now` is the time in Unix seconds;
/// `go_on` is told how many of how many are done and says whether to go on.
///
/// # Errors
/// [`DumpError`]; what came before the damage was offered all the same.
pub fn import(
    pool: &RwLock<Pool>,
    path: &Path,
    now: u64,
    options: ImportOptions,
    mut go_on: impl FnMut(u64, u64) -> bool,
) -> Result<Imported, DumpError> {
    let lock = || pool.write().unwrap_or_else(PoisonError::into_inner);
    let mut file = DumpReader::new(BufReader::new(File::open(path)?))?;
    let mut sum = Imported::default();
    let oldest = now.saturating_sub(lock().config.expiry);
    while let Some(one) = file.next_tx()? {
        let time = match options.use_current_time {
            true => now,
            false => u64::try_from(one.time).unwrap_or(0),
        };
        let txid = one.tx.compute_txid();
        let mut pool = lock();
        if options.apply_fee_delta_priority && one.delta != 0 {
            pool.prioritise(txid, one.delta);
        }
        if time <= oldest {
            sum.expired += 1;
        } else {
            match pool.accept_dated(now, time, one.tx) {
                Ok(_) => sum.accepted += 1,
                Err(reject) if reject.kind == RejectKind::AlreadyKnown && pool.contains(&txid) => sum.known += 1,
                Err(_) => sum.failed += 1,
            }
        }
        drop(pool);
        if !go_on(file.total - file.left, file.total) {
            return Ok(sum);
        }
    }
    let (deltas, _) = file.finish()?;
    if options.apply_fee_delta_priority {
        let mut pool = lock();
        for (txid, delta) in deltas {
            pool.prioritise(txid, delta);
        }
    }
    Ok(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    fn sample() -> (Vec<DumpedTx>, BTreeMap<Txid, i64>) {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let tx = Arc::new(genesis.txdata[0].clone());
        let one = DumpedTx {
            tx,
            time: 1_700_000_000,
            delta: -7,
        };
        (
            vec![one.clone(), one],
            BTreeMap::from([(Txid::from_byte_array([7; 32]), 99)]),
        )
    }

    fn file(key: [u8; 8]) -> Vec<u8> {
        let (txs, deltas) = sample();
        let mut writer = Masking::new(Vec::new());
        write(&mut writer, key, &txs, &deltas).unwrap();
        writer.inner
    }

    fn read(bytes: &[u8]) -> Result<(Vec<DumpedTx>, BTreeMap<Txid, i64>), DumpError> {
        let mut reader = DumpReader::new(bytes)?;
        let mut txs = Vec::new();
        while let Some(one) = reader.next_tx()? {
            txs.push(one);
        }
        Ok((txs, reader.finish()?.0))
    }

    #[test]
    fn both_versions_are_read() {
        let masked = file([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read(&masked).unwrap(), sample());
        assert_eq!(
            masked[8..17],
            [8, 1, 2, 3, 4, 5, 6, 7, 8],
            "the key follows the version"
        );
        let bare = file([0; 8]);
        let unmasked: Vec<u8> = masked
            .iter()
            .enumerate()
            .map(|(at, byte)| if at < 17 { *byte } else { byte ^ (at % 8 + 1) as u8 })
            .collect();
        assert_eq!(
            unmasked[17..],
            bare[17..],
            "a byte's place in the file chooses the key's byte"
        );
        let plain = [&1_u64.to_le_bytes(), &bare[17..]].concat();
        assert_eq!(read(&plain).unwrap(), sample());
    }

    #[test]
    fn every_cut_and_strange_versions_are_errors() {
        let whole = file([9; 8]);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut other = whole.clone();
        other[0] = 3;
        assert!(matches!(read(&other), Err(DumpError::Version(3))));
        let mut long_key = whole;
        long_key[8] = 9;
        assert!(matches!(read(&long_key), Err(DumpError::Damaged(_))));
    }
}
