//! Hashing what is on disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha1::{Digest, Sha1};

use super::handles::Handles;
use super::open::Access;
use super::storage::{Segment, Storage};
use super::{DiskError, DiskErrorKind};

/// Read at once.
const BUFFER: usize = 1 << 20;
const ZEROS: [u8; 4096] = [0; 4096];

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
            let hash = match self.hash_piece(handles, piece, &mut buffer) {
                // Missing, shorter, or something else in its place: the piece is not there.
                Err(error) if matches!(error.kind, DiskErrorKind::Changed | DiskErrorKind::Obstructed) => continue,
                other => other?,
            };
            if self.metainfo.piece_hash(piece) == Some(&hash) {
                good.push(piece);
            }
        }
        Ok(good)
    }

    fn hash_piece(&self, handles: &Handles, piece: u32, buffer: &mut [u8]) -> Result<[u8; 20], DiskError> {
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
            return Ok(self.hash_of_zeros(self.metainfo.piece_len(piece)));
        }
        let mut hasher = Sha1::new();
        for (segment, file) in files {
            match file {
                None => hash_zeros(&mut hasher, segment.len),
                Some(file) => self.hash_segment(&mut hasher, &file, &segment, buffer)?,
            }
        }
        Ok(hasher.finalize().into())
    }

    fn hash_segment(
        &self,
        hasher: &mut Sha1,
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

    /// The hash of a piece that was never written. All pieces but the last are of one length, so it is kept.
    fn hash_of_zeros(&self, len: u32) -> [u8; 20] {
        let hash = || {
            let mut hasher = Sha1::new();
            hash_zeros(&mut hasher, len.into());
            hasher.finalize().into()
        };
        if len == self.metainfo.piece_length {
            *self.zero_hash.get_or_init(hash)
        } else {
            hash()
        }
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

fn hash_zeros(hasher: &mut Sha1, mut len: u64) {
    while len > 0 {
        let now = len.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        len -= now;
    }
}
