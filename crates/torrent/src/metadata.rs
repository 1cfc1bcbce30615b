//! Fetching a magnet link's info dictionary from peers (BEP 9), verified by its info hash.
//!
//! What a peer says of the length is a claim: nothing is reserved for it, pieces are kept as they come, and peers
//! that disagree about the length are listened to apart from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{LinkId, Now};

use crate::InfoHash;
use crate::metainfo::is_named;
use crate::wire::METADATA_PIECE_LEN;

/// The longest info dictionary that we fetch.
pub(crate) const MAX_METADATA: u32 = 32 << 20;
/// Different claims of the length that are followed at once.
const MAX_CLAIMS: usize = 4;
/// Requests on their way to one peer.
const ASKED_PER_PEER: usize = 4;
/// A request without answer for this long is asked of another peer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A peer that refused is asked again after this long.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// What came of a metadata piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody asked for it, or it is of no use.
    Ignored,
    /// It was stored.
    Stored,
    /// The whole info dictionary, with the right hash.
    Complete(Bytes),
    /// The whole is there and its hash is wrong, and this one peer sent all of it: a liar.
    Liar(LinkId),
    /// The whole is there and its hash is wrong; who lied is not known yet.
    Wrong,
}

/// Pieces under one claim of the length.
#[derive(Debug, Default)]
struct Assembly {
    pieces: BTreeMap<u32, (Bytes, LinkId)>,
    asked: BTreeMap<u32, (LinkId, Now)>,
    /// After a failure the next try is made with one peer alone.
    alone: bool,
    only: Option<LinkId>,
}

/// A peer that offers the metadata.
#[derive(Debug)]
struct Offer {
    size: u32,
    not_before: Now,
}

/// The state of one fetch.
#[derive(Debug)]
pub(crate) struct MetadataFetch {
    info_hash: InfoHash,
    offers: BTreeMap<LinkId, Offer>,
    claims: BTreeMap<u32, Assembly>,
}

impl MetadataFetch {
    /// A fetch of the info dictionary with this hash.
    pub(crate) fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            offers: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// A peer says that it has `size` bytes of metadata; false when that cannot be.
    pub(crate) fn offer(&mut self, now: Now, link: LinkId, size: u32) -> bool {
        if size == 0 || size > MAX_METADATA {
            return false;
        }
        if !self.claims.contains_key(&size) {
            if self.claims.len() >= MAX_CLAIMS {
                return true;
            }
            self.claims.insert(size, Assembly::default());
        }
        self.offers.insert(link, Offer { size, not_before: now });
        true
    }

    /// The peer is gone.
    pub(crate) fn remove(&mut self, link: LinkId) {
        let Some(offer) = self.offers.remove(&link) else { return };
        let still_claimed = self.offers.values().any(|other| other.size == offer.size);
        if let Some(claim) = self.claims.get_mut(&offer.size) {
            claim.asked.retain(|_, (asked, _)| *asked != link);
            if claim.only == Some(link) {
                claim.only = None;
                claim.pieces.clear();
            }
        }
        if !still_claimed && self.claims.len() >= MAX_CLAIMS {
            self.claims.remove(&offer.size);
        }
    }

    /// The requests to make now.
    pub(crate) fn requests(&mut self, now: Now) -> Vec<(LinkId, u32)> {
        let mut requests = Vec::new();
        for (&size, claim) in &mut self.claims {
            let late = |at: Now| now.since(at) >= ANSWER_WITHIN;
            let silent: BTreeSet<LinkId> = claim
                .asked
                .values()
                .filter(|(_, at)| late(*at))
                .map(|(link, _)| *link)
                .collect();
            claim.asked.retain(|_, (_, at)| !late(*at));
            for link in silent {
                if let Some(offer) = self.offers.get_mut(&link) {
                    offer.not_before = now + REFUSED_FOR;
                }
                if claim.only == Some(link) {
                    claim.only = None;
                    claim.pieces.clear();
                }
            }
            let ready = |offer: &Offer| offer.size == size && offer.not_before <= now;
            if claim.alone && claim.only.is_none() {
                claim.only = self
                    .offers
                    .iter()
                    .find(|(_, offer)| ready(offer))
                    .map(|(&link, _)| link);
                if claim.only.is_none() {
                    continue;
                }
            }
            // In turns, so that each peer gets a share and none is asked for too much at once.
            for _ in 0..ASKED_PER_PEER {
                for (&link, offer) in &self.offers {
                    if !ready(offer) || claim.only.is_some_and(|only| only != link) {
                        continue;
                    }
                    let busy = claim.asked.values().filter(|(asked, _)| *asked == link).count();
                    if busy >= ASKED_PER_PEER {
                        continue;
                    }
                    let missing = (0..pieces_of(size))
                        .find(|piece| !claim.pieces.contains_key(piece) && !claim.asked.contains_key(piece));
                    let Some(piece) = missing else { break };
                    claim.asked.insert(piece, (link, now));
                    requests.push((link, piece));
                }
            }
        }
        requests
    }

    /// A peer refused a piece.
    pub(crate) fn refused(&mut self, now: Now, link: LinkId, piece: u32) {
        let Some(offer) = self.offers.get_mut(&link) else {
            return;
        };
        if let Some(claim) = self.claims.get_mut(&offer.size)
            && claim.asked.get(&piece).is_some_and(|(asked, _)| *asked == link)
        {
            claim.asked.remove(&piece);
            offer.not_before = now + REFUSED_FOR;
            if claim.only == Some(link) {
                claim.only = None;
                claim.pieces.clear();
            }
        }
    }

