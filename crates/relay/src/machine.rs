//! The Bitcoin peer: a machine that hands each input to the manager whose subject it is.

mod command;
mod done;
mod received;

use std::sync::{Arc, RwLock};

use dunlin_chain::{OperateError, View};
use dunlin_mempool::Pool;
use dunlin_peer::{AddressBook, DisconnectCause, Input, LinkId, Machine, NetAddr, Now, Outbox, Output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::addresses::Addresses;
use crate::bans::BanList;
use crate::blocks::BlockSync;
use crate::compact::CompactBlocks;
use crate::config::Config;
use crate::connections::Connections;
use crate::headers::HeaderSync;
use crate::interface::{Command, Done, Event, Job, Operated, Ticket};
use crate::known::Salt;
use crate::node::Node;
use crate::peer::{Kind, Stage};
use crate::serve::Server;
use crate::tx::{self, TxRelay};
use crate::wire::Message;
use crate::{handshake, ping};

/// How often peers that fell behind are looked for.
const MAINTENANCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A block to be parsed counts as one job for each so many bytes, because its bytes wait in memory.
const BYTES_PER_JOB: usize = 256 << 10;

fn parse_weight(bytes: usize) -> usize {
    1 + bytes / BYTES_PER_JOB
}

/// A Bitcoin peer without I/O.
pub struct Relay {
    node: Node,
    connections: Connections,
    headers: HeaderSync,
    blocks: BlockSync,
    server: Server,
    compact: CompactBlocks,
    txs: TxRelay,
    addresses: Addresses,
    next_maintenance: Now,
    /// The initial download was not over when we last looked.
    was_downloading: bool,
    /// A [`Job::Advance`] is under way.
    advancing: bool,
    /// Operations that are done but for what the chain has still to connect.
    operated: Vec<(Ticket, Result<Operated, OperateError>)>,
}

impl Relay {
    /// A peer over the chain behind `view` and its mempool, knowing the addresses of `addresses`.
    pub fn new(config: Config, view: View, pool: Arc<RwLock<Pool>>, addresses: AddressBook, now: Now) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let salt = Salt::new(rng.random(), rng.random());
        let requests_salt = Salt::new(rng.random(), rng.random());
        let mut node = Node {
            config,
            view,
            pool,
            book: addresses,
            bans: BanList::default(),
            rng,
            salt,
            out: Outbox::default(),
            peers: Default::default(),
            now,
        };
        let was_downloading = node.is_initial_download();
        let validating = node.view.snapshot().is_some();
        let mut relay = Self {
            connections: Connections::new(&mut node),
            node,
            headers: HeaderSync::default(),
            blocks: BlockSync::new(),
            server: Server::default(),
            compact: CompactBlocks::default(),
            txs: TxRelay::new(requests_salt),
            addresses: Addresses::default(),
            next_maintenance: now + MAINTENANCE,
            was_downloading,
            advancing: false,
            operated: Vec::new(),
        };
        if validating {
            // What was stored before the start needs no block to go on.
            relay.advance();
        }
        relay
    }

    /// The bans, to be filled from a file before the start.
    pub fn bans_mut(&mut self) -> &mut BanList {
        &mut self.node.bans
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn txs(&self) -> &TxRelay {
        &self.txs
    }

    /// The address book, for example to save it.
    pub fn addresses(&self) -> &AddressBook {
        &self.node.book
    }

    fn disconnected(&mut self, link: LinkId, cause: &DisconnectCause) {
        let Some(peer) = self.node.peers.remove(&link) else {
            return;
        };
        self.blocks.disconnected(&peer);
        self.txs.disconnected(link);
        self.compact.disconnected(link);
        self.connections.gone(&mut self.node, &peer, cause);
        if !peer.is_inbound() && peer.stage == Stage::Ready {
            let now = self.node.now;
            self.node.book.seen(peer.addr, now);
        }
        self.node.out.event(Event::PeerGone {
            link,
            addr: peer.addr,
            cause: cause.to_string(),
        });
        self.headers.start(&mut self.node, self.blocks.in_flight());
        self.blocks.pump(&mut self.node, None);
    }

    /// Does what any input may have made due.
    fn settle(&mut self) {
        self.connections.pump(&mut self.node);
        self.txs.pump(&mut self.node);
        if self.node.config.immediate {
            for link in self.node.ready_links() {
                self.txs.flush(&mut self.node, link);
            }
        }
    }
}

impl Machine for Relay {
    type Msg = Message;
    type Addr = NetAddr;
    type Command = Command;
    type Event = Event;
    type Job = Job;
    type Done = Done;

    fn handle(&mut self, now: Now, input: Input<Message, Command, Done, NetAddr>) {
        self.node.now = self.node.now.max(now);
        match input {
            Input::DialFailed { token, .. } => self.connections.failed(&self.node, token),
            Input::Connected(link) => {
                if self.connections.connected(&mut self.node, link)
                    && let Some(peer) = self.node.peers.get(&link.id)
                    && peer.kind != Kind::Inbound
                {
                    if peer.asked_encryption {
                        self.node.send(link.id, Message::Encrypt);
                    }
                    handshake::send_version(&mut self.node, link.id);
                }
            }
            Input::Received { link, msg } => self.received(link, msg),
            Input::Writable { link } => self.server.writable(&mut self.node, link),
            Input::Disconnected { link, cause } => self.disconnected(link, &cause),
            // Nothing of this protocol travels in datagrams.
            Input::Datagram { .. } => {}
            Input::Done(done) => self.done(done),
            Input::Command(command) => self.command(command),
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Now) {
        self.node.now = self.node.now.max(now);
        let downloading = self.node.is_initial_download();
        let links: Vec<LinkId> = self.node.peers.keys().copied().collect();
        let maintenance = self.next_maintenance <= self.node.now;
        for link in links {
            let node = &mut self.node;
            ping::tick(node, link);
            self.headers.tick(node, link);
            self.server.tick(node, link);
            self.addresses.tick(node, link, downloading);
            tx::feefilter::tick(node, link, downloading);
            self.txs.flush(node, link);
        }
        if maintenance {
            self.next_maintenance = self.node.now + MAINTENANCE;
            self.blocks.pump(&mut self.node, None);
        }
        self.headers.start(&mut self.node, self.blocks.in_flight());
        self.blocks.tick(&mut self.node);
        self.connections.outbound.tick(&mut self.node, self.blocks.in_flight());
        self.connections.private.tick(&mut self.node);
        self.settle();
    }

    fn poll_timeout(&self) -> Option<Now> {
        let peers = self.node.peers.values().filter(|peer| !peer.closing).flat_map(|peer| {
            let ready = peer.is_ready();
            let rest = [
                HeaderSync::next(peer),
                peer.serve.next(),
                peer.addrs.next(),
                Some(tx::feefilter::next(peer)),
                tx::announce::next(peer),
            ];
            std::iter::once(ping::next(peer)).chain(rest.into_iter().flatten().filter(move |_| ready))
        });
        let shared = [
            self.connections.next(&self.node),
            self.blocks.next(),
            self.txs.next(),
            (!self.node.peers.is_empty()).then_some(self.next_maintenance),
        ];
        peers.chain(shared.into_iter().flatten()).min()
    }

    fn poll(&mut self) -> Option<Output<Message, Event, Job, NetAddr>> {
        self.node.out.pop()
    }
}
