//! One hash over a whole run.

use std::fmt;

use dunlin_peer::Now;
use sha2::{Digest, Sha256};

/// The hash of everything that happened so far: equal traces mean equal runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace(pub [u8; 32]);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a record says.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Start = 1,
    Stop,
    Command,
    Dial,
    DialFailed,
    Connected,
    Sent,
    Delivered,
    Writable,
    Disconnected,
    Timeout,
    Job,
    Done,
    Event,
    Datagram,
}

/// Takes in a record of `time, kind, node, two numbers` for each happening, and the bytes of each message.
#[derive(Default)]
pub(crate) struct Recorder {
    hash: Sha256,
}

impl Recorder {
    pub(crate) fn record(&mut self, at: Now, kind: Kind, node: usize, one: u64, two: u64) {
        let mut record = [0; 33];
        record[0] = kind as u8;
        record[1..9].copy_from_slice(&at.as_micros().to_be_bytes());
        record[9..17].copy_from_slice(&(node as u64).to_be_bytes());
        record[17..25].copy_from_slice(&one.to_be_bytes());
        record[25..33].copy_from_slice(&two.to_be_bytes());
        self.hash.update(record);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub(crate) fn trace(&self) -> Trace {
        Trace(self.hash.clone().finalize().into())
    }
}