    /// A piece arrived.
    pub(crate) fn received(&mut self, link: LinkId, piece: u32, data: Bytes) -> Progress {
        let Some(size) = self.offers.get(&link).map(|offer| offer.size) else {
            return Progress::Ignored;
        };
        let Some(claim) = self.claims.get_mut(&size) else {
            return Progress::Ignored;
        };
        if claim.asked.get(&piece).is_none_or(|(asked, _)| *asked != link) {
            return Progress::Ignored;
        }
        claim.asked.remove(&piece);
        let begin = piece.saturating_mul(METADATA_PIECE_LEN);
        if data.len() != size.saturating_sub(begin).min(METADATA_PIECE_LEN) as usize {
            return Progress::Liar(link);
        }
        claim.pieces.insert(piece, (data, link));
        if claim.pieces.len() < pieces_of(size) as usize {
            return Progress::Stored;
        }
        let mut whole = BytesMut::new();
        let mut from = BTreeSet::new();
        for (data, link) in std::mem::take(&mut claim.pieces).into_values() {
            whole.extend_from_slice(&data);
            from.insert(link);
        }
        if is_named(&whole, self.info_hash) {
            return Progress::Complete(whole.freeze());
        }
        claim.asked.clear();
        claim.alone = true;
        claim.only = None;
        if from.len() == 1 {
            Progress::Liar(link)
        } else {
            Progress::Wrong
        }
    }
}

/// Metadata pieces in `size` bytes.
pub(crate) fn pieces_of(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(secs)
    }

    fn info(len: usize) -> Bytes {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    fn piece_of(info: &Bytes, piece: u32) -> Bytes {
        let begin = (piece * METADATA_PIECE_LEN) as usize;
        info.slice(begin..info.len().min(begin + METADATA_PIECE_LEN as usize))
    }

    #[test]
    fn pieces_from_two_peers_make_the_whole() {
        let info = info(100_000);
        let mut fetch = MetadataFetch::new(InfoHash::of_info(&info));
        assert!(fetch.offer(at(0), A, 100_000));
        assert!(fetch.offer(at(0), B, 100_000));
        let mut done = None;
        let mut from = BTreeSet::new();
        while done.is_none() {
            let requests = fetch.requests(at(1));
            assert!(!requests.is_empty());
            for (link, piece) in requests {
                from.insert(link);
                if let Progress::Complete(whole) = fetch.received(link, piece, piece_of(&info, piece)) {
                    done = Some(whole);
                }
            }
        }
        assert_eq!(done, Some(info));
        assert_eq!(from.len(), 2);
    }

    #[test]
    fn a_liar_among_two_is_found_by_asking_one_alone() {
        let info = info(70_000);
        let mut fetch = MetadataFetch::new(InfoHash::of_info(&info));
        fetch.offer(at(0), A, 70_000);
        fetch.offer(at(0), B, 70_000);
        let mut liars = Vec::new();
        let mut whole = None;
        for _ in 0..20 {
            for (link, piece) in fetch.requests(at(1)) {
                let mut data = piece_of(&info, piece).to_vec();
                if link == A {
                    data[0] ^= 1;
                }
                match fetch.received(link, piece, Bytes::from(data)) {
                    Progress::Liar(liar) => {
                        liars.push(liar);
                        fetch.remove(liar);
                    }
                    Progress::Complete(bytes) => whole = Some(bytes),
                    _ => {}
                }
            }
        }
        assert_eq!(liars, [A]);
        assert_eq!(whole, Some(info));
    }

    #[test]
    fn lies_about_the_length_are_bounded_and_do_not_stop_the_honest() {
        let info = info(20_000);
        let mut fetch = MetadataFetch::new(InfoHash::of_info(&info));
        assert!(!fetch.offer(at(0), A, 0));
        assert!(!fetch.offer(at(0), A, MAX_METADATA + 1));
        assert!(fetch.offer(at(0), A, MAX_METADATA));
        assert!(fetch.offer(at(0), B, 20_000));
        let requests = fetch.requests(at(0));
        let mut done = false;
        for (link, piece) in requests.into_iter().filter(|(link, _)| *link == B) {
            done |= matches!(
                fetch.received(link, piece, piece_of(&info, piece)),
                Progress::Complete(_)
            );
        }
        assert!(done);
    }

    #[test]
    fn a_silent_or_refusing_peer_is_replaced() {
        let info = info(10_000);
        let mut fetch = MetadataFetch::new(InfoHash::of_info(&info));
        fetch.offer(at(0), A, 10_000);
        assert_eq!(fetch.requests(at(0)), [(A, 0)]);
        fetch.offer(at(1), B, 10_000);
        assert!(fetch.requests(at(5)).is_empty());
        assert_eq!(fetch.requests(at(16)), [(B, 0)]);
        fetch.refused(at(17), B, 0);
        assert!(fetch.requests(at(18)).is_empty());
        assert_eq!(fetch.requests(at(60)), [(A, 0)]);
        assert_eq!(fetch.received(B, 0, info.clone()), Progress::Ignored);
        assert_eq!(fetch.received(A, 0, info.clone()), Progress::Complete(info));
    }
}
