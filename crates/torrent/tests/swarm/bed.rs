//! A network without sockets: sessions on a virtual clock, links with latency and uplinks with a rate, real codecs,
//! real disks in temporary folders, and a tracker that knows everybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{
    CloseReason, Codec as _, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, Now, Output, SendBuf,
};
use dunlin_torrent::command::{AddTorrent, Command, Config, Done, Event, Job, Source};
use dunlin_torrent::disk::Disk;
use dunlin_torrent::resume::{self, Resume};
use dunlin_torrent::status::TorrentStatus;
use dunlin_torrent::tracker;
use dunlin_torrent::wire::{Codec, Message};
use dunlin_torrent::{InfoHash, Metainfo, Session};
use sha1::{Digest, Sha1};

pub type NodeId = usize;

/// As the reactor's: `Writable` is owed for every so many bytes, and given when a quarter of it is left.
const SEND_MARK: usize = 1 << 20;
const CHUNK: usize = 32 << 10;
pub const DISK_TIME: Duration = Duration::from_millis(1);

/// May change a message on its way out; false drops it.
pub type Mangle = Box<dyn FnMut(&mut Message) -> bool>;

struct End {
    node: NodeId,
    other: LinkId,
    codec: Codec,
    queue: VecDeque<Bytes>,
    queued: usize,
    since_writable: usize,
    input: BytesMut,
    paused: bool,
    closing: Option<CloseReason>,
}

pub struct Node {
    /// `None` for a puppet, whose strings the test pulls, and for a node that is down.
    pub session: Option<Session>,
    pub config: Config,
    disk: Arc<Disk>,
    pub dir: PathBuf,
    pub addr: SocketAddr,
    pub up: bool,
    pub puppet: bool,
    /// Bytes per second on the way out.
    pub rate: u64,
    uplink_busy: bool,
    turn: LinkId,
    pub mangle: Option<Mangle>,
    pub events: Vec<Event>,
    /// What a puppet was told.
    pub inbox: Vec<(LinkId, Message)>,
    /// How links of the node ended.
    pub ended: Vec<DisconnectCause>,
    /// Messages sent, by the name of their kind.
    pub sent: BTreeMap<String, u64>,
    pub disk_time: Duration,
    pub pauses: u32,
    life: u64,
}

enum Ev {
    Dial {
        node: NodeId,
        life: u64,
        addr: SocketAddr,
        token: DialToken,
    },
    Uplink {
        node: NodeId,
    },
    Arrive {
        link: LinkId,
        bytes: Bytes,
    },
    Gone {
        link: LinkId,
        cause: DisconnectCause,
    },
    Done {
        node: NodeId,
        life: u64,
        done: Box<Done>,
    },
}

