//! One torrent's files: what is there, reading, flushing, deleting.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::buffers::Buffers;
use super::handles::Handles;
use super::open::{Access, delete_beneath, open_beneath};
use super::{DiskError, Opened};
use crate::resume::{FileState, Resume};
use crate::wire::{Block, MAX_BLOCK_LEN};
use crate::{Bitfield, Metainfo};

/// About how many bytes one check job reads.
const CHECK_BYTES: u64 = 32 << 20;

#[derive(Debug)]
pub(super) struct Storage {
    pub(super) id: u64,
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) dir: PathBuf,
    pub(super) read_only: bool,
    closed: AtomicBool,
    /// Files written since the last flush.
    dirty: Mutex<BTreeSet<usize>>,
    /// Files of which the system lost written data; nothing in them is promised to a later run.
    lost: Mutex<BTreeSet<usize>>,
    /// Held for the length of a flush, so that a second one does not report success before the first has it.
    flushing: Mutex<()>,
    pub(super) zero_hash: OnceLock<[u8; 20]>,
}

/// A part of a file that a run of the torrent's bytes falls into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// The file's index.
    pub(super) file: usize,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Zeros that are not on disk.
    pub(super) pad: bool,
}

/// What is known of a piece after a look at its files' sizes; later ones outweigh earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    /// All its files are as the resume data says.
    Trusted,
    /// Its files are long enough, but not known.
    Unknown,
    /// A file is missing or too short.
    Missing,
}

impl Storage {
    pub(super) fn new(id: u64, metainfo: Arc<Metainfo>, dir: PathBuf, read_only: bool) -> Self {
        Self {
            id,
            metainfo,
            dir,
            read_only,
            closed: AtomicBool::new(false),
            dirty: Mutex::default(),
            lost: Mutex::default(),
            flushing: Mutex::new(()),
            zero_hash: OnceLock::new(),
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The path of a file, for messages.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.metainfo
            .files
            .get(index)
            .map_or_else(|| self.dir.clone(), |file| self.dir.join(&file.path))
    }

    pub(super) fn open_file(&self, index: usize, access: Access) -> Result<File, DiskError> {
        let Some(entry) = self.metainfo.files.get(index) else {
            return Err(DiskError::misuse(&self.dir, "no such file in the torrent"));
        };
        let file = open_beneath(&self.dir, &entry.path, access)?;
        if access == Access::Write {
            let io = |error: io::Error| DiskError::io(&self.path(index), "cannot set the length", &error);
            if file.metadata().map_err(io)?.len() > entry.length {
                file.set_len(entry.length).map_err(io)?;
            }
        }
        Ok(file)
    }

    /// The files that hold the torrent's bytes `range`, in order. The range lies within the torrent.
    pub(super) fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let first = self.metainfo.file_at(range.start);
        let files = self.metainfo.files.iter().enumerate().skip(first);
        files
            .take_while(move |(_, file)| file.offset < range.end)
            .filter(|(_, file)| file.length > 0)
            .map(move |(index, file)| {
                let start = range.start.max(file.offset);
                let end = range.end.min(file.range().end);
                Segment {
                    file: index,
                    offset: start - file.offset,
                    len: end - start,
                    pad: file.pad,
                }
            })
    }

    /// The bytes of a piece within the torrent.
    pub(super) fn piece_range(&self, piece: u32) -> Range<u64> {
        let start = self.metainfo.piece_offset(piece);
        start..start + u64::from(self.metainfo.piece_len(piece))
    }

