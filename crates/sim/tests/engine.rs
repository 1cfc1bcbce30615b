//! The engine itself, driven with a small gossip machine: rumours flood, links fail, runs repeat.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use dunlin_peer::{
    CloseReason, Codec, CodecError, DialToken, DisconnectCause, Input, LinkId, Machine, Now, Outbox, Output, SendBuf,
};
use dunlin_sim::{Churn, Conditions, NodeId, Sim, Stats, Trace};

/// A rumour and its ballast.
#[derive(Clone, Debug, PartialEq)]
struct Rumour(u64, Bytes);

struct Wire;

impl Codec for Wire {
    type Msg = Rumour;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Rumour>, CodecError> {
        if input.len() < 12 {
            return Ok(None);
        }
        let number = (&input[..8]).get_u64();
        let length = (&input[8..12]).get_u32() as usize;
        if number == u64::MAX {
            return Err(CodecError::new("a bad number"));
        }
        if input.len() < 12 + length {
            return Ok(None);
        }
        input.advance(12);
        Ok(Some(Rumour(number, input.split_to(length).freeze())))
    }

    fn encode(&mut self, msg: &Rumour, out: &mut SendBuf) {
        out.put_slice(&msg.0.to_be_bytes());
        out.put_slice(&(msg.1.len() as u32).to_be_bytes());
        out.put_bytes(msg.1.clone());
    }
}

#[derive(Debug)]
enum Command {
    Datagram(SocketAddr, Bytes),
    Tell(Rumour),
    Pause,
    Resume,
    CloseAll,
}

#[derive(Debug, PartialEq)]
enum Event {
    Heard(u64),
    Connected,
    Disconnected(DisconnectCause),
    DialFailed,
    Writable,
    Datagram(SocketAddr, Bytes),
}

/// Keeps links to its friends, checks each new rumour by a job, tells it on.
struct Gossip {
    friends: BTreeMap<SocketAddr, Option<LinkId>>,
    links: BTreeSet<LinkId>,
    heard: BTreeSet<u64>,
    redial: Option<Now>,
    out: Outbox<Rumour, Event, (LinkId, Rumour)>,
}

const REDIAL: Duration = Duration::from_secs(3);

impl Gossip {
    fn new(now: Now, friends: &[SocketAddr]) -> Self {
        Self {
            friends: friends.iter().map(|addr| (*addr, None)).collect(),
            links: BTreeSet::new(),
            heard: BTreeSet::new(),
            redial: Some(now),
            out: Outbox::default(),
        }
    }

    fn learn(&mut self, rumour: &Rumour, from: Option<LinkId>) {
        if self.heard.insert(rumour.0) {
            self.out.event(Event::Heard(rumour.0));
            for link in &self.links {
                if Some(*link) != from {
                    self.out.send(*link, rumour.clone());
                }
            }
        }
    }
}

impl Machine for Gossip {
    type Addr = SocketAddr;
    type Msg = Rumour;
    type Command = Command;
    type Event = Event;
    type Job = (LinkId, Rumour);
    type Done = (LinkId, Rumour);

