//! Several relays and hand-driven peers joined in one thread, with virtual time and the real wire format between them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod money;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bitcoin::{Block, BlockHash, Transaction};
use bytes::BytesMut;
use dunlin_chain::{Chain, Network, Params, ParsedBlock, View};
use dunlin_mempool::Pool;
use dunlin_peer::{
    AddressBook, Codec as _, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, NetAddr, Now, Output,
    Reach, SendBuf,
};
use dunlin_relay::{
    AddKind, Codec, Command, Config, Done, Engine, Event, Job, Message, Relay, SpentCoins, Version, services,
};

/// Changes an answer to `getbspent`.
pub type Twist = fn(&mut SpentCoins);

/// When every bed starts.
pub const START: u64 = 1_800_000_000;
/// How long every message takes.
pub const LATENCY: Duration = Duration::from_millis(10);

/// One whole peer.
pub struct Member {
    pub relay: Relay,
    pub engine: Engine,
    pub addr: NetAddr,
    pub events: Vec<Event>,
}

impl Member {
    pub fn view(&self) -> View {
        self.engine.chain.view()
    }

    pub fn height(&self) -> u32 {
        self.view().tip().height
    }

    pub fn tip(&self) -> BlockHash {
        self.view().tip().hash
    }

    pub fn pool_len(&self) -> usize {
        self.engine.pool.read().unwrap().txids().len()
    }
}

/// Somebody who says whatever the test wants.
#[derive(Default)]
pub struct Hand {
    pub inbox: Vec<Message>,
    pub closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Member(usize),
    Hand(usize),
}

/// One end of a connection.
struct End {
    other: (Who, LinkId),
    addr: NetAddr,
    received: BytesMut,
    codec: Codec,
}

enum Delivery {
    Bytes(Vec<u8>),
    Connected(Link<NetAddr>),
    Closed(DisconnectCause),
    DialFailed(NetAddr, DialToken),
}

pub struct Bed {
    pub now: Now,
    pub members: Vec<Member>,
    pub hands: Vec<Hand>,
    ends: BTreeMap<(Who, LinkId), End>,
    queue: BTreeMap<(Now, u64), (Who, LinkId, Delivery)>,
    sequence: u64,
    links: u64,
    /// Members who are dead to the world.
    pub frozen: BTreeSet<usize>,
    /// Addresses that the resolver knows, by name; and the names that were asked for.
    pub names: BTreeMap<String, Vec<NetAddr>>,
    pub resolved: Vec<String>,
    /// A member whose answers to `getbspent` are changed on their way.
    pub twist: Option<(usize, Twist)>,
    pub bytes: u64,
    pub messages: BTreeMap<String, u64>,
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

/// The seed, told apart by the member's number.
fn seed(n: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    seed
}

impl Bed {
    pub fn new() -> Self {
        Self {
            now: Now::from_unix_secs(START),
            members: Vec::new(),
            hands: Vec::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            links: 0,
            frozen: BTreeSet::new(),
            names: BTreeMap::new(),
            resolved: Vec::new(),
            twist: None,
            bytes: 0,
            messages: BTreeMap::new(),
        }
    }

    /// A peer with the genesis block and a public address of its own.
    pub fn member(&mut self) -> usize {
        self.member_with(|_| {})
    }

    pub fn member_with(&mut self, change: impl FnOnce(&mut Config)) -> usize {
        self.member_on(Params::new(Network::Regtest), change)
    }

    /// A peer on a network of other parameters, with the same magic.
    pub fn member_on(&mut self, params: Params, change: impl FnOnce(&mut Config)) -> usize {
        self.member_of(Chain::in_memory(params).unwrap(), change)
    }

