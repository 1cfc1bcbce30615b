//! Message stream encryption (MSE/PE): a link that looks like noise to whoever sits between.
//!
//! The dialler and the listener agree on a secret (Diffie-Hellman over 768 bits), the dialler proves by it that it
//! knows a torrent of the listener's, and both settle on RC4 for the rest of the link or on no cipher after the
//! handshake. It hides the protocol from those who look for it; it does not tell who the other side is.
//!
//! <https://wiki.vuze.com/w/Message_Stream_Encryption>

mod cipher;
mod exchange;
mod greeting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::{Digest, Sha1};

use crate::InfoHash;
pub(super) use cipher::Streams;
pub(super) use greeting::Greeting;

/// Which links are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// None; who wants encryption is refused.
    #[default]
    Off,
    /// Dial encrypted, and once more in plain when nothing came of it; accept both. After the handshake nothing is
    /// encrypted unless the peer insists.
    Prefer,
    /// All of them, with RC4 from end to end; plain peers are neither dialled nor accepted.
    Require,
}

/// The torrents that an encrypted link may be about, shared between a session and the codecs of its links.
#[derive(Clone, Debug, Default)]
pub struct TorrentKeys(Arc<Mutex<BTreeMap<[u8; 20], InfoHash>>>);

impl TorrentKeys {
    /// Accepts encrypted links for a torrent.
    pub fn insert(&self, info_hash: InfoHash) {
        self.lock().insert(hash(&[b"req2", &info_hash.0]), info_hash);
    }

    /// Accepts no more of them.
    pub fn remove(&self, info_hash: InfoHash) {
        self.lock().remove(&hash(&[b"req2", &info_hash.0]));
    }

    /// The torrent whose `HASH('req2', SKEY)` this is.
    fn find(&self, digest: &[u8; 20]) -> Option<InfoHash> {
        self.lock().get(digest).copied()
    }

    /// The map is valid after each of its operations, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 20], InfoHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a codec needs to speak encrypted.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) encryption: Encryption,
    pub(super) keys: TorrentKeys,
    /// Secret, random, never used for another link.
    pub(super) seed: [u8; 32],
}

fn hash(parts: &[&[u8]]) -> [u8; 20] {
    let mut sha1 = Sha1::new();
    for part in parts {
        sha1.update(part);
    }
    sha1.finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