pub struct Bed {
    pub now: Now,
    pub nodes: Vec<Node>,
    ends: BTreeMap<LinkId, End>,
    queue: BTreeMap<(Now, u64), Ev>,
    seq: u64,
    next_link: u64,
    pub latency: Duration,
    tracker: BTreeMap<InfoHash, BTreeSet<SocketAddr>>,
    pub trace: Sha1,
    root: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Self {
        Self {
            now: Now::from_unix_secs(1_700_000_000),
            nodes: Vec::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            next_link: 0,
            latency: Duration::from_millis(20),
            tracker: BTreeMap::new(),
            trace: Sha1::new(),
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// A node with an uplink of `rate` bytes per second.
    pub fn node(&mut self, rate: u64) -> NodeId {
        let id = self.nodes.len();
        let addr = SocketAddr::from(([10, 0, (id / 200) as u8, (id % 200) as u8 + 1], 6881));
        let dir = self.root.path().join(format!("node{id}"));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config::new([id as u8 + 1; 32]);
        config.listen_port = Some(addr.port());
        config.resume_dir = Some(dir.join("resume"));
        std::fs::create_dir_all(dir.join("resume")).unwrap();
        self.nodes.push(Node {
            session: Some(Session::new(config.clone(), self.now)),
            config,
            disk: Arc::new(Disk::default()),
            dir,
            addr,
            up: true,
            puppet: false,
            rate,
            uplink_busy: false,
            turn: LinkId(0),
            mangle: None,
            events: Vec::new(),
            inbox: Vec::new(),
            ended: Vec::new(),
            sent: BTreeMap::new(),
            disk_time: DISK_TIME,
            pauses: 0,
            life: 0,
        });
        id
    }

    /// A node without an engine: the test says what it says.
    pub fn puppet(&mut self) -> NodeId {
        let id = self.node(100 << 20);
        self.nodes[id].session = None;
        self.nodes[id].puppet = true;
        id
    }

    /// Applies settings changed since the node was made.
    pub fn reconfigure(&mut self, node: NodeId, change: impl FnOnce(&mut Config)) {
        let now = self.now;
        let node = &mut self.nodes[node];
        change(&mut node.config);
        node.session = Some(Session::new(node.config.clone(), now));
    }

    pub fn command(&mut self, node: NodeId, command: Command) {
        self.input(node, Input::Command(command));
    }

    pub fn add(&mut self, node: NodeId, source: Source, change: impl FnOnce(&mut AddTorrent)) {
        let mut add = AddTorrent::new(source, self.nodes[node].dir.join("files"));
        change(&mut add);
        self.command(node, Command::Add(Box::new(add)));
    }

    /// Puts a torrent's content where the node will look for it.
    pub fn place(&mut self, node: NodeId, torrent: &Torrent) {
        self.place_pieces(node, torrent, |_| true);
    }

    /// Only these pieces of it are right.
    pub fn place_pieces(&mut self, node: NodeId, torrent: &Torrent, right: impl Fn(u32) -> bool) {
        let mut content = torrent.content.clone();
        for (piece, bytes) in (0..).zip(content.chunks_mut(torrent.meta.piece_length as usize)) {
            if !right(piece) {
                bytes.fill(0);
            }
        }
        let dir = self.nodes[node].dir.join("files");
        for (path, range) in torrent.files() {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &content[range]).unwrap();
        }
    }

    /// A seed that has everything from the beginning.
    pub fn seed(&mut self, rate: u64, torrent: &Torrent) -> NodeId {
        let node = self.node(rate);
        self.place(node, torrent);
        self.add(node, torrent.source(), |_| {});
        node
    }

    pub fn leech(&mut self, rate: u64, torrent: &Torrent) -> NodeId {
        let node = self.node(rate);
        self.add(node, torrent.source(), |_| {});
        node
    }

    /// Dies without a word.
    pub fn kill(&mut self, node: NodeId) {
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].session = None;
        let addr = self.nodes[node].addr;
        for known in self.tracker.values_mut() {
            known.remove(&addr);
        }
        let mine: Vec<LinkId> = self
            .ends
            .iter()
            .filter(|(_, end)| end.node == node)
            .map(|(&id, _)| id)
            .collect();
        for id in mine {
            if let Some(end) = self.ends.remove(&id) {
                let cause = DisconnectCause::Transport("connection reset by the peer".into());
                self.at(self.latency, Ev::Gone { link: end.other, cause });
            }
        }
    }

    /// Starts again with what its resume folder says.
    pub fn restart(&mut self, node: NodeId) -> Vec<Resume> {
        let now = self.now;
        let n = &mut self.nodes[node];
        n.life += 1;
        n.up = true;
        n.disk = Arc::new(Disk::default());
        n.config.seed[31] = n.config.seed[31].wrapping_add(1);
        n.session = Some(Session::new(n.config.clone(), now));
        let folder = n.config.resume_dir.clone().unwrap();
        let found: Vec<Resume> = resume::load_dir(&folder)
            .unwrap()
            .into_iter()
            .map(|(_, r)| r.unwrap())
            .collect();
        for resume in &found {
            let source = match resume.metainfo().unwrap() {
                Some(metainfo) => Source::Metainfo(Arc::new(metainfo)),
                None => Source::Magnet(dunlin_torrent::Magnet::new(resume.info_hash)),
            };
            let resume = Arc::new(resume.clone());
            self.add(node, source, |add| add.resume = Some(resume));
        }
        found
    }

    pub fn status(&self, node: NodeId) -> TorrentStatus {
        self.nodes[node].session.as_ref().unwrap().status(self.now).remove(0)
    }

    pub fn completed(&self, node: NodeId) -> bool {
        self.nodes[node]
            .events
            .iter()
            .any(|event| matches!(event, Event::Completed { .. }))
    }

    pub fn links_of(&self, node: NodeId) -> usize {
        self.ends.values().filter(|end| end.node == node).count()
    }

