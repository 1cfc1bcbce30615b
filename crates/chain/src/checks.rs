//! Script checks on threads of their own: the blocks that wait for their scripts form one queue, and whoever is free
//! takes the next transaction of its oldest block. So the writer of the chain connects further blocks meanwhile.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::script::{self, Flags, ScriptFail};
use crate::script_cache::ScriptCache;
use crate::undo::SpentRecord;
use crate::{ParsedBlock, Reject};

/// A block with fewer inputs than this is checked by whoever waits for it: waking a thread would take longer.
const INPUTS_WORTH_HELPERS: usize = 32;

/// The scripts of one block.
struct Check {
    block: Arc<ParsedBlock>,
    spent: Arc<SpentRecord>,
    flags: Flags,
    /// The transaction, without the coinbase, that is handed out next.
    next: AtomicUsize,
    /// Nothing more is handed out: a script failed, or nobody cares any more.
    stop: AtomicBool,
    state: Mutex<CheckState>,
    left: Condvar,
}

#[derive(Default)]
struct CheckState {
    /// Threads that are checking transactions of this block.
    working: usize,
    /// The first transaction that failed.
    failure: Option<(usize, ScriptFail)>,
}

impl Check {
    fn state(&self) -> MutexGuard<'_, CheckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks transactions until none is left.
    ///
    /// They are handed out in order. A failure stops the handing out, and all before it are still finished: so the
    /// first failure of the block is found whatever the number of threads.
    fn work(&self, cache: &ScriptCache) {
        self.state().working += 1;
        // Also when a check panics the others must not wait for this thread.
        let leaving = Leaving(self);
        let mut coins = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let row = self.next.fetch_add(1, Ordering::Relaxed);
            if row >= self.spent.len() {
                break;
            }
            let index = row.saturating_add(1);
            let (Some(tx), Some(wtxid)) = (self.block.transaction(index), self.block.wtxids.get(index)) else {
                break;
            };
            if cache.contains(wtxid, self.flags) {
                continue;
            }
            let spent = self.spent.read(row, &mut coins);
            let spent = spent.ok_or(ScriptFail::Unusable("what it spends cannot be read"));
            if let Err(fail) = spent.and_then(|spent| script::verify_raw(tx.raw(), spent, self.flags)) {
                self.stop.store(true, Ordering::Relaxed);
                let mut state = self.state();
                if state.failure.is_none_or(|(first, _)| index < first) {
                    state.failure = Some((index, fail));
                }
            }
        }
        drop(leaving);
    }

    /// Whether nothing is left to hand out.
    fn is_empty(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.next.load(Ordering::Relaxed) >= self.spent.len()
    }
}

/// A block whose scripts are being checked; when it is dropped, they no longer are.
pub(crate) struct Checking(Arc<Check>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

struct Leaving<'a>(&'a Check);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if std::thread::panicking() {
            // Not checked is not good: the block is taken for one that cannot be verified.
            state.failure = Some((0, ScriptFail::Unusable("its check was broken off")));
            self.0.stop.store(true, Ordering::Relaxed);
        }
        state.working -= 1;
        drop(state);
        self.0.left.notify_all();
    }
}

/// The threads `script-0`, `script-1`, ... They end with the pool.
pub(crate) struct ScriptPool {
    shared: Arc<PoolShared>,
    threads: Vec<JoinHandle<()>>,
}

struct PoolShared {
    queue: Mutex<Queue>,
    ready: Condvar,
    cache: Arc<ScriptCache>,
}

#[derive(Default)]
struct Queue {
    checks: VecDeque<Arc<Check>>,
    closed: bool,
}

impl PoolShared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            while queue.checks.front().is_some_and(|check| check.is_empty()) {
                queue.checks.pop_front();
            }
            if let Some(check) = queue.checks.front().cloned() {
                drop(queue);
                check.work(&self.cache);
                queue = self.lock();
            } else if queue.closed {
                return;
            } else {
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl ScriptPool {
    /// A pool for a writer that helps itself: `threads` counts it, too. When the system gives fewer threads the others
    /// do their work.
    pub(crate) fn new(threads: usize, cache: Arc<ScriptCache>) -> Self {
        let shared = Arc::new(PoolShared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            cache,
        });
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("script-{number}"));
            thread.spawn(move || shared.run()).ok()
        };
        let threads = (1..threads).map_while(start).collect();
        Self { shared, threads }
    }

    /// Begins to check a block's scripts with what its transactions spend.
    pub(crate) fn begin(&self, block: Arc<ParsedBlock>, spent: Arc<SpentRecord>, flags: Flags) -> Checking {
        let inputs = spent.coins();
        let check = Arc::new(Check {
            block,
            spent,
            flags,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            left: Condvar::new(),
        });
        if !self.threads.is_empty() && inputs >= INPUTS_WORTH_HELPERS {
            self.shared.lock().checks.push_back(Arc::clone(&check));
            self.shared.ready.notify_all();
        }
        Checking(check)
    }

    /// Helps with the rest of a block's scripts and waits for those that others have begun.
    ///
    /// # Errors
    /// The first transaction of the block whose scripts fail.
    pub(crate) fn finish(&self, Checking(check): &Checking) -> Result<(), Reject> {
        check.work(&self.shared.cache);
        let mut state = check.state();
        while state.working > 0 {
            state = check.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.failure {
            None => Ok(()),
            Some((index, fail)) => {
                let txid = check.block.txids.get(index).map(ToString::to_string);
                let txid = txid.unwrap_or_default();
                Err(fail.into_block_reject().in_block(format_args!("transaction {txid}")))
            }
        }
    }
}

impl Drop for ScriptPool {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.checks.clear();
        drop(queue);
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing left to save.
            let _ = thread.join();
        }
    }
}
