//! What other threads may see of the links: addresses and counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_peer::{Direction, LinkId, NetAddr};

/// A link's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// The link.
    pub id: LinkId,
    /// The other side.
    pub addr: NetAddr,
    /// Who opened it.
    pub direction: Direction,
    /// Bytes read from the socket.
    pub bytes_in: u64,
    /// Bytes written to the socket.
    pub bytes_out: u64,
    /// When it was opened, in Unix seconds.
    pub connected_at: u64,
}

/// Bytes of all links of a reactor, those that are gone included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

/// One link's entry; the reactor's thread writes the counters, anyone reads them.
#[derive(Debug)]
pub(crate) struct Counters {
    addr: NetAddr,
    direction: Direction,
    connected_at: u64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Counters {
    pub(crate) fn new(addr: NetAddr, direction: Direction, connected_at: u64) -> Self {
        Self {
            addr,
            direction,
            connected_at,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn stats(&self, id: LinkId) -> LinkStats {
        LinkStats {
            id,
            addr: self.addr,
            direction: self.direction,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            connected_at: self.connected_at,
        }
    }
}

#[derive(Debug, Default)]
struct Links {
    open: BTreeMap<LinkId, Arc<Counters>>,
    gone: Totals,
}

/// All links of a reactor. The lock is taken when a link opens or ends and when somebody asks, never per message.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    links: Mutex<Links>,
}

impl Registry {
    /// A panic elsewhere cannot leave the map half changed.
    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self, id: LinkId, counters: Arc<Counters>) {
        self.lock().open.insert(id, counters);
    }

    pub(crate) fn ended(&self, id: LinkId) {
        let mut links = self.lock();
        if let Some(counters) = links.open.remove(&id) {
            let last = counters.stats(id);
            links.gone.bytes_in = links.gone.bytes_in.saturating_add(last.bytes_in);
            links.gone.bytes_out = links.gone.bytes_out.saturating_add(last.bytes_out);
        }
    }

    pub(crate) fn stats(&self) -> Vec<LinkStats> {
        let links = self.lock();
        links.open.iter().map(|(id, counters)| counters.stats(*id)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().open.len()
    }

    pub(crate) fn totals(&self) -> Totals {
        let links = self.lock();
        links.open.iter().fold(links.gone, |sum, (id, counters)| {
            let link = counters.stats(*id);
            Totals {
                bytes_in: sum.bytes_in.saturating_add(link.bytes_in),
                bytes_out: sum.bytes_out.saturating_add(link.bytes_out),
            }
        })
    }
}
