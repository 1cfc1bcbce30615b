//! A store for what is written once, read once and removed: layers in memory over sorted runs in files.
//!
//! Changes gather in a layer in memory. [`Layered::freeze`] sets the layer aside, with a mark that says what it amounts
//! to, and begins a new one; in the background, or step by step, the frozen layer becomes a run and the manifest
//! names it. So what is on disk is at every instant all that was frozen up to some mark, and nothing of what came
//! later. What was put and removed within one layer is never written. Afterwards the layer stays in memory to be read,
//! until the next one is frozen.
//!
//! A look-up goes through the layers, the newest first, then through the runs whose filter does not rule the key out.
//! Runs are merged in the background when there are many; see [`merge`].

mod arena;
mod block;
mod draft;
mod filter;
mod layer;
mod manifest;
mod mend;
mod merge;
mod run;
mod work;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

pub use draft::Draft;
pub use mend::{Damage, Pairs};

use layer::Layer;
use manifest::Manifest;
use merge::Merged;
use run::Run;
use work::{Flush, Work};

use crate::{Files, Step, StoreError};

/// What has to be durable before a frozen layer's mark may be: called by whoever writes the layer, again after an
/// error.
pub type Barrier = Box<dyn FnMut() -> Result<(), StoreError> + Send>;

/// Who writes frozen layers and merges runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own.
    #[default]
    Background,
    /// Whoever calls [`Layered::step`], a bounded piece with each call: the same order of writes from run to run.
    Steps,
}

/// Changes that become visible together; later ones of a key win.
#[derive(Debug, Default)]
pub struct Changes {
    data: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    key: Range<usize>,
    /// `None`: the key is removed.
    value: Option<Range<usize>>,
    fresh: bool,
}

impl Changes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        start..self.data.len()
    }

    /// Sets `key` (1 to 255 bytes) to what `write` appends (at most 60,000 bytes). `fresh` is a promise that the key
    /// has no value now: when it is removed soon, nothing of it is ever written.
    pub fn put(&mut self, key: &[u8], fresh: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let key = self.append(key);
        let start = self.data.len();
        write(&mut self.data);
        let value = Some(start..self.data.len());
        self.items.push(Item { key, value, fresh });
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &[u8]) {
        let key = self.append(key);
        self.items.push(Item {
            key,
            value: None,
            fresh: false,
        });
    }
}

/// The store; shared by one writer and any number of readers.
pub struct Layered {
    core: Arc<Core>,
    writing: Writing,
    thread: Option<JoinHandle<()>>,
}

/// What readers, the writer and the background thread share.
struct Core {
    files: Arc<dyn Files>,
    prefix: String,
    seed: u64,
    layers: RwLock<Layers>,
    work: Work,
    /// Somebody came upon a damaged block.
    damage_met: AtomicBool,
}

/// A state: the layers in memory, the newest first, and the runs, the oldest first.
struct Layers {
    active: Layer,
    frozen: Option<Arc<Layer>>,
    /// What was frozen before and is on disk.
    clean: Option<Arc<Layer>>,
    runs: Arc<Vec<Arc<Run>>>,
    mark: Option<Box<[u8]>>,
}

impl Layers {
    /// Looks into the layers: `Some(None)` when the key was removed, `None` when they do not know.
    fn get(&self, hash: u64, key: &[u8]) -> Option<Option<&[u8]>> {
        self.active
            .get(hash, key)
            .or_else(|| self.frozen.as_ref()?.get(hash, key))
            .or_else(|| self.clean.as_ref()?.get(hash, key))
    }
}

