//! Finding out which pieces are on disk: those that the resume data vouches for, and those that have to be hashed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use dunlin_peer::{CloseReason, Now};

use super::{Stage, Torrent};
use crate::Bitfield;
use crate::command::Event;
use crate::disk::{self, DiskError, Opened};
use crate::metainfo::layers_item;
use crate::peer_link::Claims;
use crate::picker::{Picker, Shape};
use crate::resume::Resume;
use crate::shared::Shared;
use crate::wire::Message;

/// Ranges of pieces that the disk hashes side by side.
const CHECKS_AT_ONCE: usize = 4;

/// The state of a check.
#[derive(Debug, Default)]
pub(crate) struct Checking {
    /// The disk was asked to open the torrent.
    opening: bool,
    pub(super) have: Bitfield,
    queue: VecDeque<Range<u32>>,
    running: usize,
    /// Nothing had to be hashed: all that is there is as the resume data says.
    as_saved: bool,
}

impl Torrent {
    /// Goes from knowing what the torrent is to knowing what is there.
    pub(super) fn begin_check(&mut self, shared: &mut Shared) {
        self.finishing = false;
        self.stage = Stage::Checking(Checking::default());
        self.open_when_quiet(shared);
    }

    /// Opens the torrent once no write is under way any more: a check would otherwise see half of it.
    pub(super) fn open_when_quiet(&mut self, shared: &mut Shared) {
        let (Stage::Checking(checking), Some(meta)) = (&mut self.stage, &self.meta) else {
            return;
        };
        if !checking.opening && self.writes.is_empty() {
            checking.opening = true;
            shared.disk(disk::Job::Open {
                metainfo: Arc::clone(meta),
                dir: self.dir.clone(),
                resume: self.resume.clone(),
                read_only: self.seed_only,
            });
        }
    }

    pub(super) fn opened(&mut self, now: Now, shared: &mut Shared, result: Result<Opened, DiskError>) {
        let Stage::Checking(checking) = &mut self.stage else {
            return;
        };
        match result {
            Ok(opened) => {
                checking.as_saved = opened.unknown.is_empty();
                checking.have = opened.have;
                checking.queue = opened.unknown.into();
                self.check_on(now, shared);
            }
            Err(error) => self.fail(now, shared, error.to_string()),
        }
    }

    pub(super) fn checked(&mut self, now: Now, shared: &mut Shared, result: Result<Vec<u32>, DiskError>) {
        let Stage::Checking(checking) = &mut self.stage else {
            return;
        };
        checking.running = checking.running.saturating_sub(1);
        match result {
            Ok(good) => {
                for piece in good {
                    checking.have.set(piece);
                }
                self.check_on(now, shared);
            }
            Err(error) => self.fail(now, shared, error.to_string()),
        }
    }

    fn check_on(&mut self, now: Now, shared: &mut Shared) {
        let Stage::Checking(checking) = &mut self.stage else {
            return;
        };
        while checking.running < CHECKS_AT_ONCE {
            let Some(pieces) = checking.queue.pop_front() else {
                break;
            };
            checking.running += 1;
            shared.disk(disk::Job::Check {
                info_hash: self.info_hash,
                pieces,
            });
        }
        if checking.running == 0 {
            let have = std::mem::take(&mut checking.have);
            let as_saved = checking.as_saved;
            self.activate(now, shared, have, as_saved);
        }
    }

    /// It is known what is there: fetch the rest, serve what is there.
    fn activate(&mut self, now: Now, shared: &mut Shared, have: Bitfield, as_saved: bool) {
        let Some(meta) = &self.meta else { return };
        let shape = Shape::of(meta);
        let pieces = shape.pieces();
        let saved = self.resume.take();
        let news = !as_saved
            || saved.is_none_or(|saved| {
                saved.have != have || saved.trackers != self.trackers || saved.paused != self.paused
            });
        shared.out.event(Event::Checked {
            info_hash: self.info_hash,
            have: have.count(),
            pieces,
        });
        self.stage = Stage::Active(Box::new(Picker::new(
            shape,
            have.clone(),
            self.sequential,
            &mut shared.rng,
        )));
        self.apply_priorities();
        if self.is_done() {
            shared.out.event(Event::Completed {
                info_hash: self.info_hash,
            });
        }
        for id in self.links() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let Some(set) = peer.claims.understood(pieces) else {
                self.close_peer(now, shared, id, CloseReason::fault("claims pieces that do not exist"));
                continue;
            };
            peer.claims = Claims::Known(set);
            peer.allowed_in.retain(|&index| index < pieces);
            for index in have.iter() {
                peer.send(now, shared, Message::Have(index));
            }
            self.count_peer(now, shared, id);
        }
        self.answer_streams(shared);
        shared.eager.insert(self.info_hash);
        // Thousands of torrents that are as they were are not all saved, and synced, at each start.
        if news {
            self.save_now(now, shared);
        }
    }

    /// Believes nothing and looks again.
    pub(crate) fn recheck(&mut self, now: Now, shared: &mut Shared) {
        let early = matches!(self.stage, Stage::Metadata(_) | Stage::Layers(_));
        if early || matches!(self.stage, Stage::Checking(_)) && self.error.is_none() {
            return;
        }
        self.close_all(now, shared, &CloseReason::benign("checking files"));
        self.error = None;
        self.resume = None;
        self.begin_check(shared);
    }

    /// The resume data of this moment; `None` while it is not known what is there.
    pub(super) fn resume_data(&self) -> Option<Resume> {
        let have = match &self.stage {
            Stage::Metadata(_) | Stage::Layers(_) => Bitfield::default(),
            Stage::Checking(_) => return None,
            Stage::Active(picker) => picker.have().clone(),
        };
        let known = self.meta.as_ref().filter(|_| !matches!(self.stage, Stage::Layers(_)));
        Some(Resume {
            info_hash: self.info_hash,
            dir: self.dir.clone(),
            // What has no files yet is fetched again.
            raw_info: known.map(|meta| meta.raw_info.clone()),
            layers: known
                .filter(|meta| !meta.layers.is_empty())
                .map(|meta| layers_item(&meta.layers).encode().into()),
            name: self.name.clone(),
            trackers: self.trackers.clone(),
            have,
            files: Vec::new(),
            paused: self.paused,
            uploaded: self.uploaded(),
            downloaded: self.downloaded(),
            added: self.added,
            priorities: self.wishes.files.clone(),
            download_limit: self.down_limit.rate(),
            upload_limit: self.up_limit.rate(),
            seeded: self.wishes.seeded,
        })
    }
}
