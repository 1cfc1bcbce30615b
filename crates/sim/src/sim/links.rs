//! Links: two ends, and what travels between them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{Codec, Direction, DisconnectCause, Input, LinkId, Machine, SendBuf};

use super::{Happening, NodeId, Parcel, Sim};
use crate::trace::Kind;
use crate::wire::{Fate, Way};

/// Names a link for the network as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PipeId(pub(super) u64);

/// One of the two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }

    pub(super) fn direction(self) -> Direction {
        match self {
            Self::Dialler => Direction::Outbound,
            Self::Listener => Direction::Inbound,
        }
    }
}

/// A link: the dialler's end first.
pub(super) struct Pipe<Msg, C> {
    pub(super) ends: [End<Msg, C>; 2],
    pub(super) latency: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// The link stands, but this side does not know yet.
    Unknown,
    Open,
    /// This side asked for the close: it sends what is queued and takes in nothing.
    Closing,
    Gone,
}

pub(super) struct End<Msg, C> {
    pub(super) node: NodeId,
    /// The node's life in which the link was made.
    pub(super) life: u32,
    pub(super) link: LinkId,
    pub(super) state: EndState,
    codec: C,
    /// Bytes taken in that are not yet a message.
    input: BytesMut,
    pub(super) paused: bool,
    /// What arrived during a pause.
    waiting: VecDeque<Parcel<Msg>>,
    /// Bytes sent that the other side has not taken in.
    unread: usize,
    /// Bytes sent since this side last got `Writable`; beyond the send mark another one is owed.
    since_writable: usize,
    pub(super) way: Way,
}

impl<Msg, C> End<Msg, C> {
    pub(super) fn new(node: NodeId, life: u32, link: LinkId, codec: C, state: EndState) -> Self {
        Self {
            node,
            life,
            link,
            state,
            codec,
            input: BytesMut::new(),
            paused: false,
            waiting: VecDeque::new(),
            unread: 0,
            since_writable: 0,
            way: Way::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == EndState::Open
    }

    fn takes_in(&self) -> bool {
        self.is_open() && !self.paused
    }
}

impl<M: Machine, C: Codec<Msg = M::Msg>> Sim<M, C> {
    /// Sends a message from one side; dropped when that side is not open.
    pub(super) fn send(&mut self, id: PipeId, side: Side, msg: M::Msg) {
        let Some(end) = self.end_mut(id, side).filter(|end| end.is_open()) else {
            return;
        };
        let mut encoded = SendBuf::default();
        end.codec.encode(&msg, &mut encoded);
        let whole = (!self.conditions.through_codec).then_some(msg);
        self.transmit(id, side, &encoded, whole);
    }

    /// Sends bytes, or in their place the message that they stand for.
    fn transmit(&mut self, id: PipeId, side: Side, encoded: &SendBuf, msg: Option<M::Msg>) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if encoded.is_empty() && msg.is_none() {
            return;
        }
        let latency = pipe.latency;
        let end = &mut pipe.ends[side.index()];
        let length = encoded.len();
        let bytes = Bytes::from(encoded.to_vec());
        end.unread += length;
        end.since_writable += length;
        let full = end.unread > self.conditions.send_cap;
        let fate = end.way.send(self.now, length, latency, &self.conditions, &mut self.rng);
        self.recorder
            .record(self.now, Kind::Sent, end.node.0, id.0, length as u64);
        self.recorder.bytes(&bytes);
        self.stats.bytes += length as u64;
        if full {
            let why = "the peer does not read what we send";
            return self.queue.push(self.now, Happening::Cut { pipe: id, why });
        }
        let parcel = match msg {
            None => Parcel::Bytes(bytes),
            Some(msg) => Parcel::Message { msg, length },
        };
        self.post(id, side.other(), parcel, fate);
    }

    fn post(&mut self, pipe: PipeId, to: Side, parcel: Parcel<M::Msg>, fate: Fate) {
        match fate {
            Fate::Arrives(at) => self.queue.push(at, Happening::Arrived { pipe, to, parcel }),
            Fate::Resets(at) => {
                let why = "connection timed out";
                self.queue.push(at, Happening::Cut { pipe, why });
            }
        }
    }

    /// Something has come to the end of its way.
    pub(super) fn arrived(&mut self, pipe: PipeId, to: Side, parcel: Parcel<M::Msg>) {
        let Some(end) = self.end_mut(pipe, to) else {
            return;
        };
        if !end.is_open() {
            return;
        }
        if end.paused || !end.waiting.is_empty() {
            end.waiting.push_back(parcel);
        } else {
            self.take_in(pipe, to, parcel);
        }
    }