    /// Looks at the files without reading them, and creates the empty ones.
    pub(super) fn scan(&self, handles: &Handles, resume: Option<&Resume>) -> Result<Opened, DiskError> {
        let pieces = self.metainfo.piece_count();
        let resume = resume.filter(|resume| {
            resume.info_hash == self.metainfo.info_hash
                && resume.have.len() == pieces
                && resume.files.len() == self.metainfo.files.len()
        });
        let claimed = |piece: u32| resume.is_some_and(|resume| resume.have.get(piece));
        let mut presence = vec![None; pieces as usize];
        for (index, file) in self.metainfo.files.iter().enumerate().filter(|(_, file)| !file.pad) {
            let state = self.file_state(index);
            if file.length == 0 {
                if !state.present && !self.read_only {
                    handles.get(self, index, Access::Write)?;
                }
                continue;
            }
            let trusted = resume
                .and_then(|resume| resume.files.get(index))
                .is_some_and(|then| *then == state);
            for piece in self.metainfo.pieces_of(file) {
                let needed = self.piece_range(piece).end.min(file.range().end) - file.offset;
                let here = match (state.present && state.size >= needed, trusted) {
                    (true, true) => Presence::Trusted,
                    (true, false) => Presence::Unknown,
                    (false, _) => Presence::Missing,
                };
                if let Some(slot) = presence.get_mut(piece as usize) {
                    *slot = (*slot).max(Some(here));
                }
            }
        }
        let mut have = Bitfield::new(pieces);
        let mut unknown: Vec<Range<u32>> = Vec::new();
        let chunk = u32::try_from(CHECK_BYTES / u64::from(self.metainfo.piece_length))
            .unwrap_or(u32::MAX)
            .max(1);
        for (piece, presence) in (0..pieces).zip(presence) {
            match presence {
                Some(Presence::Missing) => {}
                Some(Presence::Trusted) if claimed(piece) => {
                    have.set(piece);
                }
                Some(Presence::Trusted) => {}
                // Nothing but padding needs no file: its check costs nothing.
                Some(Presence::Unknown) | None => match unknown.last_mut() {
                    Some(last) if last.end == piece && last.end - last.start < chunk => last.end += 1,
                    _ => unknown.push(piece..piece + 1),
                },
            }
        }
        Ok(Opened { have, unknown })
    }

    /// A file's size and time; not present when it cannot be opened as a plain file.
    fn file_state(&self, index: usize) -> FileState {
        let metadata = self.open_file(index, Access::Read).and_then(|file| {
            file.metadata()
                .map_err(|error| DiskError::io(&self.path(index), "cannot read its state", &error))
        });
        let Ok(metadata) = metadata else {
            return FileState::default();
        };
        FileState {
            present: true,
            size: metadata.len(),
            mtime_secs: metadata.mtime(),
            mtime_nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        }
    }

    /// The states of all files for the resume data, after a flush. Pads and files with lost data count as absent.
    pub(super) fn file_states(&self) -> Vec<FileState> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let files = self.metainfo.files.iter().enumerate();
        files
            .map(|(index, file)| {
                if file.pad || lost.contains(&index) {
                    FileState::default()
                } else {
                    self.file_state(index)
                }
            })
            .collect()
    }

    pub(super) fn read_block(&self, handles: &Handles, buffers: &Buffers, block: Block) -> Result<Bytes, DiskError> {
        if !self.metainfo.contains(block) || block.len > MAX_BLOCK_LEN {
            return Err(DiskError::misuse(&self.dir, "no such block in the torrent"));
        }
        let start = self.metainfo.piece_offset(block.piece) + u64::from(block.begin);
        let mut buffer = buffers.take(block.len as usize);
        let mut rest = buffer.as_mut();
        for segment in self.segments(start..start + u64::from(block.len)) {
            let (part, after) = rest.split_at_mut(segment.len as usize);
            rest = after;
            if segment.pad {
                part.fill(0);
            } else {
                let file = handles.get(self, segment.file, Access::Read)?;
                file.read_exact_at(part, segment.offset)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => {
                            DiskError::changed(&self.path(segment.file), "the file became shorter")
                        }
                        _ => DiskError::io(&self.path(segment.file), "cannot read", &error),
                    })?;
            }
        }
        Ok(buffer.into())
    }

    pub(super) fn mark_dirty(&self, file: usize) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
    }

    /// Writes everything through to the medium.
    pub(super) fn flush(&self, handles: &Handles) -> Result<(), DiskError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for index in dirty {
            let synced = handles.get(self, index, Access::Read).and_then(|file| {
                file.sync_all()
                    .map_err(|error| DiskError::io(&self.path(index), "cannot write to the disk", &error))
            });
            if let Err(error) = synced {
                // After a failed sync the system may have dropped what it could not write, and a second sync would
                // succeed without it.
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                result = Err(error);
            }
        }
        result
    }

    /// Deletes all files; goes on after an error and reports the first.
    pub(super) fn delete(&self) -> Result<(), DiskError> {
        let mut result = Ok(());
        for file in self.metainfo.files.iter().filter(|file| !file.pad) {
            result = result.and(delete_beneath(&self.dir, &file.path));
        }
        result
    }
}
