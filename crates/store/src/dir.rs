//! [`Files`] in a directory of the file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::Advice;

use crate::{Files, StoreError};

/// How many files stay open.
const MAX_OPEN: usize = 64;
/// Memory for a read of up to this many bytes is taken without a look at the file's size.
const UNASKED: usize = 64 << 10;

/// A directory with nothing but our files in it.
#[derive(Debug)]
pub struct DirFiles {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<String, Arc<File>>,
    /// Files whose directory entry is not yet durable.
    created: BTreeSet<String>,
}

impl DirFiles {
    /// Opens the directory, creating it when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be created.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|error| StoreError::from_io(dir, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a cache of open handles: valid whatever a panicking thread was doing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The open file; `Ok(None)` when it is not there and is not to be created.
    fn file(&self, name: &str, create: bool) -> Result<Option<Arc<File>>, StoreError> {
        let mut state = self.state();
        if let Some(file) = state.open.get(name) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = self.path(name);
        let mut options = File::options();
        options.read(true).write(true);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !create {
                    return Ok(None);
                }
                let file = options
                    .create(true)
                    .open(&path)
                    .map_err(|error| StoreError::from_io(&path, error))?;
                state.created.insert(name.to_owned());
                file
            }
            Err(error) => return Err(StoreError::from_io(&path, error)),
        };
        if state.open.len() >= MAX_OPEN {
            state.open.pop_first();
        }
        let file = Arc::new(file);
        state.open.insert(name.to_owned(), Arc::clone(&file));
        Ok(Some(file))
    }
}

impl Files for DirFiles {
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let file = self.file(name, true)?.ok_or_else(|| StoreError::corrupt(name))?;
        file.write_all_at(data, offset)
            .map_err(|error| StoreError::from_io(&self.path(name), error))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let io = |error| StoreError::from_io(&self.path(name), error);
        let short = || StoreError::corrupt(format!("{} at byte {offset}", self.path(name).display()));
        let file = self.file(name, false)?.ok_or_else(short)?;
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        let end = end.filter(|end| i64::try_from(*end).is_ok()).ok_or_else(short)?;
        // What is short is read without asking for the file's size first: that would take as long as the read.
        if len > UNASKED && end > file.metadata().map_err(io)?.len() {
            return Err(short());
        }
        let mut data = vec![0; len];
        match file.read_exact_at(&mut data, offset) {
            Ok(()) => Ok(data),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(short()),
            Err(error) => Err(io(error)),
        }
    }

    fn will_need(&self, name: &str, offset: u64, len: u64) {
        if let (Ok(Some(file)), Some(len)) = (self.file(name, false), NonZeroU64::new(len)) {
            // Who reads will see what is wrong.
            let _ = rustix::fs::fadvise(&*file, offset, Some(len), Advice::WillNeed);
        }
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match fs::metadata(self.path(name)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from_io(&self.path(name), error)),
        }
    }

    fn sync(&self, name: &str) -> Result<(), StoreError> {
        let Some(file) = self.file(name, false)? else {
            return Ok(());
        };
        file.sync_data()
            .map_err(|error| StoreError::from_io(&self.path(name), error))?;
        if self.state().created.contains(name) {
            File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(|error| StoreError::from_io(&self.dir, error))?;
            self.state().created.remove(name);
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        let io = |error| StoreError::from_io(&self.dir, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        state.open.remove(name);
        state.created.remove(name);
        match fs::remove_file(self.path(name)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::from_io(&self.path(name), error)),
        }
    }
}
