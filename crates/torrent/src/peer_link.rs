//! One link to one peer of a torrent: what each side has said, what is asked for, how fast it flows.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_peer::{Link, Now};

use crate::rates::Meter;
use crate::shared::Shared;
use crate::torrent::pex::Exchange;
use crate::wire::{BLOCK_LEN, Block, ExtHandshake, Handshake, Message};
use crate::{Bitfield, PeerId};

/// Requests on their way to a fresh peer: one mebibyte.
const PIPELINE_START: usize = 64;
/// Requests on their way to a peer that proved slow.
const PIPELINE_MIN: usize = 16;
/// Seconds of its rate that a peer is asked for ahead.
const PIPELINE_SECS: u64 = 3;
/// What a peer that does not say `reqq` is thought to keep queued.
const DEFAULT_REQQ: usize = 250;
/// Blocks that may still come after we withdrew their requests, remembered so that they are no offence.
const LATE_MAX: usize = 1024;
/// `have` messages kept while the number of pieces is unknown.
const EARLY_HAVES: usize = 65_536;

/// What a peer says it has.
#[derive(Clone, Debug)]
pub(crate) enum Claims {
    /// The info dictionary is not here, so the words cannot be understood yet.
    Early {
        bitfield: Option<Bytes>,
        all: bool,
        haves: BTreeSet<u32>,
    },
    /// A set of pieces of the right size.
    Known(Bitfield),
}

impl Claims {
    pub(crate) fn early() -> Self {
        Self::Early {
            bitfield: None,
            all: false,
            haves: BTreeSet::new(),
        }
    }

    /// Notes a `have` that came before the info dictionary.
    pub(crate) fn early_have(&mut self, index: u32) {
        if let Self::Early { haves, .. } = self
            && haves.len() < EARLY_HAVES
        {
            haves.insert(index);
        }
    }

    /// Whether the peer says that it has anything.
    pub(crate) fn are_any(&self) -> bool {
        match self {
            Self::Known(set) => !set.is_none(),
            Self::Early { bitfield, all, haves } => *all || bitfield.is_some() || !haves.is_empty(),
        }
    }

    /// Understands early words now that there are known to be `pieces` pieces; `None` when they make no sense.
    pub(crate) fn understood(&self, pieces: u32) -> Option<Bitfield> {
        match self {
            Self::Known(set) => Some(set.clone()),
            Self::Early { all: true, .. } => Some(Bitfield::full(pieces)),
            Self::Early { bitfield, haves, .. } => {
                let mut set = match bitfield {
                    Some(bytes) => Bitfield::from_wire(bytes, pieces)?,
                    None => Bitfield::new(pieces),
                };
                for &index in haves {
                    if index >= pieces {
                        return None;
                    }
                    set.set(index);
                }
                Some(set)
            }
        }
    }
}

/// A request of ours on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) block: Block,
    pub(crate) at: Now,
}

/// How many requests to keep on their way: grows with every block while the rate still rises, then follows the rate.
#[derive(Debug)]
pub(crate) struct Pipeline {
    target: usize,
    max: usize,
    rising: bool,
    last_rate: u64,
}

impl Pipeline {
    fn new(max: usize) -> Self {
        let mut pipeline = Self {
            target: PIPELINE_START,
            max,
            rising: true,
            last_rate: 0,
        };
        pipeline.told_reqq(None, max);
        pipeline
    }

    /// The peer said (or did not say) how many requests it keeps.
    pub(crate) fn told_reqq(&mut self, reqq: Option<u32>, max: usize) {
        let theirs = reqq.map_or(DEFAULT_REQQ, |reqq| usize::try_from(reqq).unwrap_or(usize::MAX).max(1));
        self.max = max.min(theirs).max(1);
        self.target = self.target.min(self.max);
    }

    pub(crate) fn target(&self) -> usize {
        self.target
    }

    pub(crate) fn block_came(&mut self) {
        if self.rising {
            self.target = (self.target + 1).min(self.max);
        }
    }

