//! Blocks from files: those of another node (`--load-block`), or our own when the index is made anew.
//!
//! Files are read from front to back. A block whose parent is not known yet is only noted, and read again once the
//! parent has come: so the order of blocks does not matter, and no more than a note for each waits in memory.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bytes::Bytes;
use dunlin_store::{Files, StoreError};

use crate::block_stream::{BlockStream, Key, unmask};
use crate::files::{Kind, Location};
use crate::{BlockError, BlockOutcome, Chain, ParsedBlock, Status};

/// Bytes of files that one step looks at.
const STEP_BYTES: u64 = 1 << 20;

/// Bytes before a block: magic and length.
const FRAME: u64 = 8;

/// Why files cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The folder holds no block files.
    #[error("{} holds no blk?????.dat files", .0.display())]
    NoBlockFiles(PathBuf),
    /// Our own disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes looked at.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Blocks that were not stored before.
    pub new: u64,
    /// Blocks that were.
    pub known: u64,
    /// Blocks that break a rule.
    pub refused: u64,
    /// Blocks whose parent was not found yet.
    pub waiting: u64,
}

/// Where blocks come from.
enum Source {
    /// Another node's file.
    Foreign { path: PathBuf, key: Key },
    /// Our own block file of this number.
    Own(u32),
}

/// A block that can be read again.
#[derive(Clone, Copy)]
struct Place {
    source: usize,
    /// Where its frame begins.
    offset: u64,
    len: u32,
}

/// Files being imported, step by step.
pub struct Import {
    magic: [u8; 4],
    files: Arc<dyn Files>,
    sources: Vec<Source>,
    /// The source being read.
    stream: Option<BlockStream<Box<dyn Read + Send>>>,
    next_source: usize,
    /// Bytes of the sources before that one.
    bytes_before: u64,
    /// Noted blocks by parent.
    waiting: HashMap<BlockHash, Vec<Place>>,
    /// Noted blocks whose parent has come.
    ready: VecDeque<Place>,
    progress: ImportProgress,
}

impl Import {
    /// Prepares to import files as Bitcoin Core writes them; a folder stands for all its block files. An `xor.dat`
    /// beside them is used where the bytes ask for it.
    ///
    /// # Errors
    /// [`ImportError`] when one of them cannot be read.
    pub fn open(chain: &Chain, paths: &[PathBuf]) -> Result<Self, ImportError> {
        let magic = chain.params().magic;
        let mut import = Self::empty(chain);
        for path in paths {
            let read = |source| ImportError::Read {
                path: path.clone(),
                source,
            };
            let meta = std::fs::metadata(path).map_err(read)?;
            if !meta.is_dir() {
                import.add_foreign(path, magic).map_err(read)?;
                continue;
            }
            let found = block_files(path).map_err(read)?;
            if found.is_empty() {
                return Err(ImportError::NoBlockFiles(path.clone()));
            }
            for path in found {
                let read = |source| ImportError::Read {
                    path: path.clone(),
                    source,
                };
                import.add_foreign(&path, magic).map_err(read)?;
            }
        }
        Ok(import)
    }

    /// Prepares to find every block in our own files.
    pub(crate) fn own(chain: &Chain) -> Result<Self, StoreError> {
        let mut import = Self::empty(chain);
        for name in import.files.list()? {
            if let Some(number) = number(&name) {
                import.progress.bytes_total += import.files.len(&name)?.unwrap_or(0);
                import.sources.push(Source::Own(number));
            }
        }
        Ok(import)
    }

    fn empty(chain: &Chain) -> Self {
        Self {
            magic: chain.params().magic,
            files: chain.files(),
            sources: Vec::new(),
            stream: None,
            next_source: 0,
            bytes_before: 0,
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            progress: ImportProgress::default(),
        }
    }

    fn add_foreign(&mut self, path: &Path, magic: [u8; 4]) -> io::Result<()> {
        let mut head = [0; 4];
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let has_head = file.read_exact(&mut head).is_ok();
        let beside = path.parent().unwrap_or(Path::new("")).join("xor.dat");
        let key = match std::fs::read(beside).map(Key::try_from) {
            Ok(Ok(key)) if !(has_head && head == magic) => key,
            _ => Key::default(),
        };
        self.progress.bytes_total += bytes;
        self.sources.push(Source::Foreign {
            path: path.to_owned(),
            key,
        });
        Ok(())
    }

    /// How far it has come.
    pub fn progress(&self) -> ImportProgress {
        let here = self.stream.as_ref().map_or(0, BlockStream::position);
        ImportProgress {
            bytes_done: self.bytes_before + here,
            ..self.progress
        }
    }

