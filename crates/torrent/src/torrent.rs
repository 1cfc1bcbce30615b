//! One torrent: what it is, how far it got, and the steps of its life. Its links, downloads, uploads and metadata
//! have a file each.

mod checking;
mod download;
mod fetch;
mod hashes;
mod lifecycle;
mod links;
mod messages;
pub(crate) mod pex;
mod search;
mod snapshot;
mod stream;
mod upload;
mod wishes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dunlin_peer::{LinkId, Now};

use crate::announce::Announcer;
use crate::blame::{Blame, Sender};
use crate::choker::Choker;
use crate::command::{AddTorrent, Source};
use crate::layers::{LayerFetch, Tree};
use crate::metadata::MetadataFetch;
use crate::peer_link::PeerLink;
use crate::picker::Picker;
use crate::rates::{Bucket, Meter};
use crate::resume::Resume;
use crate::shared::Shared;
use crate::swarm::{self, Swarm};
use crate::wire::Block;
use crate::{InfoHash, InfoHashV2, Metainfo};
use checking::Checking;

/// How far the torrent has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The info dictionary is being fetched.
    Metadata(MetadataFetch),
    /// The piece layers of a version 2 torrent are being fetched.
    Layers(LayerFetch),
    /// The disk is being asked what is there.
    Checking(Checking),
    /// Pieces are fetched and served.
    Active(Box<Picker>),
}

/// A piece on its way to the disk.
#[derive(Debug)]
struct Write {
    bytes: u64,
    from: Vec<LinkId>,
}

/// Who wants blocks from the disk.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// A peer.
    Peer(LinkId),
    /// Somebody who reads the torrent, by the ticket of the question.
    Stream(u64),
}

/// Blocks on their way from the disk.
#[derive(Debug)]
struct Read {
    reader: Reader,
    blocks: Vec<Block>,
}

/// When resume data is saved.
#[derive(Debug, Default)]
struct Saves {
    /// Something changed since the last save.
    wanted: bool,
    /// Save as soon as possible.
    now: bool,
    running: bool,
    last: Now,
}

/// One torrent.
#[derive(Debug)]
pub(crate) struct Torrent {
    info_hash: InfoHash,
    /// What a magnet link says.
    promised_v2: Option<InfoHashV2>,
    name: String,
    dir: PathBuf,
    meta: Option<Arc<Metainfo>>,
    /// The metainfo came from peers, and nobody was told of it yet.
    untold: bool,
    trackers: Vec<Vec<String>>,
    seed_only: bool,
    sequential: bool,
    stage: Stage,
    paused: bool,
    error: Option<String>,
    resume: Option<Arc<Resume>>,
    saves: Saves,
    /// The flush after the last piece is under way.
    finishing: bool,

    peers: BTreeMap<LinkId, PeerLink>,
    swarm: Swarm,
    dialing: usize,
    choker: Choker,
    next_round: Now,
    announcer: Announcer,
    searches: search::Searches,
    blame: Blame,
    /// Who is behind a link that sent blocks, also after it is gone.
    senders: BTreeMap<LinkId, Sender>,

    writes: BTreeMap<u32, Write>,
    reads: BTreeMap<u64, Read>,
    streams: BTreeMap<u64, stream::Stream>,
    /// Of the file whose hashes were asked for last.
    tree: Option<Tree>,
    down: Meter,
    up: Meter,
    down_limit: Bucket,
    up_limit: Bucket,
    wishes: wishes::Wishes,
    /// From earlier runs.
    earlier_down: u64,
    earlier_up: u64,
    wasted: u64,
    added: u64,
}

impl Torrent {
    /// A torrent as the user added it; [`Torrent::start`] sets it going.
    pub(crate) fn new(now: Now, add: AddTorrent, shared: &mut Shared) -> Self {
        let info_hash = add.source.info_hash();
        let resume = add.resume.filter(|resume| resume.info_hash == info_hash);
        let mut promised_v2 = None;
        let (mut meta, mut name, mut trackers, mut peers) = match add.source {
            Source::Metainfo(meta) => {
                let (name, trackers) = (meta.name.clone(), meta.trackers.clone());
                (Some(meta), name, trackers, Vec::new())
            }
            Source::Magnet(magnet) => {
                promised_v2 = magnet.info_hash_v2;
                let name = magnet.name.unwrap_or_else(|| info_hash.to_string());
                // BEP 9 knows no tiers: each tracker of a link is one of its own.
                let trackers = magnet.trackers.into_iter().map(|url| vec![url]).collect();
                (None, name, trackers, magnet.peers)
            }
        };
        if let Some(resume) = &resume {
            if meta.is_none()
                && let Ok(Some(saved)) = resume.metainfo()
            {
                name.clone_from(&saved.name);
                meta = Some(Arc::new(saved));
            }
            for tier in &resume.trackers {
                let known = |url: &String| trackers.iter().any(|tier: &Vec<String>| tier.contains(url));
                let fresh: Vec<String> = tier.iter().filter(|url| !known(url)).cloned().collect();
                if !fresh.is_empty() {
                    trackers.push(fresh);
                }
            }
        }
        peers.extend(add.peers);
        let saved = resume.clone();
        let saved = saved.as_deref();
        let mut swarm = Swarm::default();
        for addr in peers {
            swarm.learn(now, addr, swarm::Source::User, &mut shared.rng);
        }
        let announcer = Announcer::new(&trackers, &mut shared.rng);
        Self {
            info_hash,
            promised_v2,
            name,
            dir: add.dir,
            untold: false,
            meta,
            trackers,
            seed_only: add.seed_only,
            sequential: add.sequential,
            stage: Stage::Metadata(MetadataFetch::new(info_hash)),
            paused: add.paused,
            error: None,
            earlier_down: resume.as_ref().map_or(0, |resume| resume.downloaded),
            earlier_up: resume.as_ref().map_or(0, |resume| resume.uploaded),
            added: resume.as_ref().map_or(now.unix_secs(), |resume| resume.added),
            resume,
            saves: Saves {
                last: now,
                ..Saves::default()
            },
            finishing: false,
            peers: BTreeMap::new(),
            swarm,
            dialing: 0,
            choker: Choker::new(shared.config.limits.unchoke_slots),
            next_round: now,
            announcer,
            searches: search::Searches::default(),
            blame: Blame::default(),
            senders: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            streams: BTreeMap::new(),
            tree: None,
            down: Meter::default(),
            up: Meter::default(),
            down_limit: Bucket::new(saved.and_then(|resume| resume.download_limit)),
            up_limit: Bucket::new(saved.and_then(|resume| resume.upload_limit)),
            wishes: saved.map(wishes::Wishes::of).unwrap_or_default(),
            wasted: 0,
        }
    }

