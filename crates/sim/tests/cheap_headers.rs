//! Newcomers among peers that flood them with headers of little work: none of it is kept, and the honest chain is found
//! all the same (headers presync).

#![allow(clippy::unwrap_used)]

mod bitcoin_net;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bitcoin::Work;
use bitcoin::block::Header;
use bitcoin_net::{START, addr, block_on};
use dunlin_chain::build::BLOCK_VERSION;
use dunlin_chain::{Chain, ChainConfig, ChainStore, Params, View};
use dunlin_mempool::Pool;
use dunlin_peer::{AddressBook, Input, LinkId, Machine, NetAddr, Now, Output, Reach};
use dunlin_relay::{Codec, Command, Config, Done, Engine, Event, Job, MAX_HEADERS, Message, Relay};
use dunlin_sim::{Conditions, NodeId, Sim};

/// Blocks that the network's minimum of work is worth.
const MINIMUM: u32 = 4_500;
/// Blocks of the honest chain.
const LENGTH: u32 = 5_000;
const FLOODERS: usize = 4;
const NEWCOMERS: usize = 4;
/// Full `headers` messages from one flooder.
const BATCHES: usize = 60;

/// Regtest, where each block is worth two hashes, with a minimum of work.
fn params() -> Params {
    let mut minimum = [0; 32];
    minimum[28..].copy_from_slice(&(2 * (MINIMUM + 1)).to_be_bytes());
    Params {
        minimum_chain_work: Work::from_be_bytes(minimum),
        ..bitcoin_net::params()
    }
}

/// A relay; one that floods answers all that it hears with headers, in branches that end below the minimum.
struct Peer {
    relay: Relay,
    flood: Option<Flood>,
}

struct Flood {
    salt: u32,
    /// The end of the branch that is being shown, and how many batches it has.
    last: (Header, usize),
    batches: usize,
    sent: Rc<RefCell<usize>>,
    out: VecDeque<(LinkId, Message)>,
}

impl Flood {
    fn go_on(&mut self, link: LinkId) {
        if self.batches == BATCHES {
            return;
        }
        self.batches += 1;
        if self.last.1 == 2 {
            self.last = (params().genesis.header, 0);
            self.salt += 1;
        }
        let headers: Vec<Header> = (0..MAX_HEADERS).map(|_| self.next()).collect();
        *self.sent.borrow_mut() += headers.len();
        self.last.1 += 1;
        self.out.push_back((link, Message::Headers(headers)));
    }

    fn next(&mut self) -> Header {
        let mut header = self.last.0;
        header.prev_blockhash = header.block_hash();
        header.time += 1 + self.salt;
        header.version = BLOCK_VERSION;
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        self.last.0 = header;
        header
    }
}

impl Machine for Peer {
    type Msg = Message;
    type Addr = NetAddr;
    type Command = Command;
    type Event = Event;
    type Job = Job;
    type Done = Done;

