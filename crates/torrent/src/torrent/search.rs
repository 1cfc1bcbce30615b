//! When the DHT is asked for a torrent's peers.

use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;

use super::Torrent;
use crate::shared::Shared;

/// Time between two searches; an announce is kept for half an hour.
const PAUSE: Duration = Duration::from_secs(15 * 60);
/// The same while there is nobody to download from.
const PAUSE_ALONE: Duration = Duration::from_secs(2 * 60);
/// The same while the DHT knows hardly a node.
const PAUSE_LOST: Duration = Duration::from_secs(5);

/// The searches of one torrent.
#[derive(Debug, Default)]
pub(super) struct Searches {
    running: bool,
}

impl Torrent {
    /// Whether a search is of use, now that one is due; it counts as begun then. Private torrents are never looked for
    /// (BEP 27).
    pub(crate) fn begin_search(&mut self, shared: &Shared) -> bool {
        let wanted = self.is_open() && !shared.stopping && !self.searches.running;
        self.searches.running |= wanted;
        wanted
    }

    /// A search is over; `lost` when it had hardly anybody to ask. When the next one is due.
    pub(crate) fn searched(&mut self, now: Now, shared: &mut Shared, lost: bool) -> Now {
        self.searches.running = false;
        let pause = if lost {
            PAUSE_LOST
        } else if self.peers.is_empty() && !self.only_serves() {
            PAUSE_ALONE
        } else {
            PAUSE
        };
        // Torrents added together do not stay together.
        now + pause.mul_f64(shared.rng.random_range(0.9..1.1))
    }
}
