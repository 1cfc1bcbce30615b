//! A torrent's state for those who look on.

use dunlin_peer::Now;

use super::{Stage, Torrent};
use crate::peer_link::PeerLink;
use crate::picker::Picker;
use crate::status::{PeerFlags, PeerStatus, State, TorrentStatus, TrackerStatus};

impl Torrent {
    /// Bytes of content sent in all runs.
    pub(super) fn uploaded(&self) -> u64 {
        self.earlier_up.saturating_add(self.up.total())
    }

    /// Bytes of content received in all runs.
    pub(super) fn downloaded(&self) -> u64 {
        self.earlier_down.saturating_add(self.down.total())
    }

    fn state(&self) -> State {
        match (&self.error, self.paused, &self.stage) {
            (Some(error), _, _) => State::Error(error.clone()),
            (None, true, _) => State::Paused,
            (None, false, _) if self.wishes.queued => State::Queued,
            (None, false, Stage::Metadata(_) | Stage::Layers(_)) => State::Metadata,
            (None, false, Stage::Checking(_)) => State::Checking,
            // What is complete but not yet safe on the disk is not done.
            (None, false, Stage::Active(_)) if self.only_serves() && !self.finishing => State::Seeding,
            (None, false, Stage::Active(_)) => State::Downloading,
        }
    }

    /// The torrent at this moment.
    pub(crate) fn status(&self, now: Now) -> TorrentStatus {
        let (have, picker) = match &self.stage {
            Stage::Metadata(_) | Stage::Layers(_) => (None, None),
            Stage::Checking(checking) => (Some(&checking.have), None),
            Stage::Active(picker) => (Some(picker.have()), Some(&**picker)),
        };
        let piece_count = self.meta.as_ref().map_or(0, |meta| meta.piece_count());
        let total_bytes = self.meta.as_ref().map_or(0, |meta| meta.content_length());
        let (availability, copies_milli) = picker.map(availability).unwrap_or_default();
        let download_rate = self.down.rate(now);
        let left = total_bytes.saturating_sub(self.done_bytes());
        let eta = (self.is_downloading() && download_rate > 0).then(|| left.div_ceil(download_rate));
        TorrentStatus {
            info_hash: self.info_hash,
            info_hash_v2: self
                .meta
                .as_ref()
                .and_then(|meta| meta.info_hash_v2)
                .or(self.promised_v2),
            name: self.name.clone(),
            state: self.state(),
            error: self.error.clone(),
            dir: self.dir.clone(),
            private: self.meta.as_ref().is_some_and(|meta| meta.private),
            total_bytes,
            done_bytes: self.done_bytes(),
            download_limit: self.down_limit.rate(),
            upload_limit: self.up_limit.rate(),
            priorities: self.wishes.files.iter().map(|priority| *priority as u8).collect(),
            piece_length: self.meta.as_ref().map_or(0, |meta| meta.piece_length),
            piece_count,
            pieces_done: have.map_or(0, |have| have.count()),
            pieces: have.map(|have| have.as_bytes().to_vec()).unwrap_or_default(),
            availability,
            copies_milli,
            download_rate,
            upload_rate: self.up.rate(now),
            downloaded: self.downloaded(),
            uploaded: self.uploaded(),
            wasted: self.wasted,
            eta,
            added: self.added,
            known_peers: self.swarm.len(),
            peers: self.peers.values().map(|peer| self.peer_status(now, peer)).collect(),
            trackers: self
                .announcer
                .trackers()
                .map(|tracker| TrackerStatus {
                    url: tracker.url.clone(),
                    working: tracker.working,
                    message: tracker.message.clone(),
                    seeders: tracker.seeders,
                    leechers: tracker.leechers,
                })
                .collect(),
        }
    }

    fn peer_status(&self, now: Now, peer: &PeerLink) -> PeerStatus {
        let progress = peer.pieces().map_or(0, |pieces| {
            u64::from(pieces.count()) * 1000 / u64::from(pieces.len().max(1))
        });
        PeerStatus {
            link: peer.link.id,
            addr: peer.link.addr,
            direction: peer.link.direction,
            client: peer.client(),
            progress_milli: u32::try_from(progress).unwrap_or(1000),
            download_rate: peer.down.rate(now),
            upload_rate: peer.up.rate(now),
            downloaded: peer.down.total(),
            uploaded: peer.up.total(),
            requests: peer.asked.len(),
            flags: PeerFlags {
                interested: peer.am_interested,
                choked: peer.peer_choking,
                peer_interested: peer.peer_interested,
                peer_choked: peer.am_choking,
                optimistic: self.choker.optimistic() == Some(peer.link.id),
                snubbed: peer.snubbed,
                seed: peer.is_seed(),
                fast: peer.fast,
                extensions: peer.extensions,
                utp: crate::utp::is_utp(peer.link.id),
            },
        }
    }
}

/// For each piece how many connected peers have it, and the whole copies among them in thousandths: as many as the
/// rarest piece has, and the share of pieces that are less rare.
fn availability(picker: &Picker) -> (Vec<u8>, u64) {
    let pieces = picker.shape().pieces();
    let counts: Vec<u32> = (0..pieces).map(|index| picker.availability(index)).collect();
    let least = counts.iter().copied().min().unwrap_or(0);
    let above = counts.iter().filter(|&&count| count > least).count() as u64;
    let copies = u64::from(least) * 1000 + above * 1000 / u64::from(pieces.max(1));
    let bytes = counts
        .iter()
        .map(|&count| u8::try_from(count).unwrap_or(u8::MAX))
        .collect();
    (bytes, copies)
}