    /// Under which names peers, trackers and the DHT know the torrent, the one that it goes by here first.
    pub(crate) fn names(&self) -> Vec<InfoHash> {
        let mut names = vec![self.info_hash];
        names.extend(self.promised_v2.map(|hash| hash.truncated()));
        names.extend(self.meta.iter().flat_map(|meta| meta.names()));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// The name of version 2 (BEP 52), when it has one.
    pub(crate) fn name_v2(&self) -> Option<InfoHash> {
        let known = self.meta.as_ref().and_then(|meta| meta.info_hash_v2);
        known.or(self.promised_v2).map(|hash| hash.truncated())
    }

    /// The links that stand.
    pub(crate) fn links(&self) -> Vec<LinkId> {
        self.peers.keys().copied().collect()
    }

    /// Where a link's other side is.
    pub(crate) fn address_of(&self, id: LinkId) -> Option<SocketAddr> {
        self.peers.get(&id).map(|peer| peer.link.addr)
    }

    /// Every piece is there.
    fn is_complete(&self) -> bool {
        matches!(&self.stage, Stage::Active(picker) if picker.is_complete())
    }

    /// Every piece that is wanted is there.
    fn is_done(&self) -> bool {
        matches!(&self.stage, Stage::Active(picker) if picker.is_done())
    }

    /// Pieces are wanted and can be taken in.
    fn is_downloading(&self) -> bool {
        !self.paused
            && !self.wishes.queued
            && !self.seed_only
            && self.error.is_none()
            && matches!(&self.stage, Stage::Active(picker) if !picker.is_done())
    }

    /// Its peers may be looked for everywhere: it runs and is not private (BEP 27).
    pub(crate) fn is_open(&self) -> bool {
        self.is_running() && self.meta.as_ref().is_none_or(|meta| !meta.private)
    }

    /// Links are of use to it.
    fn is_running(&self) -> bool {
        !self.paused && !self.wishes.queued && (self.error.is_none() || matches!(self.stage, Stage::Active(_)))
    }

    /// Nothing but serving is left to do.
    fn only_serves(&self) -> bool {
        self.seed_only || self.is_done()
    }

    /// Bytes of verified pieces.
    fn done_bytes(&self) -> u64 {
        let Stage::Active(picker) = &self.stage else {
            return 0;
        };
        picker.shape().bytes_of(picker.have())
    }

    /// Bytes still missing; `u64::MAX` while nobody knows.
    fn left_bytes(&self) -> u64 {
        match &self.meta {
            Some(meta) => meta.content_length().saturating_sub(self.done_bytes()),
            None => u64::MAX,
        }
    }

    /// Learns where peers are.
    pub(crate) fn learn(&mut self, now: Now, shared: &mut Shared, peers: &[SocketAddr], source: swarm::Source) {
        for &addr in peers {
            if !shared.config.ip_filter.blocks(addr.ip()) {
                self.swarm.learn(now, addr, source, &mut shared.rng);
            }
        }
        shared.eager.insert(self.info_hash);
    }

    /// Whether somebody may be dialled now.
    pub(crate) fn has_due(&self, now: Now) -> bool {
        self.is_running() && self.swarm.next_due().is_some_and(|due| due <= now)
    }

    /// Addresses to dial now, at most `room`.
    pub(crate) fn take_dials(&mut self, now: Now, shared: &Shared, room: usize) -> Vec<SocketAddr> {
        let checking = matches!(self.stage, Stage::Checking(_));
        if !self.is_running() || checking || shared.stopping {
            return Vec::new();
        }
        let taken = self.peers.len().saturating_add(self.dialing);
        let room = room.min(shared.config.limits.links_per_torrent.saturating_sub(taken));
        let dials = self.swarm.take_due(now, room, self.only_serves());
        self.dialing += dials.len();
        dials
    }

    /// A dial came to nothing.
    pub(crate) fn dial_failed(&mut self, now: Now, addr: SocketAddr) {
        self.dialing = self.dialing.saturating_sub(1);
        self.swarm.dial_failed(now, addr);
    }
}
