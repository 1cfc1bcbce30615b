//! One link over uTP: numbers packets, repeats lost ones, puts what comes in order; a stream of bytes both ways.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{Now, SendBuf};

use super::congestion::Congestion;
use super::packet::{HEADER, Kind, MAX_SACK, Packet};

/// Bytes of a datagram over IPv4 and IPv6 which fit through about every path.
const MTU: [usize; 2] = [1_400, 1_232];
/// Bytes taken in and not yet read, at most: more than the longest message of the peer wire.
const ROOM: usize = 1 << 20;
/// Packets ahead of a missing one that are kept, at most.
const AHEAD: u16 = 8 * MAX_SACK as u16;
/// Packets on their way, at most.
const MAX_FLIGHT: usize = 2_000;
/// A missing packet is sent again when so many after it have come.
const REORDER: usize = 3;
/// Timeouts in a row after which the link is given up; for one that never stood, fewer.
const MAX_TIMEOUTS: u32 = 6;
const MAX_SYNS: u32 = 3;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both or the other side have said that nothing more comes.
    Finished,
    /// The other side does not know us any more.
    Reset,
    /// The other side does not answer.
    Silent,
}

#[derive(Debug)]
struct Sent {
    kind: Kind,
    seq: u16,
    payload: Bytes,
    at: Now,
    times: u32,
    came: bool,
    lost: bool,
}

/// One link.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) addr: SocketAddr,
    recv_id: u16,
    send_id: u16,
    /// The other side has answered something that only it can know.
    pub(super) stands: bool,
    pub(super) end: Option<End>,
    next_seq: u16,
    flight: VecDeque<Sent>,
    flight_bytes: usize,
    congestion: Congestion,
    mss: usize,
    their_window: usize,
    timeouts: u32,
    /// No loss before this packet counts: the window was halved for it.
    halved_at: Option<u16>,
    fin_sent: bool,
    /// Bytes to send.
    pub(super) send: SendBuf,
    /// The stream as far as it has come.
    pub(super) input: BytesMut,
    ack: u16,
    ahead: BTreeMap<u16, Bytes>,
    ahead_bytes: usize,
    fin: Option<u16>,
    /// How long their last packet took, by both clocks.
    delay: u32,
    ack_due: bool,
    told_window: usize,
    /// When something last came over or the flight began.
    progress: Now,
}

/// How far `to` lies after `from`, wrapped.
fn after(to: u16, from: u16) -> u16 {
    to.wrapping_sub(from)
}

impl Connection {
    /// We dial: `id` is random.
    pub(super) fn dial(now: Now, addr: SocketAddr, id: u16) -> Self {
        let mut this = Self::new(now, addr, id, id.wrapping_add(1), 1);
        this.push(now, Kind::Syn, Bytes::new());
        this
    }

    /// They dial with this packet; `seq` is random.
    pub(super) fn accept(now: Now, addr: SocketAddr, syn: &Packet, seq: u16) -> Self {
        let mut this = Self::new(now, addr, syn.connection.wrapping_add(1), syn.connection, seq);
        this.ack = syn.seq;
        this.ack_due = true;
        this.heard(now, syn);
        this
    }

    fn new(now: Now, addr: SocketAddr, recv_id: u16, send_id: u16, next_seq: u16) -> Self {
        let mss = MTU[usize::from(addr.is_ipv6())] - HEADER;
        Self {
            addr,
            recv_id,
            send_id,
            stands: false,
            end: None,
            next_seq,
            flight: VecDeque::new(),
            flight_bytes: 0,
            congestion: Congestion::new(mss),
            mss,
            their_window: mss,
            timeouts: 0,
            halved_at: None,
            fin_sent: false,
            send: SendBuf::default(),
            input: BytesMut::new(),
            ack: 0,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            fin: None,
            delay: 0,
            ack_due: false,
            told_window: ROOM,
            progress: now,
        }
    }

    /// The connection id of packets to us.
    pub(super) fn recv_id(&self) -> u16 {
        self.recv_id
    }

    /// The connection id of packets from us.
    pub(super) fn send_id(&self) -> u16 {
        self.send_id
    }

