//! The engine: nodes, their links, the clock.

mod carry;
mod churn;
mod datagrams;
mod dial;
mod links;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{CloseReason, Codec, DialToken, DisconnectCause, Input, LinkId, Machine, NetAddr, Now};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use churn::Churn;
pub use node::Executor;

use crate::Conditions;
use crate::queue::Queue;
use crate::trace::{Kind, Recorder, Trace};
use links::{End, Pipe, PipeId, Side};
use node::Node;

/// Names a node: the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// Counts of a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages delivered.
    pub messages: u64,
    /// Bytes of all messages sent, as encoded.
    pub bytes: u64,
    /// Dials asked for.
    pub dials: u64,
    /// Dials that led to a link.
    pub links: u64,
    /// Links that the network cut: loss, partition, a send queue beyond its cap.
    pub cuts: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Jobs run.
    pub jobs: u64,
    /// Happenings taken from the queue.
    pub steps: u64,
}

/// A network of machines of one type, run from one seed.
pub struct Sim<M: Machine, C> {
    now: Now,
    rng: ChaCha8Rng,
    conditions: Conditions,
    queue: Queue<Happening<M>>,
    nodes: Vec<Node<M>>,
    by_addr: BTreeMap<NetAddr, NodeId>,
    pipes: BTreeMap<PipeId, Pipe<M::Msg, C>>,
    next_pipe: u64,
    paths: BTreeMap<(NodeId, NodeId), datagrams::Path>,
    make_codec: Box<dyn FnMut(dunlin_peer::Direction) -> C>,
    events: Vec<(Now, NodeId, M::Event)>,
    recorder: Recorder,
    stats: Stats,
    churn: Option<Churn>,
    churn_round: u64,
}

/// What stands in the queue. A node's life rules out what was meant for it before it was stopped.
enum Happening<M: Machine> {
    Timeout {
        node: NodeId,
        life: u32,
    },
    Done {
        node: NodeId,
        life: u32,
        done: M::Done,
    },
    /// The answer to a dial is due.
    Dialled {
        node: NodeId,
        life: u32,
        addr: M::Addr,
        token: DialToken,
        latency: Option<Duration>,
    },
    /// The dialled side learns of the link.
    Accepted {
        pipe: PipeId,
    },
    Arrived {
        pipe: PipeId,
        to: Side,
        parcel: Parcel<M::Msg>,
    },
    Datagram {
        from: NodeId,
        to: NodeId,
        bytes: Bytes,
    },
    /// One side's close has sent all it had queued.
    Closed {
        pipe: PipeId,
        side: Side,
        reason: CloseReason,
    },
    /// The network tears the link.
    Cut {
        pipe: PipeId,
        why: &'static str,
    },
    /// What was read during a pause is taken in.
    Resumed {
        pipe: PipeId,
        side: Side,
    },
    /// Churn stops a node, if it is still the churn of that round.
    Stop(NodeId, u64),
    Start(NodeId),
}

