//! Core's ZeroMQ notifications: blocks, transactions, and the memory pool's changes in sequence, for who subscribes.
//!
//! A message has three parts: its topic, its body, and how many messages of that topic went out before it (four
//! bytes, little-endian). Hashes are in the order in which people read them. Each subscriber has a queue of bounded
//! length; one that is slower misses messages and sees that by their numbers.

mod subscribers;
mod zmtp;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use dunlin_chain::View;
use dunlin_mempool::Change;
use tokio::net::TcpListener;

use crate::backend::Stop;
use crate::rpc::unix_now;
use subscribers::Subscribers;

/// How many messages wait for a subscriber when nothing else is said; Core's value.
pub const DEFAULT_HIGH_WATER: usize = 1000;
/// The most that may wait for a subscriber; Core's "no limit" counts as this.
pub const MAX_HIGH_WATER: usize = 1_000_000;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The hash of a new tip.
    HashBlock,
    /// The id of a transaction that entered the memory pool, or of one in a block that joined or left the chain.
    HashTx,
    /// The bytes of a new tip.
    RawBlock,
    /// The bytes of such a transaction.
    RawTx,
    /// A hash with a letter: a block joined (C) or left (D) the chain, a transaction entered (A) or left (R) the
    /// memory pool; the latter two with the pool's change counter (eight bytes, little-endian).
    Sequence,
}

impl Topic {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 5] = [
        Self::HashBlock,
        Self::HashTx,
        Self::RawBlock,
        Self::RawTx,
        Self::Sequence,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::HashBlock => "hashblock",
            Self::HashTx => "hashtx",
            Self::RawBlock => "rawblock",
            Self::RawTx => "rawtx",
            Self::Sequence => "sequence",
        }
    }
}

/// A topic that is published at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notifier {
    /// What.
    pub topic: Topic,
    /// Where subscribers connect.
    pub addr: SocketAddr,
    /// How many messages may wait for each; what stands first for an address counts for all at it.
    pub high_water: usize,
}

/// What to publish, as people write it: `[TOPIC=]ADDR[/HIGH-WATER]`. Without a topic all five are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(pub Vec<Notifier>);

/// A text that says neither what nor where to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("takes [TOPIC=]ADDRESS:PORT[/HIGH-WATER] with hashblock, hashtx, rawblock, rawtx or sequence as topic")]
pub struct BadWanted;

impl FromStr for Wanted {
    type Err = BadWanted;

    fn from_str(text: &str) -> Result<Self, BadWanted> {
        let (topics, rest) = match text.split_once('=') {
            None => (Topic::ALL.to_vec(), text),
            Some((name, rest)) => {
                let topic = Topic::ALL.into_iter().find(|topic| topic.name() == name);
                (vec![topic.ok_or(BadWanted)?], rest)
            }
        };
        let rest = rest.strip_prefix("tcp://").unwrap_or(rest);
        let (addr, high_water) = match rest.split_once('/') {
            None => (rest, DEFAULT_HIGH_WATER),
            Some((addr, high_water)) => (addr, high_water.parse().map_err(|_| BadWanted)?),
        };
        let addr = addr.parse().map_err(|_| BadWanted)?;
        let notifier = |topic| Notifier {
            topic,
            addr,
            high_water,
        };
        Ok(Self(topics.into_iter().map(notifier).collect()))
    }
}

/// What stands behind one notifier.
struct Channel {
    notifier: Notifier,
    subscribers: Arc<Subscribers>,
    /// Messages that went out.
    sent: u32,
}

/// Tells subscribers what happens.
pub struct Publisher {
    view: View,
    channels: Mutex<Vec<Channel>>,
    sockets: Vec<(SocketAddr, Arc<Subscribers>)>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.notifiers()).finish()
    }
}

impl Publisher {
    /// A publisher of `notifiers`, about the chain of `view`.
    pub fn new(view: View, mut notifiers: Vec<Notifier>) -> Self {
        let mut sockets: BTreeMap<SocketAddr, Arc<Subscribers>> = BTreeMap::new();
        notifiers.sort();
        let channels = notifiers.into_iter().map(|notifier| {
            let bound = match notifier.high_water {
                0 => MAX_HIGH_WATER,
                bound => bound.min(MAX_HIGH_WATER),
            };
            let subscribers = sockets
                .entry(notifier.addr)
                .or_insert_with(|| Arc::new(Subscribers::new(bound)));
            Channel {
                notifier,
                subscribers: Arc::clone(subscribers),
                sent: 0,
            }
        });
        Self {
            view,
            channels: Mutex::new(channels.collect()),
            sockets: sockets.into_iter().collect(),
        }
    }

