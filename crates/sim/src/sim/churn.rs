//! Peers that come and go.

use std::time::Duration;

use dunlin_peer::{Codec, Machine, Now};
use rand::Rng;

use super::{Happening, NodeId, Sim};
use crate::wire::micros;

/// How nodes stop and start again by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Churn {
    /// The mean time a node runs.
    pub mean_up: Duration,
    /// The mean time it then rests.
    pub mean_down: Duration,
}

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    /// Lets the running nodes that `takes_part` accepts come and go from now on, or (`None`) lets it end: those that
    /// rest still come back, nobody else goes.
    pub fn set_churn(&mut self, churn: Option<Churn>, mut takes_part: impl FnMut(NodeId) -> bool) {
        self.churn = churn;
        self.churn_round += 1;
        if let Some(churn) = churn {
            for id in self.ids() {
                if self.is_running(id) && takes_part(id) {
                    self.churn_later(churn.mean_up, Happening::Stop(id, self.churn_round));
                }
            }
        }
    }

    /// Some time around `mean` from now, at most twice as late.
    fn churn_later(&mut self, mean: Duration, happening: Happening<M>) {
        let wait = self.rng.random_range(0..=micros(mean).saturating_mul(2));
        let at: Now = self.now + Duration::from_micros(wait);
        self.queue.push(at, happening);
    }

    pub(super) fn churn_stop(&mut self, id: NodeId, round: u64) {
        if let Some(churn) = self.churn
            && round == self.churn_round
            && self.is_running(id)
        {
            self.stop(id);
            self.churn_later(churn.mean_down, Happening::Start(id));
        }
    }

    pub(super) fn churn_start(&mut self, id: NodeId) {
        self.start(id);
        if let Some(churn) = self.churn {
            self.churn_later(churn.mean_up, Happening::Stop(id, self.churn_round));
        }
    }
}