    /// After a pause: takes in what waited, as long as nothing pauses again.
    pub(super) fn resumed(&mut self, pipe: PipeId, side: Side) {
        self.decode(pipe, side);
        while let Some(end) = self.end_mut(pipe, side) {
            if !end.takes_in() {
                return;
            }
            let Some(parcel) = end.waiting.pop_front() else {
                return;
            };
            self.take_in(pipe, side, parcel);
        }
    }

    fn take_in(&mut self, pipe: PipeId, side: Side, parcel: Parcel<M::Msg>) {
        match parcel {
            Parcel::Message { msg, length } => {
                self.deliver(pipe, side, msg);
                self.credit(pipe, side.other(), length);
            }
            Parcel::Bytes(bytes) => {
                if let Some(end) = self.end_mut(pipe, side) {
                    end.input.extend_from_slice(&bytes);
                }
                self.decode(pipe, side);
                self.credit(pipe, side.other(), bytes.len());
            }
            Parcel::End => self.end(pipe, side, DisconnectCause::Remote),
        }
    }

    fn decode(&mut self, pipe: PipeId, side: Side) {
        while let Some(end) = self.end_mut(pipe, side) {
            if !end.takes_in() || end.input.is_empty() {
                return;
            }
            let decoded = end.codec.decode(&mut end.input);
            let mut response = SendBuf::default();
            end.codec.respond(&mut response);
            self.transmit(pipe, side, &response, None);
            match decoded {
                Ok(Some(msg)) => self.deliver(pipe, side, msg),
                Ok(None) => return,
                Err(error) => return self.end(pipe, side, DisconnectCause::Codec(error.to_string())),
            }
        }
    }

    fn deliver(&mut self, pipe: PipeId, side: Side, msg: M::Msg) {
        let Some(end) = self.end_mut(pipe, side) else {
            return;
        };
        let (node, link) = (end.node, end.link);
        self.stats.messages += 1;
        self.recorder.record(self.now, Kind::Delivered, node.0, pipe.0, link.0);
        self.input(node, Input::Received { link, msg });
    }

    /// The other side took in what this side sent.
    fn credit(&mut self, pipe: PipeId, side: Side, length: usize) {
        let mark = self.conditions.send_mark;
        let Some(end) = self.end_mut(pipe, side) else {
            return;
        };
        end.unread = end.unread.saturating_sub(length);
        if end.since_writable > mark && end.is_open() && end.unread <= mark / 4 {
            end.since_writable = 0;
            let (node, link) = (end.node, end.link);
            self.recorder.record(self.now, Kind::Writable, node.0, pipe.0, link.0);
            self.input(node, Input::Writable { link });
        }
    }

    /// One side's link is over: tells its machine, and the other side unless that is where it comes from.
    pub(super) fn end(&mut self, id: PipeId, side: Side, cause: DisconnectCause) {
        let Some(end) = self.end_mut(id, side) else {
            return;
        };
        if matches!(end.state, EndState::Gone | EndState::Unknown) {
            return;
        }
        let (node, link) = (end.node, end.link);
        self.nodes[node.0].links.remove(&link);
        if side == Side::Listener {
            self.nodes[node.0].inbound -= 1;
        }
        if matches!(cause, DisconnectCause::Ours(_) | DisconnectCause::Codec(_)) {
            self.leave(id, side);
        } else {
            self.forget(id, side);
        }
        self.recorder.record(self.now, Kind::Disconnected, node.0, id.0, link.0);
        self.input(node, Input::Disconnected { link, cause });
    }

    /// One side goes without its machine hearing of it; the other side sees the end of what was sent.
    pub(super) fn leave(&mut self, id: PipeId, side: Side) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            let latency = pipe.latency;
            let way = &mut pipe.ends[side.index()].way;
            let fate = way.send(self.now, 0, latency, &self.conditions, &mut self.rng);
            self.post(id, side.other(), Parcel::End, fate);
        }
        self.forget(id, side);
    }

    fn forget(&mut self, id: PipeId, side: Side) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            let end = &mut pipe.ends[side.index()];
            end.state = EndState::Gone;
            end.waiting.clear();
            end.input = BytesMut::new();
            if pipe.ends.iter().all(|end| end.state == EndState::Gone) {
                self.pipes.remove(&id);
            }
        }
    }

    /// The network tears a link: both sides see a transport failure, what is on its way is lost.
    pub(super) fn cut(&mut self, id: PipeId, why: &'static str) {
        if !self.pipes.contains_key(&id) {
            return;
        }
        self.stats.cuts += 1;
        for side in [Side::Dialler, Side::Listener] {
            self.end(id, side, DisconnectCause::Transport(why.into()));
        }
        self.pipes.remove(&id);
    }
}