    /// Nothing that we said is on its way or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.send.is_empty() && self.flight.is_empty()
    }

    /// The other side knows that we have nothing more to say.
    pub(super) fn is_parted(&self) -> bool {
        self.fin_sent && self.is_idle()
    }

    /// Tells the other side that we are gone.
    pub(super) fn reset(&self, now: Now) -> Bytes {
        Packet {
            kind: Kind::Reset,
            connection: self.send_id,
            timestamp: now.as_micros() as u32,
            delay: self.delay,
            window: 0,
            seq: self.next_seq,
            ack: self.ack,
            sack: Bytes::new(),
            payload: Bytes::new(),
        }
        .encode()
    }

    /// The other side has nothing more to say, and all that it said is in `input`.
    pub(super) fn is_finished(&self) -> bool {
        self.fin == Some(self.ack)
    }

    fn heard(&mut self, now: Now, packet: &Packet) {
        self.delay = (now.as_micros() as u32).wrapping_sub(packet.timestamp);
        self.their_window = packet.window as usize;
        if self.their_window < self.mss {
            // It does not read, but it is there.
            self.timeouts = 0;
        }
    }

    /// Takes a packet that belongs here.
    pub(super) fn receive(&mut self, now: Now, packet: Packet) {
        if packet.kind == Kind::Reset {
            self.end = Some(End::Reset);
            return;
        }
        if packet.kind == Kind::Syn {
            // Our answer was lost.
            self.ack_due |= packet.seq == self.ack && !self.stands;
            return;
        }
        // Acknowledges nothing that we sent: forged, or much too late.
        let oldest = self.flight.front().map_or(self.next_seq, |sent| sent.seq);
        let last_acked = oldest.wrapping_sub(1);
        let news = after(packet.ack, last_acked);
        let stale = news > after(self.next_seq.wrapping_sub(1), last_acked);
        if stale && (!self.stands || news < u16::MAX - AHEAD) {
            return;
        }
        if !self.stands {
            let dialled = self.flight.front().is_some_and(|sent| sent.kind == Kind::Syn);
            if dialled && news == 0 {
                return;
            }
            self.stands = true;
            if dialled {
                self.ack = packet.seq.wrapping_sub(1);
            }
        }
        if !stale {
            self.heard(now, &packet);
            self.acknowledged(now, &packet, last_acked);
        }
        if matches!(packet.kind, Kind::Data | Kind::Fin) {
            self.take(packet);
        }
    }

    fn take(&mut self, packet: Packet) {
        self.ack_due = true;
        let ahead = after(packet.seq, self.ack);
        if ahead == 0
            || ahead > AHEAD
            || self
                .fin
                .is_some_and(|fin| after(packet.seq, self.ack) > after(fin, self.ack))
        {
            return;
        }
        if packet.kind == Kind::Fin {
            self.fin = Some(packet.seq);
        }
        let room = ROOM.saturating_sub(self.input.len() + self.ahead_bytes);
        // What is next may come in while there is room at all: else what is ahead could lock it out.
        let full = packet.payload.len() > room && (ahead > 1 || self.input.len() >= ROOM);
        if full || self.ahead.contains_key(&packet.seq) {
            return;
        }
        self.ahead_bytes += packet.payload.len();
        self.ahead.insert(packet.seq, packet.payload);
        while let Some(next) = self.ahead.remove(&self.ack.wrapping_add(1)) {
            self.ack = self.ack.wrapping_add(1);
            self.ahead_bytes -= next.len();
            self.input.extend_from_slice(&next);
        }
    }

    fn acknowledged(&mut self, now: Now, packet: &Packet, last_acked: u16) {
        let before = self.flight_bytes;
        let mut acked = 0;
        let came = |sent: &mut Sent, congestion: &mut Congestion, acked: &mut usize| {
            if !std::mem::replace(&mut sent.came, true) {
                *acked += sent.payload.len();
                if sent.times == 1 {
                    congestion.round_trip(now.since(sent.at));
                }
            }
        };
        let mut moved = false;
        while let Some(sent) = self.flight.front_mut() {
            if after(sent.seq, last_acked) > after(packet.ack, last_acked) {
                break;
            }
            came(sent, &mut self.congestion, &mut acked);
            moved = true;
            self.flight.pop_front();
        }
        let mut later = 0;
        let mut loss = None;
        for sent in self.flight.iter_mut().rev() {
            let bit = usize::from(after(sent.seq, packet.ack)).checked_sub(2);
            let set = bit.is_some_and(|bit| {
                packet
                    .sack
                    .get(bit / 8)
                    .is_some_and(|byte| (byte >> (bit % 8)) & 1 != 0)
            });
            if set && after(sent.seq, packet.ack) <= AHEAD {
                came(sent, &mut self.congestion, &mut acked);
            }
            if sent.came {
                later += 1;
            } else if later >= REORDER && !sent.lost {
                // Sent again already: give that one a round trip to come over.
                let again = self.congestion.srtt().unwrap_or_default();
                if sent.times == 1 || now.since(sent.at) > again * 2 {
                    sent.lost = true;
                    loss = Some(sent.seq);
                }
            }
        }
        self.flight_bytes = self
            .flight
            .iter()
            .filter(|sent| !sent.came && !sent.lost)
            .map(|sent| sent.payload.len())
            .sum();
        if moved || acked > 0 {
            self.progress = now;
            self.timeouts = 0;
            self.congestion.acked(now, acked, before, packet.delay);
        }
        if let Some(seq) = loss
            && self.halved_at.is_none_or(|halved| after(seq, halved) < u16::MAX / 2)
        {
            self.halved_at = Some(self.next_seq);
            self.congestion.lost();
        }
    }

    fn push(&mut self, now: Now, kind: Kind, payload: Bytes) {
        if self.flight.is_empty() {
            self.progress = now;
        }
        self.flight.push_back(Sent {
            kind,
            seq: self.next_seq,
            payload,
            at: now,
            times: 0,
            came: false,
            lost: true,
        });
        self.next_seq = self.next_seq.wrapping_add(1);
    }

    /// Everything that may go out now. With `finish`, the end of our stream too, once all of it is sent.
    pub(super) fn transmit(&mut self, now: Now, finish: bool, mut out: impl FnMut(Bytes)) {
        let window = self.congestion.window().min(self.their_window);
        let mut at = 0;
        loop {
            while at < self.flight.len() && !self.flight[at].lost {
                at += 1;
            }
            if at == self.flight.len() {
                let room = window.saturating_sub(self.flight_bytes);
                let len = self.send.len().min(self.mss);
                if self.stands
                    && len > 0
                    && self.flight.len() < MAX_FLIGHT
                    && (len <= room || (self.flight.is_empty() && window > 0))
                {
                    let payload = self.split(len);
                    self.push(now, Kind::Data, payload);
                } else if finish && self.stands && self.send.is_empty() && !self.fin_sent {
                    self.fin_sent = true;
                    self.push(now, Kind::Fin, Bytes::new());
                } else {
                    break;
                }
            }
            let again = self.flight[at].times > 0;
            if again && self.flight_bytes + self.flight[at].payload.len() > window.max(self.mss) {
                break;
            }
            let sent = &mut self.flight[at];
            sent.lost = false;
            sent.times += 1;
            sent.at = now;
            self.flight_bytes += sent.payload.len();
            let (kind, seq, payload) = (sent.kind, sent.seq, sent.payload.clone());
            out(self.packet(now, kind, seq, payload));
        }
        if self.ack_due {
            out(self.packet(now, Kind::State, self.next_seq, Bytes::new()));
        }
    }

    fn split(&mut self, len: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(len);
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let filled = self.send.slices(&mut slices);
        for slice in &slices[..filled] {
            let part = slice.len().min(len - payload.len());
            payload.extend_from_slice(&slice[..part]);
        }
        self.send.consume(payload.len());
        payload.freeze()
    }

    fn room(&self) -> usize {
        ROOM.saturating_sub(self.input.len() + self.ahead_bytes)
    }

    /// What was read makes room: tells so when the other side may wait for it.
    pub(super) fn drained(&mut self) {
        self.ack_due |= self.told_window < ROOM / 4 && self.room() >= ROOM / 2;
    }

    fn packet(&mut self, now: Now, kind: Kind, seq: u16, payload: Bytes) -> Bytes {
        self.ack_due = false;
        self.told_window = self.room();
        let mut sack = Vec::new();
        for &seq in self.ahead.keys() {
            // Kept packets are 2 to [`AHEAD`] ahead.
            let bit = usize::from(after(seq, self.ack)) - 2;
            if sack.len() <= bit / 8 {
                sack.resize((bit / 8 + 1).next_multiple_of(4), 0);
            }
            sack[bit / 8] |= 1u8 << (bit % 8);
        }
        // Leave its room to the payload.
        if !payload.is_empty() {
            sack.clear();
            self.ack_due = !self.ahead.is_empty();
        }
        Packet {
            kind,
            connection: if kind == Kind::Syn { self.recv_id } else { self.send_id },
            timestamp: now.as_micros() as u32,
            delay: self.delay,
            window: self.told_window as u32,
            seq,
            ack: self.ack,
            sack: sack.into(),
            payload,
        }
        .encode()
    }

    /// When [`Connection::timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Now> {
        let waits = !self.flight.is_empty() || (self.stands && !self.send.is_empty());
        waits.then(|| self.progress + self.rto())
    }

    fn rto(&self) -> Duration {
        self.congestion.rto
    }

    /// Nothing came over for too long: everything is sent again, slowly.
    pub(super) fn timeout(&mut self, now: Now) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.progress = now;
        self.timeouts += 1;
        if self.timeouts >= (if self.stands { MAX_TIMEOUTS } else { MAX_SYNS }) {
            self.end = Some(End::Silent);
            return;
        }
        self.congestion.timed_out();
        self.flight_bytes = 0;
        for sent in &mut self.flight {
            sent.lost = !sent.came;
        }
        // A closed window is asked whether it is still.
        self.their_window = self.their_window.max(self.mss);
    }

    /// The first packet that goes out.
    #[cfg(test)]
    pub(super) fn transmitted(&mut self, now: Now) -> Bytes {
        let mut first = Bytes::new();
        self.transmit(now, false, |bytes| first = bytes);
        first
    }
}
