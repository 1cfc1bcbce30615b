//! The torrent engine: many torrents over one listening side, as one [`Machine`].
//!
//! A link begins without a torrent: outbound ones know theirs from the dial, inbound ones name it in their handshake
//! (BEP 3). From then on the torrent owns the link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use dunlin_peer::{CloseReason, DialToken, DisconnectCause, Input, Link, LinkId, Machine, Now, Output};

pub use crate::command::{AddTorrent, Command, Config, Done, Event, Job, Limits, Source};
use crate::discovery::Discovery;
use crate::lsd::Lsd;
use crate::rates::Bucket;
use crate::shared::Shared;
pub use crate::status::{PeerFlags, PeerStatus, State, TorrentStatus, TrackerStatus};
use crate::torrent::Torrent;
use crate::wire::{Encryption, Handshake, Message, Reserved};
use crate::{InfoHash, PeerId, dht, disk, resume, swarm, utp};

/// Time between two looks at everything.
const TICK: Duration = Duration::from_secs(1);
/// Time between two looks at limits that hold something back.
const REFILL: Duration = Duration::from_millis(100);
/// Torrents that the DHT is asked for at once.
const MAX_SEARCHES: usize = 64;
/// A link on which no handshake came for this long is closed.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A link that we want.
#[derive(Clone, Copy, Debug)]
struct Dial {
    info_hash: InfoHash,
    addr: SocketAddr,
    encrypted: bool,
    utp: bool,
}

impl Dial {
    /// How to try next when nothing came of this: in plain, then over the other transport. `reached` when somebody took
    /// the link, but no handshake came.
    fn next(self, config: &Config, reached: bool) -> Option<Self> {
        if reached && self.encrypted && config.encryption == Encryption::Prefer {
            return Some(Self {
                encrypted: false,
                ..self
            });
        }
        (config.utp && !self.utp).then_some(Self {
            encrypted: config.encryption != Encryption::Off,
            utp: true,
            ..self
        })
    }
}

/// Where a link stands.
#[derive(Debug)]
enum Place {
    /// No handshake of the peer yet; `dial` is known on links that we dialled.
    Shaking { link: Link, dial: Option<Dial>, since: Now },
    /// The link belongs to a torrent.
    In(InfoHash),
    /// We asked for its end.
    Closing,
}

/// The engine.
#[derive(Debug)]
pub struct Session {
    shared: Shared,
    torrents: BTreeMap<InfoHash, Torrent>,
    /// The other names of torrents that have two (BEP 52), with the one that they go by here.
    aliases: BTreeMap<InfoHash, InfoHash>,
    /// Removed torrents that the disk still has open, with whether their files go too.
    closing: BTreeSet<InfoHash>,
    links: BTreeMap<LinkId, Place>,
    dials: BTreeMap<DialToken, Dial>,
    /// Dials to repeat in another way.
    again: Vec<Dial>,
    discovery: Option<Discovery>,
    lsd: Option<Lsd>,
    /// Torrents that are looked at in each tick.
    awake: BTreeSet<InfoHash>,
    /// When to look at which other torrent; one that woke up early is looked at once more then.
    asleep: BTreeSet<(Now, InfoHash)>,
    /// When which torrent is to be looked for; those that are being looked for, or have no use for it, are not here.
    searches: BTreeSet<(Now, InfoHash)>,
    /// How many are being looked for.
    searching: usize,
    /// When limits that hold something back are looked at again.
    next_refill: Option<Now>,
    reads_paused: bool,
    next_tick: Now,
    stop_told: bool,
}

impl Session {
    /// An engine without torrents.
    pub fn new(config: Config, now: Now) -> Self {
        let mut shared = Shared::new(config);
        let dht = shared.config.dht.take();
        Self {
            discovery: dht.map(|config| Discovery::new(&config, now, &mut shared.rng)),
            lsd: shared.config.lsd.then(|| Lsd::new(shared.rng.random())),
            shared,
            torrents: BTreeMap::new(),
            aliases: BTreeMap::new(),
            closing: BTreeSet::new(),
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            again: Vec::new(),
            awake: BTreeSet::new(),
            asleep: BTreeSet::new(),
            searches: BTreeSet::new(),
            searching: 0,
            next_refill: None,
            reads_paused: false,
            next_tick: now + TICK,
            stop_told: false,
        }
    }

    /// Our name on the wire.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// Every torrent at this moment, in the order of their info hashes.
    pub fn status(&self, now: Now) -> Vec<TorrentStatus> {
        self.torrents.values().map(|torrent| torrent.status(now)).collect()
    }

