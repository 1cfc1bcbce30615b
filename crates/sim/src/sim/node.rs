//! One simulated computer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::{LinkId, Machine, Now};

use super::links::{PipeId, Side};

/// Runs a node's jobs: its disk and its processor. Jobs of one node run one after the other.
///
/// The work itself is done at once; the duration says when, in virtual time, the answer is there.
pub trait Executor<Job, Done> {
    /// Does the job and says how long it takes.
    fn run(&mut self, now: Now, job: Job) -> (Duration, Done);
}

impl<Job, Done, F: FnMut(Now, Job) -> (Duration, Done)> Executor<Job, Done> for F {
    fn run(&mut self, now: Now, job: Job) -> (Duration, Done) {
        self(now, job)
    }
}

type Make<M> = Box<dyn FnMut(Now, u32) -> M>;

pub(super) struct Node<M: Machine> {
    pub(super) addr: SocketAddr,
    pub(super) machine: Option<M>,
    make: Make<M>,
    pub(super) executor: Box<dyn Executor<M::Job, M::Done>>,
    /// Starts so far.
    pub(super) life: u32,
    /// The executor is busy until then.
    pub(super) busy_until: Now,
    pub(super) links: BTreeMap<LinkId, (PipeId, Side)>,
    next_link: u64,
    next_port: u16,
    pub(super) inbound: usize,
    /// The instant for which a timer stands in the queue.
    pub(super) armed: Option<Now>,
    /// The part of a split network that it is in.
    pub(super) group: u32,
}

impl<M: Machine> Node<M> {
    pub(super) fn new(addr: SocketAddr, make: Make<M>, executor: Box<dyn Executor<M::Job, M::Done>>) -> Self {
        Self {
            addr,
            machine: None,
            make,
            executor,
            life: 0,
            busy_until: Now::default(),
            links: BTreeMap::new(),
            next_link: 1,
            next_port: 0,
            inbound: 0,
            armed: None,
            group: 0,
        }
    }

    pub(super) fn start(&mut self, now: Now) -> bool {
        if self.machine.is_some() {
            return false;
        }
        self.machine = Some((self.make)(now, self.life));
        self.life += 1;
        true
    }

    pub(super) fn stop(&mut self) -> bool {
        self.armed = None;
        self.inbound = 0;
        self.busy_until = Now::default();
        self.machine.take().is_some()
    }

    /// Whether the machine that runs is the one of that life.
    pub(super) fn lives(&self, life: u32) -> bool {
        self.machine.is_some() && self.life == life
    }

    pub(super) fn new_link(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        id
    }

    /// The address that our outgoing links come from.
    pub(super) fn outgoing(&mut self) -> SocketAddr {
        self.next_port = (self.next_port + 1) % 20_000;
        SocketAddr::new(self.addr.ip(), 40_000 + self.next_port)
    }
}