    pub fn assert_content(&self, node: NodeId, torrent: &Torrent) {
        let dir = self.nodes[node].dir.join("files");
        for (path, range) in torrent.files() {
            let got = std::fs::read(dir.join(&path)).unwrap();
            assert!(got == torrent.content[range], "node {node}: {} differs", path.display());
        }
    }

    /// Runs until `done` says so; panics when it takes longer than `limit` of virtual time.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let passed = self.now.since(start);
            if passed > limit || !self.step() {
                let states: Vec<String> = (0..self.nodes.len())
                    .filter(|&node| self.nodes[node].session.is_some())
                    .flat_map(|node| self.nodes[node].session.as_ref().unwrap().status(self.now))
                    .map(|s| format!("{:?} {}/{} peers {:?}", s.state, s.pieces_done, s.piece_count, s.peers))
                    .collect();
                panic!("not done after {passed:?}:\n{}", states.join("\n"));
            }
        }
        self.now.since(start)
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_time().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    pub fn run_until_all_complete(&mut self, nodes: &[NodeId], limit: Duration) -> Duration {
        self.run_until(limit, |bed| nodes.iter().all(|&node| bed.completed(node)))
    }

    /// A puppet dials; the link's name on its side.
    pub fn puppet_dials(&mut self, puppet: NodeId, node: NodeId) -> LinkId {
        self.connect(puppet, node, None)
    }

    pub fn puppet_says(&mut self, puppet: NodeId, link: LinkId, msg: Message) {
        self.output(puppet, Output::Send { link, msg });
    }

    /// Bytes that need not be a message.
    pub fn puppet_sends_bytes(&mut self, link: LinkId, bytes: &'static [u8]) {
        let other = self.ends[&link].other;
        self.at(
            self.latency,
            Ev::Arrive {
                link: other,
                bytes: Bytes::from_static(bytes),
            },
        );
    }

    pub fn is_open(&self, link: LinkId) -> bool {
        self.ends.contains_key(&link)
    }

    fn at(&mut self, after: Duration, ev: Ev) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), ev);
    }

    fn next_time(&self) -> Option<Now> {
        let event = self.queue.keys().next().map(|(at, _)| *at);
        let timers = self
            .nodes
            .iter()
            .filter_map(|node| node.session.as_ref()?.poll_timeout());
        timers.chain(event).min()
    }

    fn step(&mut self) -> bool {
        let Some(at) = self.next_time() else { return false };
        self.now = self.now.max(at);
        for node in 0..self.nodes.len() {
            let due = |node: &Node| {
                node.session
                    .as_ref()
                    .and_then(Session::poll_timeout)
                    .is_some_and(|t| t <= at)
            };
            if due(&self.nodes[node]) {
                self.nodes[node].session.as_mut().unwrap().handle_timeout(self.now);
                self.drain(node);
            }
        }
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let ev = entry.remove();
            self.event(ev);
        }
        true
    }

    fn event(&mut self, ev: Ev) {
        match ev {
            Ev::Dial {
                node,
                life,
                addr,
                token,
            } => {
                if self.nodes[node].life != life {
                    return;
                }
                match self.nodes.iter().position(|other| other.addr == addr && other.up) {
                    Some(other) => {
                        self.connect(node, other, Some(token));
                    }
                    None => self.input(node, Input::DialFailed { addr, token }),
                }
            }
            Ev::Uplink { node } => {
                self.nodes[node].uplink_busy = false;
                self.transmit(node);
            }
            Ev::Arrive { link, bytes } => {
                if let Some(end) = self.ends.get_mut(&link) {
                    end.input.extend_from_slice(&bytes);
                    self.deliver(link);
                }
            }
            Ev::Gone { link, cause } => self.end(link, cause),
            Ev::Done { node, life, done } => {
                if self.nodes[node].life == life {
                    self.input(node, Input::Done(*done));
                }
            }
        }
    }

    fn connect(&mut self, from: NodeId, to: NodeId, token: Option<DialToken>) -> LinkId {
        let (near, far) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        let end = |node, other| End {
            node,
            other,
            codec: Codec::new(),
            queue: VecDeque::new(),
            queued: 0,
            since_writable: 0,
            input: BytesMut::new(),
            paused: false,
            closing: None,
        };
        self.ends.insert(near, end(from, far));
        self.ends.insert(far, end(to, near));
        let port = 20_000 + (near.0 % 40_000) as u16;
        let addr = SocketAddr::new(self.nodes[from].addr.ip(), port);
        self.input(
            from,
            Input::Connected(Link {
                id: near,
                addr: self.nodes[to].addr,
                bind: None,
                direction: Direction::Outbound,
                token,
            }),
        );
        self.input(
            to,
            Input::Connected(Link {
                id: far,
                addr,
                bind: None,
                direction: Direction::Inbound,
                token: None,
            }),
        );
        near
    }

    fn deliver(&mut self, link: LinkId) {
        loop {
            let Some(end) = self.ends.get_mut(&link) else { return };
            if end.paused || end.closing.is_some() {
                return;
            }
            let node = end.node;
            match end.codec.decode(&mut end.input) {
                Ok(Some(msg)) => self.input(node, Input::Received { link, msg }),
                Ok(None) => return,
                Err(error) => {
                    let other = end.other;
                    self.at(
                        self.latency,
                        Ev::Gone {
                            link: other,
                            cause: DisconnectCause::Remote,
                        },
                    );
                    return self.end(link, DisconnectCause::Codec(error.to_string()));
                }
            }
        }
    }

    fn end(&mut self, link: LinkId, cause: DisconnectCause) {
        if let Some(end) = self.ends.remove(&link) {
            self.nodes[end.node].ended.push(cause.clone());
            self.input(end.node, Input::Disconnected { link, cause });
        }
    }

    fn input(&mut self, node: NodeId, input: Input<Message, Command, Done>) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.puppet {
            if let Input::Received { link, msg } = input {
                n.inbox.push((link, msg));
            }
            return;
        }
        if let Some(session) = &mut n.session {
            session.handle(now, input);
            self.drain(node);
        }
    }

    fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.nodes[node].session.as_mut().and_then(Machine::poll) {
            self.output(node, output);
        }
    }

    fn output(&mut self, node: NodeId, output: Output<Message, Event, Job>) {
        let life = self.nodes[node].life;
        match output {
            Output::Send { link, mut msg } => {
                let n = &mut self.nodes[node];
                if n.mangle.as_mut().is_some_and(|mangle| !mangle(&mut msg)) {
                    return;
                }
                let text = format!("{msg:?}");
                let kind = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
                *n.sent.entry(kind.clone()).or_default() += 1;
                self.trace.update(self.now.as_micros().to_be_bytes());
                self.trace.update((node as u64).to_be_bytes());
                self.trace.update(kind);
                let Some(end) = self.ends.get_mut(&link) else { return };
                let mut buf = SendBuf::default();
                end.codec.encode(&msg, &mut buf);
                end.queued += buf.len();
                end.since_writable += buf.len();
                end.queue.push_back(Bytes::from(buf.to_vec()));
                self.transmit(node);
            }
            Output::Datagram { .. } => {}
            Output::Dial { addr, token } => self.at(
                self.latency,
                Ev::Dial {
                    node,
                    life,
                    addr,
                    token,
                },
            ),
            Output::Close { link, reason } => {
                if let Some(end) = self.ends.get_mut(&link) {
                    end.closing = Some(reason);
                    self.close_when_sent(link);
                }
            }
            Output::PauseRead { link } => {
                self.nodes[node].pauses += 1;
                if let Some(end) = self.ends.get_mut(&link) {
                    end.paused = true;
                }
            }
            Output::ResumeRead { link } => {
                if let Some(end) = self.ends.get_mut(&link) {
                    end.paused = false;
                    // Delivered from the queue, not from within the machine's own turn.
                    self.at(
                        Duration::ZERO,
                        Ev::Arrive {
                            link,
                            bytes: Bytes::new(),
                        },
                    );
                }
            }
            Output::Job(Job::Disk(job)) => {
                let done = Done::Disk(self.nodes[node].disk.run(job));
                let time = self.nodes[node].disk_time;
                self.at(
                    time,
                    Ev::Done {
                        node,
                        life,
                        done: Box::new(done),
                    },
                );
            }
            Output::Job(Job::Resolve { .. } | Job::SaveDht { .. }) => {
                unreachable!("these sessions run without the DHT")
            }
            Output::Job(Job::Announce(request)) => {
                let me = self.nodes[node].addr;
                let known = self.tracker.entry(request.announce.info_hash).or_default();
                let peers = known.iter().copied().filter(|addr| *addr != me).collect();
                match request.announce.event {
                    Some(tracker::Event::Stopped) => known.remove(&me),
                    _ => known.insert(me),
                };
                let response = tracker::Response {
                    interval: Duration::from_secs(60),
                    min_interval: None,
                    seeders: None,
                    leechers: None,
                    peers,
                    warning: None,
                    tracker_id: None,
                };
                let done = Done::Announced {
                    request,
                    result: Ok(response),
                };
                self.at(
                    self.latency * 2,
                    Ev::Done {
                        node,
                        life,
                        done: Box::new(done),
                    },
                );
            }
            Output::Event(event) => self.nodes[node].events.push(event),
        }
    }

    /// Sends a chunk of the next link that has something, link by link in turns.
    fn transmit(&mut self, node: NodeId) {
        let n = &self.nodes[node];
        if n.uplink_busy || !n.up {
            return;
        }
        let waiting = |(_, end): &(&LinkId, &End)| end.node == node && !end.queue.is_empty();
        let after = self.ends.range(LinkId(n.turn.0 + 1)..).find(waiting);
        let Some((&link, _)) = after.or_else(|| self.ends.iter().find(waiting)) else {
            return;
        };
        let rate = n.rate;
        self.nodes[node].turn = link;
        self.nodes[node].uplink_busy = true;
        let end = self.ends.get_mut(&link).unwrap();
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK
            && let Some(bytes) = end.queue.pop_front()
        {
            chunk.extend_from_slice(&bytes);
        }
        end.queued -= chunk.len();
        let other = end.other;
        let writable = end.since_writable > SEND_MARK && end.queued <= SEND_MARK / 4;
        if writable {
            end.since_writable = 0;
        }
        let time = Duration::from_micros((chunk.len() as u64 * 1_000_000).div_ceil(rate));
        self.at(time, Ev::Uplink { node });
        self.at(
            time + self.latency,
            Ev::Arrive {
                link: other,
                bytes: chunk.freeze(),
            },
        );
        self.close_when_sent(link);
        if writable {
            self.input(node, Input::Writable { link });
        }
    }

    fn close_when_sent(&mut self, link: LinkId) {
        let Some(end) = self.ends.get(&link) else { return };
        let Some(reason) = end.closing.clone().filter(|_| end.queue.is_empty()) else {
            return;
        };
        let other = end.other;
        // Beyond the last chunk's time on the way.
        self.at(
            self.latency * 3,
            Ev::Gone {
                link: other,
                cause: DisconnectCause::Remote,
            },
        );
        self.at(
            Duration::ZERO,
            Ev::Gone {
                link,
                cause: DisconnectCause::Ours(reason),
            },
        );
    }
}