/// What travels one way.
enum Parcel<Msg> {
    Message {
        msg: Msg,
        length: usize,
    },
    Bytes(Bytes),
    /// The other side sends no more.
    End,
}

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    /// An empty network whose clock stands at `start`.
    pub fn new(
        seed: u64,
        start: Now,
        conditions: Conditions,
        make_codec: impl FnMut(dunlin_peer::Direction) -> C + 'static,
    ) -> Self {
        Self {
            now: start,
            rng: ChaCha8Rng::seed_from_u64(seed),
            conditions,
            queue: Queue::default(),
            nodes: Vec::new(),
            by_addr: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            paths: BTreeMap::new(),
            make_codec: Box::new(make_codec),
            events: Vec::new(),
            recorder: Recorder::default(),
            stats: Stats::default(),
            churn: None,
            churn_round: 0,
        }
    }

    /// Adds a node that listens at `addr`, not yet running. `make` builds its machine at each start (the second
    /// argument counts the starts from 0); the executor is its disk and its processor and outlives the machine.
    ///
    /// # Panics
    /// When another node has that address.
    pub fn add(
        &mut self,
        addr: SocketAddr,
        make: impl FnMut(Now, u32) -> M + 'static,
        executor: impl Executor<M::Job, M::Done> + 'static,
    ) -> NodeId {
        let id = NodeId(self.nodes.len());
        let known = self.by_addr.insert(addr.into(), id);
        assert!(known.is_none(), "two nodes at {addr}");
        self.nodes.push(Node::new(addr, Box::new(make), Box::new(executor)));
        id
    }

    /// Starts a node; nothing happens when it runs.
    pub fn start(&mut self, id: NodeId) {
        if self.nodes[id.0].start(self.now) {
            self.recorder.record(self.now, Kind::Start, id.0, 0, 0);
            self.carry_out(id);
        }
    }

    /// Starts all nodes that do not run.
    pub fn start_all(&mut self) {
        for id in self.ids() {
            self.start(id);
        }
    }

    /// Kills a node: its machine is gone at once, its peers see their links end a latency later.
    pub fn stop(&mut self, id: NodeId) {
        if !self.nodes[id.0].stop() {
            return;
        }
        self.recorder.record(self.now, Kind::Stop, id.0, 0, 0);
        let links: Vec<(PipeId, Side)> = std::mem::take(&mut self.nodes[id.0].links).into_values().collect();
        for (pipe, side) in links {
            self.leave(pipe, side);
        }
    }

    /// Gives a node's machine a command; `false` when it does not run.
    pub fn command(&mut self, id: NodeId, command: M::Command) -> bool {
        if self.nodes[id.0].machine.is_none() {
            return false;
        }
        self.recorder.record(self.now, Kind::Command, id.0, 0, 0);
        self.input(id, Input::Command(command));
        true
    }

    /// Splits the network: nodes reach each other only within the group that `group_of` gives. Links across are cut.
    pub fn partition(&mut self, mut group_of: impl FnMut(NodeId) -> u32) {
        for id in self.ids() {
            self.nodes[id.0].group = group_of(id);
        }
        let across: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| {
                let [one, two] = &pipe.ends;
                self.nodes[one.node.0].group != self.nodes[two.node.0].group
            })
            .map(|(id, _)| *id)
            .collect();
        for pipe in across {
            self.cut(pipe, "the network is split");
        }
    }

    /// Joins what was split; links come back only by new dials.
    pub fn heal(&mut self) {
        for node in &mut self.nodes {
            node.group = 0;
        }
    }

    /// Changes the network's qualities.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// The network's qualities.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Takes the next thing that happens; `false` when nothing ever will.
    pub fn step(&mut self) -> bool {
        let Some((at, happening)) = self.queue.pop() else {
            return false;
        };
        // The queue never gives back an instant before the last one.
        self.now = self.now.max(at);
        self.stats.steps += 1;
        self.happen(happening);
        true
    }

    /// Runs until `end`, which is then the present.
    pub fn run_until(&mut self, end: Now) {
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `reached` holds, looking every `pace`, for `limit` at most. Says whether it was reached.
    pub fn run_to(&mut self, limit: Duration, pace: Duration, mut reached: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if reached(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run_until((self.now + pace).min(end));
        }
    }

    /// The present.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The hash over the run so far.
    pub fn trace(&self) -> Trace {
        self.recorder.trace()
    }

    /// Counts of the run so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// All nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<M, C> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// A node's machine, while it runs.
    pub fn machine(&self, id: NodeId) -> Option<&M> {
        self.nodes[id.0].machine.as_ref()
    }

    /// A node's listening address.
    pub fn addr(&self, id: NodeId) -> SocketAddr {
        self.nodes[id.0].addr
    }

    /// Whether a node runs.
    pub fn is_running(&self, id: NodeId) -> bool {
        self.nodes[id.0].machine.is_some()
    }

    /// How many links a node has.
    pub fn link_count(&self, id: NodeId) -> usize {
        self.nodes[id.0].links.len()
    }

    /// The running nodes that a running node can reach over links, itself included.
    pub fn connected_to(&self, id: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut to_visit = vec![id];
        while let Some(next) = to_visit.pop() {
            if self.is_running(next) && found.insert(next) {
                let peers = self.nodes[next.0].links.values().filter_map(|(pipe, side)| {
                    let other = &self.pipes.get(pipe)?.ends[side.other().index()];
                    other.is_open().then_some(other.node)
                });
                to_visit.extend(peers);
            }
        }
        found
    }

    /// Takes what the machines told since the last call: when, who, what.
    pub fn take_events(&mut self) -> Vec<(Now, NodeId, M::Event)> {
        std::mem::take(&mut self.events)
    }

    fn happen(&mut self, happening: Happening<M>) {
        match happening {
            Happening::Timeout { node, life } => self.timeout(node, life),
            Happening::Done { node, life, done } => {
                if self.nodes[node.0].lives(life) {
                    self.recorder.record(self.now, Kind::Done, node.0, 0, 0);
                    self.input(node, Input::Done(done));
                }
            }
            Happening::Dialled {
                node,
                life,
                addr,
                token,
                latency,
            } => {
                if self.nodes[node.0].lives(life) {
                    self.dialled(node, addr, token, latency);
                }
            }
            Happening::Accepted { pipe } => self.accepted(pipe),
            Happening::Arrived { pipe, to, parcel } => self.arrived(pipe, to, parcel),
            Happening::Datagram { from, to, bytes } => self.datagram_arrived(from, to, bytes),
            Happening::Closed { pipe, side, reason } => self.end(pipe, side, DisconnectCause::Ours(reason)),
            Happening::Cut { pipe, why } => self.cut(pipe, why),
            Happening::Resumed { pipe, side } => self.resumed(pipe, side),
            Happening::Stop(node, round) => self.churn_stop(node, round),
            Happening::Start(node) => self.churn_start(node),
        }
    }

    fn timeout(&mut self, id: NodeId, life: u32) {
        let node = &mut self.nodes[id.0];
        if !node.lives(life) || node.armed != Some(self.now) {
            return;
        }
        node.armed = None;
        if let Some(machine) = &mut node.machine {
            // The deadline may have moved to later since the timer was set.
            if machine.poll_timeout().is_some_and(|due| due <= self.now) {
                self.recorder.record(self.now, Kind::Timeout, id.0, 0, 0);
                machine.handle_timeout(self.now);
            }
            self.carry_out(id);
        }
    }

    /// Feeds a node's machine and carries out what it wants.
    fn input(&mut self, id: NodeId, input: Input<M::Msg, M::Command, M::Done, M::Addr>) {
        if let Some(machine) = &mut self.nodes[id.0].machine {
            machine.handle(self.now, input);
            self.carry_out(id);
        }
    }

    fn end_mut(&mut self, pipe: PipeId, side: Side) -> Option<&mut End<M::Msg, C>> {
        Some(&mut self.pipes.get_mut(&pipe)?.ends[side.index()])
    }

    fn link(&self, id: NodeId, link: LinkId) -> Option<(PipeId, Side)> {
        self.nodes[id.0].links.get(&link).copied()
    }
}