    fn command(&mut self, now: Now, command: Command) {
        let shared = &mut self.shared;
        let mut with = |name: InfoHash, act: &mut dyn FnMut(&mut Torrent, &mut Shared)| {
            let info_hash = self.aliases.get(&name).copied().unwrap_or(name);
            match self.torrents.get_mut(&info_hash) {
                Some(torrent) => {
                    self.awake.insert(info_hash);
                    act(torrent, shared);
                }
                None => shared.out.event(Event::Error {
                    info_hash,
                    text: "no such torrent".to_owned(),
                }),
            }
        };
        match command {
            Command::Add(add) => self.add(now, *add),
            Command::Remove {
                info_hash,
                delete_files,
            } => self.remove(now, info_hash, delete_files),
            Command::Pause { info_hash } => with(info_hash, &mut |torrent, shared| torrent.pause(now, shared)),
            Command::Resume { info_hash } => {
                search_now(&mut self.searches, now, info_hash);
                with(info_hash, &mut |torrent, shared| torrent.unpause(now, shared))
            }
            Command::Recheck { info_hash } => {
                search_now(&mut self.searches, now, info_hash);
                with(info_hash, &mut |torrent, shared| torrent.recheck(now, shared))
            }
            Command::AddPeers { info_hash, peers } => with(info_hash, &mut |torrent, shared| {
                torrent.learn(now, shared, &peers, swarm::Source::User);
            }),
            Command::Prioritise { info_hash, files } => {
                with(info_hash, &mut |torrent, shared| {
                    torrent.prioritise(now, shared, &files)
                });
            }
            Command::Limit {
                info_hash: Some(info_hash),
                download,
                upload,
            } => with(info_hash, &mut |torrent, _| torrent.limit(download, upload)),
            Command::Limit { download, upload, .. } => {
                shared.down = Bucket::new(download);
                shared.up = Bucket::new(upload);
            }
            Command::Read(request) => {
                let info_hash = self
                    .aliases
                    .get(&request.info_hash)
                    .copied()
                    .unwrap_or(request.info_hash);
                match self.torrents.get_mut(&info_hash) {
                    Some(torrent) => {
                        self.awake.insert(info_hash);
                        torrent.read_stream(now, shared, &request);
                    }
                    None => shared.out.event(Event::Read {
                        ticket: request.ticket,
                        result: Err("no such torrent".to_owned()),
                    }),
                }
            }
            Command::EndStream { info_hash, stream } => with(info_hash, &mut |torrent, _| torrent.end_stream(stream)),
            Command::Query { info_hash, ticket } => {
                let torrents = match info_hash {
                    None => self.status(now),
                    Some(name) => {
                        let torrent = self.torrents.get(&self.named(name));
                        torrent.map(|torrent| torrent.status(now)).into_iter().collect()
                    }
                };
                self.shared.out.event(Event::Status { ticket, torrents });
            }
            Command::Listening { port } => shared.config.listen_port = port,
            Command::Stop => self.stop(now),
        }
    }

