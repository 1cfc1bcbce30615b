//! Questions to a machine and their answers: each has a ticket, each answer finds who asked.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_api::backend::BackendError;
use tokio::sync::oneshot;

/// A question that is not answered by then never will be: the machine is stopping or stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Those who wait for events of type `E`.
pub(crate) struct Answers<E> {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<E>>>,
}

impl<E> Default for Answers<E> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
        }
    }
}

impl<E> Answers<E> {
    /// Asks by calling `send` with a fresh ticket (it says whether the machine still runs), and waits for the event that carries it.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when no answer comes.
    pub(crate) async fn ask(&self, send: impl FnOnce(u64) -> bool) -> Result<E, BackendError> {
        self.ask_within(ANSWER_WITHIN, send).await
    }

    /// [`Answers::ask`] for what may take long.
    ///
    /// # Errors
    /// As [`Answers::ask`].
    pub(crate) async fn ask_within(&self, limit: Duration, send: impl FnOnce(u64) -> bool) -> Result<E, BackendError> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(ticket, sender);
        if !send(ticket) {
            self.lock().remove(&ticket);
            return Err(BackendError::Unavailable("the node is stopping".to_owned()));
        }
        let answer = tokio::time::timeout(limit, receiver).await;
        self.lock().remove(&ticket);
        match answer {
            Ok(Ok(event)) => Ok(event),
            _ => Err(BackendError::Unavailable("the node is stopping".to_owned())),
        }
    }

    /// Hands an answer to who asked; one that nobody waits for is dropped.
    pub(crate) fn give(&self, ticket: u64, event: E) {
        if let Some(waiting) = self.lock().remove(&ticket) {
            let _ = waiting.send(event);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<E>>> {
        // The map is valid after each of its operations, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
