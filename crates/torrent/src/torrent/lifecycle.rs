//! The steps of a torrent's life: start, pause, failure, stop; announces, saved progress, and what time brings.

use std::time::Duration;

use dunlin_peer::{CloseReason, Now};

use super::{Stage, Torrent};
use crate::announce::Due;
use crate::command::{Event, Job};
use crate::disk::{self, DiskError};
use crate::shared::Shared;
use crate::swarm;
use crate::tracker::{self, Announce, TrackerError};

/// Progress is saved this often at most.
const SAVE_EVERY: Duration = Duration::from_secs(15);
/// The longest that a torrent with nothing to do is not looked at.
const REST: Duration = Duration::from_secs(60);
/// What trackers are told when nobody listens: port 0 would be refused by many of them.
const NO_PORT: u16 = 1;

impl Torrent {
    /// Sets a fresh torrent going.
    pub(crate) fn start(&mut self, now: Now, shared: &mut Shared) {
        shared.eager.insert(self.info_hash);
        if self.meta.is_some() {
            self.begin(now, shared);
        } else {
            self.save_now(now, shared);
        }
        self.announce_if_due(now, shared);
    }

    /// Does nothing until resumed.
    pub(crate) fn pause(&mut self, now: Now, shared: &mut Shared) {
        if self.paused {
            return;
        }
        self.paused = true;
        self.leave(now, shared, &CloseReason::benign("torrent is paused"));
        self.save_now(now, shared);
    }

    /// Goes on, also after an error.
    pub(crate) fn unpause(&mut self, now: Now, shared: &mut Shared) {
        let failed = self.error.take().is_some();
        let was_paused = std::mem::take(&mut self.paused);
        if !failed && !was_paused {
            return;
        }
        self.saves.wanted = true;
        shared.eager.insert(self.info_hash);
        if failed && matches!(self.stage, Stage::Checking(_)) {
            self.begin_check(shared);
        }
        if let Stage::Active(picker) = &self.stage
            && picker.is_done()
            && !self.finishing
            && failed
        {
            self.finish(shared);
        }
        for id in self.links() {
            self.update_interest(now, shared, id);
        }
        self.request_all(now, shared);
        self.announce_if_due(now, shared);
    }

    /// Says goodbye to the tracker and the peers.
    pub(crate) fn leave(&mut self, now: Now, shared: &mut Shared, reason: &CloseReason) {
        if let Some(due) = self.announcer.stop() {
            self.announce(shared, due);
        }
        self.refuse_streams(shared, &reason.to_string());
        self.close_all(now, shared, reason);
    }

    /// Saves as soon as what is being written is written.
    pub(crate) fn save_now(&mut self, now: Now, shared: &mut Shared) {
        self.saves.wanted = true;
        self.saves.now = true;
        self.save_if_due(now, shared);
    }

    /// The same, unless the last save is as good.
    pub(crate) fn save_news(&mut self, now: Now, shared: &mut Shared) {
        let moved = self.up.total().max(self.down.total()) > 0;
        if self.saves.wanted || moved || shared.config.seed_time_goal.is_some() {
            self.save_now(now, shared);
        }
    }

