//! Verifying a piece in memory and writing it, straight from the network's buffers.

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::handles::Handles;
use super::hasher::PieceHasher;
use super::open::Access;
use super::storage::Storage;
use super::{DiskError, DiskErrorKind, Verdict};

/// Buffers in one system call; the common limit is 1024.
const MAX_SLICES: usize = 256;

impl Storage {
    /// Hashes the blocks where they are; writes them when they make up the piece.
    pub(super) fn write_piece(&self, handles: &Handles, piece: u32, blocks: &[Bytes]) -> Result<Verdict, DiskError> {
        let len: u64 = blocks.iter().map(|block| block.len() as u64).sum();
        let hasher = PieceHasher::new(&self.metainfo, piece);
        let Some(mut hasher) = hasher.filter(|_| len == u64::from(self.metainfo.piece_len(piece))) else {
            return Err(DiskError::misuse(&self.dir, "the blocks do not make up the piece"));
        };
        if self.read_only {
            return Err(DiskError {
                kind: DiskErrorKind::Permission,
                path: self.dir.clone(),
                text: "the torrent was opened for reading only".into(),
            });
        }
        for block in blocks {
            hasher.update(block);
        }
        if !hasher.matches() {
            let block_hashes = blocks.iter().map(|block| Sha1::digest(block).into()).collect();
            return Ok(Verdict::HashMismatch { block_hashes });
        }
        let mut source = Source { blocks, skip: 0 };
        for segment in self.segments(self.piece_range(piece)) {
            if segment.pad {
                source.advance(segment.len);
                continue;
            }
            let file = handles.get(self, segment.file, Access::Write)?;
            self.mark_dirty(segment.file);
            let _alone = file.write_alone();
            write_from(&file, segment.offset, &mut source, segment.len)
                .map_err(|error| DiskError::io(&self.path(segment.file), "cannot write", &error))?;
        }
        Ok(Verdict::Verified)
    }
}

/// Blocks still to be written.
struct Source<'a> {
    blocks: &'a [Bytes],
    /// Bytes of the first block that are done.
    skip: usize,
}

impl<'a> Source<'a> {
    /// The next `len` bytes at most, in place.
    fn slices(&self, mut len: u64) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(self.blocks.len().min(MAX_SLICES));
        let mut skip = self.skip;
        for block in self.blocks {
            if len == 0 || slices.len() == MAX_SLICES {
                break;
            }
            let rest = &block[skip..];
            skip = 0;
            let take = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            if take > 0 {
                slices.push(IoSlice::new(&rest[..take]));
                len -= take as u64;
            }
        }
        slices
    }

    fn advance(&mut self, mut len: u64) {
        while let Some((first, others)) = self.blocks.split_first() {
            let rest = (first.len() - self.skip) as u64;
            if len < rest {
                self.skip += len as usize;
                return;
            }
            len -= rest;
            self.skip = 0;
            self.blocks = others;
        }
    }
}

/// Writes the source's next `len` bytes at `offset`.
fn write_from(file: &File, mut offset: u64, source: &mut Source<'_>, mut len: u64) -> io::Result<()> {
    while len > 0 {
        let slices = source.slices(len);
        match write_vectored_at(file, &slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                let count = count as u64;
                source.advance(count);
                offset += count;
                len -= count;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn write_vectored_at(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev(file, slices, offset)?)
}

#[cfg(target_vendor = "apple")]
fn write_vectored_at(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    slices.first().map_or(Ok(0), |slice| file.write_at(slice, offset))
}