    /// What is published where, in the order of the topics' names.
    pub fn notifiers(&self) -> Vec<Notifier> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().map(|channel| channel.notifier).collect()
    }

    /// Where subscribers connect.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(|(addr, _)| *addr)
    }

    /// Serves subscribers at `listeners`, one for each of [`Publisher::addresses`] in order, until `stop` is pulled.
    pub async fn serve(&self, listeners: Vec<TcpListener>, stop: Stop) {
        let served = self
            .sockets
            .iter()
            .zip(listeners)
            .map(|((_, subscribers), listener)| Arc::clone(subscribers).serve(listener, stop.clone()));
        futures::future::join_all(served).await;
    }

    /// Tells a change of chain and memory pool. It waits for nobody.
    pub fn publish(&self, change: &Change<'_>) {
        match change {
            Change::Entered { tx, sequence } => {
                let txid = tx.compute_txid();
                self.send(Topic::HashTx, || reversed(&txid));
                self.send(Topic::RawTx, || serialize(&***tx));
                self.send(Topic::Sequence, || labelled(&txid, b'A', Some(*sequence)));
            }
            Change::Left { txid, sequence } => {
                self.send(Topic::Sequence, || labelled(*txid, b'R', Some(*sequence)));
            }
            Change::Connected(block) | Change::Disconnected(block) => {
                for txid in &block.txids {
                    self.send(Topic::HashTx, || reversed(txid));
                }
                if self.publishes(Topic::RawTx) {
                    for tx in &block.block().txdata {
                        self.send(Topic::RawTx, || serialize(tx));
                    }
                }
                let label = if matches!(change, Change::Connected(_)) {
                    b'C'
                } else {
                    b'D'
                };
                self.send(Topic::Sequence, || labelled(&block.hash, label, None));
            }
            Change::Tip(block) => {
                if !self.view.is_initial_download(unix_now()) {
                    self.send(Topic::HashBlock, || reversed(&block.hash));
                    self.send(Topic::RawBlock, || block.raw.to_vec());
                }
            }
        }
    }

    fn publishes(&self, topic: Topic) -> bool {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().any(|channel| channel.notifier.topic == topic)
    }

    fn send(&self, topic: Topic, body: impl Fn() -> Vec<u8>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for channel in channels.iter_mut().filter(|channel| channel.notifier.topic == topic) {
            let number = channel.sent.to_le_bytes();
            channel.sent = channel.sent.wrapping_add(1);
            let name = topic.name();
            let message = || zmtp::message(&[name.as_bytes(), &body(), &number]);
            channel.subscribers.send(name, message);
        }
    }
}

/// A hash as people read it.
fn reversed(hash: &impl Hash<Bytes = [u8; 32]>) -> Vec<u8> {
    let mut bytes = hash.to_byte_array();
    bytes.reverse();
    bytes.into()
}

fn labelled(hash: &impl Hash<Bytes = [u8; 32]>, label: u8, sequence: Option<u64>) -> Vec<u8> {
    let mut body = reversed(hash);
    body.push(label);
    body.extend(sequence.map(u64::to_le_bytes).into_iter().flatten());
    body
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_to_publish_is_read() {
        let all: Wanted = "127.0.0.1:28332".parse().unwrap();
        assert_eq!(all.0.len(), 5);
        let one: Wanted = "rawtx=tcp://127.0.0.1:1/7".parse().unwrap();
        let notifier = Notifier {
            topic: Topic::RawTx,
            addr: "127.0.0.1:1".parse().unwrap(),
            high_water: 7,
        };
        assert_eq!(one.0, [notifier]);
        for bad in ["", "127.0.0.1", "tx=127.0.0.1:1", "127.0.0.1:1/x", "ipc://x"] {
            assert_eq!(bad.parse::<Wanted>(), Err(BadWanted), "{bad}");
        }
    }
}
