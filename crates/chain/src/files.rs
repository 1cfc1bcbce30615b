//! Block files and undo files.
//!
//! Blocks lie in `blk00000.dat`, `blk00001.dat`, ... framed as Bitcoin Core frames them: the network's magic, the
//! length (four bytes, little-endian), the bytes. Undo records lie in the `rev` file of the same number, framed the
//! same way. A [`Location`] in the index says where a record is and carries a checksum over its bytes, so whatever a
//! dying disk or a power loss made of it is noticed when it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_store::{Files, StoreError};

/// Bytes before a record: magic and length.
pub(crate) const FRAME: u64 = 8;

/// A block file takes no further block once it would pass this many bytes; Core's limit.
pub(crate) const MAX_FILE_BYTES: u64 = 128 << 20;

/// After this many bytes of blocks it is time to look whether old ones have to go.
const CHUNK: u64 = 16 << 20;

/// Which kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Undo,
}

impl Kind {
    pub(crate) fn name(self, number: u32) -> String {
        match self {
            Self::Block => format!("blk{number:05}.dat"),
            Self::Undo => format!("rev{number:05}.dat"),
        }
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The file's number.
    pub(crate) file: u32,
    /// Where the record's frame begins.
    pub(crate) offset: u64,
    /// The length without the frame.
    pub(crate) len: u32,
    /// XXH3 (64 bits) of the record's bytes. It finds accidents, and nobody who could change the file needs to forge it.
    pub(crate) checksum: u64,
}

impl Location {
    /// The place of a record whose frame begins at `offset`.
    pub(crate) fn of(file: u32, offset: u64, data: &[u8]) -> Self {
        Self {
            file,
            offset,
            len: u32::try_from(data.len()).unwrap_or(u32::MAX),
            checksum: checksum(data),
        }
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(FRAME).saturating_add(u64::from(self.len))
    }
}

fn checksum(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data)
}

/// Reads records; cheap to clone and safe to use while others write.
#[derive(Clone)]
pub(crate) struct Reader {
    files: Arc<dyn Files>,
    magic: [u8; 4],
}

impl Reader {
    pub(crate) fn new(files: Arc<dyn Files>, magic: [u8; 4]) -> Self {
        Self { files, magic }
    }

    /// Reads a record and checks it against its frame and checksum.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the file and place of a damaged record.
    pub(crate) fn read(&self, kind: Kind, at: &Location) -> Result<Vec<u8>, StoreError> {
        let name = kind.name(at.file);
        let damaged = || StoreError::corrupt(format!("the record at byte {} of {name}", at.offset));
        let frame = usize::try_from(FRAME + u64::from(at.len)).map_err(|_| damaged())?;
        let mut data = self.files.read_at(&name, at.offset, frame)?;
        let body = data.split_off(FRAME as usize);
        if data[..4] != self.magic || data[4..] != at.len.to_le_bytes() || checksum(&body) != at.checksum {
            return Err(damaged());
        }
        Ok(body)
    }
}

/// Appends records; there is one for each chain.
pub(crate) struct Writer {
    files: Arc<dyn Files>,
    magic: [u8; 4],
    max_file_bytes: u64,
    block_file: u32,
    ends: BTreeMap<(u32, bool), u64>,
    unsynced: BTreeSet<String>,
    /// Bytes of blocks since [`Writer::take_growth`] last said yes.
    growth: u64,
}

impl Writer {
    pub(crate) fn new(files: Arc<dyn Files>, magic: [u8; 4], max_file_bytes: u64) -> Self {
        Self {
            files,
            magic,
            max_file_bytes,
            block_file: 0,
            ends: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            growth: u64::MAX,
        }
    }

    /// The number of the block file that is being written.
    pub(crate) fn current(&self) -> u32 {
        self.block_file
    }

    /// How far files may grow before somebody looks whether old ones have to go, in bytes.
    pub(crate) fn chunk(&self) -> u64 {
        CHUNK.min(self.max_file_bytes)
    }

    /// Whether that much was written since this last said yes; it does at first.
    pub(crate) fn take_growth(&mut self) -> bool {
        let grown = self.growth >= self.chunk();
        if grown {
            self.growth = 0;
        }
        grown
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.ends.values().sum()
    }

    /// Bytes of the block file of this number and its undo file.
    pub(crate) fn bytes_of(&self, file: u32) -> u64 {
        self.ends.range((file, false)..=(file, true)).map(|(_, end)| end).sum()
    }

    /// Leaves a block file of this length as it is: new blocks go to the next.
    pub(crate) fn reserve(&mut self, file: u32, len: u64) {
        self.ends.insert((file, false), len);
        self.block_file = self.block_file.max(file.saturating_add(1));
    }

    /// Deletes the block file of this number and its undo file.
    pub(crate) fn delete(&mut self, file: u32) -> Result<(), StoreError> {
        for kind in [Kind::Block, Kind::Undo] {
            let name = kind.name(file);
            self.files.remove(&name)?;
            self.unsynced.remove(&name);
            self.ends.remove(&(file, kind == Kind::Undo));
        }
        Ok(())
    }

