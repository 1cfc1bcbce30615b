//! Keeping the pool within its memory: what is too old goes, then what pays worst.

use std::collections::BTreeSet;

use crate::Pool;

impl Pool {
    /// Forgets what came in too long before `now`, and evicts the worst chunks until the memory suffices.
    pub(crate) fn limit(&mut self, now: u64) {
        let old = self.expired(now.saturating_sub(self.config.expiry));
        if !old.is_empty() {
            self.remove_with_descendants(old);
        }
        while self.usage() > self.config.max_bytes {
            let Some(worst) = self.graph.worst() else { break };
            let members: BTreeSet<_> = worst.members.iter().copied().collect();
            let rate = worst.ratio.to_rate();
            self.floor.evicted(rate);
            self.remove(&members);
        }
    }
}
