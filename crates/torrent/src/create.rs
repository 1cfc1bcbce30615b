//! Making a torrent from a file or a folder: of version 1 (BEP 3), of version 2 (BEP 52), or of both.

mod info;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use sha1::{Digest, Sha1};

use crate::Metainfo;
use crate::merkle::{self, Blocks, Hash};
use crate::metainfo::{MAX_FILES, MAX_PIECE_LEN, MAX_PIECES, MetainfoError};
use crate::wire::BLOCK_LEN;

/// The shortest piece: one block.
pub const MIN_PIECE_LEN: u32 = 16 * 1024;
/// Automatic piece lengths stop here while the number of pieces allows it.
const AUTO_PIECE_LEN: u32 = 16 << 20;
/// Automatic piece lengths aim at this many pieces or fewer: a torrent file of about 40 kB.
const AUTO_PIECES: u64 = 2000;
/// Read at once.
const BUFFER: usize = 1 << 20;

/// Which formats a new torrent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// BEP 3, which every client reads.
    #[default]
    V1,
    /// BEP 52.
    V2,
    /// Both, for one swarm of old and new clients.
    Hybrid,
}

/// What goes into a new torrent beside its files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format.
    pub version: Version,
    /// Bytes of a piece, a power of two from [`MIN_PIECE_LEN`] to [`MAX_PIECE_LEN`]; chosen by size when `None`.
    pub piece_length: Option<u32>,
    /// BEP 27.
    pub private: bool,
    /// Tracker URLs in tiers.
    pub trackers: Vec<Vec<String>>,
    /// BEP 19 web seeds.
    pub url_list: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The program's name and version.
    pub created_by: Option<String>,
    /// Seconds since the Unix epoch.
    pub creation_date: Option<i64>,
    /// Threads that hash; as many as there are cores when zero.
    pub threads: usize,
}

/// A new torrent.
#[derive(Clone, Debug)]
pub struct Created {
    /// The torrent; [`Metainfo::to_bytes`] is the file.
    pub metainfo: Metainfo,
    /// The folder from which it can be seeded.
    pub dir: PathBuf,
    /// Symbolic links, pipes and devices that were left out.
    pub skipped: Vec<PathBuf>,
}

/// Why no torrent was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file or folder cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Nothing to share.
    #[error("{}: there are no bytes to share", .0.display())]
    Empty(PathBuf),
    /// A name that would not come out of a torrent as it went in.
    #[error("{}: this name cannot stand in a torrent (it has to be UTF-8, at most 240 bytes, without backslashes or control characters)", .0.display())]
    Name(PathBuf),
    /// A bad [`Options::piece_length`].
    #[error(
        "the piece length has to be a power of two from {MIN_PIECE_LEN} to {MAX_PIECE_LEN}, and large enough for at most {MAX_PIECES} pieces"
    )]
    PieceLength,
    /// More than a torrent can hold.
    #[error("too many files (at most {MAX_FILES})")]
    TooManyFiles,
    /// A file changed while it was read.
    #[error("{}: the file changed while it was being hashed", .0.display())]
    Changed(PathBuf),
    /// The torrent that came out is not valid.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
}

/// A file to share.
struct Source {
    path: PathBuf,
    /// Names below the torrent's folder; empty for a torrent of one file.
    parts: Vec<String>,
    length: u64,
    offset: u64,
}