    fn add(&mut self, now: Now, add: AddTorrent) {
        let info_hash = self.named(add.source.info_hash());
        if self.closing.contains(&info_hash) || self.shared.stopping {
            self.shared.out.event(Event::Error {
                info_hash,
                text: "the torrent is still being closed".to_owned(),
            });
            return;
        }
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            torrent.learn(now, &mut self.shared, &add.peers, swarm::Source::User);
            self.shared.out.event(Event::Added { info_hash, new: false });
            return;
        }
        let mut torrent = Torrent::new(now, add, &mut self.shared);
        self.shared.out.event(Event::Added { info_hash, new: true });
        if self.shared.config.max_downloads.is_some() || self.shared.config.max_seeds.is_some() {
            // The next tick says whose turn it is.
            torrent.wait_for_turn();
        }
        torrent.start(now, &mut self.shared);
        self.torrents.insert(info_hash, torrent);
        self.awake.insert(info_hash);
        self.searches.insert((now, info_hash));
        if let Some(lsd) = &mut self.lsd {
            lsd.insert(now, info_hash);
        }
        self.learn_names(info_hash);
    }

    /// The name under which a torrent that somebody calls so goes here.
    fn named(&self, name: InfoHash) -> InfoHash {
        self.aliases.get(&name).copied().unwrap_or(name)
    }

    /// Answers to all names of a torrent.
    fn learn_names(&mut self, info_hash: InfoHash) {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        for name in torrent.names() {
            self.shared.config.torrent_keys.insert(name);
            if !self.torrents.contains_key(&name) {
                self.aliases.insert(name, info_hash);
            }
        }
    }

    fn remove(&mut self, now: Now, info_hash: InfoHash, delete_files: bool) {
        let info_hash = self.named(info_hash);
        let Some(mut torrent) = self.torrents.remove(&info_hash) else {
            let error = Some("no such torrent".to_owned());
            self.shared.out.event(Event::Removed { info_hash, error });
            return;
        };
        for name in torrent.names() {
            if name == info_hash || self.aliases.get(&name) == Some(&info_hash) {
                self.aliases.remove(&name);
                self.shared.config.torrent_keys.remove(name);
            }
        }
        torrent.leave(now, &mut self.shared, &CloseReason::benign("torrent was removed"));
        torrent.abandon_writes(&mut self.shared);
        self.closing.insert(info_hash);
        let folder = self.shared.config.resume_dir.as_ref();
        let resume_file = folder.map(|folder| folder.join(resume::file_name(info_hash)));
        self.shared.disk(disk::Job::Close {
            info_hash,
            delete_files,
            resume_file,
        });
    }

    fn stop(&mut self, now: Now) {
        self.shared.stopping = true;
        if let Some(discovery) = &mut self.discovery {
            discovery.save(now, &mut self.shared);
        }
        for torrent in self.torrents.values_mut() {
            torrent.leave(now, &mut self.shared, &CloseReason::benign("shutting down"));
            torrent.save_news(now, &mut self.shared);
        }
    }

    fn connected(&mut self, now: Now, link: Link) {
        if link.token.is_none() && self.shared.config.ip_filter.blocks(link.addr.ip()) {
            return self.close(link.id, CloseReason::benign("address is filtered"));
        }
        let dial = link.token.and_then(|token| self.dials.remove(&token));
        let torrent = dial.map(|dial| dial.info_hash);
        if link.token.is_some() {
            let wanted = torrent.is_some_and(|info_hash| self.torrents.contains_key(&info_hash));
            if !wanted || self.shared.stopping {
                self.dial_ended(now, torrent, link.addr);
                return self.close(link.id, CloseReason::benign("no longer needed"));
            }
        }
        if let Some(dial) = dial {
            if dial.encrypted {
                self.shared.out.send(link.id, Message::Encrypt(dial.info_hash));
            }
            self.shake(link.id, dial.info_hash, dial.info_hash);
        }
        self.links.insert(link.id, Place::Shaking { link, dial, since: now });
    }

    /// Shakes hands about a torrent under one of its names.
    fn shake(&mut self, link: LinkId, info_hash: InfoHash, name: InfoHash) {
        let mut reserved = Reserved::OURS;
        if self.discovery.is_some() {
            reserved = reserved.with_dht();
        }
        if self
            .torrents
            .get(&info_hash)
            .is_some_and(|torrent| torrent.name_v2().is_some())
        {
            reserved = reserved.with_v2();
        }
        let handshake = Handshake {
            reserved,
            info_hash: name,
            peer_id: self.shared.peer_id,
        };
        self.shared.out.send(link, Message::Handshake(handshake));
    }

    fn close(&mut self, link: LinkId, reason: CloseReason) {
        self.links.insert(link, Place::Closing);
        self.shared.close(link, reason);
    }

    fn dial_ended(&mut self, now: Now, info_hash: Option<InfoHash>, addr: SocketAddr) {
        if let Some(info_hash) = info_hash
            && let Some(torrent) = self.torrents.get_mut(&info_hash)
        {
            self.awake.insert(info_hash);
            torrent.dial_failed(now, addr);
        }
    }

    /// A dial ended before a handshake came: the peer may be reached in another way.
    fn unshaken(&mut self, now: Now, dial: Option<Dial>, addr: SocketAddr, reached: bool) {
        let wanted = |dial: &Dial| !self.shared.stopping && self.torrents.contains_key(&dial.info_hash);
        match dial
            .filter(wanted)
            .and_then(|dial| dial.next(&self.shared.config, reached))
        {
            Some(next) => self.again.push(next),
            None => self.dial_ended(now, dial.map(|dial| dial.info_hash), addr),
        }
    }

    fn received(&mut self, now: Now, id: LinkId, msg: Message) {
        match self.links.get(&id) {
            Some(Place::In(info_hash)) => {
                if let (Message::Port(port), Some(discovery)) = (&msg, &mut self.discovery)
                    && let Some(addr) = self.torrents.get(info_hash).and_then(|torrent| torrent.address_of(id))
                {
                    return discovery.meet(now, &[SocketAddr::new(addr.ip(), *port)]);
                }
                if let Some(torrent) = self.torrents.get_mut(info_hash) {
                    torrent.received(now, &mut self.shared, id, msg);
                }
            }
            Some(&Place::Shaking { link, dial, .. }) => match msg {
                Message::Handshake(theirs) => self.shaken(now, link, dial, &theirs),
                // The codec lets nothing pass before a handshake.
                _ => self.close(id, CloseReason::fault("no handshake")),
            },
            Some(Place::Closing) | None => {}
        }
    }

    /// The peer's handshake is here.
    fn shaken(&mut self, now: Now, link: Link, dial: Option<Dial>, theirs: &Handshake) {
        let info_hash = self.named(theirs.info_hash);
        let dialled = dial.map(|dial| dial.info_hash);
        if dialled.is_some_and(|expected| expected != info_hash) {
            self.dial_ended(now, dialled, link.addr);
            return self.close(link.id, CloseReason::fault("answered for another torrent"));
        }
        let Some(torrent) = self.torrents.get_mut(&info_hash) else {
            return self.close(link.id, CloseReason::benign("unknown torrent"));
        };
        if theirs.peer_id == self.shared.peer_id {
            if dialled.is_some() {
                torrent.is_myself(link.addr);
            } else {
                // Our own other end knows the address, and learns from the answer whose it is.
                self.shake(link.id, info_hash, theirs.info_hash);
            }
            return self.close(link.id, CloseReason::benign("connected to myself"));
        }
        if dialled.is_none() {
            self.shake(link.id, info_hash, theirs.info_hash);
        }
        let Some(torrent) = self.torrents.get_mut(&info_hash) else {
            return;
        };
        match torrent.accept(
            now,
            &mut self.shared,
            link,
            dial.is_some_and(|dial| dial.encrypted),
            theirs,
        ) {
            Ok(()) => {
                self.awake.insert(info_hash);
                self.links.insert(link.id, Place::In(info_hash));
                if let (true, true, Some(port)) = (
                    theirs.reserved.dht(),
                    self.discovery.is_some(),
                    self.shared.config.listen_port,
                ) {
                    self.shared.out.send(link.id, Message::Port(port));
                }
            }
            Err(reason) => self.close(link.id, reason),
        }
    }

    fn disconnected(&mut self, now: Now, id: LinkId, cause: &DisconnectCause) {
        match self.links.remove(&id) {
            Some(Place::In(info_hash)) => {
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    let fault = matches!(cause, DisconnectCause::Codec(_));
                    torrent.disconnected(now, &mut self.shared, id, fault);
                }
            }
            Some(Place::Shaking { link, dial, .. }) if link.token.is_some() => {
                self.unshaken(now, dial, link.addr, true)
            }
            _ => {}
        }
    }

    fn done(&mut self, now: Now, done: Done) {
        match done {
            Done::Disk(disk::Done::Closed { info_hash, result }) if self.closing.remove(&info_hash) => {
                let error = result.err().map(|error| error.to_string());
                self.shared.out.event(Event::Removed { info_hash, error });
            }
            Done::Disk(done) => {
                let info_hash = done.info_hash();
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    self.awake.insert(info_hash);
                    torrent.disk_done(now, &mut self.shared, done);
                }
            }
            Done::Resolved { addrs } => {
                if let Some(discovery) = &mut self.discovery {
                    discovery.resolved(now, &addrs);
                }
            }
            Done::DhtSaved => {
                if let Some(discovery) = &mut self.discovery {
                    discovery.saved();
                }
            }
            Done::Announced { request, result } => {
                let info_hash = self.named(request.announce.info_hash);
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    self.awake.insert(info_hash);
                    torrent.announced(now, &mut self.shared, &request, &result);
                }
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.next_tick = now + TICK;
        let late: Vec<(LinkId, Option<Dial>, SocketAddr)> = self
            .links
            .values()
            .filter_map(|place| match place {
                Place::Shaking { link, dial, since } if now.since(*since) >= HANDSHAKE => {
                    Some((link.id, *dial, link.addr))
                }
                _ => None,
            })
            .collect();
        for (id, dial, addr) in late {
            self.unshaken(now, dial, addr, true);
            self.close(id, CloseReason::benign("no handshake"));
        }
        self.take_turns(now);
        while let Some(&(due, info_hash)) = self.asleep.first().filter(|(due, _)| *due <= now) {
            self.asleep.remove(&(due, info_hash));
            self.awake.insert(info_hash);
        }
        for info_hash in std::mem::take(&mut self.awake) {
            let Some(torrent) = self.torrents.get_mut(&info_hash) else {
                continue;
            };
            torrent.tick(now, &mut self.shared);
            if torrent.has_due(now) {
                self.shared.eager.insert(info_hash);
            }
            match torrent.rests_until(now, &self.shared) {
                Some(wake) => self.asleep.insert((wake, info_hash)),
                None => self.awake.insert(info_hash),
            };
        }
    }

    /// Gives turns to the torrents that came first, when only so many may be active.
    fn take_turns(&mut self, now: Now) {
        let limits = [self.shared.config.max_seeds, self.shared.config.max_downloads];
        if limits == [None, None] {
            return;
        }
        let waiting = |(info_hash, torrent): (&InfoHash, &Torrent)| {
            let downloads = torrent.wants_turn()?;
            Some((torrent.added(), *info_hash, downloads))
        };
        let mut order: Vec<(u64, InfoHash, bool)> = self.torrents.iter().filter_map(waiting).collect();
        order.sort_unstable();
        let mut left = limits.map(|limit| limit.unwrap_or(usize::MAX));
        for (_, info_hash, downloads) in order {
            let left = &mut left[usize::from(downloads)];
            let queued = *left == 0;
            *left = left.saturating_sub(1);
            if let Some(torrent) = self.torrents.get_mut(&info_hash)
                && torrent.set_queued(now, &mut self.shared, queued)
            {
                self.awake.insert(info_hash);
            }
        }
    }

    /// Takes a message of a peer in the house.
    fn heard_local(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        let Some((peer, named)) = self.lsd.as_ref().and_then(|lsd| lsd.read(from, bytes)) else {
            return;
        };
        for name in named {
            let info_hash = self.named(name);
            if let Some(torrent) = self.torrents.get_mut(&info_hash).filter(|torrent| torrent.is_open()) {
                torrent.learn(now, &mut self.shared, &[peer], swarm::Source::Lsd);
            }
        }
    }

    /// Lets the DHT search for the torrents that want it, sends what it says and takes what it found.
    fn discover(&mut self, now: Now) {
        if let Some(lsd) = &mut self.lsd {
            let torrents = &self.torrents;
            lsd.announce(now, &mut self.shared, |info_hash| {
                Some(torrents.get(&info_hash)?.is_open())
            });
        }
        let Some(discovery) = &mut self.discovery else {
            return;
        };
        let ready = discovery.is_ready();
        while ready
            && self.searching < MAX_SEARCHES
            && let Some(&(due, info_hash)) = self.searches.first().filter(|(due, _)| *due <= now)
        {
            self.searches.remove(&(due, info_hash));
            if let Some(torrent) = self.torrents.get_mut(&info_hash)
                && torrent.begin_search(&self.shared)
            {
                self.searching += 1;
                for name in torrent.names() {
                    discovery.search(now, name, self.shared.config.listen_port);
                }
            }
        }
        let lost = discovery.nodes() == 0;
        for event in discovery.carry_out(&mut self.shared) {
            match event {
                dht::Event::Peers { info_hash, peers } => {
                    let info_hash = self.aliases.get(&info_hash).copied().unwrap_or(info_hash);
                    if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                        torrent.learn(now, &mut self.shared, &peers, swarm::Source::Dht);
                    }
                }
                dht::Event::Searched { info_hash, .. } => {
                    // Under the other name of a hybrid it was looked for, too.
                    if !self.aliases.contains_key(&info_hash) {
                        self.searching = self.searching.saturating_sub(1);
                    }
                    if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                        let next = torrent.searched(now, &mut self.shared, lost);
                        self.searches.insert((next, info_hash));
                    }
                }
                dht::Event::Item { .. } | dht::Event::Stored { .. } => {}
            }
        }
    }

    /// What follows from any input: dials, reading paused or resumed, the end.
    fn settle(&mut self, now: Now) {
        for info_hash in std::mem::take(&mut self.shared.renamed) {
            self.learn_names(info_hash);
        }
        self.discover(now);
        let limits = self.shared.config.limits;
        let mut room = limits.dials.saturating_sub(self.dials.len());
        let mut links_left = limits.links.saturating_sub(self.shared.links + self.dials.len());
        for dial in std::mem::take(&mut self.again) {
            self.dial(dial);
            room = room.saturating_sub(1);
            links_left = links_left.saturating_sub(1);
        }
        let encrypted = self.shared.config.encryption != Encryption::Off;
        let mut dials = Vec::new();
        let mut eager = std::mem::take(&mut self.shared.eager);
        while room.min(links_left) > 0
            && let Some(info_hash) = eager.pop_first()
        {
            let Some(torrent) = self.torrents.get_mut(&info_hash) else {
                continue;
            };
            for addr in torrent.take_dials(now, &self.shared, room.min(links_left)) {
                dials.push(Dial {
                    info_hash,
                    addr,
                    encrypted,
                    utp: false,
                });
                room -= 1;
                links_left -= 1;
            }
        }
        // Who had no room waits for it.
        self.shared.eager.append(&mut eager);
        for dial in dials {
            self.dial(dial);
        }
        if !self.shared.held.is_empty() {
            self.next_refill.get_or_insert(now + REFILL);
        }
        if !self.reads_paused && self.shared.too_dirty() {
            self.reads_paused = true;
        } else if self.reads_paused && self.shared.clean_enough() {
            self.reads_paused = false;
        } else {
            return self.tell_stopped();
        }
        // Only torrents that are awake have links.
        for info_hash in &self.awake {
            if let Some(torrent) = self.torrents.get_mut(info_hash) {
                torrent.set_reading(&mut self.shared, !self.reads_paused);
            }
        }
        self.tell_stopped();
    }

    fn dial(&mut self, dial: Dial) {
        let mut token = DialToken(self.shared.ticket());
        if dial.utp {
            token = utp::dial_token(token);
        }
        self.dials.insert(token, dial);
        self.shared.out.dial(dial.addr, token);
    }

    fn tell_stopped(&mut self) {
        let quiet = self.shared.stopping
            && self.torrents.values().all(Torrent::is_quiet)
            && self.closing.is_empty()
            && self.discovery.as_ref().is_none_or(Discovery::is_quiet);
        if quiet && !std::mem::replace(&mut self.stop_told, true) {
            self.shared.out.event(Event::Stopped);
        }
    }
}

