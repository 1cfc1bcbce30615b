//! The handshake: `version` and `verack`, and what is agreed between them (BIP 155, BIP 339, BIP 434).

use dunlin_peer::{CloseReason, LinkId};

use crate::interface::Event;
use crate::node::Node;
use crate::peer::{Kind, Stage};
use crate::wire::codec::no_addr;
use crate::wire::{FEATURE_VERSION, MIN_PEER_VERSION, Message, PROTOCOL_VERSION, Version, services};
use crate::{private, spent};

/// From this version on peers may relay by wtxid (BIP 339) and understand `sendaddrv2`.
const WTXID_RELAY_VERSION: u32 = 70_016;

/// Tells who we are.
pub(crate) fn send_version(node: &mut Node, link: LinkId) {
    let Some(peer) = node.peers.get(&link) else { return };
    if peer.kind == Kind::Private {
        let version = private::version(peer.nonce);
        return node.send(link, Message::Version(Box::new(version)));
    }
    let version = Version {
        version: PROTOCOL_VERSION,
        services: node.services(),
        timestamp: i64::try_from(node.now.unix_secs()).unwrap_or(i64::MAX),
        receiver: match peer.addr.socket_addr() {
            Some(addr) if peer.addr.host.is_public() => addr,
            _ => no_addr(),
        },
        receiver_services: peer.services,
        nonce: peer.nonce,
        user_agent: node.config.user_agent.clone(),
        start_height: i32::try_from(node.view.tip().height).unwrap_or(i32::MAX),
        relay: node.takes_txs(peer),
    };
    node.send(link, Message::Version(Box::new(version)));
}

/// Takes the peer's version; answers with ours when the peer dialled.
pub(crate) fn on_version(node: &mut Node, link: LinkId, version: &Version) {
    let Some(peer) = node.peers.get_mut(&link) else { return };
    if peer.stage != Stage::AwaitVersion {
        // A second version changes nothing.
        return;
    }
    let inbound = peer.is_inbound();
    if !inbound {
        node.book.set_services(peer.addr, version.services);
    }
    let wanted = services::NETWORK | services::WITNESS;
    if peer.kind == Kind::Feeler {
        let (addr, now) = (peer.addr, node.now);
        node.book.connected(addr, now);
        node.book.set_services(addr, version.services);
        return node.close(link, CloseReason::benign("somebody answers at the address"));
    }
    if peer.is_chosen() && version.services & wanted != wanted {
        return node.close(link, CloseReason::benign("does not serve the chain"));
    }
    if version.version < MIN_PEER_VERSION {
        return node.close(
            link,
            CloseReason::benign(format!("obsolete version {}", version.version)),
        );
    }
    peer.peer_version = version.version;
    peer.version = version.version.min(PROTOCOL_VERSION);
    peer.services = version.services;
    peer.user_agent.clone_from(&version.user_agent);
    peer.start_height = version.start_height;
    peer.tx.wanted = version.relay && peer.relays_txs();
    let ours = i64::try_from(node.now.unix_secs()).unwrap_or(i64::MAX);
    peer.time_offset = version.timestamp.saturating_sub(ours);
    peer.stage = Stage::AwaitVerack;
    let common = peer.version;
    if inbound {
        let dialled = node
            .peers
            .values()
            .find(|other| !other.is_inbound() && other.nonce == version.nonce);
        if let Some((other, addr)) = dialled.map(|other| (other.link, other.addr)) {
            node.book.remove(addr);
            node.close(other, CloseReason::benign("connected to self"));
            return node.close(link, CloseReason::benign("connected to self"));
        }
        send_version(node, link);
    }
    if common >= WTXID_RELAY_VERSION {
        node.send(link, Message::WtxidRelay);
        node.send(link, Message::SendAddrV2);
    }
    if common >= FEATURE_VERSION
        && let Some(feature) = spent::feature(node)
    {
        if let Some(peer) = node.peers.get_mut(&link) {
            peer.offered_spent = true;
        }
        node.send(link, Message::Feature(feature));
    }
    node.send(link, Message::Verack);
}

/// The peer accepted our version: the link is ready. Returns whether it became so now.
pub(crate) fn on_verack(node: &mut Node, link: LinkId) -> bool {
    let now = node.now;
    let Some(peer) = node.peers.get_mut(&link) else {
        return false;
    };
    if peer.stage != Stage::AwaitVerack {
        return false;
    }
    peer.stage = Stage::Ready;
    let (addr, direction, user_agent) = (peer.addr, peer.direction(), peer.user_agent.clone());
    if !peer.is_inbound() {
        node.book.connected(addr, now);
        node.book.set_services(addr, peer.services);
    }
    node.out.event(Event::PeerReady {
        link,
        addr,
        direction,
        user_agent,
    });
    true
}

/// `wtxidrelay`, `sendaddrv2` and `feature` belong between `version` and `verack`.
pub(crate) fn on_feature(node: &mut Node, link: LinkId, msg: &Message) {
    let Some(peer) = node.peers.get_mut(&link) else { return };
    match peer.stage {
        Stage::AwaitVersion => {}
        Stage::AwaitVerack => match msg {
            Message::WtxidRelay => peer.wtxid_relay = peer.version >= WTXID_RELAY_VERSION,
            Message::Feature(feature) if peer.version >= FEATURE_VERSION => {
                peer.offers_spent |= spent::is_offer(feature);
            }
            Message::Feature(_) => {
                let text = "feature from a version that has none";
                node.close(link, CloseReason::fault(text));
            }
            _ => peer.wants_addrv2 = true,
        },
        Stage::Ready => {
            let text = format!("{} after verack", msg.command());
            node.close(link, CloseReason::fault(text));
        }
    }
}