/// Makes a torrent of the file or folder at `path`. Reads everything once; `progress` hears from the hashing threads
/// how many bytes of how many are done.
///
/// # Errors
/// [`CreateError`] says which file stands in the way.
pub fn create(path: &Path, options: &Options, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Created, CreateError> {
    // A torrent's own name may be reached through a link; seeding does not follow links, so take the real place.
    let root = fs::canonicalize(path).map_err(|error| CreateError::Io {
        path: path.into(),
        error,
    })?;
    let name = root
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| CreateError::Name(root.clone()))?;
    let mut dir = root.parent().unwrap_or(Path::new("/")).to_path_buf();
    let (mut files, skipped, is_folder) = list(&root)?;
    let mut total: u64 = files.iter().map(|file| file.length).fold(0, u64::saturating_add);
    if total == 0 {
        return Err(CreateError::Empty(root));
    }
    let piece_length = match options.piece_length {
        None => automatic_piece_length(total),
        Some(len) => len,
    };
    if !piece_length.is_power_of_two() || !(MIN_PIECE_LEN..=MAX_PIECE_LEN).contains(&piece_length) {
        return Err(CreateError::PieceLength);
    }
    total = 0;
    for file in &mut files {
        if options.version != Version::V1 && file.length > 0 {
            // Each file begins with a piece of its own.
            total = total
                .checked_next_multiple_of(piece_length.into())
                .ok_or(CreateError::PieceLength)?;
        }
        file.offset = total;
        total = total.checked_add(file.length).ok_or(CreateError::PieceLength)?;
    }
    if total.div_ceil(piece_length.into()) > MAX_PIECES.into() {
        return Err(CreateError::PieceLength);
    }
    let plan = Plan {
        files: &files,
        total,
        piece_length,
        version: options.version,
    };
    let pieces = hash(&plan, options.threads, progress)?;
    let torrent = info::torrent(&plan, name, is_folder, options.private, &pieces);
    let mut metainfo = Metainfo::parse(&torrent)?;
    metainfo.trackers.clone_from(&options.trackers);
    metainfo.url_list.clone_from(&options.url_list);
    metainfo.comment.clone_from(&options.comment);
    metainfo.created_by.clone_from(&options.created_by);
    metainfo.creation_date = options.creation_date;
    // A single file of version 2 has no folder, even if it was in one.
    if is_folder && metainfo.files.iter().all(|file| file.path.components().count() == 1) {
        dir.clone_from(&root);
    }
    // Whoever reads the torrent, we among them, makes names safe: only names that stay as they are can be found.
    let made = metainfo.files.iter().filter(|file| !file.pad);
    for (source, file) in files.iter().zip(made) {
        if dir.join(&file.path) != source.path {
            return Err(CreateError::Name(source.path.clone()));
        }
    }
    Ok(Created { metainfo, dir, skipped })
}

/// The shortest power of two that keeps to [`AUTO_PIECES`], up to [`AUTO_PIECE_LEN`] unless there are too many pieces.
fn automatic_piece_length(total: u64) -> u32 {
    let mut len = MIN_PIECE_LEN;
    while len < MAX_PIECE_LEN {
        let pieces = total.div_ceil(len.into());
        if pieces <= AUTO_PIECES || (len >= AUTO_PIECE_LEN && pieces <= MAX_PIECES.into()) {
            break;
        }
        len *= 2;
    }
    len
}

/// All plain files at or below `root`, sorted by their names; what was left out; and whether `root` is a folder.
fn list(root: &Path) -> Result<(Vec<Source>, Vec<PathBuf>, bool), CreateError> {
    let fail = |path: &Path, error| CreateError::Io {
        path: path.into(),
        error,
    };
    let metadata = fs::metadata(root).map_err(|error| fail(root, error))?;
    if metadata.is_file() {
        let file = Source {
            path: root.into(),
            parts: Vec::new(),
            length: metadata.len(),
            offset: 0,
        };
        return Ok((vec![file], Vec::new(), false));
    }
    let mut files = Vec::new();
    let mut skipped = Vec::new();
    let mut folders: Vec<(PathBuf, Vec<String>)> = vec![(root.into(), Vec::new())];
    while let Some((folder, parts)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| fail(&folder, error))? {
            let entry = entry.map_err(|error| fail(&folder, error))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| fail(&path, error))?;
            if !kind.is_dir() && !kind.is_file() {
                skipped.push(path);
                continue;
            }
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| CreateError::Name(path.clone()))?;
            let mut parts = parts.clone();
            parts.push(name);
            if kind.is_dir() {
                folders.push((path, parts));
            } else if files.len() < MAX_FILES {
                let length = entry.metadata().map_err(|error| fail(&path, error))?.len();
                files.push(Source {
                    path,
                    parts,
                    length,
                    offset: 0,
                });
            } else {
                return Err(CreateError::TooManyFiles);
            }
        }
    }
    files.sort_by(|a, b| a.parts.cmp(&b.parts));
    skipped.sort();
    Ok((files, skipped, true))
}

/// What is to be hashed, and how.
struct Plan<'a> {
    files: &'a [Source],
    total: u64,
    piece_length: u32,
    version: Version,
}

/// The hashes of a piece; those that its version does not have are zero.
#[derive(Clone, Copy, Default)]
struct PieceHash {
    v1: [u8; 20],
    /// The root of the tree over its file's blocks in it.
    v2: Hash,
}

