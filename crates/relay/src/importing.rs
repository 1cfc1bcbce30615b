//! Importing files and finding our own blocks anew, in pieces between the commit thread's other jobs.

use std::path::PathBuf;
use std::time::Duration;

use dunlin_chain::{BlockOutcome, Chain, Import, ImportError, StoreError};
use dunlin_peer::Now;

/// How often the log tells how far it has come.
const TELL: Duration = Duration::from_secs(5);

/// Files that are being read, one after the other.
pub struct Importing {
    /// Blocks of our own files, while the index is made anew.
    own: Option<Import>,
    /// Blocks of other nodes' files.
    foreign: Option<Import>,
    told: Option<Now>,
}

impl Importing {
    /// What there is to read: our own files when the index is being made anew, and those of `paths`. `None` when that
    /// is nothing.
    ///
    /// # Errors
    /// [`ImportError`] when one of them cannot be read.
    pub fn new(chain: &Chain, paths: &[PathBuf]) -> Result<Option<Self>, ImportError> {
        let own = if chain.is_reindexing() {
            Some(chain.find_own_blocks()?)
        } else {
            None
        };
        let foreign = if paths.is_empty() {
            None
        } else {
            Some(Import::open(chain, paths)?)
        };
        Ok((own.is_some() || foreign.is_some()).then_some(Self {
            own,
            foreign,
            told: None,
        }))
    }

    /// Reads a piece; `None` when nothing is left. A file of another node that fails ends only its own import.
    pub(crate) fn step(&mut self, chain: &mut Chain, now: Now) -> Result<Option<BlockOutcome>, StoreError> {
        let what = if self.own.is_some() {
            "finding blocks"
        } else {
            "importing blocks"
        };
        let Some(import) = self.own.as_mut().or(self.foreign.as_mut()) else {
            return Ok(None);
        };
        let result = import.step(chain, now.unix_secs());
        let progress = import.progress();
        if self.told.is_none_or(|told| now.since(told) >= TELL) {
            self.told = Some(now);
            let percent = progress.bytes_done.saturating_mul(100) / progress.bytes_total.max(1);
            tracing::info!("{what}: {percent} %, {} new, {} known", progress.new, progress.known);
        }
        let failed = match result {
            Ok(Some(outcome)) => return Ok(Some(outcome)),
            Ok(None) => None,
            Err(ImportError::Store(error)) => return Err(error),
            Err(error) => Some(error),
        };
        let counts = format!(
            "{} new blocks, {} known, {} refused, {} without a parent",
            progress.new, progress.known, progress.refused, progress.waiting
        );
        match failed {
            Some(error) => tracing::error!("{what} stopped: {error}; {counts}"),
            None => tracing::info!("{what}: done; {counts}"),
        }
        if self.own.take().is_some() {
            chain.finish_reindex()?;
        } else {
            self.foreign = None;
        }
        Ok(Some(BlockOutcome::default()))
    }
}