    fn handle(&mut self, now: Now, input: Input<Rumour, Command, (LinkId, Rumour)>) {
        match input {
            Input::DialFailed { addr, .. } => {
                self.friends.insert(addr, None);
                self.redial = Some(now + REDIAL);
                self.out.event(Event::DialFailed);
            }
            Input::Connected(link) => {
                self.links.insert(link.id);
                if link.token.is_some() {
                    self.friends.insert(link.addr, Some(link.id));
                }
                self.out.event(Event::Connected);
            }
            Input::Received { link, msg } => self.out.job((link, msg)),
            Input::Writable { .. } => self.out.event(Event::Writable),
            Input::Datagram { from, bytes } => self.out.event(Event::Datagram(from, bytes)),
            Input::Disconnected { link, cause } => {
                assert!(self.links.remove(&link), "one Disconnected for each Connected");
                for friend in self.friends.values_mut() {
                    if *friend == Some(link) {
                        *friend = None;
                        self.redial = Some(now + REDIAL);
                    }
                }
                self.out.event(Event::Disconnected(cause));
            }
            Input::Done((link, rumour)) => self.learn(&rumour, Some(link)),
            Input::Command(Command::Tell(rumour)) => self.learn(&rumour, None),
            Input::Command(Command::Datagram(to, bytes)) => self.out.datagram(to, bytes),
            Input::Command(Command::Pause) => {
                for link in self.links.clone() {
                    self.out.push(Output::PauseRead { link });
                }
            }
            Input::Command(Command::Resume) => {
                for link in self.links.clone() {
                    self.out.push(Output::ResumeRead { link });
                }
            }
            Input::Command(Command::CloseAll) => {
                for link in self.links.clone() {
                    self.out.close(link, CloseReason::benign("enough"));
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.redial.is_some_and(|due| due <= now) {
            self.redial = None;
            for (addr, link) in &self.friends {
                if link.is_none() {
                    self.out.dial(*addr, DialToken(9));
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Now> {
        self.redial
    }

    fn poll(&mut self) -> Option<Output<Rumour, Event, (LinkId, Rumour)>> {
        self.out.pop()
    }
}

type Net = Sim<Gossip, Wire>;

fn addr(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0b00_0001 + ((number as u32) << 8)), 8333))
}

/// A ring of `count` nodes with two chords each.
fn ring(seed: u64, count: usize, conditions: Conditions) -> Net {
    let mut sim = Sim::new(seed, Now::from_unix_secs(1_700_000_000), conditions, |_| Wire);
    for number in 0..count {
        let friends: Vec<SocketAddr> = [1, 7, 31]
            .iter()
            .map(|step| addr((number + step) % count))
            .filter(|friend| *friend != addr(number))
            .collect();
        sim.add(
            addr(number),
            move |now, _| Gossip::new(now, &friends),
            |_, job| (Duration::from_millis(2), job),
        );
    }
    sim.start_all();
    sim.run_for(Duration::from_secs(10));
    sim
}

fn tell(sim: &mut Net, node: usize, number: u64) {
    let ballast = Bytes::from(vec![number as u8; 300]);
    assert!(sim.command(NodeId(node), Command::Tell(Rumour(number, ballast))));
}

fn heard(sim: &Net, number: u64) -> usize {
    sim.ids()
        .filter_map(|id| sim.machine(id))
        .filter(|machine| machine.heard.contains(&number))
        .count()
}

fn causes(sim: &mut Net) -> Vec<DisconnectCause> {
    sim.take_events()
        .into_iter()
        .filter_map(|(_, _, event)| match event {
            Event::Disconnected(cause) => Some(cause),
            _ => None,
        })
        .collect()
}

/// Two nodes with one link, and the instant at which it stood.
fn pair(conditions: Conditions) -> Net {
    let mut sim = Sim::new(1, Now::from_unix_secs(1_700_000_000), conditions, |_| Wire);
    let run = |_, job| (Duration::ZERO, job);
    sim.add(addr(0), |now, _| Gossip::new(now, &[addr(1)]), run);
    sim.add(addr(1), |now, _| Gossip::new(now, &[]), run);
    sim.start_all();
    sim.run_for(Duration::from_secs(1));
    assert_eq!((sim.link_count(NodeId(0)), sim.link_count(NodeId(1))), (1, 1));
    sim.take_events();
    sim
}

#[test]
fn a_rumour_reaches_everybody_in_a_few_hops() {
    let mut sim = ring(1, 100, Conditions::default());
    assert_eq!(sim.connected_to(NodeId(0)).len(), 100);
    tell(&mut sim, 5, 77);
    assert!(
        sim.run_to(Duration::from_secs(5), Duration::from_millis(10), |sim| heard(sim, 77)
            == 100)
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    fn story(seed: u64, through_codec: bool) -> (Trace, Stats) {
        let conditions = Conditions {
            loss: 20_000,
            through_codec,
            ..Conditions::default()
        };
        let mut sim = ring(seed, 60, conditions);
        let churn = Churn {
            mean_up: Duration::from_secs(30),
            mean_down: Duration::from_secs(5),
        };
        sim.set_churn(Some(churn), |id| id.0 % 3 == 0);
        for number in 0..30 {
            tell(&mut sim, 1 + (number as usize % 20) * 3, number);
            sim.run_for(Duration::from_secs(3));
        }
        (sim.trace(), sim.stats())
    }
    let first = story(11, true);
    assert_eq!(first, story(11, true));
    assert_ne!(first.0, story(12, true).0);
    // Whether messages travel as bytes makes no difference to what happens.
    assert_eq!(first, story(11, false));
    assert!(first.1.messages > 5_000 && first.1.bytes > first.1.messages * 312);
}

#[test]
fn a_partition_separates_and_healing_joins() {
    let mut sim = ring(2, 60, Conditions::default());
    sim.partition(|id| u32::from(id.0 >= 20));
    assert!(
        causes(&mut sim)
            .iter()
            .all(|cause| matches!(cause, DisconnectCause::Transport(_)))
    );
    tell(&mut sim, 0, 1);
    tell(&mut sim, 30, 2);
    sim.run_for(Duration::from_secs(60));
    assert_eq!((heard(&sim, 1), heard(&sim, 2)), (20, 40));
    assert_eq!(sim.connected_to(NodeId(0)).len(), 20);
    sim.heal();
    sim.run_for(Duration::from_secs(20));
    assert_eq!(sim.connected_to(NodeId(0)).len(), 60);
    tell(&mut sim, 0, 3);
    sim.run_for(Duration::from_secs(5));
    assert_eq!(heard(&sim, 3), 60);
}

#[test]
fn churn_takes_nodes_down_and_brings_them_back() {
    let mut sim = ring(3, 50, Conditions::default());
    let churn = Churn {
        mean_up: Duration::from_secs(20),
        mean_down: Duration::from_secs(20),
    };
    sim.set_churn(Some(churn), |id| id.0 != 0);
    let mut fewest = 50;
    for _ in 0..60 {
        sim.run_for(Duration::from_secs(2));
        fewest = fewest.min(sim.ids().filter(|id| sim.is_running(*id)).count());
    }
    assert!((5..40).contains(&fewest), "{fewest}");
    assert!(sim.is_running(NodeId(0)));
    sim.set_churn(None, |_| false);
    sim.run_for(Duration::from_secs(60));
    assert_eq!(sim.connected_to(NodeId(0)).len(), 50);
}

#[test]
fn dials_fail_when_refused_and_when_nobody_answers() {
    let mut sim = Sim::new(4, Now::from_unix_secs(1_700_000_000), Conditions::default(), |_| Wire);
    let run = |_, job| (Duration::ZERO, job);
    sim.add(addr(0), |now, _| Gossip::new(now, &[addr(1), addr(99)]), run);
    sim.add(addr(1), |now, _| Gossip::new(now, &[]), run);
    sim.start(NodeId(0));
    sim.run_for(Duration::from_secs(1));
    let refused = sim.take_events();
    assert!(
        matches!(refused[..], [(_, NodeId(0), Event::DialFailed)]),
        "{refused:?}"
    );
    sim.start(NodeId(1));
    sim.run_for(Duration::from_secs(12));
    let later: Vec<Event> = sim.take_events().into_iter().map(|(_, _, event)| event).collect();
    assert_eq!(later, [Event::Connected, Event::Connected, Event::DialFailed]);
}

#[test]
fn latency_and_bandwidth_are_felt() {
    let conditions = Conditions {
        min_latency: Duration::from_millis(80),
        max_latency: Duration::from_millis(80),
        jitter: Duration::ZERO,
        bandwidth: 100_000,
        ..Conditions::default()
    };
    let mut sim = pair(conditions);
    let began = sim.now();
    let rumour = Rumour(1, Bytes::from(vec![0; 200_000 - 12]));
    sim.command(NodeId(0), Command::Tell(rumour));
    sim.run_for(Duration::from_secs(5));
    let events = sim.take_events();
    let (at, node, _) = &events[1];
    assert_eq!(*node, NodeId(1));
    assert_eq!(at.since(began), Duration::from_millis(2080));
}

#[test]
fn a_close_sends_first_and_both_sides_hear_once() {
    let conditions = Conditions {
        bandwidth: 100_000,
        ..Conditions::default()
    };
    let mut sim = pair(conditions);
    sim.command(NodeId(0), Command::Tell(Rumour(1, Bytes::from(vec![0; 100_000]))));
    sim.command(NodeId(0), Command::CloseAll);
    sim.command(NodeId(0), Command::Tell(Rumour(2, Bytes::new())));
    sim.run_for(Duration::from_secs(3));
    assert_eq!((heard(&sim, 1), heard(&sim, 2)), (2, 1));
    let ends = causes(&mut sim);
    let ours = DisconnectCause::Ours(CloseReason::benign("enough"));
    assert_eq!(ends, [ours, DisconnectCause::Remote]);
}

#[test]
fn a_paused_side_takes_nothing_in_and_the_sender_is_told_of_room() {
    let conditions = Conditions {
        send_mark: 1000,
        ..Conditions::default()
    };
    let mut sim = pair(conditions);
    sim.command(NodeId(1), Command::Pause);
    for number in 0..10 {
        tell(&mut sim, 0, number);
    }
    sim.run_for(Duration::from_secs(2));
    assert_eq!(heard(&sim, 0), 1, "the teller alone");
    assert!(!sim.take_events().iter().any(|(_, _, event)| *event == Event::Writable));
    sim.command(NodeId(1), Command::Resume);
    sim.run_for(Duration::from_secs(1));
    assert_eq!((heard(&sim, 0), heard(&sim, 9)), (2, 2));
    let writable = sim.take_events();
    let writable = writable.iter().filter(|(_, _, event)| *event == Event::Writable);
    assert_eq!(writable.count(), 1);
}

#[test]
fn a_sender_that_never_stops_is_cut_off() {
    let conditions = Conditions {
        send_cap: 100_000,
        ..Conditions::default()
    };
    let mut sim = pair(conditions);
    sim.command(NodeId(1), Command::Pause);
    for number in 0..400 {
        tell(&mut sim, 0, number);
    }
    sim.run_for(Duration::from_millis(1));
    let ends = causes(&mut sim);
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|cause| matches!(cause, DisconnectCause::Transport(_))));
}

#[test]
fn bytes_that_do_not_decode_end_the_link() {
    let mut sim = pair(Conditions::default());
    tell(&mut sim, 0, u64::MAX);
    sim.run_for(Duration::from_secs(1));
    let ends = causes(&mut sim);
    assert_eq!(
        ends,
        [DisconnectCause::Codec("a bad number".into()), DisconnectCause::Remote]
    );
}

#[test]
fn heavy_loss_slows_and_resets_links_but_rumours_get_through() {
    let run = |loss| {
        let conditions = Conditions {
            loss,
            ..Conditions::default()
        };
        let mut sim = ring(6, 40, conditions);
        causes(&mut sim);
        let began = sim.now();
        for number in 0..20 {
            tell(&mut sim, number as usize, number);
        }
        assert!(sim.run_to(Duration::from_secs(600), Duration::from_millis(50), |sim| {
            (0..20).all(|number| heard(sim, number) == 40)
        }));
        let time = sim.now().since(began);
        // Giving up takes TCP half a minute.
        sim.run_for(Duration::from_secs(60));
        (time, causes(&mut sim).len())
    };
    let (fast, whole) = run(0);
    let (slow, torn) = run(400_000);
    assert_eq!(whole, 0);
    assert!(slow > fast * 2 && torn > 0, "{fast:?} {slow:?} {torn}");
}

#[test]
fn full_listeners_refuse() {
    let conditions = Conditions {
        max_inbound: 2,
        ..Conditions::default()
    };
    let mut sim = Sim::new(5, Now::from_unix_secs(1_700_000_000), conditions, |_| Wire);
    let run = |_, job| (Duration::ZERO, job);
    sim.add(addr(0), |now, _| Gossip::new(now, &[]), run);
    for number in 1..6 {
        sim.add(addr(number), |now, _| Gossip::new(now, &[addr(0)]), run);
    }
    sim.start_all();
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.link_count(NodeId(0)), 2);
    assert_eq!(causes(&mut sim), vec![DisconnectCause::Remote; 3]);
}

#[test]
fn datagrams_arrive_once_or_are_lost_as_often_as_the_conditions_say() {
    const COUNT: u16 = 2000;
    let arrived = |loss| {
        let conditions = Conditions {
            loss,
            bandwidth: 100_000_000,
            ..Conditions::default()
        };
        let mut net = pair(conditions);
        for number in 0..COUNT {
            let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
            net.command(NodeId(0), Command::Datagram(addr(1), bytes));
        }
        net.command(NodeId(0), Command::Datagram(addr(77), Bytes::new()));
        net.run_for(Duration::from_secs(1));
        let mut got = BTreeSet::new();
        for (_, node, event) in net.take_events() {
            if let Event::Datagram(from, bytes) = event {
                assert_eq!((node, from), (NodeId(1), addr(0)));
                assert!(got.insert(bytes), "a datagram came twice");
            }
        }
        got.len()
    };
    assert_eq!(arrived(0), usize::from(COUNT));
    let some = arrived(100_000);
    assert!((1700..1900).contains(&some), "{some} of {COUNT} arrived");
}
