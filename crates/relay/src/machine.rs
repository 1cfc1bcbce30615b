//! The Bitcoin peer: a machine that hands each input to the manager whose subject it is.

use std::sync::{Arc, RwLock};

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::{BlockError, BlockOutcome, ChainChange, OperateError, ParsedBlock, Reject, StoreError, View};
use dunlin_mempool::{Pool, RejectKind};
use dunlin_peer::{AddressBook, CloseReason, DisconnectCause, Input, LinkId, Machine, Now, Outbox, Output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::addresses::Addresses;
use crate::bans::{Ban, BanList};
use crate::blocks::BlockSync;
use crate::compact::{self, CompactBlocks};
use crate::config::Config;
use crate::connections::Connections;
use crate::headers::{self, HeaderSync, Learned};
use crate::interface::{Command, Done, Event, Job, Operated, PeerInfo, Ticket, TxSource, Which};
use crate::known::Salt;
use crate::node::Node;
use crate::peer::{Kind, Peer, Stage, Transport};
use crate::serve::Server;
use crate::tx::{self, TxId, TxRelay};
use crate::wire::{Message, services};
use crate::{announce, filters, handshake, outbound, ping, spent};

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

    /// The address book, for example to save it.
    pub fn addresses(&self) -> &AddressBook {
        &self.node.book
    }

    fn received(&mut self, link: LinkId, msg: Message) {
        let node = &mut self.node;
        let now = node.now;
        let Some(peer) = node.peers.get_mut(&link) else { return };
        if peer.closing {
            return;
        }
        peer.last_recv = now;
        let stage = peer.stage;
        if peer.transport == Transport::Detecting && !matches!(msg, Message::Encrypt) {
            peer.transport = match msg {
                Message::Encrypted(session_id) => Transport::V2(session_id),
                _ => Transport::V1,
            };
        }
        match msg {
            Message::Encrypt | Message::Encrypted(_) => return,
            Message::Version(version) => return handshake::on_version(node, link, &version),
            _ if stage == Stage::AwaitVersion => return,
            Message::Verack => {
                if handshake::on_verack(node, link) {
                    self.peer_ready(link);
                }
                return;
            }
            Message::WtxidRelay | Message::SendAddrV2 | Message::Feature(_) => {
                return handshake::on_feature(node, link, &msg);
            }
            Message::SendHeaders => return peer.announce.prefers_headers = true,
            Message::Malformed { command, reason } => {
                return node.misbehaving(link, format!("malformed {command}: {reason}"));
            }
            _ if stage != Stage::Ready => return,
            _ => {}
        }
        self.received_ready(link, msg);
    }

    /// Messages that mean something only once the handshake is complete.
    fn received_ready(&mut self, link: LinkId, msg: Message) {
        let node = &mut self.node;
        match msg {
            Message::Ping(nonce) => node.send(link, Message::Pong(nonce)),
            Message::Pong(nonce) => ping::pong(node, link, nonce),
            Message::FeeFilter(rate) => {
                if let Some(peer) = node.ready(link)
                    && (0..=21_000_000 * 100_000_000).contains(&rate)
                {
                    peer.tx.fee_filter = rate;
                }
            }
            Message::GetAddr => self.addresses.on_getaddr(node, link),
            Message::Addr(entries) | Message::AddrV2(entries) => self.addresses.on_addr(node, link, entries),
            Message::Inv(items) => self.on_inv(link, items),
            Message::GetData(items) => self.server.on_getdata(node, link, items),
            Message::NotFound(items) => self.on_notfound(link, items),
            Message::GetHeaders(locator) => self.headers.on_getheaders(node, link, &locator),
            Message::GetBlocks(locator) => self.server.on_getblocks(node, link, &locator),
            Message::Headers(headers) => {
                self.headers.on_headers(node, link, headers);
                self.headers.start(node, self.blocks.in_flight());
            }
            Message::SendCmpct { announce, version } => compact::on_sendcmpct(node, link, announce, version),
            Message::CompactBlock(block) => self.compact.on_compact(node, link, block),
            Message::GetBlockTxn(request) => self.server.on_getblocktxn(node, link, request),
            Message::BlockTxn(answer) => {
                if let Some(block) = self.compact.on_blocktxn(node, &mut self.blocks, link, answer) {
                    self.on_block(link, block);
                }
            }
            Message::Tx { .. } if !node.peers.get(&link).is_some_and(|peer| node.takes_txs(peer)) => {
                let reason = "transaction sent in violation of protocol";
                node.close(link, CloseReason::fault(reason));
            }
            Message::Tx { tx, .. } => self.txs.on_tx(node, link, tx),
            Message::RawBlock(raw) => {
                let weight = parse_weight(raw.len());
                node.peer_jobs(link, weight, Job::ParseBlock { link, raw });
            }
            // Serving the whole mempool is for bloom filter peers (BIP 35, BIP 111), which we do not offer.
            Message::Mempool => {}
            Message::GetFilters(ask) => filters::on_request(node, link, ask),
            Message::GetSpent(ask) => spent::on_request(node, link, ask),
            Message::Spent(answer) => {
                self.blocks.on_spent(node, link, answer);
                self.blocks.pump(node, Some(link));
            }
            Message::Encrypt
            | Message::Encrypted(_)
            | Message::Version(_)
            | Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::Filters(_)
            | Message::Feature(_)
            | Message::RawSpent(_)
            | Message::Malformed { .. }
            | Message::Unknown { .. } => {}
        }
    }

    fn peer_ready(&mut self, link: LinkId) {
        let node = &mut self.node;
        self.addresses.ready(node, link);
        compact::ready(node, link);
        ping::tick(node, link);
        let downloading = node.is_initial_download();
        tx::feefilter::tick(node, link, downloading);
        self.headers.start(node, self.blocks.in_flight());
    }

    fn on_inv(&mut self, link: LinkId, items: Vec<Inventory>) {
        let node = &mut self.node;
        let downloading = node.is_initial_download();
        let (mut unknown_block, mut blocks) = (None, false);
        let about_tx = |item: &Inventory| {
            matches!(
                item,
                Inventory::Transaction(_) | Inventory::WitnessTransaction(_) | Inventory::WTx(_)
            )
        };
        let peer = node.peers.get(&link).filter(|peer| peer.is_ready());
        if peer.is_some_and(|peer| !node.takes_txs(peer)) && items.iter().any(about_tx) {
            let reason = "transaction inv sent in violation of protocol";
            return node.close(link, CloseReason::fault(reason));
        }
        for item in items {
            match item {
                Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
                    blocks = true;
                    headers::has_block(node, link, hash);
                    if node.view.entry(&hash).is_none() {
                        // The last one is the highest.
                        unknown_block = Some(hash);
                    }
                }
                Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => {
                    self.txs.on_inv(node, link, TxId::Txid(txid), downloading);
                }
                Inventory::WTx(wtxid) => self.txs.on_inv(node, link, TxId::Wtxid(wtxid), downloading),
                Inventory::Unknown { .. } | Inventory::Error => {}
            }
        }
        if let Some(hash) = unknown_block {
            self.headers.on_block_inv(node, link, hash);
        }
        if blocks {
            self.blocks.pump(node, Some(link));
        }
    }

    fn on_notfound(&mut self, link: LinkId, items: Vec<Inventory>) {
        for item in items {
            match item {
                Inventory::Transaction(id) | Inventory::WitnessTransaction(id) => {
                    self.txs.on_notfound(link, TxId::Txid(id));
                }
                Inventory::WTx(id) => self.txs.on_notfound(link, TxId::Wtxid(id)),
                Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
                    self.blocks.on_notfound(&mut self.node, link, hash);
                }
                _ => {}
            }
        }
    }

    fn on_block(&mut self, link: LinkId, block: Arc<ParsedBlock>) {
        let hash = block.hash;
        if self.blocks.on_block(&mut self.node, link, Arc::clone(&block)) {
            self.compact.given(&mut self.node, &mut self.server, &block);
        } else if !self.blocks.is_judging(&hash) {
            self.compact.judged(&hash);
        }
        self.blocks.pump(&mut self.node, Some(link));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Headers {
                link,
                count,
                last,
                result,
            } => {
                self.node.peer_job_done(link);
                if let Learned::Headers = self.headers.on_done(&mut self.node, link, count, last, result) {
                    self.blocks.pump(&mut self.node, Some(link));
                    HeaderSync::maybe_sendheaders(&mut self.node, link);
                }
                self.headers.start(&mut self.node, self.blocks.in_flight());
            }
            Done::BlockParsed { link, bytes, result } => {
                self.node.peer_jobs_done(link, parse_weight(bytes));
                match result {
                    Ok(block) if self.node.ready(link).is_some_and(|peer| !peer.closing) => self.on_block(link, block),
                    Ok(_) => {}
                    Err(error) => self.node.misbehaving(link, format!("malformed block: {error}")),
                }
            }
            Done::Resolved { addrs } => outbound::learn(&mut self.node, addrs),
            Done::Compact { link, compact, result } => {
                let (node, blocks) = (&mut self.node, &mut self.blocks);
                node.peer_job_done(link);
                match self.compact.on_header(node, blocks, link, &compact, result) {
                    Some(block) => self.on_block(link, block),
                    None => self.blocks.pump(&mut self.node, Some(link)),
                }
            }
            Done::Block {
                from,
                ticket,
                block,
                result,
            } => self.block_done(from, ticket, &block, result),
            Done::Advanced { result } => {
                self.advancing = false;
                match result {
                    Ok(outcome) => self.follow(outcome, None),
                    Err(error) => self.store_failed(&error),
                }
            }
            Done::Operated {
                ticket,
                outcome,
                result,
            } => {
                if let Err(OperateError::Store(error)) = &result {
                    self.store_failed(error);
                }
                self.operated.push((ticket, result));
                self.blocks.invalidate();
                self.follow(outcome, None);
                self.blocks.pump(&mut self.node, None);
            }
            Done::CaughtUp { result, more } => {
                self.blocks.invalidate();
                match result {
                    Ok(outcome) => self.follow(outcome, None),
                    Err(error) => self.store_failed(&error),
                }
                if more {
                    self.node.out.job(Job::CatchUp);
                }
                self.blocks.pump(&mut self.node, None);
            }
            Done::Tx { source, tx, result } => {
                if let TxSource::Peer(link) = source {
                    self.node.peer_job_done(link);
                }
                if matches!(&result, Err(reject) if reject.kind != RejectKind::AlreadyKnown) {
                    self.compact.remember(tx.compute_wtxid(), &tx);
                }
                self.txs.on_done(&mut self.node, source, &tx, &result);
                if let TxSource::Own(ticket) = source {
                    self.node.out.event(Event::TxSubmitted { ticket, result });
                }
            }
            Done::Package { link, txs, outcome } => {
                self.node.peer_job_done(link);
                self.txs.on_package(&mut self.node, link, &txs, &outcome);
            }
            Done::SpentRead { link, payload } => spent::on_read(&mut self.node, link, payload),
            Done::FiltersRead { link, weight, answers } => filters::on_read(&mut self.node, link, weight, answers),
            Done::BlockRead {
                link,
                hash,
                form,
                result,
            } => {
                let raw = result.unwrap_or_else(|error| {
                    tracing::error!(%hash, %error, "a stored block cannot be read");
                    None
                });
                self.server.on_read(&mut self.node, link, hash, form, raw);
            }
            Done::Nothing => {}
        }
    }

    fn block_done(
        &mut self,
        from: Option<LinkId>,
        ticket: Option<Ticket>,
        block: &ParsedBlock,
        result: Result<BlockOutcome, BlockError>,
    ) {
        let hash = block.hash;
        if let Some(link) = from {
            self.node.peer_job_done(link);
        }
        self.blocks.judged(&hash);
        self.server.judged(&mut self.node, &hash, result.is_ok());
        // Whoever passed on a compact block need not have validated it.
        let blamed = from.filter(|_| !self.compact.judged(&hash));
        let answer = match result {
            Ok(outcome) => {
                let new = outcome.new;
                if let Some(peer) = from.and_then(|link| self.node.peers.get_mut(&link))
                    && new
                {
                    peer.blocks.last_new = Some(self.node.now);
                }
                self.blocks.stored(&self.node, hash, blamed);
                self.follow(outcome, from);
                if let Some(link) = from
                    && new
                    && self.node.view.contains_in_active(&hash)
                    && !self.blocks.in_flight()
                    && !self.node.is_initial_download()
                {
                    self.compact.reward(&mut self.node, link);
                }
                Ok(new)
            }
            Err(error) => {
                self.blocks.invalidate();
                match &error {
                    BlockError::Invalid(reject) => {
                        self.rejected(blamed, reject);
                        // Blocks that joined or left the chain before the broken one was found are still to be told.
                        self.advance();
                    }
                    BlockError::MissingParent(_) => {}
                    BlockError::Store(error) => self.store_failed(error),
                }
                Err(error)
            }
        };
        if let Some(ticket) = ticket {
            self.node.out.event(Event::BlockSubmitted { ticket, result: answer });
        }
        self.blocks.pump(&mut self.node, None);
    }

    /// The peer gave an invalid block.
    fn rejected(&mut self, from: Option<LinkId>, reject: &Reject) {
        if let Some(link) = from
            && self
                .node
                .peers
                .get(&link)
                .is_some_and(|peer| headers::at_fault(peer, reject.kind))
        {
            self.node.misbehaving(link, reject.to_string());
        }
    }

    fn store_failed(&mut self, error: &StoreError) {
        self.node.out.event(Event::StoreFailed {
            error: error.to_string(),
        });
    }

    /// The active chain may have changed.
    fn follow(&mut self, outcome: BlockOutcome, from: Option<LinkId>) {
        for (hash, reject) in &outcome.rejected {
            let source = self.blocks.source(hash);
            self.blocks.invalidate();
            self.rejected(source, reject);
        }
        if outcome.more || outcome.background {
            self.advance();
        }
        if let Some(reason) = &outcome.refuted {
            let reason = reason.clone();
            self.node.out.event(Event::SnapshotRefuted { reason });
        }
        let settled = !outcome.more;
        self.follow_changes(outcome, from);
        if settled {
            for (ticket, result) in std::mem::take(&mut self.operated) {
                self.node.out.event(Event::Operated { ticket, result });
            }
        }
    }

    /// Has the chain go on; one such job at a time, so that blocks of peers come in between.
    fn advance(&mut self) {
        if !self.advancing {
            self.advancing = true;
            self.node.out.job(Job::Advance);
        }
    }

    fn follow_changes(&mut self, outcome: BlockOutcome, from: Option<LinkId>) {
        let mut connected: Vec<(BlockHash, u32)> = Vec::new();
        let mut disconnected = 0;
        let downloading = self.node.is_initial_download();
        for change in &outcome.changes {
            match change {
                ChainChange::Disconnected(block, _) => {
                    disconnected += 1;
                    connected.retain(|(hash, _)| *hash != block.hash);
                }
                ChainChange::Connected(block, height) => {
                    connected.push((block.hash, *height));
                    self.blocks.connected();
                    self.blocks.source(&block.hash);
                    if !downloading {
                        self.txs.block_connected(&self.node, block);
                    }
                }
            }
        }
        if outcome.changes.is_empty() {
            return;
        }
        if let Some(ChainChange::Connected(block, _)) = outcome.changes.last()
            && !downloading
        {
            self.server.connected(&mut self.node, block);
        }
        self.txs.tip_changed(disconnected > 0);
        self.connections.outbound.tip_changed(self.node.now);
        announce::announce(&mut self.node, &self.server, &connected);
        // The view may be ahead already: other blocks may have been connected since.
        let (hash, height) = match outcome.changes.last() {
            Some(ChainChange::Connected(block, height)) => (block.hash, *height),
            _ => {
                let tip = self.node.view.tip();
                (tip.hash, tip.height)
            }
        };
        self.node.out.event(Event::TipChanged {
            hash,
            height,
            disconnected,
            connected: connected.len(),
            from,
        });
        if self.was_downloading && !downloading {
            self.was_downloading = false;
            for link in self.node.ready_links() {
                tx::feefilter::tick(&mut self.node, link, false);
            }
            self.headers.start(&mut self.node, self.blocks.in_flight());
        }
        self.blocks.pump(&mut self.node, from);
    }

    fn command(&mut self, command: Command) {
        let node = &mut self.node;
        let unix = node.now.unix_secs();
        match command {
            Command::AddPeer(addr, kind) => self.connections.add(node, addr, kind),
            Command::Seed(addrs) => {
                for addr in addrs {
                    node.book.add(
                        addr,
                        services::NETWORK | services::WITNESS,
                        unix.saturating_sub(3600),
                        addr.ip(),
                    );
                }
            }
            Command::Disconnect(which) => {
                let hit = |peer: &&Peer| match which {
                    Which::Link(link) => peer.link == link,
                    Which::Addr(addr) => peer.addr == addr,
                };
                let links: Vec<LinkId> = node.peers.values().filter(hit).map(|peer| peer.link).collect();
                for link in links {
                    node.close(link, CloseReason::benign("asked by the operator"));
                }
            }
            Command::Ban {
                subnet,
                seconds,
                reason,
            } => {
                let until = unix.saturating_add(seconds);
                node.bans.add(Ban {
                    subnet,
                    created: unix,
                    until,
                    discouraged: false,
                    reason,
                });
                let hit = |peer: &&Peer| subnet.contains(peer.addr.ip());
                let links: Vec<LinkId> = node.peers.values().filter(hit).map(|peer| peer.link).collect();
                for link in links {
                    node.close(link, CloseReason::fault("banned by the operator"));
                }
            }
            Command::Unban(subnet) => {
                node.bans.remove(&subnet);
            }
            Command::Bans { ticket } => {
                let bans = node.bans.list(unix);
                node.out.event(Event::Bans { ticket, bans });
            }
            Command::SubmitBlock { ticket, block } => {
                self.blocks.submitted(block.hash);
                node.out.job(Job::AcceptBlock {
                    from: None,
                    ticket: Some(ticket),
                    block,
                    spent: None,
                });
            }
            Command::CatchUp => node.out.job(Job::CatchUp),
            Command::Operate { ticket, op } => node.out.job(Job::Operate { ticket, op }),
            Command::SubmitTx { ticket, tx } => {
                node.out.job(Job::AcceptTx {
                    source: TxSource::Own(ticket),
                    tx,
                });
            }
            Command::Peers { ticket } => {
                let peers = node.peers.values().map(|peer| info(node, peer)).collect();
                node.out.event(Event::Peers { ticket, peers });
            }
            Command::Ping => {
                for link in node.ready_links() {
                    ping::now(node, link);
                }
            }
            Command::Added { ticket } => {
                let peers = self.connections.added(node);
                node.out.event(Event::Added { ticket, peers });
            }
            Command::Addresses { ticket } => {
                let book = Box::new(node.book.clone());
                let anchors = outbound::anchors(node);
                node.out.event(Event::Addresses { ticket, book, anchors });
            }
            Command::LocalAddress(addr) => node.config.external = Some(addr),
        }
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
    type Command = Command;
    type Event = Event;
    type Job = Job;
    type Done = Done;

    fn handle(&mut self, now: Now, input: Input<Message, Command, Done>) {
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

    fn poll(&mut self) -> Option<Output<Message, Event, Job>> {
        self.node.out.pop()
    }
}

fn info(node: &Node, peer: &Peer) -> PeerInfo {
    let best = peer.headers.best;
    let common = best.and_then(|best| node.view.fork_point(&best.hash));
    PeerInfo {
        link: peer.link,
        addr: peer.addr,
        direction: peer.direction(),
        kind: peer.kind,
        ready: peer.is_ready(),
        transport: peer.transport,
        services: peer.services,
        version: peer.peer_version,
        user_agent: peer.user_agent.clone(),
        start_height: peer.start_height,
        synced_headers: best.map_or(-1, |best| i64::from(best.height)),
        synced_blocks: common.map_or(-1, |entry| i64::from(entry.height)),
        ping: peer.ping.last,
        min_ping: peer.ping.min,
        ping_wait: peer.ping.wait(node.now),
        connected_at: peer.connected_at,
        last_recv: peer.last_recv,
        last_send: peer.last_send,
        last_tx: peer.tx.last,
        last_block: peer.blocks.last_new,
        inflight: peer.blocks.in_flight.values().map(|asked| asked.height).collect(),
        relay_tx: peer.tx.wanted,
        fee_filter: peer.tx.fee_filter,
        time_offset: peer.time_offset,
        addr_relay: peer.addrs.enabled,
        addr_processed: peer.addrs.processed,
        addr_rate_limited: peer.addrs.rate_limited,
        compact_to: peer.compact.announces,
        compact_from: peer.compact.wants,
        wtxid_relay: peer.wtxid_relay,
    }
}