    /// Gives the chain some more blocks; `None` when all files were read. A block that breaks a rule is counted and
    /// left out.
    ///
    /// # Errors
    /// [`ImportError`]: nothing more can be imported.
    pub fn step(&mut self, chain: &mut Chain, now_unix: u64) -> Result<Option<BlockOutcome>, ImportError> {
        let mut outcome = BlockOutcome::default();
        let mut bytes = 0u64;
        while bytes < STEP_BYTES {
            if let Some(place) = self.ready.pop_front() {
                let raw = self.read_again(&place)?;
                bytes += raw.len() as u64;
                self.progress.waiting -= 1;
                self.take(chain, now_unix, place, raw, &mut outcome)?;
                continue;
            }
            let Some(source) = self.current()? else {
                chain.write_index()?;
                return Ok((bytes > 0).then_some(outcome));
            };
            let Some(stream) = self.stream.as_mut() else { continue };
            let before = stream.position();
            let frame = stream
                .next()
                .map_err(|error| read_error(&self.sources, source, error))?;
            bytes += stream.position() - before;
            let Some(frame) = frame else {
                self.bytes_before += stream.bytes_read();
                self.stream = None;
                continue;
            };
            let place = Place {
                source,
                offset: frame.offset,
                len: u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX),
            };
            if !self.take(chain, now_unix, place, frame.bytes, &mut outcome)?
                && let Some(stream) = self.stream.as_mut()
            {
                stream.reject();
            }
        }
        chain.write_index()?;
        Ok(Some(outcome))
    }

    /// The number of the source that is being read, opened if need be; `None` when all were read.
    fn current(&mut self) -> Result<Option<usize>, ImportError> {
        if self.stream.is_none() {
            let source = self.next_source;
            let Some(at) = self.sources.get(source) else {
                return Ok(None);
            };
            let (input, key): (Box<dyn Read + Send>, Key) = match at {
                Source::Foreign { path, key } => {
                    let file = File::open(path).map_err(|error| read_error(&self.sources, source, error))?;
                    (Box::new(file), *key)
                }
                Source::Own(number) => (Box::new(OwnFile::open(&self.files, *number)?), Key::default()),
            };
            self.stream = Some(BlockStream::new(input, self.magic, key));
            self.next_source += 1;
        }
        Ok(self.next_source.checked_sub(1))
    }

    /// Gives one block to the chain, or notes it for later; `false` when the bytes are no block.
    fn take(
        &mut self,
        chain: &mut Chain,
        now_unix: u64,
        place: Place,
        raw: Bytes,
        outcome: &mut BlockOutcome,
    ) -> Result<bool, ImportError> {
        let Some(header) = raw.get(..80).and_then(|bytes| deserialize::<Header>(bytes).ok()) else {
            return Ok(false);
        };
        let (hash, view) = (header.block_hash(), chain.view());
        let entry = view.entry(&hash);
        if entry.is_some_and(|entry| (entry.have_data || entry.pruned) && entry.status != Status::Invalid) {
            self.progress.known += 1;
            self.release(&hash);
            return Ok(true);
        }
        let Ok(block) = ParsedBlock::parse(raw) else {
            return Ok(false);
        };
        if view.entry(&header.prev_blockhash).is_none() && hash != chain.params().genesis_hash {
            self.waiting.entry(header.prev_blockhash).or_default().push(place);
            self.progress.waiting += 1;
            return Ok(true);
        }
        let result = match self.sources.get(place.source) {
            Some(Source::Own(file)) => {
                let at = Location::of(*file, place.offset, &block.raw);
                chain
                    .adopt_block(now_unix, &block, at)
                    .map(|()| BlockOutcome::default())
            }
            _ => chain.accept_block(now_unix, block),
        };
        match result {
            Ok(mut accepted) => {
                outcome.changes.append(&mut accepted.changes);
                outcome.rejected.append(&mut accepted.rejected);
                outcome.more = accepted.more;
                self.progress.new += 1;
                self.release(&hash);
            }
            Err(BlockError::Store(error)) => return Err(error.into()),
            Err(BlockError::MissingParent(_)) => {}
            Err(BlockError::Invalid(reject)) => {
                tracing::debug!(block = %hash, %reject, "a block to import breaks a rule");
                self.progress.refused += 1;
            }
        }
        Ok(true)
    }

    /// The block is known: those built on it have their turn.
    fn release(&mut self, hash: &BlockHash) {
        self.ready.extend(self.waiting.remove(hash).unwrap_or_default());
    }

    /// A noted block's bytes.
    fn read_again(&self, place: &Place) -> Result<Bytes, ImportError> {
        let body = place.offset + FRAME;
        let len = place.len as usize;
        match self.sources.get(place.source) {
            Some(Source::Foreign { path, key }) => {
                let read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(body))?;
                    let mut bytes = vec![0; len];
                    file.read_exact(&mut bytes)?;
                    unmask(&mut bytes, body, *key);
                    Ok(bytes.into())
                };
                read().map_err(|error| read_error(&self.sources, place.source, error))
            }
            Some(Source::Own(number)) => Ok(self.files.read_at(&Kind::Block.name(*number), body, len)?.into()),
            None => Ok(Bytes::new()),
        }
    }
}

fn read_error(sources: &[Source], source: usize, error: io::Error) -> ImportError {
    let path = match sources.get(source) {
        Some(Source::Foreign { path, .. }) => path.clone(),
        Some(Source::Own(number)) => PathBuf::from(Kind::Block.name(*number)),
        None => PathBuf::new(),
    };
    ImportError::Read { path, source: error }
}

/// The number of a block file of this name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("blk")?.strip_suffix(".dat")?;
    let decimal = digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| digits.parse().ok()).flatten()
}

/// The block files of a folder in the order of their numbers.
fn block_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(number) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// One of our own files as a stream.
struct OwnFile {
    files: Arc<dyn Files>,
    name: String,
    at: u64,
    len: u64,
}

impl OwnFile {
    fn open(files: &Arc<dyn Files>, number: u32) -> Result<Self, StoreError> {
        let name = Kind::Block.name(number);
        Ok(Self {
            len: files.len(&name)?.unwrap_or(0),
            files: Arc::clone(files),
            name,
            at: 0,
        })
    }
}

impl Read for OwnFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let count = buffer.len().min(rest);
        let bytes = self
            .files
            .read_at(&self.name, self.at, count)
            .map_err(io::Error::other)?;
        buffer[..count].copy_from_slice(&bytes);
        self.at += count as u64;
        Ok(count)
    }
}
