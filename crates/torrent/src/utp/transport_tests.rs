//! Two machines over a wire that loses, repeats and reorders datagrams.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::BytesMut;
use dunlin_peer::{CodecError, Outbox, SendBuf};

use super::*;

/// Bytes as they come.
#[derive(Debug)]
struct Raw;

impl Codec for Raw {
    type Msg = Bytes;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        Ok((!input.is_empty()).then(|| input.split().freeze()))
    }

    fn encode(&mut self, msg: &Bytes, out: &mut SendBuf) {
        out.put_bytes(msg.clone());
    }
}

/// Dials, says what it is told to say, remembers what it heard.
#[derive(Default)]
struct Talker {
    out: Outbox<Bytes, (), ()>,
    links: Vec<Link>,
    heard: Vec<u8>,
    ended: Vec<DisconnectCause>,
    failed: usize,
    writable: usize,
}

impl Machine for Talker {
    type Msg = Bytes;
    type Addr = SocketAddr;
    type Command = Output<Bytes, (), ()>;
    type Event = ();
    type Job = ();
    type Done = ();

    fn handle(&mut self, _: Now, input: Input<Bytes, Self::Command, ()>) {
        match input {
            Input::Connected(link) => self.links.push(link),
            Input::Received { msg, .. } => self.heard.extend_from_slice(&msg),
            Input::Disconnected { cause, .. } => self.ended.push(cause),
            Input::DialFailed { .. } => self.failed += 1,
            Input::Writable { .. } => self.writable += 1,
            Input::Command(output) => self.out.push(output),
            Input::Datagram { .. } | Input::Done(()) => {}
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Now> {
        None
    }

    fn poll(&mut self) -> Option<Output<Bytes, (), ()>> {
        self.out.pop()
    }
}

type Peer = Transport<Talker, Raw>;

/// Two peers and what is on its way between them.
struct Wire {
    now: Now,
    peers: [Peer; 2],
    way: BinaryHeap<Reverse<(Now, u64, usize, Bytes)>>,
    /// When each direction's line is free again.
    free: [Now; 2],
    sent: u64,
    rng: ChaCha8Rng,
    /// Of a thousand datagrams so many are lost, come twice, come late.
    trouble: [u32; 3],
    dead: bool,
}

const LATENCY: Duration = Duration::from_millis(20);
/// Bytes a second of each direction.
const RATE: u64 = 5_000_000;
/// A longer queue before the line drops what comes.
const QUEUE: Duration = Duration::from_millis(300);

fn addr(peer: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, peer as u8 + 1], 6881))
}

impl Wire {
    fn new(trouble: [u32; 3], seed: u8) -> Self {
        let peer = |n: u8| Transport::new(Talker::default(), true, [seed ^ n; 32], |_| Raw);
        Self {
            now: Now::from_unix_secs(1_000),
            peers: [peer(0), peer(64)],
            way: BinaryHeap::new(),
            free: [Now::default(); 2],
            sent: 0,
            rng: ChaCha8Rng::from_seed([seed; 32]),
            trouble,
            dead: false,
        }
    }

    fn tell(&mut self, peer: usize, input: Input<Bytes, Output<Bytes, (), ()>, ()>) {
        self.peers[peer].handle(self.now, input);
        self.carry(peer);
    }

    fn dial(&mut self) {
        let (addr, token) = (addr(1), dial_token(DialToken(7)));
        self.tell(0, Input::Command(Output::Dial { addr, token }));
    }

    fn say(&mut self, peer: usize, bytes: Vec<u8>) {
        let link = self.peers[peer].inner.links[0].id;
        self.tell(
            peer,
            Input::Command(Output::Send {
                link,
                msg: bytes.into(),
            }),
        );
    }

    fn carry(&mut self, from: usize) {
        while let Some(output) = self.peers[from].poll() {
            let Output::Datagram { bytes, .. } = output else {
                continue;
            };
            assert!(bytes.len() <= 1_400);
            self.sent += 1;
            let mut happens = |per_mille: u32| self.rng.random_range(0..1000) < per_mille;
            let [lost, twice, late] = self.trouble.map(&mut happens);
            let start = self.free[from].max(self.now);
            if lost || self.dead || start > self.now + QUEUE {
                continue;
            }
            self.free[from] = start + Duration::from_micros(bytes.len() as u64 * 1_000_000 / RATE);
            let mut at = self.free[from] + LATENCY;
            if late {
                at = at + LATENCY;
            }
            self.way.push(Reverse((at, self.sent, 1 - from, bytes.clone())));
            if twice {
                self.way.push(Reverse((at + LATENCY / 2, self.sent, 1 - from, bytes)));
            }
        }
    }

    /// One event; false when nothing will ever happen again.
    fn step(&mut self) -> bool {
        let timeouts = [0, 1].map(|peer| self.peers[peer].poll_timeout());
        let arrival = self.way.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = timeouts.into_iter().flatten().chain(arrival).min() else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            if let Some(Reverse((_, _, to, bytes))) = self.way.pop() {
                self.tell(
                    to,
                    Input::Datagram {
                        from: addr(1 - to),
                        bytes,
                    },
                );
            }
        } else {
            for peer in [0, 1] {
                if timeouts[peer] == Some(next) {
                    self.peers[peer].handle_timeout(self.now);
                    self.carry(peer);
                }
            }
        }
        true
    }

    fn run(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let stuck = !self.step() || self.now.since(start) > limit;
            assert!(!stuck, "not done after {:?}", self.now.since(start));
        }
        self.now.since(start)
    }

    fn connect(&mut self) {
        self.dial();
        self.run(Duration::from_secs(10), |wire| !wire.peers[0].inner.links.is_empty());
        // Who was dialled believes in the link once something has come.
        self.say(0, vec![0]);
        self.run(Duration::from_secs(10), |wire| !wire.peers[1].inner.heard.is_empty());
        self.peers[1].inner.heard.clear();
    }
}

