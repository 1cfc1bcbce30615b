//! The threads `swift-0`, `swift-1`, ... that add up blocks while the writer of the chain stores others.
//!
//! The order of blocks does not matter to them: each block's sums are merged into the totals, its coins go to the store
//! as they are.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use dunlin_store::{Changes, StoreError};

use super::aggregate::Salted;
use super::claim::Claim;
use super::digest::{Totals, digest};
use super::hints::Hints;
use crate::ParsedBlock;
use crate::coins::Coins;
use crate::view;

/// Blocks that wait have about this many bytes at most.
const MAX_QUEUED: usize = 32 << 20;

/// Why blocks cannot be added up.
pub(crate) enum Fault {
    /// The hints are wrong, in words.
    Hints(String),
    /// A block breaks a rule with the coins that it is said to spend, in words.
    Claim(String),
    /// Our disk's fault.
    Store(StoreError),
}

/// A block of the chain.
pub(crate) struct Task {
    pub(crate) block: Arc<ParsedBlock>,
    pub(crate) height: u32,
    /// See [`digest`].
    pub(crate) overwritten: bool,
    /// What it is said to spend: the full form.
    pub(crate) claim: Option<Claim>,
}

impl Task {
    fn bytes(&self) -> usize {
        let claimed = self.claim.as_ref().map_or(0, |claim| claim.undo.bytes());
        self.block.raw.len() + claimed
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    /// Bytes of the blocks in the queue.
    queued: usize,
    /// Threads that are at a block.
    working: usize,
    totals: Totals,
    fault: Option<Fault>,
    closed: bool,
}

struct Shared {
    chain: Arc<view::Shared>,
    hints: Arc<Hints>,
    salted: Salted,
    coins: Arc<Coins>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A block's sums are merged in one step; a panic before it leaves a fault, see `Leaving`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest block; whoever does must add it up.
    fn take(&self, state: &mut State) -> Option<Task> {
        let task = state.queue.pop_front()?;
        state.queued -= task.bytes();
        state.working += 1;
        Some(task)
    }

    fn add_up(&self, task: &Task) {
        let mut leaving = Leaving {
            shared: self,
            result: Err(Fault::Hints("the adding up of a block was broken off".to_owned())),
        };
        if let Some(claim) = &task.claim
            && let Err(reject) = claim.check(&self.chain, &task.block)
        {
            let (hash, height) = (task.block.hash, task.height);
            leaving.result = Err(Fault::Claim(format!("block {hash} at height {height}: {reject}")));
            return;
        }
        let mut kept = Changes::default();
        let sums = digest(
            &self.hints,
            &self.salted,
            &task.block,
            task.height,
            task.overwritten,
            task.claim.as_ref().map(|claim| &claim.undo),
            &mut kept,
        );
        leaving.result = match sums {
            Err(error) => Err(Fault::Hints(error.to_string())),
            Ok(sums) => self.coins.publish_new(&kept).map(|()| sums).map_err(Fault::Store),
        };
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = self.take(&mut state) {
                drop(state);
                self.add_up(&task);
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Tells what came of a block, also when adding it up panics: nobody must wait for it then.
struct Leaving<'a> {
    shared: &'a Shared,
    result: Result<Totals, Fault>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.working -= 1;
        match std::mem::replace(&mut self.result, Ok(Totals::default())) {
            Ok(sums) => state.totals.merge(&sums),
            Err(fault) => {
                state.fault.get_or_insert(fault);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// The threads, and the sums so far. Without threads, whoever hands blocks over adds them up.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Goes on from `totals`. Of `threads` the one that hands blocks over is one.
    pub(crate) fn new(
        chain: Arc<view::Shared>,
        hints: Arc<Hints>,
        secret: &[u8; 32],
        coins: Arc<Coins>,
        totals: Totals,
        threads: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            chain,
            hints,
            salted: Salted::new(secret),
            coins,
            state: Mutex::new(State {
                totals,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("swift-{number}"));
            thread.spawn(move || shared.run()).ok()
        };
        let threads = (1..threads).map_while(start).collect();
        Self { shared, threads }
    }

    /// Hands a block over; adds blocks up itself when too many wait.
    pub(crate) fn hand_over(&self, task: Task) {
        let mut state = self.shared.lock();
        state.queued += task.bytes();
        state.queue.push_back(task);
        self.shared.changed.notify_all();
        while state.queued > MAX_QUEUED || (self.threads.is_empty() && !state.queue.is_empty()) {
            let Some(task) = self.shared.take(&mut state) else {
                break;
            };
            drop(state);
            self.shared.add_up(&task);
            state = self.shared.lock();
        }
    }

    /// Helps until every block that was handed over is added up; the sums of them all.
    ///
    /// # Errors
    /// [`Fault`]; after that the sums mean nothing, and there is one each time.
    pub(crate) fn drain(&self) -> Result<Totals, Fault> {
        let mut state = self.shared.lock();
        loop {
            if let Some(fault) = state.fault.take() {
                state.fault = Some(Fault::Store(StoreError::corrupt(
                    "the coins of a SwiftSync that failed",
                )));
                return Err(fault);
            }
            if let Some(task) = self.shared.take(&mut state) {
                drop(state);
                self.shared.add_up(&task);
                state = self.shared.lock();
            } else if state.working > 0 {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                return Ok(state.totals);
            }
        }
    }

    /// Puts a fault back that [`Workers::drain`] gave.
    pub(crate) fn fail(&self, fault: Fault) {
        self.shared.lock().fault = Some(fault);
    }

    /// Whether some block could not be added up; [`Workers::drain`] says why.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.lock().fault.is_some()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        state.queued = 0;
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing left to save.
            let _ = thread.join();
        }
    }
}
