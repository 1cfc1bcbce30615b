//! A whole Bitcoin peer against a sequence of operations: the relay machine, its engine and a regtest chain in memory.
//! Peers connect, say valid and invalid things in any order and vanish; jobs are done late; time passes. Nothing may
//! panic, one input may not set off more than a bounded number of outputs, and the chain never loses work.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use bitcoin::hashes::Hash;
use bytes::BytesMut;
use dunlin_fuzz::regtest::{Ask, KNOWN, MATURE, START, Say, addr, chain, command, message, version};
use dunlin_fuzz::take;
use dunlin_mempool::Pool;
use dunlin_peer::{
    AddressBook, Codec as _, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, NetAddr, Now, Output, Reach,
    SendBuf,
};
use dunlin_relay::{Codec, Command, Config, Done, Engine, Job, Message, Relay, services};
use libfuzzer_sys::fuzz_target;

/// Outputs that one input may set off: far below what a peer can ask for in one message.
const MOST_OUTPUTS: usize = 5_000;

#[derive(Arbitrary, Debug)]
struct Script {
    mature: bool,
    immediate: bool,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    /// A peer connects and shakes hands as it should.
    Sound {
        addr: u8,
    },
    Connect {
        addr: u8,
    },
    DialOk {
        dial: u8,
    },
    DialFailed {
        dial: u8,
    },
    /// The whole handshake of a sound peer.
    Shake {
        link: u8,
        services: u8,
        height: i32,
        relay: bool,
        wtxid: bool,
    },
    Say {
        link: u8,
        what: Say,
    },
    /// A payload in a sound envelope.
    Payload {
        link: u8,
        command: u8,
        payload: Vec<u8>,
    },
    Bytes {
        link: u8,
        bytes: Vec<u8>,
    },
    Close {
        link: u8,
        codec: bool,
    },
    Writable {
        link: u8,
    },
    Wait {
        millis: u16,
    },
    WaitLong {
        secs: u32,
    },
    Work {
        jobs: u8,
    },
    Command(Ask),
}

struct Peer {
    codec: Codec,
    input: BytesMut,
}

struct World {
    now: Now,
    relay: Relay,
    engine: Engine,
    magic: [u8; 4],
    peers: BTreeMap<LinkId, Peer>,
    dials: Vec<(NetAddr, DialToken)>,
    jobs: VecDeque<Job>,
    next_link: u64,
}

fuzz_target!(|script: Script| {
    let mut chain = chain();
    if script.mature {
        for block in &KNOWN.blocks[..MATURE] {
            chain.accept_block(START, block.clone()).expect("a sound block");
        }
    }
    let view = chain.view();
    let magic = view.params().magic;
    let pool = Arc::new(RwLock::new(Pool::new(Default::default(), view.clone())));
    let config = Config {
        seed: [3; 32],
        listen_port: Some(8333),
        external: vec![addr(200).into()],
        immediate: script.immediate,
        max_inbound: 6,
        ..Config::default()
    };
    let now = Now::from_unix_secs(START);
    let book = AddressBook::new([4; 32], Reach::Public);
    let mut world = World {
        now,
        relay: Relay::new(config, view.clone(), pool.clone(), book, now),
        engine: Engine::new(chain, pool),
        magic,
        peers: BTreeMap::new(),
        dials: Vec::new(),
        jobs: VecDeque::new(),
        next_link: 1,
    };
    world.drain();
    let mut work = view.tip().chain_work;
    for op in script.ops {
        world.apply(op);
        let tip = view.tip();
        assert!(tip.chain_work >= work, "the chain lost work");
        work = tip.chain_work;
    }
    world.work(usize::MAX);
});

