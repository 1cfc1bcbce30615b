//! The session's side of the DHT: keeps it supplied with nodes to begin with, saves it, carries its words.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;

use crate::InfoHash;
use crate::command::{DhtConfig, Job};
use crate::dht::{self, Announce, Dht, Saved};
use crate::shared::Shared;

/// Below this many nodes the well-known ones are asked for their addresses again.
const FEW_NODES: usize = 8;
/// Time between two such questions.
const RESOLVE: Duration = Duration::from_secs(5 * 60);
/// Time between two saves.
const SAVE: Duration = Duration::from_secs(10 * 60);

/// A node of the DHT in a session.
#[derive(Debug)]
pub(crate) struct Discovery {
    dht: Dht,
    routers: Vec<String>,
    resolving: bool,
    next_resolve: Now,
    saving: bool,
    next_save: Now,
}

impl Discovery {
    pub(crate) fn new(config: &DhtConfig, now: Now, rng: &mut impl Rng) -> Self {
        let node = dht::Config {
            read_only: config.read_only,
            ids: config.saved.ids,
        };
        let mut dht = Dht::new(&node, rng.random(), now);
        dht.meet(now, &config.saved.nodes);
        Self {
            dht,
            routers: config.routers.clone(),
            resolving: false,
            next_resolve: now,
            saving: false,
            next_save: now + SAVE,
        }
    }

    pub(crate) fn receive(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        self.dht.receive(now, from, bytes);
    }

    /// Learns where nodes may be.
    pub(crate) fn meet(&mut self, now: Now, addrs: &[SocketAddr]) {
        self.dht.meet(now, addrs);
    }

    /// The well-known nodes' addresses.
    pub(crate) fn resolved(&mut self, now: Now, addrs: &[SocketAddr]) {
        self.resolving = false;
        self.dht.meet(now, addrs);
    }

    pub(crate) fn saved(&mut self) {
        self.saving = false;
    }

    /// Looks for a torrent's peers and tells of us, where we can be reached.
    pub(crate) fn search(&mut self, now: Now, info_hash: InfoHash, port: Option<u16>) {
        self.dht
            .find_peers(now, info_hash, port.map_or(Announce::No, Announce::Port));
    }

    /// Whether a search would have anybody to ask.
    pub(crate) fn is_ready(&self) -> bool {
        self.dht.knows_anybody()
    }

    /// How many nodes are known, of both families.
    pub(crate) fn nodes(&self) -> usize {
        self.dht.node_counts().iter().sum()
    }

    /// What time brings.
    pub(crate) fn timeout(&mut self, now: Now, shared: &mut Shared) {
        self.dht.timeout(now);
        if now >= self.next_resolve && !self.resolving && !shared.stopping && self.nodes() < FEW_NODES {
            self.next_resolve = now + RESOLVE;
            if !self.routers.is_empty() {
                self.resolving = true;
                let names = self.routers.clone();
                shared.out.job(Job::Resolve { names });
            }
        }
        if now >= self.next_save {
            self.save(now, shared);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Now {
        self.dht.poll_timeout()
    }

    /// Has the present state written, if there is a place for it and something to remember.
    pub(crate) fn save(&mut self, now: Now, shared: &mut Shared) {
        self.next_save = now + SAVE;
        let Some(dir) = &shared.config.resume_dir else {
            return;
        };
        let nodes = self.dht.known_nodes();
        if self.saving || nodes.is_empty() {
            return;
        }
        self.saving = true;
        let ids = self.dht.ids().map(Some);
        let job = Job::SaveDht {
            file: dir.join(dht::FILE_NAME),
            saved: Saved { ids, nodes },
        };
        shared.out.job(job);
    }

    /// Nothing is left to be done before the end.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.saving
    }

    /// Sends what is to be sent; gives back the news.
    pub(crate) fn carry_out(&mut self, shared: &mut Shared) -> Vec<dht::Event> {
        while let Some((to, bytes)) = self.dht.poll_datagram() {
            shared.out.datagram(to, bytes.into());
        }
        std::iter::from_fn(|| self.dht.poll_event()).collect()
    }
}
