//! A torrent's bytes on disk.
//!
//! The engine never touches a file: it hands out [`Job`]s and gets [`Done`]s. [`Disk`] carries jobs out on the
//! thread that calls it and may be shared by many threads; no two jobs wait for each other, except that a torrent's
//! flushes follow one another.
//!
//! A piece reaches a file only after its hash was found right, so whatever a file holds outside of verified pieces
//! is what was there before. Files are opened through their folder, component by component, and no symbolic link
//! below the download folder is ever followed.

mod buffers;
mod check;
mod error;
mod handles;
mod hasher;
mod job;
mod open;
mod storage;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use buffers::Buffers;
pub use error::{DiskError, DiskErrorKind};
use handles::Handles;
pub use job::{Done, Job, Opened, Verdict};
use storage::Storage;

use crate::InfoHash;
use crate::resume::Resume;

/// How many files stay open when nothing else is asked for: far below the usual limit of 1024 descriptors.
pub const DEFAULT_OPEN_FILES: usize = 200;

/// All torrents' files.
#[derive(Debug)]
pub struct Disk {
    handles: Handles,
    buffers: Buffers,
    torrents: RwLock<HashMap<InfoHash, Arc<Storage>>>,
    next_id: AtomicU64,
    /// Resume files are written one at a time, so that an older one never replaces a newer one half-way.
    saving: Mutex<()>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(DEFAULT_OPEN_FILES)
    }
}

impl Disk {
    /// A disk that keeps at most `max_open_files` files open.
    pub fn new(max_open_files: usize) -> Self {
        Self {
            handles: Handles::new(max_open_files),
            buffers: Buffers::default(),
            torrents: RwLock::default(),
            next_id: AtomicU64::new(0),
            saving: Mutex::new(()),
        }
    }

    /// How many files are open now.
    pub fn open_files(&self) -> usize {
        self.handles.len()
    }

    /// Carries out a job; takes as long as the disk takes.
    pub fn run(&self, job: Job) -> Done {
        match job {
            Job::Open {
                metainfo,
                dir,
                resume,
                read_only,
            } => {
                let info_hash = metainfo.info_hash;
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                let storage = Arc::new(Storage::new(id, metainfo, dir, read_only));
                let result = storage.scan(&self.handles, resume.as_deref());
                if result.is_ok() {
                    let mut torrents = self.torrents.write().unwrap_or_else(PoisonError::into_inner);
                    if let Some(old) = torrents.insert(info_hash, storage) {
                        drop(torrents);
                        self.handles.forget(&old);
                    }
                }
                Done::Opened { info_hash, result }
            }
            Job::Check { info_hash, pieces } => {
                let range = pieces.clone();
                let result = self
                    .storage(info_hash)
                    .and_then(|storage| storage.check(&self.handles, range));
                Done::Checked {
                    info_hash,
                    pieces,
                    result,
                }
            }
            Job::WritePiece {
                info_hash,
                piece,
                blocks,
            } => {
                let result = self
                    .storage(info_hash)
                    .and_then(|storage| storage.write_piece(&self.handles, piece, &blocks));
                Done::Written {
                    info_hash,
                    piece,
                    result,
                }
            }
            Job::ReadBlock {
                info_hash,
                block,
                ticket,
            } => {
                let result = self
                    .storage(info_hash)
                    .and_then(|storage| storage.read_block(&self.handles, &self.buffers, block));
                Done::Read {
                    info_hash,
                    block,
                    ticket,
                    result,
                }
            }
            Job::Flush { info_hash } => {
                let result = self.storage(info_hash).and_then(|storage| storage.flush(&self.handles));
                Done::Flushed { info_hash, result }
            }
            Job::SaveResume { resume, file } => {
                let info_hash = resume.info_hash;
                Done::ResumeSaved {
                    info_hash,
                    result: self.save_resume(*resume, &file),
                }
            }
            Job::Close {
                info_hash,
                delete_files,
                resume_file,
            } => Done::Closed {
                info_hash,
                result: self.close(info_hash, delete_files, resume_file.as_deref()),
            },
        }
    }

    fn storage(&self, info_hash: InfoHash) -> Result<Arc<Storage>, DiskError> {
        let torrents = self.torrents.read().unwrap_or_else(PoisonError::into_inner);
        torrents
            .get(&info_hash)
            .cloned()
            .ok_or_else(|| DiskError::misuse(Path::new(""), "the torrent is not open"))
    }

    /// Data first, then the promise: the file says only what is safely on disk.
    fn save_resume(&self, mut resume: Resume, file: &Path) -> Result<(), DiskError> {
        match self.storage(resume.info_hash) {
            Ok(storage) => {
                storage.flush(&self.handles)?;
                resume.files = storage.file_states();
            }
            // A magnet link whose metadata has not come yet has no files.
            Err(_) if resume.raw_info.is_none() => resume.files = Vec::new(),
            Err(error) => return Err(error),
        }
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        resume
            .save(file)
            .map_err(|error| DiskError::io(file, "cannot save resume data", &error))
    }

    fn close(&self, info_hash: InfoHash, delete: bool, resume_file: Option<&Path>) -> Result<(), DiskError> {
        let storage = self
            .torrents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&info_hash);
        let mut result = Ok(());
        // The promise goes before the data.
        if let Some(file) = resume_file
            && let Err(error) = std::fs::remove_file(file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            result = Err(DiskError::io(file, "cannot delete", &error));
        }
        if let Some(storage) = storage {
            storage.close();
            self.handles.forget(&storage);
            if delete {
                result = storage.delete().and(result);
            }
        }
        result
    }
}
