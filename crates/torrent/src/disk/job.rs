//! What the engine asks of the disk, and what it gets back.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::DiskError;
use crate::resume::Resume;
use crate::wire::Block;
use crate::{Bitfield, InfoHash, Metainfo};

/// Work on one torrent's files. A torrent has to be opened before anything else is asked of it.
#[derive(Clone, Debug)]
pub enum Job {
    /// Makes a torrent known, looks at which of its files are there, creates its empty files.
    /// Opening a torrent that is open starts afresh.
    Open {
        /// What its files are.
        metainfo: Arc<Metainfo>,
        /// The folder under which all of them stay.
        dir: PathBuf,
        /// What an earlier run verified. Pieces of files that changed since then are not believed.
        resume: Option<Arc<Resume>>,
        /// Nothing is ever created or written.
        read_only: bool,
    },
    /// Reads and hashes pieces that may be on disk. Jobs for several ranges may run side by side.
    Check {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which pieces; [`Opened::unknown`] has ranges of a good size.
        pieces: Range<u32>,
    },
    /// Hashes a piece from its blocks and, when it is good, writes it.
    WritePiece {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which piece.
        piece: u32,
        /// The whole piece, in order.
        blocks: Vec<Bytes>,
    },
    /// Reads a block for a peer.
    ReadBlock {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which block.
        block: Block,
        /// The asker's own number, given back.
        ticket: u64,
    },
    /// Makes everything written so far survive a power cut.
    Flush {
        /// Which torrent.
        info_hash: InfoHash,
    },
    /// Flushes, then replaces the torrent's resume file. `resume.files` is filled in by the disk.
    SaveResume {
        /// What to save; `resume.have` names only pieces whose `WritePiece` or `Check` is done.
        resume: Box<Resume>,
        /// Where.
        file: PathBuf,
    },
    /// Forgets a torrent.
    Close {
        /// Which torrent.
        info_hash: InfoHash,
        /// Also deletes its files, and its folders where they are empty then.
        delete_files: bool,
        /// Also deletes this resume file.
        resume_file: Option<PathBuf>,
    },
}

impl Job {
    /// The torrent that the job is about.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Open { metainfo, .. } => metainfo.info_hash,
            Self::SaveResume { resume, .. } => resume.info_hash,
            Self::Check { info_hash, .. }
            | Self::WritePiece { info_hash, .. }
            | Self::ReadBlock { info_hash, .. }
            | Self::Flush { info_hash }
            | Self::Close { info_hash, .. } => *info_hash,
        }
    }
}

/// A job's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// To [`Job::Open`].
    Opened {
        /// Which torrent.
        info_hash: InfoHash,
        /// What is there.
        result: Result<Opened, DiskError>,
    },
    /// To [`Job::Check`].
    Checked {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which pieces.
        pieces: Range<u32>,
        /// Those of them that are whole and right, rising.
        result: Result<Vec<u32>, DiskError>,
    },
    /// To [`Job::WritePiece`].
    Written {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which piece.
        piece: u32,
        /// Whether it was right; an error means that it is not on disk.
        result: Result<Verdict, DiskError>,
    },
    /// To [`Job::ReadBlock`].
    Read {
        /// Which torrent.
        info_hash: InfoHash,
        /// Which block.
        block: Block,
        /// The asker's number.
        ticket: u64,
        /// The bytes.
        result: Result<Bytes, DiskError>,
    },
    /// To [`Job::Flush`].
    Flushed {
        /// Which torrent.
        info_hash: InfoHash,
        /// Whether it worked.
        result: Result<(), DiskError>,
    },
    /// To [`Job::SaveResume`].
    ResumeSaved {
        /// Which torrent.
        info_hash: InfoHash,
        /// Whether it worked.
        result: Result<(), DiskError>,
    },
    /// To [`Job::Close`].
    Closed {
        /// Which torrent.
        info_hash: InfoHash,
        /// Whether everything asked for could be deleted.
        result: Result<(), DiskError>,
    },
}

impl Done {
    /// The torrent that the job was about.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Opened { info_hash, .. }
            | Self::Checked { info_hash, .. }
            | Self::Written { info_hash, .. }
            | Self::Read { info_hash, .. }
            | Self::Flushed { info_hash, .. }
            | Self::ResumeSaved { info_hash, .. }
            | Self::Closed { info_hash, .. } => *info_hash,
        }
    }
}

/// What [`Job::Open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Pieces verified by an earlier run, in files unchanged since.
    pub have: Bitfield,
    /// Pieces that may be on disk and have to be checked, in ranges fit for one [`Job::Check`] each. Pieces neither
    /// here nor in `have` are missing.
    pub unknown: Vec<Range<u32>>,
}

/// Whether a piece was what the torrent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was, and it is written.
    Verified,
    /// It was not, and nothing is written.
    HashMismatch {
        /// SHA-1 of each block, so that the good piece shows later whose block was bad.
        block_hashes: Vec<[u8; 20]>,
    },
}
