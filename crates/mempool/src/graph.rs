//! The pool as a graph: who spends whom, the clusters of relatives, and all chunks of all clusters by fee rate.
//!
//! Invariants between two calls: every node is in exactly one cluster; a cluster is connected and within the limits;
//! the index holds exactly the chunks of all clusters.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Id;
use crate::feerate::Ratio;
use crate::linearize::{MAX_CLUSTER, Problem};

/// A cluster's number.
type ClusterId = u64;

#[derive(Clone, Debug)]
struct Node {
    ratio: Ratio,
    parents: BTreeSet<Id>,
    children: BTreeSet<Id>,
    cluster: ClusterId,
}

/// A run of transactions of one cluster that is mined, or evicted, as one.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Parents before children.
    pub(crate) members: Vec<Id>,
    /// What they pay together.
    pub(crate) ratio: Ratio,
}

#[derive(Clone, Debug, Default)]
struct Cluster {
    members: BTreeSet<Id>,
    weight: u64,
    chunks: Vec<Chunk>,
}

/// A chunk's place among all: better rates first, then as they came.
#[derive(Clone, Copy, Debug)]
struct ChunkKey {
    ratio: Ratio,
    cluster: ClusterId,
    index: usize,
}

impl Ord for ChunkKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_rate = other.ratio.cmp_rate(&self.ratio);
        by_rate
            .then(self.cluster.cmp(&other.cluster))
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for ChunkKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ChunkKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ChunkKey {}

/// Limits of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterLimits {
    pub(crate) count: usize,
    pub(crate) weight: u64,
}

/// A cluster would be larger than the limits allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// A transaction that may join.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) ratio: Ratio,
    /// Transactions of the graph, or earlier newcomers of the same plan by [`newcomer`].
    pub(crate) parents: BTreeSet<Id>,
}

/// Stands for the candidate in this place of a plan, which has no number yet.
pub(crate) const fn newcomer(place: usize) -> Id {
    FIRST_NEWCOMER + place as Id
}

/// No transaction ever gets so high a number.
const FIRST_NEWCOMER: Id = 1 << 63;

/// The chunks of every cluster that a change touches, before and after.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) before: Vec<Ratio>,
    pub(crate) after: Vec<Ratio>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<Id, Node>,
    clusters: BTreeMap<ClusterId, Cluster>,
    chunks: BTreeSet<ChunkKey>,
    next_cluster: ClusterId,
}

impl Graph {
    pub(crate) fn parents(&self, id: Id) -> BTreeSet<Id> {
        self.nodes.get(&id).map(|node| node.parents.clone()).unwrap_or_default()
    }

    pub(crate) fn children(&self, id: Id) -> BTreeSet<Id> {
        self.nodes
            .get(&id)
            .map(|node| node.children.clone())
            .unwrap_or_default()
    }

    /// `from` and everything that descends from it.
    pub(crate) fn descendants(&self, from: impl IntoIterator<Item = Id>) -> BTreeSet<Id> {
        self.closure(from, |node| &node.children)
    }

    /// `from` and everything that it descends from.
    pub(crate) fn ancestors(&self, from: impl IntoIterator<Item = Id>) -> BTreeSet<Id> {
        self.closure(from, |node| &node.parents)
    }

