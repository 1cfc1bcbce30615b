//! What all torrents of a session share: settings, randomness, the outbox, and the bound on unwritten bytes.

use std::collections::BTreeSet;

use dunlin_peer::{CloseReason, LinkId, Outbox, Output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::command::{Config, Event, Job};
use crate::disk;
use crate::rates::Bucket;
use crate::wire::Message;
use crate::{InfoHash, PeerId};

/// Shared by the torrents of one session.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) peer_id: PeerId,
    /// The same in each announce of this run.
    pub(crate) key: u32,
    pub(crate) out: Outbox<Message, Event, Job>,
    /// Bytes of pieces handed to the disk and not yet written.
    pub(crate) dirty: u64,
    /// Links that stand, in all torrents.
    pub(crate) links: usize,
    /// The program is about to end.
    pub(crate) stopping: bool,
    /// The limits of all torrents together.
    pub(crate) down: Bucket,
    pub(crate) up: Bucket,
    /// Torrents that a limit holds back.
    pub(crate) held: BTreeSet<InfoHash>,
    /// Torrents that may have somebody to dial.
    pub(crate) eager: BTreeSet<InfoHash>,
    /// Torrents of which more names are known than before.
    pub(crate) renamed: Vec<InfoHash>,
    next_ticket: u64,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let peer_id = PeerId::new(&config.peer_id_prefix, rng.random());
        Self {
            peer_id,
            key: rng.random(),
            rng,
            out: Outbox::default(),
            dirty: 0,
            links: 0,
            stopping: false,
            down: Bucket::new(config.download_limit),
            up: Bucket::new(config.upload_limit),
            held: BTreeSet::new(),
            eager: BTreeSet::new(),
            renamed: Vec::new(),
            next_ticket: 0,
            config,
        }
    }

    /// A number never given before.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }

    pub(crate) fn disk(&mut self, job: disk::Job) {
        self.out.job(Job::Disk(job));
    }

    pub(crate) fn close(&mut self, link: LinkId, reason: CloseReason) {
        self.out.close(link, reason);
    }

    /// Stops or goes on reading from a link.
    pub(crate) fn set_reading(&mut self, link: LinkId, reading: bool) {
        self.out.push(if reading {
            Output::ResumeRead { link }
        } else {
            Output::PauseRead { link }
        });
    }

    /// So much waits for the disk that links should not be read.
    pub(crate) fn too_dirty(&self) -> bool {
        self.dirty > self.config.limits.dirty_bytes
    }

    /// So little waits for the disk that links may be read again.
    pub(crate) fn clean_enough(&self) -> bool {
        self.dirty <= self.config.limits.dirty_bytes / 2
    }
}
