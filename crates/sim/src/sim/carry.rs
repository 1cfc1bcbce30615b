//! Carrying out what a machine wants.

use std::time::Duration;

use dunlin_peer::{Codec, Machine, Output};

use super::links::EndState;
use super::{Happening, NodeId, Sim};
use crate::trace::Kind;

/// A machine whose deadline has passed already is not called more often than this, as in the reactor.
const MIN_SLEEP: Duration = Duration::from_millis(1);

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    /// Takes a machine's outputs until there are none. Whatever leads to another input goes through the queue, so no
    /// machine is fed before its outputs were taken.
    pub(super) fn carry_out(&mut self, id: NodeId) {
        while let Some(output) = self.nodes[id.0].machine.as_mut().and_then(Machine::poll) {
            match output {
                Output::Send { link, msg } => {
                    if let Some((pipe, side)) = self.link(id, link) {
                        self.send(pipe, side, msg);
                    }
                }
                Output::Dial { addr, token } => self.dial(id, addr, token),
                Output::Close { link, reason } => {
                    let limit = self.now + self.conditions.close_timeout;
                    let now = self.now;
                    if let Some((pipe, side)) = self.link(id, link)
                        && let Some(end) = self.end_mut(pipe, side)
                        && end.is_open()
                    {
                        end.state = EndState::Closing;
                        let at = end.way.drained_at(now).min(limit);
                        self.queue.push(at, Happening::Closed { pipe, side, reason });
                    }
                }
                Output::PauseRead { link } => {
                    if let Some((pipe, side)) = self.link(id, link)
                        && let Some(end) = self.end_mut(pipe, side)
                    {
                        end.paused = true;
                    }
                }
                Output::ResumeRead { link } => {
                    if let Some((pipe, side)) = self.link(id, link)
                        && let Some(end) = self.end_mut(pipe, side)
                        && std::mem::take(&mut end.paused)
                    {
                        self.queue.push(self.now, Happening::Resumed { pipe, side });
                    }
                }
                Output::Datagram { to, bytes } => self.datagram(id, to, bytes),
                Output::Job(job) => self.run_job(id, job),
                Output::Event(event) => {
                    self.recorder.record(self.now, Kind::Event, id.0, 0, 0);
                    self.events.push((self.now, id, event));
                }
            }
        }
        self.arm(id);
    }

    fn run_job(&mut self, id: NodeId, job: M::Job) {
        self.stats.jobs += 1;
        let node = &mut self.nodes[id.0];
        let begin = node.busy_until.max(self.now);
        let (time, done) = node.executor.run(self.now, job);
        let at = begin + time;
        node.busy_until = at;
        let life = node.life;
        self.recorder.record(self.now, Kind::Job, id.0, at.as_micros(), 0);
        self.queue.push(at, Happening::Done { node: id, life, done });
    }

    /// Sets the node's timer when its machine wants to be woken earlier than it is set for. One that is set too early
    /// does no harm.
    fn arm(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        let Some(due) = node.machine.as_ref().and_then(Machine::poll_timeout) else {
            return;
        };
        let at = if due > self.now { due } else { self.now + MIN_SLEEP };
        if node.armed.is_none_or(|armed| at < armed) {
            node.armed = Some(at);
            let life = node.life;
            self.queue.push(at, Happening::Timeout { node: id, life });
        }
    }
}