    fn closure(&self, from: impl IntoIterator<Item = Id>, next: impl Fn(&Node) -> &BTreeSet<Id>) -> BTreeSet<Id> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<Id> = from.into_iter().collect();
        while let Some(id) = open.pop() {
            if seen.insert(id)
                && let Some(node) = self.nodes.get(&id)
            {
                open.extend(next(node).iter().copied());
            }
        }
        seen
    }

    /// In how many clusters these transactions are.
    pub(crate) fn cluster_count(&self, of: &BTreeSet<Id>) -> usize {
        self.clusters_of(of.iter().copied()).len()
    }

    /// Would a transaction of this weight, related to these, make a cluster within the limits?
    pub(crate) fn fits(&self, weight: u64, related: impl Iterator<Item = Id>, limits: ClusterLimits) -> bool {
        let clusters = self.clusters_of(related);
        let joined = clusters.iter().filter_map(|id| self.clusters.get(id));
        let (count, weight) = joined.fold((1, weight), |(count, sum), c| {
            (count + c.members.len(), sum.saturating_add(c.weight))
        });
        count <= limits.count.min(MAX_CLUSTER) && weight <= limits.weight
    }

    fn clusters_of(&self, ids: impl Iterator<Item = Id>) -> BTreeSet<ClusterId> {
        ids.filter_map(|id| self.nodes.get(&id))
            .map(|node| node.cluster)
            .collect()
    }

    /// The chunks by fee rate, the best first.
    pub(crate) fn by_rate(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        self.chunks.iter().filter_map(|key| {
            let chunk = self.clusters.get(&key.cluster)?.chunks.get(key.index)?;
            Some((key.cluster, chunk))
        })
    }

    /// The chunk with the lowest fee rate. Nothing outside of it descends from it.
    pub(crate) fn worst(&self) -> Option<&Chunk> {
        let key = self.chunks.last()?;
        self.clusters.get(&key.cluster)?.chunks.get(key.index)
    }

    /// The chunk that a transaction is in.
    pub(crate) fn chunk_of(&self, id: Id) -> Option<&Chunk> {
        let cluster = self.clusters.get(&self.nodes.get(&id)?.cluster)?;
        cluster.chunks.iter().find(|chunk| chunk.members.contains(&id))
    }

    /// What `candidates` joining, parents before children, and `removed` leaving would do to the clusters concerned.
    pub(crate) fn plan(
        &self,
        removed: &BTreeSet<Id>,
        candidates: &[Candidate],
        limits: ClusterLimits,
    ) -> Result<Plan, TooLarge> {
        let new = |id: Id| {
            let place = id.checked_sub(FIRST_NEWCOMER)?;
            candidates.get(usize::try_from(place).ok()?)
        };
        let parents_of_new = candidates.iter().flat_map(|candidate| &candidate.parents);
        let clusters = self.clusters_of(removed.iter().chain(parents_of_new).copied());
        let concerned: Vec<&Cluster> = clusters.iter().filter_map(|id| self.clusters.get(id)).collect();
        let before = concerned
            .iter()
            .flat_map(|cluster| cluster.chunks.iter().map(|chunk| chunk.ratio))
            .collect();

        let mut left: BTreeSet<Id> = concerned
            .iter()
            .flat_map(|cluster| &cluster.members)
            .filter(|id| !removed.contains(id))
            .copied()
            .collect();
        left.extend((0..candidates.len()).map(newcomer));
        let parents = |id: Id| -> BTreeSet<Id> {
            match new(id) {
                Some(candidate) => candidate.parents.clone(),
                None => self.parents(id),
            }
        };
        let neighbours = |id: Id| -> BTreeSet<Id> {
            let mut all = parents(id);
            all.extend(self.children(id));
            let spending = (0..)
                .zip(candidates)
                .filter(|(_, candidate)| candidate.parents.contains(&id));
            all.extend(spending.map(|(place, _)| newcomer(place)));
            all
        };
        let ratio = |id: Id| new(id).map_or_else(|| self.ratio(id), |candidate| candidate.ratio);
        let mut after = Vec::new();
        for members in components(left, neighbours) {
            let weight = members
                .iter()
                .fold(0_u64, |sum, id| sum.saturating_add(ratio(*id).weight));
            if members.len() > limits.count.min(MAX_CLUSTER) || weight > limits.weight {
                return Err(TooLarge);
            }
            after.extend(order(&members, parents, ratio).into_iter().map(|chunk| chunk.ratio));
        }
        Ok(Plan { before, after })
    }

    fn ratio(&self, id: Id) -> Ratio {
        self.nodes.get(&id).map(|node| node.ratio).unwrap_or_default()
    }

    /// Adds a transaction with its relatives, all of which are here. The caller has made sure by [`Graph::fits`] that
    /// the cluster which comes of it is within the limits.
    pub(crate) fn insert(&mut self, id: Id, candidate: Candidate, children: BTreeSet<Id>) {
        let related: BTreeSet<Id> = candidate.parents.iter().chain(&children).copied().collect();
        let mut members = self.dissolve(self.clusters_of(related.iter().copied()));
        for parent in &candidate.parents {
            if let Some(node) = self.nodes.get_mut(parent) {
                node.children.insert(id);
            }
        }
        for child in &children {
            if let Some(node) = self.nodes.get_mut(child) {
                node.parents.insert(id);
            }
        }
        let Candidate { ratio, parents } = candidate;
        self.nodes.insert(
            id,
            Node {
                ratio,
                parents,
                children,
                cluster: 0,
            },
        );
        members.insert(id);
        self.form(members);
    }

    /// Gives a transaction another fee and puts its cluster in order again.
    pub(crate) fn set_ratio(&mut self, id: Id, ratio: Ratio) {
        let members = self.dissolve(self.clusters_of(std::iter::once(id)));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.ratio = ratio;
        }
        self.form(members);
    }

    /// The chunks of the cluster that a transaction is in, in mining order.
    pub(crate) fn cluster_of(&self, id: Id) -> Option<&[Chunk]> {
        let cluster = self.clusters.get(&self.nodes.get(&id)?.cluster)?;
        Some(&cluster.chunks)
    }

    /// Removes transactions; what is left of their clusters is put in order again.
    pub(crate) fn remove(&mut self, removed: &BTreeSet<Id>) {
        let members = self.dissolve(self.clusters_of(removed.iter().copied()));
        for id in removed {
            let Some(node) = self.nodes.remove(id) else { continue };
            for parent in &node.parents {
                if let Some(parent) = self.nodes.get_mut(parent) {
                    parent.children.remove(id);
                }
            }
            for child in &node.children {
                if let Some(child) = self.nodes.get_mut(child) {
                    child.parents.remove(id);
                }
            }
        }
        self.form(members.difference(removed).copied().collect());
    }

    /// Takes clusters apart and returns who was in them.
    fn dissolve(&mut self, clusters: BTreeSet<ClusterId>) -> BTreeSet<Id> {
        let mut members = BTreeSet::new();
        for id in clusters {
            let Some(cluster) = self.clusters.remove(&id) else {
                continue;
            };
            for (index, chunk) in cluster.chunks.iter().enumerate() {
                self.chunks.remove(&ChunkKey {
                    ratio: chunk.ratio,
                    cluster: id,
                    index,
                });
            }
            members.extend(cluster.members);
        }
        members
    }

    /// Makes clusters of transactions that are in none.
    fn form(&mut self, members: BTreeSet<Id>) {
        let neighbours = |id: Id| -> BTreeSet<Id> {
            let mut all = self.parents(id);
            all.extend(self.children(id));
            all
        };
        for members in components(members, neighbours) {
            let cluster = self.next_cluster;
            self.next_cluster += 1;
            let chunks = order(&members, |id| self.parents(id), |id| self.ratio(id));
            for (index, chunk) in chunks.iter().enumerate() {
                self.chunks.insert(ChunkKey {
                    ratio: chunk.ratio,
                    cluster,
                    index,
                });
            }
            for id in &members {
                if let Some(node) = self.nodes.get_mut(id) {
                    node.cluster = cluster;
                }
            }
            let weight = members
                .iter()
                .fold(0_u64, |sum, id| sum.saturating_add(self.ratio(*id).weight));
            self.clusters.insert(
                cluster,
                Cluster {
                    members,
                    weight,
                    chunks,
                },
            );
        }
    }

    /// Checks the invariants; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut seen = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for (id, cluster) in &self.clusters {
            let in_chunks: Vec<Id> = cluster.chunks.iter().flat_map(|chunk| chunk.members.clone()).collect();
            assert_eq!(in_chunks.iter().copied().collect::<BTreeSet<_>>(), cluster.members);
            assert_eq!(in_chunks.len(), cluster.members.len());
            for (place, member) in in_chunks.iter().enumerate() {
                assert!(seen.insert(*member));
                assert_eq!(self.nodes[member].cluster, *id);
                for parent in &self.nodes[member].parents {
                    assert!(in_chunks[..place].contains(parent), "parents come first");
                    assert!(self.nodes[parent].children.contains(member));
                }
            }
            keys.extend((0..cluster.chunks.len()).map(|index| (*id, index)));
        }
        assert_eq!(seen.len(), self.nodes.len());
        assert_eq!(
            self.chunks
                .iter()
                .map(|key| (key.cluster, key.index))
                .collect::<BTreeSet<_>>(),
            keys
        );
    }
}