    /// A peer with this chain.
    pub fn member_of(&mut self, chain: Chain, change: impl FnOnce(&mut Config)) -> usize {
        let n = self.members.len();
        let view = chain.view();
        let pool = Arc::new(RwLock::new(Pool::new(Default::default(), view.clone())));
        let addr: NetAddr = format!("{}.{}.7.1:8333", 20 + n / 200, n % 200).parse().unwrap();
        let mut config = Config {
            seed: seed(n),
            listen_port: Some(8333),
            external: vec![addr],
            ..Config::default()
        };
        change(&mut config);
        let book = AddressBook::new(seed(n), Reach::Public);
        let relay = Relay::new(config, view, pool.clone(), book, self.now);
        self.members.push(Member {
            relay,
            engine: Engine::new(chain, pool),
            addr,
            events: Vec::new(),
        });
        self.drain(n);
        n
    }

    /// `from` dials `to` and keeps the link.
    pub fn join(&mut self, from: usize, to: usize) {
        let addr = self.members[to].addr;
        self.command(from, Command::AddPeer(addr, AddKind::Add));
    }

    /// A hand dials a member from an address of its own, and shakes hands.
    pub fn hand(&mut self, to: usize) -> usize {
        let n = self.hands.len();
        self.hand_at(to, format!("{}.9.9.9:5000", 60 + n).parse().unwrap())
    }

    pub fn hand_at(&mut self, to: usize, addr: NetAddr) -> usize {
        let n = self.hands.len();
        self.hands.push(Hand::default());
        self.connect(Who::Hand(n), Who::Member(to), addr, None);
        self.say(n, Message::Version(Box::new(hand_version(n))));
        self.run(Duration::from_millis(50));
        self.say(n, Message::WtxidRelay);
        self.say(n, Message::SendAddrV2);
        self.say(n, Message::Verack);
        self.run(Duration::from_millis(50));
        n
    }

    /// Sends from a hand.
    pub fn say(&mut self, hand: usize, msg: Message) {
        if let Some(link) = self.hand_link(hand) {
            self.transmit(Who::Hand(hand), link, &msg);
        }
    }

    /// Sends on a member's link what its machine would not.
    pub fn say_as(&mut self, member: usize, link: LinkId, msg: Message) {
        self.transmit(Who::Member(member), link, &msg);
    }

    /// Sends arbitrary bytes from a hand.
    pub fn say_bytes(&mut self, hand: usize, bytes: Vec<u8>) {
        if let Some(link) = self.hand_link(hand) {
            let other = self.ends[&(Who::Hand(hand), link)].other;
            self.push(LATENCY, other, Delivery::Bytes(bytes));
        }
    }

    fn hand_link(&self, hand: usize) -> Option<LinkId> {
        self.ends
            .keys()
            .find(|(who, _)| *who == Who::Hand(hand))
            .map(|(_, link)| *link)
    }

    /// What a hand heard since the last call.
    pub fn heard(&mut self, hand: usize) -> Vec<Message> {
        std::mem::take(&mut self.hands[hand].inbox)
    }

    pub fn command(&mut self, member: usize, command: Command) {
        let now = self.now;
        self.members[member].relay.handle(now, Input::Command(command));
        self.drain(member);
    }

    /// Mines a block on the member's tip and submits it.
    pub fn mine(&mut self, member: usize) -> Arc<ParsedBlock> {
        let block = money::next_block(&self.members[member], self.now, Vec::new());
        self.submit(member, block)
    }

    pub fn submit(&mut self, member: usize, block: Block) -> Arc<ParsedBlock> {
        let block = ParsedBlock::from_block(block);
        self.command(
            member,
            Command::SubmitBlock {
                ticket: 0,
                block: block.clone(),
            },
        );
        block
    }

    pub fn submit_tx(&mut self, member: usize, tx: Transaction) {
        self.command(
            member,
            Command::SubmitTx {
                ticket: 0,
                tx: Arc::new(tx),
            },
        );
    }

