//! A machine's links over uTP, beside those of its driver.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dunlin_peer::{
    CloseReason, Codec, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, Now, Output,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::connection::{Connection, End};
use super::packet::{Kind, Packet};

/// Our links' ids and the tokens of our dials have this bit; those of a driver, which counts from 1, never get there.
const OURS: u64 = 1 << 63;
/// Connections of all kinds, and among them those that the other side opened and has not proven to want.
const MAX_CONNECTIONS: usize = 512;
const MAX_UNPROVEN: usize = 64;
/// How long an unproven connection may stay.
const PROVE: Duration = Duration::from_secs(10);
/// How long the last words may take.
const CLOSE: Duration = Duration::from_secs(5);
/// `Writable` is owed for every so many bytes queued, and given when a quarter of it is left.
const SEND_MARK: usize = 1 << 20;
/// Bytes in a send queue above which the link is not read from, and above which it is dropped.
const READ_MARK: usize = 4 << 20;
const SEND_CAP: usize = 48 << 20;

type Out<M> = Output<<M as Machine>::Msg, <M as Machine>::Event, <M as Machine>::Job>;

/// A link over uTP.
#[derive(Debug)]
struct UtpLink<C> {
    connection: Connection,
    codec: C,
    direction: Direction,
    token: Option<DialToken>,
    since: Now,
    /// The machine knows the link.
    told: bool,
    paused: bool,
    since_writable: usize,
    closing: Option<(CloseReason, Now)>,
}

/// A dial with this token is made over uTP, when it is asked of a [`Transport`] that is on.
pub(crate) fn dial_token(token: DialToken) -> DialToken {
    DialToken(token.0 | OURS)
}

/// Whether a link is over uTP.
pub(crate) fn is_utp(link: LinkId) -> bool {
    link.0 & OURS != 0
}

/// A machine that dials and takes in links over uTP beside those of its driver.
pub struct Transport<M: Machine, C> {
    inner: M,
    make_codec: Box<dyn Fn(Direction) -> C>,
    rng: ChaCha8Rng,
    enabled: bool,
    links: BTreeMap<LinkId, UtpLink<C>>,
    /// By the other side's address and the connection id of packets to us.
    names: BTreeMap<(SocketAddr, u16), LinkId>,
    /// Links with something to do at the end of the call.
    touched: BTreeSet<LinkId>,
    next_link: u64,
    out: VecDeque<Out<M>>,
}

impl<M: Machine<Addr = SocketAddr>, C: Codec<Msg = M::Msg>> Transport<M, C> {
    /// Puts uTP before `inner`; when it is not `enabled`, everything passes through unchanged. Connection ids are drawn
    /// from `seed`, which should be secret.
    pub fn new(inner: M, enabled: bool, seed: [u8; 32], make_codec: impl Fn(Direction) -> C + 'static) -> Self {
        Self {
            inner,
            make_codec: Box::new(make_codec),
            rng: ChaCha8Rng::from_seed(seed),
            enabled,
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            touched: BTreeSet::new(),
            next_link: OURS,
            out: VecDeque::new(),
        }
    }

    /// Gives the machine an input and carries out what it wants.
    fn give(&mut self, now: Now, input: Input<M::Msg, M::Command, M::Done>) {
        self.inner.handle(now, input);
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Now) {
        while let Some(output) = self.inner.poll() {
            if let Output::Dial { addr, token } = output
                && token.0 & OURS != 0
            {
                self.dial(now, addr, token);
                continue;
            }
            let id = match &output {
                Output::Send { link, .. }
                | Output::Close { link, .. }
                | Output::PauseRead { link }
                | Output::ResumeRead { link } => *link,
                Output::Dial { .. } | Output::Datagram { .. } | Output::Job(_) | Output::Event(_) => LinkId(0),
            };
            if !is_utp(id) {
                self.out.push_back(output);
                continue;
            }
            let Some(link) = self.links.get_mut(&id) else { continue };
            self.touched.insert(id);
            match output {
                Output::Send { msg, .. } if link.closing.is_none() => {
                    let send = &mut link.connection.send;
                    let before = send.len();
                    link.codec.encode(&msg, send);
                    link.since_writable += send.len() - before;
                }
                Output::Close { reason, .. } if link.closing.is_none() => link.closing = Some((reason, now + CLOSE)),
                Output::PauseRead { .. } => link.paused = true,
                Output::ResumeRead { .. } => link.paused = false,
                _ => {}
            }
        }
    }

