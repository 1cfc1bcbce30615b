//! RC4 over the two directions of a link.

use std::fmt;

use dunlin_peer::SendBuf;
use rc4::{KeyInit, Rc4, StreamCipher};

use super::exchange::KEY;
use super::hash;
use crate::InfoHash;

/// The first bytes of the key stream are not used.
const DROP: usize = 1024;

/// One direction's key stream.
pub(super) struct Cipher(Rc4);

impl Cipher {
    /// The stream with which the dialler encrypts.
    pub(super) fn of_dialler(shared: &[u8; KEY], info_hash: InfoHash) -> Self {
        Self::new(b"keyA", shared, info_hash)
    }

    /// The stream with which the listener encrypts.
    pub(super) fn of_listener(shared: &[u8; KEY], info_hash: InfoHash) -> Self {
        Self::new(b"keyB", shared, info_hash)
    }

    fn new(name: &[u8; 4], shared: &[u8; KEY], info_hash: InfoHash) -> Self {
        let key = hash(&[name, shared, &info_hash.0]);
        let mut cipher = Self(Rc4::new_from_slice(&key).expect("RC4 takes keys of 1 to 256 bytes"));
        cipher.apply(&mut [0; DROP]);
        cipher
    }

    /// Encrypts or decrypts in place.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

/// How the two directions are encrypted once the handshake is over.
#[derive(Debug)]
pub(in crate::wire) struct Streams {
    inbound: Inbound,
    outbound: Option<Cipher>,
    /// Bytes at the front of the link's input that are decrypted already.
    clear: usize,
    /// What the handshake left to be sent.
    output: Vec<u8>,
}

#[derive(Debug)]
enum Inbound {
    Plain,
    Rc4(Cipher),
    /// So many bytes yet; then plain.
    Rc4For(Cipher, usize),
}

impl Streams {
    /// RC4 in both directions.
    pub(super) fn rc4(inbound: Cipher, outbound: Cipher) -> Self {
        Self {
            inbound: Inbound::Rc4(inbound),
            outbound: Some(outbound),
            clear: 0,
            output: Vec::new(),
        }
    }

    /// Nothing is encrypted but the next `initial` bytes that come in.
    pub(super) fn plain_after(inbound: Cipher, initial: usize) -> Self {
        Self {
            inbound: Inbound::Rc4For(inbound, initial),
            outbound: None,
            clear: 0,
            output: Vec::new(),
        }
    }

    /// Takes over from the handshake: its last words, and in plain what waited for it.
    pub(in crate::wire) fn begin(&mut self, output: Vec<u8>, mut held: Vec<u8>) {
        self.encrypt(&mut held);
        self.output = output;
        self.output.extend(held);
    }

    /// Appends what the handshake left to be sent.
    pub(in crate::wire) fn flush(&mut self, out: &mut SendBuf) {
        if !self.output.is_empty() {
            out.put_bytes(std::mem::take(&mut self.output).into());
        }
    }

    /// Decrypts what came in since the last call. `input` begins where the last call's input was left.
    pub(in crate::wire) fn decrypt(&mut self, input: &mut [u8]) {
        let fresh = input.get_mut(self.clear..).unwrap_or_default();
        match &mut self.inbound {
            Inbound::Plain => {}
            Inbound::Rc4(cipher) => cipher.apply(fresh),
            Inbound::Rc4For(cipher, left) => {
                let now = fresh.len().min(*left);
                cipher.apply(&mut fresh[..now]);
                *left -= now;
                if *left == 0 {
                    self.inbound = Inbound::Plain;
                }
            }
        }
    }

    /// All that is left of the input is decrypted, and is so many bytes.
    pub(in crate::wire) fn left(&mut self, clear: usize) {
        self.clear = clear;
    }

    /// Encrypts what goes out; true when there is something to do about it at all.
    pub(in crate::wire) fn encrypts(&self) -> bool {
        self.outbound.is_some()
    }

    /// Encrypts the next bytes that go out.
    pub(in crate::wire) fn encrypt(&mut self, bytes: &mut [u8]) {
        if let Some(cipher) = &mut self.outbound {
            cipher.apply(bytes);
        }
    }
}
