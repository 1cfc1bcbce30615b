//! Hashing what is on disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha1::{Digest, Sha1};

use super::handles::Handles;
use super::hasher::PieceHasher;
use super::open::Access;
use super::storage::{Segment, Storage};
use super::{DiskError, DiskErrorKind};

/// Read at once; it is hashed while it is in the processor's own cache.
const BUFFER: usize = 256 << 10;

impl Storage {
    /// The pieces of `range` that are on disk, whole and right.
    pub(super) fn check(&self, handles: &Handles, range: Range<u32>) -> Result<Vec<u32>, DiskError> {
        if range.start > range.end || range.end > self.metainfo.piece_count() {
            return Err(DiskError::misuse(&self.dir, "no such pieces in the torrent"));
        }
        let mut buffer = vec![0; BUFFER];
        let mut good = Vec::new();
        for piece in range {
            if self.is_closed() {
                return Err(DiskError::misuse(&self.dir, "the torrent was closed"));
            }
            let right = match self.check_piece(handles, piece, &mut buffer) {
                // Missing, shorter, or something else in its place: the piece is not there.
                Err(error) if matches!(error.kind, DiskErrorKind::Changed | DiskErrorKind::Obstructed) => continue,
                other => other?,
            };
            if right {
                good.push(piece);
            }
        }
        Ok(good)
    }

    fn check_piece(&self, handles: &Handles, piece: u32, buffer: &mut [u8]) -> Result<bool, DiskError> {
        let Some(mut hasher) = PieceHasher::new(&self.metainfo, piece) else {
            return Ok(false);
        };
        let mut files = Vec::new();
        let mut all_holes = true;
        for segment in self.segments(self.piece_range(piece)) {
            let file = if segment.pad {
                None
            } else {
                Some(handles.get(self, segment.file, Access::Read)?)
            };
            if let Some(file) = &file
                && all_holes
            {
                all_holes = is_hole(file, &segment);
            }
            files.push((segment, file));
        }
        if all_holes {
            return Ok(self.is_zeros(piece, hasher));
        }
        for (segment, file) in files {
            match file {
                None => hasher.update_zeros(segment.len),
                Some(file) => self.hash_segment(&mut hasher, &file, &segment, buffer)?,
            }
        }
        Ok(hasher.matches())
    }

    fn hash_segment(
        &self,
        hasher: &mut PieceHasher,
        file: &File,
        segment: &Segment,
        buffer: &mut [u8],
    ) -> Result<(), DiskError> {
        let mut done = 0;
        while done < segment.len {
            let want = usize::try_from(segment.len - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match file.read_at(&mut buffer[..want], segment.offset + done) {
                Ok(0) => return Err(DiskError::changed(&self.path(segment.file), "the file became shorter")),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    done += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiskError::io(&self.path(segment.file), "cannot read", &error)),
            }
        }
        Ok(())
    }

    /// Whether a piece that was never written is right. All pieces but the last are of one length, so what their zeros
    /// come to in version 1 is kept.
    fn is_zeros(&self, piece: u32, mut hasher: PieceHasher) -> bool {
        let len = self.metainfo.piece_len(piece);
        if let Some(expected) = self.metainfo.piece_hash(piece)
            && len == self.metainfo.piece_length
        {
            let hash = || {
                let zeros = [0; 4096];
                let parts = (0..len).step_by(zeros.len());
                let parts = parts.map(|at| &zeros[..zeros.len().min((len - at) as usize)]);
                let sha1 = parts.fold(Sha1::new(), |sha1, part| sha1.chain_update(part));
                sha1.finalize().into()
            };
            let right = self.zero_hash.get_or_init(hash) == expected;
            if !right || self.metainfo.info_hash_v2.is_none() {
                return right;
            }
        }
        hasher.update_zeros(len.into());
        hasher.matches()
    }
}

/// Whether the file system holds nothing there, so that reading would give zeros. Where it cannot tell, it says that
/// there is data.
fn is_hole(file: &File, segment: &Segment) -> bool {
    match seek(file, SeekFrom::Data(segment.offset)) {
        Ok(data) => data >= segment.offset + segment.len,
        // No data up to the end of the file; the scan made sure that the file is long enough, a shorter one is
        // noticed below.
        Err(Errno::NXIO) => file
            .metadata()
            .is_ok_and(|metadata| metadata.len() >= segment.offset + segment.len),
        Err(_) => false,
    }
}