    /// Called about once a second while blocks flow.
    pub(crate) fn measured(&mut self, rate: u64) {
        if self.rising && self.last_rate > 0 && rate < self.last_rate.saturating_add(self.last_rate / 10) {
            self.rising = false;
        }
        self.last_rate = rate;
        if !self.rising {
            let ahead = rate.saturating_mul(PIPELINE_SECS) / u64::from(BLOCK_LEN);
            let wanted = usize::try_from(ahead).unwrap_or(usize::MAX);
            self.target = wanted.clamp(PIPELINE_MIN.min(self.max), self.max);
        }
    }

    /// The peer let us down: one block at a time until it delivers again.
    pub(crate) fn collapse(&mut self) {
        self.target = 1;
        self.rising = true;
        self.last_rate = 0;
    }
}

/// The state of one link.
#[derive(Debug)]
pub(crate) struct PeerLink {
    pub(crate) link: Link,
    pub(crate) peer_id: PeerId,
    /// Both sides speak the fast extension (BEP 6).
    pub(crate) fast: bool,
    /// Both sides speak the extension protocol (BEP 10).
    pub(crate) extensions: bool,
    pub(crate) ext: Option<ExtHandshake>,
    /// Both sides speak version 2 of the torrent (BEP 52) on this link.
    pub(crate) v2: bool,
    /// We dialled it encrypted.
    pub(crate) encrypted: bool,
    /// Where the peer listens, when it dialled us and said so.
    pub(crate) listens_at: Option<SocketAddr>,
    pub(crate) pex: Exchange,
    pub(crate) since: Now,
    pub(crate) last_received: Now,
    pub(crate) last_sent: Now,

    pub(crate) claims: Claims,
    /// The peer said what it has, be it nothing.
    pub(crate) claimed: bool,
    /// How the picker counted the peer; `None` while it did not.
    pub(crate) counted_as_seed: Option<bool>,
    /// Pieces that the peer has and we lack.
    pub(crate) wanted: u32,

    pub(crate) am_interested: bool,
    pub(crate) am_choking: bool,
    pub(crate) peer_interested: bool,
    pub(crate) peer_choking: bool,
    /// Pieces that we may ask for while choked (BEP 6).
    pub(crate) allowed_in: BTreeSet<u32>,
    /// Pieces that the peer may ask for while choked (BEP 6).
    pub(crate) allowed_out: BTreeSet<u32>,

    pub(crate) asked: VecDeque<Asked>,
    late: VecDeque<Block>,
    pub(crate) pipeline: Pipeline,
    /// The picker had nothing for the peer at this count of freed blocks.
    pub(crate) dry_at: Option<u64>,
    /// No requests before this: the peer refused some.
    pub(crate) not_before: Now,
    pub(crate) last_block: Now,
    pub(crate) snubbed: bool,
    pub(crate) unasked_blocks: u32,
    pub(crate) reading: bool,

    /// The peer's requests that wait.
    pub(crate) requests: VecDeque<Block>,
    /// Bytes being read for the peer.
    pub(crate) reads_bytes: u64,
    /// Bytes sent since the driver last said that its queue drained.
    pub(crate) sent_bytes: u64,
    pub(crate) stalled_since: Option<Now>,
    pub(crate) metadata_served: u32,
    pub(crate) hashes_served: u64,

    pub(crate) down: Meter,
    pub(crate) up: Meter,
    pub(crate) round_down: u64,
    pub(crate) round_up: u64,
}

