//! What the program asks.

use dunlin_peer::{CloseReason, LinkId, NetClasses};

use super::Relay;
use crate::bans::Ban;
use crate::interface::{Command, Event, Job, PeerInfo, TxSource, Which};
use crate::node::Node;
use crate::peer::Peer;
use crate::wire::services;
use crate::{outbound, ping};

impl Relay {
    pub(super) fn command(&mut self, command: Command) {
        let node = &mut self.node;
        let unix = node.now.unix_secs();
        match command {
            Command::AddPeer(addr, kind) => self.connections.add(node, addr, kind),
            Command::Seed(addrs) => {
                for addr in addrs {
                    node.book.add(
                        addr,
                        services::NETWORK | services::WITNESS,
                        unix.saturating_sub(3600),
                        addr.host,
                    );
                }
            }
            Command::Disconnect(which) => {
                let hit = |peer: &&Peer| match which {
                    Which::Link(link) => peer.link == link,
                    Which::Addr(addr) => peer.addr == addr,
                };
                let links: Vec<LinkId> = node.peers.values().filter(hit).map(|peer| peer.link).collect();
                for link in links {
                    node.close(link, CloseReason::benign("asked by the operator"));
                }
            }
            Command::Ban {
                subnet,
                seconds,
                reason,
            } => {
                let until = unix.saturating_add(seconds);
                node.bans.add(Ban {
                    subnet,
                    created: unix,
                    until,
                    discouraged: false,
                    reason,
                });
                let hit = |peer: &&Peer| subnet.contains(&peer.addr.host);
                let links: Vec<LinkId> = node.peers.values().filter(hit).map(|peer| peer.link).collect();
                for link in links {
                    node.close(link, CloseReason::fault("banned by the operator"));
                }
            }
            Command::Unban(subnet) => {
                node.bans.remove(&subnet);
            }
            Command::Bans { ticket } => {
                let bans = node.bans.list(unix);
                node.out.event(Event::Bans { ticket, bans });
            }
            Command::SubmitBlock { ticket, block } => {
                self.blocks.submitted(block.hash);
                node.out.job(Job::AcceptBlock {
                    from: None,
                    ticket: Some(ticket),
                    block,
                    spent: None,
                });
            }
            Command::CatchUp => node.out.job(Job::CatchUp),
            Command::FetchBlock { ticket, link, hash } => {
                let result = self.blocks.ask_by_hand(node, link, hash);
                node.out.event(Event::BlockAsked { ticket, result });
            }
            Command::Operate { ticket, op } => node.out.job(Job::Operate { ticket, op }),
            Command::SubmitTx { ticket, tx } if node.config.private_broadcast != NetClasses::default() => {
                let ticket = Some(ticket);
                node.out.job(Job::TestTx { ticket, tx });
            }
            Command::SubmitTx { ticket, tx } => {
                node.out.job(Job::AcceptTx {
                    source: TxSource::Own(ticket),
                    tx,
                });
            }
            Command::Peers { ticket } => {
                let peers = node.peers.values().map(|peer| info(node, peer)).collect();
                node.out.event(Event::Peers { ticket, peers });
            }
            Command::Ping => {
                for link in node.ready_links() {
                    ping::now(node, link);
                }
            }
            Command::Added { ticket } => {
                let peers = self.connections.added(node);
                node.out.event(Event::Added { ticket, peers });
            }
            Command::OwnAddresses { ticket } => {
                let addrs = node.config.external.clone();
                node.out.event(Event::OwnAddresses { ticket, addrs });
            }
            Command::Addresses { ticket } => {
                let book = Box::new(node.book.clone());
                let anchors = outbound::anchors(node);
                node.out.event(Event::Addresses { ticket, book, anchors });
            }
            Command::OnionBind(bind) => node.config.onion_bind = Some(bind),
            Command::LocalAddress(addr) => {
                if !node.config.external.contains(&addr) {
                    node.config.external.push(addr);
                }
            }
        }
    }
}

fn info(node: &Node, peer: &Peer) -> PeerInfo {
    let best = peer.headers.best;
    let common = best.and_then(|best| node.view.fork_point(&best.hash));
    PeerInfo {
        link: peer.link,
        addr: peer.addr,
        bind: peer.bind,
        network: peer.network(),
        system: node.book.system(&peer.addr.host),
        direction: peer.direction(),
        kind: peer.kind,
        ready: peer.is_ready(),
        transport: peer.transport,
        services: peer.services,
        version: peer.peer_version,
        user_agent: peer.user_agent.clone(),
        start_height: peer.start_height,
        synced_headers: best.map_or(-1, |best| i64::from(best.height)),
        synced_blocks: common.map_or(-1, |entry| i64::from(entry.height)),
        ping: peer.ping.last,
        min_ping: peer.ping.min,
        ping_wait: peer.ping.wait(node.now),
        connected_at: peer.connected_at,
        last_recv: peer.last_recv,
        last_send: peer.last_send,
        last_tx: peer.tx.last,
        last_block: peer.blocks.last_new,
        inflight: peer.blocks.in_flight.values().map(|asked| asked.height).collect(),
        relay_tx: peer.tx.wanted,
        fee_filter: peer.tx.fee_filter,
        time_offset: peer.time_offset,
        addr_relay: peer.addrs.enabled,
        addr_processed: peer.addrs.processed,
        addr_rate_limited: peer.addrs.rate_limited,
        compact_to: peer.compact.announces,
        compact_from: peer.compact.wants,
        wtxid_relay: peer.wtxid_relay,
    }
}