/// A torrent and its content.
pub struct Torrent {
    pub content: Vec<u8>,
    pub meta: Arc<Metainfo>,
}

impl Torrent {
    /// `len` bytes drawn from `seed`, as two files.
    pub fn new(len: usize, piece_len: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(len.div_ceil(8))
        .flatten()
        .take(len)
        .collect();
        let hashes: Vec<u8> = content
            .chunks(piece_len)
            .flat_map(|piece| Sha1::digest(piece).to_vec())
            .collect();
        let first = len / 3;
        let mut bytes = b"d8:announce23:http://tracker/announce4:infod5:filesl".to_vec();
        bytes.extend(format!("d6:lengthi{first}e4:pathl1:aee").bytes());
        bytes.extend(format!("d6:lengthi{}e4:pathl3:dir1:bee", len - first).bytes());
        bytes.extend(format!("e4:name7:content12:piece lengthi{piece_len}e6:pieces{}:", hashes.len()).bytes());
        bytes.extend(&hashes);
        bytes.extend(b"ee");
        let meta = Metainfo::parse(&bytes).unwrap();
        Self {
            content,
            meta: Arc::new(meta),
        }
    }

    pub fn source(&self) -> Source {
        Source::Metainfo(Arc::clone(&self.meta))
    }

    pub fn info_hash(&self) -> InfoHash {
        self.meta.info_hash
    }

    fn files(&self) -> Vec<(PathBuf, std::ops::Range<usize>)> {
        let range = |range: std::ops::Range<u64>| range.start as usize..range.end as usize;
        self.meta
            .files
            .iter()
            .map(|file| (file.path.clone(), range(file.range())))
            .collect()
    }
}