impl PeerLink {
    pub(crate) fn new(now: Now, link: Link, theirs: &Handshake, pipeline: usize) -> Self {
        Self {
            link,
            peer_id: theirs.peer_id,
            fast: theirs.reserved.fast(),
            extensions: theirs.reserved.extension_protocol(),
            ext: None,
            v2: false,
            encrypted: false,
            listens_at: None,
            pex: Exchange::default(),
            since: now,
            last_received: now,
            last_sent: now,
            claims: Claims::early(),
            claimed: false,
            counted_as_seed: None,
            wanted: 0,
            am_interested: false,
            am_choking: true,
            peer_interested: false,
            peer_choking: true,
            allowed_in: BTreeSet::new(),
            allowed_out: BTreeSet::new(),
            asked: VecDeque::new(),
            late: VecDeque::new(),
            pipeline: Pipeline::new(pipeline),
            dry_at: None,
            not_before: Now::default(),
            last_block: now,
            snubbed: false,
            unasked_blocks: 0,
            reading: true,
            requests: VecDeque::new(),
            reads_bytes: 0,
            sent_bytes: 0,
            stalled_since: None,
            metadata_served: 0,
            hashes_served: 0,
            down: Meter::default(),
            up: Meter::default(),
            round_down: 0,
            round_up: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Now, shared: &mut Shared, msg: Message) {
        self.last_sent = now;
        shared.out.send(self.link.id, msg);
    }

    /// The pieces that the peer has; `None` while that cannot be said.
    pub(crate) fn pieces(&self) -> Option<&Bitfield> {
        match &self.claims {
            Claims::Known(set) => Some(set),
            Claims::Early { .. } => None,
        }
    }

    pub(crate) fn has(&self, index: u32) -> bool {
        self.pieces().is_some_and(|pieces| pieces.get(index))
    }

    /// The peer has everything, or says that it wants nothing.
    pub(crate) fn is_seed(&self) -> bool {
        self.pieces().is_some_and(Bitfield::is_full)
            || matches!(&self.claims, Claims::Early { all: true, .. })
            || self.ext.as_ref().is_some_and(|ext| ext.upload_only)
    }

    /// Takes back one request; true when it was on its way.
    pub(crate) fn take_asked(&mut self, block: Block) -> bool {
        // Peers answer in order, so the first is the one almost always.
        match self.asked.iter().position(|asked| asked.block == block) {
            Some(at) => {
                self.asked.remove(at);
                true
            }
            None => false,
        }
    }

    /// Notes that the block of a withdrawn request may still come.
    pub(crate) fn expect_late(&mut self, block: Block) {
        if self.late.len() >= LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back(block);
    }

    /// Whether a block that is not asked for is the answer to a withdrawn request.
    pub(crate) fn take_late(&mut self, block: Block) -> bool {
        match self.late.iter().position(|late| *late == block) {
            Some(at) => {
                self.late.remove(at);
                true
            }
            None => false,
        }
    }

    /// The peer's program, as it says in the extension handshake or by its id.
    pub(crate) fn client(&self) -> String {
        match self.ext.as_ref().and_then(|ext| ext.client.as_deref()) {
            Some(client) if !client.is_empty() => client.to_owned(),
            _ => self.peer_id.client(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_pipeline_grows_while_the_rate_does_and_then_follows_it() {
        let mut pipeline = Pipeline::new(512);
        pipeline.told_reqq(Some(2_000), 512);
        for _ in 0..1_000 {
            pipeline.block_came();
        }
        assert_eq!(pipeline.target(), 512);
        pipeline.measured(1_000_000);
        pipeline.measured(1_000_000);
        assert_eq!(pipeline.target(), 183, "three seconds of a megabyte each");
        pipeline.measured(10);
        assert_eq!(pipeline.target(), PIPELINE_MIN);
        pipeline.collapse();
        assert_eq!(pipeline.target(), 1);
        pipeline.block_came();
        assert_eq!(pipeline.target(), 2);
    }

    #[test]
    fn the_pipeline_keeps_to_what_the_peer_queues() {
        let mut pipeline = Pipeline::new(512);
        pipeline.told_reqq(Some(10), 512);
        assert_eq!(pipeline.target(), 10);
        pipeline.told_reqq(Some(0), 512);
        assert_eq!(pipeline.target(), 1);
    }

    #[test]
    fn early_words_are_understood_later_or_found_senseless() {
        let mut claims = Claims::early();
        claims.early_have(3);
        assert_eq!(claims.understood(5).unwrap().iter().collect::<Vec<_>>(), [3]);
        assert!(claims.understood(3).is_none());
        let all = Claims::Early {
            bitfield: None,
            all: true,
            haves: BTreeSet::new(),
        };
        assert!(all.understood(9).unwrap().is_full());
        let junk = Claims::Early {
            bitfield: Some(Bytes::from_static(&[0xff, 0xff])),
            all: false,
            haves: BTreeSet::new(),
        };
        assert!(junk.understood(9).is_none());
    }
}
