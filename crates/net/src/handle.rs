//! What the program holds of a running reactor.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};

use tokio::sync::mpsc::UnboundedSender;

use crate::registry::{LinkStats, Registry, Totals};

/// What reaches the reactor from the program.
#[derive(Debug)]
pub(crate) enum Order<Command> {
    Command(Command),
    Shutdown,
}

/// A running reactor. Clones name the same one; it ends by [`Handle::shutdown`] or when the last clone is dropped.
///
/// Orders are queued without a bound: they come from our own program, which waits for answers where it must.
pub struct Handle<Command> {
    shared: Arc<Shared<Command>>,
}

struct Shared<Command> {
    orders: UnboundedSender<Order<Command>>,
    registry: Arc<Registry>,
    local_addrs: Vec<SocketAddr>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
}

impl<Command> Drop for Shared<Command> {
    fn drop(&mut self) {
        // The reactor may be gone already; then there is nothing to end.
        let _ = self.orders.send(Order::Shutdown);
    }
}

impl<Command> Clone for Handle<Command> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Command> fmt::Debug for Handle<Command> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("local_addrs", &self.shared.local_addrs)
            .finish_non_exhaustive()
    }
}

impl<Command> Handle<Command> {
    pub(crate) fn new(
        orders: UnboundedSender<Order<Command>>,
        registry: Arc<Registry>,
        local_addrs: Vec<SocketAddr>,
        thread: JoinHandle<()>,
    ) -> Self {
        let thread_id = thread.thread().id();
        Self {
            shared: Arc::new(Shared {
                orders,
                registry,
                local_addrs,
                thread: Mutex::new(Some(thread)),
                thread_id,
            }),
        }
    }

    /// Gives the machine a command; `false` when the reactor has ended.
    pub fn command(&self, command: Command) -> bool {
        self.shared.orders.send(Order::Command(command)).is_ok()
    }

    /// The open links, oldest first.
    pub fn links(&self) -> Vec<LinkStats> {
        self.shared.registry.stats()
    }

    /// How many links are open.
    pub fn link_count(&self) -> usize {
        self.shared.registry.len()
    }

    /// Bytes of all links since the start.
    pub fn totals(&self) -> Totals {
        self.shared.registry.totals()
    }

    /// The addresses listened on, with the ports really taken, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.local_addrs
    }

    /// Whether the reactor still runs.
    pub fn is_running(&self) -> bool {
        !self.shared.orders.is_closed()
    }

    /// Stops listening, closes the links (what is queued is sent, within the close timeout), lets the machine see
    /// each `Disconnected`, and waits for the thread's end. Called on the reactor's own thread it does not wait.
    pub fn shutdown(&self) {
        // An error means that the reactor has ended, which is what we want.
        let _ = self.shared.orders.send(Order::Shutdown);
        if std::thread::current().id() == self.shared.thread_id {
            return;
        }
        // Held while waiting, so that every caller returns only after the end.
        let mut thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread panicked");
        }
    }
}

/// Takes a job's answer back to the machine, from any thread.
///
/// A machine waits for the answer to each job, so whoever runs a job owes exactly one `complete`, also when the work
/// failed or panicked: give jobs an answer that says so. A completer dropped unused leaves the machine waiting.
#[must_use = "the machine waits for the answer"]
pub struct Completer<Done> {
    answers: UnboundedSender<Done>,
}

impl<Done> Completer<Done> {
    pub(crate) fn new(answers: UnboundedSender<Done>) -> Self {
        Self { answers }
    }

    /// Hands over the answer. After the reactor's end it is dropped.
    pub fn complete(self, done: Done) {
        let _ = self.answers.send(done);
    }
}

impl<Done> fmt::Debug for Completer<Done> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completer")
    }
}
