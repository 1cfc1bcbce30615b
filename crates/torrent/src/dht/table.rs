//! The routing table (BEP 5): who is near us in the key space, of one address family.
//!
//! A bucket for each number of leading bits shared with our own name, each with a few nodes that have answered us and
//! a few that wait for a place. Nodes whose name does not fit their address (BEP 42) only fill places that nobody else
//! wants, and one address has one place: so it takes many addresses to surround anybody.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dunlin_peer::{Now, is_public};
use rand::Rng;

use super::krpc::Contact;
use super::node_id::{BITS, NodeId};

/// Nodes in a bucket.
pub(crate) const K: usize = 8;
/// Nodes that wait for a place in a bucket.
const WAITING: usize = 8;
/// A node not heard of for this long is asked whether it is still there; a bucket that nobody answered from for this
/// long is looked through again.
const STALE: Duration = Duration::from_secs(15 * 60);
/// Unanswered questions in a row after which a node is gone.
const MAX_FAILURES: u8 = 2;

/// One node.
#[derive(Clone, Debug)]
struct Node {
    contact: Contact,
    seen: Now,
    failures: u8,
    secure: bool,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    nodes: Vec<Node>,
    waiting: Vec<Node>,
    /// When a node of the bucket last answered, or it was last looked through.
    changed: Now,
}

/// The nodes of one family.
#[derive(Debug)]
pub(crate) struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
    ips: BTreeSet<IpAddr>,
}

impl Table {
    pub(crate) fn new(own: NodeId) -> Self {
        Self {
            own,
            buckets: vec![Bucket::default(); BITS as usize],
            ips: BTreeSet::new(),
        }
    }

    /// The same nodes, seen from another name.
    pub(crate) fn renamed(&self, own: NodeId) -> Self {
        let mut table = Self::new(own);
        for node in self.buckets.iter().flat_map(|bucket| &bucket.nodes) {
            table.answered(node.seen, node.contact);
        }
        table
    }

    fn bucket(&mut self, id: &NodeId) -> Option<&mut Bucket> {
        self.buckets.get_mut(self.own.shared_bits(id) as usize)
    }