/// Has a torrent looked for at once instead of when its turn comes.
fn search_now(searches: &mut BTreeSet<(Now, InfoHash)>, now: Now, info_hash: InfoHash) {
    searches.retain(|(_, other)| *other != info_hash);
    searches.insert((now, info_hash));
}

impl Machine for Session {
    type Msg = Message;
    type Addr = SocketAddr;
    type Command = Command;
    type Event = Event;
    type Job = Job;
    type Done = Done;

    fn handle(&mut self, now: Now, input: Input<Message, Command, Done>) {
        match input {
            Input::Received { link, msg } => self.received(now, link, msg),
            Input::Writable { link } => {
                if let Some(Place::In(info_hash)) = self.links.get(&link)
                    && let Some(torrent) = self.torrents.get_mut(info_hash)
                {
                    torrent.writable(now, &mut self.shared, link);
                }
            }
            Input::Connected(link) => self.connected(now, link),
            Input::DialFailed { addr, token } => {
                let dial = self.dials.remove(&token);
                self.unshaken(now, dial, addr, false);
            }
            Input::Disconnected { link, cause } => self.disconnected(now, link, &cause),
            Input::Datagram { from, bytes } => {
                if bytes.first() == Some(&b'B') {
                    self.heard_local(now, from, &bytes);
                }
                // A message of the DHT is a bencoded dictionary.
                if let (Some(discovery), Some(b'd')) = (&mut self.discovery, bytes.first()) {
                    discovery.receive(now, from, &bytes);
                }
            }
            Input::Done(done) => self.done(now, done),
            Input::Command(command) => self.command(now, command),
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.next_refill.is_some_and(|at| now >= at) {
            self.next_refill = None;
            for info_hash in std::mem::take(&mut self.shared.held) {
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    torrent.refilled(now, &mut self.shared);
                }
            }
        }
        if now >= self.next_tick {
            self.tick(now);
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.timeout(now, &mut self.shared);
        }
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<Now> {
        let tick = (!self.torrents.is_empty() || !self.links.is_empty()).then_some(self.next_tick);
        let dht = self.discovery.as_ref().map(Discovery::poll_timeout);
        tick.into_iter().chain(dht).chain(self.next_refill).min()
    }

    fn poll(&mut self) -> Option<Output<Message, Event, Job>> {
        self.shared.out.pop()
    }
}
