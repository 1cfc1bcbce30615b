//! One torrent: what it is, how far it got, and the steps of its life. Its links, downloads, uploads and metadata
//! have a file each.

mod checking;
mod download;
mod fetch;
mod lifecycle;
mod links;
mod messages;
pub(crate) mod pex;
mod search;
mod snapshot;
mod upload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dunlin_peer::{LinkId, Now};

use crate::announce::Announcer;
use crate::blame::{Blame, Sender};
use crate::choker::Choker;
use crate::command::{AddTorrent, Source};
use crate::metadata::MetadataFetch;
use crate::peer_link::PeerLink;
use crate::picker::Picker;
use crate::rates::Meter;
use crate::resume::Resume;
use crate::shared::Shared;
use crate::swarm::{self, Swarm};
use crate::wire::Block;
use crate::{InfoHash, Metainfo};
use checking::Checking;

/// How far the torrent has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The info dictionary is being fetched.
    Metadata(MetadataFetch),
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

/// Blocks on their way from the disk to a peer.
#[derive(Debug)]
struct Read {
    link: LinkId,
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
    name: String,
    dir: PathBuf,
    meta: Option<Arc<Metainfo>>,
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
    down: Meter,
    up: Meter,
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
        let (mut meta, mut name, mut trackers, mut peers) = match add.source {
            Source::Metainfo(meta) => {
                let (name, trackers) = (meta.name.clone(), meta.trackers.clone());
                (Some(meta), name, trackers, Vec::new())
            }
            Source::Magnet(magnet) => {
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
        let mut swarm = Swarm::default();
        for addr in peers {
            swarm.learn(now, addr, swarm::Source::User, &mut shared.rng);
        }
        let announcer = Announcer::new(&trackers, &mut shared.rng);
        Self {
            info_hash,
            name,
            dir: add.dir,
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
            down: Meter::default(),
            up: Meter::default(),
            wasted: 0,
        }
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

    /// Pieces are wanted and can be taken in.
    fn is_downloading(&self) -> bool {
        !self.paused
            && !self.seed_only
            && self.error.is_none()
            && matches!(&self.stage, Stage::Active(picker) if !picker.is_complete())
    }

    /// Links are of use to it.
    fn is_running(&self) -> bool {
        !self.paused && (self.error.is_none() || matches!(self.stage, Stage::Active(_)))
    }

    /// Nothing but serving is left to do.
    fn only_serves(&self) -> bool {
        self.seed_only || self.is_complete()
    }

    /// Bytes of verified pieces.
    fn done_bytes(&self) -> u64 {
        let Stage::Active(picker) = &self.stage else {
            return 0;
        };
        let shape = picker.shape();
        let have = picker.have();
        let whole = u64::from(have.count()) * u64::from(shape.piece_len);
        // The last piece may be shorter than the others.
        match shape.pieces().checked_sub(1) {
            Some(last) if have.get(last) => whole - u64::from(shape.piece_len - shape.len_of(last)),
            _ => whole,
        }
    }

    /// Bytes still missing; `u64::MAX` while nobody knows.
    fn left_bytes(&self) -> u64 {
        match &self.meta {
            Some(meta) => meta.total_length.saturating_sub(self.done_bytes()),
            None => u64::MAX,
        }
    }

    /// Learns where peers are.
    pub(crate) fn learn(&mut self, now: Now, shared: &mut Shared, peers: &[SocketAddr], source: swarm::Source) {
        for &addr in peers {
            self.swarm.learn(now, addr, source, &mut shared.rng);
        }
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
