//! Piece layers (BEP 52) fetched from peers for a version 2 torrent that came without them: in runs of up to 512 nodes,
//! each with a proof that it belongs to its file's root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{LinkId, Now};

use crate::merkle::{self, Hash};
use crate::metainfo::Layers;
use crate::wire::{HashRequest, MAX_HASHES};

/// Nodes of one request (BEP 52).
const RUN: u32 = 512;
/// Requests on their way to one peer.
const ASKED_PER_PEER: usize = 4;
/// A request without answer for this long is asked of another peer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A peer that refused is asked again after this long.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// What came of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody asked for it.
    Ignored,
    /// It was stored.
    Stored,
    /// It was the last.
    Complete(Layers),
    /// It does not belong to the file: the peer lies.
    Lie,
}

/// A file's layer as far as it has come.
#[derive(Debug)]
struct Layer {
    pieces: u64,
    runs: BTreeMap<u32, Bytes>,
}

/// The state of one torrent's fetch.
#[derive(Debug)]
pub(crate) struct LayerFetch {
    files: BTreeMap<Hash, Layer>,
    waiting: VecDeque<HashRequest>,
    asked: BTreeMap<HashRequest, (LinkId, Now)>,
    resting: BTreeMap<LinkId, Now>,
}

impl LayerFetch {
    /// A fetch for these files, given as roots and numbers of pieces.
    pub(crate) fn new(missing: &[(Hash, u64)], piece_length: u32) -> Self {
        let layer = merkle::piece_layer(piece_length);
        let mut waiting = VecDeque::new();
        for &(root, pieces) in missing {
            let height = merkle::height(pieces);
            let length = RUN.min(1 << height.min(16));
            // Torrents have far fewer pieces than a u32 can count.
            for index in (0..u32::try_from(pieces).unwrap_or(u32::MAX)).step_by(length as usize) {
                waiting.push_back(HashRequest {
                    root,
                    layer,
                    index,
                    length,
                    proofs: height.saturating_sub(1),
                });
            }
        }
        let fresh = |pieces| Layer {
            pieces,
            runs: BTreeMap::new(),
        };
        Self {
            files: missing.iter().map(|&(root, pieces)| (root, fresh(pieces))).collect(),
            waiting,
            asked: BTreeMap::new(),
            resting: BTreeMap::new(),
        }
    }

    /// The requests to make now of these peers.
    pub(crate) fn requests(&mut self, now: Now, links: &[LinkId]) -> Vec<(LinkId, HashRequest)> {
        let late: BTreeSet<(LinkId, HashRequest)> = self
            .asked
            .iter()
            .filter(|(_, (_, at))| now.since(*at) >= ANSWER_WITHIN)
            .map(|(request, (link, _))| (*link, *request))
            .collect();
        for (link, request) in late {
            self.rejected(now, link, &request);
        }
        self.resting.retain(|_, until| *until > now);
        let mut requests = Vec::new();
        // In turns, so that each peer gets a share.
        for _ in 0..ASKED_PER_PEER {
            for &link in links.iter().filter(|link| !self.resting.contains_key(link)) {
                let busy = self.asked.values().filter(|(asked, _)| *asked == link).count();
                if busy < ASKED_PER_PEER
                    && let Some(request) = self.waiting.pop_front()
                {
                    self.asked.insert(request, (link, now));
                    requests.push((link, request));
                }
            }
        }
        requests
    }

    /// The peer is gone.
    pub(crate) fn remove(&mut self, link: LinkId) {
        let gone = |(_, (asked, _)): &(&HashRequest, &mut (LinkId, Now))| *asked == link;
        let back: Vec<HashRequest> = self
            .asked
            .iter_mut()
            .filter(gone)
            .map(|(request, _)| *request)
            .collect();
        for request in back {
            self.asked.remove(&request);
            self.waiting.push_front(request);
        }
    }

    /// A peer refused, or did not answer.
    pub(crate) fn rejected(&mut self, now: Now, link: LinkId, request: &HashRequest) {
        if self.asked.get(request).is_some_and(|(asked, _)| *asked == link) {
            self.asked.remove(request);
            self.waiting.push_back(*request);
            self.resting.insert(link, now + REFUSED_FOR);
        }
    }

    /// An answer came.
    pub(crate) fn received(&mut self, link: LinkId, request: &HashRequest, hashes: &Bytes) -> Progress {
        if self.asked.get(request).is_none_or(|(asked, _)| *asked != link) {
            return Progress::Ignored;
        }
        self.asked.remove(request);
        let Some(file) = self.files.get_mut(&request.root) else {
            return Progress::Ignored;
        };
        if !is_proven(request, merkle::height(file.pieces), hashes) {
            self.waiting.push_front(*request);
            return Progress::Lie;
        }
        let wanted = (file.pieces - u64::from(request.index)).min(request.length.into());
        file.runs.insert(request.index, hashes.slice(..wanted as usize * 32));
        if !self.waiting.is_empty() || !self.asked.is_empty() {
            return Progress::Stored;
        }
        let whole = |file: &Layer| {
            let mut all = BytesMut::new();
            file.runs.values().for_each(|run| all.extend_from_slice(run));
            all.freeze()
        };
        Progress::Complete(self.files.iter().map(|(root, file)| (*root, whole(file))).collect())
    }
}