impl Core {
    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        // Every change under the lock leaves the layers whole at every step.
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn search<T>(
        runs: &[Arc<Run>],
        hash: u64,
        key: &[u8],
        see: &mut impl FnMut(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        for run in runs.iter().rev() {
            if let Some(found) = run.get(hash, key, see)? {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Layered {
    /// Opens the store whose files begin with `prefix`, creating it when there is none. Files of it that were never
    /// finished are removed.
    ///
    /// # Errors
    /// [`StoreError`] when a file cannot be read or is damaged.
    pub fn open(files: Arc<dyn Files>, prefix: &str, writing: Writing) -> Result<Self, StoreError> {
        let manifest = Manifest::load(&*files, prefix)?.unwrap_or_else(|| Manifest {
            seed: RandomState::new().hash_one(prefix),
            ..Manifest::default()
        });
        let mut names: BTreeSet<String> = (0..2).map(|number| manifest::file_name(prefix, number)).collect();
        let mut runs = Vec::new();
        for meta in &manifest.runs {
            names.insert(run::file_name(prefix, meta.number));
            runs.push(Arc::new(Run::open(&files, prefix, *meta)?));
        }
        for name in files.list()? {
            if name.starts_with(&format!("{prefix}-")) && !names.contains(&name) {
                files.remove(&name)?;
            }
        }
        let layers = Layers {
            active: Layer::new(manifest.seed),
            frozen: None,
            clean: None,
            runs: Arc::new(runs),
            mark: manifest.mark.clone(),
        };
        let core = Arc::new(Core {
            files,
            prefix: prefix.to_owned(),
            seed: manifest.seed,
            layers: RwLock::new(layers),
            work: Work::new(manifest),
            damage_met: AtomicBool::new(false),
        });
        let thread = match writing {
            Writing::Steps => None,
            Writing::Background => {
                let core = Arc::clone(&core);
                let started = std::thread::Builder::new()
                    .name(prefix.to_owned())
                    .spawn(move || core.work_until_stopped());
                Some(started.map_err(|error| StoreError::from_io(std::path::Path::new(prefix), error))?)
            }
        };
        Ok(Self { core, writing, thread })
    }

    /// The mark of the newest frozen layer that is on disk; `None` before the first.
    pub fn mark(&self) -> Option<Box<[u8]>> {
        self.core.read().mark.clone()
    }

    /// Looks a key up and shows its value to `see`. The answer is that of one state, even while layers move to disk.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the place of a damaged record.
    pub fn get<T>(&self, key: &[u8], mut see: impl FnMut(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        self.search(layer::hash(self.core.seed, key), key, &mut see)
    }

    /// [`Layered::get`] with the key's hash.
    fn search<T>(&self, hash: u64, key: &[u8], see: &mut impl FnMut(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        let runs = {
            let layers = self.core.read();
            if let Some(found) = layers.get(hash, key) {
                return Ok(found.map(see));
            }
            Arc::clone(&layers.runs)
        };
        Core::search(&runs, hash, key, see).inspect_err(|_| self.core.damage_met.store(true, Ordering::Relaxed))
    }

    /// Says that keys will be looked up soon: the system is asked to read those that are only on disk. Any thread may do
    /// that at any time.
    pub fn will_need<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let (wanted, runs) = {
            let layers = self.core.read();
            if layers.runs.is_empty() {
                return;
            }
            let keys = keys.map(|key| (layer::hash(self.core.seed, key), key));
            let wanted: Vec<(u64, &[u8])> = keys.filter(|(hash, key)| layers.get(*hash, key).is_none()).collect();
            (wanted, Arc::clone(&layers.runs))
        };
        for (hash, key) in wanted {
            // In which run a key is, only its filter says: the newest that may have it.
            if let Some(run) = runs.iter().rev().find(|run| run.may_have(hash)) {
                run.will_need(key);
            }
        }
    }

    /// Makes changes visible, all at once; `with` runs while readers are still kept out.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a key or value has no permitted length, or a layer has grown beyond 32 GiB.
    pub fn publish<T>(&self, changes: &Changes, with: impl FnOnce() -> T) -> Result<T, StoreError> {
        let seed = self.core.seed;
        // What can be prepared is prepared before readers are kept out.
        let mut ready = Vec::with_capacity(changes.items.len());
        for item in &changes.items {
            let key = &changes.data[item.key.clone()];
            let value = item.value.clone().map(|range| &changes.data[range]);
            if key.is_empty() || key.len() > layer::MAX_KEY || value.is_some_and(|v| v.len() > layer::MAX_VALUE) {
                return Err(layer::unfit());
            }
            ready.push(layer::Change {
                hash: layer::hash(seed, key),
                key,
                value,
                fresh: item.fresh,
            });
        }
        self.apply(ready.into_iter(), with)
    }

    /// Puts changes of permitted lengths into the layer in memory, all at once.
    fn apply<'a, T>(
        &self,
        changes: impl Iterator<Item = layer::Change<'a>>,
        with: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        let mut layers = self.core.write();
        for change in changes {
            if !layers.active.apply(&change) {
                return Err(StoreError::corrupt("a layer in memory that has grown too large"));
            }
        }
        Ok(with())
    }

    /// Memory of the changes that were not frozen yet.
    pub fn active_bytes(&self) -> usize {
        self.core.read().active.bytes()
    }

    /// Memory of changes that are not on disk: those that were not frozen and those that are on their way.
    pub fn unwritten_bytes(&self) -> usize {
        let layers = self.core.read();
        layers.active.bytes() + layers.frozen.as_ref().map_or(0, |layer| layer.bytes())
    }

    /// Memory of what is kept of the runs to find keys in them.
    pub fn index_bytes(&self) -> usize {
        self.core.read().runs.iter().map(|run| run.memory()).sum()
    }

    /// Memory of everything: layers, and what is kept of the runs.
    pub fn bytes(&self) -> usize {
        let layers = self.core.read();
        let shared = |layer: &Option<Arc<Layer>>| layer.as_ref().map_or(0, |layer| layer.bytes());
        layers.active.bytes()
            + shared(&layers.frozen)
            + shared(&layers.clean)
            + layers.runs.iter().map(|run| run.memory()).sum::<usize>()
    }

    /// Lets go of what was written and is in memory only to be read again.
    pub fn forget_clean(&self) {
        let clean = self.core.write().clean.take();
        // Readers are not kept waiting while the memory goes back.
        drop(clean);
    }

    /// Sets all changes so far aside to be written, with `mark`; `barrier` runs before the mark is on disk. Waits for
    /// the layer that was frozen before, if it is still being written.
    ///
    /// # Errors
    /// [`StoreError`] of the layer frozen before; nothing was frozen then, and the next call tries again.
    pub fn freeze(&self, mark: &[u8], barrier: Barrier) -> Result<(), StoreError> {
        self.wait()?;
        let (layer, clean);
        {
            let mut layers = self.core.write();
            layer = Arc::new(std::mem::replace(&mut layers.active, Layer::new(self.core.seed)));
            layers.frozen = Some(Arc::clone(&layer));
            clean = layers.clean.take();
        }
        drop(clean);
        self.core.work.begin(Flush::new(layer, mark.into(), barrier));
        Ok(())
    }

    /// Waits until what was frozen is on disk.
    ///
    /// # Errors
    /// [`StoreError`]; what was frozen stays in memory, and the next call tries again.
    pub fn wait(&self) -> Result<(), StoreError> {
        match self.writing {
            Writing::Background => self.core.work.wait(),
            Writing::Steps => {
                while self.core.work.is_flushing() {
                    self.core.step()?;
                }
                Ok(())
            }
        }
    }

    /// Does a piece of the work that is left, when nobody else does; tells of errors in the background.
    ///
    /// # Errors
    /// [`StoreError`] of writing; it is tried again.
    pub fn step(&self) -> Result<(), StoreError> {
        match self.writing {
            Writing::Background => self.core.work.check(),
            Writing::Steps => self.core.step().map(|_| ()),
        }
    }

    /// Ends all writing for good: nothing is written once this has returned, and what was frozen before may not be.
    pub fn stop(&self) {
        self.core.work.stop();
    }

    /// What is on disk now: the state of the newest mark, whatever is written later.
    pub fn snapshot(&self) -> Snapshot {
        let layers = self.core.read();
        Snapshot {
            runs: Arc::clone(&layers.runs),
            mark: layers.mark.clone(),
        }
    }

    /// Empties a store that is not open or was stopped, in one durable step; then its files go.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn erase(files: &dyn Files, prefix: &str) -> Result<(), StoreError> {
        if let Some(manifest) = Manifest::load(files, prefix)?
            && (manifest.mark.is_some() || !manifest.runs.is_empty())
        {
            let empty = Manifest {
                number: manifest.number + 1,
                mark: None,
                runs: Vec::new(),
                ..manifest
            };
            empty.save(files, prefix)?;
        }
        // What a power loss brings back, opening removes again.
        for name in files.list()? {
            if name.starts_with(&format!("{prefix}-")) && name.ends_with(run::SUFFIX) {
                files.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// What was on disk at one instant.
pub struct Snapshot {
    runs: Arc<Vec<Arc<Run>>>,
    mark: Option<Box<[u8]>>,
}

impl Snapshot {
    /// The mark of the state; `None` when nothing was ever frozen.
    pub fn mark(&self) -> Option<&[u8]> {
        self.mark.as_deref()
    }

    /// Bytes of the files in which it lies.
    pub fn bytes(&self) -> u64 {
        self.runs
            .iter()
            .map(|run| run.meta.blocks_len + run.meta.filter_len)
            .sum()
    }

    /// Shows every pair whose key is not below `from`, in key order, until `visit` says [`Step::Stop`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the place of a damaged record.
    pub fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        let mut merged = Merged::new(&self.runs, from)?;
        while let Some((key, value)) = merged.record() {
            if let Some(value) = value
                && visit(key, value) == Step::Stop
            {
                break;
            }
            merged.advance()?;
        }
        Ok(())
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        self.core.work.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was a bug, and was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Locks what is whole at every step, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