    /// Nodes that have a place.
    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.nodes.len()).sum()
    }

    /// A node answered a question of ours.
    pub(crate) fn answered(&mut self, now: Now, contact: Contact) {
        let fresh = Node {
            contact,
            seen: now,
            failures: 0,
            secure: contact.id.is_secure_for(contact.addr.ip()),
        };
        let crowded = is_public(contact.addr.ip()) && self.ips.contains(&contact.addr.ip());
        let Some(bucket) = self.bucket(&contact.id) else {
            return;
        };
        if let Some(known) = bucket.nodes.iter_mut().find(|node| node.contact.id == contact.id) {
            // A name stays with the address that proved it; a newcomer has to wait until that one is gone.
            if known.contact.addr == contact.addr {
                *known = fresh;
                bucket.changed = now;
            }
            return;
        }
        if crowded {
            return;
        }
        bucket
            .waiting
            .retain(|node| node.contact.id != contact.id && node.contact.addr != contact.addr);
        if bucket.nodes.len() >= K {
            let loser = bucket
                .nodes
                .iter()
                .position(|node| node.failures > 0 || (fresh.secure && !node.secure));
            match loser {
                Some(at) => {
                    let gone = bucket.nodes.swap_remove(at).contact.addr.ip();
                    self.ips.remove(&gone);
                }
                None => {
                    if bucket.waiting.len() >= WAITING {
                        bucket.waiting.remove(0);
                    }
                    return bucket.waiting.push(fresh);
                }
            }
        }
        self.place(now, fresh);
    }

    fn place(&mut self, now: Now, node: Node) {
        self.ips.insert(node.contact.addr.ip());
        if let Some(bucket) = self.bucket(&node.contact.id) {
            bucket.nodes.push(node);
            bucket.changed = now;
        }
    }

    /// A node did not answer. One that never does leaves its place to one that waits.
    pub(crate) fn failed(&mut self, now: Now, contact: Contact) {
        let Some(bucket) = self.bucket(&contact.id) else {
            return;
        };
        bucket.waiting.retain(|node| node.contact != contact);
        let Some(at) = bucket.nodes.iter().position(|node| node.contact == contact) else {
            return;
        };
        bucket.nodes[at].failures = bucket.nodes[at].failures.saturating_add(1);
        if bucket.nodes[at].failures < MAX_FAILURES {
            return;
        }
        bucket.nodes.swap_remove(at);
        let next = bucket.waiting.pop();
        self.ips.remove(&contact.addr.ip());
        if let Some(next) = next {
            self.place(now, next);
        }
    }

    /// Whether a node that asked us something would be welcome, if it answers.
    pub(crate) fn wants(&mut self, contact: &Contact) -> bool {
        if is_public(contact.addr.ip()) && self.ips.contains(&contact.addr.ip()) {
            return false;
        }
        self.bucket(&contact.id).is_some_and(|bucket| {
            let known = |nodes: &[Node]| nodes.iter().any(|node| node.contact.id == contact.id);
            !known(&bucket.nodes)
                && !known(&bucket.waiting)
                && (bucket.nodes.len() < K || bucket.waiting.len() < WAITING)
        })
    }

    /// The nodes nearest to `target`, nearest first.
    pub(crate) fn closest(&self, target: &NodeId, max: usize) -> Vec<Contact> {
        let nodes = self.buckets.iter().flat_map(|bucket| &bucket.nodes);
        let mut found: Vec<Contact> = nodes.map(|node| node.contact).collect();
        found.sort_by_key(|contact| contact.id.distance(target));
        found.truncate(max);
        found
    }

    /// The node that has been silent the longest, if it is time to ask it.
    pub(crate) fn stale(&self, now: Now) -> Option<Contact> {
        let nodes = self.buckets.iter().flat_map(|bucket| &bucket.nodes);
        let oldest = nodes.min_by_key(|node| node.seen)?;
        (now.since(oldest.seen) >= STALE).then_some(oldest.contact)
    }

    /// A name to look for in the bucket that has been quiet the longest, if it is time; the bucket counts as fresh
    /// from then on. Buckets nearer to us than any node are left alone.
    pub(crate) fn refresh(&mut self, now: Now, rng: &mut impl Rng) -> Option<NodeId> {
        let deepest = self.buckets.iter().rposition(|bucket| !bucket.nodes.is_empty())?;
        let buckets = self.buckets.iter_mut().take(deepest + 1).enumerate();
        let (at, bucket) = buckets.min_by_key(|(_, bucket)| bucket.changed)?;
        if now.since(bucket.changed) < STALE {
            return None;
        }
        bucket.changed = now;
        Some(self.own.random_sharing(at as u32, rng))
    }

    /// Addresses of up to `max` nodes, those silent the shortest first; for the next start.
    pub(crate) fn freshest(&self, max: usize) -> Vec<SocketAddr> {
        let mut nodes: Vec<&Node> = self.buckets.iter().flat_map(|bucket| &bucket.nodes).collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(node.seen));
        nodes.iter().take(max).map(|node| node.contact.addr).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(secs)
    }

    fn contact(id: NodeId, n: u8) -> Contact {
        Contact {
            id,
            addr: SocketAddr::from(([10, 0, 0, n], 6881)),
        }
    }

    /// A table and thirty nodes of its farthest bucket.
    fn crowd() -> (Table, Vec<Contact>, ChaCha8Rng) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let own = NodeId::random(&mut rng);
        let contacts = (0..30).map(|n| contact(own.random_sharing(0, &mut rng), n)).collect();
        (Table::new(own), contacts, rng)
    }

    #[test]
    fn full_buckets_keep_who_answers_and_replace_who_does_not() {
        let (mut table, nodes, _) = crowd();
        for (n, node) in nodes.iter().enumerate() {
            assert_eq!(table.wants(node), n < K + WAITING);
            table.answered(at(n as u64), *node);
        }
        assert_eq!(table.len(), K);
        assert_eq!(table.closest(&nodes[3].id, 1), [nodes[3]]);
        table.failed(at(100), nodes[0]);
        assert_eq!(table.len(), K, "once is forgiven");
        table.failed(at(101), nodes[0]);
        assert_eq!(table.len(), K);
        let left = table.closest(&nodes[0].id, K);
        assert!(
            !left.contains(&nodes[0]) && left.contains(&nodes[29]),
            "the newest that waited moves in"
        );
    }

    #[test]
    fn a_name_cannot_be_taken_over_and_an_address_has_one_place() {
        let (mut table, nodes, mut rng) = crowd();
        table.answered(at(1), nodes[0]);
        table.answered(at(2), contact(nodes[0].id, 99));
        assert_eq!(table.closest(&nodes[0].id, 1), [nodes[0]]);

        let public = SocketAddr::from(([8, 8, 8, 8], 1));
        for _ in 0..3 {
            let id = NodeId::random(&mut rng);
            table.answered(at(3), Contact { id, addr: public });
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn names_that_fit_their_address_push_out_those_that_do_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let own = NodeId([0; 20]);
        let mut table = Table::new(own);
        let addr = |n: u8| SocketAddr::from(([8, 8, n, 1], 1));
        let far = |secure: bool, n: u8, rng: &mut ChaCha8Rng| loop {
            let id = if secure {
                NodeId::secure(addr(n).ip(), rng)
            } else {
                NodeId::random(rng)
            };
            if own.shared_bits(&id) == 0 && id.is_secure_for(addr(n).ip()) == secure {
                return Contact { id, addr: addr(n) };
            }
        };
        for n in 0..8 {
            table.answered(at(1), far(false, n, &mut rng));
        }
        // The first bit of a name follows from the address, so not every address can be in this bucket.
        let honest: Vec<u8> = (20..60)
            .filter(|n| {
                (0..8u8).any(|last| {
                    let mut id = NodeId::secure(addr(*n).ip(), &mut ChaCha8Rng::seed_from_u64(u64::from(last)));
                    id.0[19] = last;
                    own.shared_bits(&id) == 0
                })
            })
            .take(3)
            .collect();
        for n in honest {
            let newcomer = far(true, n, &mut rng);
            table.answered(at(2), newcomer);
            assert_eq!(table.closest(&newcomer.id, 1), [newcomer]);
        }
        assert_eq!(table.len(), K);
    }

    #[test]
    fn silence_is_noticed() {
        let (mut table, nodes, mut rng) = crowd();
        table.answered(at(0), nodes[0]);
        table.answered(at(5), nodes[1]);
        assert_eq!(table.stale(at(899)), None);
        assert_eq!(table.stale(at(900)), Some(nodes[0]));
        assert_eq!(table.refresh(at(904), &mut rng), None);
        let looked = table.refresh(at(905), &mut rng);
        assert!(looked.is_some_and(|target| target.shared_bits(&table.own) == 0));
        assert_eq!(table.refresh(at(906), &mut rng), None);
        assert_eq!(table.freshest(1), [nodes[1].addr]);
    }
}