fn content(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|n| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ salt)
        .collect()
}

#[test]
fn bytes_arrive_intact_in_order_and_once_over_a_bad_wire() {
    for (seed, trouble) in [
        (1, [0, 0, 0]),
        (2, [20, 0, 0]),
        (3, [0, 50, 100]),
        (4, [50, 50, 50]),
        (5, [200, 20, 20]),
    ] {
        let mut wire = Wire::new(trouble, seed);
        wire.connect();
        let (there, back) = (content(1_500_000, 1), content(400_000, 2));
        wire.say(0, there.clone());
        wire.say(1, back.clone());
        wire.run(Duration::from_secs(600), |wire| {
            wire.peers[1].inner.heard.len() >= 1_500_000 && wire.peers[0].inner.heard.len() >= 400_000
        });
        assert!(
            wire.peers[1].inner.heard == there && wire.peers[0].inner.heard == back,
            "{trouble:?}"
        );
        assert!(wire.peers[0].inner.writable >= 1);
        // The end comes over as well, and nothing is left.
        let link = wire.peers[0].inner.links[0].id;
        let reason = CloseReason::benign("done");
        wire.tell(
            0,
            Input::Command(Output::Close {
                link,
                reason: reason.clone(),
            }),
        );
        wire.run(Duration::from_secs(60), |wire| {
            wire.peers.iter().all(|peer| peer.inner.ended.len() == 1)
        });
        assert_eq!(wire.peers[0].inner.ended, [DisconnectCause::Ours(reason)]);
        assert!(
            wire.peers
                .iter()
                .all(|peer| peer.links.is_empty() && peer.names.is_empty())
        );
    }
}

#[test]
fn a_good_line_is_used_and_its_queue_kept_short() {
    let mut wire = Wire::new([0, 0, 0], 6);
    wire.connect();
    let len = 30_000_000;
    wire.say(0, content(len, 1));
    let took = wire.run(Duration::from_secs(60), |wire| wire.peers[1].inner.heard.len() >= len);
    let ideal = Duration::from_secs_f64(len as f64 / RATE as f64);
    assert!(took < ideal * 3 / 2, "{took:?} instead of {ideal:?}");
    let queued = wire.free[0].since(wire.now);
    assert!(queued < Duration::from_millis(200), "{queued:?}");
}

#[test]
fn a_reader_that_stalls_holds_back_the_sender_and_loses_nothing() {
    let mut wire = Wire::new([10, 0, 10], 7);
    wire.connect();
    let link = wire.peers[1].inner.links[0].id;
    wire.tell(1, Input::Command(Output::PauseRead { link }));
    let all = content(6_000_000, 3);
    wire.say(0, all.clone());
    let until = wire.now + Duration::from_secs(120);
    wire.run(Duration::from_secs(600), |wire| wire.now >= until);
    let held = &wire.peers[1].links[&link].connection;
    assert!(held.input.len() <= (1 << 20) + 1_400, "{}", held.input.len());
    assert!(wire.peers[1].inner.heard.is_empty() && wire.peers[0].inner.ended.is_empty());
    wire.tell(1, Input::Command(Output::ResumeRead { link }));
    wire.run(Duration::from_secs(120), |wire| {
        wire.peers[1].inner.heard.len() >= all.len()
    });
    assert!(wire.peers[1].inner.heard == all);
}

#[test]
fn a_dead_host_and_a_reset_end_the_link() {
    let mut wire = Wire::new([0, 0, 0], 8);
    wire.dead = true;
    wire.dial();
    wire.run(Duration::from_secs(30), |wire| wire.peers[0].inner.failed == 1);

    let mut wire = Wire::new([0, 0, 0], 9);
    wire.connect();
    wire.dead = true;
    wire.say(0, vec![1]);
    wire.run(Duration::from_secs(300), |wire| wire.peers[0].inner.ended.len() == 1);
    // The other side never heard of the end; what it says now is answered with a reset.
    wire.dead = false;
    wire.say(1, vec![2]);
    wire.run(Duration::from_secs(60), |wire| wire.peers[1].inner.ended.len() == 1);
    let text = wire.peers[1].inner.ended[0].to_string();
    assert!(text.contains("reset"), "{text}");
}

#[test]
fn a_flood_of_forged_first_packets_is_bounded_and_tells_the_machine_nothing() {
    let mut wire = Wire::new([0, 0, 0], 10);
    for n in 0..5_000u32 {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(0x0b00_0000 + n), 1));
        let syn = Connection::dial(wire.now, from, n as u16).transmitted(wire.now);
        wire.tell(0, Input::Datagram { from, bytes: syn });
    }
    assert!(wire.peers[0].links.len() <= MAX_UNPROVEN && wire.peers[0].inner.links.is_empty());
    let until = wire.now + PROVE + Duration::from_secs(1);
    while wire.now < until && wire.step() {}
    assert!(wire.peers[0].links.is_empty() && wire.peers[0].inner.ended.is_empty());
}