    /// Learns of a record that the index knows: nothing is written over it. What lies behind the last known record
    /// was never committed and is written over.
    pub(crate) fn occupy(&mut self, kind: Kind, at: &Location) {
        let end = self.ends.entry((at.file, kind == Kind::Undo)).or_default();
        *end = (*end).max(at.end());
        if kind == Kind::Block {
            self.block_file = self.block_file.max(at.file);
        }
    }

    /// Appends a block, in a new file when the current one is full.
    pub(crate) fn append_block(&mut self, data: &[u8]) -> Result<Location, StoreError> {
        let end = self.ends.get(&(self.block_file, false)).copied().unwrap_or(0);
        if end > 0 && end.saturating_add(FRAME + data.len() as u64) > self.max_file_bytes {
            self.block_file += 1;
        }
        self.growth = self.growth.saturating_add(FRAME + data.len() as u64);
        self.append(Kind::Block, self.block_file, data)
    }

    /// Appends an undo record to the file that goes with the block's.
    pub(crate) fn append_undo(&mut self, block_file: u32, data: &[u8]) -> Result<Location, StoreError> {
        self.append(Kind::Undo, block_file, data)
    }

    fn append(&mut self, kind: Kind, file: u32, data: &[u8]) -> Result<Location, StoreError> {
        let name = kind.name(file);
        let len = u32::try_from(data.len()).map_err(|_| StoreError::corrupt(format!("a record for {name}")))?;
        let offset = self.ends.get(&(file, kind == Kind::Undo)).copied().unwrap_or(0);
        let at = Location::of(file, offset, data);
        let mut frame = [0; FRAME as usize];
        frame[..4].copy_from_slice(&self.magic);
        frame[4..].copy_from_slice(&len.to_le_bytes());
        self.unsynced.insert(name.clone());
        self.files.write_at(&name, offset, &frame)?;
        self.files.write_at(&name, offset + FRAME, data)?;
        self.occupy(kind, &at);
        Ok(at)
    }

    /// Makes every record written so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        while let Some(name) = self.unsynced.first().cloned() {
            self.files.sync(&name)?;
            self.unsynced.remove(&name);
        }
        Ok(())
    }

    /// The files with records that may not be durable yet.
    pub(crate) fn unsynced(&self) -> BTreeSet<String> {
        self.unsynced.clone()
    }

    /// Somebody else has taken over to sync all that was written so far.
    pub(crate) fn handed_over(&mut self) {
        self.unsynced.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use dunlin_store::{CrashDisk, MemFiles};

    #[test]
    fn records_come_back_and_files_are_changed_when_full() {
        let files: Arc<dyn Files> = Arc::new(MemFiles::default());
        let mut writer = Writer::new(Arc::clone(&files), *b"magi", 100);
        let reader = Reader::new(Arc::clone(&files), *b"magi");
        let blocks: Vec<Location> = (0..5u8).map(|n| writer.append_block(&[n; 40]).unwrap()).collect();
        assert_eq!(blocks.iter().map(|at| at.file).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
        let undo = writer.append_undo(1, b"undo").unwrap();
        writer.sync().unwrap();
        for (n, at) in blocks.iter().enumerate() {
            assert_eq!(reader.read(Kind::Block, at).unwrap(), [n as u8; 40]);
        }
        assert_eq!(reader.read(Kind::Undo, &undo).unwrap(), b"undo");
        assert_eq!(
            files.list().unwrap(),
            ["blk00000.dat", "blk00001.dat", "blk00002.dat", "rev00001.dat"]
        );
        assert_eq!(files.read_at("blk00000.dat", 0, 8).unwrap(), *b"magi\x28\0\0\0");

        let mut again = Writer::new(files, *b"magi", 100);
        for at in &blocks {
            again.occupy(Kind::Block, at);
        }
        assert_eq!(again.append_block(&[9; 4]).unwrap().offset, 48);
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let disk = CrashDisk::new(1, None);
        let files: Arc<dyn Files> = Arc::new(disk.files());
        let mut writer = Writer::new(Arc::clone(&files), *b"magi", MAX_FILE_BYTES);
        let at = writer.append_block(b"some block").unwrap();
        let reader = Reader::new(files, *b"magi");
        for byte in 0..18 {
            disk.flip_bit("blk00000.dat", byte).unwrap();
            let text = reader.read(Kind::Block, &at).unwrap_err().to_string();
            assert!(text.contains("byte 0 of blk00000.dat"), "{text}");
            disk.flip_bit("blk00000.dat", byte).unwrap();
        }
        assert_eq!(reader.read(Kind::Block, &at).unwrap(), b"some block");
        let beyond = Location { offset: 1 << 40, ..at };
        assert!(matches!(
            reader.read(Kind::Block, &beyond),
            Err(StoreError::Corrupt { .. })
        ));
    }
}
