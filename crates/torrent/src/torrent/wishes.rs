//! What is wanted of a torrent, how fast, and how long it is shared: priorities of files, limits, goals, the queue.

use std::time::Duration;

use dunlin_peer::{CloseReason, Now};

use super::{Stage, Torrent};
use crate::Bitfield;
use crate::command::Priority;
use crate::resume::Resume;
use crate::shared::Shared;
use crate::wire::{BLOCK_LEN, Message};

/// What the user wants of a torrent.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// By the index of the file; those beyond the end are normal.
    pub(super) files: Vec<Priority>,
    /// How long it has only served, in all runs.
    pub(super) seeded: Duration,
    /// It waits for its turn.
    pub(super) queued: bool,
    last_tick: Option<Now>,
}

impl Wishes {
    /// Those of an earlier run.
    pub(super) fn of(resume: &Resume) -> Self {
        Self {
            files: resume.priorities.clone(),
            seeded: resume.seeded,
            ..Self::default()
        }
    }
}

impl Torrent {
    /// Says how much files are wanted.
    pub(crate) fn prioritise(&mut self, now: Now, shared: &mut Shared, files: &[(usize, Priority)]) {
        let Some(meta) = &self.meta else { return };
        self.wishes.files.resize(meta.files.len(), Priority::Normal);
        for &(index, priority) in files {
            if let Some(slot) = self.wishes.files.get_mut(index) {
                *slot = priority;
            }
        }
        let was_done = self.is_done();
        self.apply_priorities();
        for id in self.links() {
            self.count_wanted(id);
            self.update_interest(now, shared, id);
        }
        self.saves.wanted = true;
        if self.is_done() && !was_done {
            self.finish(shared);
        } else if was_done && !self.is_done() {
            // It no longer only serves.
            self.finishing = false;
            self.tell_extensions(now, shared);
            shared.eager.insert(self.info_hash);
        }
        self.request_all(now, shared);
    }

    /// Has the picker want what the user wants.
    pub(super) fn apply_priorities(&mut self) {
        let (Stage::Active(picker), Some(meta)) = (&mut self.stage, &self.meta) else {
            return;
        };
        let skips = self.wishes.files.contains(&Priority::Skip);
        let mut wanted = Bitfield::full(picker.shape().pieces());
        let files = || meta.files.iter().zip(&self.wishes.files).filter(|(file, _)| !file.pad);
        if skips {
            let skipped = files().filter(|(_, priority)| **priority == Priority::Skip);
            skipped.flat_map(|(file, _)| meta.pieces_of(file)).for_each(|piece| {
                wanted.clear(piece);
            });
            // A piece that another file shares is wanted for that.
            let kept = files().filter(|(_, priority)| **priority != Priority::Skip);
            kept.flat_map(|(file, _)| meta.pieces_of(file)).for_each(|piece| {
                wanted.set(piece);
            });
        }
        picker.want(wanted);
        self.order_wishes();
    }

    /// The pieces of the files that are wanted before others.
    pub(super) fn high_pieces(&self) -> impl Iterator<Item = u32> + '_ {
        let files = self
            .meta
            .iter()
            .flat_map(|meta| meta.files.iter().map(move |file| (meta, file)));
        let high = files
            .zip(&self.wishes.files)
            .filter(|(_, priority)| **priority == Priority::High);
        high.flat_map(|((meta, file), _)| meta.pieces_of(file))
    }

    /// Tells all peers anew what we can do, and whether we only serve (BEP 21).
    pub(super) fn tell_extensions(&mut self, now: Now, shared: &mut Shared) {
        for id in self.links() {
            let Some(addr) = self.address_of(id) else { continue };
            let handshake = self.ext_handshake_for(shared, addr);
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.extensions
            {
                peer.send(now, shared, Message::ExtHandshake(handshake));
            }
        }
    }

    /// Blocks that may be asked for now; notes when it is none because of a limit.
    pub(super) fn request_budget(&mut self, now: Now, shared: &mut Shared) -> usize {
        let left = self.down_limit.left(now).min(shared.down.left(now)) / u64::from(BLOCK_LEN);
        if left == 0 {
            shared.held.insert(self.info_hash);
        }
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// A limit may let something through again.
    pub(crate) fn refilled(&mut self, now: Now, shared: &mut Shared) {
        for id in self.links() {
            self.serve(now, shared, id);
        }
        self.request_all(now, shared);
    }

    /// Sets the limits, in bytes a second.
    pub(crate) fn limit(&mut self, download: Option<u64>, upload: Option<u64>) {
        self.down_limit = crate::rates::Bucket::new(download);
        self.up_limit = crate::rates::Bucket::new(upload);
        self.saves.wanted = true;
    }

    /// Pauses a torrent that has given what it should.
    pub(super) fn check_goals(&mut self, now: Now, shared: &mut Shared) {
        let last = self.wishes.last_tick.replace(now);
        let serves = self.is_running() && self.only_serves() && matches!(self.stage, Stage::Active(_));
        if !serves || self.finishing {
            return;
        }
        if let Some(last) = last {
            self.wishes.seeded += now.since(last);
        }
        let config = &shared.config;
        let size = self.meta.as_ref().map_or(0, |meta| meta.content_length());
        let given = u128::from(self.uploaded()) * 1000;
        let by_ratio = config
            .ratio_goal
            .is_some_and(|goal| given >= u128::from(goal) * u128::from(size));
        let by_time = config.seed_time_goal.is_some_and(|goal| self.wishes.seeded >= goal);
        if by_ratio || by_time {
            tracing::info!(info_hash = %self.info_hash, "shared as much as it should be, and paused");
            self.pause(now, shared);
        }
    }

    /// Whether it takes a turn among those that download, or that only serve; `None` when it wants none.
    pub(crate) fn wants_turn(&self) -> Option<bool> {
        let wants = !self.paused && self.error.is_none();
        wants.then(|| !self.only_serves())
    }

    /// Where it stands in the queue: who came first is first.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// It begins without a turn.
    pub(crate) fn wait_for_turn(&mut self) {
        self.wishes.queued = true;
    }

    /// It waits for its turn from now on, or has it; true when that is news.
    pub(crate) fn set_queued(&mut self, now: Now, shared: &mut Shared, queued: bool) -> bool {
        if std::mem::replace(&mut self.wishes.queued, queued) == queued {
            return false;
        }
        if queued {
            self.leave(now, shared, &CloseReason::benign("torrent waits for its turn"));
        } else {
            shared.eager.insert(self.info_hash);
            self.announce_if_due(now, shared);
        }
        true
    }
}