    fn handle(&mut self, now: Now, input: Input<Message, Command, Done, NetAddr>) {
        if let Some(flood) = &mut self.flood
            && let Input::Received { link, msg } = &input
            && !matches!(msg, Message::Version(_) | Message::Verack)
        {
            flood.go_on(*link);
            if matches!(msg, Message::GetHeaders(_)) {
                return;
            }
        }
        self.relay.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.relay.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Now> {
        self.relay.poll_timeout()
    }

    fn poll(&mut self) -> Option<Output<Message, Event, Job, NetAddr>> {
        let flooded = self.flood.as_mut().and_then(|flood| flood.out.pop_front());
        match flooded {
            Some((link, msg)) => Some(Output::Send { link, msg }),
            None => self.relay.poll(),
        }
    }
}

/// Adds a peer that keeps connected to `peers`, with `blocks` blocks of the honest chain.
fn add(
    sim: &mut Sim<Peer, Codec>,
    number: usize,
    blocks: &[Arc<dunlin_chain::ParsedBlock>],
    peers: &[usize],
    flooding: Option<Rc<RefCell<usize>>>,
) -> View {
    let config = ChainConfig {
        cache_bytes: 1 << 20,
        script_threads: 1,
        ..ChainConfig::default()
    };
    let mut chain = Chain::open(params(), ChainStore::in_memory(), config).unwrap();
    for block in blocks {
        chain.accept_block(START, Arc::clone(block)).unwrap();
    }
    let view = chain.view();
    let pool = Arc::new(RwLock::new(Pool::new(Default::default(), view.clone())));
    let engine = RefCell::new(Engine::new(chain, Arc::clone(&pool)));
    let peers: Vec<_> = peers.iter().map(|peer| addr(*peer).into()).collect();
    let of_relay = view.clone();
    let make = move |now: Now, _: u32| {
        let config = Config {
            seed: [number as u8; 32],
            add_peers: peers.clone(),
            listen_port: Some(8333),
            max_outbound: 0,
            max_block_relay: 0,
            ..Config::default()
        };
        let book = AddressBook::new([number as u8; 32], Reach::Public);
        Peer {
            relay: Relay::new(config, of_relay.clone(), Arc::clone(&pool), book, now),
            flood: flooding.clone().map(|sent| Flood {
                salt: 1 + 1_000 * number as u32,
                last: (params().genesis.header, 0),
                batches: 0,
                sent,
                out: VecDeque::new(),
            }),
        }
    };
    let run = move |now: Now, job: Job| (Duration::from_millis(1), engine.borrow_mut().run(now, job));
    sim.add(addr(number), make, run);
    view
}

#[test]
fn newcomers_keep_none_of_a_flood_of_cheap_headers_and_find_the_chain() {
    let magic = params().magic;
    let make_codec = move |_| Codec::new(magic);
    let mut sim = Sim::new(7, Now::from_unix_secs(START), Conditions::default(), make_codec);
    let mut whole = Chain::in_memory(params()).unwrap();
    let mut blocks = Vec::new();
    for height in 1..=LENGTH {
        let time = START - u64::from(LENGTH - height + 1) * 600;
        let block = block_on(&whole.view(), time, vec![], b"");
        whole.accept_block(START, Arc::clone(&block)).unwrap();
        blocks.push(block);
    }
    let sent = Rc::new(RefCell::new(0));
    for number in 0..FLOODERS {
        add(&mut sim, number, &[], &[], Some(Rc::clone(&sent)));
    }
    let source = FLOODERS + NEWCOMERS;
    let newcomers: Vec<View> = (0..NEWCOMERS)
        .map(|n| {
            // A line with the honest source at its end, and every flooder at each.
            let peers: Vec<usize> = (0..FLOODERS).chain([FLOODERS + n + 1]).collect();
            add(&mut sim, FLOODERS + n, &[], &peers, None)
        })
        .collect();
    let tip = add(&mut sim, source, &blocks, &[], None).tip().hash;
    // The source comes late.
    sim.start_all();
    sim.stop(NodeId(source));
    let bounded = |newcomers: &[View], most: usize| {
        for view in newcomers {
            assert!(view.header_count() <= most, "{} headers are kept", view.header_count());
        }
    };
    for _ in 0..600 {
        sim.run_for(Duration::from_secs(1));
        bounded(&newcomers, 1);
    }
    assert!(
        *sent.borrow() >= FLOODERS * BATCHES / 2 * MAX_HEADERS,
        "{} headers",
        sent.borrow()
    );
    sim.start(NodeId(source));
    let found = sim.run_to(Duration::from_secs(3_600), Duration::from_secs(1), |_| {
        bounded(&newcomers, blocks.len() + 1);
        newcomers.iter().all(|view| view.tip().hash == tip)
    });
    assert!(
        found,
        "heights {:?}",
        newcomers.iter().map(|view| view.tip().height).collect::<Vec<_>>()
    );
}
