//! Who sent the bad block (smart ban): a piece with a wrong hash leaves the hashes of its blocks and their senders
//! behind; once the piece is right, each block that was different has its liar.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::PeerId;

/// Failed pieces that are remembered at once.
const MAX_PIECES: usize = 256;
/// Failed tries of one piece that are remembered.
const MAX_TRIES: usize = 16;

/// A peer that sent blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    pub(crate) addr: SocketAddr,
    pub(crate) id: PeerId,
}

/// One failed try: for each block its hash and sender.
type Try = Vec<([u8; 20], Option<Sender>)>;

#[derive(Debug, Default)]
struct Case {
    tries: Vec<Try>,
    /// The blocks of the try that is being verified.
    retry: Vec<Bytes>,
}

/// The open cases.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    cases: BTreeMap<u32, Case>,
}

impl Blame {
    /// Keeps the blocks of a new try until its verdict, if the piece failed before.
    pub(crate) fn retry(&mut self, piece: u32, blocks: &[Bytes]) {
        if let Some(case) = self.cases.get_mut(&piece) {
            case.retry = blocks.to_vec();
        }
    }

    /// A piece failed. Returns the liar when one peer sent all of it.
    pub(crate) fn failed(&mut self, piece: u32, hashes: &[[u8; 20]], from: &[Option<Sender>]) -> Option<Sender> {
        if self.cases.len() < MAX_PIECES || self.cases.contains_key(&piece) {
            let case = self.cases.entry(piece).or_default();
            case.retry.clear();
            if case.tries.len() < MAX_TRIES {
                case.tries
                    .push(hashes.iter().copied().zip(from.iter().copied()).collect());
            }
        }
        let first = from.first().copied().flatten()?;
        from.iter().all(|sender| *sender == Some(first)).then_some(first)
    }

    /// A piece is right now. Returns those who sent blocks that differ from the right ones.
    pub(crate) fn cleared(&mut self, piece: u32) -> Vec<Sender> {
        let Some(case) = self.cases.remove(&piece) else {
            return Vec::new();
        };
        let right: Vec<[u8; 20]> = case.retry.iter().map(|block| Sha1::digest(block).into()).collect();
        let mut liars = Vec::new();
        for one in &case.tries {
            for ((hash, sender), right) in one.iter().zip(&right) {
                if let Some(sender) = sender
                    && hash != right
                    && !liars.contains(sender)
                {
                    liars.push(*sender);
                }
            }
        }
        liars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(last: u8) -> Option<Sender> {
        Some(Sender {
            addr: SocketAddr::from(([10, 0, 0, last], 1)),
            id: PeerId([last; 20]),
        })
    }

    fn hash(bytes: &[u8]) -> [u8; 20] {
        Sha1::digest(bytes).into()
    }

    #[test]
    fn one_sender_of_a_bad_piece_is_the_liar_at_once() {
        let mut blame = Blame::default();
        let liar = blame.failed(0, &[hash(b"x"), hash(b"y")], &[sender(1), sender(1)]);
        assert_eq!(liar, sender(1));
    }

    #[test]
    fn among_several_the_right_piece_tells() {
        let mut blame = Blame::default();
        let hashes = [hash(b"good"), hash(b"bad")];
        assert_eq!(blame.failed(0, &hashes, &[sender(1), sender(2)]), None);
        blame.retry(0, &[Bytes::from_static(b"good"), Bytes::from_static(b"right")]);
        assert_eq!(blame.cleared(0), [sender(2).unwrap_or_else(|| unreachable!())]);
        assert!(blame.cleared(0).is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut blame = Blame::default();
        for piece in 0..10_000 {
            blame.failed(piece, &[hash(b"x")], &[sender(1)]);
        }
        assert_eq!(blame.cases.len(), MAX_PIECES);
    }
}
