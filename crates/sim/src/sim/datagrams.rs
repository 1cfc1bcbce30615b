//! Datagrams: each takes its pair of nodes' latency, may overtake by the jitter, and is lost as the conditions say.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{Codec, Input, Machine, Now};
use rand::Rng;

use super::{Happening, NodeId, Sim};
use crate::trace::Kind;
use crate::wire::{micros, transmission};

/// What waits to leave a sender for longer than this is dropped, as a full router queue drops it.
const MAX_QUEUE: Duration = Duration::from_millis(500);

/// One direction between two nodes.
pub(super) struct Path {
    latency: Duration,
    /// When what was sent so far has left the sender.
    free_at: Now,
}

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    pub(super) fn datagram(&mut self, from: NodeId, to: SocketAddr, bytes: Bytes) {
        self.stats.datagrams += 1;
        self.stats.bytes += bytes.len() as u64;
        self.recorder.record(
            self.now,
            Kind::Datagram,
            from.0,
            u64::from(to.port()),
            bytes.len() as u64,
        );
        self.recorder.bytes(&bytes);
        let Some(to) = self.by_addr.get(&to.into()).copied() else {
            return;
        };
        if self.rng.random_range(0..1_000_000) < self.conditions.loss {
            return;
        }
        let drawn = self.draw_latency();
        let path = self.paths.entry((from, to)).or_insert(Path {
            latency: drawn,
            free_at: self.now,
        });
        let start = path.free_at.max(self.now);
        if start.since(self.now) > MAX_QUEUE {
            return;
        }
        path.free_at = start + transmission(bytes.len(), self.conditions.bandwidth);
        let jitter = Duration::from_micros(self.rng.random_range(0..=micros(self.conditions.jitter)));
        let at = path.free_at + path.latency + jitter;
        self.queue.push(at, Happening::Datagram { from, to, bytes });
    }

    pub(super) fn datagram_arrived(&mut self, from: NodeId, to: NodeId, bytes: Bytes) {
        if self.nodes[from.0].group != self.nodes[to.0].group || !self.is_running(to) {
            return;
        }
        let from = self.nodes[from.0].addr;
        self.input(to, Input::Datagram { from, bytes });
    }
}
