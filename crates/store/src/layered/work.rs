//! What happens behind the writer's back: frozen layers become runs, runs become fewer.
//!
//! Both go in bounded steps, and a frozen layer goes before a merge. Each ends with a manifest: until that is durable,
//! nothing of it counts, and what was written is written over or removed when the store is opened again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::layer::{Layer, SHARDS};
use super::manifest::Manifest;
use super::merge::{self, Merged};
use super::run::{Meta, Run, Writer};
use super::{Barrier, Core, lock};
use crate::StoreError;

/// Records that one step of a merge takes.
const MERGE_STEP: usize = 20_000;
/// Parts of a layer that one step writes.
const FLUSH_STEP: usize = 16;

/// A frozen layer on its way to disk.
pub(super) struct Flush {
    layer: Arc<Layer>,
    mark: Box<[u8]>,
    barrier: Barrier,
    writer: Option<Writer>,
    shard: usize,
}

impl Flush {
    pub(super) fn new(layer: Arc<Layer>, mark: Box<[u8]>, barrier: Barrier) -> Self {
        Self {
            layer,
            mark,
            barrier,
            writer: None,
            shard: 0,
        }
    }
}

/// Runs on their way to become one.
pub(super) struct Merge {
    inputs: Vec<Arc<Run>>,
    /// No older run is left out: what was removed need not be remembered.
    to_the_oldest: bool,
    merged: Merged,
    writer: Writer,
}

/// The work to be done, and who waits for it.
pub(super) struct Work {
    /// Only one at a time does a step.
    pub(super) job: Mutex<Job>,
    signal: Mutex<Signal>,
    changed: Condvar,
}

pub(super) struct Job {
    pub(super) manifest: Manifest,
    flush: Option<Flush>,
    pub(super) merge: Option<Merge>,
    /// A damaged run was met: nothing is merged until it is mended or the store is opened again.
    pub(super) no_merges: bool,
}

#[derive(Default)]
struct Signal {
    /// A layer that nobody has begun to write.
    next: Option<Flush>,
    /// A frozen layer is not on disk yet.
    flushing: bool,
    /// There may be something to do.
    awake: bool,
    error: Option<StoreError>,
    stop: bool,
}

