//! Dials: one round trip until the dialler knows, half of one more until the listener does.

use std::time::Duration;

use dunlin_peer::{Codec, DialToken, DisconnectCause, Input, Link, Machine, NetAddr};
use rand::Rng;

use super::links::{End, EndState, Pipe, PipeId, Side};
use super::{Happening, NodeId, Sim};
use crate::trace::Kind;
use crate::wire::{Fate, Way, micros};

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    pub(super) fn dial(&mut self, node: NodeId, addr: M::Addr, token: DialToken) {
        self.stats.dials += 1;
        self.recorder.record(self.now, Kind::Dial, node.0, port(addr), token.0);
        let timeout = self.now + self.conditions.dial_timeout;
        let there = self.by_addr.get(&addr.into()).copied();
        let reachable = there.filter(|there| self.nodes[there.0].group == self.nodes[node.0].group);
        let (at, latency) = match reachable {
            None => (timeout, None),
            Some(_) => {
                let latency = self.draw_latency();
                let fate = Way::default().send(self.now, 40, latency * 2, &self.conditions, &mut self.rng);
                match fate {
                    Fate::Arrives(at) if at < timeout => (at, Some(latency)),
                    Fate::Arrives(_) | Fate::Resets(_) => (timeout, None),
                }
            }
        };
        let life = self.nodes[node.0].life;
        self.queue.push(
            at,
            Happening::Dialled {
                node,
                life,
                addr,
                token,
                latency,
            },
        );
    }

    pub(super) fn draw_latency(&mut self) -> Duration {
        let (min, max) = (self.conditions.min_latency, self.conditions.max_latency);
        Duration::from_micros(self.rng.random_range(micros(min)..=micros(max.max(min))))
    }

    /// The dial's outcome reaches the dialler.
    pub(super) fn dialled(&mut self, node: NodeId, addr: M::Addr, token: DialToken, latency: Option<Duration>) {
        let there = self.by_addr.get(&addr.into()).copied();
        let ready = there.filter(|there| {
            self.nodes[there.0].machine.is_some() && self.nodes[there.0].group == self.nodes[node.0].group
        });
        let (Some(there), Some(latency)) = (ready, latency) else {
            self.recorder
                .record(self.now, Kind::DialFailed, node.0, port(addr), token.0);
            return self.input(node, Input::DialFailed { addr, token });
        };
        self.stats.links += 1;
        let pipe = PipeId(self.next_pipe);
        self.next_pipe += 1;
        let mut end = |node: NodeId, side: Side, state| {
            let codec = (self.make_codec)(side.direction());
            let computer = &mut self.nodes[node.0];
            let link = computer.new_link();
            End::new(node, computer.life, link, codec, state)
        };
        let ends = [
            end(node, Side::Dialler, EndState::Open),
            end(there, Side::Listener, EndState::Unknown),
        ];
        let link = ends[0].link;
        self.pipes.insert(pipe, Pipe { ends, latency });
        self.queue.push(self.now + latency, Happening::Accepted { pipe });
        self.connected(
            node,
            pipe,
            Side::Dialler,
            Link {
                id: link,
                addr,
                bind: None,
                direction: Side::Dialler.direction(),
                token: Some(token),
            },
        );
    }

    /// The listener takes the link in, or refuses it because it is full.
    pub(super) fn accepted(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let [dialler, listener] = &mut pipe.ends;
        let (node, link, from) = (listener.node, listener.link, dialler.node);
        if !self.nodes[node.0].lives(listener.life) {
            listener.state = EndState::Gone;
            let cause = DisconnectCause::Transport("connection reset by the peer".into());
            return self.end(id, Side::Dialler, cause);
        }
        if self.nodes[node.0].inbound >= self.conditions.max_inbound {
            return self.leave(id, Side::Listener);
        }
        listener.state = EndState::Open;
        self.nodes[node.0].inbound += 1;
        let addr = M::Addr::from(self.nodes[from.0].outgoing());
        self.connected(
            node,
            id,
            Side::Listener,
            Link {
                id: link,
                addr,
                bind: None,
                direction: Side::Listener.direction(),
                token: None,
            },
        );
    }

    fn connected(&mut self, node: NodeId, pipe: PipeId, side: Side, link: Link<M::Addr>) {
        self.nodes[node.0].links.insert(link.id, (pipe, side));
        self.recorder
            .record(self.now, Kind::Connected, node.0, pipe.0, link.id.0);
        self.input(node, Input::Connected(link));
    }
}

/// What the trace tells of an address.
fn port(addr: impl Into<NetAddr>) -> u64 {
    addr.into().port.into()
}
