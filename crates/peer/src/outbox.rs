//! The queue between a machine's insides and its [`Machine::poll`](crate::Machine::poll).

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::{CloseReason, DialToken, LinkId, Output};

/// Outputs in the order in which they were asked for.
#[derive(Debug)]
pub struct Outbox<Msg, Event, Job, Addr = SocketAddr> {
    queue: VecDeque<Output<Msg, Event, Job, Addr>>,
}

impl<Msg, Event, Job, Addr> Default for Outbox<Msg, Event, Job, Addr> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<Msg, Event, Job, Addr> Outbox<Msg, Event, Job, Addr> {
    /// Queues a message.
    pub fn send(&mut self, link: LinkId, msg: Msg) {
        self.queue.push_back(Output::Send { link, msg });
    }

    /// Asks for a dial.
    pub fn dial(&mut self, addr: Addr, token: DialToken) {
        self.queue.push_back(Output::Dial { addr, token });
    }

    /// Asks for a close.
    pub fn close(&mut self, link: LinkId, reason: CloseReason) {
        self.queue.push_back(Output::Close { link, reason });
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, to: SocketAddr, bytes: Bytes) {
        self.queue.push_back(Output::Datagram { to, bytes });
    }

    /// Hands out slow work.
    pub fn job(&mut self, job: Job) {
        self.queue.push_back(Output::Job(job));
    }

    /// Tells the program.
    pub fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    /// Queues any output.
    pub fn push(&mut self, output: Output<Msg, Event, Job, Addr>) {
        self.queue.push_back(output);
    }

    /// Takes the oldest output.
    pub fn pop(&mut self) -> Option<Output<Msg, Event, Job, Addr>> {
        self.queue.pop_front()
    }
}
