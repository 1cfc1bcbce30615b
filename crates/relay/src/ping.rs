//! Keep-alive: pings (BIP 31), inactivity and handshake timeouts.

use std::time::Duration;

use dunlin_peer::{CloseReason, LinkId, Now};
use rand::Rng;

use crate::node::Node;
use crate::peer::{Kind, Stage};
use crate::wire::Message;

/// Between a pong and the next ping.
const PING_INTERVAL: Duration = Duration::from_secs(2 * 60);
/// Without a pong, or without any message, for this long the link is closed.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// The handshake must be complete by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// A link that tells a transaction of our own, which knows nothing but a handshake, may last so long.
const PRIVATE_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// The pings of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct PingState {
    /// The nonce of the ping under way.
    nonce: Option<u64>,
    sent: Option<Now>,
    pub(crate) last: Option<Duration>,
    pub(crate) min: Option<Duration>,
}

impl PingState {
    /// How long the ping under way has been unanswered.
    pub(crate) fn wait(&self, now: Now) -> Option<Duration> {
        self.nonce.and(self.sent).map(|sent| now.since(sent))
    }
}

/// When [`tick`] has something to do for this peer.
pub(crate) fn next(peer: &crate::peer::Peer) -> Now {
    if peer.kind == Kind::Private {
        return peer.connected_at + PRIVATE_TIMEOUT;
    }
    if peer.stage != Stage::Ready {
        return peer.connected_at + HANDSHAKE_TIMEOUT;
    }
    let ping = match (peer.ping.nonce, peer.ping.sent) {
        (_, None) => Now::default(),
        (Some(_), Some(sent)) => sent + TIMEOUT,
        (None, Some(sent)) => sent + PING_INTERVAL,
    };
    ping.min(peer.last_recv + TIMEOUT)
}

/// Sends a ping or closes the link when it is time.
pub(crate) fn tick(node: &mut Node, link: LinkId) {
    let now = node.now;
    let Some(peer) = node.peers.get_mut(&link) else { return };
    if peer.closing || next(peer) > now {
        return;
    }
    if peer.stage != Stage::Ready {
        return node.close(link, CloseReason::benign("version handshake timeout"));
    }
    if peer.last_recv + TIMEOUT <= now {
        return node.close(link, CloseReason::benign("receive timeout"));
    }
    if peer.ping.nonce.is_some() {
        return node.close(link, CloseReason::benign("ping timeout"));
    }
    self::now(node, link);
}

/// Sends a ping, unless one is under way.
pub(crate) fn now(node: &mut Node, link: LinkId) {
    let now = node.now;
    let Some(peer) = node.peers.get_mut(&link).filter(|peer| peer.ping.nonce.is_none()) else {
        return;
    };
    // Zero would mean a broken peer's pong.
    let nonce = node.rng.random_range(1..=u64::MAX);
    peer.ping.nonce = Some(nonce);
    peer.ping.sent = Some(now);
    node.send(link, Message::Ping(nonce));
}

/// A pong came. One with another nonce belongs to nothing we wait for, but zero cancels the ping.
pub(crate) fn pong(node: &mut Node, link: LinkId, nonce: u64) {
    let now = node.now;
    let Some(peer) = node.ready(link) else { return };
    let ping = &mut peer.ping;
    if nonce == 0 {
        ping.nonce = None;
    } else if ping.nonce == Some(nonce)
        && let Some(sent) = ping.sent
    {
        ping.nonce = None;
        let round = now.since(sent);
        ping.last = Some(round);
        ping.min = Some(ping.min.map_or(round, |min| min.min(round)));
    }
}