impl Work {
    pub(super) fn new(manifest: Manifest) -> Self {
        Self {
            job: Mutex::new(Job {
                manifest,
                flush: None,
                merge: None,
                no_merges: false,
            }),
            signal: Mutex::new(Signal {
                awake: true,
                ..Signal::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// Hands a frozen layer over; none is being written.
    pub(super) fn begin(&self, flush: Flush) {
        let mut signal = lock(&self.signal);
        signal.next = Some(flush);
        signal.flushing = true;
        signal.awake = true;
        self.changed.notify_all();
    }

    pub(super) fn is_flushing(&self) -> bool {
        lock(&self.signal).flushing
    }

    /// Waits for the background thread to write the frozen layer.
    pub(super) fn wait(&self) -> Result<(), StoreError> {
        let mut signal = lock(&self.signal);
        loop {
            if let Some(error) = signal.error.take() {
                return Err(error);
            }
            if !signal.flushing {
                return Ok(());
            }
            if !signal.awake {
                signal.awake = true;
                self.changed.notify_all();
            }
            signal = self.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells of an error in the background, once, and has the work tried again.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let mut signal = lock(&self.signal);
        match signal.error.take() {
            None => Ok(()),
            Some(error) => {
                signal.awake = true;
                self.changed.notify_all();
                Err(error)
            }
        }
    }

    /// Ends all work; nothing is written any more once this has returned.
    pub(super) fn stop(&self) {
        lock(&self.signal).stop = true;
        self.changed.notify_all();
        // Whoever is in a step holds this.
        drop(lock(&self.job));
    }
}

impl Core {
    /// The background thread.
    pub(super) fn work_until_stopped(&self) {
        loop {
            {
                let mut signal = lock(&self.work.signal);
                while !signal.awake && !signal.stop {
                    signal = self.work.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
                }
                if signal.stop {
                    return;
                }
                signal.awake = false;
            }
            let result = self.step();
            let mut signal = lock(&self.work.signal);
            match result {
                Ok(more) => signal.awake |= more,
                Err(error) => signal.error = Some(error),
            }
            self.work.changed.notify_all();
        }
    }

    /// Does one bounded piece of work; `false` when there is none.
    pub(super) fn step(&self) -> Result<bool, StoreError> {
        let mut job = lock(&self.work.job);
        {
            let mut signal = lock(&self.work.signal);
            if signal.stop {
                return Ok(false);
            }
            if let Some(next) = signal.next.take() {
                job.flush = Some(next);
            }
        }
        if job.flush.is_some() {
            let result = self.step_flush(&mut job);
            if let (Err(_), Some(flush)) = (&result, &mut job.flush) {
                // The file may be anything now: it is written again from its beginning.
                flush.writer = None;
                flush.shard = 0;
            }
            return result.map(|()| true);
        }
        if job.no_merges {
            return Ok(false);
        }
        match self.go_on_merging(&mut job) {
            Ok(more) => Ok(more),
            Err(StoreError::Corrupt { .. }) => {
                // Until the damaged records are mended all stays as it is.
                self.damage_met.store(true, Ordering::Relaxed);
                job.merge = None;
                job.no_merges = true;
                Ok(false)
            }
            Err(error) => {
                job.merge = None;
                Err(error)
            }
        }
    }

    /// Merges a piece; `false` when nothing is to be merged.
    fn go_on_merging(&self, job: &mut Job) -> Result<bool, StoreError> {
        if job.merge.is_none() {
            job.merge = self.begin_merge(&mut job.manifest)?;
        }
        if job.merge.is_none() {
            return Ok(false);
        }
        self.step_merge(job).map(|()| true)
    }

    fn step_flush(&self, job: &mut Job) -> Result<(), StoreError> {
        let Job { manifest, flush, .. } = job;
        let Some(work) = flush else { return Ok(()) };
        let writer = work.writer.get_or_insert_with(|| {
            let number = manifest.next_run;
            manifest.next_run += 1;
            Writer::new(&self.files, &self.prefix, self.seed, number, work.layer.len() as u64)
        });
        if work.shard < SHARDS {
            let end = (work.shard + FLUSH_STEP).min(SHARDS);
            for shard in work.shard..end {
                for slot in work.layer.sorted(shard) {
                    let (key, value) = work.layer.record(slot);
                    writer.add(key, value)?;
                }
            }
            work.shard = end;
            return Ok(());
        }
        let Some(writer) = work.writer.take() else {
            return Ok(());
        };
        let new = writer.finish()?;
        (work.barrier)()?;
        let mut next = manifest.clone();
        next.number += 1;
        next.mark = Some(work.mark.clone());
        next.runs.extend(new);
        let run = new.map(|meta| self.open_run(meta)).transpose()?;
        next.save(&*self.files, &self.prefix)?;
        *manifest = next;

        {
            let mut layers = self.write();
            layers.runs = Arc::new(layers.runs.iter().cloned().chain(run).collect());
            layers.clean = layers.frozen.take();
            layers.mark = Some(work.mark.clone());
        }
        *flush = None;
        lock(&self.work.signal).flushing = false;
        Ok(())
    }

    fn open_run(&self, meta: Meta) -> Result<Arc<Run>, StoreError> {
        Run::open(&self.files, &self.prefix, meta).map(Arc::new)
    }

    fn begin_merge(&self, manifest: &mut Manifest) -> Result<Option<Merge>, StoreError> {
        let runs = Arc::clone(&self.read().runs);
        let sizes: Vec<u64> = runs.iter().map(|run| run.disk()).collect();
        let Some(range) = merge::choose(&sizes) else {
            return Ok(None);
        };
        let to_the_oldest = range.start == 0;
        let inputs = runs.get(range).unwrap_or_default().to_vec();
        let records = inputs.iter().map(|run| run.meta.records).sum();
        let number = manifest.next_run;
        manifest.next_run += 1;
        Ok(Some(Merge {
            merged: Merged::new(&inputs, &[])?,
            inputs,
            to_the_oldest,
            writer: Writer::new(&self.files, &self.prefix, self.seed, number, records),
        }))
    }

    fn step_merge(&self, job: &mut Job) -> Result<(), StoreError> {
        let Some(work) = &mut job.merge else { return Ok(()) };
        for _ in 0..MERGE_STEP {
            let Some((key, value)) = work.merged.record() else {
                return self.end_merge(job);
            };
            if value.is_some() || !work.to_the_oldest {
                work.writer.add(key, value)?;
            }
            work.merged.advance()?;
        }
        Ok(())
    }

    fn end_merge(&self, job: &mut Job) -> Result<(), StoreError> {
        let Some(work) = job.merge.take() else { return Ok(()) };
        let new = work.writer.finish()?;
        let run = new.map(|meta| self.open_run(meta)).transpose()?;
        let was_input = |number: u64| work.inputs.iter().any(|run| run.meta.number == number);
        // The newest inputs' place goes to the merged run; what was flushed meanwhile is newer.
        let runs = {
            let layers = self.read();
            let mut runs: Vec<Arc<Run>> = Vec::new();
            let mut run = run;
            for old in layers.runs.iter() {
                if was_input(old.meta.number) {
                    runs.extend(run.take());
                } else {
                    runs.push(Arc::clone(old));
                }
            }
            runs
        };
        let mut next = job.manifest.clone();
        next.number += 1;
        next.runs = runs.iter().map(|run| run.meta).collect();
        next.save(&*self.files, &self.prefix)?;
        job.manifest = next;
        self.write().runs = Arc::new(runs);
        for input in &work.inputs {
            input.retire();
        }
        Ok(())
    }
}
