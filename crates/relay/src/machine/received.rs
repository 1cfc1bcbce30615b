//! What peers say, each message handed to the manager whose subject it is.

use std::sync::Arc;

use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_chain::ParsedBlock;
use dunlin_peer::{CloseReason, LinkId};

use super::{Relay, parse_weight};
use crate::interface::Job;
use crate::peer::{Kind, Stage, Transport};
use crate::tx::{self, TxId};
use crate::wire::Message;
use crate::{compact, filters, handshake, headers, ping, spent};

impl Relay {
    pub(super) fn received(&mut self, link: LinkId, msg: Message) {
        let node = &mut self.node;
        let now = node.now;
        let Some(peer) = node.peers.get_mut(&link) else { return };
        if peer.closing {
            return;
        }
        peer.last_recv = now;
        let stage = peer.stage;
        if peer.transport == Transport::Detecting && !matches!(msg, Message::Encrypt) {
            peer.transport = match msg {
                Message::Encrypted(session_id) => Transport::V2(session_id),
                _ => Transport::V1,
            };
        }
        if peer.kind == Kind::Private {
            return self.connections.private.received(node, link, msg);
        }
        match msg {
            Message::Encrypt | Message::Encrypted(_) => return,
            Message::Version(version) => return handshake::on_version(node, link, &version),
            _ if stage == Stage::AwaitVersion => return,
            Message::Verack => {
                if handshake::on_verack(node, link) {
                    self.peer_ready(link);
                }
                return;
            }
            Message::WtxidRelay | Message::SendAddrV2 | Message::Feature(_) => {
                return handshake::on_feature(node, link, &msg);
            }
            Message::SendHeaders => return peer.announce.prefers_headers = true,
            Message::Malformed { command, reason } => {
                return node.misbehaving(link, format!("malformed {command}: {reason}"));
            }
            _ if stage != Stage::Ready => return,
            _ => {}
        }
        self.received_ready(link, msg);
    }

    /// Messages that mean something only once the handshake is complete.
    fn received_ready(&mut self, link: LinkId, msg: Message) {
        let node = &mut self.node;
        match msg {
            Message::Ping(nonce) => node.send(link, Message::Pong(nonce)),
            Message::Pong(nonce) => ping::pong(node, link, nonce),
            Message::FeeFilter(rate) => {
                if let Some(peer) = node.ready(link)
                    && (0..=21_000_000 * 100_000_000).contains(&rate)
                {
                    peer.tx.fee_filter = rate;
                }
            }
            Message::GetAddr => self.addresses.on_getaddr(node, link),
            Message::Addr(entries) | Message::AddrV2(entries) => self.addresses.on_addr(node, link, entries),
            Message::Inv(items) => self.on_inv(link, items),
            Message::GetData(items) => self.server.on_getdata(node, link, items),
            Message::NotFound(items) => self.on_notfound(link, items),
            Message::GetHeaders(locator) => self.headers.on_getheaders(node, link, &locator),
            Message::GetBlocks(locator) => self.server.on_getblocks(node, link, &locator),
            Message::Headers(headers) => {
                self.headers.on_headers(node, link, headers);
                self.headers.start(node, self.blocks.in_flight());
            }
            Message::SendCmpct { announce, version } => compact::on_sendcmpct(node, link, announce, version),
            Message::CompactBlock(block) => self.compact.on_compact(node, link, block),
            Message::GetBlockTxn(request) => self.server.on_getblocktxn(node, link, request),
            Message::BlockTxn(answer) => {
                if let Some(block) = self.compact.on_blocktxn(node, &mut self.blocks, link, answer) {
                    self.on_block(link, block);
                }
            }
            Message::Tx { .. } if !node.peers.get(&link).is_some_and(|peer| node.takes_txs(peer)) => {
                let reason = "transaction sent in violation of protocol";
                node.close(link, CloseReason::fault(reason));
            }
            Message::Tx { tx, .. } => {
                self.connections.private.returned(&tx.compute_wtxid());
                self.txs.on_tx(node, link, tx);
            }
            Message::RawBlock(raw) => {
                let weight = parse_weight(raw.len());
                node.peer_jobs(link, weight, Job::ParseBlock { link, raw });
            }
            // Serving the whole mempool is for bloom filter peers (BIP 35, BIP 111), which we do not offer.
            Message::Mempool => {}
            Message::GetFilters(ask) => filters::on_request(node, link, ask),
            Message::GetSpent(ask) => spent::on_request(node, link, ask),
            Message::Spent(answer) => {
                self.blocks.on_spent(node, link, answer);
                self.blocks.pump(node, Some(link));
            }
            Message::Encrypt
            | Message::Encrypted(_)
            | Message::Version(_)
            | Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::Filters(_)
            | Message::Feature(_)
            | Message::RawSpent(_)
            | Message::Malformed { .. }
            | Message::Unknown { .. } => {}
        }
    }

    fn peer_ready(&mut self, link: LinkId) {
        let node = &mut self.node;
        self.addresses.ready(node, link);
        compact::ready(node, link);
        ping::tick(node, link);
        let downloading = node.is_initial_download();
        tx::feefilter::tick(node, link, downloading);
        self.headers.start(node, self.blocks.in_flight());
    }

    fn on_inv(&mut self, link: LinkId, items: Vec<Inventory>) {
        let node = &mut self.node;
        let downloading = node.is_initial_download();
        let (mut unknown_block, mut blocks) = (None, false);
        let about_tx = |item: &Inventory| {
            matches!(
                item,
                Inventory::Transaction(_) | Inventory::WitnessTransaction(_) | Inventory::WTx(_)
            )
        };
        let peer = node.peers.get(&link).filter(|peer| peer.is_ready());
        if peer.is_some_and(|peer| !node.takes_txs(peer)) && items.iter().any(about_tx) {
            let reason = "transaction inv sent in violation of protocol";
            return node.close(link, CloseReason::fault(reason));
        }
        for item in items {
            match item {
                Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
                    blocks = true;
                    headers::has_block(node, link, hash);
                    if node.view.entry(&hash).is_none() {
                        // The last one is the highest.
                        unknown_block = Some(hash);
                    }
                }
                Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => {
                    self.txs.on_inv(node, link, TxId::Txid(txid), downloading);
                }
                Inventory::WTx(wtxid) => self.txs.on_inv(node, link, TxId::Wtxid(wtxid), downloading),
                Inventory::Unknown { .. } | Inventory::Error => {}
            }
        }
        if let Some(hash) = unknown_block {
            self.headers.on_block_inv(node, link, hash);
        }
        if blocks {
            self.blocks.pump(node, Some(link));
        }
    }

    fn on_notfound(&mut self, link: LinkId, items: Vec<Inventory>) {
        for item in items {
            match item {
                Inventory::Transaction(id) | Inventory::WitnessTransaction(id) => {
                    self.txs.on_notfound(link, TxId::Txid(id));
                }
                Inventory::WTx(id) => self.txs.on_notfound(link, TxId::Wtxid(id)),
                Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
                    self.blocks.on_notfound(&mut self.node, link, hash);
                }
                _ => {}
            }
        }
    }

    pub(super) fn on_block(&mut self, link: LinkId, block: Arc<ParsedBlock>) {
        let hash = block.hash;
        if self.blocks.on_block(&mut self.node, link, Arc::clone(&block)) {
            self.compact.given(&mut self.node, &mut self.server, &block);
        } else if !self.blocks.is_judging(&hash) {
            self.compact.judged(&hash);
        }
        self.blocks.pump(&mut self.node, Some(link));
    }
}