/// Whether the hashes are what was asked for and lead to the root, which is `height` layers above them.
fn is_proven(request: &HashRequest, height: u32, hashes: &Bytes) -> bool {
    let (nodes, rest) = hashes.as_chunks::<32>();
    let within = request.length.trailing_zeros();
    let uncles = height.saturating_sub(within) as usize;
    let length = request.length as usize;
    if !rest.is_empty() || nodes.len() != length + uncles {
        return false;
    }
    let (nodes, uncles) = nodes.split_at(length);
    let top = merkle::root(nodes.to_vec(), request.layer, within);
    merkle::climb(top, u64::from(request.index / request.length), uncles) == request.root
}

/// A file's tree from its piece layer upwards, to answer requests.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Hash,
    layer: u32,
    layers: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over a piece layer.
    pub(crate) fn new(root: Hash, nodes: &Bytes, piece_length: u32) -> Self {
        let nodes = nodes.as_chunks::<32>().0.to_vec();
        let layer = merkle::piece_layer(piece_length);
        let height = merkle::height(nodes.len() as u64);
        Self {
            root,
            layer,
            layers: merkle::layers(nodes, layer, height),
        }
    }

    /// Whose tree it is.
    pub(crate) fn root(&self) -> Hash {
        self.root
    }

    /// The answer to a request; `None` when it asks for what is not there.
    pub(crate) fn answer(&self, request: &HashRequest) -> Option<Bytes> {
        let up = request.layer.checked_sub(self.layer)? as usize;
        // The root itself is known to everybody.
        let height = self.layers.len().checked_sub(1)?;
        if up >= height || !request.length.is_power_of_two() || request.length > MAX_HASHES {
            return None;
        }
        let end = request.index.checked_add(request.length)?;
        if !request.index.is_multiple_of(request.length) || u64::from(end) > 1 << (height - up) {
            return None;
        }
        let mut answer = BytesMut::new();
        let pad = merkle::padding(request.layer);
        let nodes = &self.layers[up];
        for index in request.index..end {
            answer.extend_from_slice(nodes.get(index as usize).unwrap_or(&pad));
        }
        if request.proofs as usize >= height - up {
            return None;
        }
        // The first of them follow from the nodes themselves.
        for above in request.length.trailing_zeros().max(1)..=request.proofs {
            let uncle = (request.index >> above) as usize ^ 1;
            let nodes = &self.layers[up + above as usize];
            let pad = merkle::padding(request.layer + above);
            answer.extend_from_slice(nodes.get(uncle).unwrap_or(&pad));
        }
        Some(answer.freeze())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_answers_the_other_can_prove() {
        let piece_length = 64 << 10;
        for pieces in [2u64, 3, 511, 512, 513, 2_000] {
            let nodes: Vec<Hash> = (0..pieces).map(|n| merkle::padding(n as u32 + 1)).collect();
            let layer = merkle::piece_layer(piece_length);
            let root = merkle::root(nodes.clone(), layer, merkle::height(pieces));
            let bytes = Bytes::from(nodes.concat());
            let tree = Tree::new(root, &bytes, piece_length);
            let mut fetch = LayerFetch::new(&[(root, pieces)], piece_length);
            let link = LinkId(1);
            let mut now = Now::from_unix_secs(1);
            let mut layers = None;
            let mut lied = false;
            while layers.is_none() {
                now = now + Duration::from_secs(1);
                let requests = fetch.requests(now, &[link]);
                assert!(!requests.is_empty());
                for (_, request) in requests {
                    let answer = tree.answer(&request).unwrap();
                    if !std::mem::replace(&mut lied, true) {
                        let mut lie = answer.to_vec();
                        *lie.last_mut().unwrap() ^= 1;
                        assert_eq!(fetch.received(link, &request, &lie.into()), Progress::Lie);
                        continue;
                    }
                    if let Progress::Complete(whole) = fetch.received(link, &request, &answer) {
                        layers = Some(whole);
                    }
                }
            }
            assert_eq!(layers.unwrap(), Layers::from([(root, bytes)]));
        }
    }

    #[test]
    fn silence_and_refusal_free_the_request_for_others() {
        let mut fetch = LayerFetch::new(&[([1; 32], 4)], 16 << 10);
        let (a, b) = (LinkId(1), LinkId(2));
        let now = Now::from_unix_secs(1);
        let asked = fetch.requests(now, &[a]);
        assert_eq!(asked.len(), 1);
        assert!(fetch.requests(now, &[b]).is_empty());
        let later = now + ANSWER_WITHIN;
        assert_eq!(fetch.requests(later, &[a, b]), [(b, asked[0].1)]);
        fetch.rejected(later, b, &asked[0].1);
        assert!(fetch.requests(later, &[a, b]).is_empty());
        assert_eq!(fetch.requests(later + REFUSED_FOR, &[a]).len(), 1);
        fetch.remove(a);
        assert_eq!(fetch.requests(later + REFUSED_FOR, &[b]).len(), 1);
    }

    #[test]
    fn senseless_requests_get_no_answer() {
        let nodes = Bytes::from(vec![7; 32 * 5]);
        let tree = Tree::new([1; 32], &nodes, 16 << 10);
        let good = HashRequest {
            root: [1; 32],
            layer: 0,
            index: 4,
            length: 4,
            proofs: 2,
        };
        assert_eq!(tree.answer(&good).unwrap().len(), 32 * 5);
        for bad in [
            HashRequest { index: 8, ..good },
            HashRequest { index: 2, ..good },
            HashRequest { length: 3, ..good },
            HashRequest { length: 0, ..good },
            HashRequest {
                layer: 3,
                index: 0,
                length: 1,
                ..good
            },
            HashRequest {
                proofs: u32::MAX,
                ..good
            },
            HashRequest {
                index: u32::MAX - 3,
                ..good
            },
        ] {
            assert!(tree.answer(&bad).is_none(), "{bad:?}");
        }
    }
}
