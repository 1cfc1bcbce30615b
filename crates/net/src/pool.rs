//! A few named threads for work that blocks or computes.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that take jobs from one queue, oldest first. Dropping the pool finishes what is queued and waits for it.
///
/// The queue has no bound of its own: machines bound how many jobs they have outstanding. A job that panics is logged
/// and the thread goes on; an answer that the job owed (see [`Completer`](crate::Completer)) is still owed, so a job
/// that can panic must catch it and answer with a failure.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    name: String,
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Shared {
    /// Jobs run outside of the lock, so a panic cannot leave the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            match queue.jobs.pop_front() {
                Some(job) => {
                    drop(queue);
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!(pool = %self.name, "a job panicked");
                    }
                    queue = self.lock();
                }
                None if queue.closed => return,
                None => queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Pool {
    /// Starts `threads` threads (at least one) called `name-0`, `name-1`...
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                queue: Mutex::default(),
                ready: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || shared.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues a job.
    pub fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().jobs.push_back(Box::new(job));
        self.shared.ready.notify_one();
    }

    /// Jobs not yet begun.
    pub fn queued(&self) -> usize {
        self.shared.lock().jobs.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // A job that owns the last reference drops the pool on one of its own threads.
            if thread.thread().id() != std::thread::current().id() {
                // Jobs' panics are caught, so the thread itself cannot fail.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.shared.name)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn drop_finishes_what_is_queued() {
        let count = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new("test", 3).unwrap();
        for _ in 0..1000 {
            let count = Arc::clone(&count);
            pool.spawn(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
        drop(pool);
        assert_eq!(count.load(Ordering::SeqCst), 1000);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let pool = Pool::new("test", 1).unwrap();
        let (tx, rx) = channel();
        pool.spawn(|| panic!("on purpose"));
        pool.spawn(move || tx.send(std::thread::current().name().map(str::to_owned)).unwrap());
        assert_eq!(rx.recv().unwrap().unwrap(), "test-0");
    }

    #[test]
    fn a_job_may_own_the_pool() {
        let (tx, rx) = channel();
        let pool = Arc::new(Pool::new("test", 2).unwrap());
        let owned = Arc::clone(&pool);
        pool.spawn(move || {
            while Arc::strong_count(&owned) > 1 {
                std::thread::yield_now();
            }
            drop(owned);
            tx.send(()).unwrap();
        });
        drop(pool);
        rx.recv().unwrap();
    }
}