    /// Gives a chain of blocks to a member before it meets anybody.
    pub fn preload(&mut self, member: usize, blocks: &[Arc<ParsedBlock>]) {
        let now = self.now;
        for block in blocks {
            self.members[member].engine.accept_block(now, block.clone()).unwrap();
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `goal`; returns whether it was reached.
    pub fn run_until(&mut self, time: Duration, goal: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if goal(self) {
                return true;
            }
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timers = (0..self.members.len()).filter(|n| !self.frozen.contains(n));
            let timer = timers
                .filter_map(|n| Some((self.members[n].relay.poll_timeout()?, n)))
                .min();
            let next = arrival.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return goal(self);
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let ((_, _), (who, link, delivery)) = self.queue.pop_first().unwrap();
                self.deliver(who, link, delivery);
            } else if let Some((at, n)) = timer {
                let now = self.now;
                self.members[n].relay.handle_timeout(now);
                self.drain(n);
                let again = self.members[n].relay.poll_timeout();
                assert!(
                    again.is_none_or(|next| next > now || next > at),
                    "member {n} spins at {now:?}"
                );
            }
        }
    }

    /// Everyone's tip is this block.
    pub fn agree(&self, tip: BlockHash) -> bool {
        (0..self.members.len())
            .filter(|n| !self.frozen.contains(n))
            .all(|n| self.members[n].tip() == tip)
    }

    /// Reasons for which a member gave up on peers.
    pub fn misbehaviours(&self, member: usize) -> Vec<(String, bool)> {
        let reason = |event: &Event| match event {
            Event::Misbehaved {
                reason, discouraged, ..
            } => Some((reason.clone(), *discouraged)),
            _ => None,
        };
        self.members[member].events.iter().filter_map(reason).collect()
    }

    /// Cuts every link of a member, as when its machine loses power.
    pub fn kill(&mut self, member: usize) {
        self.frozen.insert(member);
        let ends: Vec<_> = self
            .ends
            .keys()
            .filter(|(who, _)| *who == Who::Member(member))
            .copied()
            .collect();
        for end in ends {
            if let Some(gone) = self.ends.remove(&end) {
                self.push(LATENCY, gone.other, Delivery::Closed(DisconnectCause::Remote));
            }
        }
    }

    fn push(&mut self, after: Duration, to: (Who, LinkId), delivery: Delivery) {
        self.sequence += 1;
        self.queue
            .insert((self.now + after, self.sequence), (to.0, to.1, delivery));
    }

    fn connect(&mut self, from: Who, to: Who, from_addr: NetAddr, token: Option<DialToken>) {
        let (near, far) = (LinkId(self.links), LinkId(self.links + 1));
        self.links += 2;
        let to_addr = match to {
            Who::Member(n) => self.members[n].addr,
            Who::Hand(_) => from_addr,
        };
        let end = |other, addr| End {
            other,
            addr,
            received: BytesMut::new(),
            codec: Codec::new(Params::new(Network::Regtest).magic),
        };
        self.ends.insert((from, near), end((to, far), to_addr));
        self.ends.insert((to, far), end((from, near), from_addr));
        let link = |id, addr, direction, token| Link {
            id,
            addr,
            bind: None,
            direction,
            token,
        };
        self.push(
            LATENCY,
            (to, far),
            Delivery::Connected(link(far, from_addr, Direction::Inbound, None)),
        );
        self.push(
            LATENCY,
            (from, near),
            Delivery::Connected(link(near, to_addr, Direction::Outbound, token)),
        );
    }

    fn transmit(&mut self, who: Who, link: LinkId, msg: &Message) {
        let Some(end) = self.ends.get_mut(&(who, link)) else {
            return;
        };
        let other = end.other;
        let mut out = SendBuf::default();
        end.codec.encode(msg, &mut out);
        if let (Message::RawSpent(_), Some((liar, twist))) = (msg, self.twist)
            && who == Who::Member(liar)
        {
            let mut bytes = BytesMut::from(&out.to_vec()[..]);
            let Ok(Some(Message::Spent(mut told))) = end.codec.decode(&mut bytes) else {
                panic!("an answer is readable");
            };
            twist(&mut told);
            out = SendBuf::default();
            end.codec.encode(&Message::Spent(told), &mut out);
        }
        self.bytes += out.len() as u64;
        *self.messages.entry(msg.command().to_owned()).or_default() += 1;
        self.push(LATENCY, other, Delivery::Bytes(out.to_vec()));
    }