/// The hashes of each piece, made on several threads.
fn hash(plan: &Plan<'_>, threads: usize, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Vec<PieceHash>, CreateError> {
    let piece_length = u64::from(plan.piece_length);
    let count = u32::try_from(plan.total.div_ceil(piece_length)).map_err(|_| CreateError::PieceLength)?;
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let next = AtomicU32::new(0);
    let done = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let hashes = Mutex::new(vec![PieceHash::default(); count as usize]);
    let work = || -> Result<(), CreateError> {
        let mut reader = Reader {
            plan,
            open: None,
            buffer: vec![0; BUFFER],
        };
        while !failed.load(Ordering::Relaxed) {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= count {
                break;
            }
            let start = u64::from(piece) * piece_length;
            let end = plan.total.min(start + piece_length);
            let hash = reader
                .hash(start, end)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            if let Some(slot) = hashes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(piece as usize)
            {
                *slot = hash;
            }
            let done = done.fetch_add(end - start, Ordering::Relaxed) + (end - start);
            progress(done, plan.total);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(count as usize)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Reads the files as one run of bytes; keeps the last file open.
struct Reader<'a> {
    plan: &'a Plan<'a>,
    open: Option<(usize, File)>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn hash(&mut self, mut start: u64, end: u64) -> Result<PieceHash, CreateError> {
        let version = self.plan.version;
        let mut sha1 = (version != Version::V2).then(Sha1::new);
        let files = self.plan.files;
        let mut index = files.partition_point(|file| file.offset + file.length <= start);
        // Where files are aligned, the first one with bytes here is the only one.
        let own = files[index..].iter().find(|file| file.length > 0);
        let payload = own.map_or(0, |file| (file.offset + file.length).min(end) - start);
        let mut blocks = (version != Version::V1).then(|| Blocks::new(u32::try_from(payload).unwrap_or(u32::MAX)));
        while start < end
            && let Some(source) = files.get(index)
        {
            if let Some(sha1) = &mut sha1 {
                // Between files that are aligned there is a pad.
                let gap = source.offset.min(end).saturating_sub(start);
                let zeros = [0; 4096];
                for at in (0..gap).step_by(zeros.len()) {
                    sha1.update(&zeros[..zeros.len().min(usize::try_from(gap - at).unwrap_or(usize::MAX))]);
                }
            }
            start = start.max(source.offset.min(end));
            let stop = end.min(source.offset + source.length);
            if start < stop {
                self.read(index, start - source.offset, stop - source.offset, |bytes| {
                    if let Some(sha1) = &mut sha1 {
                        sha1.update(bytes);
                    }
                    if let Some(blocks) = &mut blocks {
                        blocks.update(bytes);
                    }
                })?;
                start = stop;
            }
            index += 1;
        }
        let height = match own {
            Some(file) if file.length <= self.plan.piece_length.into() => {
                merkle::height(file.length.div_ceil(BLOCK_LEN.into()))
            }
            _ => merkle::piece_layer(self.plan.piece_length),
        };
        Ok(PieceHash {
            v1: sha1.map(|sha1| sha1.finalize().into()).unwrap_or_default(),
            v2: blocks.and_then(|blocks| blocks.root(height)).unwrap_or_default(),
        })
    }

    fn read(&mut self, index: usize, mut at: u64, end: u64, mut take: impl FnMut(&[u8])) -> Result<(), CreateError> {
        let source = &self.plan.files[index];
        let fail = |error| CreateError::Io {
            path: source.path.clone(),
            error,
        };
        let file = match self.open.take() {
            Some((open, file)) if open == index => file,
            _ => {
                let file = File::open(&source.path).map_err(fail)?;
                if file.metadata().map_err(fail)?.len() != source.length {
                    return Err(CreateError::Changed(source.path.clone()));
                }
                file
            }
        };
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            match file.read_at(&mut self.buffer[..want], at) {
                Ok(0) => return Err(CreateError::Changed(source.path.clone())),
                Ok(count) => {
                    take(&self.buffer[..count]);
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        self.open = Some((index, file));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_piece_lengths() {
        let mib = 1u64 << 20;
        for (total, want) in [
            (1, MIN_PIECE_LEN),
            (20 * mib, MIN_PIECE_LEN),
            (256 * mib, 256 << 10),
            (4096 * mib, 4 << 20),
            (1 << 40, AUTO_PIECE_LEN),
            (1 << 46, 32 << 20),
        ] {
            assert_eq!(automatic_piece_length(total), want, "{total}");
        }
    }
}