impl World {
    fn input(&mut self, input: Input<Message, Command, Done, NetAddr>) {
        self.relay.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.relay.poll() {
            outputs += 1;
            assert!(outputs <= MOST_OUTPUTS, "an input set off too much");
            match output {
                Output::Send { link, msg } => {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        let mut out = SendBuf::default();
                        peer.codec.encode(&msg, &mut out);
                    }
                }
                Output::Dial { addr, token } => self.dials.push((addr, token)),
                Output::Close { link, reason } => {
                    if self.peers.remove(&link).is_some() {
                        let cause = DisconnectCause::Ours(reason);
                        self.relay.handle(self.now, Input::Disconnected { link, cause });
                    }
                }
                Output::Job(job) => self.jobs.push_back(job),
                Output::PauseRead { .. } | Output::ResumeRead { .. } | Output::Datagram { .. } | Output::Event(_) => {}
            }
        }
    }

    /// Does the oldest jobs.
    fn work(&mut self, most: usize) {
        for _ in 0..most.min(10_000) {
            let Some(job) = self.jobs.pop_front() else { return };
            let done = self.engine.run(self.now, job);
            self.input(Input::Done(done));
        }
        assert!(most < 10_000, "the work never ends");
    }

    fn connect(&mut self, addr: NetAddr, token: Option<DialToken>) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.peers.insert(
            id,
            Peer {
                codec: Codec::new(self.magic),
                input: BytesMut::new(),
            },
        );
        let direction = if token.is_some() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        self.input(Input::Connected(Link {
            id,
            addr,
            bind: None,
            direction,
            token,
        }));
    }

    fn link(&self, n: u8) -> Option<LinkId> {
        let at = usize::from(n) % self.peers.len().max(1);
        self.peers.keys().nth(at).copied()
    }

    /// The message goes through the wire, so that the machine only sees what a codec lets pass.
    fn say(&mut self, link: LinkId, message: &Message) {
        let mut out = SendBuf::default();
        Codec::new(self.magic).encode(message, &mut out);
        self.bytes(link, &out.to_vec());
    }

    fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.input.extend_from_slice(bytes);
        }
        while let Some(peer) = self.peers.get_mut(&link) {
            match peer.codec.decode(&mut peer.input) {
                Ok(Some(msg)) => self.input(Input::Received { link, msg }),
                Ok(None) => return,
                Err(error) => return self.close(link, DisconnectCause::Codec(error.0)),
            }
        }
    }

    fn greet(&mut self, link: LinkId, offer: u64, height: i32, relay: bool, wtxid: bool) {
        self.say(link, &version(70_016, offer, link.0, START as i64, height, relay));
        if wtxid {
            self.say(link, &Message::WtxidRelay);
            self.say(link, &Message::SendAddrV2);
        }
        self.say(link, &Message::Verack);
    }

    fn close(&mut self, link: LinkId, cause: DisconnectCause) {
        self.peers.remove(&link);
        self.input(Input::Disconnected { link, cause });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Sound { addr: n } => {
                self.connect(addr(n), None);
                self.greet(
                    LinkId(self.next_link - 1),
                    services::NETWORK | services::WITNESS,
                    5,
                    true,
                    true,
                );
            }
            Op::Connect { addr: n } => self.connect(addr(n), None),
            Op::DialOk { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.connect(addr, Some(token));
                }
            }
            Op::DialFailed { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.input(Input::DialFailed { addr, token });
                }
            }
            Op::Shake {
                link,
                services: bits,
                height,
                relay,
                wtxid,
            } => {
                let Some(link) = self.link(link) else { return };
                let offer = if bits % 4 == 0 {
                    bits.into()
                } else {
                    services::NETWORK | services::WITNESS
                };
                self.greet(link, offer, height, relay, wtxid);
            }
            Op::Say { link, what } => {
                if let Some(link) = self.link(link) {
                    let message = message(what);
                    self.say(link, &message);
                }
            }
            Op::Payload { link, command, payload } => {
                if let Some(link) = self.link(link) {
                    let bytes = envelope(self.magic, command, &payload);
                    self.bytes(link, &bytes);
                }
            }
            Op::Bytes { link, bytes } => {
                if let Some(link) = self.link(link) {
                    self.bytes(link, &bytes);
                }
            }
            Op::Close { link, codec } => {
                if let Some(link) = self.link(link) {
                    let cause = if codec {
                        DisconnectCause::Codec("nonsense".into())
                    } else {
                        DisconnectCause::Remote
                    };
                    self.close(link, cause);
                }
            }
            Op::Writable { link } => {
                if let Some(link) = self.link(link) {
                    self.input(Input::Writable { link });
                }
            }
            Op::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Op::WaitLong { secs } => self.wait(Duration::from_secs((secs % 100_000).into())),
            Op::Work { jobs } => self.work(jobs.into()),
            Op::Command(ask) => self.input(Input::Command(command(ask))),
        }
    }

    /// Lets time pass in at most fifty steps.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..50 {
            let Some(due) = self.relay.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.relay.handle_timeout(end);
        self.drain();
    }
}

fn pick<T>(list: &mut Vec<T>, n: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(usize::from(n) % list.len()))
}

fn envelope(magic: [u8; 4], command: u8, mut payload: &[u8]) -> Vec<u8> {
    const COMMANDS: [&str; 12] = [
        "version",
        "feefilter",
        "ping",
        "pong",
        "addr",
        "addrv2",
        "inv",
        "getdata",
        "getheaders",
        "headers",
        "tx",
        "block",
    ];
    // An odd first byte breaks the checksum.
    let broken = command % 2 == 1 && take(&mut payload) == 0xff;
    let text = COMMANDS[usize::from(command / 2) % COMMANDS.len()].as_bytes();
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(text);
    bytes.resize(16, 0);
    bytes.extend((payload.len() as u32).to_le_bytes());
    let sum = bitcoin::hashes::sha256d::Hash::hash(payload).to_byte_array();
    bytes.extend(sum[..4].iter().map(|byte| byte ^ u8::from(broken)));
    bytes.extend_from_slice(payload);
    bytes
}