    fn open(&mut self, now: Now, connection: Connection, direction: Direction, token: Option<DialToken>) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.names.insert((connection.addr, connection.recv_id()), id);
        let link = UtpLink {
            connection,
            codec: (self.make_codec)(direction),
            direction,
            token,
            since: now,
            told: false,
            paused: false,
            since_writable: 0,
            closing: None,
        };
        self.links.insert(id, link);
        self.touched.insert(id);
    }

    /// Dials, or says that it is not possible.
    fn dial(&mut self, now: Now, addr: SocketAddr, token: DialToken) {
        let mut ids = (0..8).map(|_| self.rng.random::<u16>());
        match ids.find(|id| !self.names.contains_key(&(addr, *id))) {
            Some(id) if self.enabled && self.links.len() < MAX_CONNECTIONS => {
                let connection = Connection::dial(now, addr, id);
                self.open(now, connection, Direction::Outbound, Some(token));
            }
            _ => self.give(now, Input::DialFailed { addr, token }),
        }
    }

    /// Takes a datagram of ours; gives it back when it is none.
    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: Bytes) -> Option<Bytes> {
        let Some(packet) = Packet::decode(bytes.clone()).filter(|_| self.enabled) else {
            return Some(bytes);
        };
        let name = match packet.kind {
            Kind::Syn => (from, packet.connection.wrapping_add(1)),
            _ => (from, packet.connection),
        };
        let mut id = self.names.get(&name).copied();
        if id.is_none() && packet.kind == Kind::Reset {
            // Who does not know us may call the link by our name for it.
            let ours =
                |link: &UtpLink<C>| link.connection.addr == from && link.connection.send_id() == packet.connection;
            id = self.links.iter().find(|(_, link)| ours(link)).map(|(id, _)| *id);
        }
        match (
            id.and_then(|id| self.links.get_mut(&id).map(|link| (id, link))),
            packet.kind,
        ) {
            (Some((id, link)), _) => {
                link.connection.receive(now, packet);
                self.touched.insert(id);
            }
            (None, Kind::Syn) => self.knock(now, from, &packet),
            (None, Kind::Data | Kind::Fin) => {
                let reset = Packet {
                    kind: Kind::Reset,
                    seq: 0,
                    ack: packet.seq,
                    window: 0,
                    sack: Bytes::new(),
                    payload: Bytes::new(),
                    ..packet
                };
                self.out.push_back(Output::Datagram {
                    to: from,
                    bytes: reset.encode(),
                });
            }
            (None, Kind::State | Kind::Reset) => {}
        }
        None
    }

    /// Somebody wants a link. Its address may be forged: the machine hears of it once an answer to ours has come.
    fn knock(&mut self, now: Now, from: SocketAddr, syn: &Packet) {
        let unproven = |link: &&UtpLink<C>| !link.connection.stands && link.direction == Direction::Inbound;
        if self.links.len() >= MAX_CONNECTIONS || self.links.values().filter(unproven).count() >= MAX_UNPROVEN {
            return;
        }
        let seq = self.rng.random();
        self.open(now, Connection::accept(now, from, syn, seq), Direction::Inbound, None);
    }

    /// Does for each touched link what is to be done, until nothing more follows from it.
    fn settle(&mut self, now: Now) {
        while let Some(id) = self.touched.pop_first() {
            self.advance(now, id);
        }
    }

    fn advance(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.connection.stands && !link.told && link.connection.end.is_none() {
            link.told = true;
            let link = Link {
                id,
                addr: link.connection.addr,
                bind: None,
                direction: link.direction,
                token: link.token,
            };
            self.give(now, Input::Connected(link));
        }
        self.read(now, id);
        self.write(now, id);
        self.finish(now, id);
    }

    /// Delivers what has come.
    fn read(&mut self, now: Now, id: LinkId) {
        while let Some(link) = self.links.get_mut(&id) {
            let open = link.told && !link.paused && link.closing.is_none() && link.connection.end.is_none();
            if !open || link.connection.send.len() > READ_MARK {
                return;
            }
            let decoded = link.codec.decode(&mut link.connection.input);
            link.codec.respond(&mut link.connection.send);
            link.connection.drained();
            match decoded {
                Ok(Some(msg)) => self.give(now, Input::Received { link: id, msg }),
                Ok(None) => {
                    if link.connection.is_finished() {
                        link.connection.end = Some(End::Finished);
                    }
                    return;
                }
                Err(error) => return self.end(now, id, DisconnectCause::Codec(error.to_string())),
            }
        }
    }

    /// Sends what may go out.
    fn write(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let addr = link.connection.addr;
        let out = &mut self.out;
        link.connection.transmit(now, link.closing.is_some(), |bytes| {
            out.push_back(Output::Datagram { to: addr, bytes });
        });
        let queued = link.connection.send.len();
        if queued > SEND_CAP {
            return self.end(
                now,
                id,
                DisconnectCause::Transport("the peer does not read what we send".into()),
            );
        }
        if link.told && link.since_writable > SEND_MARK && queued <= SEND_MARK / 4 {
            link.since_writable = 0;
            self.touched.insert(id);
            self.give(now, Input::Writable { link: id });
        }
    }

    /// Ends a link that is over.
    fn finish(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let cause = match (&link.closing, link.connection.end) {
            (Some((reason, deadline)), end) if end.is_some() || link.connection.is_parted() || now >= *deadline => {
                DisconnectCause::Ours(reason.clone())
            }
            (None, Some(End::Finished)) => DisconnectCause::Remote,
            (None, Some(End::Reset)) => DisconnectCause::Transport("connection reset by the peer".into()),
            (None, Some(End::Silent)) => DisconnectCause::Transport("the peer's host stopped answering".into()),
            (Some(_), _) => return,
            (None, None) if !link.told && link.direction == Direction::Inbound && now >= link.since + PROVE => {
                DisconnectCause::Remote
            }
            (None, None) => return,
        };
        self.end(now, id, cause);
    }

    fn end(&mut self, now: Now, id: LinkId, cause: DisconnectCause) {
        let Some(link) = self.links.remove(&id) else { return };
        let connection = &link.connection;
        self.names.remove(&(connection.addr, connection.recv_id()));
        let parted = matches!(connection.end, Some(End::Finished | End::Reset)) || connection.is_parted();
        if connection.stands && !parted {
            self.out.push_back(Output::Datagram {
                to: connection.addr,
                bytes: connection.reset(now),
            });
        }
        match (link.told, link.token) {
            (true, _) => self.give(now, Input::Disconnected { link: id, cause }),
            (false, Some(token)) => {
                let addr = connection.addr;
                self.give(now, Input::DialFailed { addr, token });
            }
            (false, None) => {}
        }
    }

    fn deadline(link: &UtpLink<C>) -> Option<Now> {
        let closing = link.closing.as_ref().map(|(_, deadline)| *deadline);
        let prove = (!link.told && link.direction == Direction::Inbound).then(|| link.since + PROVE);
        [link.connection.deadline(), closing, prove].into_iter().flatten().min()
    }
}

impl<M: Machine<Addr = SocketAddr>, C: Codec<Msg = M::Msg>> Machine for Transport<M, C> {
    type Msg = M::Msg;
    type Addr = SocketAddr;
    type Command = M::Command;
    type Event = M::Event;
    type Job = M::Job;
    type Done = M::Done;

    fn handle(&mut self, now: Now, input: Input<M::Msg, M::Command, M::Done>) {
        match input {
            Input::Datagram { from, bytes } => {
                if let Some(bytes) = self.datagram(now, from, bytes) {
                    self.give(now, Input::Datagram { from, bytes });
                }
            }
            input => self.give(now, input),
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
        self.carry_out(now);
        let due = |link: &UtpLink<C>| Self::deadline(link).is_some_and(|at| at <= now);
        let due: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| due(link))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(link) = self.links.get_mut(&id) {
                link.connection.timeout(now);
                self.touched.insert(id);
            }
        }
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<Now> {
        let links = self.links.values().filter_map(Self::deadline);
        links.chain(self.inner.poll_timeout()).min()
    }

    fn poll(&mut self) -> Option<Out<M>> {
        self.out.pop_front()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "transport_tests.rs"]
mod tests;