/// Splits a set into its connected parts.
fn components(mut left: BTreeSet<Id>, neighbours: impl Fn(Id) -> BTreeSet<Id>) -> Vec<BTreeSet<Id>> {
    let mut parts = Vec::new();
    while let Some(start) = left.pop_first() {
        let mut part = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            for next in neighbours(id) {
                if left.remove(&next) {
                    part.insert(next);
                    open.push(next);
                }
            }
        }
        parts.push(part);
    }
    parts
}

/// Puts a connected part in order.
fn order(members: &BTreeSet<Id>, parents: impl Fn(Id) -> BTreeSet<Id>, ratio: impl Fn(Id) -> Ratio) -> Vec<Chunk> {
    let list: Vec<Id> = members.iter().copied().collect();
    let mut problem = Problem::default();
    for id in &list {
        problem.ratios.push(ratio(*id));
        let parents = parents(*id);
        let places = parents.iter().filter_map(|parent| list.binary_search(parent).ok());
        problem.parents.push(places.fold(0, |set, parent| set | (1 << parent)));
    }
    let solution = problem.solve();
    let mut rest = solution.order.iter().filter_map(|index| list.get(*index).copied());
    solution
        .chunks
        .iter()
        .map(|(count, ratio)| Chunk {
            members: rest.by_ref().take(*count).collect(),
            ratio: *ratio,
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMITS: ClusterLimits = ClusterLimits { count: 4, weight: 1000 };

    fn candidate(fee: i64, parents: &[Id]) -> Candidate {
        Candidate {
            ratio: Ratio { fee, weight: 100 },
            parents: parents.iter().copied().collect(),
        }
    }

    fn graph(txs: &[(i64, &[Id])]) -> Graph {
        let mut graph = Graph::default();
        for (id, (fee, parents)) in txs.iter().enumerate() {
            graph.insert(id as Id, candidate(*fee, parents), BTreeSet::new());
            graph.check();
        }
        graph
    }

    #[test]
    fn clusters_join_and_fall_apart() {
        let mut graph = graph(&[(1, &[]), (2, &[]), (3, &[0, 1]), (9, &[])]);
        assert_eq!(graph.cluster_count(&BTreeSet::from([0, 1, 2])), 1);
        assert_eq!(graph.descendants([0]), BTreeSet::from([0, 2]));
        assert_eq!(graph.ancestors([2]), BTreeSet::from([0, 1, 2]));
        let best: Vec<Vec<Id>> = graph.by_rate().map(|(_, chunk)| chunk.members.clone()).collect();
        assert_eq!(best[0], [3]);
        graph.remove(&BTreeSet::from([2]));
        graph.check();
        assert_eq!(graph.cluster_count(&BTreeSet::from([0, 1])), 2);
        assert_eq!(graph.worst().unwrap().members, [0]);
    }

    #[test]
    fn a_parent_can_come_after_its_child() {
        let mut graph = graph(&[(5, &[]), (1, &[])]);
        graph.insert(7, candidate(1, &[]), BTreeSet::from([0, 1]));
        graph.check();
        let first = graph.by_rate().next().unwrap().1.members.clone();
        assert_eq!(first, [7, 0]);
        assert_eq!(graph.parents(0), BTreeSet::from([7]));
    }

    #[test]
    fn limits_hold_for_the_joined_cluster() {
        let graph = graph(&[(1, &[]), (1, &[0]), (1, &[]), (1, &[2])]);
        assert!(graph.fits(100, [1].into_iter(), LIMITS));
        assert!(!graph.fits(100, [1, 3].into_iter(), LIMITS), "five of four");
        assert!(graph.fits(800, [1].into_iter(), LIMITS));
        assert!(!graph.fits(801, [1].into_iter(), LIMITS));
        assert_eq!(
            graph
                .plan(&BTreeSet::new(), &[candidate(1, &[1, 3])], LIMITS)
                .unwrap_err(),
            TooLarge
        );
        assert!(
            graph
                .plan(&BTreeSet::from([3]), &[candidate(1, &[1, 2])], LIMITS)
                .is_ok(),
            "one leaves"
        );
    }

    #[test]
    fn a_plan_shows_both_sides() {
        let graph = graph(&[(10, &[]), (1, &[0]), (50, &[])]);
        let plan = graph
            .plan(&BTreeSet::from([1]), &[candidate(30, &[0])], LIMITS)
            .unwrap();
        let rates = |list: &[Ratio]| list.iter().map(|ratio| (ratio.fee, ratio.weight)).collect::<Vec<_>>();
        assert_eq!(rates(&plan.before), [(10, 100), (1, 100)]);
        assert_eq!(rates(&plan.after), [(40, 200)]);
    }

    #[test]
    fn random_changes_keep_the_invariants() {
        // A fixed linear congruential sequence; no outside randomness.
        let mut state = 1_u64;
        let mut next = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let limits = ClusterLimits {
            count: 64,
            weight: 6400,
        };
        let mut graph = Graph::default();
        let mut alive: Vec<Id> = Vec::new();
        for id in 0..600 {
            let parents: BTreeSet<Id> = (0..next(3))
                .filter(|_| !alive.is_empty())
                .map(|_| alive[next(alive.len() as u64) as usize])
                .collect();
            if graph.fits(100, parents.iter().copied(), limits) {
                let new = Candidate {
                    ratio: Ratio {
                        fee: next(1000) as i64,
                        weight: 100,
                    },
                    parents,
                };
                let plan = graph
                    .plan(&BTreeSet::new(), std::slice::from_ref(&new), limits)
                    .unwrap();
                graph.insert(id, new, BTreeSet::new());
                alive.push(id);
                // What the plan foretold is what happened.
                let cluster = &graph.clusters[&graph.nodes[&id].cluster];
                let mut fees: Vec<i64> = cluster.chunks.iter().map(|chunk| chunk.ratio.fee).collect();
                let mut planned: Vec<i64> = plan.after.iter().map(|ratio| ratio.fee).collect();
                fees.sort_unstable();
                planned.sort_unstable();
                assert_eq!(fees, planned);
            }
            if next(4) == 0 && !alive.is_empty() {
                let gone = graph.descendants([alive[next(alive.len() as u64) as usize]]);
                graph.remove(&gone);
                alive.retain(|id| !gone.contains(id));
            }
            graph.check();
        }
        while let Some(chunk) = graph.worst().cloned() {
            let members: BTreeSet<Id> = chunk.members.iter().copied().collect();
            assert_eq!(
                graph.descendants(members.clone()),
                members,
                "nothing descends from the worst chunk"
            );
            graph.remove(&members);
        }
        assert!(graph.nodes.is_empty());
    }
}