    fn deliver(&mut self, who: Who, link: LinkId, delivery: Delivery) {
        if let Who::Member(n) = who
            && self.frozen.contains(&n)
        {
            return;
        }
        match delivery {
            Delivery::Bytes(bytes) => self.bytes_came(who, link, &bytes),
            Delivery::Connected(link) => self.input(who, Input::Connected(link)),
            Delivery::Closed(cause) => {
                if self.ends.remove(&(who, link)).is_some() {
                    if let Who::Hand(n) = who {
                        self.hands[n].closed = true;
                    }
                    self.input(who, Input::Disconnected { link, cause });
                }
            }
            Delivery::DialFailed(addr, token) => self.input(who, Input::DialFailed { addr, token }),
        }
    }

    fn bytes_came(&mut self, who: Who, link: LinkId, bytes: &[u8]) {
        let Some(end) = self.ends.get_mut(&(who, link)) else {
            return;
        };
        end.received.extend_from_slice(bytes);
        loop {
            let Some(end) = self.ends.get_mut(&(who, link)) else {
                return;
            };
            match end.codec.decode(&mut end.received) {
                Ok(Some(msg)) => match who {
                    Who::Member(_) => self.input(who, Input::Received { link, msg }),
                    Who::Hand(n) => self.hands[n].inbox.push(msg),
                },
                Ok(None) => return,
                Err(error) => return self.cut(who, link, DisconnectCause::Codec(error.0)),
            }
        }
    }

    fn cut(&mut self, who: Who, link: LinkId, cause: DisconnectCause) {
        if let Some(end) = self.ends.remove(&(who, link)) {
            self.push(LATENCY, end.other, Delivery::Closed(DisconnectCause::Remote));
            self.input(who, Input::Disconnected { link, cause });
        }
    }

    fn input(&mut self, who: Who, input: Input<Message, Command, dunlin_relay::Done, NetAddr>) {
        if let Who::Member(n) = who {
            let now = self.now;
            self.members[n].relay.handle(now, input);
            self.drain(n);
        }
    }

    /// Carries out what a member wants, jobs at once.
    fn drain(&mut self, n: usize) {
        let now = self.now;
        while let Some(output) = self.members[n].relay.poll() {
            let who = Who::Member(n);
            match output {
                Output::Send { link, msg } => self.transmit(who, link, &msg),
                Output::Dial { addr, token } => {
                    let up =
                        (0..self.members.len()).find(|m| self.members[*m].addr == addr && !self.frozen.contains(m));
                    let own = self.members[n].addr;
                    match up {
                        Some(m) => self.connect(who, Who::Member(m), NetAddr { port: 40_000, ..own }, Some(token)),
                        None => self.push(LATENCY, (who, LinkId(u64::MAX)), Delivery::DialFailed(addr, token)),
                    }
                }
                Output::Close { link, reason } => self.cut(who, link, DisconnectCause::Ours(reason)),
                Output::PauseRead { .. } | Output::ResumeRead { .. } | Output::Datagram { .. } => {}
                Output::Job(job) => {
                    let member = &mut self.members[n];
                    let done = match job {
                        Job::Resolve { name, .. } => {
                            let addrs = self.names.get(&name).cloned().unwrap_or_default();
                            self.resolved.push(name);
                            Done::Resolved { addrs }
                        }
                        job => member.engine.run(now, job),
                    };
                    member.relay.handle(now, Input::Done(done));
                }
                Output::Event(event) => self.members[n].events.push(event),
            }
        }
    }
}

fn hand_version(n: usize) -> Version {
    Version {
        version: 70_016,
        services: services::NETWORK | services::WITNESS,
        timestamp: START as i64,
        receiver: "[::]:0".parse().unwrap(),
        receiver_services: 0,
        nonce: 1_000_000 + n as u64,
        user_agent: "/hand/".into(),
        start_height: 0,
        relay: true,
    }
}

impl Bed {
    /// Opens a link for a hand that says nothing by itself.
    pub fn connect_silently(&mut self, hand: usize, to: usize, addr: NetAddr) {
        self.connect(Who::Hand(hand), Who::Member(to), addr, None);
        self.run(Duration::from_millis(50));
    }
}
