//! What jobs came to, and what follows where the chain changed.

use bitcoin::BlockHash;
use dunlin_chain::{BlockError, BlockOutcome, ChainChange, OperateError, ParsedBlock, Reject, StoreError};
use dunlin_mempool::RejectKind;
use dunlin_peer::LinkId;

use super::{Relay, parse_weight};
use crate::headers::{self, HeaderSync, Learned};
use crate::interface::{Done, Event, Job, Ticket, TxSource};
use crate::{announce, filters, outbound, spent, tx};

impl Relay {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Headers {
                link,
                count,
                last,
                result,
            } => {
                self.node.peer_job_done(link);
                if let Learned::Headers = self.headers.on_done(&mut self.node, link, count, last, result) {
                    self.blocks.pump(&mut self.node, Some(link));
                    HeaderSync::maybe_sendheaders(&mut self.node, link);
                }
                self.headers.start(&mut self.node, self.blocks.in_flight());
            }
            Done::BlockParsed { link, bytes, result } => {
                self.node.peer_jobs_done(link, parse_weight(bytes));
                match result {
                    Ok(block) if self.node.ready(link).is_some_and(|peer| !peer.closing) => self.on_block(link, block),
                    Ok(_) => {}
                    Err(error) => self.node.misbehaving(link, format!("malformed block: {error}")),
                }
            }
            Done::Resolved { addrs } => outbound::learn(&mut self.node, addrs),
            Done::Compact { link, compact, result } => {
                let (node, blocks) = (&mut self.node, &mut self.blocks);
                node.peer_job_done(link);
                match self.compact.on_header(node, blocks, link, &compact, result) {
                    Some(block) => self.on_block(link, block),
                    None => self.blocks.pump(&mut self.node, Some(link)),
                }
            }
            Done::Block {
                from,
                ticket,
                block,
                result,
            } => self.block_done(from, ticket, &block, result),
            Done::Advanced { result } => {
                self.advancing = false;
                match result {
                    Ok(outcome) => self.follow(outcome, None),
                    Err(error) => self.store_failed(&error),
                }
            }
            Done::Operated {
                ticket,
                outcome,
                result,
            } => {
                if let Err(OperateError::Store(error)) = &result {
                    self.store_failed(error);
                }
                self.operated.push((ticket, result));
                self.blocks.invalidate();
                self.follow(outcome, None);
                self.blocks.pump(&mut self.node, None);
            }
            Done::CaughtUp { result, more } => {
                self.blocks.invalidate();
                match result {
                    Ok(outcome) => self.follow(outcome, None),
                    Err(error) => self.store_failed(&error),
                }
                if more {
                    self.node.out.job(Job::CatchUp);
                }
                self.blocks.pump(&mut self.node, None);
            }
            Done::Tx { source, tx, result } => {
                if let TxSource::Peer(link) = source {
                    self.node.peer_job_done(link);
                }
                if matches!(&result, Err(reject) if reject.kind != RejectKind::AlreadyKnown) {
                    self.compact.remember(tx.compute_wtxid(), &tx);
                }
                self.txs.on_done(&mut self.node, source, &tx, &result);
                if let TxSource::Own(ticket) = source {
                    self.node.out.event(Event::TxSubmitted { ticket, result });
                }
            }
            Done::TxTested { ticket, tx, result } => {
                match ticket {
                    Some(_) if result.is_ok() => self.connections.private.add(&mut self.node, tx),
                    Some(_) => {}
                    None => self.connections.private.judged(&tx, result.is_ok()),
                }
                if let Some(ticket) = ticket {
                    self.node.out.event(Event::TxSubmitted { ticket, result });
                }
            }
            Done::Package { link, txs, outcome } => {
                self.node.peer_job_done(link);
                self.txs.on_package(&mut self.node, link, &txs, &outcome);
            }
            Done::SpentRead { link, payload } => spent::on_read(&mut self.node, link, payload),
            Done::FiltersRead { link, weight, answers } => filters::on_read(&mut self.node, link, weight, answers),
            Done::BlockRead {
                link,
                hash,
                form,
                result,
            } => {
                let raw = result.unwrap_or_else(|error| {
                    tracing::error!(%hash, %error, "a stored block cannot be read");
                    None
                });
                self.server.on_read(&mut self.node, link, hash, form, raw);
            }
            Done::Nothing => {}
        }
    }

    fn block_done(
        &mut self,
        from: Option<LinkId>,
        ticket: Option<Ticket>,
        block: &ParsedBlock,
        result: Result<BlockOutcome, BlockError>,
    ) {
        let hash = block.hash;
        if let Some(link) = from {
            self.node.peer_job_done(link);
        }
        self.blocks.judged(&hash);
        self.server.judged(&mut self.node, &hash, result.is_ok());
        // Whoever passed on a compact block need not have validated it.
        let blamed = from.filter(|_| !self.compact.judged(&hash));
        let answer = match result {
            Ok(outcome) => {
                let new = outcome.new;
                if let Some(peer) = from.and_then(|link| self.node.peers.get_mut(&link))
                    && new
                {
                    peer.blocks.last_new = Some(self.node.now);
                }
                self.blocks.stored(&self.node, hash, blamed);
                self.follow(outcome, from);
                if let Some(link) = from
                    && new
                    && self.node.view.contains_in_active(&hash)
                    && !self.blocks.in_flight()
                    && !self.node.is_initial_download()
                {
                    self.compact.reward(&mut self.node, link);
                }
                Ok(new)
            }
            Err(error) => {
                self.blocks.invalidate();
                match &error {
                    BlockError::Invalid(reject) => {
                        self.rejected(blamed, reject);
                        // Blocks that joined or left the chain before the broken one was found are still to be told.
                        self.advance();
                    }
                    BlockError::MissingParent(_) => {}
                    BlockError::Store(error) => self.store_failed(error),
                }
                Err(error)
            }
        };
        if let Some(ticket) = ticket {
            self.node.out.event(Event::BlockSubmitted { ticket, result: answer });
        }
        self.blocks.pump(&mut self.node, None);
    }

    /// The peer gave an invalid block.
    fn rejected(&mut self, from: Option<LinkId>, reject: &Reject) {
        if let Some(link) = from
            && self
                .node
                .peers
                .get(&link)
                .is_some_and(|peer| headers::at_fault(peer, reject.kind))
        {
            self.node.misbehaving(link, reject.to_string());
        }
    }

    fn store_failed(&mut self, error: &StoreError) {
        self.node.out.event(Event::StoreFailed {
            error: error.to_string(),
        });
    }

    /// The active chain may have changed.
    fn follow(&mut self, outcome: BlockOutcome, from: Option<LinkId>) {
        for (hash, reject) in &outcome.rejected {
            let source = self.blocks.source(hash);
            self.blocks.invalidate();
            self.rejected(source, reject);
        }
        if outcome.more || outcome.background {
            self.advance();
        }
        if let Some(reason) = &outcome.refuted {
            let reason = reason.clone();
            self.node.out.event(Event::SnapshotRefuted { reason });
        }
        let settled = !outcome.more;
        self.follow_changes(outcome, from);
        if settled {
            for (ticket, result) in std::mem::take(&mut self.operated) {
                self.node.out.event(Event::Operated { ticket, result });
            }
        }
    }

    /// Has the chain go on; one such job at a time, so that blocks of peers come in between.
    pub(super) fn advance(&mut self) {
        if !self.advancing {
            self.advancing = true;
            self.node.out.job(Job::Advance);
        }
    }

    fn follow_changes(&mut self, outcome: BlockOutcome, from: Option<LinkId>) {
        let mut connected: Vec<(BlockHash, u32)> = Vec::new();
        let mut disconnected = 0;
        let downloading = self.node.is_initial_download();
        for change in &outcome.changes {
            match change {
                ChainChange::Disconnected(block, _) => {
                    disconnected += 1;
                    connected.retain(|(hash, _)| *hash != block.hash);
                }
                ChainChange::Connected(block, height) => {
                    connected.push((block.hash, *height));
                    self.blocks.connected();
                    self.blocks.source(&block.hash);
                    if !downloading {
                        self.txs.block_connected(&self.node, block);
                    }
                }
            }
        }
        if outcome.changes.is_empty() {
            return;
        }
        if let Some(ChainChange::Connected(block, _)) = outcome.changes.last()
            && !downloading
        {
            self.server.connected(&mut self.node, block);
        }
        self.txs.tip_changed(disconnected > 0);
        self.connections.outbound.tip_changed(self.node.now);
        announce::announce(&mut self.node, &self.server, &connected);
        // The view may be ahead already: other blocks may have been connected since.
        let (hash, height) = match outcome.changes.last() {
            Some(ChainChange::Connected(block, height)) => (block.hash, *height),
            _ => {
                let tip = self.node.view.tip();
                (tip.hash, tip.height)
            }
        };
        self.node.out.event(Event::TipChanged {
            hash,
            height,
            disconnected,
            connected: connected.len(),
            from,
        });
        if self.was_downloading && !downloading {
            self.was_downloading = false;
            for link in self.node.ready_links() {
                tx::feefilter::tick(&mut self.node, link, false);
            }
            self.headers.start(&mut self.node, self.blocks.in_flight());
        }
        self.blocks.pump(&mut self.node, from);
    }
}
