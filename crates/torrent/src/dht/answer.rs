//! What we answer to other nodes.

use std::net::SocketAddr;

use dunlin_peer::Now;

use super::krpc::{Answer, Body, Contact, Fault, Query, Want};
use super::node_id::NodeId;
use super::table::K;
use super::{Dht, MAX_RETURN_PINGS, Why, family};

/// Peers in one answer: with the nodes beside them it stays below 1,400 bytes.
const MAX_PEERS: [usize; 2] = [80, 35];
/// Seconds after which another question for samples makes sense (BEP 51).
const SAMPLE_INTERVAL: u32 = 60;
/// The token did not come from us, or is too old.
const BAD_TOKEN: Fault = Fault(203, "bad token");
const FULL: Fault = Fault(202, "no room");

impl Dht {
    /// Answers a query, unless we are read-only or the sender asks too much.
    pub(super) fn answer(
        &mut self,
        now: Now,
        from: SocketAddr,
        transaction: &[u8],
        id: NodeId,
        query: Query,
        read_only: bool,
    ) {
        if self.read_only || from.port() == 0 || !self.limiter.admits(now, from.ip()) {
            return;
        }
        match self.answer_to(now, from, query) {
            Ok(answer) => {
                let own = self.ids[family(&from)];
                self.respond(now, from, transaction, Body::Answer { id: own, answer });
            }
            Err(fault) => self.refuse(now, from, transaction, fault),
        }
        let contact = Contact { id, addr: from };
        let at = family(&from);
        if !read_only
            && id != self.ids[at]
            && self.return_pings < MAX_RETURN_PINGS
            && !self.pending.values().any(|pending| pending.to == from)
            && self.tables[at].wants(&contact)
            && self.ask(now, from, Some(id), Query::Ping, Why::Ping)
        {
            self.return_pings += 1;
        }
    }

    /// Says what was wrong with a query.
    pub(super) fn refuse(&mut self, now: Now, from: SocketAddr, transaction: &[u8], fault: Fault) {
        if self.read_only {
            return;
        }
        let Fault(code, text) = fault;
        let text = text.to_owned();
        self.respond(now, from, transaction, Body::Error { code, text });
    }

    fn respond(&mut self, now: Now, from: SocketAddr, transaction: &[u8], body: Body) {
        let before = self.out.len();
        self.send(from, transaction, body, Some(from));
        let length = self.out.get(before).map_or(0, |(_, bytes)| bytes.len());
        if !self.limiter.spends(now, length) {
            self.out.truncate(before);
        }
    }

    fn answer_to(&mut self, now: Now, from: SocketAddr, query: Query) -> Result<Answer, Fault> {
        let mut answer = Answer::default();
        match query {
            Query::Ping => {}
            Query::Unknown => return Err(Fault::METHOD),
            Query::FindNode { target, want } => answer.nodes = self.near(from, &target, want),
            Query::GetPeers { info_hash, want } => {
                let max = MAX_PEERS[family(&from)];
                answer.values = self.peers.sample(&info_hash, from.is_ipv4(), max, &mut self.rng);
                answer.token = Some(self.tokens.give(from.ip(), &info_hash.0));
                answer.nodes = self.near(from, &NodeId(info_hash.0), want);
            }
            Query::AnnouncePeer { info_hash, port, token } => {
                if !self.tokens.accepts(&token, from.ip(), &info_hash.0) {
                    return Err(BAD_TOKEN);
                }
                let addr = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                if !self.peers.announce(now, info_hash, addr, &mut self.rng) {
                    return Err(FULL);
                }
            }
            Query::Get { target, sequence, want } => {
                answer.token = Some(self.tokens.give(from.ip(), &target.0));
                answer.nodes = self.near(from, &target, want);
                if let Some(item) = self.items.get(&target)
                    && (sequence.is_none() || item.sequence() > sequence)
                {
                    answer.item = Some((item.value.clone(), item.signed.clone()));
                }
            }
            Query::Put { token, put } => {
                let item = super::Item {
                    value: put.value.clone(),
                    signed: put.signed.clone(),
                };
                if !self.tokens.accepts(&token, from.ip(), &item.target().0) {
                    return Err(BAD_TOKEN);
                }
                self.items.put(now, put)?;
            }
            Query::SampleInfohashes { target, want } => {
                let (samples, all) = self.peers.samples(&mut self.rng);
                answer.samples = samples;
                answer.sampling = Some((SAMPLE_INTERVAL, u32::try_from(all).unwrap_or(u32::MAX)));
                answer.nodes = self.near(from, &target, want);
            }
        }
        Ok(answer)
    }

    /// The nodes nearest to a name, of the families wanted; without a wish, of the family asked over.
    fn near(&self, from: SocketAddr, target: &NodeId, want: Want) -> Vec<Contact> {
        let asked = [want.v4, want.v6];
        let wanted = if asked == [false; 2] {
            [from.is_ipv4(), from.is_ipv6()]
        } else {
            asked
        };
        let tables = self.tables.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        tables
            .flat_map(|(table, _)| table.closest(target, K))
            .filter(|node| node.addr != from)
            .collect()
    }
}