    /// Whether everything that leaving set off is done.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty() && !self.saves.running && !self.saves.now && !self.finishing
    }

    /// Gives back the dirty bytes of writes whose answers will not be waited for.
    pub(crate) fn abandon_writes(&mut self, shared: &mut Shared) {
        for write in std::mem::take(&mut self.writes).into_values() {
            shared.dirty = shared.dirty.saturating_sub(write.bytes);
        }
    }

    /// The torrent cannot go on without help. What is there is still served, if it is known what is there.
    pub(super) fn fail(&mut self, now: Now, shared: &mut Shared, text: String) {
        if self.error.is_some() {
            return;
        }
        shared.out.event(Event::Error {
            info_hash: self.info_hash,
            text: text.clone(),
        });
        self.refuse_streams(shared, &text);
        self.error = Some(text);
        if matches!(self.stage, Stage::Active(_)) {
            for id in self.links() {
                self.withdraw_requests(now, shared, id);
                self.update_interest(now, shared, id);
            }
        } else {
            self.close_all(now, shared, &CloseReason::benign("torrent has an error"));
        }
    }

    /// What time brings; called about once a second.
    pub(crate) fn tick(&mut self, now: Now, shared: &mut Shared) {
        self.tick_links(now, shared);
        self.tick_streams(now);
        self.check_goals(now, shared);
        if self.is_running() {
            self.fetch_metadata(now, shared);
            self.fetch_layers(now, shared);
            if now >= self.next_round {
                self.choke_round(now, shared);
            }
            self.request_all(now, shared);
            self.announce_if_due(now, shared);
            self.tell_peers(now, shared);
        }
        self.save_if_due(now, shared);
    }

    /// When it is to be looked at next, after a [`Torrent::tick`]; `None` while it has to be looked at in each. Only
    /// what does not download rests. In between, whoever gives it something to do has to see to it that it is looked
    /// at again.
    pub(crate) fn rests_until(&self, now: Now, shared: &Shared) -> Option<Now> {
        let runs = self.is_running();
        let serves = matches!(self.stage, Stage::Active(_)) && self.only_serves();
        let quiet = self.peers.is_empty() && self.streams.is_empty() && self.is_quiet() && !self.saves.wanted;
        if !quiet || runs && !serves {
            return None;
        }
        let goal = shared.config.seed_time_goal;
        let goal = goal.map(|goal| now + goal.saturating_sub(self.wishes.seeded));
        let dues = [self.announcer.next_due(), self.swarm.next_due(), goal];
        // What is due and was not done has to wait for something else.
        let ahead = dues.into_iter().flatten().filter(|due| runs && *due > now);
        Some(ahead.fold(now + REST, Now::min))
    }

    /// Makes the announce that is due, if one is.
    pub(crate) fn announce_if_due(&mut self, now: Now, shared: &mut Shared) {
        if self.paused || self.wishes.queued || self.error.is_some() || shared.stopping {
            return;
        }
        let wants_peers = !self.only_serves();
        if let Some(due) = self.announcer.take_due(now, wants_peers) {
            self.announce(shared, due);
        }
    }

    /// Announces under each of the torrent's names.
    fn announce(&self, shared: &mut Shared, due: Due) {
        for info_hash in self.names() {
            let request = tracker::Request {
                url: due.url.clone(),
                announce: Announce {
                    info_hash,
                    peer_id: shared.peer_id,
                    port: shared.config.listen_port.unwrap_or(NO_PORT),
                    uploaded: self.up.total(),
                    downloaded: self.down.total(),
                    left: self.left_bytes(),
                    event: due.event,
                    num_want: due.num_want,
                    key: shared.key,
                    tracker_id: due.tracker_id.clone(),
                },
            };
            shared.out.job(Job::Announce(request));
        }
    }

    /// A tracker answered.
    pub(crate) fn announced(
        &mut self,
        now: Now,
        shared: &mut Shared,
        request: &tracker::Request,
        result: &Result<tracker::Response, TrackerError>,
    ) {
        // The farewell wants no answer, and must not pass for the answer to a later announce.
        if request.announce.event == Some(tracker::Event::Stopped) {
            return;
        }
        if request.announce.info_hash == self.info_hash {
            self.announcer.answered(now, &request.url, result);
        }
        if let Ok(response) = result {
            self.learn(now, shared, &response.peers, swarm::Source::Tracker);
        }
        self.announce_if_due(now, shared);
    }

    /// Saves progress when it is time to.
    pub(super) fn save_if_due(&mut self, now: Now, shared: &mut Shared) {
        let Some(folder) = &shared.config.resume_dir else {
            self.saves.now = false;
            return;
        };
        let due = self.saves.now || now.since(self.saves.last) >= SAVE_EVERY;
        if !self.saves.wanted || !due || self.saves.running {
            self.saves.now &= self.saves.wanted;
            return;
        }
        if self.saves.now && !self.writes.is_empty() {
            // Wait for what is being written, so that it is counted.
            return;
        }
        let file = folder.join(crate::resume::file_name(self.info_hash));
        let Some(resume) = self.resume_data() else {
            self.saves.now = false;
            return;
        };
        self.saves = super::Saves {
            wanted: false,
            now: false,
            running: true,
            last: now,
        };
        shared.disk(disk::Job::SaveResume {
            resume: Box::new(resume),
            file,
        });
    }

    /// The disk answered one of our jobs.
    pub(crate) fn disk_done(&mut self, now: Now, shared: &mut Shared, done: disk::Done) {
        match done {
            disk::Done::Opened { result, .. } => self.opened(now, shared, result),
            disk::Done::Checked { result, .. } => self.checked(now, shared, result),
            disk::Done::Written { piece, result, .. } => self.written(now, shared, piece, result),
            disk::Done::Read { ticket, result, .. } => self.read(now, shared, ticket, result),
            disk::Done::Flushed { result, .. } => self.flushed(now, shared, result),
            disk::Done::ResumeSaved { result, .. } => {
                self.saves.running = false;
                if let Err(error) = result {
                    // The download is not harmed: the next start hashes more.
                    tracing::warn!(info_hash = %self.info_hash, %error, "cannot save progress");
                    self.saves.wanted |= !shared.stopping;
                }
                self.save_if_due(now, shared);
            }
            disk::Done::Closed { .. } => {}
        }
    }

    /// Everything is there: make it safe before saying so.
    pub(super) fn finish(&mut self, shared: &mut Shared) {
        self.finishing = true;
        shared.disk(disk::Job::Flush {
            info_hash: self.info_hash,
        });
    }

    fn flushed(&mut self, now: Now, shared: &mut Shared, result: Result<(), DiskError>) {
        if !std::mem::take(&mut self.finishing) || !self.is_done() {
            return;
        }
        match result {
            Ok(()) => {
                shared.out.event(Event::Completed {
                    info_hash: self.info_hash,
                });
                self.save_now(now, shared);
                if self.is_complete() {
                    self.announcer.completed(now);
                } else {
                    self.tell_extensions(now, shared);
                }
                self.announce_if_due(now, shared);
            }
            Err(error) => self.fail(now, shared, error.to_string()),
        }
    }
}
