//! What all managers share: the peers, the outbox, the chain's view, the mempool, randomness.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use dunlin_chain::View;
use dunlin_mempool::Pool;
use dunlin_peer::{AddressBook, CloseReason, LinkId, NetAddr, NetClass, Now, Outbox, Output};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::bans::BanList;
use crate::config::Config;
use crate::filters;
use crate::interface::{Event, Job};
use crate::known::Salt;
use crate::peer::{Kind, Peer};
use crate::wire::{Message, services};

/// A peer that caused this many unfinished jobs is not read from.
const PAUSE_AT: usize = 64;
/// It is read from again when this many are left.
const RESUME_AT: usize = 16;

/// The state that every manager may use.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) view: View,
    pub(crate) pool: Arc<RwLock<Pool>>,
    pub(crate) book: AddressBook,
    pub(crate) bans: BanList,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) salt: Salt,
    pub(crate) out: Outbox<Message, Event, Job, NetAddr>,
    pub(crate) peers: BTreeMap<LinkId, Peer>,
    pub(crate) now: Now,
}

impl Node {
    /// The mempool for reading; held only for look-ups.
    pub(crate) fn pool(&self) -> RwLockReadGuard<'_, Pool> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What we offer now.
    pub(crate) fn services(&self) -> u64 {
        offered(&self.config, &self.view)
    }

    /// Whether we can dial an address.
    pub(crate) fn reaches(&self, addr: &NetAddr) -> bool {
        self.config.reachable.contains(addr.host.class())
    }

    /// The address as we know it: one in the range of CJDNS is one of that network when we are on it.
    pub(crate) fn known_as(&self, addr: NetAddr) -> NetAddr {
        match self.config.reachable.contains(NetClass::Cjdns) {
            true => addr.on_cjdns(),
            false => addr,
        }
    }

    /// Whether a peer may send us transactions.
    pub(crate) fn takes_txs(&self, peer: &Peer) -> bool {
        peer.relays_txs() && !self.config.blocks_only
    }

    /// Whether the chain is still far behind the present.
    pub(crate) fn is_initial_download(&self) -> bool {
        self.view.is_initial_download(self.now.unix_secs())
    }

    /// Links whose handshake is complete, in order of age.
    pub(crate) fn ready_links(&self) -> Vec<LinkId> {
        self.peers
            .values()
            .filter(|peer| peer.is_ready())
            .map(|peer| peer.link)
            .collect()
    }

    /// A peer whose handshake is complete.
    pub(crate) fn ready(&mut self, link: LinkId) -> Option<&mut Peer> {
        self.peers.get_mut(&link).filter(|peer| peer.is_ready())
    }

    /// Queues a message, unless the link is being closed.
    pub(crate) fn send(&mut self, link: LinkId, msg: Message) {
        if let Some(peer) = self.peers.get_mut(&link)
            && !peer.closing
        {
            peer.last_send = self.now;
            self.out.send(link, msg);
        }
    }

    /// Closes a link; a second close changes nothing.
    pub(crate) fn close(&mut self, link: LinkId, reason: CloseReason) {
        if let Some(peer) = self.peers.get_mut(&link)
            && !peer.closing
        {
            peer.closing = true;
            self.out.close(link, reason);
        }
    }

    /// The peer broke the protocol or sent something invalid: its link is closed and its address refused for a day.
    ///
    /// Peers on this machine share one address, so that is not refused; nor is one that a person asked for, which is
    /// only dialled again later.
    pub(crate) fn misbehaving(&mut self, link: LinkId, reason: impl Into<String>) {
        let Some(peer) = self.peers.get(&link) else { return };
        if peer.closing {
            return;
        }
        let (addr, reason) = (peer.addr, reason.into());
        let discouraged = peer.kind != Kind::Manual && !addr.host.is_loopback();
        if discouraged {
            self.bans.discourage(addr.host, self.now.unix_secs(), &reason);
        }
        self.out.event(Event::Misbehaved {
            link,
            addr,
            reason: reason.clone(),
            discouraged,
        });
        self.close(link, CloseReason::fault(reason));
        if discouraged {
            self.close_refused();
        }
    }

    /// Closes every link to an address that is refused.
    pub(crate) fn close_refused(&mut self) {
        let unix = self.now.unix_secs();
        let refused = |peer: &&Peer| peer.kind != Kind::Manual && self.bans.refuses(&peer.addr.host, unix);
        let links: Vec<LinkId> = self.peers.values().filter(refused).map(|peer| peer.link).collect();
        for link in links {
            self.close(link, CloseReason::fault("the address is banned"));
        }
    }

    /// Hands out a job that this peer caused; too many at once stop us from reading its messages.
    pub(crate) fn peer_job(&mut self, link: LinkId, job: Job) {
        self.peer_jobs(link, 1, job);
    }

    /// [`Node::peer_job`] for a job that counts as several.
    pub(crate) fn peer_jobs(&mut self, link: LinkId, weight: usize, job: Job) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.jobs += weight;
            if peer.jobs >= PAUSE_AT && !peer.paused {
                peer.paused = true;
                self.out.push(Output::PauseRead { link });
            }
        }
        self.out.job(job);
    }

    /// A job that this peer caused is done.
    pub(crate) fn peer_job_done(&mut self, link: LinkId) {
        self.peer_jobs_done(link, 1);
    }

    /// A job that counted as several is done.
    pub(crate) fn peer_jobs_done(&mut self, link: LinkId, weight: usize) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.jobs = peer.jobs.saturating_sub(weight);
            if peer.jobs <= RESUME_AT && peer.paused {
                peer.paused = false;
                self.out.push(Output::ResumeRead { link });
            }
        }
    }

    /// The time to the next event of a Poisson process with this mean interval.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        let uniform: f64 = self.rng.random();
        // 1 - uniform lies in (0, 1], so the logarithm is finite.
        mean.mul_f64(-(1.0 - uniform).ln())
    }
}

/// What a peer with this configuration offers now: not every block while those below a snapshot are missing, filters
/// once there are all.
pub fn offered(config: &Config, view: &View) -> u64 {
    let mut offered = config.services;
    if view.snapshot().is_some() {
        offered &= !services::NETWORK;
    }
    if filters::are_ready(config.block_filters.as_ref()) {
        offered |= services::COMPACT_FILTERS;
    }
    offered
}
