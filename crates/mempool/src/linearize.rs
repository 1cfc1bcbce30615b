//! The order of a cluster: again and again the set of a transaction and its ancestors with the best fee rate goes
//! first; then neighbours are merged into chunks as long as a later one pays better than the one before it.

use std::cmp::Ordering;

use crate::feerate::Ratio;

/// Most transactions in a problem: one bit each.
pub(crate) const MAX_CLUSTER: usize = 64;

/// A cluster to put in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    /// What each transaction pays for its weight.
    pub(crate) ratios: Vec<Ratio>,
    /// For each transaction the set of its direct parents, one bit each.
    pub(crate) parents: Vec<u64>,
}

/// A cluster in order, and where its chunks end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Solution {
    /// Indexes into the problem, parents before children.
    pub(crate) order: Vec<usize>,
    /// The chunks in order, by how many transactions each has, with the sum of what they pay. No chunk pays better
    /// than the one before it.
    pub(crate) chunks: Vec<(usize, Ratio)>,
}

impl Problem {
    /// Puts the cluster in order. It has at most [`MAX_CLUSTER`] transactions and no cycle.
    pub(crate) fn solve(&self) -> Solution {
        let ancestors = self.ancestors();
        let count = self.ratios.len();
        let mut left: u64 = if count >= MAX_CLUSTER {
            u64::MAX
        } else {
            (1 << count) - 1
        };
        let mut order = Vec::with_capacity(count);
        while left != 0 {
            let mut best: Option<(Ratio, u64)> = None;
            for index in bits(left) {
                let set = ancestors[index] & left;
                let ratio = bits(set).fold(Ratio::default(), |sum, member| sum.add(self.ratios[member]));
                let better = best.is_none_or(|(other, _)| {
                    let by_rate = ratio.cmp_rate(&other);
                    by_rate.then(other.weight.cmp(&ratio.weight)) == Ordering::Greater
                });
                if better {
                    best = Some((ratio, set));
                }
            }
            let Some((_, set)) = best else { break };
            let mut group: Vec<usize> = bits(set).collect();
            // Every ancestor of a transaction has fewer ancestors than itself.
            group.sort_by_key(|member| (ancestors[*member].count_ones(), *member));
            order.extend(group);
            left &= !set;
        }
        Solution {
            chunks: self.chunks(&order),
            order,
        }
    }

    fn chunks(&self, order: &[usize]) -> Vec<(usize, Ratio)> {
        let mut chunks: Vec<(usize, Ratio)> = Vec::new();
        for index in order {
            let mut chunk = (1, self.ratios[*index]);
            while let Some(last) = chunks.last()
                && chunk.1.cmp_rate(&last.1) == Ordering::Greater
            {
                chunk = (chunk.0 + last.0, chunk.1.add(last.1));
                chunks.pop();
            }
            chunks.push(chunk);
        }
        chunks
    }

    /// For each transaction the set of its ancestors and itself.
    fn ancestors(&self) -> Vec<u64> {
        let mut sets: Vec<u64> = self
            .parents
            .iter()
            .enumerate()
            .map(|(index, parents)| parents | (1 << index))
            .collect();
        loop {
            let mut changed = false;
            for index in 0..sets.len() {
                let wider = bits(sets[index]).fold(sets[index], |set, member| set | sets[member]);
                changed |= wider != sets[index];
                sets[index] = wider;
            }
            if !changed {
                return sets;
            }
        }
    }
}

/// The members of a set in rising order.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let index = set.trailing_zeros() as usize;
            set &= set - 1;
            index
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(txs: &[(i64, u64, &[usize])]) -> Problem {
        Problem {
            ratios: txs
                .iter()
                .map(|(fee, weight, _)| Ratio {
                    fee: *fee,
                    weight: *weight,
                })
                .collect(),
            parents: txs
                .iter()
                .map(|(_, _, parents)| parents.iter().fold(0, |set, p| set | (1 << p)))
                .collect(),
        }
    }

    #[test]
    fn a_child_pays_for_its_parent() {
        let solution = problem(&[(1, 10, &[]), (5, 10, &[]), (30, 10, &[0])]).solve();
        assert_eq!(solution.order, [0, 2, 1]);
        assert_eq!(
            solution.chunks,
            [(2, Ratio { fee: 31, weight: 20 }), (1, Ratio { fee: 5, weight: 10 })]
        );
    }

    #[test]
    fn a_poor_child_does_not_hold_its_parent_back() {
        let solution = problem(&[(10, 10, &[]), (1, 10, &[0])]).solve();
        assert_eq!(solution.chunks.len(), 2);
        assert_eq!(solution.order, [0, 1]);
    }

    #[test]
    fn two_children_pay_for_one_parent_together() {
        // Neither child alone lifts the parent above the other's set; merged they form one chunk.
        let solution = problem(&[(0, 20, &[]), (20, 10, &[0]), (18, 10, &[0])]).solve();
        assert_eq!(solution.order, [0, 1, 2]);
        assert_eq!(solution.chunks, [(3, Ratio { fee: 38, weight: 40 })]);
    }

    #[test]
    fn parents_come_first_whatever_their_numbers() {
        // A chain whose oldest transaction has the highest number, as after a reorganisation.
        let solution = problem(&[(9, 1, &[1]), (1, 1, &[2]), (1, 1, &[])]).solve();
        assert_eq!(solution.order, [2, 1, 0]);
        assert_eq!(solution.chunks.len(), 1);
    }

    #[test]
    fn a_full_cluster_is_put_in_order_with_falling_chunks() {
        // Every transaction spends two earlier ones; fees jump about.
        let txs: Vec<(i64, u64, Vec<usize>)> = (0..MAX_CLUSTER)
            .map(|index| {
                let parents = if index < 2 { vec![] } else { vec![index - 1, index / 2] };
                ((index as i64 * 37) % 101, 100 + (index as u64 * 13) % 50, parents)
            })
            .collect();
        let borrowed: Vec<(i64, u64, &[usize])> = txs.iter().map(|(f, w, p)| (*f, *w, p.as_slice())).collect();
        let solution = problem(&borrowed).solve();
        let place = |index: usize| solution.order.iter().position(|at| *at == index);
        for (index, (_, _, parents)) in txs.iter().enumerate() {
            assert!(parents.iter().all(|parent| place(*parent) < place(index)));
        }
        assert_eq!(solution.order.len(), MAX_CLUSTER);
        assert_eq!(
            solution.chunks.iter().map(|(count, _)| count).sum::<usize>(),
            MAX_CLUSTER
        );
        for pair in solution.chunks.windows(2) {
            assert_ne!(pair[1].1.cmp_rate(&pair[0].1), Ordering::Greater);
        }
    }
}
